# SPDX-License-Identifier: Apache-2.0
"""`ainet evaluate`: one-pass evaluation over sequences with true boxes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import add_tracker_arguments, make_tracker

if TYPE_CHECKING:
    from ainet_ros.evaluation.metrics import Score


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="precision and success over sequences with true boxes",
        description="Track through each sequence from its first true box and score the boxes as "
        "LasHeR's toolkit does: precision at 20 pixels, normalized precision at 0.20, success "
        "(AUC over 21 overlap thresholds), the first frame given.",
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="a sequence in LasHeR's layout (visible/, infrared/, init.txt) or a folder of such",
    )
    add_tracker_arguments(parser)
    parser.add_argument(
        "--stream",
        choices=("both", "rgb", "thermal"),
        default="both",
        help="rgb or thermal: the network is given this stream as both modalities",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="write DIR/SEQUENCE.txt, x,y,w,h a frame"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from tqdm import tqdm

    from ainet_ros.evaluation import metrics, one_pass
    from ainet_ros.vision import boxes
    from ainet_ros.vision.sources import open_source

    folders, others = one_pass.find_sequences(args.folder)
    for other in others:
        print(f"skipped {other}: no sequence with true boxes", file=sys.stderr)
    sources = [open_source(folder) for folder in folders]
    truths = [one_pass.true_boxes(source) for source in sources]
    tracker = make_tracker(args)
    if args.results:
        args.results.mkdir(parents=True, exist_ok=True)

    scores, speeds = [], []
    with tqdm(total=sum(map(len, sources)), unit="frame", file=sys.stderr) as bar:
        for source, truth in zip(sources, truths, strict=True):
            bar.set_description(source.name)
            result = one_pass.run(
                tracker,
                source,
                truth[0].tolist(),
                stream=args.stream,
                on_step=lambda _: bar.update(),
            )
            scores.append(metrics.score(result.boxes, truth))
            speeds.append(result.fps)
            if args.results:
                boxes.write(args.results / f"{source.name}.txt", result.boxes)

    rows = {
        source.name: _row(score, fps)
        for source, score, fps in zip(sources, scores, speeds, strict=True)
    }
    mean = _row(metrics.mean(scores), sum(speeds) / len(speeds))
    if args.json:
        print(json.dumps({"stream": args.stream, "mean": mean, "sequences": rows}, indent=2))
    else:
        _print_table({**rows, "mean": mean})
    return 0


def _row(score: Score, fps: float) -> dict[str, Any]:
    return {
        "auc": score.auc,
        "precision": score.precision,
        "normalized_precision": score.normalized_precision,
        "frames": score.frames,
        "fps": fps,
    }


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    wide = max(map(len, rows))
    print(f"{'sequence':{wide}}  frames  precision  normalized  success (AUC)   fps")
    for name, row in rows.items():
        print(
            f"{name:{wide}}  {row['frames']:6d}  {row['precision']:9.3f}  "
            f"{row['normalized_precision']:10.3f}  {row['auc']:13.3f}  {row['fps']:4.1f}"
        )
