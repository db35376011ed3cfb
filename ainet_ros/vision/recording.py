# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What a tracker said while it was recorded: its answers, its events and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rosbags.highlevel import AnyReader

from ainet_ros.files import read_yaml

from .bag import PARAMETERS, PARTS, BagSource, opened
from .boxes import Boxes
from .encoding import stamp_ns

_TRACK = "ainet_ros/msg/Track"
_EVENT = "ainet_ros/msg/Event"
_CHANGE = "rcl_interfaces/msg/ParameterEvent"

PairStamps = tuple[int, int]
"""Stamps of an RGB and a thermal image in nanoseconds; 0 where that camera is silent."""
Quad = tuple[float, float, float, float]
"""x, y, w, h in pixels of the RGB image."""


class Answer(NamedTuple):
    """A Track message.

    Attributes:
        stamp_ns: of the pair.
        target_id: 0 where there was no target.
        state: NO_TARGET, TRACKING or LOST.
        score: 0 to 1.
    """

    stamp_ns: int
    pair: PairStamps
    target_id: int
    state: str
    score: float
    box: Quad


class Happening(NamedTuple):
    """An Event message; event: INIT, LOST, ...; pair and box have a meaning with INIT only."""

    stamp_ns: int
    event: str
    target_id: int
    pair: PairStamps
    box: Quad


@dataclass(frozen=True)
class Recording:
    """A tracker's messages, in the order that they came.

    Attributes:
        parameters: those, by name, of the tracker that the first target was started in, when it
            told them; empty where nobody wrote them.
        changed: names of those that were changed later.
    """

    answers: list[Answer]
    events: list[Happening]
    parameters: dict[str, Any]
    changed: list[str]

    @property
    def pairs(self) -> list[PairStamps]:
        """Those that were answered, in order of their stamps."""
        stamps = {answer.pair: answer.stamp_ns for answer in self.answers}
        return sorted(stamps, key=stamps.__getitem__)


@dataclass(frozen=True)
class RecordedTarget:
    """A target as it was tracked, from its start.

    Attributes:
        source: the pairs that the tracker went through for it, the one it was started on first.
        box: that it was started with, pixels of the RGB image.
        boxes: (N, 4) float64, the tracker's in each of the source's frames, the given one first.
        absent: pairs that the tracker went through and the recording does not hold.
    """

    recording: Recording
    target_id: int
    source: BagSource
    box: Quad
    boxes: Boxes
    absent: int


def read(path: Path) -> Recording:
    """Reads what a bag, or a recording of the node `recorder`, holds of a tracker.

    Raises ValueError where it cannot be read, or holds the answers of several trackers.
    """
    with opened(path) as bag:
        answers = [_answer(message) for message in _messages(bag, path, _TRACK)]
        events = [_happening(message) for message in _messages(bag, path, _EVENT)]
        changed = {
            change.name
            for message in _messages(bag, path, _CHANGE)
            for change in message.changed_parameters
        }
    return Recording(answers, events, _parameters(path), sorted(changed))


def first_target(
    path: Path, rate: float | None, rgb_topic: str, thermal_topic: str
) -> RecordedTarget | None:
    """The first target whose start was recorded, or None; the topics as for `open_source`.

    Raises ValueError where the recording does not hold the pair that it was started on.
    """
    recording = read(path)
    start = next((event for event in recording.events if event.event == "INIT"), None)
    if start is None:
        return None
    # A tracker that was started again counts its targets from 1 again.
    again = next(
        (
            event.stamp_ns
            for event in recording.events[recording.events.index(start) + 1 :]
            if event.event == "INIT" and event.target_id == start.target_id
        ),
        None,
    )
    answers = [
        answer
        for answer in recording.answers
        if answer.target_id == start.target_id and (again is None or answer.stamp_ns < again)
    ]
    pairs = [start.pair, *(answer.pair for answer in answers)]
    if len(set(pairs)) < len(pairs):
        raise ValueError(
            f"{path}: images with the same stamps were answered again, as of a bag that was "
            "played in a loop: give --box x,y,w,h"
        )
    source = BagSource(path, rate, rgb_topic, thermal_topic, pairs)
    if source.present[0] != 0:
        raise ValueError(
            f"{path}: the images that target {start.target_id} was started on are not in the "
            "recording: give --box x,y,w,h"
        )
    boxes = np.array([start.box, *(answer.box for answer in answers)], np.float64)
    return RecordedTarget(
        recording,
        start.target_id,
        source,
        start.box,
        boxes[source.present],
        len(pairs) - len(source),
    )


def _messages(bag: AnyReader, path: Path, kind: str) -> Sequence[Any]:
    connections = [c for c in bag.connections if c.msgtype == kind]
    topics = sorted({c.topic for c in connections})
    if len(topics) > 1:
        raise ValueError(
            f"{path}: holds several trackers: {', '.join(topics)}; to `ainet track` without them "
            "give --box x,y,w,h"
        )
    if not connections:
        return []
    return [bag.deserialize(data, kind) for _, _, data in bag.messages(connections)]


def _answer(track: Any) -> Answer:
    return Answer(
        stamp_ns(track.header.stamp),
        _pair(track),
        track.target_id,
        _constant(track, track.state),
        track.score,
        _quad(track.box),
    )


def _happening(event: Any) -> Happening:
    told = hasattr(event, "box")  # older messages do not say where a target was started
    return Happening(
        stamp_ns(event.header.stamp),
        _constant(event, event.event),
        event.target_id,
        _pair(event) if told else (0, 0),
        _quad(event.box) if told else (0.0, 0.0, 0.0, 0.0),
    )


def _pair(message: Any) -> PairStamps:
    """Of a Track or an Event."""
    rgb, thermal = stamp_ns(message.header.stamp), stamp_ns(message.thermal_stamp)
    return 0 if message.degraded and thermal else rgb, thermal


def _constant(message: Any, value: int) -> str:
    """The name of a value among the constants of a message's type."""
    constants = vars(type(message)).items()
    return next((name for name, own in constants if name.isupper() and own == value), str(value))


def _quad(box: Any) -> Quad:
    return float(box.x), float(box.y), float(box.width), float(box.height)


def _parameters(path: Path) -> dict[str, Any]:
    """Of a recording, or of the one that a part belongs to."""
    path = path.resolve()
    file = (path.parent if path.match(PARTS) else path) / PARAMETERS
    if not file.is_file():
        return {}
    values = read_yaml(file)
    try:
        return dict(values["/**"]["ros__parameters"])
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: no parameter file: {error}") from error
