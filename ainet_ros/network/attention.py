# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Multi-head attention, as the ViT and AINet-Transformer use it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with a joint projection to q, k, v."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, source: Tensor | None = None) -> Tensor:
        """`tokens` (batch, N, C) attend to `source` (batch, M, C), or to themselves."""
        batch, length, channels = tokens.shape
        if source is None:
            q, k, v = self.qkv(tokens).chunk(3, dim=-1)  # each (batch, N, C)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(tokens, weight[:channels], bias[:channels])
            k, v = F.linear(source, weight[channels:], bias[channels:]).chunk(2, dim=-1)
        # (batch, length, C) -> (batch, heads, length, C / heads)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = attend(q, k, v)  # (batch, heads, N, C / heads)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, channels))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of q (..., N, d) and k, v (..., M, d); returns (..., N, d)."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    # torch's fused form is no quicker on a CPU in float32, and in bfloat16 takes twice the time
    # forward and four times backward (180 tokens).
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (..., N, M)
    return scores.softmax(dim=-1).to(v.dtype) @ v
