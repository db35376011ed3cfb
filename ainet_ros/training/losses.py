# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The losses of OSTrack and AINet: weighted focal on the score map, GIoU and L1 on the box.

A fourth, not in the paper, makes the highest score tell whether the target is there.

All boxes are (batch, 4) in fractions of the search region.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ainet_ros.network.head import decode
from ainet_ros.network.model import Output
from ainet_ros.options import check

FOCAL_ALPHA, FOCAL_BETA = 2, 4
MIN_OVERLAP = 0.7


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms, as published."""

    giou: float = 2.0
    l1: float = 5.0
    focal: float = 1.0
    presence: float = 0.0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Losses:
    """Scalars of one batch; `iou` is a measure, not a term."""

    total: Tensor
    giou: Tensor
    l1: Tensor
    focal: Tensor
    presence: Tensor
    iou: Tensor


def losses(
    output: Output,
    box: Tensor,
    present: Tensor,
    weights: LossWeights,
    box_at: str,
    truth_as: str = "exact",
    target_count: Tensor | None = None,
) -> Losses:
    """The loss of a batch, weighted, and its terms.

    box: (batch, 4) cx, cy, w, h in fractions of the search region; present: (batch,) bool, False
    where there is no target.

    giou, l1 (of the corners), focal and iou are sums divided by `target_count`, a scalar: by
    default the samples with a target, at least 1. Processes that share a batch pass the mean of
    their counts: the mean of their losses is then that of the whole batch.

    The box terms look at one cell: with `box_at="peak"` that of the highest score, as published;
    with "truth" the best of the 3x3 cells around the target's centre, which does not teach a
    wrong cell while the score map is still poor. They leave out samples without a target.

    With `truth_as="published"` the score map is to be `published_targets`, and the true box is cut
    to the search region, as in OSTrack's code; with "exact" it is to be `gaussian_targets`.

    The term of presence is the mean over all samples of the cross-entropy of one score: where the
    target is, the highest around its centre; where it is not, the highest of all.
    """
    score_map = output.score_map.float()
    make_targets = published_targets if truth_as == "published" else gaussian_targets
    heat = make_targets(box, present, score_map.shape[-1])
    count = present.sum().clamp(min=1) if target_count is None else target_count
    focal = focal_loss(score_map, heat) / count
    around = around_centre(box, heat.shape[-1])
    presence = presence_loss(score_map, around, present)
    chosen = score_map if box_at == "peak" else score_map * around
    predicted = to_corners(decode(chosen, output.size_map.float(), output.offset_map.float()))
    truth = to_corners(box)
    if truth_as == "published":
        truth = truth.clamp(0, 1)
    iou, giou = overlap(predicted, truth)
    giou_term = ((1 - giou) * present).sum() / count
    l1_term = ((predicted - truth).abs().mean(dim=1) * present).sum() / count
    return Losses(
        total=weights.giou * giou_term
        + weights.l1 * l1_term
        + weights.focal * focal
        + weights.presence * presence,
        giou=giou_term,
        l1=l1_term,
        focal=focal,
        presence=presence,
        iou=(iou * present).sum() / count,
    )


def to_corners(box: Tensor) -> Tensor:
    """cx, cy, w, h to x1, y1, x2, y2; both (batch, 4)."""
    centre, half = box[:, :2], box[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., CVPR 2019) of corner boxes, each (batch,)."""
    common = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    intersection = common.clamp(min=0).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - intersection
    iou = intersection / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


def cell_of_centre(box: Tensor, side: int) -> Tensor:
    """The cell (batch, 2: x, y) of a map of `side` cells that the box's centre lies in."""
    return (box[:, :2] * side).floor().clamp(0, side - 1)


def around_centre(box: Tensor, side: int) -> Tensor:
    """(batch, 1, side, side), 1 in the cell of the centre and its eight neighbours, else 0."""
    dx, dy = distances(cell_of_centre(box, side), side)
    return ((dx.abs() <= 1) & (dy.abs() <= 1)).float()[:, None]


