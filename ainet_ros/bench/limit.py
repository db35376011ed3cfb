# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What this machine can do at most: the yardstick of the other measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .measure import machine, median_times

SIDE = 2048
"""Of the square matrices that are multiplied."""
COPIED = 256 * 2**20
"""Bytes of the array that is copied, larger than any cache."""


def runs(device: str) -> dict[str, tuple[Callable[[], Any], float]]:
    """By its name what is run, and the operations that it does or the bytes that it moves."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=generator, device=device) for _ in range(2))
    half_a, half_b = a.bfloat16(), b.bfloat16()
    byte_a, byte_b = (m.mul(32).clamp(-127, 127).to(torch.int8) for m in (a, b))
    array = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(array)
    operations = 2.0 * SIDE**3
    return {
        "float32": (lambda: a @ b, operations),
        "bfloat16": (lambda: half_a @ half_b, operations),
        "int8": (lambda: torch._int_mm(byte_a, byte_b), operations),
        # Read once and written once.
        "memory": (lambda: target.copy_(array), 2.0 * COPIED),
    }


def rate(name: str, device: str, repeats: int) -> float:
    """The operations or bytes a second of one of `runs`."""
    function, amount = runs(device)[name]
    return amount / median_times({name: function}, repeats)[name]


def measure(device: str, repeats: int) -> dict[str, Any]:
    """Operations a second of a matrix multiplication by dtype, an addition and a multiplication
    being two, and the bytes a second of a copy.
    """
    all_runs = runs(device)
    times = median_times({name: function for name, (function, _) in all_runs.items()}, repeats)
    return {
        "machine": machine(),
        "device": device,
        "repeats": repeats,
        "per_second": {name: amount / times[name] for name, (_, amount) in all_runs.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    lines = [", ".join(f"{key} {value}" for key, value in result["machine"].items())]
    for name, value in result["per_second"].items():
        what = "copied, read and written" if name == "memory" else f"matrices of {SIDE} x {SIDE}"
        unit = "GB/s" if name == "memory" else "Gop/s"
        lines.append(f"  {name:12}{value / 1e9:10.1f} {unit:6} {what}")
    return "\n".join(lines)
