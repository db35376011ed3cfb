# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""How the node fares: what it reports on /diagnostics once a second, and says in its log."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ainet_ros.tracker import Track

from .pairing import Counts, NearestTime
from .parameters import TrackerParameters

PERIOD_S = 1.0
WINDOW_S = 5.0
"""Rates and latencies are of so long."""
MISFITS = 3
"""The median of so many says how far the images are apart."""
LATENCIES = 1000
"""Most answers that the latencies are of."""


class _Reading(NamedTuple):
    """The counts since the start, at a time."""

    time: float
    counts: Counts
    answered: int


@dataclass(frozen=True)
class Stream:
    """One camera in the window."""

    topic: str
    rate: float
    """Images a second."""
    silent_s: float
    """Since the last image, or since the node listens."""
    unmatched: int
    dropped: int
    late: int
    stands: bool
    """Its stamps do not advance."""
    same_s: float
    """So long the images that came have been the same."""


@dataclass(frozen=True)
class Report:
    """The last WINDOW_S seconds."""

    span_s: float
    streams: tuple[Stream, Stream]
    """RGB, thermal."""
    paired: float
    """Pairs a second."""
    apart_ms: float
    """The newest thermal stamp, thermal_offset added, less the newest RGB stamp."""
    answered: float
    """Pairs tracked through, a second."""
    latency_ms: tuple[float, float, float] | None
    """Stamp to answer: 50 %, 95 %, 99 %. None where no answer was, or stamps are of another
    clock."""
    states: Mapping[str, int]
    """Targets by state, in the last answer."""
    trouble: str
    """Why the last pair that failed did, or what was wrong with an answer; empty where nothing
    was."""
    totals: Mapping[str, int]
    """What became of the pairs since the start: each is answered, left out for a newer one, or
    failed, save those that wait."""
    misfit: float | None
    """How far the thermal image is off, as a share of the width; None while that is not known."""
    alone: str
    """The topic of the one camera that is tracked in while the other is silent; else empty."""

    def silence(self, parameters: TrackerParameters) -> dict[str, str]:
        """What is wrong with a camera, by its topic."""
        return {
            stream.topic: (
                f"no image on {stream.topic} for {stream.silent_s:.0f} s: is the camera running, "
                "and is the topic remapped to it?"
            )
            for stream in self.streams
            if stream.silent_s > parameters.camera_timeout
        }

    def frozen(self, parameters: TrackerParameters) -> dict[str, str]:
        """Cameras whose images come, and are all the same, by their topics."""
        return {
            stream.topic: (
                f"the images on {stream.topic} have been the same for {stream.same_s:.0f} s: does "
                "the camera hang?"
            )
            for stream in self.streams
            if stream.same_s > parameters.camera_timeout
        }

    def unpaired(self, parameters: TrackerParameters) -> str:
        """Why no images pair although both cameras deliver; empty where they do, or do not."""
        if self.span_s < WINDOW_S or self.paired or not all(s.rate for s in self.streams):
            return ""
        standing = [stream.topic for stream in self.streams if stream.stands]
        if standing:
            why = (
                f"the stamps on {' and '.join(standing)} do not advance; does the driver set them?"
            )
        elif abs(self.apart_ms) > parameters.slop * 1e3:
            why = (
                f"the newest thermal stamp is {self.apart_ms / 1e3:+.3f} s from the newest RGB "
                f"stamp, the slop is {parameters.slop:g} s; raise slop, or set thermal_offset; "
                "where not the stamps are wrong but the images late, raise queue_size"
            )
        else:
            why = "their stamps go back"
        return f"both cameras deliver, but no images pair: {why}"


