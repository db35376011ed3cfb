# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A tracker over the sequences of a benchmark, in parallel and resumable.

Each sequence leaves two files in the folder of results: SEQUENCE.txt, x,y,w,h a line a frame as
the benchmarks' tools read it, and SEQUENCE.json with who made it and how fast. A sequence whose
files are complete and of the same maker is not run again.

Under torchrun each process runs its share of the sequences, and the first one goes on when all
files are there; the folder must be shared between the machines.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import ainet_ros
from ainet_ros.files import digest, write_whole
from ainet_ros.vision import benchmarks
from ainet_ros.vision import boxes as box_files

from . import one_pass

Maker = Mapping[str, Any]
"""What made the results: the tracker's name, its weights and version, the stream."""
PROGRAM = ("network", "tracker", "vision", "evaluation/one_pass.py")
"""What turns pairs of images into boxes, in the package."""
POLL = 0.2  # seconds


@dataclass(frozen=True)
class Results:
    """The results of one sequence.

    Attributes:
        boxes: (N, 4) float64 x, y, w, h, of every frame.
        fps: frames a second of the tracker; None where the files do not say.
        device: it ran on, and how many trackers side by side; as `fps`.
        maker: as `fps`.
        start: the box that it was started with, in the first frame; as `fps`.
    """

    boxes: npt.NDArray[np.float64]
    fps: float | None = None
    device: str | None = None
    maker: Maker | None = None
    start: list[float] | None = None


@dataclass(frozen=True)
class Share:
    """The part of one process among those of its torchrun."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Its number among those of its machine."""

    @classmethod
    def from_environment(cls) -> Share:
        """As torchrun says it; all of it without torchrun.

        Raises ValueError where its variables are no numbers that fit together.
        """
        values = [
            os.environ.get(name, default)
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        ]
        rank, count, local = (int(v) if v.isdecimal() else -1 for v in values)
        if not (0 <= rank < count and local >= 0):
            raise ValueError(f"RANK, WORLD_SIZE, LOCAL_RANK {values} do not fit together")
        return cls(rank, count, local)

    def of(self, sequences: Sequence[benchmarks.Sequence]) -> list[benchmarks.Sequence]:
        """The share of the sequences, about as many frames for each process."""
        ordered = sorted(sequences, key=lambda s: (-len(s.source), s.name))
        return ordered[self.rank :: self.count]


@dataclass(frozen=True)
class Runner:
    """Runs a tracker over sequences.

    Attributes:
        make: makes the tracker; picklable where `workers` is more than 1.
        maker: what `make` makes.
        stream: of `one_pass.STREAMS`.
        results: the folder, which is made.
        workers: processes on this machine, each with a tracker of its own.
        share: of this process.
    """

    make: Callable[[], one_pass.PairTracker]
    maker: Maker
    stream: str
    results: Path
    workers: int = 1
    share: Share = Share()

    def run(
        self, sequences: Sequence[benchmarks.Sequence], bar: tqdm, strict: bool = False
    ) -> dict[str, str]:
        """Runs what is not there yet, and in the first process waits for all the others.

        Args:
            sequences: all of them, the same in each process.
            bar: of frames; its total is set.
            strict: stop at the first fault instead of going on with the next sequence.

        Returns:
            By their names, the sequences that have no results, and what is wrong with each.

        Raises:
            OSError: the results cannot be written.
            ValueError: the tracker cannot be made; with `strict`, what would be returned.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        waiting = sequences if self.share.rank == 0 else self.share.of(sequences)
        bar.reset(sum(len(sequence.source) for sequence in waiting))
        faults: dict[str, str] = {}
        todo = []
        for sequence in self.share.of(sequences):
            if self._is_done(sequence):
                bar.update(len(sequence.source))
            else:
                _clear(self.results, sequence.name)
                todo.append(sequence)
        self._run_here(todo, bar, faults, strict)
        if self.share.rank == 0 and self.share.count > 1:
            own = {sequence.name for sequence in self.share.of(sequences)}
            self._wait([s for s in sequences if s.name not in own], bar, faults, strict)
        return faults

    def _is_done(self, sequence: benchmarks.Sequence) -> bool:
        """Results that do not say who made them are taken as they are."""
        try:
            found = read(self.results, sequence)
        except (OSError, ValueError):
            return False
        if found.maker is None:
            return True
        return found.maker == dict(self.maker) and found.start == list(map(float, sequence.start))

    def _run_here(
        self,
        todo: list[benchmarks.Sequence],
        bar: tqdm,
        faults: dict[str, str],
        strict: bool,
    ) -> None:
        done = self._in_order(todo, bar) if self.workers < 2 else self._in_workers(todo, bar)
        for sequence, fault in done:
            if fault is None:
                continue
            # For the process that waits for it.
            write_whole(
                _record(self.results, sequence.name), json.dumps({"fault": fault}).encode()
            )
            if strict:
                raise ValueError(fault)
            faults[sequence.name] = fault

    def _in_order(
        self, todo: list[benchmarks.Sequence], bar: tqdm
    ) -> Iterator[tuple[benchmarks.Sequence, str | None]]:
        if not todo:
            return
        tracker = self._make()
        for sequence in todo:
            bar.set_description(sequence.name)
            yield sequence, self._run_one(sequence, tracker, lambda: bar.update())

    def _in_workers(
        self, todo: list[benchmarks.Sequence], bar: tqdm
    ) -> Iterator[tuple[benchmarks.Sequence, str | None]]:
        count = min(self.workers, len(todo))
        if not count:
            return
        # Forked processes and the threads of torch do not agree.
        context = get_context("spawn")
        frames = context.Value("q", 0)
        threads = max(1, torch.get_num_threads() // count)
        start = bar.n
        with ProcessPoolExecutor(
            count, context, initializer=_start_worker, initargs=(self, frames, threads)
        ) as pool:
            jobs = {pool.submit(_work, sequence): sequence for sequence in todo}
            try:
                while jobs:
                    done, _ = wait(jobs, POLL, FIRST_COMPLETED)
                    if (advance := start + frames.value - bar.n) > 0:
                        bar.update(advance)
                    for job in done:
                        yield jobs.pop(job), job.result()
            except BrokenProcessPool:
                raise OSError(
                    f"one of {count} workers died, for want of memory perhaps; what is done stays "
                    "done: go on with fewer"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _make(self) -> one_pass.PairTracker:
        """The tracker, on this process's own GPU of several."""
        if self.share.count > 1 and torch.cuda.is_available():
            torch.cuda.set_device(self.share.local % torch.cuda.device_count())
        return self.make()

    def _run_one(
        self,
        sequence: benchmarks.Sequence,
        tracker: one_pass.PairTracker,
        on_frame: Callable[[], object],
    ) -> str | None:
        """Writes a sequence's results; returns what is wrong with it."""
        try:
            result = one_pass.run(
                tracker,
                sequence.source,
                sequence.start,
                stream=self.stream,
                on_step=lambda _: on_frame(),
            )
        except (ValueError, OSError) as error:
            return f"{sequence.name}: {error}"
        record = {
            "maker": dict(self.maker),
            "start": list(map(float, sequence.start)),
            "fps": result.fps if np.isfinite(result.fps) else None,
            "device": _device(tracker, self.workers),
        }
        write_whole(_record(self.results, sequence.name), json.dumps(record).encode())
        box_files.write(_boxes(self.results, sequence.name), result.boxes)
        return None

    def _wait(
        self,
        others: list[benchmarks.Sequence],
        bar: tqdm,
        faults: dict[str, str],
        strict: bool,
    ) -> None:
        """Waits for the results of the other processes.

        What one of them could not do is tried here: its record may be of an earlier time.
        """
        while others:
            missing = []
            for sequence in others:
                if self._is_done(sequence):
                    bar.update(len(sequence.source))
                elif _has_fault(self.results, sequence.name):
                    self._run_here([sequence], bar, faults, strict)
                else:
                    missing.append(sequence)
            others = missing
            if others:
                bar.set_description(f"waiting for {len(others)} sequences of other processes")
                time.sleep(POLL)


