# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The tracker with what stands before it: decoding, tone mapping, registration. One owner."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ainet_ros.tracker import Box, Target, Track, Tracker
from ainet_ros.tracker.device import out_of_memory
from ainet_ros.vision.encoding import to_rgb
from ainet_ros.vision.registration import Registration

from .images import decode
from .pairing import Pair
from .parameters import TrackerParameters
from .settings import Settings

Image = npt.NDArray[np.uint8]
Images = tuple[Image, Image]
Result = TypeVar("Result")

NO_NUMBER = "the network's answer is no number: the target is LOST; are the weights sound?"


class OutOfMemory(MemoryError):
    """The network does not fit into the memory, at the second attempt either.

    what: for which work of it. said: by the error that came of it, in one line.
    """

    def __init__(self, what: str, said: str) -> None:
        super().__init__(f"{what} ({said})")
        self.what, self.said = what, said


class Started(NamedTuple):
    """What came of `Engine.init`."""

    target_id: int
    box: Box
    """x, y, w, h in pixels of the RGB image."""
    replaced: list[int]
    """Ids of the targets whose place it took."""


class Answer(NamedTuple):
    """What the engine makes of a pair."""

    tracks: dict[int, Track]
    """By the targets' ids, in order of their start; empty while there is no target."""
    changed: dict[int, Track]
    """Those of `tracks` whose state is another than before."""
    images: Images | None
    """RGB and thermal as the tracker saw them; None where nobody needed them."""
    decode_ms: float
    remarks: Sequence[str] = ()
    """What the user should know of how it came about."""


@dataclass
class Followed:
    """A target, and the last pair that it was followed through."""

    target: Target
    number: int
    size: tuple[int, int]
    """Height and width of the RGB image, in whose pixels the target's boxes are."""

    def scale(self, size: tuple[int, int]) -> None:
        """Take the boxes into an image of another size and the same view."""
        y, x = (new / old for new, old in zip(size, self.size, strict=True))
        target = self.target
        target.box = scaled(target.box, x, y)
        if target.candidate is not None:
            target.candidate = scaled(target.candidate, x, y)
        self.size = size


def scaled(box: Box, x: float, y: float) -> Box:
    """The box with its sides multiplied."""
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


