# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What processes hold in the course of a long run, and whether that grows."""

import contextlib
import csv
import dataclasses
import re
import threading
import time
from pathlib import Path

import numpy as np

MEBIBYTE = 2**20
HELD = {"threads": "threads", "handles": "file handles", "segments": "shared memory segments"}
"""What is counted, as a page names it."""
END = 1 / 6
"""Share of the samples after the warm-up that is its start, and its end."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Of one process."""

    at: float
    """Seconds since the start, or the number of a cycle."""
    process: str
    memory: float
    """Resident, MiB; shared memory counts."""
    threads: int
    handles: int
    segments: int
    """Files of /dev/shm that it has mapped."""


def look(process, pid, at):
    """A sample. Raises FileNotFoundError or ProcessLookupError where the process has ended."""
    folder = Path("/proc", str(pid))
    status = (folder / "status").read_text()
    memory = re.search(r"VmRSS:\s+(\d+) kB", status)
    if memory is None:  # it has ended and was not waited for
        raise ProcessLookupError(f"{process} has ended")
    return Sample(
        at,
        process,
        int(memory[1]) * 1024 / MEBIBYTE,
        len(list((folder / "task").iterdir())),
        len(list((folder / "fd").iterdir())),
        len(set(re.findall(r"/dev/shm/\S+", (folder / "maps").read_text()))),
    )


class Samples:
    """Samples, each in a CSV file as soon as it is taken."""

    def __init__(self, path):
        self.taken = []
        self._lock = threading.Lock()
        self._file = path.open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(field.name for field in dataclasses.fields(Sample))

    def take(self, pids, at):
        """pids: by the names of the processes; those that have ended are left out."""
        for process, pid in pids.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                sample = look(process, pid, at)
                with self._lock:
                    self.taken.append(sample)
                    self._rows.writerow(dataclasses.astuple(sample))
        with self._lock:
            self._file.flush()

    @contextlib.contextmanager
    def every(self, period_s, pids):
        """Take samples in a thread meanwhile. pids: a function."""
        began, ended = time.monotonic(), threading.Event()

        def run():
            while not ended.wait(period_s):
                self.take(pids(), time.monotonic() - began)

        thread = threading.Thread(target=run, name="samples")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self):
        self._file.close()


@dataclasses.dataclass(frozen=True)
class Trend:
    """Of one process, after the warm-up."""

    process: str
    memory: tuple[float, float]
    """Mean at the start and at the end, MiB."""
    slope: float
    """Of the memory by least squares, MiB for 1 of `Sample.at`."""
    held: dict[str, tuple[int, int]]
    """Of each of HELD, the least at the start and at the end: what comes and goes is not in it."""

    def growth(self):
        """What is held more of at the end."""
        return [
            f"{self.process}: {first} {HELD[what]} at the start, {last} at the end"
            for what, (first, last) in self.held.items()
            if last > first
        ]


def trends(samples, warm_up):
    """The trend of each process over what was sampled after `warm_up`, where that is enough."""
    by_process = {}
    for sample in samples:
        if sample.at >= warm_up:
            by_process.setdefault(sample.process, []).append(sample)
    return [_trend(name, taken) for name, taken in by_process.items() if len(taken) > 2]


def _trend(process, samples):
    count = max(1, int(len(samples) * END))
    first, last = samples[:count], samples[-count:]
    memory = [sample.memory for sample in samples]
    return Trend(
        process,
        tuple(float(np.mean([sample.memory for sample in part])) for part in (first, last)),
        float(np.polyfit([sample.at for sample in samples], memory, 1)[0]),
        {
            what: tuple(min(getattr(sample, what) for sample in part) for part in (first, last))
            for what in HELD
        },
    )
