# SPDX-License-Identifier: Apache-2.0
"""Where a network runs."""

from __future__ import annotations

import torch


def resolve(name: str) -> torch.device:
    """The device called "auto" (CUDA where there is a GPU, else the CPU), "cpu", "cuda", "cuda:N".

    Raises ValueError where it is not there or torch does not know it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no CUDA GPU; use cpu or auto")
    return device