class Engine:
    """Follows targets through pairs of image messages. Not thread safe: one owner."""

    def __init__(self, tracker: Tracker, settings: Settings, ids: Iterator[int]) -> None:
        """ids: of the targets to come."""
        self._tracker = tracker
        self.device = str(tracker.device)
        """Where the network runs."""
        self._followed: dict[int, Followed] = {}
        self._ids = ids
        self._rgb_size: tuple[int, int] | None = None  # height, width of the last RGB image
        self._tone_map = settings.tone_map
        self._registration = Registration("none")
        self.apply(settings)

    @classmethod
    def load(cls, parameters: TrackerParameters, ids: Iterator[int]) -> Engine:
        """Load the weights onto the device and run them, so that the first pair is quick.

        ids: of the targets to come. Raises ValueError or OSError naming what is wrong: weights,
        device or parameters; and OutOfMemory.
        """
        settings = Settings.of(parameters)
        tracker, _ = twice(
            lambda: Tracker.load(
                parameters.weights,
                parameters.device,
                parameters.precision,
                compile=parameters.compile,
            ),
            f"the memory of device {parameters.device} does not hold the network",
        )
        return cls(tracker, settings, ids)

    def close(self) -> None:
        """Give back the memory of the network, a GPU's too. Nothing can be asked any more."""
        self._followed = {}
        del self._tracker
        torch.cuda.empty_cache()  # nothing where there is none

    def apply(self, settings: Settings) -> None:
        """Take new settings from the next pair on."""
        # Else a change of any parameter would have the thermal image flicker.
        settings.tone_map.go_on_from(self._tone_map)
        self._tone_map = settings.tone_map
        if settings.registration is not None:
            self._registration = settings.registration
        self._tracker.set_thresholds(*settings.thresholds)
        self._tracker.search_windows = settings.search_windows
        self._most_targets = settings.max_targets

    def init(self, pair: Pair, number: int, box: Box, *, normalized: bool, add: bool) -> Started:
        """Start on a target, given in pixels of the RGB image or fractions of it.

        number: of the pair in the order of arrival; the target is looked for in later ones. It
        takes the place of all targets, or with `add` a place beside them. Raises ValueError where
        images or box do not serve, or there is no room for another; all is then as before.
        """
        if not self._followed:
            self._tone_map.reset()  # what it learnt may be long past
        kept = self._followed if add else {}
        if len(kept) >= self._most_targets:
            raise ValueError(
                f"{len(kept)} targets are tracked, as many as the parameter max_targets allows: "
                "reset one, or raise max_targets"
            )
        rgb, thermal = self._images(pair)
        if normalized:
            height, width = rgb.shape[:2]
            x, y, w, h = box
            box = (x * width, y * height, w * width, h * height)

        def start() -> Target:
            target = self._tracker.start(rgb, thermal, box)
            if kept:  # so many in one batch are to be sure of
                targets = [*(f.target for f in kept.values()), target]
                self._tracker.advance(rgb, thermal, [replace(target) for target in targets])
            return target

        try:
            target, _ = twice(start, self._too_much(len(kept) + 1))
        except OutOfMemory as error:
            remedy = "reset one first" if kept else "make room, or take smaller weights"
            raise ValueError(f"{error.what}: {remedy} ({error.said})") from None
        replaced = [target_id for target_id in self._followed if target_id not in kept]
        target_id = next(self._ids)
        self._followed = {**kept, target_id: Followed(target, number, rgb.shape[:2])}
        return Started(target_id, target.box, replaced)

    def reset(self, target_id: int) -> list[int]:
        """Drop a target (0: every target); return the ids of those dropped.

        Raises ValueError where there is none of that id.
        """
        dropped = list(self._followed) if target_id == 0 else [target_id]
        if not self._followed.keys() >= set(dropped):
            ids = ", ".join(map(str, self._followed))
            tracked = f"tracked are {ids}" if ids else "there is no target"
            raise ValueError(f"no target has the id {target_id}: {tracked}")
        for dropped_id in dropped:
            del self._followed[dropped_id]
        return dropped

    def process(self, pair: Pair, number: int, *, images_wanted: bool) -> Answer | None:
        """Track through a pair, of that number in the order of arrival.

        A target that was followed through a later one already is left out: the worker goes back
        where a target is started on an older pair. None where this is so for all of them. Raises
        ValueError where the images do not serve, and OutOfMemory.
        """
        waiting = {k: f for k, f in self._followed.items() if f.number < number}
        if self._followed and not waiting:
            return None
        if not waiting and not images_wanted and self._rgb_size is not None:
            return Answer({}, {}, None, 0.0)
        start = time.perf_counter()
        images = self._images(pair)
        decode_ms = (time.perf_counter() - start) * 1e3
        states = {k: f.target.state for k, f in waiting.items()}
        tracks: dict[int, Track] = {}
        remarks = []
        if waiting:
            remarks += scale(waiting.values(), images[0].shape[:2])
            targets = [followed.target for followed in waiting.values()]
            found, trouble = twice(
                lambda: self._tracker.advance(*images, targets), self._too_much(len(targets))
            )
            if trouble:
                remarks.append(f"memory ran out, a second attempt went well: {trouble}")
            if not all(math.isfinite(track.score) for track in found):
                remarks.append(NO_NUMBER)
            tracks = dict(zip(waiting, found, strict=True))
            for followed in waiting.values():
                followed.number = number
        changed = {k: track for k, track in tracks.items() if track.state is not states[k]}
        return Answer(tracks, changed, images, decode_ms, remarks)

    def _too_much(self, targets: int) -> str:
        plural = "s" if targets > 1 else ""
        return (
            f"the memory of {self.device} does not hold the network with {targets} target{plural}"
        )

    def _images(self, pair: Pair) -> Images:
        """A silent camera's image is black, as where cameras are dead in training."""
        if pair.rgb is not None:
            rgb = to_rgb(decode(pair.rgb))
            self._rgb_size = rgb.shape[:2]
        elif self._rgb_size is None:
            raise ValueError("the RGB camera fell silent before the size of its images was known")
        else:
            rgb = np.zeros((*self._rgb_size, 3), np.uint8)
        if pair.thermal is None:
            return rgb, np.zeros(rgb.shape[:2], np.uint8)
        thermal = self._tone_map(decode(pair.thermal))
        return rgb, self._registration.warp(thermal, (rgb.shape[1], rgb.shape[0]))


def scale(followed: Collection[Followed], size: tuple[int, int]) -> list[str]:
    """Have the boxes be of RGB images of this size (height, width); where the last ones were of
    another, what the user should know."""
    before = {one.size for one in followed if one.size != size}
    for one in followed:
        one.scale(size)
    height, width = size
    return [
        f"the RGB images are {width}x{height} now, before {old_width}x{old_height}: the boxes are "
        "scaled"
        for old_height, old_width in before
    ]


def twice(step: Callable[[], Result], what: str) -> tuple[Result, str]:
    """The step's result; where memory ran out, that of a second attempt, and why the first failed.

    Raises OutOfMemory with `what` where memory runs out again.
    """
    try:
        return step(), ""
    except Exception as error:
        if not out_of_memory(error):
            raise
        first = in_one_line(error)
    # After the handler, for the error holds what the step had taken.
    torch.cuda.empty_cache()
    try:
        return step(), first
    except Exception as error:
        if not out_of_memory(error):
            raise
        second = in_one_line(error)
    torch.cuda.empty_cache()
    raise OutOfMemory(what, second)


def in_one_line(error: Exception) -> str:
    """What it says, without the C++ that torch adds below."""
    return (str(error).splitlines() or [type(error).__name__])[0]
