# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What makes one AINet differ from another, and the named configurations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ainet_ros.options import check

ALL_TWELVE = tuple(range(12))
MOST, MOST_BLOCKS = 1 << 14, 100
"""Upper bounds of whole numbers, and of `depth`: a file may say anything."""


@dataclass(frozen=True)
class AINetConfig:
    """The geometry of an AINet and every choice that the paper, its code or its ablations make.

    Where the paper and the published code differ, the default is the code's, because the released
    checkpoints belong to it. Raises ValueError on a combination that makes no network.
    """

    template_size: int = 128
    """Side of the template crop, pixels."""
    search_size: int = 256
    """Side of the search region, pixels."""
    patch_size: int = 16
    """Side of one token, pixels."""
    channels: int = 768
    """C, the width of a token."""
    depth: int = 12
    """Transformer blocks of the backbone."""
    heads: int = 12
    """Attention heads."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP over C."""
    drop_path: float = 0.1
    """Stochastic depth of the last block, training only; it rises linearly from 0."""
    layer_scale: bool = False
    """A learnt gain on each branch of a block, as in DINOv2's ViT."""
    box_prompt: bool = False
    """Tell the template tokens how much of each the target's box covers, and its size.
    Not in the paper: a square crop does not say how wide and high the target is."""

    interaction_layers: tuple[int, ...] = ALL_TWELVE
    """The blocks that a DFM follows (Table 3); the OFM works over their fused features."""
    dfm: Literal["mamba", "attention", "none"] = "mamba"
    """Difference-based fusion. "attention": the cross-attention of AINet-Transformer.
    "none": no interaction, and the fused feature is the sum of the modalities."""
    fusion_activation: Literal["gelu", "tanh"] = "gelu"
    """Activation of the fused feature: GELU in the published code, tanh in eq. 8."""

    ofm: Literal["mamba", "attention", "none"] = "mamba"
    """Order-dynamic fusion. "attention": the self-attention of AINet-Transformer.
    "none": the last fused feature goes to the head."""
    ofm_dynamic: bool = True
    """The third scan, in the order that the order net finds (ablated in Table 2)."""
    ofm_tokens: Literal["published", "search", "all"] = "published"
    """The tokens of a layer that enter the OFM: "published" leaves out the first 64 whatever the
    resolution, "search" leaves out the template, "all" is the paper's text."""
    ofm_order: Literal["hard", "straight_through"] = "hard"
    """How training sees the dynamic order: as the published argsort, through which no gradient
    reaches the order net, or with the gradient of a soft permutation. The result is the same."""
    order_pool: int = 2048
    """Tokens that the order net pools the sequence to."""
    order_widths: tuple[int, int, int] = (512, 256, 128)
    """Widths of the order net's three linear layers."""

    d_state: int = 16
    """N, the state of a selective scan."""
    d_conv: int = 4
    """Taps of the causal convolution before a scan."""
    dt_rank: int = 48
    """Rank of the projection to the step size delta."""
    head_channels: int = 256
    """Channels of the head's first convolution; each of the next three halves them."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):  # JSON has no tuples
                object.__setattr__(self, field.name, tuple(value))
        check(self)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            most = MOST_BLOCKS if field.name == "depth" else MOST
            for number in value if isinstance(value, tuple) else [value]:
                least = 0 if field.name == "interaction_layers" else 1
                if type(number) is int and not least <= number <= most:
                    raise ValueError(f"{field.name} {number} is outside {least} to {most}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path {self.drop_path} must be at least 0 and below 1")
        for name in ("template_size", "search_size"):
            if getattr(self, name) % self.patch_size:
                raise ValueError(
                    f"{name} {getattr(self, name)} is not a multiple of patch_size "
                    f"{self.patch_size}"
                )
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} is not a multiple of heads {self.heads}")
        if self.head_channels % 8:
            raise ValueError(f"head_channels {self.head_channels} is not a multiple of 8")
        layers = self.interaction_layers
        if not layers or list(layers) != sorted(set(layers)):
            raise ValueError(f"interaction_layers {layers} must rise and not be empty")
        if layers[-1] >= self.depth:
            raise ValueError(f"interaction_layers {layers} must lie in 0..{self.depth - 1}")
        if self.ofm_skipped_tokens > self.template_tokens:
            raise ValueError(
                f"ofm_tokens published skips {self.ofm_skipped_tokens} tokens, and a template of "
                f"{self.template_size} pixels has {self.template_tokens}: set ofm_tokens to search"
            )

    @property
    def template_tokens(self) -> int:
        """Tokens of one modality's template."""
        return (self.template_size // self.patch_size) ** 2

    @property
    def map_size(self) -> int:
        """F, the side of the score map."""
        return self.search_size // self.patch_size

    @property
    def search_tokens(self) -> int:
        """Tokens of one modality's search region, F * F."""
        return self.map_size**2

    @property
    def ofm_skipped_tokens(self) -> int:
        """Tokens of each layer, from the first, that do not enter the OFM."""
        return {"published": 64, "search": self.template_tokens, "all": 0}[self.ofm_tokens]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values that JSON holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AINetConfig:
        """The inverse of `to_dict`. Raises ValueError on a field this version does not know."""
        if not isinstance(values, dict):
            raise ValueError("the network's options are not given by name")
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"unknown network options {unknown}: made by a newer version?")
        return cls(**values)


SMALL = AINetConfig(
    template_size=84,
    search_size=182,  # 13 tokens: an odd number has one in the middle, where the target mostly is
    patch_size=14,
    channels=384,
    depth=6,
    heads=6,
    layer_scale=True,
    box_prompt=True,
    interaction_layers=(3, 5),
    ofm_tokens="search",
    ofm_order="straight_through",
    order_pool=128,
    order_widths=(64, 32, 16),
    d_state=8,
    dt_rank=24,
    head_channels=128,
)

PRESETS: dict[str, AINetConfig] = {
    "base_256": AINetConfig(),
    "base_384": AINetConfig(template_size=192, search_size=384),
    "small": SMALL,
    "nano": dataclasses.replace(SMALL, template_size=56, search_size=126),
}
