# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet bench`: measurements of speed and memory."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import options

SIZES = ((640, 480), (1920, 1080))
"""Of images, width and height."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and memory on this machine",
        description="Measure speed and memory on this machine. Backends, operations, stages, "
        "arithmetics and numbers of targets are measured in turns, and compare; sizes of images, "
        "rates, the rows of --growth and the yardstick of `network` one after the other, while "
        "the machine's speed may vary.",
    )
    benches = parser.add_subparsers(required=True, metavar="WHAT")
    scan = benches.add_parser(
        "scan", help="the backends of the selective scan against its step-by-step reference"
    )
    scan.set_defaults(run=run_scan)
    limit = benches.add_parser("limit", help="what this machine can do at most, the yardstick")
    limit.set_defaults(run=run_limit)
    network = benches.add_parser("network", help="the stages of a network on one pair")
    network.add_argument("preset", help="of the network, or a file of weights")
    network.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="default: float32"
    )
    network.add_argument(
        "--growth",
        type=Path,
        metavar="PICTURE",
        help="measure time and memory over layers and resolution instead, beside "
        "AINet-Transformer's, and draw them (.png, .svg, .pdf)",
    )
    network.set_defaults(run=run_network)
    track = benches.add_parser("track", help="the parts of a tracked frame, by the size of images")
    options.add_tracker_arguments(track)
    track.add_argument(
        "--targets",
        type=int,
        default=4,
        metavar="N",
        help="at once, against one at a time (default: 4)",
    )
    track.set_defaults(run=run_track)
    precision = benches.add_parser(
        "precision", help="a tracked frame in each arithmetic, as it is and compiled"
    )
    precision.add_argument("weights", help="shipped weights by name, or a .safetensors file")
    precision.set_defaults(run=run_precision)
    node = benches.add_parser("node", help="the node's rate and latency, in ROS")
    options.add_tracker_arguments(node)
    node.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of a measurement (default: 10)"
    )
    node.add_argument(
        "--overload",
        type=float,
        metavar="S",
        help="measure so many seconds of four times the rate that the node can take instead; "
        "from 120 on, how memory grows too",
    )
    node.set_defaults(run=run_node)
    training = benches.add_parser("training", help="where the time of a training step goes")
    training.add_argument("config", type=Path, help="YAML file, as in config/train/")
    training.add_argument("--data", type=Path, required=True, help="folder of training data")
    training.add_argument("--cache", type=Path, required=True, help="folder for decoded images")
    training.set_defaults(run=run_training)
    for bench in (track, node):
        bench.add_argument(
            "--size",
            type=_size,
            action="append",
            metavar="WxH",
            help="of the images, may be given again (default: 640x480 and 1920x1080)",
        )
    for bench in (limit, scan, network, precision, training):
        bench.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for bench in (limit, scan, network, track, precision, training):
        bench.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    for bench in (limit, scan, network, track, precision, node, training):
        bench.add_argument(
            "--json",
            nargs="?",
            const="",
            metavar="FILE",
            help="write JSON to a file beside the table, or print it in the table's place",
        )


def run_scan(args: argparse.Namespace) -> int:
    from ainet_ros.bench import scan

    _check(args)
    _print(args, scan.measure(args.device, args.repeats), scan.table)
    return 0


def run_limit(args: argparse.Namespace) -> int:
    from ainet_ros.bench import limit

    _check(args)
    _print(args, limit.measure(args.device, args.repeats), limit.table)
    return 0


def run_network(args: argparse.Namespace) -> int:
    import torch

    from ainet_ros.bench import network
    from ainet_ros.network import PRESETS
    from ainet_ros.tracker import weights
    from ainet_ros.tracker.device import resolve_precision

    _check(args)
    preset = PRESETS.get(args.preset)
    config = preset or weights.load(args.preset).config
    if args.growth is not None:
        result = network.growth(config, args.device, args.repeats)
        network.draw(result, args.growth)
        _print(args, result, network.growth_table)
        return 0
    precision = resolve_precision(args.precision, torch.device(args.device))
    _print(args, network.measure(config, args.device, precision, args.repeats), network.table)
    return 0


def run_track(args: argparse.Namespace) -> int:
    from ainet_ros.bench import track
    from ainet_ros.tracker.device import keep_large_buffers

    _check(args)
    if args.targets < 1:
        raise ValueError(f"--targets must be 1 or more, got {args.targets}")
    keep_large_buffers()  # as the node does
    tracker = options.make_tracker(args)
    result = track.measure(tracker, args.size or SIZES, args.repeats, args.targets)
    _print(args, result, track.table)
    return 0


def run_precision(args: argparse.Namespace) -> int:
    from ainet_ros.bench import precision
    from ainet_ros.tracker.device import keep_large_buffers

    _check(args)
    keep_large_buffers()  # as the node does
    _print(args, precision.measure(args.weights, args.device, args.repeats), precision.table)
    return 0


def run_node(args: argparse.Namespace) -> int:
    try:
        from ainet_ros.bench import node
        from ainet_ros.ros.process import ros
    except ModuleNotFoundError as error:
        raise ValueError(f"bench node needs ROS 2 and this package built: {error}") from None
    from ainet_ros.tracker import weights

    if args.seconds <= 0 or (args.overload is not None and args.overload <= 0):
        raise ValueError("--seconds and --overload must be more than 0")
    parameters = {
        "weights": args.weights or weights.DEFAULT,
        "device": args.device,
        "precision": args.precision,
        "compile": args.compile,
    }
    # The nodes meet on this machine only.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    sizes = args.size or SIZES
    with ros([]):
        _print(args, node.measure(parameters, sizes, args.seconds, args.overload), node.table)
    return 0


def run_training(args: argparse.Namespace) -> int:
    from ainet_ros.bench import training
    from ainet_ros.training.config import TrainConfig

    _check(args)
    config = TrainConfig.read(args.config)
    result = training.measure(config, args.data, args.cache, args.device, args.repeats)
    _print(args, result, training.table)
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 640x480")
    return int(found[1]), int(found[2])


def _check(args: argparse.Namespace) -> None:
    import torch

    if args.repeats < 1:
        raise ValueError(f"--repeats must be 1 or more, got {args.repeats}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA GPU; use cpu")


def _print(
    args: argparse.Namespace, result: dict[str, Any], table: Callable[[dict[str, Any]], str]
) -> None:
    import json

    text = json.dumps(result, indent=2)
    print(text if args.json == "" else table(result))
    if args.json:  # what took minutes to measure is printed before a file can fail
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(text + "\n")
