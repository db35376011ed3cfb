# SPDX-License-Identifier: Apache-2.0
"""Arguments that subcommands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ainet_ros.tracker import Tracker


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `make_tracker` reads."""
    parser.add_argument(
        "--weights",
        metavar="NAME_OR_PATH",
        help="shipped weights by name, or a .safetensors file (default: the node's)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")


def make_tracker(args: argparse.Namespace) -> Tracker:
    """A tracker with the weights and the device of the arguments.

    Raises:
        FileNotFoundError, ValueError: weights or device cannot be had.
    """
    import torch

    from ainet_ros.tracker import Tracker, weights

    if args.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {args.device}: torch finds no CUDA GPU; use cpu")
    return Tracker(weights.load(args.weights or weights.DEFAULT), device=args.device)
