# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pairing of two streams by stamp: each RGB image with the thermal image nearest to it in time.

Free of ROS, so that it can be tested message by message; `filters.NearestTimePairs` puts it
behind message_filters' interface.

A pair is given out as soon as no message still to come is likely to better it: the next one of a
stream is expected after the shortest of its last intervals. So two cameras of one rate and a small
offset are paired on the arrival of the later image and not one period after it. A message is given
up only when no partner can come, whatever the rhythm.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

JUMP_NS = 500_000_000
"""A stamp older than its stream's newest by more than this is a clock set back, not a late
message (a looping bag, a restarted simulation)."""

INTERVALS = 8
"""So many intervals of a stream bound the arrival of its next message from below."""


MISSED = 2
"""A stream is not silent before so many messages of it, and of the other's rhythm, are due."""


class Pair(NamedTuple):
    """An RGB and a thermal message that belong together, with their stamps in nanoseconds.

    One of the messages is None while its camera is silent. rgb_stamp is then the thermal stamp
    with the offset added, and thermal_stamp 0. Otherwise each is its message's own."""

    rgb: Any | None
    thermal: Any | None
    rgb_stamp: int
    thermal_stamp: int

    @property
    def degraded(self) -> bool:
        """Whether one camera is silent."""
        return self.rgb is None or self.thermal is None


@dataclass
class StreamCounts:
    """What became of the messages of one stream."""

    received: int = 0
    unmatched: int = 0
    """No partner within the slop."""
    dropped: int = 0
    """Pushed out of the full queue, or discarded when the clock was set back."""
    late: int = 0
    """Not newer than the message before it (out of order, a duplicate, a stamp never set)."""


@dataclass
class Counts:
    """Counts since the start; `matched` counts pairs, `alone` messages given out by themselves."""

    matched: int = 0
    alone: int = 0
    jumps: int = 0
    rgb: StreamCounts = field(default_factory=StreamCounts)
    thermal: StreamCounts = field(default_factory=StreamCounts)


class _Stream:
    """Messages of one stream that wait for a partner, oldest first, and its recent rhythm."""

    def __init__(self, counts: StreamCounts) -> None:
        self.counts = counts
        self.queue: deque[tuple[int, int, Any]] = deque()  # aligned stamp, own stamp, message
        self.newest: int | None = None
        self.last: int | None = None  # the last message's, late or not; outlives a fresh start
        self.stands = False  # the last message had the stamp of the one before
        self.intervals: deque[int] = deque(maxlen=INTERVALS)
        self.late_in_a_row = 0
        self.silent_for = 0  # messages of the other stream since the last of this one
        self.heard_at: int | None = None  # the other's newest when the last of this one came
        self.silent = False

    @property
    def period(self) -> int:
        """The shortest recent interval; 0 while none is known."""
        return min(self.intervals, default=0)

    @property
    def earliest_next(self) -> float:
        """No message to come has an aligned stamp below this."""
        return float("-inf") if self.newest is None else self.newest + 1

    @property
    def expected_next(self) -> float:
        """Nor, by the stream's rhythm, below this."""
        return float("-inf") if self.newest is None else self.newest + max(self.period, 1)

    def longest_silence(self, alone_ns: int) -> float:
        """Until the stream is silent; alone_ns: of `NearestTime`."""
        rhythm = statistics.median(self.intervals) if self.intervals else 0
        return max(alone_ns, MISSED * rhythm)

    def clear(self) -> None:
        self.counts.dropped += len(self.queue)
        self.queue.clear()
        self.newest = None
        self.late_in_a_row = 0


