# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A training run from its configuration to its files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from ainet_ros.network import AINetConfig, create

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
    torch.manual_seed(config.seed)
    network = create(config.preset, **config.network)
    warm_start(network, vit=vit, weights=weights)
    cache = cache or output / "cache"
    training, validation = (
        samples(config, network.config, root, split, cache) for split in ("train", "validation")
    )
    with joined(device) as processes:
        Trainer(config, network, training, validation, output, processes).run()


def samples(
    config: TrainConfig, network: AINetConfig, root: Path, split: str, cache: Path
) -> TrainingData:
    """The samples of a run, its "train" or "validation" split, in the sizes that `network` takes.

    Raises FileNotFoundError and ValueError as `TrainingData`, and ValueError on an option that it
    does not have.
    """
    sides = {"template_size": network.template_size, "search_size": network.search_size}
    own: dict[str, Any] = {"split": split, "seed": config.seed, "cache": cache, **sides}
    known = set(inspect.signature(TrainingData).parameters) - {"root", *own}
    if unknown := sorted(set(config.data) - known):
        raise ValueError(f"data: unknown options {unknown}")
    return TrainingData(root, **own, **config.data)