class Health:
    """Looks at the pairing and keeps the last answers. `answered` may be called by any thread."""

    def __init__(self, topics: Sequence[str], pairing: NearestTime) -> None:
        self._topics = topics
        self._pairing = pairing
        self._lock = threading.Lock()
        # Below the lock.
        self._answers = 0
        self._failed = 0
        self._trouble = (float("-inf"), "")  # time, and what was wrong
        self._latencies: deque[tuple[float, float]] = deque(maxlen=LATENCIES)  # time, ms
        self._states: Counter[str] = Counter()
        self._misfits: deque[float] = deque(maxlen=MISFITS)
        # The caller's of `look`.
        now = time.monotonic()
        self._readings: deque[_Reading] = deque([_Reading(now, Counts(), 0)])
        self._heard = [now, now]
        self._newest: list[tuple[float, Any] | None] = [None, None]  # since the last look
        self._pictures: list[Any] = [None, None]  # of each camera, as long as it sends the same
        self._same_since = [now, now]
        self._same_s = [0.0, 0.0]

    def answered(self, tracks: Mapping[int, Track], latency_ms: float, remarks: str = "") -> None:
        """A pair was tracked through. latency_ms: 0 where the stamps are of another clock.
        remarks: what was not as it should be."""
        with self._lock:
            self._answers += 1
            self._states = Counter(track.state.value for track in tracks.values())
            if remarks:
                self._trouble = (time.monotonic(), remarks)
            if latency_ms:
                self._latencies.append((time.monotonic(), latency_ms))

    def failed(self, why: str) -> None:
        """A pair could not be tracked through."""
        with self._lock:
            self._failed += 1
            self._trouble = (time.monotonic(), why)

    def fits(self, misfit: float) -> None:
        """How far the thermal image was off, as a share of the width."""
        with self._lock:
            self._misfits.append(misfit)

    def saw(self, image: Any, side: int) -> None:
        """An image came, of the RGB camera (0) or the thermal one (1). The caller's of `look`."""
        self._newest[side] = time.monotonic(), image.data

    def look(self, skipped: int) -> Report:
        """The state of things now. To be called about every PERIOD_S.

        skipped: pairs that were left out for newer ones, since the start.
        """
        now = time.monotonic()
        self._compare()
        counts = self._pairing.counts
        with self._lock:
            answers, failed, states = self._answers, self._failed, dict(self._states)
            troubled, trouble = self._trouble
            misfits = list(self._misfits)
            recent = [ms for at, ms in self._latencies if at > now - WINDOW_S]
        copy = dataclasses.replace(
            counts,
            rgb=dataclasses.replace(counts.rgb),
            thermal=dataclasses.replace(counts.thermal),
        )
        before = self._readings[-1].counts
        self._readings.append(_Reading(now, copy, answers))
        while self._readings[1].time <= now - WINDOW_S:
            self._readings.popleft()
        first = self._readings[0]
        span = max(now - first.time, 1e-3)
        streams = []
        for index, name in enumerate(("rgb", "thermal")):
            new, last, old = (getattr(c, name) for c in (copy, before, first.counts))
            if new.received > last.received:
                self._heard[index] = now
            streams.append(
                Stream(
                    topic=self._topics[index],
                    rate=(new.received - old.received) / span,
                    silent_s=now - self._heard[index],
                    unmatched=new.unmatched - old.unmatched,
                    dropped=new.dropped - old.dropped,
                    late=new.late - old.late,
                    stands=self._pairing.standing[index],
                    same_s=self._same_s[index],
                )
            )
        percentiles = np.percentile(recent, [50, 95, 99]).tolist() if recent else None
        return Report(
            span_s=span,
            streams=(streams[0], streams[1]),
            paired=(copy.matched - first.counts.matched) / span,
            apart_ms=self._pairing.newest_difference_ns / 1e6,
            answered=(answers - first.answered) / span,
            latency_ms=tuple(percentiles) if percentiles else None,
            states=states,
            trouble=trouble if now - troubled < WINDOW_S else "",
            totals={
                "pairs": copy.matched + copy.alone,
                "pairs tracked through": answers,
                "pairs left out for newer ones": skipped,
                "pairs failed": failed,
            },
            misfit=float(np.median(misfits)) if len(misfits) == MISFITS else None,
            alone=next(
                (
                    self._topics[1 - index]
                    for index, silent in enumerate(self._pairing.silent)
                    if silent
                ),
                "",
            ),
        )

    def _compare(self) -> None:
        """The newest pictures with those of before: not every one, which while a camera hangs
        would cost milliseconds of each."""
        for side, newest in enumerate(self._newest):
            if newest is None:
                continue
            came, picture = newest
            if self._pictures[side] != picture:  # noise shows in the first few pixels
                self._pictures[side] = picture
                self._same_since[side] = came
            self._same_s[side] = came - self._same_since[side]
        self._newest = [None, None]