class NearestTime:
    """Pairs each RGB message with the nearest thermal message not yet used, one to one.

    - Only stamps at most `slop_ns` apart are paired; `offset_ns` is added to the thermal stamps
      first (for a thermal camera whose stamps lag or lead by a known time). Both may be changed
      between messages.
    - Pairs come out with strictly rising stamps in both streams. Where a stream's stamps jump
      back by more than `JUMP_NS`, or `queue_size` messages in a row are late, both streams
      start afresh.
    - A thermal message is withheld from an RGB message only where another RGB message is nearer
      to it by more than a quarter of the period. Without that margin two free-running cameras
      half a period apart would lose a third of their images to the jitter of their stamps.
    - At most `queue_size` messages of a stream wait. Where a stream is silent for that many
      messages of the other, only the newest of those is kept.
    - Where a stream that was heard before is silent for `alone_ns` by the stamps of the other, and
      for `MISSED` of its own intervals, the other's messages are given out alone until it is heard
      again. None waits for it for ever. The same stamp again is no sign of life, nor is one that
      cannot pair, as where a camera's clock is wrong when it is back.
    """

    def __init__(
        self, slop_ns: int, queue_size: int, offset_ns: int = 0, alone_ns: int | None = None
    ) -> None:
        if slop_ns < 0:
            raise ValueError(f"slop must not be negative, got {slop_ns} ns")
        if queue_size < 1:
            raise ValueError(f"queue size must be at least 1, got {queue_size}")
        self.slop_ns = slop_ns
        self.queue_size = queue_size
        self.offset_ns = offset_ns
        self.alone_ns = alone_ns
        self.counts = Counts()
        self._rgb = _Stream(self.counts.rgb)
        self._thermal = _Stream(self.counts.thermal)

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._rgb.queue) + len(self._thermal.queue)

    @property
    def newest_difference_ns(self) -> int:
        """Last thermal stamp, offset added, less last RGB stamp; 0 while one is unknown."""
        if self._rgb.last is None or self._thermal.last is None:
            return 0
        return self._thermal.last - self._rgb.last

    @property
    def standing(self) -> tuple[bool, bool]:
        """Whether the RGB and the thermal stamps stand still, as where a driver sets none."""
        return self._rgb.stands, self._thermal.stands

    @property
    def silent(self) -> tuple[bool, bool]:
        """Whether the RGB and the thermal stream are silent, so that the other goes alone."""
        return self._rgb.silent, self._thermal.silent

    def add_rgb(self, stamp_ns: int, message: Any) -> list[Pair]:
        """Take an RGB message; return the pairs, oldest first, that are now certain."""
        return self._add(self._rgb, self._thermal, stamp_ns, stamp_ns, message)

    def add_thermal(self, stamp_ns: int, message: Any) -> list[Pair]:
        """Take a thermal message; return the pairs, oldest first, that are now certain."""
        aligned = stamp_ns + self.offset_ns
        return self._add(self._thermal, self._rgb, aligned, stamp_ns, message)

    def _add(
        self, stream: _Stream, other: _Stream, aligned: int, stamp: int, message: Any
    ) -> list[Pair]:
        stream.counts.received += 1
        before = stream.last
        stream.stands, stream.last = aligned == before, aligned
        if stream.stands:  # twice, or of a camera that hangs: as if it had not come
            stream.counts.late += 1
            return []
        other.silent_for += 1
        if stream.silent and self._is_astray(stream, other, aligned):
            stream.counts.unmatched += 1
            return []
        stream.silent_for = 0
        stream.silent, stream.heard_at = False, other.newest
        if stream.newest is not None and aligned <= stream.newest:
            stream.late_in_a_row += 1
            back = stream.newest - aligned
            if back <= JUMP_NS and stream.late_in_a_row < max(self.queue_size, 2):
                stream.counts.late += 1
                return []
            self.counts.jumps += 1
            stream.clear()
            other.clear()
            stream.heard_at = other.heard_at = None
        if stream.newest is not None and before is not None and aligned > before:
            stream.intervals.append(aligned - before)
        stream.newest = aligned
        stream.late_in_a_row = 0
        stream.queue.append((aligned, stamp, message))
        if self._update_silence(other, aligned):
            return [self._newest_alone(stream, other)]
        pairs = list(self._certain_pairs())
        self._discard_unmatchable_thermal()
        self._bound(stream, other)
        return pairs

    def _update_silence(self, stream: _Stream, now: int) -> bool:
        """Whether a stream is silent. now: the other's newest stamp."""
        if self.alone_ns is None or stream.last is None:
            return False
        if stream.heard_at is None:
            stream.heard_at = now
        if stream.silent_for >= MISSED:
            longest = stream.longest_silence(self.alone_ns)
            stream.silent = stream.silent or now - stream.heard_at > longest
        return stream.silent

    def _is_astray(self, stream: _Stream, other: _Stream, aligned: int) -> bool:
        """Whether a message of a stream that was silent is too far from the other to pair with
        what waits or comes, while the other lives: by the stream's rhythm, as stamps tell nothing.
        """
        if self.alone_ns is None or other.newest is None:
            return False
        lives = other.silent_for * stream.period <= other.longest_silence(self.alone_ns)
        reach = self.slop_ns + max(self.alone_ns, self.queue_size * other.period)
        return lives and abs(aligned - other.newest) > reach

    def _newest_alone(self, stream: _Stream, silent: _Stream) -> Pair:
        aligned, stamp, message = stream.queue.pop()
        for waiting in (stream, silent):
            waiting.counts.dropped += len(waiting.queue)
            waiting.queue.clear()
        silent.newest = aligned  # what comes after it is to be newer
        self.counts.alone += 1
        if stream is self._rgb:
            return Pair(message, None, stamp, 0)
        return Pair(None, message, aligned, 0)

    def _certain_pairs(self) -> Iterator[Pair]:
        """Take from the queues, in order, every RGB message whose fate is certain."""
        rgb, thermal = self._rgb, self._thermal
        while rgb.queue:
            stamp, rgb_stamp, rgb_message = rgb.queue[0]
            index = self._nearest_thermal(stamp)
            if index is None:
                if thermal.earliest_next <= stamp + self.slop_ns:
                    return  # its partner may still come
                rgb.counts.unmatched += 1
                rgb.queue.popleft()
                continue
            other = thermal.queue[index][0]
            distance = abs(other - stamp)
            margin = min(rgb.period, thermal.period) // 4
            reach = distance - margin  # only a message nearer than this is preferred
            if len(rgb.queue) > 1 and abs(rgb.queue[1][0] - other) < reach:
                # Its nearest belongs to the next RGB message; the one before it may do.
                if index == 0 or stamp - thermal.queue[index - 1][0] > self.slop_ns:
                    rgb.counts.unmatched += 1
                    rgb.queue.popleft()
                    continue
                index -= 1
            elif _may_come_within(reach, stamp, thermal.expected_next) or (
                len(rgb.queue) == 1 and _may_come_within(reach, other, rgb.expected_next)
            ):
                return
            rgb.queue.popleft()
            for _ in range(index):
                thermal.queue.popleft()
            thermal.counts.unmatched += index
            _, thermal_stamp, thermal_message = thermal.queue.popleft()
            self.counts.matched += 1
            yield Pair(rgb_message, thermal_message, rgb_stamp, thermal_stamp)

    def _nearest_thermal(self, stamp: int) -> int | None:
        """Index of the waiting thermal message nearest to `stamp`, if one is within the slop."""
        queue = self._thermal.queue
        index = min(range(len(queue)), key=lambda i: abs(queue[i][0] - stamp), default=None)
        if index is None or abs(queue[index][0] - stamp) > self.slop_ns:
            return None
        return index

    def _discard_unmatchable_thermal(self) -> None:
        """Thermal messages that lie before every RGB message, present or to come."""
        rgb, thermal = self._rgb, self._thermal
        first_rgb = rgb.queue[0][0] if rgb.queue else rgb.earliest_next
        while thermal.queue and thermal.queue[0][0] + self.slop_ns < first_rgb:
            thermal.queue.popleft()
            thermal.counts.unmatched += 1

    def _bound(self, stream: _Stream, other: _Stream) -> None:
        limit = self.queue_size if other.silent_for < self.queue_size else 1
        while len(stream.queue) > limit:
            stream.queue.popleft()
            stream.counts.dropped += 1


def _may_come_within(reach: int, stamp: int, earliest: float) -> bool:
    """Whether a message not before `earliest` may lie nearer to `stamp` than `reach`."""
    return max(earliest - stamp, 0) < reach
