# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The difference-based fusion Mamba (DFM, eqs. 5, 7, 8) and what ablations put in its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .config import AINetConfig
from .mamba import Mamba


def make_dfm(config: AINetConfig) -> nn.Module:
    """The interaction module of one layer.

    Called with the tokens of both modalities, each (batch, tokens, C), it returns the enhanced
    RGB and thermal tokens and the fused feature, all of that shape.
    """
    if config.dfm == "none":
        return SumFusion()
    return (DFM if config.dfm == "mamba" else CrossAttentionFusion)(config)


class Fusion(nn.Module):
    """Eq. 8: act(LN(Linear([rgb, thermal]))), from the enhanced features as the text says."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * config.channels, config.channels)
        self.norm = nn.LayerNorm(config.channels)
        activations: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "tanh": torch.tanh}
        self.activation = activations[config.fusion_activation]

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        both = torch.cat([rgb, thermal], dim=-1)  # (batch, tokens, 2C)
        return self.activation(self.norm(self.linear(both)))  # (batch, tokens, C)


class DFM(nn.Module):
    """g = tanh(Mamba(LN(rgb - thermal))) (eq. 5) gates what each modality takes from the other
    (eq. 7); the enhanced features are fused (eq. 8)."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.channels)
        self.mamba = Mamba(config.channels, config.d_state, config.d_conv, config.dt_rank)
        self.fusion = Fusion(config)

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both (batch, tokens, C). Returns them enhanced, and fused; all of that shape."""
        gate = torch.tanh(self.mamba(self.norm(rgb - thermal)))  # eq. 5
        rgb, thermal = rgb + gate * thermal, thermal + gate * rgb  # eq. 7
        return rgb, thermal, self.fusion(rgb, thermal)


class CrossAttentionFusion(nn.Module):
    """The DFM of AINet-Transformer (Fig. 5): each modality attends to the other."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.channels)
        self.attention = Attention(config.channels, config.heads)
        self.fusion = Fusion(config)

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r, t = self.norm(rgb), self.norm(thermal)
        rgb, thermal = rgb + self.attention(r, t), thermal + self.attention(t, r)
        return rgb, thermal, self.fusion(rgb, thermal)


class SumFusion(nn.Module):
    """No interaction; the fused feature is the sum (the rows of Table 2 without DFM)."""

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return rgb, thermal, rgb + thermal
