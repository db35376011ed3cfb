# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Names of the published checkpoints, and ours: all weight surgery in one place."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from .config import AINetConfig

_SCANS = {"": "forward_scan", "_b": "backward_scan", "_s": "dynamic_scan"}
_BRANCHES = {"ctr": "score", "offset": "offset", "size": "size"}


def _scan_name(suffix: str, parameter: str) -> str:
    return f"ofm.mixer.{_SCANS[suffix]}.{parameter}"


_RULES = [
    (r"backbone\.patch_embed\.proj\.(\w+)", lambda m: f"backbone.patch_embed.{m[1]}"),
    (r"backbone\.(pos_embed_[xz])", lambda m: f"backbone.{m[1]}"),
    (r"backbone\.blocks\.(\d+)\.mlp\.(.+)", lambda m: f"backbone.blocks.{m[1]}.{m[2]}"),
    (r"backbone\.blocks\.(\d+)\.((norm|attn).+)", lambda m: f"backbone.blocks.{m[1]}.{m[2]}"),
    (
        r"backbone\.blocks\.(\d+)\.ls(\d)\.gamma",
        lambda m: f"backbone.blocks.{m[1]}.scale{m[2]}.gain",
    ),
    (r"backbone\.cross_mamba\.(\d+)\.norm\.(\w+)", lambda m: f"dfm.{m[1]}.norm.{m[2]}"),
    (
        r"backbone\.cross_mamba\.(\d+)\.mamba\.((in|out)_proj.+)",
        lambda m: f"dfm.{m[1]}.mamba.{m[2]}",
    ),
    (r"backbone\.cross_mamba\.(\d+)\.mamba\.(.+)", lambda m: f"dfm.{m[1]}.mamba.ssm.{m[2]}"),
    (
        r"backbone\.cross_mamba\.(\d+)\.fuse\.0\.(\w+)",
        lambda m: f"dfm.{m[1]}.fusion.linear.{m[2]}",
    ),
    (r"backbone\.cross_mamba\.(\d+)\.fuse\.1\.(\w+)", lambda m: f"dfm.{m[1]}.fusion.norm.{m[2]}"),
    (r"mamba_fusion\.fusion\.0\.(norm[12]\.\w+)", lambda m: f"ofm.{m[1]}"),
    (r"mamba_fusion\.fusion\.0\.mamba\.((in|out)_proj.+)", lambda m: f"ofm.mixer.{m[1]}"),
    (r"mamba_fusion\.fusion\.0\.mamba\.(mlp\..+)", lambda m: f"ofm.mixer.order_net.{m[1]}"),
    (r"mamba_fusion\.fusion\.0\.mamba\.fc\.(\w+)", lambda m: f"ofm.mixer.order_net.logits.{m[1]}"),
    (r"mamba_fusion\.fusion\.0\.mamba\.A(|_b|_s)_log", lambda m: _scan_name(m[1], "A_log")),
    (r"mamba_fusion\.fusion\.0\.mamba\.D(|_b|_s)", lambda m: _scan_name(m[1], "D")),
    (
        r"mamba_fusion\.fusion\.0\.mamba\.(conv1d|x_proj|dt_proj)(|_b|_s)\.(\w+)",
        lambda m: _scan_name(m[2], f"{m[1]}.{m[3]}"),
    ),
    (r"mamba_fusion\.norm\.(\w+)", lambda m: f"norm.{m[1]}"),
    # A branch is a flat sequence of convolution, batch norm and ReLU.
    (
        r"box_head\.conv([1-4])_(ctr|offset|size)\.([01])\.(\w+)",
        lambda m: f"head.{_BRANCHES[m[2]]}.{3 * (int(m[1]) - 1) + int(m[3])}.{m[4]}",
    ),
    (r"box_head\.conv5_(ctr|offset|size)\.(\w+)", lambda m: f"head.{_BRANCHES[m[1]]}.12.{m[2]}"),
]

