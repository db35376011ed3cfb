# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The time of a network by its stages, how near it comes to the machine's limit, and how it grows.

Growth is shown as in the paper's Fig. 5: AINet beside AINet-Transformer, which fuses by attention.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from ainet_ros.network import AINet, AINetConfig, mamba, scan
from ainet_ros.network.cost import STAGES, count
from ainet_ros.tracker.device import convert
from ainet_ros.vision import charts

from . import limit
from .measure import available_memory, machine, memory_growth

LAYERS = (1, 3, 6, 12)
RESOLUTIONS = (128, 256, 384, 512)
"""Sides of the search region over which growth is shown; the template has half of each."""
VARIANTS: dict[str, dict[str, Any]] = {
    "AINet": {},
    "AINet-Transformer": {"dfm": "attention", "ofm": "attention"},
}
COPIES = 4
"""Of the attention scores of a layer that are in memory at once, at most."""


class Run:
    """A network and a pair, and the time of its stages each time it is run."""

    def __init__(self, network: AINet, precision: torch.dtype) -> None:
        """The network is put into eval mode; `precision` is that of its matrix products."""
        self.network = network.eval()
        config = network.config
        self.device = next(network.parameters()).device
        self.pair = [
            torch.zeros(1, 2, 3, side, side, device=self.device)
            for side in (config.template_size, config.search_size)
        ]
        self.autocast = convert(precision, self.network, self.device)
        self.modules = {
            stage: [m for name, m in network.named_modules() if re.fullmatch(pattern, name)]
            for stage, pattern in STAGES.items()
        }

    def __call__(self) -> None:
        """One pair, the template too."""
        with torch.inference_mode(), self.autocast:
            self.network(*self.pair)

    def seconds(self) -> dict[str, float]:
        """Of the stages of one run, and of the whole."""
        with self._timed() as spent:
            started = self._now()
            self()
            spent["whole"] = self._now() - started
        return spent

    @contextmanager
    def _timed(self) -> Iterator[dict[str, float]]:
        spent = dict.fromkeys(self.modules, 0.0)
        handles = []
        began = 0.0  # of the one module that runs: none is inside of another

        def before(module: Any, args: Any) -> None:
            nonlocal began
            began = self._now()

        def after(stage: str, module: Any, args: Any, result: Any) -> None:
            spent[stage] += self._now() - began

        for stage, modules in self.modules.items():
            for module in modules:
                handles.append(module.register_forward_pre_hook(before))
                handles.append(module.register_forward_hook(partial(after, stage)))
        try:
            yield spent
        finally:
            for handle in handles:
                handle.remove()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class StepByStep(Run):
    """The same with the scan step by step, as where there is no kernel for it."""

    def __call__(self) -> None:
        by_step = partial(scan.selective_scan_fn, backend="reference")
        with mock.patch.object(mamba, "selective_scan_fn", by_step):
            super().__call__()


