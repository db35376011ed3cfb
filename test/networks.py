# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A network small enough for a test, whole in its parts."""

import torch

from ainet_ros.network import AINet, create

TINY = dict(
    template_size=28,
    search_size=56,
    channels=48,
    heads=3,
    depth=4,
    interaction_layers=(1, 2, 3),
    d_state=4,
    dt_rank=3,
    head_channels=16,
    order_pool=16,
    order_widths=(8, 8, 4),
)


def tiny(**changes) -> AINet:
    """The preset "small" shrunk, always with the same random weights, in evaluation mode."""
    torch.manual_seed(0)
    return create("small", **{**TINY, **changes}).eval()
