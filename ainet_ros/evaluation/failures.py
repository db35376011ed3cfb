# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Where a tracker fails: a picture of the worst frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ainet_ros.files import write_whole
from ainet_ros.tracker import State, Timing, Track
from ainet_ros.vision import benchmarks, overlay
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.sources import frames_at
from ainet_ros.vision.thermal import ToneMap

from .metrics import iou

COUNT, ROW, WIDTH = 6, 3, 420
"""Frames shown, those beside one another, and the width of each in pixels."""

Boxes = npt.NDArray[np.float64]


def worst_frame(sequence: benchmarks.Sequence, found: Boxes) -> tuple[int, float] | None:
    """The first of the frames in which the (N, 4) boxes `found` overlap the truth least, and that
    overlap. None where no frame but the first has a true box.
    """
    true = sequence.visible
    labelled = np.flatnonzero(np.isfinite(true).all(1) & (true[:, 2:] > 0).all(1))
    labelled = labelled[labelled > 0]  # the first is given to the tracker
    if not len(labelled):
        return None
    frames = sequence.frames[labelled]
    # A result that is no box overlaps nothing.
    overlaps = np.nan_to_num(iou(found[frames], true[labelled]))
    worst = int(overlaps.argmin())
    return int(frames[worst]), float(overlaps[worst])


def draw(
    path: Path, sequences: Sequence[benchmarks.Sequence], results: Mapping[str, Boxes]
) -> list[str]:
    """Writes a PNG of the worst frame of each sequence, those of the lowest overlap first.

    Args:
        path: of the PNG.
        sequences: to choose from; at most COUNT are shown.
        results: (N, 4) boxes x, y, w, h of every frame, by the names of the sequences.

    Returns:
        A line of text on each frame in the picture; nothing is written where there is none.

    Raises:
        ValueError: an image cannot be read.
    """
    found = ((worst_frame(sequence, results[sequence.name]), sequence) for sequence in sequences)
    worst = [(*place, sequence) for place, sequence in found if place is not None]
    worst = sorted(worst, key=lambda entry: entry[1])[:COUNT]
    tiles = []
    for number, _, sequence in worst:
        ((_, frame),) = frames_at(sequence.source, [number])
        size = (frame.rgb.shape[1], frame.rgb.shape[0])
        box = x, y, w, h = results[sequence.name][number]
        track = Track((x, y, w, h), math.nan, State.TRACKING, Timing(0.0, 0.0, 0.0))
        picture = overlay.draw(
            frame.rgb,
            {1: track} if np.isfinite(box).all() else {},
            Registration().warp(ToneMap()(frame.thermal), size),
            truth=sequence.visible[np.flatnonzero(sequence.frames == number)[0]],
            note=f"{sequence.name}, frame {number}",
        )
        height = round(WIDTH * size[1] / size[0])
        tiles.append(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    if not tiles:
        return []
    high = max(tile.shape[0] for tile in tiles)
    wide = min(ROW, len(tiles))
    sheet = np.full((-(-len(tiles) // wide) * high, wide * WIDTH, 3), 24, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // wide * high, index % wide * WIDTH
        sheet[top : top + tile.shape[0], left : left + WIDTH] = tile
    _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_whole(path, data.tobytes())
    return [f"{s.name}, frame {frame}: overlap {overlap:.2f}" for frame, overlap, s in worst]
