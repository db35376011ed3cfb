# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The CENTER head of OSTrack: a score map, and a size and an offset for every token."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .config import AINetConfig


class CenterHead(nn.Module):
    """Three branches of convolutions over the search tokens."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.side = config.map_size
        # CornerNet's start: few cells hold a centre, so the first scores are near 0.1.
        self.score = branch(config, 1, bias=-2.19)
        self.offset = branch(config, 2)
        self.size = branch(config, 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens: (batch, F * F, C), row by row.

        Returns the score map (batch, 1, F, F) in 0..1, the size map (batch, 2, F, F: w, h in
        fractions of the search region) and the offset map (batch, 2, F, F: x, y in tokens).
        """
        x = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))  # (batch, C, F, F)
        return sigmoid(self.score(x)), sigmoid(self.size(x)), self.offset(x)


def sigmoid(logits: Tensor) -> Tensor:
    """Kept off 0 and 1, where the focal loss has no value. Computed in float32."""
    return torch.sigmoid(logits.float()).clamp(1e-4, 1 - 1e-4)


def branch(config: AINetConfig, outputs: int, bias: float = 0.0) -> nn.Sequential:
    """Four 3x3 convolutions with BatchNorm and ReLU, of head_channels and each half as wide as the
    one before, and a 1x1 convolution whose bias starts at `bias`."""
    widths = [config.channels] + [config.head_channels >> i for i in range(4)]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    last = nn.Conv2d(widths[-1], outputs, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(*layers, last)


def decode(score_map: Tensor, size_map: Tensor, offset_map: Tensor) -> Tensor:
    """The box (batch, 4) at the highest score: cx, cy, w, h in fractions of the search region."""
    side = score_map.shape[-1]
    best = score_map.flatten(1).argmax(dim=1)  # (batch,)
    index = best[:, None, None].expand(-1, 2, 1)
    size = size_map.flatten(2).gather(2, index).squeeze(2)  # (batch, 2): w, h
    offset = offset_map.flatten(2).gather(2, index).squeeze(2)  # (batch, 2): x, y
    cell = torch.stack([best % side, best // side], dim=1)  # (batch, 2): x, y
    return torch.cat([(cell + offset) / side, size], dim=1)
