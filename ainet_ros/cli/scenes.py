# SPDX-License-Identifier: Apache-2.0
"""`ainet scenes`: write a generated RGB-T recording."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "scenes",
        help="write a generated RGB-T recording with exact boxes",
        description="Write a generated recording of a street in LasHeR's layout: visible/, "
        "infrared/ and the boxes of the target. The same seed gives the same recording.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder; it is made")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (default: 0)")
    parser.add_argument("--frames", type=int, default=150, help="length (default: 150)")
    parser.add_argument(
        "--attributes",
        metavar="NAMES",
        help="what makes it hard, with commas between, or 'none': night, smoke, crossover, "
        "occlusion, lookalikes, camera_motion, scale, speed (default: night,smoke,occlusion,"
        "lookalikes)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from tqdm import tqdm

    from ainet_ros.vision.scenes import DEFAULT_ATTRIBUTES, Scene

    names = DEFAULT_ATTRIBUTES
    if args.attributes is not None:
        names = () if args.attributes == "none" else tuple(args.attributes.split(","))
    scene = Scene(args.seed, frames=args.frames, attributes=names)
    with tqdm(total=len(scene), unit="frame", desc=scene.name, file=sys.stderr) as bar:
        scene.write(args.out, bar.update)
    print(f"{len(scene)} frames written to {args.out}")
    return 0