_UNUSED = {"backbone.cls_token", "backbone.pos_embed"}
"""Left over from the ViT's ImageNet training: no tracker's forward pass reads them."""


def from_published(
    state_dict: Mapping[str, Tensor], grids: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """The tensors of a published AINet, OSTrack or DropTrack checkpoint under our names.

    `grids`: sides of the template's and the search region's token grids; position embeddings of
    another size are resized bilinearly, as the authors do. DropTrack's temporal embeddings are
    added in. OSTrack and DropTrack have neither DFM nor OFM: they make the baseline network
    (`dfm="none"`, `ofm="none"`), whose final norm is their backbone's.
    Raises ValueError naming a tensor that none of the three has, or one that is missing.
    """
    has_ofm = "mamba_fusion.norm.weight" in state_dict
    ours: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if name in _UNUSED or name.startswith("backbone.temporal_pos_embed_"):
            continue
        if name.startswith("backbone.norm."):
            # AINet takes the features of every layer, and this norm after the last is idle.
            if not has_ofm:
                ours[name.removeprefix("backbone.")] = tensor
            continue
        ours[_our_name(name)] = tensor
    for index, part in enumerate("zx"):
        key = f"backbone.pos_embed_{part}"
        if key not in ours:
            raise ValueError(f"not a published checkpoint: it has no {key}")
        if grids is not None:
            ours[key] = resize_positions(ours[key], grids[index])
        temporal = state_dict.get(f"backbone.temporal_pos_embed_{part}")
        if temporal is not None:
            ours[key] = ours[key] + temporal
    return ours


def from_vit(state_dict: Mapping[str, Tensor], config: AINetConfig) -> dict[str, Tensor]:
    """The tensors of a plain ViT that `config`'s backbone has, under our names.

    The layout is timm's, which DeiT, MAE and DINOv2 share; the embeddings of its patches' places
    are resized to both token grids. Raises ValueError naming what is missing or not of a ViT.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        block = re.match(r"blocks\.(\d+)\.", name)
        if name.startswith("patch_embed.") or (block and int(block[1]) < config.depth):
            ours[_our_name(f"backbone.{name}")] = tensor
    if "pos_embed" not in state_dict:
        raise ValueError("not a plain ViT: it has no pos_embed")
    positions = state_dict["pos_embed"]
    places = math.isqrt(positions.shape[1]) ** 2
    grids = {"z": config.template_size // config.patch_size, "x": config.map_size}
    for part, side in grids.items():
        # The class token's, where there is one, comes first.
        ours[f"backbone.pos_embed_{part}"] = resize_positions(positions[:, -places:], side)
    return ours


def _our_name(name: str) -> str:
    for pattern, ours in _RULES:
        if match := re.fullmatch(pattern, name):
            return ours(match)
    raise ValueError(
        f"unknown tensor {name!r}: not of a published AINet, OSTrack or DropTrack, nor of a "
        "plain ViT"
    )


def resize_positions(embedding: Tensor, side: int) -> Tensor:
    """Position embeddings (1, n * n, C) resized bilinearly to (1, side * side, C)."""
    before = math.isqrt(embedding.shape[1])
    if before == side:
        return embedding
    grid = embedding.transpose(1, 2).unflatten(2, (before, before))  # (1, C, n, n)
    grid = F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)  # (1, side * side, C)


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load all of `state` into `network`; one on the meta device takes the tensors themselves.

    Raises ValueError naming each tensor that is missing, extra or of another shape.
    """
    own = network.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    for name, tensor in state.items():
        if name not in own:
            problems.append(f"extra {name}")
        elif tensor.shape != own[name].shape:
            problems.append(
                f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            )
    if problems:
        raise ValueError("the weights do not fit the network: " + "; ".join(problems))
    network.load_state_dict(state, assign=any(p.is_meta for p in network.parameters()))
