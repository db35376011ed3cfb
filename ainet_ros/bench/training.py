# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Where the time of a training step goes."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from ainet_ros.network import create
from ainet_ros.training.config import TrainConfig
from ainet_ros.training.processes import joined
from ainet_ros.training.run import samples
from ainet_ros.training.trainer import Trainer

from .measure import machine, median_times


def measure(
    config: TrainConfig, data: Path, cache: Path, device: str, repeats: int
) -> dict[str, Any]:
    """Seconds a sample of making it, and of the forward, backward and optimizer's part of a step.

    Samples are made by one process and by nothing else at that time; in a run, `workers`
    processes make them beside the steps. Raises as `samples` and `Trainer`.
    """
    torch.manual_seed(config.seed)
    network = create(config.preset, **config.network)
    training = samples(config, network.config, data, "train", cache)
    with joined(device) as processes, tempfile.TemporaryDirectory() as output:
        trainer = Trainer(config, network, training, training, Path(output), processes)
        numbers = itertools.count()

        def make() -> Any:
            return default_collate([training[next(numbers)] for _ in range(config.batch)])

        batch = make()
        times = median_times(
            {
                "samples": make,
                "forward": lambda: trainer.losses(batch),
                "backward": lambda: trainer.losses(batch).total.backward(),
                "step": lambda: trainer.optimize(batch),
            },
            repeats,
        )
    return {
        "machine": machine(),
        "device": str(processes.device),
        "repeats": repeats,
        "preset": config.preset,
        "batch": config.batch,
        "precision": config.precision,
        "seconds": {
            "making it": times["samples"] / config.batch,
            "forward and losses": times["forward"] / config.batch,
            "backward": (times["backward"] - times["forward"]) / config.batch,
            "optimizer and average": (times["step"] - times["backward"]) / config.batch,
        },
    }


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    seconds = result["seconds"]
    whole = sum(seconds.values())
    lines = [
        ", ".join(f"{key} {value}" for key, value in result["machine"].items()),
        f"{result['preset']}, batch {result['batch']}, {result['precision']}: a sample takes",
        *(f"  {k:24}{v * 1e3:8.1f} ms{v / whole:8.0%}" for k, v in seconds.items()),
        f"  {'together':24}{whole * 1e3:8.1f} ms",
    ]
    return "\n".join(lines)