def made_by(weights: Path, **options: Any) -> Maker:
    """Our tracker as a maker: the network's file and this program, by what is in them."""
    package = Path(ainet_ros.__file__).parent
    sources = (package / part for part in PROGRAM)
    files = sorted(f for s in sources for f in (s.rglob("*.py") if s.is_dir() else [s]))
    return {
        "tracker": "AINet",
        "weights": digest(weights),
        "program": digest(*files),
        **options,
    }


def read(folder: Path, sequence: benchmarks.Sequence) -> Results:
    """The results of a sequence.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they cannot be read, or are not of as many frames as the sequence has.
    """
    path, record = _boxes(folder, sequence.name), _record(folder, sequence.name)
    boxes = box_files.read_raw(path)
    if len(boxes) != len(sequence.source):
        raise ValueError(f"{path}: {len(boxes)} boxes for {len(sequence.source)} frames")
    values = json.loads(record.read_text()) if record.is_file() else {}
    told = {name: values.get(name) for name in ("fps", "device", "maker", "start")}
    return Results(boxes, **told)


class _Worker:
    """What a worker process keeps between sequences."""

    runner: Runner
    frames: Any  # shared counter
    tracker: one_pass.PairTracker | None = None


def _start_worker(runner: Runner, frames: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    _Worker.runner, _Worker.frames = runner, frames


def _work(sequence: benchmarks.Sequence) -> str | None:
    def count() -> None:
        with _Worker.frames.get_lock():
            _Worker.frames.value += 1

    # Not in `_start_worker`, whose errors would not reach the user.
    _Worker.tracker = _Worker.tracker or _Worker.runner._make()
    return _Worker.runner._run_one(sequence, _Worker.tracker, count)


def _device(tracker: one_pass.PairTracker, workers: int) -> str:
    name = str(tracker.device)
    if name.startswith("cuda"):
        name = torch.cuda.get_device_name(tracker.device)
    return name if workers == 1 else f"{name}, {workers} trackers side by side"


def _boxes(folder: Path, name: str) -> Path:
    return folder / f"{name}.txt"


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _has_fault(folder: Path, name: str) -> bool:
    record = _record(folder, name)
    try:
        return "fault" in json.loads(record.read_text())
    except (OSError, ValueError):
        return False


def _clear(folder: Path, name: str) -> None:
    """The boxes first, so that none stand beside the record of others."""
    for path in (_boxes(folder, name), _record(folder, name)):
        path.unlink(missing_ok=True)
