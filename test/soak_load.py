# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node at full load for a long time, with an operator, an overlay, a console and a recorder.

Cameras, node and the listener are those of `ainet bench node`.
"""

import asyncio
import contextlib
import csv
import dataclasses
import itertools
import re
import threading
import time

import aiohttp
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image
from soak_samples import Samples, trends

from ainet_ros.bench.node import Listener, started
from ainet_ros.evaluation.metrics import iou
from ainet_ros.msg import Box, Event, Track
from ainet_ros.ros.console.server import VIEWS
from ainet_ros.srv import InitTarget, ResetTarget

DEPTH = 5000
PATIENCE_S = 30.0
"""So long an answer may take."""
RESETS = 5
"""After so many targets one is dropped before the next is started."""
LEAST_OVERLAP = 0.5
"""Of the first answer with the box that was drawn: the cameras repeat one pair."""
SHIFT = 0.05
"""The boxes drawn lie beside the true one by up to so much of its size."""
PERCENTILES = (50, 95, 99)
WATCHED = ("tracker_node", "console", "recorder", "replay_camera")
RECORDER = {"part_mb": 50, "total_mb": 200, "free_mb": 200}


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds."""

    warm_up: float = 600.0
    """Before what is held is judged."""
    window: float = 300.0
    """Of each percentile of the latency."""
    step: float = 60.0
    """Of each line of progress."""
    period: float = 20.0
    """Between the acts of the operator, and of the visits of the others."""
    sample: float = 5.0

    @classmethod
    def of(cls, seconds):
        """For a run of so many seconds, which may be a short one."""
        return cls(
            warm_up=min(cls.warm_up, seconds / 6),
            window=min(cls.window, seconds / 2),
            step=min(cls.step, seconds / 2),
            period=min(cls.period, seconds / 6),
            sample=min(cls.sample, seconds / 20),
        )


class Operator:
    """Starts a target now and then, drops one now and then, and looks at what comes of it.

    It lives in the listener's node, and so in its thread.
    """

    def __init__(self, node, truth, period_s, *, known):
        """known: the network knows what a target is, so that its boxes mean something."""
        self.faults = []
        self.answered = {"init": 0, "reset": 0}
        self.waits_ms = []
        """From the answer to an init to the first answer of the target."""
        self._truth = np.array(truth, float)
        self._known = known
        self._random = np.random.default_rng(0)
        self._init, self._reset = node.init, node.create_client(ResetTarget, "ainet/reset")
        self._asked = None  # name and time of a request without an answer
        self._awaited = None  # id, box and time of a target without an answer
        self._newest = 0
        self._events = {}  # boxes by the ids of the targets that were started
        self._paused = False
        node.create_subscription(Track, "ainet/track", self._on_track, DEPTH)
        node.create_subscription(Event, "ainet/events", self._on_event, DEPTH)
        node.create_timer(period_s, self._act)

    @property
    def idle(self):
        return self._asked is None and self._awaited is None

    def stop(self):
        self._paused = True

    def give_up(self):
        """Note what is without an answer."""
        if self._asked is not None:
            self.faults.append(f"no answer to {self._asked[0]}")
        if self._awaited is not None:
            target_id, _, _ = self._awaited
            told = "" if target_id in self._events else ", and no event of its start"
            self.faults.append(f"target {target_id}: no pair was answered with it{told}")
        self._asked = self._awaited = None

    def _act(self):
        if not self.idle:
            since = (self._asked or self._awaited)[-1]
            if time.monotonic() - since > PATIENCE_S:
                self.give_up()
            return
        if self._paused:
            return
        if self.answered["init"] >= RESETS * (self.answered["reset"] + 1):
            self._asked = ("reset", time.monotonic())
            future = self._reset.call_async(ResetTarget.Request())
            future.add_done_callback(lambda done: self._on_reset(done.result()))
            return
        x, y, width, height = self._truth
        shift = self._random.uniform(-SHIFT, SHIFT, 2) * (width, height)
        box = (float(x + shift[0]), float(y + shift[1]), float(width), float(height))
        self._asked = ("init", time.monotonic())
        request = InitTarget.Request(box=Box(x=box[0], y=box[1], width=box[2], height=box[3]))
        future = self._init.call_async(request)
        future.add_done_callback(lambda done: self._on_init(done.result(), box))

    def _on_init(self, answer, box):
        self._asked = None
        self.answered["init"] += 1
        if not answer.success:
            self.faults.append(f"an init was refused: {answer.message}")
            return
        if answer.target_id <= self._newest:
            self.faults.append(f"target {answer.target_id} came after {self._newest}")
        self._newest = answer.target_id
        self._awaited = (answer.target_id, box, time.monotonic())

    def _on_reset(self, answer):
        self._asked = None
        self.answered["reset"] += 1
        if not answer.success:
            self.faults.append(f"a reset was refused: {answer.message}")

    def _on_event(self, event):
        if event.event == Event.INIT:
            box = event.box
            self._events[event.target_id] = (box.x, box.y, box.width, box.height)

    def _on_track(self, track):
        if self._awaited is None or track.target_id != self._awaited[0]:
            return
        target_id, box, since = self._awaited
        if target_id not in self._events:
            return  # another topic's, on its way
        if not np.allclose(self._events.pop(target_id), box):
            self.faults.append(f"target {target_id} was started in another box than the drawn one")
        answered = track.box
        found = (answered.x, answered.y, answered.width, answered.height)
        overlap = float(iou(np.array([found]), np.array([box]))[0])
        if self._known and overlap < LEAST_OVERLAP:
            self.faults.append(f"target {target_id} was answered with an overlap of {overlap:.2f}")
        self.waits_ms.append(max(0.0, (time.monotonic() - since) * 1e3))
        self._awaited = None


