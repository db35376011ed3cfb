# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The recordings to train on. What a benchmark keeps as image files is read when a sample needs
it; all else is read once, into a cache that all worker processes map.

Pixels are kept as uint8: (H, W, 4) RGB and thermal, (H, W, 3) RGB or (H, W, 1) thermal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ainet_ros.vision.benchmarks import Sequence as Labelled
from ainet_ros.vision.benchmarks import open_benchmark
from ainet_ros.vision.sources import FolderSource

from . import reading
from .parts import Parts, Videos
from .reading import Cutout, Still, Track

Image = NDArray[Any]
logger = logging.getLogger(__name__)


class Unreadable(ValueError):
    """A frame that cannot be read, or whose box cannot be right; the message names it."""


class Recordings:
    """The parts of the recordings under `root`; the folder `cache` is for two files.

    A cache that was made from the same files is used as it is; one process makes it while others
    wait. `problems` names what was skipped. Picklable: another process maps the same file.

    Raises:
        FileNotFoundError: nothing to train on is under `root`; with `strict`, a part is missing.
        ValueError: `root` leads to the evaluation recordings; with `strict`, a broken image, a
            broken video or a bad box.
    """

    def __init__(self, root: Path, cache: Path, parts: Parts, strict: bool = False) -> None:
        reading.refuse_evaluation(root)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of training data {root}")
        problems: list[str] = []

        def skip(problem: str) -> None:
            if strict:
                raise ValueError(problem)
            logger.warning("skipped: %s", problem)
            problems.append(problem)

        opened = {
            name: _open(root, name, options, strict, skip)
            for name, options in parts.videos.items()
            if options.modality == "both" and options.labels == "files"
        }
        direct = [
            _track(name, parts.videos[name], sequence, skip)
            for name, sequences in opened.items()
            for sequence in sequences
            if _is_direct(parts.videos[name], sequence)
        ]
        copied = {
            name: kept
            for name, sequences in opened.items()
            if (kept := [s for s in sequences if not _is_direct(parts.videos[name], s)])
        }
        read = [*parts.stills, *(set(parts.videos) - set(opened)), *parts.crops, *copied]
        key = _key(root, sorted(set(read)), f"{reading.FORMAT} {strict} {parts}")
        self.pixels_path, index_path = reading.cache_files(cache, key)
        with _alone(cache):
            if not index_path.is_file():
                reading.Builder(root, cache, key, strict).build(parts, copied)
            values: dict[str, Any] = json.loads(index_path.read_text())
        self._images: list[list[int]] = values["images"]
        self.stills = [Still(**value) for value in values["stills"]]
        self.tracks = [Track(**value) for value in values["tracks"]]
        self.tracks += [track for track in direct if len(track.frames) > 1]
        self.cutouts = [Cutout(**value) for value in values["cutouts"]]
        for problem in _not_held_out(parts.videos, self.tracks):
            skip(problem)
        self.problems: list[str] = [*values["problems"], *problems]
        self._pixels: NDArray[np.uint8] | None = None
        if not (self.stills or self.tracks):
            raise FileNotFoundError(
                f"nothing to train on under {root}: {'; '.join(self.problems)}"
            )

    def image(self, number: int) -> Image:
        """The image of that number in the cache, (H, W, C) uint8, read-only."""
        if self._pixels is None:
            self._pixels = np.memmap(self.pixels_path, np.uint8, "r")
        offset, height, width, channels = self._images[number]
        size = height * width * channels
        return self._pixels[offset : offset + size].reshape(height, width, channels)

    def frame(self, track: Track, number: int) -> Image:
        """The image with the `number`-th box of a track, (H, W, C) uint8. Raises Unreadable."""
        if track.source is None:
            return self.image(track.images[number])
        frame, box = track.frames[number], track.boxes[number]
        try:
            image = reading.stack(track.source[frame])
        except (ValueError, OSError) as error:
            raise Unreadable(str(error)) from None
        if not reading.plausible(box, image.shape):
            raise Unreadable(f"{track.name}: bad box of frame {frame}: {list(box)}")
        return image

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def _not_held_out(videos: Mapping[str, Videos], tracks: Iterable[Track]) -> Iterator[str]:
    """Says which recordings should be held out by name and are not there."""
    for part, options in videos.items():
        if not isinstance(options.validation, Sequence):
            continue
        names = {t.name.split("#")[0] for t in tracks if t.name.startswith(f"{part}/")}
        there = {name.split("/")[-1] for name in names}
        if missing := sorted(set(options.validation) - there) if there else []:
            yield f"{part}: no {', '.join(missing)} to hold out for validation"


def _open(
    root: Path, name: str, options: Videos, strict: bool, skip: reading.Skip
) -> list[Labelled]:
    """The sequences of a part."""
    path = root / name
    reading.refuse_evaluation(path)
    try:
        benchmark = open_benchmark(path, options.benchmark, strict=strict)
    except (ValueError, OSError) as error:
        skip(str(error))
        return []
    for problem in benchmark.problems:
        skip(problem)
    for sequence in benchmark.sequences:  # which may be further down, or behind a link
        for path, _ in sequence.source.files[:1]:
            reading.refuse_evaluation(path)
    return benchmark.sequences


def _is_direct(options: Videos, sequence: Labelled) -> bool:
    """Whether its frames are read from their files when they are needed."""
    return isinstance(sequence.source, FolderSource) and not options.cached


def _track(name: str, options: Videos, sequence: Labelled, skip: reading.Skip) -> Track:
    """The target of a sequence, where and when its box is known."""
    assert isinstance(sequence.source, FolderSource)
    track = reading.labelled_track(name, options, sequence, skip)
    return replace(track, source=sequence.source)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds off the other processes that ask for the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(root: Path, parts: list[str], options: str) -> str:
    """Of the options and of every file's name, size and time."""
    digest = hashlib.sha256(options.encode())
    for part in parts:
        for path in _files(root / part):
            stat = path.stat()
            digest.update(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _files(part: Path) -> Iterator[Path]:
    if part.is_file():
        yield part
    for folder, folders, names in os.walk(part):
        folders[:] = sorted(set(folders) - {reading.EVALUATION})
        yield from (Path(folder, name) for name in sorted(names))
