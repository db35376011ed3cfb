# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""AINet: the backbone, a DFM after its layers, the OFM over them, and the head.

"RGBT Tracking via All-layer Multimodal Interactions with Progressive Fusion Mamba", AAAI 2025.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone
from .config import PRESETS, AINetConfig
from .dfm import make_dfm
from .head import CenterHead, decode
from .ofm import OFM


class Output(NamedTuple):
    """What the network returns for a batch of pairs; F is the side of the score map."""

    score_map: Tensor
    """(batch, 1, F, F): how likely the target's centre is in each cell, 0..1."""
    size_map: Tensor
    """(batch, 2, F, F): w, h in fractions of the search region."""
    offset_map: Tensor
    """(batch, 2, F, F): x, y of the centre inside its cell, in cells."""
    boxes: Tensor
    """(batch, 4): cx, cy, w, h in fractions of the search region, at the highest score."""
    order: Tensor
    """(batch, layers), int64: indices into `interaction_layers`, as the OFM's dynamic scan takes
    them."""
    fused_layers: Tensor | None
    """(layers, batch, template + search tokens, C): each DFM's fused feature, on request."""
    ofm_output: Tensor | None
    """(batch, tokens, C): the OFM's output, normalized, on request."""


class Template(NamedTuple):
    """All that the network needs of a template, computed once for many search regions."""

    tokens: Tensor
    """(batch, 2, Nz, C): the embedded patches of both modalities."""
    prompt: Tensor | None
    """(batch, Nz, C): what the box prompt adds, where the configuration has one."""


class AINet(nn.Module):
    """The network of `config`. Both modalities run through the backbone as one batch."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.prompt = BoxPrompt(config) if config.box_prompt else None
        self.dfm = nn.ModuleList(make_dfm(config) for _ in config.interaction_layers)
        self.ofm = OFM(config) if config.ofm != "none" else None
        self.norm = nn.LayerNorm(config.channels)
        self.head = CenterHead(config)

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        template_box: Tensor | None = None,
        features: bool = False,
    ) -> Output:
        """Find the template's target in the search region.

        template, search: (batch, 2, 3, side, side) float32, channels in RGB order, normalized by
        ImageNet's mean and deviation; modality 0 is RGB, 1 thermal, the same in each channel.
        template_box: see `embed_template`. `features` asks for `fused_layers` and `ofm_output`.
        Raises ValueError on a wrong shape.
        """
        return self.match(self.embed_template(template, template_box), search, features)

    def embed_template(self, template: Tensor, template_box: Tensor | None = None) -> Template:
        """Prepare `template` (batch, 2, 3, T, T) for any number of `match`.

        template_box: (batch, 4), the target's cx, cy, w, h in fractions of the template crop,
        for a configuration with `box_prompt`; where it is not given, a square box in the middle
        of half the crop's side, as a crop of factor 2 has it. Raises ValueError on a wrong shape.
        """
        self._check("template", template, self.config.template_size)
        tokens = self.backbone.embed_template(template.flatten(0, 1))  # (batch * 2, Nz, C)
        prompt = None
        if self.prompt is not None:
            if template_box is None:
                template_box = template.new_full((len(template), 4), 0.5)
            if template_box.shape != (len(template), 4):
                raise ValueError(
                    f"template_box must be ({len(template)}, 4), got {tuple(template_box.shape)}"
                )
            prompt = self.prompt(template_box)
        return Template(tokens.unflatten(0, (-1, 2)), prompt)

    def match(self, template: Template, search: Tensor, features: bool = False) -> Output:
        """`forward` with the template already embedded."""
        self._check("search", search, self.config.search_size)
        batch = len(search)
        x = torch.cat(
            [template.tokens.flatten(0, 1), self.backbone.embed_search(search.flatten(0, 1))],
            dim=1,
        )  # (batch * 2, Nz + Nx, C)
        layers: list[Tensor] = []
        for index, block in enumerate(self.backbone.blocks):
            x = block(x)
            if index in self.config.interaction_layers:
                x = x.unflatten(0, (batch, 2))  # (batch, 2, Nz + Nx, C)
                if template.prompt is not None and not layers:
                    # With the first interaction: the blocks before it may stay as pretrained.
                    x = x + F.pad(template.prompt, (0, 0, 0, self.config.search_tokens))[:, None]
                rgb, thermal, fused = self.dfm[len(layers)](*x.unbind(1))
                x = torch.stack([rgb, thermal], dim=1).flatten(0, 1)  # (batch * 2, Nz + Nx, C)
                layers.append(fused)
        tokens, order = self._fuse_layers(layers)  # (batch, tokens, C)
        tokens = self.norm(tokens)
        score_map, size_map, offset_map = self.head(tokens[:, -self.config.search_tokens :])
        return Output(
            score_map,
            size_map,
            offset_map,
            boxes=decode(score_map, size_map, offset_map),
            order=order,
            fused_layers=torch.stack(layers) if features else None,
            ofm_output=tokens if features else None,
        )

    def _fuse_layers(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The sum over layers of eq. 11, before its norm, and the order."""
        if self.ofm is None:
            last = layers[-1]
            return last, torch.arange(len(layers), device=last.device).expand(len(last), -1)
        skip = self.config.ofm_skipped_tokens
        # (batch, layers, tokens, C)
        return self.ofm(torch.stack([layer[:, skip:] for layer in layers], dim=1))

    def _check(self, name: str, images: Tensor, side: int) -> None:
        if images.dim() != 5 or images.shape[1:] != (2, 3, side, side):
            raise ValueError(
                f"{name} must be (batch, 2, 3, {side}, {side}), got {tuple(images.shape)}"
            )


class BoxPrompt(nn.Module):
    """What to add to each template token: an embedding of the share of it that the box covers, and
    of the box's size. Ours, not the paper's."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.side = config.template_size // config.patch_size
        self.embed = nn.Linear(3, config.channels, bias=False)

    def forward(self, box: Tensor) -> Tensor:
        """box: (batch, 4) cx, cy, w, h in fractions of the template. Returns (batch, Nz, C)."""
        centre, size = box[:, None, :2], box[:, None, 2:]  # (batch, 1, 2)
        low = torch.arange(self.side, device=box.device)[None, :, None] / self.side
        overlap = torch.minimum(low + 1 / self.side, centre + size / 2) - torch.maximum(
            low, centre - size / 2
        )
        share = (overlap * self.side).clamp(0, 1)  # (batch, side, 2): of columns and of rows
        cover = (share[:, :, None, 1] * share[:, None, :, 0]).flatten(1)  # (batch, Nz)
        log_size = torch.log(2 * size)  # (batch, 1, 2); 0 where the box has half the crop's side
        told = torch.cat(
            [torch.ones_like(cover[..., None]), log_size.expand(-1, self.side**2, -1)], dim=-1
        )  # (batch, Nz, 3)
        return self.embed(cover[..., None] * told)


def create(preset: str, **changes: Any) -> AINet:
    """The network of a preset, freshly initialized, with fields of its configuration changed.

    Raises ValueError on an unknown preset or field, or a value that makes no network.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: one of {', '.join(PRESETS)}")
    known = {field.name for field in dataclasses.fields(AINetConfig)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"unknown network options {unknown}")
    return AINet(dataclasses.replace(PRESETS[preset], **changes))
