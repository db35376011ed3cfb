# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet evaluate`: one-pass evaluation over the sequences of a benchmark."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .options import add_tracker_arguments, make_tracker

if TYPE_CHECKING:
    from ainet_ros.evaluation.metrics import Score
    from ainet_ros.evaluation.one_pass import PairTracker
    from ainet_ros.evaluation.report import Judged
    from ainet_ros.evaluation.runner import Maker
    from ainet_ros.vision.benchmarks import Benchmark


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="precision and success over the sequences of a benchmark",
        description="Track through each sequence from its first true box and score the boxes as "
        "the benchmark's own tools do. Several processes or machines share the sequences under "
        "torchrun --nproc-per-node 4 -m ainet_ros.cli evaluate ...",
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="GTOT, RGBT210, RGBT234, LasHeR, VTUAV, any part of one, or a sequence in the "
        "layout of one (LasHeR: visible/, infrared/, init.txt)",
    )
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help="gtot, rgbt210, rgbt234, lasher or vtuav (default: as the folder looks)",
    )
    add_tracker_arguments(parser)
    parser.add_argument(
        "--stream",
        choices=("both", "rgb", "thermal", "no-rgb", "no-thermal"),
        help="rgb or thermal: the network is given this stream as both modalities; no-rgb or "
        "no-thermal: this one is black after the first frame, as where a camera falls silent "
        "(default: both)",
    )
    parser.add_argument(
        "--against",
        metavar="TRACKER",
        help="run a tracker of OpenCV instead, on one stream (default: rgb): csrt, kcf or "
        "nanotrack",
    )
    parser.add_argument(
        "--nanotrack",
        nargs=2,
        type=Path,
        metavar=("BACKBONE", "HEAD"),
        help="NanoTrack's two ONNX files",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="write DIR/SEQUENCE.txt, x,y,w,h a frame; what is complete there is not run again "
        "(default: REPORT/results, or none)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write DIR/report.md with its pictures"
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="show the results in this folder beside ours in the report; may be repeated",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="sequences at once on this machine (default: 1)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a fault in the data (default: skip the sequence and say so)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from ainet_ros.evaluation import report
    from ainet_ros.evaluation.runner import Share
    from ainet_ros.vision.benchmarks import open_benchmark

    if args.workers < 1:
        raise ValueError(f"--workers {args.workers}: there must be one at least")
    if args.compare and not args.report:
        raise ValueError("--compare is for the report: give --report DIR")
    compared = [_named_folder(text) for text in args.compare]
    share = Share.from_environment()
    results = args.results or (args.report / "results" if args.report else None)
    if share.count > 1 and not results:
        raise ValueError("several processes need a folder they share: give --results DIR")
    benchmark = open_benchmark(args.folder, args.benchmark, strict=args.strict)
    if share.rank == 0:
        _say(benchmark.problems)
    tracker = _tracker(args)
    with TemporaryDirectory() as folder:
        results = results or Path(folder)
        benchmark = _evaluate(args, benchmark, tracker, results, share)
        if share.rank > 0:
            return 0
        judged = report.judge(benchmark, results, tracker.label)
    others = [report.judge(benchmark, folder, name) for name, folder in compared]
    rows = {name: _row(score, judged.fps[name]) for name, score in judged.scores.items()}
    mean = _row(judged.mean, judged.mean_fps)
    if args.json:
        print(json.dumps(_json(benchmark, tracker.stream, judged, mean, rows), indent=2))
    else:
        _print_table({**rows, "mean": mean})
    if args.report:
        path = report.write(args.report, benchmark, [judged, *others], _network(args))
        print(f"written to {path}", file=sys.stderr)
    return 0


@dataclasses.dataclass(frozen=True)
class _Tracker:
    """The tracker of the arguments: how it is made, and what that is."""

    label: str
    stream: str
    make: Callable[[], PairTracker]
    maker: Maker


def _tracker(args: argparse.Namespace) -> _Tracker:
    if args.against is None:
        from ainet_ros.evaluation.runner import made_by
        from ainet_ros.tracker import weights

        if args.nanotrack:
            raise ValueError("--nanotrack goes with --against nanotrack")
        name = args.weights or weights.DEFAULT
        stream = args.stream or "both"
        of_stream = {"both": "", "rgb": ", rgb alone", "thermal": ", thermal alone"}
        label = Path(name).stem + of_stream.get(stream, f", {stream.replace('-', ' ')}")
        maker = made_by(
            weights.find(name),
            thresholds=list(weights.thresholds(name)),  # which go by the name
            precision=args.precision,
            stream=stream,
        )
        return _Tracker(label, stream, partial(make_tracker, args), maker)

    import cv2

    from ainet_ros.evaluation.opencv import OpenCVTracker
    from ainet_ros.files import digest

    stream = args.stream or "rgb"
    if stream not in ("rgb", "thermal"):
        raise ValueError(f"{args.against} sees one camera: give --stream rgb or thermal")
    make = partial(OpenCVTracker, args.against, args.nanotrack and tuple(args.nanotrack))
    make()  # for its errors, before anything is run
    maker = {
        "tracker": args.against,
        "OpenCV": cv2.__version__,
        "weights": digest(*args.nanotrack) if args.nanotrack else None,
        "stream": stream,
    }
    return _Tracker(f"{args.against.upper()}, {stream}", stream, make, maker)


def _evaluate(
    args: argparse.Namespace, benchmark: Benchmark, tracker: _Tracker, results: Path, share: Any
) -> Benchmark:
    """Runs the tracker; returns the benchmark less the sequences that could not be run."""
    from tqdm import tqdm

    from ainet_ros.evaluation.runner import Runner

    runner = Runner(tracker.make, tracker.maker, tracker.stream, results, args.workers, share)
    with tqdm(total=0, unit="frame", file=sys.stderr, disable=share.rank > 0) as bar:
        faults = runner.run(benchmark.sequences, bar, args.strict)
    _say(faults.values())
    if share.rank == 0 and len(faults) == len(benchmark.sequences):
        raise ValueError("no sequence could be run")
    return dataclasses.replace(
        benchmark,
        sequences=[s for s in benchmark.sequences if s.name not in faults],
        problems=[*benchmark.problems, *faults.values()],
    )


def _network(args: argparse.Namespace) -> Any:
    """The configuration and the cost of our network; None of an ONNX file, which does not tell,
    and of OpenCV's trackers."""
    from ainet_ros.network.cost import count
    from ainet_ros.tracker import weights
    from ainet_ros.tracker.onnx import SUFFIX

    name = args.weights or weights.DEFAULT
    if args.against is not None or name.endswith(SUFFIX):
        return None
    network = weights.load(name)
    return network.config, count(network)


def _named_folder(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not (name and found and folder):
        raise ValueError(f"--compare {text}: expected NAME=DIR")
    return name, Path(folder)


def _say(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"skipped {problem}", file=sys.stderr)


def _json(
    benchmark: Benchmark,
    stream: str,
    judged: Judged,
    mean: dict[str, Any],
    rows: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    from ainet_ros.evaluation.report import attribute_scores

    return {
        "benchmark": benchmark.title,
        "tracker": judged.label,
        "stream": stream,
        "mean": mean,
        "attributes": {
            name: score.published for name, score in attribute_scores(benchmark, judged).items()
        },
        "sequences": rows,
        "skipped": benchmark.problems,
    }


def _row(score: Score, fps: float | None) -> dict[str, Any]:
    return {
        "auc": score.auc,
        "precision": score.precision,
        "normalized_precision": score.normalized_precision,
        **score.published,
        "frames": score.frames,
        "fps": fps,
    }


def _print_table(rows: dict[str, dict[str, Any]]) -> None:
    wide = max(map(len, rows))
    print(f"{'sequence':{wide}}  frames  precision  normalized  success (AUC)   fps")
    for name, row in rows.items():
        fps = "" if row["fps"] is None else f"{row['fps']:.1f}"
        print(
            f"{name:{wide}}  {row['frames']:6d}  {row['precision']:9.3f}  "
            f"{row['normalized_precision']:10.3f}  {row['auc']:13.3f}  {fps:>4}"
        )
