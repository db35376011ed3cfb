# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The true boxes of a recording, in any of the benchmarks' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import boxes as box_files
from .boxes import Boxes

INIT = "init.txt"
PLAIN = ("visible.txt", "infrared.txt")
"""LasHeR, RGBT234, RGBT210 (which has `INIT` alone): x, y, w, h, a line a frame."""
CORNERS = ("groundTruth_v.txt", "groundTruth_i.txt")
"""GTOT: two opposite corners, whichever comes first; its `INIT` has x, y, w, h."""
SPARSE = ("rgb.txt", "ir.txt")
"""VTUAV: x, y, w, h, a line every `SPARSE_STEP` frames, the first frame's first."""
SPARSE_STEP = 10
FILES = (INIT, *PLAIN, *CORNERS, *SPARSE)
_KINDS = (PLAIN, CORNERS, SPARSE)


@dataclass(frozen=True)
class Truth:
    """Labels as they stand in the files, invalid ones too; all x, y, w, h.

    Attributes:
        files: the names of the kind they are of, `PLAIN`, `CORNERS` or `SPARSE`.
        visible: (M, 4) float64, in pixels of the RGB image.
        infrared: (M, 4) float64, in pixels of the thermal image; the same as `visible` where one
            truth serves both.
        init: (N, 4) float64, of `INIT`; None where there is no such file.
        frames: (M,) int64, the frames (from 0) that `visible` and `infrared` are of, ascending.
    """

    files: tuple[str, str]
    visible: Boxes
    infrared: Boxes
    init: Boxes | None
    frames: npt.NDArray[np.int64]

    @property
    def start(self) -> Boxes:
        """(4,) the box a tracker starts from on the first frame: that of `INIT` first."""
        return (self.visible if self.init is None else self.init)[0]

    @property
    def boxes(self) -> Boxes:
        """(L, 4) of the frames up to the last that is labelled, of the RGB image; NaN rows where
        the target is not to be seen or nobody labelled it."""
        boxes = np.full((int(self.frames[-1]) + 1, 4), np.nan)
        boxes[self.frames] = box_files.masked(self.visible)
        return boxes


def read(root: Path, numbers: Sequence[int]) -> Truth | None:
    """Reads the truth of the recording in a folder.

    Args:
        root: the folder.
        numbers: of its frames, those in the images' names, which need not begin at 0.

    Returns:
        The truth, or None where there is no file of `FILES`.

    Raises:
        ValueError: a file cannot be read, the two truths are of different length, or they are of
            frames that are not there; the message names the file.
    """
    init = box_files.read_raw(root / INIT) if (root / INIT).is_file() else None
    kind = next((names for names in _KINDS if _there(root, names)), PLAIN)
    paths = _there(root, kind)
    if not paths and init is None:
        return None
    read_file = _read_corners if kind is CORNERS else box_files.read_raw
    truths = [read_file(path) for path in paths]
    if init is not None and (not truths or paths[0].name == PLAIN[1]):
        truths.insert(0, init)
        paths.insert(0, root / INIT)
    if len(truths) == 2 and len(truths[0]) != len(truths[1]):
        raise ValueError(f"{paths[0]}: {len(truths[0])} boxes, {paths[1].name} {len(truths[1])}")
    count = len(truths[0])
    for path, boxes in ((paths[0], truths[0]), (root / INIT, init)):
        if boxes is not None and len(boxes) > len(numbers):
            raise ValueError(f"{path}: {len(boxes)} boxes for {len(numbers)} frames")
    frames = _sparse_frames(paths[0], numbers, count) if kind is SPARSE else np.arange(count)
    return Truth(kind, truths[0], truths[-1], init, frames)


def _there(root: Path, names: tuple[str, str]) -> list[Path]:
    return [root / name for name in names if (root / name).is_file()]


def _read_corners(path: Path) -> Boxes:
    corners = box_files.read_raw(path).reshape(-1, 2, 2)
    first = corners.min(1)
    return np.concatenate([first, corners.max(1) - first], axis=1)


def _sparse_frames(path: Path, numbers: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """The frames of the lines: every `SPARSE_STEP`-th by the images' numbers, from the first."""
    places = {number: place for place, number in enumerate(numbers)}
    wanted = [numbers[0] + SPARSE_STEP * line for line in range(count)]
    for line, number in enumerate(wanted, 1):
        if number not in places:
            raise ValueError(f"{path}:{line}: is of image {number}, which is not there")
    return np.array([places[number] for number in wanted])
