# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The demo: a camera and the tracker as two processes, and an operator who starts the target.

It leaves an annotated video, the boxes and a summary in a folder. With ``--attach`` it is the
operator only, for nodes that run already, until Ctrl-C (see launch/demo.launch.py).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from ainet_ros.evaluation import metrics
from ainet_ros.msg import Box, Track
from ainet_ros.srv import InitTarget
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision.encoding import decode_compressed, stamp_ns
from ainet_ros.vision.scenes import Scene
from ainet_ros.vision.sources import Source, open_source
from ainet_ros.vision.video import VideoWriter

from .process import ros
from .processes import NodeProcesses, ProcessError

START_TIMEOUT_S = 120.0
"""So long the nodes may take to start: a small computer is slow to load torch and weights."""
ANSWER_TIMEOUT_S = 5.0
"""So long the last answer may take."""
NAMESPACE = "/demo"
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
DEPTH = 100
STATES = {Track.NO_TARGET: "NO TARGET", Track.TRACKING: "TRACKING", Track.LOST: "LOST"}


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Operator(Node):
    """Starts the target on a frame's true box and keeps what the tracker answers.

    It does so when the next frame comes, with the stamp of the frame that the box belongs to: of
    a camera that pauses on a frame, the tracker then goes on from the last image of that frame,
    as it does offline. Whenever the recording begins again, so does the target.
    """

    def __init__(self, source: Source, *, record: bool, **kwargs: Any) -> None:
        super().__init__("operator", **kwargs)
        if source.boxes is None or not np.isfinite(source.boxes).all(1).any():
            raise DemoError(f"{source.name} has no true box to start the target with")
        self._source = source
        self._truth = source.boxes
        self._numbers: dict[int, int] = {}  # frame by stamp
        self._newest: Header | None = None
        self._init = self.create_client(InitTarget, "ainet/init")
        self._init_answer: Any = None
        self._arrivals: collections.deque[float] = collections.deque(maxlen=20)
        self._printed = 0.0
        self.answered = False
        """Whether the tracker has answered a frame, with or without a target."""
        self.started_on: int | None = None
        """The frame whose true box the target was started with."""
        self.refusal = ""
        """Why the target did not start when it was last tried."""
        self.tracks: dict[int, Track] = {}
        """Answers by frame, of the newest target."""
        self.latency_ms: dict[int, float] = {}
        """From the RGB image's stamp until the answer came here."""
        self.pictures: dict[int, bytes] = {}
        """Overlays, as JPEG."""
        self.create_subscription(Header, "replay_camera/frame", self._on_frame, DEPTH)
        self.create_subscription(Track, "ainet/track", self._on_track, DEPTH)
        if record:
            self.create_subscription(
                CompressedImage, "ainet/overlay/compressed", self._on_overlay, DEPTH
            )

    @property
    def newest(self) -> int:
        """The newest frame; -1 before the first."""
        return -1 if self._newest is None else int(self._newest.frame_id)

    def play(self) -> None:
        """Have the paused camera go on."""
        client = self.create_client(SetParameters, "replay_camera/set_parameters")
        if not client.wait_for_service(ANSWER_TIMEOUT_S):
            raise DemoError("the camera does not answer")
        change = Parameter("paused", value=False).to_parameter_msg()
        client.call_async(SetParameters.Request(parameters=[change]))

    def _on_frame(self, frame: Header) -> None:
        number, before = int(frame.frame_id), self._newest
        if number < self.newest:  # the recording begins again
            self.started_on = None
            before = None
            self._numbers.clear()
            self.tracks.clear()
        self._newest = frame
        self._numbers[stamp_ns(frame.stamp)] = number
        waits = self.started_on is None and self._init_answer is None
        if waits and before is not None and int(before.frame_id) < number:
            self._start(before)

    def _start(self, frame: Header) -> None:
        number = int(frame.frame_id)
        known = number < len(self._truth) and np.isfinite(self._truth[number]).all()
        if not known or not self._init.service_is_ready():
            return
        x, y, width, height = self._truth[number].tolist()
        request = InitTarget.Request(
            box=Box(x=x, y=y, width=width, height=height), stamp=frame.stamp
        )
        self._init_answer = self._init.call_async(request)
        self._init_answer.add_done_callback(lambda answer: self._on_started(number, answer))

    def _on_started(self, number: int, answer: Any) -> None:
        self._init_answer = None
        result = answer.result()
        self.refusal = result.message
        if result.success:
            self.started_on = number
            # The target's first answers may have come before this one; others are of the target
            # before it.
            self.tracks = {
                n: track for n, track in self.tracks.items() if track.target_id == result.target_id
            }

    def _on_track(self, track: Track) -> None:
        self.answered = True
        number = self._numbers.get(stamp_ns(track.header.stamp))
        if number is None or track.state == Track.NO_TARGET:
            return
        age_ns = self.get_clock().now().nanoseconds - stamp_ns(track.header.stamp)
        self.tracks[number] = track
        self.latency_ms[number] = age_ns / 1e6
        self._arrivals.append(time.monotonic())
        self._print_line(number, track)

    def _on_overlay(self, picture: CompressedImage) -> None:
        number = self._numbers.get(stamp_ns(picture.header.stamp))
        if number is not None:
            self.pictures[number] = bytes(picture.data)

    def _print_line(self, number: int, track: Track) -> None:
        live = sys.stdout.isatty()
        now = time.monotonic()
        if not live and now - self._printed < 1:
            return
        self._printed = now
        text = (
            f"frame {number + 1:4d}/{len(self._source)}  {STATES[track.state]:9s} "
            f"score {track.score:.2f}  latency {self.latency_ms[number]:6.1f} ms"
        )
        if len(self._arrivals) > 1:
            rate = (len(self._arrivals) - 1) / (self._arrivals[-1] - self._arrivals[0])
            text += f"  {rate:4.1f} fps"
        if number < len(self._truth) and np.isfinite(self._truth[number]).all():
            overlap = metrics.iou(_boxes([track]), self._truth[number][None])[0]
            text += f"  overlap {overlap:.2f}"
        print(f"\r{text}" if live else text, end="" if live else "\n", flush=True)