class Viewer:
    """Subscribes the overlay every other period, in the listener's thread."""

    def __init__(self, node, period_s):
        self.visits = self.pictures = 0
        self.faults = []
        self._node = node
        self._subscription = None
        self._seen = 0
        node.create_timer(period_s, self._turn)

    def _turn(self):
        if self._subscription is None:
            self._seen = 0
            self._subscription = self._node.create_subscription(
                Image, "ainet/overlay", self._on_picture, 1
            )
            return
        self._node.destroy_subscription(self._subscription)
        self._subscription = None
        self.visits += 1
        if not self._seen:
            self.faults.append("an overlay subscriber saw no picture")

    def _on_picture(self, picture):
        self._seen += 1
        self.pictures += 1


class Page(threading.Thread):
    """A page of the console that is opened, looked at, and closed, over and over."""

    def __init__(self, address, period_s):
        super().__init__(name="page")
        self.visits = self.pictures = 0
        self.faults = []
        self._address, self._period_s = address, period_s
        self._ended = threading.Event()

    def run(self):
        for view in itertools.cycle(VIEWS):
            try:
                pictures = asyncio.run(self._visit(view))
            except (aiohttp.ClientError, OSError) as error:
                self.faults.append(f"the console's page: {error!r}")
            else:
                self.visits += 1
                self.pictures += pictures
                if not pictures and not self._ended.is_set():
                    self.faults.append(f"the console's page saw no picture of {view}")
            if self._ended.wait(self._period_s):
                return

    def stop(self):
        self._ended.set()
        self.join()

    async def _visit(self, view):
        """How many pictures came."""
        count = 0
        deadline = time.monotonic() + self._period_s
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self._address}socket") as socket,
        ):
            await socket.send_json({"do": "view", "view": view})
            # On a busy computer the first picture may take longer.
            while (left := deadline - time.monotonic()) > 0 or not count:
                if left < -PATIENCE_S or self._ended.is_set():
                    break
                with contextlib.suppress(asyncio.TimeoutError):
                    message = await socket.receive(timeout=1.0)
                    if message.type == aiohttp.WSMsgType.BINARY:
                        count += 1
                        await socket.send_json({"do": "seen"})
                    elif message.type != aiohttp.WSMsgType.TEXT:
                        raise aiohttp.ClientError(f"the console closed the page: {message}")
        return count


