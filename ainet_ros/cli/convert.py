# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet convert`: a published checkpoint into a weights file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="turn a published checkpoint into a weights file",
        description="Turn a checkpoint of AINet, OSTrack or DropTrack into safetensors, without "
        "executing anything in it. OSTrack and DropTrack give the baseline, a start for training.",
    )
    parser.add_argument("checkpoint", type=Path, help="the authors' .pth.tar file")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--preset",
        choices=("base_256", "base_384"),
        help="resize the position embeddings to this preset (default: the checkpoint's own)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ainet_ros.tracker import weights
    from ainet_ros.training.published import read_published, to_network

    network = to_network(read_published(args.checkpoint), args.preset)
    weights.save(network, args.output, {"origin": args.checkpoint.name})
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{args.output}: {parameters:,} parameters, search {network.config.search_size} px")
    return 0
