# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The processes of one training run, as torchrun starts them; without it there is one.

A run comes out the same however many there are: each takes its part of every batch, and what
looks at a whole batch (losses, batch normalization, random draws) sees all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ainet_ros.network import AINet
from ainet_ros.tracker.device import resolve


@dataclass(frozen=True)
class Processes:
    """Which of the run's processes this one is, and the device it has to itself."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that logs, validates and saves."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes, which all have to ask for it."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def share(self, batch: int) -> int:
        """Samples of a batch that each process takes. Raises ValueError if they do not divide."""
        if batch % self.count:
            raise ValueError(f"a batch of {batch} cannot be shared by {self.count} processes")
        return batch // self.count

    def spread(self, network: AINet) -> nn.Module:
        """`network`, changed so that the processes train it as one would; call what is returned.

        Its parameters get the gradients' mean, in every process the same.
        """
        if self.count == 1:
            return network
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, SynchronizedBatchNorm2d.like(child))
        network.backbone.set_share(self.rank, self.count)
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            # They are equal already.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process among those of its torchrun, until the end of the block.

    `device` is one of `ainet_ros.tracker.device.resolve`; of several GPUs each process of a
    machine takes its own. Raises ValueError where there are not enough.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Processes(resolve(device))
        return
    own = resolve(device)
    if own.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"this machine has {torch.cuda.device_count()} GPUs: give torchrun no more "
                "processes a machine"
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield Processes(own, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, through which gradients reach each of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return Sum.apply(gradient)


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the samples of all processes, each of which has as many.

    As nn.SyncBatchNorm, which is for GPUs only.
    """

    @classmethod
    def like(cls, other: nn.BatchNorm2d) -> SynchronizedBatchNorm2d:
        """With the parameters and statistics of `other`."""
        own = cls(other.num_features, other.eps, other.momentum)
        own.to(other.weight.device).load_state_dict(other.state_dict())
        return own

    def forward(self, input: Tensor) -> Tensor:
        """(batch, C, H, W) to the same shape."""
        if not self.training:
            return super().forward(input)
        count = dist.get_world_size()
        x = input.float()
        mean = Sum.apply(x.mean((0, 2, 3))) / count  # (C,)
        centred = x - mean[:, None, None]
        variance = Sum.apply(centred.square().mean((0, 2, 3))) / count  # (C,)
        self._remember(mean.detach(), variance.detach(), count * x.numel() // len(mean))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        y = centred * scale[:, None, None] + self.bias[:, None, None]
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Moves the statistics that evaluation uses, with the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * values / max(1, values - 1), self.momentum)