def run(result, folder, seconds, *, parameters, size, known, say):
    """Fill a dict for JSON; where the run is interrupted, with what it has come to.

    Args:
        folder: for the raw samples.
        seconds: of the load.
        parameters: of the tracker.
        size: of the images.
        known: see `Operator`.
        say: takes a line of progress.
    """
    times = Times.of(seconds)
    listener = Listener()
    recorder = {}

    def on_diagnostics(message):
        for status in message.status:
            if status.name.endswith("recorder: recording"):
                recorder.update({entry.key: entry.value for entry in status.values})

    listener.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    result |= {"parameters": dict(parameters), "size": size, "seconds": 0.0, "faults": []}
    result["warm_up"] = times.warm_up
    with contextlib.ExitStack() as stack:
        stack.callback(listener.destroy_node)
        samples = stack.enter_context(contextlib.closing(Samples(folder / "soak.csv")))
        stack.callback(lambda: result.update(trends=trends(samples.taken, times.warm_up)))
        rig = stack.enter_context(started(listener, parameters, size))
        rate = rig.overload_rate(min(10.0, times.step))
        result["rate"] = rate
        rig.cameras(rate)
        rig.processes.start("recorder", {**RECORDER, "folder": str(folder / "recorded")})
        rig.processes.start("console", {"port": 0})
        rig.wait("console", lambda: "ready: http" in rig.processes.log("console"))
        rig.wait("recording", lambda: "recording into" in rig.processes.log("recorder"))
        operator = Operator(listener, rig.truth, times.period, known=known)
        viewer = Viewer(listener, times.period)
        page = Page(re.search(r"ready: (\S+)", rig.processes.log("console"))[1], times.period)

        def note():
            """What is known to the end, whatever ends the run."""
            page.stop()
            result["inits"], result["resets"] = (
                operator.answered["init"],
                operator.answered["reset"],
            )
            result["waits_ms"] = operator.waits_ms
            for name, one in (("viewer", viewer), ("page", page)):
                result[name] = {"visits": one.visits, "pictures": one.pictures}
            result["recorder"] = dict(recorder)
            result["faults"] += operator.faults + viewer.faults + page.faults
            for module in WATCHED:
                result["faults"] += troubles(module, rig.processes.log(module))

        page.start()
        stack.callback(note)
        stack.enter_context(samples.every(times.sample, rig.processes.ids))
        say(f"soak: cameras at {rate:.0f} Hz of {size[0]}x{size[1]}, {seconds:.0f} s")
        _load(result, rig, folder, seconds, times, operator, say)
        operator.stop()
        with contextlib.suppress(TimeoutError):
            rig.wait("answers to the operator", lambda: operator.idle)
        operator.give_up()


def _load(result, rig, folder, seconds, times, operator, say):
    """The cameras run; what is answered goes into the result step by step."""
    steps = []
    began = time.monotonic()
    with (folder / "latency.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("seconds", "latency_ms"))
        while seconds - (time.monotonic() - began) > times.step / 2:
            row, latency = rig.window(result["rate"], times.step)
            rig.processes.check(WATCHED)
            result["seconds"] = now = time.monotonic() - began
            rows.writerows((round(now, 1), round(ms, 3)) for ms in latency)
            file.flush()
            steps.append((now, row, latency))
            result["windows"] = _windows(steps, times.window)
            p50, p95, p99 = np.percentile(latency, PERCENTILES)
            say(
                f"soak: {now:5.0f} s: {row['answered_hz']:.1f} Hz answered, latency {p50:.0f}, "
                f"{p95:.0f}, {p99:.0f} ms, {row['memory'] / 2**20:.0f} MiB, "
                f"{operator.answered['init']} targets started, {len(operator.faults)} faults"
            )


def _windows(steps, seconds):
    """Rate and percentiles of the latency over so many seconds each."""
    groups = {}
    for at, row, latency in steps:
        # A step ends a little after its time.
        groups.setdefault(int(0.99 * at / seconds), []).append((at, row, latency))
    return [
        {
            "until": group[-1][0],
            "answered_hz": float(np.mean([row["answered_hz"] for _, row, _ in group])),
            "published_hz": float(np.mean([row["published_hz"] for _, row, _ in group])),
            "latency_ms": np.percentile(
                np.concatenate([ms for _, _, ms in group]), PERCENTILES
            ).tolist(),
        }
        for group in groups.values()
    ]


def troubles(name, log):
    """What a node's log tells of its own faults."""
    return [
        f"{name}: {line.strip()}"
        for line in log.splitlines()
        if re.search(r"Traceback|internal error|left out|\[FATAL\]|Error: ", line)
    ]