def medians(runs: Mapping[str, Run], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each run's stages; the runs take turns after one to warm up."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            seconds = run.seconds()
            if turn:
                taken[name].append(seconds)
    return {
        name: {stage: statistics.median(s[stage] for s in rows) for stage in rows[0]}
        for name, rows in taken.items()
    }


def measure(
    config: AINetConfig, device: str, precision: torch.dtype, repeats: int
) -> dict[str, Any]:
    """One pair through a fresh network: seconds and multiply-accumulates of each stage, the
    operations a second over those that this machine's matrix multiplication reaches, memory; and
    the seconds with the scan step by step, in turns.
    """
    network = AINet(config).eval()
    cost = count(network)
    network.to(device)
    run = Run(network, precision)
    taken = medians({"": run, "step by step": StepByStep(network, precision)}, repeats)
    seconds = taken[""]
    name = "bfloat16" if precision == torch.bfloat16 else "float32"
    yardstick = limit.rate(name, device, repeats)
    costs = {**cost.stages, "whole": cost.whole}
    return {
        "machine": machine(),
        "device": device,
        "precision": name,
        "repeats": repeats,
        "yardstick": yardstick,
        "memory": memory_growth(run) if device == "cpu" else _cuda_memory(run),
        "step_by_step": taken["step by step"]["whole"],
        "stages": {
            stage: {
                "seconds": value,
                "macs": costs[stage].macs,
                "parameters": costs[stage].parameters,
                "of_yardstick": 2 * costs[stage].macs / value / yardstick,
            }
            for stage, value in seconds.items()
        },
    }


def growth(config: AINetConfig, device: str, repeats: int) -> dict[str, Any]:
    """Seconds and memory of AINet and of AINet-Transformer over the number of layers that
    interact, at the configuration's resolution, and over the resolution, with all of them, as far
    as its depth and its patches allow.

    A network that would not fit into the free memory is not run; its figures are None.
    """
    patches = 2 * config.patch_size  # a side of whole patches, and of the template too
    cases: list[tuple[str, int, dict[str, Any]]] = [
        *(
            ("layers", n, {"interaction_layers": spread(n, config.depth)})
            for n in LAYERS
            if n <= config.depth
        ),
        *(
            (
                "resolution",
                side,
                {
                    "search_size": side,
                    "template_size": side // 2,
                    "interaction_layers": tuple(range(config.depth)),
                    "ofm_tokens": "search",  # "published" skips the template of one resolution
                },
            )
            for side in (round(wanted / patches) * patches for wanted in RESOLUTIONS)
        ),
    ]
    rows = []
    for axis, value, changes in cases:
        for variant, options in VARIANTS.items():
            whole = dataclasses.replace(config, **changes, **options)
            row = {"axis": axis, "value": value, "variant": variant, "tokens": ofm_tokens(whole)}
            if _needs(whole) > _free(device):
                rows.append({**row, "seconds": None, "fusion": None, "memory": None})
                continue
            run = Run(AINet(whole).to(device), torch.float32)
            seconds = medians({"": run}, repeats)[""]
            # A network's first pair takes more memory than those after it.
            memory = memory_growth(run) if device == "cpu" else _cuda_memory(run)
            fusion = seconds["DFM"] + seconds["OFM"]
            rows.append({**row, "seconds": seconds["whole"], "fusion": fusion, "memory": memory})
    return {
        "machine": machine(),
        "device": device,
        "repeats": repeats,
        "rows": rows,
        "fits": {name: found for name in VARIANTS if (found := fit(rows, name)) is not None},
    }


def fit(rows: list[dict[str, Any]], variant: str) -> dict[str, float] | None:
    """How the fusion's time grows with the tokens of the OFM, over the resolutions: the exponent
    of a power law, and the share of the variance that a straight line explains. None where fewer
    than three were run.
    """
    known = [
        (row["tokens"], row["fusion"])
        for row in rows
        if row["axis"] == "resolution" and row["variant"] == variant and row["fusion"]
    ]
    if len(known) < 3:
        return None
    tokens, seconds = np.array(known, float).T
    exponent = float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])
    line = np.polyval(np.polyfit(tokens, seconds, 1), tokens)
    explained = 1 - float(((seconds - line) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum())
    return {"exponent": exponent, "linear_r2": explained}


def spread(count: int, depth: int) -> tuple[int, ...]:
    """So many layers of `depth`, evenly, the last one among them."""
    return tuple(round((i + 1) * depth / count) - 1 for i in range(count))


def ofm_tokens(config: AINetConfig) -> int:
    """The length of the sequence that the OFM scans."""
    tokens = config.template_tokens + config.search_tokens - config.ofm_skipped_tokens
    return len(config.interaction_layers) * tokens


def draw(result: dict[str, Any], path: Path) -> None:
    """The result of `growth` as a picture: time and memory over layers and resolution."""
    panels = {
        (axis, key): {
            variant: [
                (row["value"], row[key] * scale)
                for row in result["rows"]
                if row["axis"] == axis and row["variant"] == variant and row[key] is not None
            ]
            for variant in VARIANTS
        }
        for axis in ("layers", "resolution")
        for key, scale in (("seconds", 1e3), ("memory", 2**-20))
    }
    labels = {
        "layers": "layers that interact",
        "resolution": "search region (px)",
        "seconds": "time of a pair (ms)",
        "memory": "memory of a pair (MiB)",
    }
    charts.line_plots(
        path, {(labels[axis], labels[key]): lines for (axis, key), lines in panels.items()}
    )


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    lines = [
        ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
        f"{result['precision']}, one pair, {result['memory'] / 2**20:.0f} MiB; a matrix "
        f"multiplication reaches {result['yardstick'] / 1e9:.0f} Gop/s",
        f"  {'':18}{'ms':>8}{'GMAC':>9}{'Gop/s':>9}{'of it':>8}",
    ]
    for stage, row in result["stages"].items():
        rate = 2 * row["macs"] / row["seconds"] / 1e9
        lines.append(
            f"  {stage:18}{row['seconds'] * 1e3:8.1f}{row['macs'] / 1e9:9.2f}{rate:9.0f}"
            f"{row['of_yardstick']:8.0%}"
        )
    slow, whole = result["step_by_step"], result["stages"]["whole"]["seconds"]
    lines.append(f"with the scan step by step: {slow * 1e3:.0f} ms, {slow / whole:.1f} times")
    return "\n".join(lines)


def growth_table(result: dict[str, Any]) -> str:
    """The result of `growth` for reading."""
    lines = [", ".join(f"{key} {value}" for key, value in result["machine"].items())]
    lines.append(f"  {'':12}{'':>6}  {'':18}{'ms':>10}{'fusion, ms':>12}{'MiB':>8}")
    for row in result["rows"]:
        head = f"  {row['axis']:12}{row['value']:>6}  {row['variant']:18}"
        if row["seconds"] is None:
            lines.append(head + "  more memory than is free")
            continue
        lines.append(
            f"{head}{row['seconds'] * 1e3:10.1f}{row['fusion'] * 1e3:12.1f}"
            f"{row['memory'] / 2**20:8.0f}"
        )
    for variant, values in result["fits"].items():
        lines.append(
            f"  {variant}: time of the fusion ~ tokens ^ {values['exponent']:.2f}; "
            f"a straight line explains {values['linear_r2']:.1%}"
        )
    return "\n".join(lines)


def _needs(config: AINetConfig) -> int:
    """Bytes of the attention scores of a pair, by far the largest tensors; 0 without attention."""
    if config.ofm != "attention":
        return 0
    return COPIES * 4 * config.heads * ofm_tokens(config) ** 2


def _free(device: str) -> int:
    return available_memory() if device == "cpu" else int(torch.cuda.mem_get_info()[0])


def _cuda_memory(run: Run) -> int:
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
