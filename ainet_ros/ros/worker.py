# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the thread that tracks does, and the pairs it may still need.

Executor callbacks only hand over: `Worker.put` a pair, `Worker.call` a function. What the thread
works on belongs to it alone, so that nothing of the tracker needs a lock.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

from .pairing import Pair

Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """A pair as it came in: its place in the order of arrival, its bytes, its arrival
    (`time.monotonic`, seconds)."""

    number: int
    pair: Pair
    size: int
    arrived: float


class RecentPairs:
    """The newest pair, always, and those before it within `seconds` (by stamp) and `max_bytes`.

    Stamps that jump back forget what came before the jump.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self.seconds = seconds
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: deque[Entry] = deque()
        self.count = 0
        """Pairs ever added."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def newest(self) -> Entry | None:
        return self._entries[-1] if self._entries else None

    @property
    def oldest(self) -> Entry | None:
        return self._entries[0] if self._entries else None

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def add(self, pair: Pair, size: int) -> Entry:
        if self.newest is not None and pair.rgb_stamp <= self.newest.pair.rgb_stamp:
            self.clear()
        self.count += 1
        entry = Entry(self.count, pair, size, time.monotonic())
        self._entries.append(entry)
        self.bytes += size
        since = pair.rgb_stamp - self.seconds * 1e9
        while len(self._entries) > 1 and (
            self._entries[0].pair.rgb_stamp < since or self.bytes > self.max_bytes
        ):
            self.bytes -= self._entries.popleft().size
        return entry

    def nearest(self, stamp_ns: int) -> Entry | None:
        """The pair whose RGB stamp is nearest to `stamp_ns`."""
        return min(
            self._entries, key=lambda entry: abs(entry.pair.rgb_stamp - stamp_ns), default=None
        )

    def first_from(self, number: int) -> Entry | None:
        """The oldest pair that came in as `number` or later."""
        return next((entry for entry in self._entries if entry.number >= number), None)


