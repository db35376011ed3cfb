# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node `console`: a web page on which an operator watches the tracker and starts targets.

The main thread serves pages (`server`); another spins, and alone makes and ends subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import rclpy
from aiohttp import web
from builtin_interfaces.msg import Time as TimeMessage
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage

from ainet_ros.msg import Box, Event, Track
from ainet_ros.srv import InitTarget, ResetTarget
from ainet_ros.vision.encoding import stamp_ns, to_rgb
from ainet_ros.vision.thermal import ToneMap

from ..camera import Camera
from ..images import decode, to_compressed
from ..parameters import ConsoleParameters, TrackerParameters
from ..process import ros, spin
from ..qos import profile
from ..table import declare, describe
from .access import LOCAL_NAMES, Access, new_token
from .server import KEPT_OPEN_S, Console, Picture, Refused, is_ours

DEPTH = 10
LOOK_PERIOD_S = 1.0
ANSWER_TIMEOUT_S = 35.0
"""A little longer than the tracker itself takes to say that it cannot answer."""
STATES = {Track.NO_TARGET: "NO TARGET", Track.TRACKING: "TRACKING", Track.LOST: "LOST"}
EVENTS = {
    getattr(Event, name): name
    for name in ("INIT", "LOST", "FOUND", "RESET", "DEGRADED", "RESTORED")
}
LEVELS = ("OK", "WARN", "ERROR", "STALE")
ABSENT = "the tracker is not running"
ANY = ("0.0.0.0", "::")
"""Addresses that stand for all of this host's."""


