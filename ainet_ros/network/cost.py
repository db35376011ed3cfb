# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Parameters and multiply-accumulates of a network, counted on one pair."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .model import AINet

SCAN_MACS = 3
"""Of one state in one step of a scan: the decay of h, its input, its share of the output."""
STAGES = {
    "patch embedding": r"backbone\.patch_embed",
    "blocks": r"backbone\.blocks\.\d+",
    "DFM": r"dfm\.\d+",
    "OFM": r"ofm|norm",
    "head": r"head",
}
"""The modules that a network is made of, as patterns of their names."""


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply-accumulates for one pair."""

    parameters: int
    macs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs, and what its fusion modules add."""

    whole: Cost
    stages: dict[str, Cost]
    """By the names of STAGES."""
    added_seen_by_hooks: Cost
    """What DFM and OFM add in the eyes of a profiler that hooks modules. It misses the weights
    that the published code hands to fused Mamba kernels; the paper's Table 4 agrees with it."""

    @property
    def added(self) -> Cost:
        """What DFM and OFM add in truth."""
        return self.stages["DFM"] + self.stages["OFM"]


def count(network: AINet) -> NetworkCost:
    """Count `network`, which is on the CPU, by running it once on zeros of batch 1.

    Of the scan's backends only the compiled one for CPUs is counted.
    """
    config = network.config
    like = next(network.parameters())
    pair = [
        like.new_zeros(1, 2, 3, side, side) for side in (config.template_size, config.search_size)
    ]
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.ainet_ros.selective_scan: _scan_flops,
            torch.ops.aten.addcmul: _addcmul_flops,
        },
    )
    with torch.no_grad(), counter:
        network(*pair, like.new_tensor([[0.5, 0.5, 0.5, 0.5]]))
    flops = counter.get_flop_counts()

    def cost(pattern: str) -> Cost:
        """Of the modules whose names match, with all that is in them."""
        modules = {name for name, _ in network.named_modules() if re.fullmatch(pattern, name)}
        parameters = {
            name
            for name, _ in network.named_parameters()
            if any(name.startswith(f"{module}.") for module in modules)
        }
        return Cost(
            sum(p.numel() for name, p in network.named_parameters() if name in parameters),
            sum(sum(flops[f"AINet.{m}"].values()) for m in modules if f"AINet.{m}" in flops) // 2,
        )

    return NetworkCost(
        whole=Cost(
            sum(p.numel() for p in network.parameters()), sum(flops["AINet"].values()) // 2
        ),
        stages={stage: cost(pattern) for stage, pattern in STAGES.items()},
        added_seen_by_hooks=cost(
            r"dfm\.\d+\.(norm|fusion|attention)|ofm\.norm[12]|norm|"
            r"ofm\.mixer\.(order_net|attention)"
        ),
    )


def _scan_flops(u: Any, delta: Any, A: Any, *args: Any, **kwargs: Any) -> int:
    batch, channels, length = u
    return 2 * SCAN_MACS * batch * channels * length * A[1]


def _addcmul_flops(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """The causal convolution is made of these: one multiply-accumulate an element."""
    elements = 1
    for side in out_shape:
        elements *= side
    return 2 * elements