def _boxes(tracks: list[Track]) -> np.ndarray:
    """(N, 4) x, y, w, h."""
    return np.array([(t.box.x, t.box.y, t.box.width, t.box.height) for t in tracks])


def summarize(operator: Operator, source: Source, rate: float) -> dict[str, Any]:
    """The figures of a run. Raises DemoError where nothing was tracked."""
    first = operator.started_on
    numbers = sorted(operator.tracks)
    if first is None or not numbers:
        because = f": {operator.refusal}" if operator.refusal else ""
        raise DemoError(f"no frame was tracked{because}")
    tracks = [operator.tracks[number] for number in numbers]
    stamps = [stamp_ns(track.header.stamp) for track in tracks]
    latency = np.percentile([operator.latency_ms[number] for number in numbers], [50, 95, 99])
    span_s = (stamps[-1] - stamps[0]) / 1e9
    summary: dict[str, Any] = {
        "sequence": source.name,
        "camera_rate_hz": rate,
        "frames": operator.newest - first,
        "answered": len(numbers),
        "lost": sum(track.state == Track.LOST for track in tracks),
        "frames_per_second": round((len(numbers) - 1) / span_s, 2) if span_s > 0 else None,
        "latency_ms": {
            name: round(float(value), 1)
            for name, value in zip(("p50", "p95", "p99"), latency, strict=True)
        },
        "network_ms_p50": round(float(np.median([t.latency.network_ms for t in tracks])), 1),
    }
    truth = source.boxes
    assert truth is not None
    labelled = source.labelled[source.labelled >= first]
    if len(labelled) > 1:
        score = metrics.score(all_boxes(operator, truth), truth[labelled], frames=labelled - first)
        summary["auc"] = round(score.auc, 4)
        summary["precision"] = round(score.precision, 4)
        summary["normalized_precision"] = round(score.normalized_precision, 4)
    return summary


def all_boxes(operator: Operator, truth: np.ndarray) -> np.ndarray:
    """(N, 4) boxes from the start frame on; a frame without an answer has the one before."""
    assert operator.started_on is not None
    rows = [truth[operator.started_on]]
    last = max(len(truth) - 1, operator.newest)
    for number in range(operator.started_on + 1, last + 1):
        track = operator.tracks.get(number)
        rows.append(rows[-1] if track is None else _boxes([track])[0])
    return np.array(rows)


def describe(summary: dict[str, Any]) -> str:
    """The summary for people."""
    latency = summary["latency_ms"]
    lines = [
        f"{summary['sequence']}: {summary['answered']} of {summary['frames']} frames answered "
        f"at {summary['frames_per_second']} a second, {summary['lost']} of them LOST",
        f"latency, image stamp to answer: median {latency['p50']} ms, 95 % {latency['p95']} ms, "
        f"99 % {latency['p99']} ms (network {summary['network_ms_p50']} ms)",
    ]
    if "auc" in summary:
        lines.append(
            f"success AUC {summary['auc']:.3f}, precision {summary['precision']:.3f}, "
            f"normalized precision {summary['normalized_precision']:.3f}"
        )
    return "\n".join(lines)


