# SPDX-License-Identifier: Apache-2.0
"""Precision, normalized precision and success of one sequence, as LasHeR's toolkit has them.

The first frame is given and counts as right. Boxes are rounded to whole pixels in float32, as
the toolkit does, so that the numbers can stand beside published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]
Boxes = npt.NDArray[np.float32]

CENTER_THRESHOLDS = np.linspace(0, 50, 51)
"""Pixels between the centres; precision is read at 20."""
NORMALIZED_THRESHOLDS = np.linspace(0, 0.5, 51)
"""Centre error in widths and heights of the truth; normalized precision is read at 0.20."""
OVERLAP_THRESHOLDS = np.linspace(0, 1, 21)
"""Intersection over union; success (AUC) is the mean over them."""
_READ_AT = 20  # index of 20 px and of 0.20


@dataclass(frozen=True)
class Score:
    """Shares of frames, 0..1, over the thresholds above.

    Attributes:
        frames: scored.
        precision_curve, normalized_curve: (51,) share of frames with an error up to each
            threshold.
        success_curve: (21,) share of frames with an overlap above each threshold.
    """

    frames: int
    precision_curve: Curve
    normalized_curve: Curve
    success_curve: Curve

    @property
    def precision(self) -> float:
        """Share of frames with the centre at most 20 pixels off."""
        return float(self.precision_curve[_READ_AT])

    @property
    def normalized_precision(self) -> float:
        """Share of frames with the centre at most 0.20 of the truth's size off."""
        return float(self.normalized_curve[_READ_AT])

    @property
    def auc(self) -> float:
        """Area under the success curve, the mean over its 21 thresholds."""
        return float(self.success_curve.mean())


def score(results: npt.ArrayLike, truth: npt.ArrayLike) -> Score:
    """Scores a tracker's boxes on one sequence.

    A result that is not finite, or whose width or height is not positive, becomes the one before.
    A truth with a value that is not finite or not positive (the target is not to be seen) counts
    as failure in success and as right in both precisions. So does a box that touches the left or
    the top edge: its x or y of 0 cannot be told from that, pixels being counted from 1 there.

    Args:
        results: (N, 4) x, y, w, h in pixels; those after the last truth are left out.
        truth: (M, 4), M <= N.

    Raises:
        ValueError: the shapes do not fit.
    """
    found, true = (np.array(boxes, np.float32).round() for boxes in (results, truth))
    for name, boxes in (("results", found), ("truth", true)):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise ValueError(f"{name} must be (N, 4) boxes, N > 0, not {boxes.shape}")
    if len(found) < len(true):
        raise ValueError(f"{len(found)} results for {len(true)} true boxes")
    found = found[: len(true)]
    found[0] = true[0]
    _repeat_over_invalid(found)
    seen = (true > 0).all(1)  # false for NaN too
    with np.errstate(invalid="ignore", divide="ignore"):
        centers, size = (
            [boxes[:, :2] + (boxes[:, 2:] - 1) / 2 for boxes in (found, true)],
            true[:, 2:],
        )
        center = np.where(seen, _length(centers[0] - centers[1]), -1)
        # Divided before the difference is taken, as there: on the threshold, float32 tells.
        normalized = np.where(seen, _length(centers[0] / size - centers[1] / size), -1)
        overlap = np.where(seen, iou(found, true), -1)
    return Score(
        len(true),
        (center[:, None] <= CENTER_THRESHOLDS).mean(0),
        (normalized[:, None] <= NORMALIZED_THRESHOLDS).mean(0),
        (overlap[:, None] > OVERLAP_THRESHOLDS).mean(0),
    )


def mean(scores: Sequence[Score]) -> Score:
    """The mean over sequences, each of equal weight whatever its length."""
    if not scores:
        raise ValueError("no sequences to take the mean of")
    return Score(
        sum(one.frames for one in scores),
        np.mean([one.precision_curve for one in scores], axis=0),
        np.mean([one.normalized_curve for one in scores], axis=0),
        np.mean([one.success_curve for one in scores], axis=0),
    )


def iou(first: npt.NDArray, second: npt.NDArray) -> npt.NDArray:
    """Intersection over union of (N, 4) boxes x, y, w, h, pair by pair: (N,)."""
    corner = np.maximum(first[:, :2], second[:, :2])
    opposite = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (opposite - corner).clip(min=0).prod(1)
    return shared / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)


def _length(vectors: npt.NDArray) -> npt.NDArray:
    return np.sqrt((vectors**2).sum(1))


def _repeat_over_invalid(boxes: Boxes) -> None:
    for index in range(1, len(boxes)):
        if not np.isfinite(boxes[index]).all() or not (boxes[index, 2:] > 0).all():
            boxes[index] = boxes[index - 1]
