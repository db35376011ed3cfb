# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet view`: a recording, and what the tracker said of it, in Rerun's viewer."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_recording_arguments

if TYPE_CHECKING:
    import rerun

    from ainet_ros.vision.recording import Answer, Recording
    from ainet_ros.vision.sources import Source

JPEG_QUALITY = 85
FLUSH_S = 30.0
"""So long the viewer may take for what it was sent."""
RGB, THERMAL, SCORE, EVENTS = "rgb", "thermal", "score", "events"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "view",
        help="a recording in Rerun's viewer",
        description="Show a recording in Rerun's viewer: the images, and of a recorded run the "
        "boxes, scores, states and events.",
    )
    add_recording_arguments(parser)
    parser.add_argument(
        "--save", type=Path, metavar="RRD", help="write a file for the viewer instead"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    try:
        import rerun
        import rerun.blueprint as layout
    except ModuleNotFoundError as error:
        raise ValueError(
            f"recordings are shown by the package rerun-sdk: pip install rerun-sdk ({error})"
        ) from error
    import numpy as np
    from tqdm import tqdm

    from ainet_ros.vision import overlay
    from ainet_ros.vision.sources import is_bag
    from ainet_ros.vision.thermal import ToneMap

    source, recording = _open(args)
    stream = rerun.RecordingStream("ainet")
    blueprint = layout.Blueprint(
        layout.Vertical(
            layout.Horizontal(
                layout.Spatial2DView(origin=RGB, name="RGB"),
                layout.Spatial2DView(origin=THERMAL, name="thermal"),
            ),
            layout.TimeSeriesView(origin=SCORE, name="score"),
            layout.TextLogView(origin=EVENTS, name="events"),
            row_shares=[4, 1, 1],
        ),
        collapse_panels=True,
    )
    try:
        if args.save:
            args.save.parent.mkdir(parents=True, exist_ok=True)
            stream.save(args.save, default_blueprint=blueprint)
        else:
            stream.spawn(default_blueprint=blueprint)
    except RuntimeError as error:
        raise OSError(f"Rerun: {error}") from error

    def at(stamp_ns: int) -> None:
        """Folders and videos begin at 0, bags have the time of day."""
        if is_bag(args.source):
            stream.set_time("time", timestamp=np.datetime64(stamp_ns, "ns"))
        else:
            stream.set_time("time", duration=np.timedelta64(stamp_ns, "ns"))

    if recording is not None:
        _show_answers(stream, recording, at)
    tone_map = ToneMap()
    true_boxes = [] if source.boxes is None else source.boxes.tolist()
    with tqdm(total=len(source), unit="frame", desc=source.name, file=sys.stderr) as bar:
        for number, frame in enumerate(source):
            at(frame.stamp_ns)
            for name, image in ((RGB, frame.rgb), (THERMAL, tone_map(frame.thermal))):
                stream.log(name, rerun.Image(image).compress(jpeg_quality=JPEG_QUALITY))
            for box in true_boxes[number : number + 1]:
                true = rerun.Boxes2D(
                    array=[box] if np.isfinite(box).all() else [],
                    array_format=rerun.Box2DFormat.XYWH,
                    colors=overlay.TRUTH_COLOR,
                )
                stream.log(f"{RGB}/truth", true)
            bar.update()
    try:
        stream.flush(timeout_sec=FLUSH_S)
    except Exception as error:  # Rerun's own, not always exported
        raise OSError(
            f"Rerun's viewer does not take the recording ({error}): without a display, write a "
            "file with --save"
        ) from error
    print(f"{len(source)} frames: {args.save or 'sent to the viewer'}")
    return 0


def _open(args: argparse.Namespace) -> tuple[Source, Recording | None]:
    """The pairs to show, and what a tracker said of them, where that was recorded."""
    from ainet_ros.vision.sources import is_bag, open_source

    topics = {"rgb_topic": args.rgb_topic, "thermal_topic": args.thermal_topic}
    if not is_bag(args.source):
        return open_source(args.source, rate=args.rate, **topics), None
    if args.rate is not None:
        raise ValueError("--rate: a bag is shown by its stamps")
    try:
        from ainet_ros.vision import bag, recording
    except ModuleNotFoundError:  # of rosbags, as `open_source` says
        return open_source(args.source, **topics), None
    found = recording.read(args.source)
    if not found.answers:
        return open_source(args.source, **topics), None
    return bag.BagSource(args.source, None, **topics, pairs=found.pairs), found


def _show_answers(
    stream: rerun.RecordingStream, recording: Recording, at: Callable[[int], None]
) -> None:
    import rerun

    from ainet_ros.vision import overlay

    answers: dict[int, list[Answer]] = defaultdict(list)
    for answer in recording.answers:
        answers[answer.stamp_ns].append(answer)
    for stamp_ns, together in sorted(answers.items()):
        at(stamp_ns)
        targets = [answer for answer in together if answer.target_id]
        stream.log(
            f"{RGB}/targets",
            rerun.Boxes2D(
                array=[answer.box for answer in targets],
                array_format=rerun.Box2DFormat.XYWH,
                labels=[f"{a.target_id} {a.state} {a.score:.2f}" for a in targets],
                colors=[overlay.COLORS[answer.state] for answer in targets],
            ),
        )
        for answer in targets:
            stream.log(f"{SCORE}/{answer.target_id}", rerun.Scalars(answer.score))
    for event in recording.events:
        at(event.stamp_ns)
        target = f" target {event.target_id}" if event.target_id else ""
        stream.log(EVENTS, rerun.TextLog(f"{event.event}{target}"))