class ConsoleNode(Node):
    """The ROS side.

    `watch`, and the coroutines, are for the thread of the loop; what comes in is posted to it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        """Raises ValueError for a wrong parameter."""
        super().__init__("console", **kwargs)
        self.parameters = declare(self, ConsoleParameters)
        token = self.parameters.token
        if not token and self.parameters.host not in LOCAL_NAMES:
            token = new_token()
        self.token = token
        self.console = Console(Access(token), self.execute, self.watch)
        self._loop = loop
        self._tracker = self.resolve_topic_name("ainet")
        self._tone_map = ToneMap()
        self._values: dict[str, Any] = {}  # of the tracker's parameters, where they are known
        self._wanted: frozenset[str] = frozenset()
        # How to end it, by view and transport.
        self._subscribed: dict[tuple[str, str], Callable[[], None]] = {}
        self._cameras: dict[str, Camera] = {}
        self._due: dict[str, float] = {}  # when the next picture is, by view
        self._init = self.create_client(InitTarget, "ainet/init")
        self._reset = self.create_client(ResetTarget, "ainet/reset")
        self._get = self.create_client(GetParameters, "ainet/get_parameters")
        self._set = self.create_client(SetParameters, "ainet/set_parameters")
        topics: list[tuple[type, str, Callable[[Any], None]]] = [
            (Track, "ainet/track", self._on_track),
            (Event, "ainet/events", self._on_event),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics),
            (ParameterEvent, "/parameter_events", self._on_parameters),
        ]
        for kind, topic, callback in topics:
            self.create_subscription(kind, topic, callback, profile(DEPTH))

    # Run by the thread that spins

    def follow(self) -> None:
        """Subscribe what the pages look at, and no more."""
        wanted = {(view, self._values.get(f"{view}_transport", "raw")) for view in self._wanted}
        for known in self._subscribed.keys() - wanted:
            self._subscribed.pop(known)()
        for view, transport in wanted - self._subscribed.keys():
            self._subscribed[view, transport] = self._subscribe(view, transport)
        for camera in self._cameras.values():
            camera.follow()

    def _subscribe(self, view: str, transport: str) -> Callable[[], None]:
        """Have a view's pictures come; returns what ends that."""
        if view == "overlay":
            subscription = self.create_subscription(
                CompressedImage,
                "ainet/overlay/compressed",
                partial(self._show, view),
                profile(1),
            )
            return partial(self.destroy_subscription, subscription)
        camera = self._cameras[view] = Camera(self, f"{view}/image_raw", transport)
        camera.registerCallback(partial(self._show, view))
        return lambda: self._cameras.pop(view).destroy()

    def _show(self, view: str, message: Any) -> None:
        now = time.monotonic()
        if now < self._due.get(view, 0.0):
            return
        period = 1 / self.parameters.rate
        self._due[view] = max(self._due.get(view, 0.0) + period, now - period)
        try:
            jpeg = self._jpeg(message)
        except ValueError as error:
            self.get_logger().error(f"{view}: {error}", throttle_duration_sec=5.0)
            return
        stamp = max(stamp_ns(message.header.stamp), 0)  # a header may hold anything
        self._post(self.console.show, Picture(view, stamp, jpeg))

    def _jpeg(self, message: Any) -> bytes:
        if isinstance(message, CompressedImage) and "jpeg" in message.format:
            return bytes(message.data)
        pixels = to_rgb(self._tone_map(decode(message)))
        return bytes(to_compressed(pixels, "jpeg", message.header, self.parameters.quality).data)

    def _on_track(self, track: Track) -> None:
        box = track.normalized_box
        self._post(
            self.console.add,
            "tracks",
            {
                "stamp": str(stamp_ns(track.header.stamp)),  # more than a number of JavaScript
                "time": time.time(),
                "target": track.target_id,
                "state": STATES.get(track.state, "?"),
                "score": _finite(track.score),
                "box": [_finite(value) for value in (box.x, box.y, box.width, box.height)],
                "latency": _finite(track.latency.total_ms),
                "network": _finite(track.latency.network_ms),
                "degraded": track.degraded,
            },
        )

    def _on_event(self, event: Event) -> None:
        entry = {
            "time": time.time(),
            "target": event.target_id,
            "event": EVENTS.get(event.event, "?"),
        }
        self._post(self.console.add, "events", entry)

    def _on_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        name = self._tracker.lstrip("/")
        found = [
            {
                "name": status.name.removeprefix(f"{name}: "),
                "level": LEVELS[min(status.level[0], len(LEVELS) - 1)],
                "message": status.message,
                "values": [[entry.key, entry.value] for entry in status.values],
            }
            for status in diagnostics.status
            if status.name.startswith(f"{name}: ")
        ]
        if found:
            self._post(self.console.put, "diagnostics", found)

    def _on_parameters(self, event: ParameterEvent) -> None:
        if event.node == self._tracker:
            changed = [*event.new_parameters, *event.changed_parameters]
            values = {entry.name: parameter_value_to_python(entry.value) for entry in changed}
            self._post(self._learn, values)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # Run by the thread of the loop

    def watch(self, views: frozenset[str]) -> None:
        """Have the pictures of these views come, and of no others."""
        self._wanted = views

    async def look_forever(self) -> None:
        """Tell the pages whether the tracker is there, and what its parameters are."""
        there, told = None, False
        while True:
            before, there = there, self._init.service_is_ready()
            if there != before:
                self.console.put("tracker", there)
                told = False  # another tracker may come with other values
            if there and not told and self._get.service_is_ready():
                names = list(describe(TrackerParameters))
                with contextlib.suppress(Refused):  # the next look asks again
                    answer = await self._call(self._get, GetParameters.Request(names=names))
                    values = [parameter_value_to_python(value) for value in answer.values]
                    if values:  # else the tracker is of another version, and lacks one of them
                        self._learn(dict(zip(names, values, strict=True)))
                    told = True
            await asyncio.sleep(LOOK_PERIOD_S)

    def _learn(self, values: dict[str, Any]) -> None:
        known = describe(TrackerParameters)
        self._values |= {name: value for name, value in values.items() if name in known}
        self.console.put(
            "parameters",
            [
                {
                    "name": name,
                    "value": self._values[name],
                    "text": description.sentence(),
                    "limits": description.limits,
                    "choices": description.choices,
                }
                for name, description in known.items()
                if not description.read_only and name in self._values
            ],
        )

    async def execute(self, request: dict[str, Any]) -> str:
        """Do what a page asks, and return what to say of it. Raises Refused."""
        actions = {"init": self._start, "reset": self._drop, "set": self._change}
        action = actions.get(str(request.get("do")))
        if action is None:
            raise Refused("unknown request")
        try:
            return await action(request)
        except Refused:
            raise
        except Exception as error:  # whatever it was, the page hears of it
            self.get_logger().error(traceback.format_exc())
            raise Refused(f"internal error: {error!r}") from error

    async def _start(self, request: dict[str, Any]) -> str:
        try:
            x, y, width, height = (float(value) for value in request["box"])
            stamp = int(request.get("stamp", 0))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise Refused("the request has no box") from None
        if not 0 <= stamp < 2**31 * 10**9:
            raise Refused("the request has no stamp of an image")
        time_message = Time(nanoseconds=stamp).to_msg() if stamp else TimeMessage()
        answer = await self._call(
            self._init,
            InitTarget.Request(
                box=Box(x=x, y=y, width=width, height=height),
                normalized=True,
                add=request.get("add") is True,
                stamp=time_message,
            ),
        )
        if not answer.success:
            raise Refused(answer.message)
        return f"target {answer.target_id} started"

    async def _drop(self, request: dict[str, Any]) -> str:
        target = request.get("target", 0)
        if type(target) is not int or not 0 <= target < 2**32:
            raise Refused("the request names no target")
        answer = await self._call(self._reset, ResetTarget.Request(target_id=target))
        if not answer.success:
            raise Refused(answer.message)
        return f"target {target} dropped" if target else "all targets dropped"

    async def _change(self, request: dict[str, Any]) -> str:
        name, value = request.get("name"), request.get("value")
        fields = {field.name: field for field in dataclasses.fields(TrackerParameters)}
        if not isinstance(name, str) or name not in fields:
            raise Refused(f"no parameter {name!r}")
        kind = type(fields[name].default)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise Refused(f"{name}: {value} is too large")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise Refused(f"{name}: {value!r} is no {kind.__name__}")
        change = Parameter(name, value=value).to_parameter_msg()
        answer = await self._call(self._set, SetParameters.Request(parameters=[change]))
        if not answer.results[0].successful:
            raise Refused(answer.results[0].reason)
        return f"{name} is {value}"

    async def _call(self, client: Client, request: Any) -> Any:
        """A service's answer. Raises Refused where there is none."""
        if not client.service_is_ready():
            raise Refused(ABSENT)
        answer: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        pending = client.call_async(request)
        pending.add_done_callback(lambda done: self._post(settle, done.result()))
        try:
            return await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise Refused(f"no answer within {ANSWER_TIMEOUT_S:g} s: {ABSENT}?") from None
        finally:  # the page may be gone too
            client.remove_pending_request(pending)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


