# SPDX-License-Identifier: Apache-2.0
"""Where a network runs, and in which arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

PRECISIONS = ("auto", "float32", "bfloat16")
CPUINFO = Path("/proc/cpuinfo")


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


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of matrix products called "auto", "float32" or "bfloat16" on a device.

    "auto" is bfloat16 on a CPU with instructions for it (AVX-512 BF16, AMX, or Arm's), where
    products take half the time or less, else float32. Raises ValueError on another name.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is none of {', '.join(PRECISIONS)}")
    if name == "auto":
        name = "bfloat16" if device.type == "cpu" and _multiplies_bfloat16() else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def compute_in(precision: torch.dtype, network: nn.Module, device: torch.device) -> torch.autocast:
    """The context in which `network` multiplies matrices in float32 or bfloat16 on its device.

    For bfloat16 its weights for that are converted, for good.
    """
    reduced = precision == torch.bfloat16
    for module in network.modules() if reduced else ():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Else autocast would convert each weight anew for every frame.
            module.to(torch.bfloat16)
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def _multiplies_bfloat16() -> bool:
    if not CPUINFO.exists():
        return False
    # "flags" on x86, "Features" on Arm; the machine's cores are taken to be alike.
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
    return flags is not None and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(
        flags[1].split()
    )
