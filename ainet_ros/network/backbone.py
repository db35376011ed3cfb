# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The ViT that both modalities share, as OSTrack has it: template and search tokens together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .config import AINetConfig


class Backbone(nn.Module):
    """Patch embedding, position embeddings and transformer blocks.

    RGB and thermal are two rows of one batch; nothing here knows which is which.
    """

    def __init__(self, config: AINetConfig) -> None:
        super().__init__()
        channels, patch = config.channels, config.patch_size
        self.patch_embed = nn.Conv2d(3, channels, patch, stride=patch)
        self.pos_embed_z = nn.Parameter(torch.zeros(1, config.template_tokens, channels))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, config.search_tokens, channels))
        for embedding in (self.pos_embed_z, self.pos_embed_x):
            nn.init.trunc_normal_(embedding, std=0.02)
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path * i / max(1, config.depth - 1))
            for i in range(config.depth)
        )

    def embed_template(self, images: Tensor) -> Tensor:
        """(batch, 3, T, T) to template tokens (batch, Nz, C)."""
        return self._patches(images) + self.pos_embed_z

    def embed_search(self, images: Tensor) -> Tensor:
        """(batch, 3, S, S) to search tokens (batch, Nx, C)."""
        return self._patches(images) + self.pos_embed_x

    def set_share(self, rank: int, count: int) -> None:
        """In training, take a batch for part `rank` of one that `count` processes share.

        Stochastic depth then draws, from a random state that they have in common, as one process
        with the whole batch would.
        """
        for block in self.blocks:
            assert isinstance(block, Block)
            block.share = rank, count

    def _patches(self, images: Tensor) -> Tensor:
        return self.patch_embed(images).flatten(2).transpose(1, 2)  # (batch, N, C)


class Block(nn.Module):
    """A pre-norm transformer block with stochastic depth."""

    def __init__(self, config: AINetConfig, drop_path: float) -> None:
        super().__init__()
        channels = config.channels
        hidden = channels * config.mlp_ratio
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, config.heads)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.scale1 = Scale(channels) if config.layer_scale else nn.Identity()
        self.scale2 = Scale(channels) if config.layer_scale else nn.Identity()
        self.drop_path = drop_path
        self.share = 0, 1

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, N, C) to the same shape."""
        tokens = tokens + self._drop(self.scale1(self.attn(self.norm1(tokens))))
        mlp = self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        return tokens + self._drop(self.scale2(mlp))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        rank, count = self.share
        kept = branch.new_empty(len(branch) * count, 1, 1).bernoulli_(keep).div_(keep)
        return branch * kept.chunk(count)[rank]


class Scale(nn.Module):
    """Layer scale: a learnt gain for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels,), 1e-5))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gain
