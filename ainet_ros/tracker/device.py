# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Where a network runs, in which arithmetic, and how its memory is kept."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ainet_ros.network.int8 import quantize

DEVICES = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]?))?")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")
MEBIBYTE = 2**20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of <malloc.h>."""
CPUINFO = Path("/proc/cpuinfo")
NO_MEMORY = re.compile("out of memory|not enough memory|allocate memory|bad_alloc|ALLOC_FAILED")
"""In the RuntimeErrors of torch on a GPU and on a CPU, of C++, and of CUDA's libraries."""


def resolve(name: str) -> torch.device:
    """The device called "auto" (CUDA where there is a GPU, else the CPU), "cpu", "cuda", "cuda:N".

    Raises ValueError where it has another name or is not there.
    """
    if not DEVICES.fullmatch(name):
        raise ValueError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name}: torch finds no CUDA GPU; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {name}: torch finds {count} GPUs, counted from cuda:0")
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of matrix products called by one of `PRECISIONS` on a device.

    "auto" is bfloat16 on a CPU with instructions for it (AVX-512 BF16, AMX, or Arm's), where
    products take half the time or less, else float32. Raises ValueError on another name, and on
    "int8" for a GPU.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision {name!r} is none of {', '.join(PRECISIONS)}")
    if name == "auto":
        return _quick_float() if device.type == "cpu" else torch.float32
    if name == "int8" and device.type != "cpu":
        raise ValueError(f"precision int8 is for a CPU, not for {device}: use auto")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}[name]


def convert(precision: torch.dtype, network: nn.Module, device: torch.device) -> torch.autocast:
    """Convert the weights of `network`, in place, to multiply matrices in `precision`.

    device: where it is. Returns the context for its calls. With int8 the smaller layers, and what
    is not a layer, are in bfloat16 where the CPU is quick in that, else in float32.
    """
    rest = precision
    if precision == torch.int8:
        rest = _quick_float()
        quantize(network, rest)
    reduced = rest == torch.bfloat16
    for module in network.modules() if reduced else ():
        if isinstance(module, nn.Linear | nn.Conv2d):
            # Else autocast would convert each weight anew for every frame.
            module.to(torch.bfloat16)
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, the device's or the computer's."""
    if isinstance(error, RuntimeError):
        return NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)


def translate(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """`function` by torch.compile, for a network whose weights do not change any more.

    The translation takes place in the first call, and once more in the first of another batch
    size. On a GPU it is a CUDA graph.
    """
    if device.type == "cuda":
        return torch.compile(function, mode="reduce-overhead")
    translated = torch.compile(
        function,
        options={
            # A GELU that is read twice, as int8 does, is not computed twice.
            "realize_opcount_threshold": 8,
            # To call the kernels from Python takes a twentieth of a frame.
            "cpp_wrapper": True,
        },
    )

    def call(*arguments: Any) -> Any:
        # No option of torch.compile: it is looked up before those are in force.
        with torch._inductor.config.patch(freezing=True):
            return translated(*arguments)

    return call


def _quick_float() -> torch.dtype:
    """bfloat16 on a CPU with instructions for it, else float32."""
    if not CPUINFO.exists():
        return torch.float32
    # "flags" on x86, "Features" on Arm; the machine's cores are taken to be alike.
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(), re.MULTILINE)
    has = set(flags[1].split() if flags else ())
    return torch.bfloat16 if has & {"avx512_bf16", "amx_bf16", "bf16"} else torch.float32


def keep_large_buffers() -> None:
    """Have glibc keep the memory of freed images and activations for the next ones.

    It would give it back to the system and get it anew, page by page: 10 of the 17 ms that an
    image of 1920x1080 took from camera to callback on a computer of two cores.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * MEBIBYTE)  # the most it takes
        mallopt(M_TRIM_THRESHOLD, 256 * MEBIBYTE)
        mallopt(M_TOP_PAD, 32 * MEBIBYTE)
