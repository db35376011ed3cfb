# SPDX-License-Identifier: Apache-2.0
"""A training run from its configuration to its files."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

from ainet_ros.network import create

from .config import TrainConfig
from .data import TrainingData
from .processes import joined
from .start import warm_start
from .trainer import Trainer


def train(
    config: TrainConfig,
    root: Path,
    output: Path,
    *,
    vit: Path | None = None,
    weights: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
) -> None:
    """Trains the network of `config` on the data under `root`, or goes on with it.

    Args:
        config: the run.
        root: folder of the training data.
        output: of the run's files, see `Trainer`.
        vit, weights: where a new run starts from, see `warm_start`.
        cache: of the decoded data; OUTPUT/cache where None.
        device: auto, cpu or cuda.

    Raises:
        FileNotFoundError, ValueError: as `TrainingData`, `warm_start` and `Trainer`.
    """
    unknown = sorted(set(config.data) - set(inspect.signature(TrainingData).parameters))
    if unknown:
        raise ValueError(f"data: unknown options {unknown}")
    torch.manual_seed(config.seed)
    network = create(config.preset, **config.network)
    warm_start(network, vit=vit, weights=weights)

    def data(split: str) -> TrainingData:
        return TrainingData(
            root,
            split=split,
            seed=config.seed,
            template_size=network.config.template_size,
            search_size=network.config.search_size,
            cache=cache or output / "cache",
            **config.data,
        )

    training, validation = data("train"), data("validation")
    with joined(device) as processes:
        Trainer(config, network, training, validation, output, processes).run()
