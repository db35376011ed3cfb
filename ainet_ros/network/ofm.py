# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The order-dynamic fusion Mamba (OFM, eqs. 9 to 11) and the scans it is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .config import AINetConfig
from .mamba import SelectiveSSM


class OFM(nn.Module):
    """Fuses the features of all layers, as one long sequence, into one.

    x is the layers one after the other, y = LN2(mixer(LN1(x)) + x), and the result the sum of y
    over the layers, which `AINet.norm` normalizes. With `ofm="attention"` the mixer is the
    self-attention of AINet-Transformer, which has no order.
    """

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.channels)
        self.norm2 = nn.LayerNorm(config.channels)
        self.mixer = OrderDynamicMamba(config) if config.ofm == "mamba" else LayerAttention(config)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """fused: (batch, layers, tokens, C). Returns (batch, tokens, C) and the order."""
        mixed, order = self.mixer(self.norm1(fused))
        return self.norm2(mixed + fused).sum(dim=1), order


class OrderDynamicMamba(nn.Module):
    """Three scans over the layers: forward, backward and in an order found for the input.

    out_proj of the mean of the three, or of two without the dynamic one; each has its own
    convolution, projections and states, and all the same gate silu(z).
    """

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        inner = 2 * config.channels

        def scan() -> SelectiveSSM:
            return SelectiveSSM(inner, config.d_state, config.d_conv, config.dt_rank)

        self.in_proj = nn.Linear(config.channels, 2 * inner, bias=False)
        self.forward_scan = scan()
        self.backward_scan = scan()
        if config.ofm_dynamic:
            self.dynamic_scan = scan()
            self.order_net = OrderNet(config)
        self.out_proj = nn.Linear(inner, config.channels, bias=False)
        self.dynamic = config.ofm_dynamic
        self.straight_through = config.ofm_order == "straight_through"

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """fused: (batch, layers, tokens, C), normalized. Returns the same shape and the order."""
        x, z = self.in_proj(fused).chunk(2, dim=-1)  # each (batch, layers, tokens, inner)
        total = scan_layers(self.forward_scan, x, z)
        # The layers are reversed; the tokens inside a layer keep their order.
        total = total + scan_layers(self.backward_scan, x.flip(1), z.flip(1)).flip(1)
        scans = 2
        order = torch.arange(fused.shape[1], device=fused.device).expand(fused.shape[:2])
        if self.dynamic:
            logits = self.order_net(fused)  # (batch, layers)
            order = logits.argsort(dim=1)
            total = total + self._dynamic(x, z, order, logits)
            scans = 3
        return self.out_proj(total / scans), order

    def _dynamic(self, x: Tensor, z: Tensor, order: Tensor, logits: Tensor) -> Tensor:
        """The scan in `order`, its output put back into the order of the layers."""
        if self.straight_through and torch.is_grad_enabled():
            permute = straight_through_permutation(logits)  # (batch, layers, layers)
            mix = "bij,bj...->bi..."
            y = scan_layers(
                self.dynamic_scan,
                torch.einsum(mix, permute, x),
                torch.einsum(mix, permute, z),
            )
            return torch.einsum(mix, permute.transpose(1, 2), y)
        y = scan_layers(self.dynamic_scan, take_layers(x, order), take_layers(z, order))
        return take_layers(y, order.argsort(dim=1))


def scan_layers(scan: SelectiveSSM, x: Tensor, z: Tensor) -> Tensor:
    """One scan over (batch, layers, tokens, inner) as a sequence of layers * tokens."""
    return scan(x.flatten(1, 2), z.flatten(1, 2)).view(x.shape)


def take_layers(x: Tensor, order: Tensor) -> Tensor:
    """x (batch, layers, ...) with its layers in `order` (batch, layers)."""
    return x[torch.arange(len(x), device=x.device)[:, None], order]


def straight_through_permutation(logits: Tensor) -> Tensor:
    """The permutation that sorts `logits` (batch, n) upwards, with the gradient of SoftSort.

    Forward, it is the exact 0/1 matrix (batch, n, n); backward, that of
    softmax(-|sorted_i - logits_j|), Prillo and Eisenschlos, ICML 2020.
    """
    ranked, order = logits.sort(dim=1)
    hard = F.one_hot(order, logits.shape[1]).to(logits.dtype)  # (batch, n, n)
    soft = F.softmax(-(ranked[:, :, None] - logits[:, None, :]).abs(), dim=-1)
    return hard + (soft - soft.detach())


class OrderNet(nn.Module):
    """One logit a layer from all tokens; the layers are scanned in ascending order of logits."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        first, second, third = config.order_widths
        self.pool = config.order_pool
        self.mlp = nn.Sequential(
            nn.Linear(config.order_pool, first),
            nn.GELU(),
            nn.Linear(first, second),
            nn.GELU(),
            nn.Linear(second, third),
        )
        self.logits = nn.Linear(config.channels * third, len(config.interaction_layers))

    def forward(self, fused: Tensor) -> Tensor:
        """fused: (batch, layers, tokens, C), normalized. Returns (batch, layers)."""
        x = fused.flatten(1, 2).transpose(1, 2)  # (batch, C, layers * tokens)
        x = F.adaptive_avg_pool1d(x, self.pool)  # (batch, C, pool)
        return self.logits(self.mlp(x).flatten(1))


class LayerAttention(nn.Module):
    """Self-attention over the tokens of all layers: the OFM of AINet-Transformer (Fig. 5)."""

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        self.attention = Attention(config.channels, config.heads)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """fused: (batch, layers, tokens, C), normalized. Returns that shape and 0, 1, ..."""
        order = torch.arange(fused.shape[1], device=fused.device).expand(fused.shape[:2])
        return self.attention(fused.flatten(1, 2)).view(fused.shape), order
