# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node under load: cameras, node and a subscriber, each a process of its own.

Latency is the subscriber's clock less header.stamp when an answer arrives, as in NVIDIA's
ros2_benchmark. The cameras repeat one pair with new stamps, which costs them next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Header

from ainet_ros.msg import Box, Track
from ainet_ros.ros.processes import NodeProcesses, ProcessError
from ainet_ros.srv import InitTarget
from ainet_ros.vision.encoding import stamp_ns
from ainet_ros.vision.scenes import Scene

from .measure import machine

NAMESPACE = "/bench"
SEED = 0
SLOW = 2.0
"""Rate at which every node keeps up, Hz."""
FASTEST = 120.0
"""No cameras are quicker, Hz; publishing itself would take the computer's time."""
SHARES = (1.6, 1.4, 1.25, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of the rate that the time of a frame at SLOW lets expect, at which the peak rate is looked for.
Frames that come in quick succession may take much less time."""
LOWER = (0.75, 0.5, 0.25)
"""Of the peak rate, the fixed rates that latency is measured at as well."""
DROPPED = 0.05
"""Largest share of pairs without an answer at the peak rate."""
TRIES = 2
"""Of a rate, until one has few drops."""
OVERLOAD = 4.0
"""Times the peak rate, in an overload; at most FASTEST."""
SETTLE_S = 1.0
"""Of each measurement that is left out at its start; and so long answers may come after it."""
START_TIMEOUT_S = 120.0
STAGES = ("pair", "queue", "decode", "preprocess", "network", "postprocess")
DEPTH = 5000


class Listener(Node):
    """Keeps when each pair was published and answered."""

    def __init__(self) -> None:
        super().__init__("listener", namespace=NAMESPACE)
        self.published: set[int] = set()
        """Stamps, nanoseconds."""
        self.answers: dict[int, tuple[float, Track]] = {}
        """By the stamp: milliseconds from it to the arrival, and the answer."""
        self._since = 0
        self.init = self.create_client(InitTarget, "ainet/init")
        self.create_subscription(Header, "replay_camera/frame", self._on_frame, DEPTH)
        self.create_subscription(Track, "ainet/track", self._on_track, DEPTH)
        # rclpy.spin_once would add the node to an executor, and take it out, at every message.
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def spin(self, seconds: float) -> None:
        """Hear for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(left)

    def clear(self) -> None:
        """Forget all, and do not hear of earlier stamps any more: what was sent before may still
        be on its way."""
        self._since = self.get_clock().now().nanoseconds
        self.published.clear()
        self.answers.clear()

    def _on_frame(self, frame: Header) -> None:
        if (stamp := stamp_ns(frame.stamp)) >= self._since:
            self.published.add(stamp)

    def _on_track(self, track: Track) -> None:
        if (stamp := stamp_ns(track.header.stamp)) >= self._since:
            self.answers[stamp] = (self.get_clock().now().nanoseconds - stamp) / 1e6, track


class Rig:
    """Cameras of one size before a node that tracks."""

    def __init__(
        self, processes: NodeProcesses, listener: Listener, source: str, truth: Any
    ) -> None:
        self.processes, self.listener, self.source = processes, listener, source
        self.truth = truth
        self._node_id = 0

    def start(self, parameters: Mapping[str, Any]) -> None:
        """Starts the node and its target. Raises TimeoutError or ProcessError."""
        always = {"lost_below": 0.0, "found_above": 0.0}
        self._node_id = self.processes.start("tracker_node", {**parameters, **always}).pid
        self.cameras(SLOW)
        self.wait("answer of the node", lambda: bool(self.listener.answers))
        self.wait("service of the node", self.listener.init.service_is_ready)
        x, y, width, height = (float(v) for v in self.truth)
        box = Box(x=x, y=y, width=width, height=height)
        answer = self.listener.init.call_async(InitTarget.Request(box=box))
        self.wait("answer to init", answer.done)
        if not answer.result().success:
            raise ProcessError(f"the target did not start: {answer.result().message}")
        self.processes.stop("replay_camera")

    def run(self, rate: float, seconds: float) -> dict[str, Any]:
        """What comes of cameras at `rate` Hz for so long."""
        self.cameras(rate)
        row, _ = self.window(rate, seconds)
        self.processes.stop("replay_camera")
        return row

    def to_peak(self, seconds: float) -> list[dict[str, Any]]:
        """What comes of falling rates, each for so long, down to the peak rate, the first with
        few drops, or to the lowest share of what the time of a frame lets expect.

        A rate is tried twice before the next: something else on the computer may have taken the
        time of a few frames.
        """
        frame = self.run(SLOW, seconds)["stages_ms"]
        expected = min(1e3 / sum(frame[stage] for stage in STAGES[2:]), FASTEST / SHARES[0])
        rows = []
        for share in SHARES:
            for _ in range(TRIES):
                rows.append(self.run(share * expected, seconds))
                if rows[-1]["dropped"] < DROPPED:
                    return rows
        return rows

    def overload_rate(self, seconds: float) -> float:
        """Of cameras for `overload`, Hz: OVERLOAD times the peak rate, at most FASTEST.

        Each try at a rate for the peak lasts `seconds`; where all had drops, it is what was
        answered at the lowest.
        """
        return float(min(OVERLOAD * self.to_peak(seconds)[-1]["answered_hz"], FASTEST))

    def window(self, rate: float, seconds: float) -> tuple[dict[str, Any], NDArray[np.float64]]:
        """What comes of the running `cameras`: the row of a table, and the latencies in ms."""
        listener = self.listener
        self.wait("answer", lambda: bool(listener.published & listener.answers.keys()))
        self._spin(SETTLE_S)
        listener.clear()
        began, cpu = time.monotonic(), self._cpu_s()
        self._spin(seconds)
        lasted, cpu = time.monotonic() - began, self._cpu_s() - cpu
        published = set(listener.published)
        self._spin(SETTLE_S)
        answered = published & listener.answers.keys()
        if not answered:
            raise TimeoutError(f"no pair was answered at {rate:g} Hz")
        rows = [listener.answers[stamp] for stamp in sorted(answered)]
        latency = np.array([ms for ms, _ in rows])
        stages = {
            stage: np.array([getattr(t.latency, f"{stage}_ms") for _, t in rows])
            for stage in STAGES
        }
        stages["publish"] = np.array([ms - t.latency.total_ms for ms, t in rows])
        p50, p95, p99 = np.percentile(latency, [50, 95, 99])
        slowest = latency >= p99
        tracker = np.median(
            [t.latency.preprocess_ms + t.latency.network_ms + t.latency.postprocess_ms
             for _, t in rows]
        )  # fmt: skip
        row = {
            "rate": rate,  # asked for: late cameras publish less
            "published_hz": len(published) / lasted,
            "answered_hz": len(answered) / lasted,
            "dropped": 1 - len(answered) / len(published),
            "latency_ms": {"p50": p50, "p95": p95, "p99": p99, "jitter": float(latency.std())},
            "overhead_ms": float(p50 - tracker),
            "stages_ms": {stage: float(np.median(ms)) for stage, ms in stages.items()},
            "slowest_ms": {stage: float(ms[slowest].mean()) for stage, ms in stages.items()},
            "cpu": cpu / lasted,
            "memory": self._memory(),
        }
        return row, latency

    def overload(self, rate: float, seconds: float) -> dict[str, Any]:
        """What comes of cameras at `rate` Hz, minute by minute: latency and memory.

        The growth of memory, in bytes, is None where there are no two whole minutes.
        """
        self.cameras(rate)
        lengths = [60.0] * int(seconds // 60) + [seconds % 60] * (seconds % 60 > 0)
        windows = [self.window(rate, length) for length in lengths]
        self.processes.stop("replay_camera")
        minutes = [minute for minute, _ in windows]
        memory = [minute["memory"] for minute in minutes]
        # From the first minute, which fills what is kept on purpose, to the last whole one.
        more = int(seconds // 60) - 1
        growth = (memory[more] - memory[0]) / more if more > 0 else None
        frame_ms = 1e3 / float(np.median([minute["answered_hz"] for minute in minutes]))
        worst = max(minutes, key=lambda minute: minute["latency_ms"]["p99"])
        p99 = float(np.percentile(np.concatenate([ms for _, ms in windows]), 99))
        return {
            "rate": rate,
            "published_hz": float(np.median([minute["published_hz"] for minute in minutes])),
            "seconds": seconds,
            "p99_ms": p99,
            "frame_ms": frame_ms,
            "p99_frames": p99 / frame_ms,
            "worst_p99_ms": worst["latency_ms"]["p99"],
            "slowest_ms": worst["slowest_ms"],
            "memory": memory,
            "growth_a_minute": growth,
        }

    def cameras(self, rate: float) -> None:
        """Starts them; nothing is heard of those before, which have ended."""
        self.listener.clear()
        camera = {"source": self.source, "rate": rate, "paused": True}
        self.processes.start("replay_camera", camera)

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Spins until the condition holds. Raises TimeoutError naming what did not come."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {START_TIMEOUT_S:g} s")
            self._spin(0.1)

    def _spin(self, seconds: float) -> None:
        self.listener.spin(seconds)
        self.processes.check(["tracker_node", "replay_camera"])

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._node_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self) -> int:
        pages = int(Path(f"/proc/{self._node_id}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


@contextlib.contextmanager
def started(
    listener: Listener, parameters: Mapping[str, Any], size: tuple[int, int]
) -> Iterator[Rig]:
    """Cameras of that width and height before a node with a target; all ends with the context.

    Raises TimeoutError or ProcessError.
    """
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(SEED, frames=2, size=size)
        source = Path(name) / "scene"
        scene.write(source)
        with NodeProcesses(NAMESPACE, Path(name)) as processes:
            rig = Rig(processes, listener, str(source), scene.boxes[0])
            rig.start(parameters)
            yield rig


def measure(
    parameters: dict[str, Any],
    sizes: Iterable[tuple[int, int]],
    seconds: float,
    overload: float | None = None,
) -> dict[str, Any]:
    """By the size of the images: latency, drops, CPU and memory at rates from above what a frame's
    time lets expect down to the peak rate with few drops, and at shares of that; or, with
    `overload`, what so many seconds of OVERLOAD times the peak rate do.

    Args:
        parameters: of the node.
        sizes: width and height of the images.
        seconds: of each measurement.
        overload: how long, seconds.

    Raises:
        ProcessError, TimeoutError: the nodes do not run as they should.
    """
    listener = Listener()
    result: dict[str, Any] = {"machine": machine(), "parameters": parameters, "sizes": {}}
    for width, height in sizes:
        with started(listener, parameters, (width, height)) as rig:
            if overload is not None:
                entry: dict[str, Any] = rig.overload(rig.overload_rate(seconds), overload)
            else:
                entry = {"rates": _rates(rig, seconds)}
            result["sizes"][f"{width}x{height}"] = entry
    listener.destroy_node()
    return result


def _rates(rig: Rig, seconds: float) -> list[dict[str, Any]]:
    """Down to the peak rate and, if there is one, at shares of that."""
    rows = rig.to_peak(seconds)
    if rows[-1]["dropped"] < DROPPED:
        peak = rows[-1]["published_hz"]
        rows += [rig.run(lower * peak, seconds) for lower in LOWER]
    return rows


def table(result: dict[str, Any]) -> str:
    """The result of `measure` for reading."""
    lines = [", ".join(f"{key} {value}" for key, value in result["machine"].items())]
    for size, entry in result["sizes"].items():
        if "rates" not in entry:
            growth = entry["growth_a_minute"]
            memory = "" if growth is None else f"memory {growth / 2**20:+.2f} MiB a minute; "
            lines.append(
                f"{size}: {entry['seconds']:g} s at {entry['published_hz']:.1f} Hz: p99 "
                f"{entry['p99_ms']:.0f} ms, {entry['p99_frames']:.2f} frames; {memory}worst "
                f"minute: p99 {entry['worst_p99_ms']:.0f} ms, its slowest hundredth, ms: "
                f"{_stages(entry['slowest_ms'])}"
            )
            continue
        kept = [row["published_hz"] for row in entry["rates"] if row["dropped"] < DROPPED]
        peak = f"{max(kept):.1f} Hz" if kept else "at no rate tried"
        lines.append(f"{size}: under {DROPPED:.0%} dropped up to {peak}")
        lines.append(
            f"  {'Hz':>6}{'dropped':>9}{'p50':>8}{'p95':>8}{'p99':>8}{'jitter':>8}{'beside':>8}"
            f"{'CPU':>7}{'MiB':>7}  stages, ms"
        )
        for row in entry["rates"]:
            latency = "".join(f"{row['latency_ms'][k]:8.1f}" for k in ("p50", "p95", "p99"))
            stages = _stages(row["stages_ms"])
            lines.append(
                f"  {row['published_hz']:6.1f}{row['dropped']:9.1%}{latency}"
                f"{row['latency_ms']['jitter']:8.1f}{row['overhead_ms']:8.1f}{row['cpu']:7.0%}"
                f"{row['memory'] / 2**20:7.0f}  {stages}"
            )
    return "\n".join(lines)


def _stages(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {value:.1f}" for stage, value in milliseconds.items())
