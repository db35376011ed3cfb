# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Text files of boxes: a line a frame, x, y, w, h in pixels, x, y the top left corner."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ainet_ros.files import replacing

Boxes = npt.NDArray[np.float64]


def read(path: str | PathLike[str]) -> Boxes:
    """Reads boxes whose values are separated by commas, spaces or tabs.

    Returns:
        (N, 4) float64; a row is NaN where the box is invalid (a value is not a number, or the
        width or height is not positive).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line does not hold four numbers (the message names it), or none is there.
    """
    return masked(read_raw(path))


def read_raw(path: str | PathLike[str]) -> Boxes:
    """The values of such a file as they stand, invalid boxes too: (N, 4) float64.

    Raises as `read` does.
    """
    rows = []
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4:
            raise ValueError(f"{path}:{number}: expected four numbers, found {line.strip()!r}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: no boxes in the file")
    return np.array(rows)


def masked(boxes: Boxes) -> Boxes:
    """A copy of (N, 4) boxes with NaN rows where the box is invalid, as `read` has it."""
    boxes = boxes.copy()
    boxes[~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))] = np.nan
    return boxes


def write(path: str | PathLike[str], boxes: npt.ArrayLike) -> None:
    """Writes (N, 4) boxes, comma-separated, to a thousandth of a pixel.

    Raises OSError where the file cannot be written; there is nothing of it then.
    """
    rows = np.asarray(boxes, np.float64).reshape(-1, 4)
    with replacing(Path(path)) as partial:
        np.savetxt(partial, rows, fmt="%.3f", delimiter=",")
