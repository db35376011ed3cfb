# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Mamba-1: the selective state-space model that the fusion modules are made of.

Token sequences are (batch, length, channels) throughout: contiguous in the channels, which the
scan and the depthwise convolution vectorise over.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .scan import selective_scan_fn


class SelectiveSSM(nn.Module):
    """Causal convolution and selective scan (eqs. 1 to 4): one direction of a Mamba.

    Its five parameters (conv1d, x_proj, dt_proj, A_log, D) are what the published Mamba3 has
    three sets of.
    """

    def __init__(self, channels: int, d_state: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        self.dt_rank, self.d_state = dt_rank, d_state
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
        self.x_proj = nn.Linear(channels, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        # Mamba's start: softplus(bias) is log-uniform in [1e-3, 1e-1].
        step = torch.exp(torch.rand(channels) * (math.log(1e-1) - math.log(1e-3)) + math.log(1e-3))
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x, z: (batch, length, channels). Returns scan(silu(conv(x))) * silu(z), same shape."""
        x = F.silu(self._convolve(x))
        # (batch, length, dt_rank), and twice (batch, length, d_state)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.linear(dt, self.dt_proj.weight)  # (batch, length, channels)
        y = selective_scan_fn(
            x.transpose(1, 2),  # (batch, channels, length), as mamba_ssm has it
            delta.transpose(1, 2),
            -torch.exp(self.A_log.float()),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D.float(),
            z=z.transpose(1, 2),
            delta_bias=self.dt_proj.bias.float(),
            delta_softplus=True,
        )
        return y.transpose(1, 2)  # (batch, length, channels)

    def _convolve(self, x: Tensor) -> Tensor:
        """The depthwise causal conv1d as shifted products: many times faster on a CPU."""
        taps = self.conv1d.weight.squeeze(1).T  # (d_conv, channels)
        padded = F.pad(x, (0, 0, len(taps) - 1, 0))  # (batch, d_conv - 1 + length, channels)
        length = x.shape[1]
        bias = self.conv1d.bias
        assert bias is not None
        y = torch.addcmul(bias, padded[:, :length], taps[0])
        for k in range(1, len(taps)):
            y = torch.addcmul(y, padded[:, k : k + length], taps[k])
        return y


class Mamba(nn.Module):
    """The plain causal Mamba of the DFM: in_proj, one scan, out_proj; expand 1."""

    def __init__(self, channels: int, d_state: int, d_conv: int, dt_rank: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(channels, 2 * channels, bias=False)
        self.ssm = SelectiveSSM(channels, d_state, d_conv, dt_rank)
        self.out_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, length, channels) to the same shape."""
        x, z = self.in_proj(tokens).chunk(2, dim=-1)  # each (batch, length, channels)
        return self.out_proj(self.ssm(x, z))
