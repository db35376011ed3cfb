# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet presence`: whether the score tells that the target is there."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_tracker_arguments, make_tracker

if TYPE_CHECKING:
    from ainet_ros.tracker import Tracker
    from ainet_ros.vision.benchmarks import Benchmark


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "presence",
        help="how well the score parts frames with the target from frames without it",
        description="Ask for the score at the target's true place, in frames as they are and with "
        "the target cut out of both images, and print the area under the ROC curve.",
    )
    parser.add_argument("folder", type=Path, help="sequences, as for `ainet evaluate`")
    add_tracker_arguments(parser)
    parser.add_argument(
        "--every", type=int, default=5, metavar="N", help="each N-th frame (default: 5)"
    )
    parser.add_argument(
        "--hide",
        action="store_true",
        help="instead, hide the target for a second, move the scene, and see whether the target "
        "is found again within a second, and whether something else is found meanwhile",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    import numpy as np
    from tqdm import tqdm

    from ainet_ros.evaluation.presence import Scores, scores
    from ainet_ros.vision.benchmarks import open_benchmark

    benchmark = open_benchmark(args.folder)
    for problem in benchmark.problems:
        print(f"skipped {problem}", file=sys.stderr)
    tracker = make_tracker(args)
    if args.hide:
        _hide(args, tracker, benchmark)
        return 0
    found = {
        sequence.name: scores(tracker, sequence, args.every)
        for sequence in tqdm(benchmark.sequences, unit="sequence", file=sys.stderr)
    }
    found["all"] = Scores(
        np.concatenate([one.present for one in found.values()]),
        np.concatenate([one.absent for one in found.values()]),
    )
    rows = {
        name: {
            "frames": len(one.present),
            "auroc": one.auroc,
            "score_present": float(one.present.mean()) if len(one.present) else None,
            "score_absent": float(one.absent.mean()) if len(one.absent) else None,
        }
        for name, one in found.items()
    }
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    wide = max(len("sequence"), *map(len, rows))
    print(f"{'sequence':{wide}}  frames  AUROC  mean score with  without the target")
    for name, row in rows.items():
        if row["frames"]:
            print(
                f"{name:{wide}}  {row['frames']:6d}  {row['auroc']:5.3f}  "
                f"{row['score_present']:15.3f}  {row['score_absent']:18.3f}"
            )
    return 0


def _hide(args: argparse.Namespace, tracker: Tracker, benchmark: Benchmark) -> None:
    from tqdm import tqdm

    from ainet_ros.evaluation.lost import trials

    found = {
        sequence.name: list(trials(tracker, sequence))
        for sequence in tqdm(benchmark.sequences, unit="sequence", file=sys.stderr)
    }
    found["all"] = [trial for of_sequence in found.values() for trial in of_sequence]
    rows = {
        name: {
            "trials": len(made),
            "lost": sum(t.lost_after is not None for t in made) / len(made),
            "found_again": sum(t.found_after is not None for t in made) / len(made),
            "false_per_frame": sum(t.false for t in made) / sum(t.hidden for t in made),
        }
        for name, made in found.items()
        if made
    }
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    wide = max(len("sequence"), *map(len, rows), 0)
    print(f"{'sequence':{wide}}  trials  LOST  found again  false a frame")
    for name, row in rows.items():
        print(
            f"{name:{wide}}  {row['trials']:6d}  {row['lost']:4.2f}  {row['found_again']:11.2f}  "
            f"{row['false_per_frame']:13.3f}"
        )
