# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Arguments that subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ainet_ros.vision import RGB_TOPIC, THERMAL_TOPIC

if TYPE_CHECKING:
    from ainet_ros.tracker import Tracker


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `open_source` needs."""
    parser.add_argument(
        "source",
        type=Path,
        help="a folder with visible/ and infrared/ images or visible.mp4 and infrared.mp4 (also "
        "rgb and ir, v and i), or a rosbag2 bag",
    )
    parser.add_argument("--rate", type=float, help="frames a second (default: the recording's)")
    parser.add_argument("--rgb-topic", default=RGB_TOPIC, help="of a bag (%(default)s)")
    parser.add_argument("--thermal-topic", default=THERMAL_TOPIC, help="of a bag (%(default)s)")


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `make_tracker` reads."""
    parser.add_argument(
        "--weights",
        metavar="NAME_OR_PATH",
        help="shipped weights by name, a .safetensors file, or an .onnx file of `ainet export` "
        "(default: the node's)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda (default: auto, CUDA where it is there)",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="auto, float32, bfloat16 or int8 (default: auto, bfloat16 on a CPU with instructions "
        "for it); int8 is compiled",
    )
    parser.add_argument(
        "--compile", action="store_true", help="translate the network by torch.compile first"
    )


def make_tracker(args: argparse.Namespace) -> Tracker:
    """A tracker as the arguments say.

    Raises:
        FileNotFoundError, ValueError: weights, device or precision cannot be had.
    """
    from ainet_ros.tracker import Tracker, weights

    return Tracker.load(
        args.weights or weights.DEFAULT,
        args.device,
        args.precision,
        args.compile,
    )
