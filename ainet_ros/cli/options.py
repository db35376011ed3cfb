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
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda (default: auto, CUDA where it is there)",
    )


def make_tracker(args: argparse.Namespace) -> Tracker:
    """A tracker with the weights and the device of the arguments.

    Raises:
        FileNotFoundError, ValueError: weights or device cannot be had.
    """
    from ainet_ros.tracker import Tracker, device, weights

    return Tracker(
        weights.load(args.weights or weights.DEFAULT), device=device.resolve(args.device)
    )