def distances(cell: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """How far cells are from one (batch, 2), x and y: (batch, 1, side) and (batch, side, 1)."""
    axis = torch.arange(side, device=cell.device)
    return axis[None, None, :] - cell[:, 0, None, None], axis[None, :, None] - cell[
        :, 1, None, None
    ]


def gaussian_targets(box: Tensor, present: Tensor, side: int) -> Tensor:
    """CornerNet's heat map (batch, 1, side, side): 1 in the centre's cell, a Gaussian around it.

    Its radius is the largest shift at which a box still overlaps the truth by MIN_OVERLAP.
    """
    cell = cell_of_centre(box, side)
    return gaussians(cell, gaussian_radius(box[:, 2:] * side), present, side)


def published_targets(box: Tensor, present: Tensor, side: int) -> Tensor:
    """The heat map of OSTrack's code (generate_heatmap): as `gaussian_targets`, but that the cell
    is the one whose index is nearest to the centre, beyond the map too, and that the radius is
    that of an earlier CornerNet, which divides the roots of its equations by 2 alone.
    """
    cell = (box[:, :2] * side).round()
    radius = gaussian_radius(box[:, 2:] * side, published=True)
    return gaussians(cell, radius, present, side)


def gaussians(cell: Tensor, radius: Tensor, present: Tensor, side: int) -> Tensor:
    """A Gaussian cut off at `radius` (batch,) around each cell: (batch, 1, side, side)."""
    sigma = (2 * radius + 1) / 6
    dx, dy = distances(cell, side)
    spread = torch.exp(-(dx**2 + dy**2) / (2 * sigma[:, None, None] ** 2))  # (batch, side, side)
    inside = (dx.abs() <= radius[:, None, None]) & (dy.abs() <= radius[:, None, None])
    return (spread * inside * present[:, None, None])[:, None]


def gaussian_radius(size: Tensor, *, published: bool = False) -> Tensor:
    """CornerNet's radius in cells for boxes of `size` (batch, 2: w, h in cells), rounded down.

    published: as OSTrack's code has it from an earlier CornerNet, whose roots are
    (b + sqrt(b^2 - 4ac)) / 2, without a.
    """
    w, h = size.clamp(min=0.1).unbind(1)
    o = MIN_OVERLAP
    # r1: one corner moves out, one in; r2: both in; r3: both out. Each a quadratic equation.
    both = h + w
    area = w * h
    if published:
        # The third is the least of them.
        root = (4 * o**2 * both**2 + 16 * o * (1 - o) * area).sqrt()
        return ((root - 2 * o * both) / 2).clamp(min=0).floor()
    r1 = (both - (both**2 - 4 * area * (1 - o) / (1 + o)).clamp(min=0).sqrt()) / 2
    r2 = (2 * both - (4 * both**2 - 16 * (1 - o) * area).clamp(min=0).sqrt()) / 8
    r3 = (-2 * o * both + (4 * o**2 * both**2 + 16 * o * (1 - o) * area).sqrt()) / (8 * o)
    return torch.stack([r1, r2, r3]).amin(dim=0).clamp(min=0).floor()


def focal_loss(score_map: Tensor, heat: Tensor) -> Tensor:
    """CornerNet's focal loss (alpha 2, beta 4), summed."""
    at_centre = heat.eq(1)
    hit = (1 - score_map) ** FOCAL_ALPHA * score_map.log()
    miss = (1 - heat) ** FOCAL_BETA * score_map**FOCAL_ALPHA * (1 - score_map).log()
    return -torch.where(at_centre, hit, miss).sum()


def presence_loss(score_map: Tensor, around: Tensor, present: Tensor) -> Tensor:
    """Mean of -log(the highest score around the target's centre) where it is present, else of
    -log(1 - the highest score of all).

    score_map, around: (batch, 1, F, F); present: (batch,) bool.
    """
    there = (score_map * around).flatten(1).amax(dim=1)  # (batch,)
    anywhere = score_map.flatten(1).amax(dim=1)  # (batch,)
    return -torch.where(present, there.log(), (1 - anywhere).log()).mean()