def wait_for(
    what: str,
    condition: Callable[[], bool],
    timeout_s: float,
    operator: Operator,
    processes: NodeProcesses,
    needed: Iterable[str],
    output: Path,
) -> None:
    """Spin the operator until the condition holds.

    Raises DemoError after `timeout_s`, and ProcessError where a process that is needed has ended.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        rclpy.spin_once(operator, timeout_sec=0.1)
        processes.check(needed)
        if time.monotonic() > deadline:
            because = f" ({operator.refusal})" if operator.refusal else ""
            raise DemoError(f"no {what} within {timeout_s:g} s{because}; see the logs in {output}")


def run(source: Source, arguments: argparse.Namespace) -> None:
    """Run the processes and the operator to the end of the source, and write what came of it."""
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    rate = arguments.rate
    camera = {
        "source": arguments.sequence,
        "seed": arguments.seed,
        "rate": rate,
        "paused": True,
    }
    # Every frame is to be drawn, and the one before the newest to be remembered.
    tracker = {"overlay_rate": 0.0, "history_s": min(2.0 + 2 / rate, 60.0)}
    if arguments.weights is not None:
        tracker["weights"] = arguments.weights
    print(f"{source.name}: {len(source)} frames at {rate:g} Hz; starting the nodes")
    with NodeProcesses(NAMESPACE, output) as processes:
        playing = processes.start("replay_camera", camera)
        processes.start("tracker_node", tracker)
        operator = Operator(source, record=True, namespace=NAMESPACE)

        def wait(what: str, condition: Callable[[], bool], timeout_s: float, *needed: str) -> None:
            wait_for(what, condition, timeout_s, operator, processes, needed, output)

        wait(
            "answer of the tracker",
            lambda: operator.answered,
            START_TIMEOUT_S,
            "replay_camera",
            "tracker_node",
        )
        operator.play()
        longest = 2 * len(source) / rate + START_TIMEOUT_S
        wait("end of the recording", lambda: playing.poll() is not None, longest, "tracker_node")
        if playing.returncode != 0:
            processes.check(["replay_camera"])
        last = len(source) - 1
        # A frame that is never answered shows in the summary.
        with contextlib.suppress(DemoError):
            wait(
                "last answer",
                lambda: last in operator.tracks and last in operator.pictures,
                ANSWER_TIMEOUT_S,
                "tracker_node",
            )
    print()
    summary = summarize(operator, source, rate)
    text = describe(summary)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (output / "summary.txt").write_text(text + "\n")
    assert source.boxes is not None
    box_files.write(output / "boxes.txt", all_boxes(operator, source.boxes))
    with VideoWriter(output / "track.mp4", rate) as video:
        for number in sorted(operator.pictures):
            video.write(decode_compressed(operator.pictures[number]))
    print(f"{text}\nvideo, boxes and summary are in {output}")


def attach(source: Source) -> None:
    """Be the operator of nodes that run already."""
    rclpy.spin(Operator(source, record=False))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, ROS arguments left out."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--sequence", default="", metavar="PATH", help="recording with boxes; else a made scene"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the made scene (default 0)")
    parser.add_argument(
        "--rate", type=float, default=5.0, metavar="HZ", help="of the camera (default 5)"
    )
    parser.add_argument("--weights", help="name or file (default: the node's)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder (default demo_output)"
    )
    parser.add_argument(
        "--attach", action="store_true", help="start the target of nodes that run already"
    )
    parsed = parser.parse_args(arguments)
    if not 0 < parsed.rate <= 1000:
        parser.error(f"--rate: {parsed.rate:g} is outside 0 to 1000 Hz")
    return parsed


def main(args: list[str] | None = None) -> int:
    """Run the demo. Returns the exit status: 0 where the target was tracked."""
    arguments = parse(remove_ros_args(sys.argv if args is None else args)[1:])
    if not arguments.attach:
        # The demo's nodes meet on this machine only.
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    status = 0 if arguments.attach else INTERRUPTED
    with ros(args):
        try:
            source = (
                open_source(arguments.sequence, rate=arguments.rate)
                if arguments.sequence
                else Scene(arguments.seed)
            )
            if arguments.attach:
                attach(source)
            else:
                run(source, arguments)
            status = 0
        except (DemoError, ProcessError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
