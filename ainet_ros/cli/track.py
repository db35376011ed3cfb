# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet track`: track one target through a recording, without ROS."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_recording_arguments, add_tracker_arguments

if TYPE_CHECKING:
    from ainet_ros.ros.parameters import TrackerParameters
    from ainet_ros.ros.settings import Settings
    from ainet_ros.tracker import Box, Tracker
    from ainet_ros.vision.boxes import Boxes
    from ainet_ros.vision.recording import RecordedTarget
    from ainet_ros.vision.sources import Source


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "track",
        help="track through a recording",
        description="Track one target through a folder pair, a video pair or a rosbag2 bag, and "
        "write boxes.txt (x,y,w,h a frame), scores.txt, track.mp4 and score.png. A recording of "
        "the node `recorder` is tracked again as it was, but for what the options say, and "
        "compared. Ctrl-C ends it early, and what was tracked is written.",
    )
    add_recording_arguments(parser)
    parser.add_argument(
        "--box",
        type=_box,
        metavar="X,Y,W,H",
        help="the target in the first frame, pixels of the RGB image (default: the first true "
        "box, where the recording has boxes, or the start of the first recorded target)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("ainet_track"), help="folder (default: ainet_track)"
    )
    add_tracker_arguments(parser)
    parser.add_argument(
        "--no-compile",
        dest="compile",
        action="store_false",
        help="do not translate it, though the recorded tracker did",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="YAML",
        help="homography from the thermal to the RGB camera (default: as recorded, else thermal "
        "images are resized)",
    )
    # None: as recorded, else the node's.
    parser.set_defaults(run=run, device=None, precision=None, compile=None)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    import numpy as np
    from tqdm import tqdm

    from ainet_ros.evaluation import metrics, one_pass
    from ainet_ros.files import replacing
    from ainet_ros.ros.settings import Settings
    from ainet_ros.tracker import State, Track
    from ainet_ros.vision import boxes, charts, overlay
    from ainet_ros.vision.sources import open_source
    from ainet_ros.vision.video import VideoWriter

    recorded = None if args.box else _recorded(args)
    source = (
        recorded.source
        if recorded
        else open_source(
            args.source, rate=args.rate, rgb_topic=args.rgb_topic, thermal_topic=args.thermal_topic
        )
    )
    truth = source.boxes
    box = recorded.box if recorded else args.box or _true_start(args, source)
    parameters = _parameters(args, recorded)
    settings = Settings.of(parameters)
    tracker = _tracker(parameters, settings)
    args.output.mkdir(parents=True, exist_ok=True)

    tracks: list[Track] = []
    result = None
    with (
        VideoWriter(args.output / "track.mp4", source.rate) as video,
        tqdm(total=len(source), unit="frame", desc=source.name, file=sys.stderr) as bar,
    ):

        def show(step: one_pass.Step) -> None:
            index = len(tracks)
            true_box = truth[index] if truth is not None and index < len(truth) else None
            picture = overlay.draw(
                step.frame.rgb,
                {1: step.track},
                step.thermal,
                truth=true_box,
                note=f"frame {index}",
            )
            video.write(picture)
            tracks.append(step.track)
            bar.update()

        try:
            result = one_pass.run(
                tracker,
                source,
                box,
                tone_map=settings.tone_map,
                registration=settings.registration,
                on_step=show,
            )
        except KeyboardInterrupt:
            if not tracks:
                raise

    found = np.array([track.box for track in tracks])
    scores = np.array([track.score for track in tracks])
    lost = np.array([track.state is State.LOST for track in tracks])
    boxes.write(args.output / "boxes.txt", found)
    with replacing(args.output / "scores.txt") as partial:
        np.savetxt(partial, scores, fmt="%.4f")
    with replacing(args.output / "score.png", ".png") as partial:
        charts.score_plot(
            partial,
            scores,
            source.rate,
            lost=lost,
            overlap=None
            if truth is None
            else metrics.iou(found[: len(truth)], truth[: len(found)]),
            title=source.name,
        )
    written = f"written to {args.output}: boxes.txt, scores.txt, track.mp4, score.png"
    if result is None:
        print(f"{written}; stopped after {len(found)} of {len(source)} frames")
        return 130  # as after any Ctrl-C
    print(f"{len(found)} frames, {result.fps:.1f} frames a second, {lost.sum()} lost")
    if truth is not None and len(truth) > 1:
        labelled = source.labelled
        score = metrics.score(found, truth[labelled], frames=labelled)
        print(f"success (AUC) {score.auc:.3f}, precision at 20 px {score.precision:.3f}")
    if recorded:
        _compare(recorded, found)
    print(written)
    return 0


def _true_start(args: argparse.Namespace, source: Source) -> Box:
    """The box that an evaluation starts from. Raises ValueError where there is none."""
    import numpy as np

    from ainet_ros.vision import boxes

    if source.truth is None or np.isnan(start := boxes.masked(source.truth.start[None])).any():
        raise ValueError(f"{args.source} has no true box to start from: give --box x,y,w,h")
    x, y, w, h = start[0].tolist()
    return x, y, w, h


def _recorded(args: argparse.Namespace) -> RecordedTarget | None:
    """The target to track again, where there is a recording of one."""
    from ainet_ros.vision.sources import is_bag

    if not is_bag(args.source):
        return None
    try:
        from ainet_ros.vision import recording
    except ModuleNotFoundError:  # of rosbags; `open_source` says so
        return None
    return recording.first_target(args.source, args.rate, args.rgb_topic, args.thermal_topic)


def _parameters(args: argparse.Namespace, recorded: RecordedTarget | None) -> TrackerParameters:
    """Those recorded, else the node's defaults, under the options that were given."""
    from ainet_ros.ros.parameters import TrackerParameters
    from ainet_ros.ros.table import describe

    known = describe(TrackerParameters)
    values = dict(recorded.recording.parameters) if recorded else {}
    given = {name: getattr(args, name) for name in ("weights", "device", "precision", "compile")}
    values |= {name: value for name, value in given.items() if value is not None}
    if args.calibration:
        values |= {"registration": "homography", "calibration_file": str(args.calibration)}
    return TrackerParameters(**{name: values[name] for name in known if name in values})


def _tracker(parameters: TrackerParameters, settings: Settings) -> Tracker:
    from ainet_ros.tracker import Tracker

    tracker = Tracker.load(
        parameters.weights, parameters.device, parameters.precision, parameters.compile
    )
    tracker.set_thresholds(*settings.thresholds)
    tracker.search_windows = settings.search_windows
    return tracker


def _compare(recorded: RecordedTarget, boxes: Boxes) -> None:
    """Print how far the boxes are from the recorded ones, and what else was not the same."""
    import numpy as np

    apart = np.abs(boxes - recorded.boxes).max()
    print(
        f"target {recorded.target_id} as recorded in {len(boxes)} pairs: largest difference "
        f"{apart:.3g} pixels"
    )
    if recorded.absent:
        print(f"not repeated: {recorded.absent} pairs that the recording does not hold")
    if changed := [name for name in recorded.recording.changed if name != "init_box"]:
        print(f"not repeated: changes of {', '.join(changed)} while it was recorded")


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = (float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers x,y,w,h") from None
    if not all(map(math.isfinite, (x, y, w, h))):
        raise argparse.ArgumentTypeError(f"{text!r}: the numbers must be finite")
    if w <= 0 or h <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: width and height must be positive")
    return x, y, w, h
