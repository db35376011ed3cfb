# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""In how many threads the network runs beside other work on the same cores."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from statistics import median

import torch

TRIAL = 10
"""Runs that a number of threads is judged by: by the slowest but one of them."""
BUSY = 0.75
"""Share of the run that the calling thread had a core for; below that others take the cores."""
GAIN = 0.9
"""Of the time that a run took before: more threads have to be quicker than that while others take
the cores; fewer have to be quicker than all of it, for they leave the cores to them."""
HOLD_S = 2.0, 30.0
"""From one trial to the next; it doubles with each that is no gain."""


class Threads:
    """Chooses the number by trial, while other processes take the cores.

    PyTorch cuts each operation into as many parts as there are threads, and goes on when the last
    part is done: where a camera's driver has one of two cores for a moment, both threads wait.
    With one thread less the network leaves that core alone, and is quicker and steadier for it.
    Where the cores are the network's own, nothing is tried. Not thread safe: one owner.
    """

    def __init__(self, most: int) -> None:
        """most: threads where nothing disturbs; with 1 there is nothing to choose."""
        self.count = self._most = most
        """The threads of the next run."""
        self._runs: deque[tuple[float, float]] = deque(maxlen=TRIAL)  # seconds, share
        self._size = 0  # of the last run
        self._before: tuple[int, float] | None = None  # in a trial: threads and seconds before it
        self._hold_s, self._due = HOLD_S[0], 0.0
        self._fewer_next = True

    @contextlib.contextmanager
    def running(self, size: int) -> Iterator[None]:
        """The network runs in the block, on a batch of that size."""
        if self._most == 1:
            yield
            return
        usual = torch.get_num_threads()
        torch.set_num_threads(min(self.count, usual))
        start, own = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            torch.set_num_threads(usual)
        seconds = time.perf_counter() - start
        self.took(size, seconds, (time.thread_time() - own) / seconds, time.monotonic())

    def took(self, size: int, seconds: float, share: float, now: float) -> None:
        """Learn from a run, and choose for the next.

        size: of the batch. seconds: that it took. share: of that, the time in which the calling
        thread had a core. now: in seconds, of any clock.
        """
        if size != self._size:  # its times do not compare
            self._size = size
            self._end_trial(now, gained=False)
        self._runs.append((seconds, share))
        if len(self._runs) < TRIAL:
            return
        times, shares = zip(*self._runs, strict=True)
        slow, busy = sorted(times)[-2], median(shares) < BUSY
        if self._before is not None:
            count, before = self._before
            if self.count < count:
                self._end_trial(now, gained=slow < before)
            else:
                self._end_trial(now, gained=not busy or slow < GAIN * before)
        elif now >= self._due and (other := self._other(busy=busy)) != self.count:
            self._before = self.count, slow
            self.count = other
            self._runs.clear()

    def _other(self, *, busy: bool) -> int:
        """Another number to try, or the present one."""
        fewer = max(1, self.count - max(1, self.count // 4))
        more = min(self._most, self.count + max(1, self.count // 4))
        if busy and fewer < self.count and (self._fewer_next or more == self.count):
            return fewer
        return more

    def _end_trial(self, now: float, gained: bool) -> None:
        self._runs.clear()
        if self._before is None:
            return
        if gained:
            self._hold_s = HOLD_S[0]
        else:
            self.count = self._before[0]
            self._hold_s = min(2 * self._hold_s, HOLD_S[1])
            self._fewer_next = not self._fewer_next
        self._before, self._due = None, now + self._hold_s