def statuses(
    name: str, report: Report, parameters: TrackerParameters, device: str
) -> list[DiagnosticStatus]:
    """The /diagnostics of node `name`: its cameras, the pairing and the tracker."""

    def status(part: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        shown = {k: f"{v:.1f}" if isinstance(v, float) else str(v) for k, v in values.items()}
        return DiagnosticStatus(
            level=level,
            name=f"{name}: {part}",
            message=message,
            hardware_id=device,
            values=[KeyValue(key=key, value=value) for key, value in shown.items()],
        )

    found = []
    silence, frozen = report.silence(parameters), report.frozen(parameters)
    for part, stream in zip(("RGB camera", "thermal camera"), report.streams, strict=True):
        level, message = DiagnosticStatus.OK, f"{stream.rate:.1f} Hz"
        if stream.topic in silence:
            level, message = DiagnosticStatus.ERROR, silence[stream.topic]
        elif stream.topic in frozen:
            level, message = DiagnosticStatus.WARN, frozen[stream.topic]
        found.append(
            status(
                part,
                level,
                message,
                {
                    "topic": stream.topic,
                    "rate (Hz)": stream.rate,
                    "last image (s ago)": stream.silent_s,
                    "the same image (s)": stream.same_s,
                    "without a partner": stream.unmatched,
                    "dropped": stream.dropped,
                    "late or twice": stream.late,
                },
            )
        )
    # A quicker camera has images to spare.
    possible = min(stream.rate for stream in report.streams)
    share = max(0.0, 1 - report.paired / possible) if possible else 0.0
    level, message = DiagnosticStatus.OK, f"{report.paired:.1f} pairs a second"
    if trouble := report.unpaired(parameters):
        level, message = DiagnosticStatus.ERROR, trouble
    elif share > parameters.unpaired_warn and report.span_s >= WINDOW_S:
        level = DiagnosticStatus.WARN
        message = f"{share:.0%} of the images find no partner: raise slop, or set thermal_offset"
    elif report.misfit is not None and report.misfit > parameters.misfit_warn:
        level = DiagnosticStatus.WARN
        message = (
            f"the thermal image is {report.misfit:.1%} of the width off: record both cameras and "
            "run `ainet calibrate`"
        )
    values: dict[str, Any] = {
        "pairs (Hz)": report.paired,
        "thermal less RGB stamp (ms)": report.apart_ms,
    }
    if report.misfit is not None:
        values["thermal image off (% of the width)"] = 100 * report.misfit
    found.append(status("pairing", level, message, values))

    level = DiagnosticStatus.OK
    message = ", ".join(f"{n} {state}" for state, n in report.states.items()) or "no target"
    values = {
        **{f"targets {state}": n for state, n in report.states.items()},
        "pairs tracked through (Hz)": report.answered,
        **report.totals,
        "weights": parameters.weights,
        "precision": parameters.precision,
        "memory (MiB)": memory_mib(),
    }
    if report.latency_ms is not None:
        for percent, ms in zip((50, 95, 99), report.latency_ms, strict=True):
            values[f"stamp to answer, {percent} % (ms)"] = ms
        late = report.latency_ms[1]
        if late > parameters.latency_warn:
            level = DiagnosticStatus.WARN
            message = f"95 % of the answers take up to {late:.0f} ms from the stamp; {message}"
    if report.alone:
        level = DiagnosticStatus.WARN
        message = f"DEGRADED, tracking in {report.alone} alone; {message}"
    if report.trouble:
        level = DiagnosticStatus.WARN if report.answered else DiagnosticStatus.ERROR
        message = f"{report.trouble}; {message}"
    found.append(status("tracker", level, message, values))
    return found


def memory_mib() -> float:
    """Resident memory of this process (Linux)."""
    kilobytes = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    return int(kilobytes) / 1024
