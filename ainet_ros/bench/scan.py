# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The backends of the selective scan against its step-by-step reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ainet_ros.network.scan import available_backends, selective_scan_fn

from .measure import machine, median_times, memory_growth


@dataclass(frozen=True)
class Case:
    """A scan that the networks need; `by_step`: in memory as (batch, length, channels), which is
    how ainet_ros has it, and not as (batch, channels, length), which is how mamba_ssm has it."""

    name: str
    batch: int
    channels: int
    length: int
    states: int
    by_step: bool
    backward: bool


CASES = (
    Case("OFM of base_256", 1, 1536, 3072, 16, by_step=True, backward=False),
    Case("OFM of base_256, mamba_ssm's layout", 1, 1536, 3072, 16, by_step=False, backward=False),
    Case("training: forward and backward", 16, 384, 180, 16, by_step=True, backward=True),
)


def _inputs(case: Case, device: str) -> dict[str, Tensor]:
    """Random but for A and the median of delta, which are those of a new Mamba."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    def series(size: int) -> Tensor:
        if case.by_step:
            return normal(case.batch, case.length, size).transpose(1, 2)
        return normal(case.batch, size, case.length)

    numbers = torch.arange(1.0, case.states + 1, device=device)
    tensors = {
        "u": series(case.channels),
        "delta": series(case.channels),
        "A": -numbers.repeat(case.channels, 1),
        "B": series(case.states),
        "C": series(case.states),
        "D": normal(case.channels),
        "z": series(case.channels),
        "delta_bias": normal(case.channels) - 4.6,
    }
    return {name: t.requires_grad_(case.backward) for name, t in tensors.items()}


def _runs(case: Case, device: str) -> dict[str, Callable[[], Any]]:
    tensors: Any = _inputs(case, device)

    def run(backend: str) -> Any:
        out = selective_scan_fn(**tensors, delta_softplus=True, backend=backend)
        return torch.autograd.grad(out.sum(), list(tensors.values())) if case.backward else out

    return {b: lambda b=b: run(b) for b in available_backends(device)}  # type: ignore[misc]


def measure(device: str, repeats: int) -> dict[str, Any]:
    """Of each case and backend: median seconds, times faster than the reference, and on a CPU
    the memory that a run adds to the process, in bytes, its results included."""
    results = []
    for case in CASES:
        runs = _runs(case, device)
        memory = {b: memory_growth(run) for b, run in runs.items()} if device == "cpu" else {}
        times = median_times(runs, repeats)
        backends = {
            b: {"seconds": t, "speedup": times["reference"] / t, "memory": memory.get(b)}
            for b, t in times.items()
        }
        results.append({**asdict(case), "backends": backends})
    return {"machine": machine(), "device": device, "repeats": repeats, "cases": results}


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    lines = [", ".join(f"{key} {value}" for key, value in result["machine"].items())]
    for case in result["cases"]:
        shape = " x ".join(str(case[k]) for k in ("batch", "channels", "length", "states"))
        lines.append(f"\n{case['name']}: batch x channels x length x states = {shape}")
        lines.append(f"  {'backend':12}{'time':>12}{'speed':>12}{'memory':>12}")
        for backend, row in case["backends"].items():
            memory = f"{row['memory'] / 2**20:8.1f} MiB" if row["memory"] is not None else ""
            lines.append(
                f"  {backend:12}{row['seconds'] * 1e3:9.1f} ms{row['speedup']:11.1f}x{memory:>12}"
            )
    return "\n".join(lines)