async def serve() -> None:
    """Serve until the context is shut down. Raises ValueError or OSError naming what is wrong."""
    loop = asyncio.get_running_loop()
    node = ConsoleNode(loop)
    host, port = node.parameters.host, node.parameters.port
    runner = web.AppRunner(
        node.console.application(),
        access_log=None,
        shutdown_timeout=1.0,
        keepalive_timeout=KEPT_OPEN_S,
    )
    logging.getLogger("aiohttp.server").addFilter(is_ours)
    await runner.setup()
    server = runner.server
    assert server is not None  # since the setup
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}, port {port}: {error.strerror}; set the parameters host "
                "and port"
            ) from None
        name = socket.gethostname() if host in ANY else host
        address = f"http://{f'[{name}]' if ':' in name else name}:{runner.addresses[0][1]}/"
        if node.token:
            address += f"?token={node.token}"
        node.get_logger().info(f"ready: {address}")
        jobs = [
            asyncio.create_task(asyncio.to_thread(spin, node, node.follow)),
            asyncio.create_task(node.console.flush_forever()),
            asyncio.create_task(node.console.drop_silent_forever(server)),
            asyncio.create_task(node.look_forever()),
        ]
        done, rest = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        for job in rest:
            job.cancel()
        for job in done:
            job.result()  # raises what ended it
    finally:
        await runner.cleanup()
        rclpy.try_shutdown()  # ends the spinning


def main(args: list[str] | None = None) -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    status = 0
    with ros(args):
        try:
            asyncio.run(serve())
        except (ValueError, OSError) as error:
            get_logger("console").fatal(str(error))
            status = 1
    sys.exit(status)
