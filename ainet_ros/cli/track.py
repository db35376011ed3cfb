# SPDX-License-Identifier: Apache-2.0
"""`ainet track`: track one target through a recording, without ROS."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from .options import add_recording_arguments, add_tracker_arguments, make_tracker


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "track",
        help="track through a recording",
        description="Track one target through a folder pair, a video pair or a rosbag2 bag, and "
        "write boxes.txt (x,y,w,h a frame), scores.txt, track.mp4 and score.png.",
    )
    add_recording_arguments(parser)
    parser.add_argument(
        "--box",
        type=_box,
        metavar="X,Y,W,H",
        help="the target in the first frame, pixels of the RGB image (default: the first true "
        "box, where the recording has boxes)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("ainet_track"), help="folder (default: ainet_track)"
    )
    add_tracker_arguments(parser)
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="YAML",
        help="homography from the thermal to the RGB camera (default: thermal images are resized)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    import numpy as np
    from tqdm import tqdm

    from ainet_ros.evaluation import metrics, one_pass
    from ainet_ros.tracker import State
    from ainet_ros.vision import boxes, charts, overlay
    from ainet_ros.vision.registration import Registration
    from ainet_ros.vision.sources import open_source
    from ainet_ros.vision.video import VideoWriter

    source = open_source(
        args.source, rate=args.rate, rgb_topic=args.rgb_topic, thermal_topic=args.thermal_topic
    )
    truth = source.boxes
    box = args.box
    if box is None:
        if truth is None or np.isnan(truth[0]).any():
            raise ValueError(f"{args.source} has no true box to start from: give --box x,y,w,h")
        box = truth[0].tolist()
    registration = Registration("homography" if args.calibration else "resize", args.calibration)
    tracker = make_tracker(args)
    args.output.mkdir(parents=True, exist_ok=True)

    lost: list[bool] = []
    with (
        VideoWriter(args.output / "track.mp4", source.rate) as video,
        tqdm(total=len(source), unit="frame", desc=source.name, file=sys.stderr) as bar,
    ):

        def show(step: one_pass.Step) -> None:
            index = len(lost)
            true_box = truth[index] if truth is not None and index < len(truth) else None
            picture = overlay.draw(
                step.frame.rgb,
                {1: step.track},
                step.thermal,
                truth=true_box,
                note=f"frame {index}",
            )
            video.write(picture)
            lost.append(step.track.state is State.LOST)
            bar.update()

        result = one_pass.run(tracker, source, box, registration=registration, on_step=show)

    boxes.write(args.output / "boxes.txt", result.boxes)
    np.savetxt(args.output / "scores.txt", result.scores, fmt="%.4f")
    charts.score_plot(
        args.output / "score.png",
        result.scores,
        source.rate,
        lost=np.array(lost),
        overlap=None if truth is None else metrics.iou(result.boxes[: len(truth)], truth),
        title=source.name,
    )
    print(f"{len(result.boxes)} frames, {result.fps:.1f} frames a second, {sum(lost)} lost")
    if truth is not None and len(truth) > 1:
        labelled = source.labelled
        score = metrics.score(result.boxes, truth[labelled], frames=labelled)
        print(f"success (AUC) {score.auc:.3f}, precision at 20 px {score.precision:.3f}")
    print(f"written to {args.output}: boxes.txt, scores.txt, track.mp4, score.png")
    return 0


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = (float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers x,y,w,h") from None
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: width and height must be positive")
    return x, y, w, h
