# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet scenes`: write generated RGB-T recordings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "scenes",
        help="write generated RGB-T recordings with exact boxes",
        description="Write a generated recording of a street in LasHeR's layout: visible/, "
        "infrared/ and the boxes of the target. The same seed gives the same recording. With "
        "--count, write many, and their attributes as `ainet evaluate` reads them.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder; it is made")
    parser.add_argument(
        "--seed", type=int, default=0, help="of all chance, of the first one (default: 0)"
    )
    parser.add_argument("--frames", type=int, default=150, help="length (default: 150)")
    parser.add_argument(
        "--attributes",
        metavar="NAMES",
        help="what makes it hard, with commas between, or 'none': night, smoke, crossover, "
        "occlusion, lookalikes, camera_motion, scale, speed (default: night,smoke,occlusion,"
        "lookalikes; with --count, drawn for each recording)",
    )
    parser.add_argument(
        "--count",
        type=int,
        help="write so many recordings, OUT/scene_SEED, and OUT/attr_txt; what an earlier run "
        "wrote is kept",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that draw them (default: 1)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from tqdm import tqdm

    from ainet_ros.vision.scenes import DEFAULT_ATTRIBUTES, Scene, write_collection

    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: must be 0 or more")
    names = None
    if args.attributes is not None:
        names = () if args.attributes == "none" else tuple(args.attributes.split(","))
    if args.count is not None:
        if args.count < 1:
            raise ValueError(f"--count {args.count}: there must be one at least")
        with tqdm(total=args.count, unit="scene", file=sys.stderr) as bar:
            write_collection(
                args.out,
                range(args.seed, args.seed + args.count),
                frames=args.frames,
                attributes=names,
                workers=args.workers,
                on_scene=bar.update,
            )
        print(f"{args.count} recordings of {args.frames} frames in {args.out}")
        return 0
    scene = Scene(
        args.seed, frames=args.frames, attributes=DEFAULT_ATTRIBUTES if names is None else names
    )
    with tqdm(total=len(scene), unit="frame", desc=scene.name, file=sys.stderr) as bar:
        scene.write(args.out, bar.update)
    print(f"{len(scene)} frames written to {args.out}")
    return 0