class Worker:
    """Runs the functions given to `call` in order, then `handle`s the newest pair, in one thread.

    Pairs that come while the thread is busy replace one another: the newest is always next. Only
    after `resume_from` an older pair does the thread go through the recent pairs up to the newest,
    skipping as many as it must to be there within `catch_up_s` seconds. `handle` is told whether
    the thread has been at that pair, or past it, before.

    An exception in `handle` goes to `failed` and the thread goes on; one in a called function
    goes to its future.
    """

    def __init__(
        self,
        handle: Callable[[Entry, bool], None],
        failed: Callable[[Exception], None],
        recent: RecentPairs,
        catch_up_s: float,
    ) -> None:
        self._handle = handle
        self._failed = failed
        self._changed = threading.Condition()
        # Below the condition: shared with the callers' threads.
        self.recent = recent
        self.catch_up_s = catch_up_s
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._stopping = False
        self._seen = 0  # number of the newest pair handled, or forgotten
        self.skipped = 0
        """Pairs left out for newer ones since `forget`; some may be caught up with later."""
        # The thread's own.
        self._last = 0  # number of the last pair handled
        self._deadline: float | None = None  # of a catch-up
        self._step_s = 0.0  # a smoothed time of `handle`

    def run(self) -> None:
        """Work, until `stop`. The thread that calls this is the worker's.

        It should be the process's first: in another, OpenMP's threads leave their cores after
        every part of the network, which then takes twice the time.
        """
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping or self._calls or self._next() is not None
                )
                if self._stopping:
                    return
                call = self._calls.popleft() if self._calls else None
                entry = self._next() if call is None else None
            if call is not None:
                run_call(*call)
            elif entry is not None:
                self._handle_entry(entry)

    def stop(self) -> None:
        """Have `run` return after what it is doing now. Functions that have not run are
        cancelled."""
        with self._changed:
            self._stopping = True
            for future, _ in self._calls:
                future.cancel()
            self._calls.clear()
            self._changed.notify_all()

    def put(self, pair: Pair, size: int) -> Entry:
        """Hand over a pair of `size` bytes."""
        with self._changed:
            entry = self.recent.add(pair, size)
            self._changed.notify_all()
        return entry

    def find(self, stamp_ns: int | None, wait_s: float) -> Entry:
        """The recent pair nearest to an RGB stamp, or the newest for None.

        Waits up to `wait_s` seconds for a pair that is not older than the stamp: a request may
        overtake the images it speaks of.

        Raises:
            LookupError: there is none; the message says why and what to do.
        """

        def complete() -> bool:
            newest = self.recent.newest
            return newest is not None and (stamp_ns is None or newest.pair.rgb_stamp >= stamp_ns)

        with self._changed:
            in_time = self._changed.wait_for(complete, wait_s)
            newest, oldest = self.recent.newest, self.recent.oldest
            if newest is None or oldest is None:
                raise LookupError(
                    "no pair of images has come in yet: check that both cameras publish, that "
                    "their topics are remapped to rgb/image_raw and thermal/image_raw, and that "
                    "their stamps agree within the parameter slop"
                )
            if stamp_ns is None:
                return newest
            if not in_time:
                ahead = (stamp_ns - newest.pair.rgb_stamp) / 1e9
                raise LookupError(
                    f"the stamp is {ahead:.3f} s ahead of the newest pair: give the stamp of an "
                    "image already received, or zero for the newest"
                )
            before = (oldest.pair.rgb_stamp - stamp_ns) / 1e9
            if before > 0:
                raise LookupError(
                    f"the stamp is {before:.3f} s older than the oldest pair kept "
                    f"({len(self.recent)} pairs): draw the box on a newer image, or raise the "
                    "parameters history_s and history_mb"
                )
            entry = self.recent.nearest(stamp_ns)
            assert entry is not None
            return entry

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Have the thread run `function` before it handles another pair."""
        future: Future[Result] = Future()
        with self._changed:
            if self._stopping:
                future.cancel()
            else:
                self._calls.append((future, function))
                self._changed.notify_all()
        return future

    def ask(self, function: Callable[[], Result], timeout_s: float | None = None) -> Result:
        """What `function` returns, or raises, in the thread.

        Raises FutureTimeoutError where the thread has not begun with it within so long; it is not
        run then. Once begun, it is waited for: what it does is done, and must be told.
        """
        future = self.call(function)
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            if future.cancel():
                raise
            return future.result()

    def newest(self) -> Entry | None:
        """The newest of the recent pairs. `recent` itself may change between two looks at it."""
        with self._changed:
            return self.recent.newest

    def limit(self, history_s: float, history_bytes: int, catch_up_s: float) -> None:
        """Change the bounds, from the next pair on."""
        with self._changed:
            self.recent.seconds = history_s
            self.recent.max_bytes = history_bytes
            self.catch_up_s = catch_up_s

    def forget(self) -> None:
        """Drop the recent pairs, and count anew."""
        with self._changed:
            self.recent.clear()
            self._seen, self.skipped = self.recent.count, 0

    def resume_from(self, entry: Entry) -> None:
        """Go on with the pairs after `entry`. Only for functions run by `call`."""
        self._last = entry.number
        self._deadline = time.monotonic() + self.catch_up_s

    def _next(self) -> Entry | None:
        newest = self.recent.newest
        if newest is None or newest.number <= self._last:
            return None
        if self._deadline is None:
            return newest
        behind = newest.number - self._last
        steps = (self._deadline - time.monotonic()) / max(self._step_s, 1e-3)
        stride = math.ceil(behind / max(1.0, steps))
        return self.recent.first_from(self._last + stride)

    def _handle_entry(self, entry: Entry) -> None:
        start = time.monotonic()
        self._last = entry.number
        with self._changed:
            again = entry.number <= self._seen
            self.skipped += max(0, entry.number - self._seen - 1)
            self._seen = max(self._seen, entry.number)
        try:
            self._handle(entry, again)
        except Exception as error:  # whatever it was, the thread goes on
            self._failed(error)
        took = time.monotonic() - start
        self._step_s = took if self._step_s == 0 else 0.7 * self._step_s + 0.3 * took
        with self._changed:
            newest = self.recent.newest
            if newest is None or newest.number <= entry.number:
                self._deadline = None  # caught up


def run_call(future: Future[Any], function: Callable[[], Any]) -> None:
    """Run the function, unless the future was cancelled, and put its result there."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as error:  # the caller's to judge
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise  # Ctrl-C ends this thread too
