# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Linear layers in 8-bit integers, for CPUs that multiply those quickest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import Block
from .dfm import Fusion
from .mamba import Mamba
from .ofm import OrderDynamicMamba


class Int8Linear(nn.Module):
    """A linear layer with weights rounded to 8 bits by output, and inputs by token as they come.

    Without torch.compile, which fuses the rounding with what stands before and the scaling with
    what follows, this is slower than the layer in float32.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        """dtype: of the result."""
        super().__init__()
        self.dtype = dtype
        rounded, scale = _round(linear.weight.detach().float())
        self.register_buffer("weight", rounded)  # (outputs, inputs), int8
        self.register_buffer("weight_scale", scale.squeeze(1))  # (outputs)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        rounded, scale = _round(x.float().flatten(0, -2))  # (tokens, inputs), (tokens, 1)
        y = torch._int_mm(rounded, self.weight.T) * (scale * self.weight_scale)
        if self.bias is not None:
            y = y + self.bias
        return y.to(self.dtype).unflatten(0, x.shape[:-1])


def _round(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row (rows, n) as int8 times its scale (rows, 1), which takes the largest to 127."""
    scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
    return (rows / scale).round().to(torch.int8), scale


def quantize(network: nn.Module, dtype: torch.dtype) -> None:
    """Put an Int8Linear with results of `dtype` in the place of each linear layer of C channels.

    These are the layers of the blocks, the projections of the Mambas and the DFM's fusion. What
    makes a scan's parameters, the order and the maps stays as it is.
    """
    for module in list(network.modules()):
        if isinstance(module, Block):
            _replace(module, dtype)
            _replace(module.attn, dtype)
        elif isinstance(module, Mamba | OrderDynamicMamba | Fusion):
            _replace(module, dtype)


def _replace(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child, dtype))
