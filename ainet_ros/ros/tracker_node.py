# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The node `ainet`: tracks a target through two cameras' topics.

Each thread owns its state: one spins and runs all callbacks (pairing, parameters, checks); the
main thread loads the network, tracks and publishes; a third waits for it where a request asks
something of it. They meet in `Worker`.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any, NoReturn, TypeVar

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Future as RosFuture
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from ainet_ros.msg import Event, StageLatency
from ainet_ros.srv import InitTarget, ResetTarget
from ainet_ros.tracker import Box
from ainet_ros.vision.calibration import misfit
from ainet_ros.vision.encoding import stamp_ns

from . import messages
from .camera import Camera
from .engine import Engine, Images, OutOfMemory, in_one_line
from .filters import NearestTimePairs
from .health import PERIOD_S, Health, statuses
from .images import cv_bridge
from .outputs import DEPTH, REPEAT_S, Outputs
from .pairing import NearestTime, Pair
from .parameters import TrackerParameters
from .process import ignore_interrupts, interrupted, ros, spin
from .qos import create_publisher, profile
from .settings import Settings
from .table import MEGABYTE, declare, describe, updated
from .worker import Entry, RecentPairs, Worker

try:
    from bondpy.bondpy import Bond
except ImportError:  # it has no wheel
    Bond = None

Result = TypeVar("Result")

REQUESTS = 1000
"""Most requests that wait for their turn: one more is lost, and who asked waits for ever. The
services of parameters have as many, others 10."""
LAST_NS = 2**31 * 10**9 - 1
"""The last stamp that a message holds."""
CLICKS_S = 10.0
"""Most time between the clicks on two corners."""
PAIR_WAIT_S = 0.5
"""So long an init request waits for the pair that it speaks of."""
SERVICE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 1.0
OLDEST_CLOCK_S = 60.0
"""An image older than this when it comes was stamped by another clock."""
FAILURE_PERIOD_S = 5.0
FIT_PERIOD_S = 10.0


class TrackerNode(LifecycleNode):
    """A managed node; with the parameter autostart `run` configures and activates it.

    Topics and services are there from the start; who asks too early is told so.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Raises ValueError for a wrong parameter."""
        super().__init__("ainet", **kwargs)
        self._values = declare(self, TrackerParameters)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._engine: Engine | None = None  # the worker's
        self._worker = Worker(
            self._handle,
            self._on_failure,
            RecentPairs(self._values.history_s, self._values.history_mb * MEGABYTE),
            self._values.catch_up_s,
        )
        self._pairing: NearestTime | None = None
        self._cameras: list[Camera] = []  # while the node is active
        self._topics: list[str] = []
        self._info_subscription: Any = None
        self._report_timer: Any = None
        self._requests = ThreadPoolExecutor(1, "requests")
        self._box_asked: Future[Any] | None = None  # the last that nobody waits for an answer to
        self._ids = itertools.count(1)  # of targets; never given twice
        self._images: Images | None = None  # as tracked through last, while both cameras deliver
        self._fit_due = 0.0
        self._rgb_frame = ""
        self._bond: Any = None
        self._box_due: Box | None = None  # of the parameter init_box, for the next pair
        self._degraded = False
        self._gave_up = ""  # why the node has deactivated itself
        self._health: Health | None = None
        self._camera_info: CameraInfo | None = None
        self._clicked: tuple[float, float, float] | None = None  # time, x, y of a first click
        self._offer()

    def run(self) -> bool:
        """Track in this thread, and spin in another, until the context is shut down.

        Returns False at once where the node should start by itself and cannot.
        """
        spinning = ThreadPoolExecutor(1, "spinning").submit(self._spin)
        try:
            self._worker.run()
        finally:
            self._worker.stop()
            wait_for([spinning], STOP_TIMEOUT_S)
        return not spinning.done() or spinning.result()

    def close(self) -> None:
        """Stop tracking. For the thread of `run`, after it."""
        self._stop_listening()
        self._unload()

    def destroy_node(self) -> None:
        """Also end what rclpy forgets, which else keeps the DDS participant: Fast DDS would leave
        17 MB in /dev/shm for each process that ends without it."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", partial(self._worker.ask, self._load))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def activate() -> None:
            if self._engine is None:
                self._worker.ask(self._load)
            try:
                self._listen()
                self._bind()
            except Exception:
                self._unbind()
                self._stop_listening()
                raise

        return self._transition("activate", activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", self._stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("clean up", self._stop)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shut down", self._stop)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error nobody foresaw the node is unconfigured again."""
        return self._transition("recover", self._stop)

    def _transition(self, name: str, action: Callable[[], object]) -> TransitionCallbackReturn:
        """rclpy would swallow an exception, and its reason."""
        try:
            action()
        except (ValueError, OSError, OutOfMemory) as error:
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f"cannot {name}: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        self._unbind()
        self._stop_listening()
        self._worker.ask(self._release)
        self._pairing = self._health = None  # with the images that wait there for a partner

    def _bind(self) -> None:
        """Have a lifecycle manager, such as Nav2's, see at once when this process ends."""
        if self._values.autostart or Bond is None:
            return
        self._bond = Bond(self, "bond", self.get_name())
        self._bond.start()

    def _unbind(self) -> None:
        if self._bond is not None:
            bond, self._bond = self._bond, None
            bond.shutdown()
            # It leaves them in the node's lists, where an executor fails on them.
            self.destroy_subscription(bond.sub)
            self.destroy_publisher(bond.pub)

    def _spin(self) -> bool:
        """Until the context is shut down; False where the node cannot start by itself."""
        try:
            if not self._autostart():
                return False
            spin(self, self._follow)
            return True
        finally:
            self._worker.stop()

    def _follow(self) -> None:
        for camera in self._cameras:
            camera.follow()

    def _autostart(self) -> bool:
        """Configure and activate where the parameter autostart says so; whether all went well."""
        if not self._values.autostart:
            self.get_logger().info("waiting to be configured and activated")
            return True
        done = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == done and self.trigger_activate() == done

    def _offer(self) -> None:
        """Create topics and services."""
        self._outputs = Outputs(self)
        self._diagnostics_publisher = create_publisher(
            self, DiagnosticArray, "/diagnostics", DEPTH
        )
        services = MutuallyExclusiveCallbackGroup()  # one that waits holds up the other only
        for service, name, answer in (
            (InitTarget, "~/init", self._on_init),
            (ResetTarget, "~/reset", self._on_reset),
        ):
            self.create_service(
                service, name, answer, qos_profile=profile(REQUESTS), callback_group=services
            )
        requests: list[tuple[type, str, Callable[[Any], None]]] = [
            (RegionOfInterest, "~/init_box", self._on_init_box),
            # Where rqt_image_view tells of clicks on the overlay.
            (Point, "~/overlay_mouse_left", self._on_click),
        ]
        if messages.vision_msgs is not None:
            detection = messages.vision_msgs.Detection2D
            requests.append((detection, "~/init_detection", self._on_init_detection))
        for kind, topic, callback in requests:
            self.create_subscription(kind, topic, callback, profile(DEPTH))

    def _listen(self) -> None:
        """Subscribe the cameras."""
        parameters = self._values
        self._pairing = NearestTime(**_pairing_options(parameters))
        self._gave_up = ""
        self._box_due = parameters.box
        for name, transport in (
            ("rgb", parameters.rgb_transport),
            ("thermal", parameters.thermal_transport),
        ):
            self._cameras = [*self._cameras, Camera(self, f"{name}/image_raw", transport)]
        self._topics = [camera.topic for camera in self._cameras]
        self._info_subscription = self.create_subscription(
            CameraInfo,
            "rgb/camera_info",
            self._on_camera_info,
            profile(1, ReliabilityPolicy.BEST_EFFORT),
        )
        rgb, thermal = self._cameras
        pairs = NearestTimePairs(rgb, thermal, self._pairing)
        pairs.registerCallback(self._on_pair)
        self._health = Health(self._topics, self._pairing)
        for side, camera in enumerate(self._cameras):
            camera.registerCallback(self._health.saw, side)
        # By a clock that runs where use_sim_time is set and no /clock comes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._report_timer = self.create_timer(PERIOD_S, self._report, clock=steady)
        self.get_logger().info(f"ready: waiting for {' and '.join(self._topics)}")

    def _stop_listening(self) -> None:
        """Bears that `_listen` came halfway only."""
        if self._report_timer is not None:
            self.destroy_timer(self._report_timer)
        if self._info_subscription is not None:
            self.destroy_subscription(self._info_subscription)
        self._report_timer = self._info_subscription = None
        for camera in self._cameras:
            camera.destroy()
        self._cameras = []

    # Run by the thread that spins

    def _on_pair(self, pair: Pair) -> None:
        given = [message for message in pair[:2] if message is not None]
        if pair.rgb is not None:
            self._rgb_frame = pair.rgb.header.frame_id
        entry = self._worker.put(pair, sum(len(message.data) for message in given))
        if self._box_due is not None:
            self._start_unasked(self._box_due, entry=entry)
            self._box_due = None

    def _on_camera_info(self, info: CameraInfo) -> None:
        self._camera_info = info

    async def _on_init(
        self, request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        box = (request.box.x, request.box.y, request.box.width, request.box.height)
        start = partial(
            self._start,
            box,
            stamp_ns(request.stamp),
            normalized=request.normalized,
            add=request.add,
        )
        target_id, response.message = await self._aside(start)
        response.success = not response.message
        response.target_id = target_id or 0
        return response

    def _on_init_box(self, region: RegionOfInterest) -> None:
        x, y, width, height = region.x_offset, region.y_offset, region.width, region.height
        self._start_unasked((float(x), float(y), float(width), float(height)))

    def _on_init_detection(self, detection: Any) -> None:
        centre, width, height = detection.bbox.center, detection.bbox.size_x, detection.bbox.size_y
        box = (centre.position.x - width / 2, centre.position.y - height / 2, width, height)
        self._start_unasked(box, stamp_ns(detection.header.stamp))

    def _on_click(self, point: Point) -> None:
        """The second click within CLICKS_S makes a box with the first."""
        now = time.monotonic()
        first, self._clicked = self._clicked, (now, point.x, point.y)
        if first is None or now - first[0] > CLICKS_S:
            self.get_logger().info(
                f"a target's corner at ({point.x:.0f}, {point.y:.0f}): click on the opposite one"
            )
            return
        self._clicked = None
        _, x, y = first
        box = (min(x, point.x), min(y, point.y), abs(x - point.x), abs(y - point.y))
        self._start_unasked(box)

    def _start_unasked(self, box: Box, stamp: int = 0, entry: Entry | None = None) -> None:
        """`_start` on a target, in the place of all others, where nobody waits for an answer.

        A box that has not been begun with gives way to a newer one: a topic may bring them quicker
        than targets are started, and those who wait for an answer would wait behind all of them.
        """
        if self._box_asked is not None and self._box_asked.cancel():
            self.get_logger().warning(
                "boxes come quicker than targets can be started: the newest is taken",
                throttle_duration_sec=REPEAT_S,
            )
        self._box_asked = self._requests.submit(self._start, box, stamp, entry)

    async def _on_reset(
        self, request: ResetTarget.Request, response: ResetTarget.Response
    ) -> ResetTarget.Response:
        _, response.message = await self._aside(partial(self._reset, request.target_id))
        response.success = not response.message
        return response

    async def _aside(self, request: Callable[[], Result]) -> Result:
        """Wait for the request without holding up the callbacks."""
        executor = self.executor
        answer: RosFuture[Result] = RosFuture(executor=executor)

        def done(job: Future[Result]) -> None:
            answer.set_result(job.result())
            executor.wake()  # else it sees the answer only when something else comes

        self._requests.submit(request).add_done_callback(done)
        return await answer

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        changed = {change.name for change in changes}
        if changed.isdisjoint(describe(TrackerParameters)):
            return SetParametersResult(successful=True)  # of the quality of service
        try:
            parameters = updated(self._values, changes)
            settings = Settings.of(parameters, changed)
        except (ValueError, OSError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        if "init_box" in changed:
            self._box_due = parameters.box
        self._values = parameters
        if self._pairing is not None:
            for name, value in _pairing_options(parameters).items():
                setattr(self._pairing, name, value)
        self._worker.limit(
            parameters.history_s, parameters.history_mb * MEGABYTE, parameters.catch_up_s
        )

        def apply() -> None:
            if self._engine is not None:
                self._engine.apply(settings)

        self._worker.call(apply)
        return SetParametersResult(successful=True)

    def _report(self) -> None:
        """Publish how the node fares, and say why no pairs come, where none come."""
        assert self._health is not None
        report = self._health.look(self._worker.skipped)
        images, now = self._images, time.monotonic()
        if images is not None and now >= self._fit_due:
            self._fit_due = now + FIT_PERIOD_S
            self._requests.submit(self._check_fit, self._health, *images)
        engine = self._engine  # the worker may let go of it meanwhile
        device = "" if engine is None else engine.device
        name = self.get_fully_qualified_name().lstrip("/")
        diagnostics = DiagnosticArray(status=statuses(name, report, self._values, device))
        if self._gave_up:
            tracker = diagnostics.status[-1]
            tracker.level, tracker.message = DiagnosticStatus.ERROR, self._gave_up
        diagnostics.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(diagnostics)
        # One message for both cameras: rclpy throttles by the place in the code.
        if silent := report.silence(self._values):
            self.get_logger().warning("; ".join(silent.values()), throttle_duration_sec=REPEAT_S)
        if frozen := report.frozen(self._values):
            self.get_logger().warning("; ".join(frozen.values()), throttle_duration_sec=REPEAT_S)
        if trouble := report.unpaired(self._values):
            self.get_logger().warning(trouble, throttle_duration_sec=REPEAT_S)

    def _give_up(self, error: OutOfMemory) -> None:
        """Deactivate, with a last word in /diagnostics. The worker has let go of the network."""
        if self._engine is not None or not self._cameras:
            return  # somebody else deactivated the node, and may have activated it again
        self._gave_up = (
            f"the node has deactivated itself, for {error.what}: make room, or take smaller "
            f"weights, and activate it again ({error.said})"
        )
        self.get_logger().error(self._gave_up)
        self._report()
        self.trigger_deactivate()

    # Requests, run by their own thread

    def _check_fit(self, health: Health, *images: Any) -> None:
        found = misfit(*images)
        if found is not None:
            health.fits(found)

    def _start(
        self,
        box: Box,
        stamp: int = 0,
        entry: Entry | None = None,
        *,
        normalized: bool = False,
        add: bool = False,
    ) -> tuple[int | None, str]:
        """Start on a target in the pair of `entry`, else of `stamp` (nanoseconds), else in the
        newest. As `_attempt`."""

        def start() -> int:
            self._active_engine()
            try:
                chosen = entry or self._worker.find(stamp or None, PAIR_WAIT_S)
            except LookupError:
                self._active_engine()  # where it was deactivated meanwhile, that is the reason
                raise

            def in_worker() -> int:
                started = self._active_engine().init(
                    chosen.pair, chosen.number, box, normalized=normalized, add=add
                )
                self._worker.resume_from(chosen)
                self._outputs.started(self._header(chosen.pair), chosen.pair, started)
                return started.target_id

            return self._worker.ask(in_worker, SERVICE_TIMEOUT_S)

        return self._attempt("init", start)

    def _reset(self, target_id: int) -> tuple[None, str]:
        """As `_attempt`."""

        def in_worker() -> None:
            self._drop(self._active_engine(), target_id)

        return self._attempt("reset", partial(self._worker.ask, in_worker, SERVICE_TIMEOUT_S))

    def _attempt(self, service: str, action: Callable[[], Result]) -> tuple[Result | None, str]:
        """The action's result and no message, or None and why not, which is logged too."""
        try:
            result = action()
        except (ValueError, LookupError) as error:
            message = str(error)
            self.get_logger().warning(f"{service} refused: {message}")
        except FutureTimeoutError:
            message = f"the tracker did not answer within {SERVICE_TIMEOUT_S:g} s: try again"
            self.get_logger().error(f"{service}: {message}")
        except CancelledError:
            message = "the node is stopping"
        except Exception as error:  # whatever it was, the service answers
            message = f"internal error: {error!r}"
            self.get_logger().error(f"{service}: {traceback.format_exc()}")
        else:
            self.get_logger().info(f"{service}: done")
            return result, ""
        return None, message

    def _active_engine(self) -> Engine:
        """Raises ValueError where the node is not active."""
        if self._engine is None or not self._cameras:
            raise ValueError(self._gave_up or "the node is not active")
        return self._engine

    # Run by the worker

    def _load(self) -> None:
        """Raises ValueError or OSError naming what is wrong."""
        started = time.monotonic()
        self._engine = Engine.load(self._values, self._ids)
        codec = "cv_bridge" if cv_bridge() is not None else "its own codec"
        self.get_logger().info(
            f"loaded {self._values.weights} in {time.monotonic() - started:.1f} s; images are "
            f"decoded by {codec}"
        )

    def _unload(self) -> None:
        """Let go of the network, and so of the GPU, and of all images."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._worker.forget()
        self._images = None
        self._degraded = False

    def _release(self) -> None:
        """Drop the targets, and let go of what they were tracked with."""
        try:
            if self._engine is not None:
                self._drop(self._engine, 0)
        finally:
            self._unload()

    def _drop(self, engine: Engine, target_id: int) -> None:
        """Raises ValueError where there is no such target; 0 drops every one."""
        dropped = engine.reset(target_id)
        newest = self._worker.newest()
        header = Header() if newest is None else self._header(newest.pair)
        self._outputs.event(Event.RESET, header, dict.fromkeys(dropped, 0.0))

    def _handle(self, entry: Entry, again: bool) -> None:
        """Track through a pair and publish what came of it.

        again: for targets alone that were started on an older pair. What tells of the present, or
        of all targets, was published the first time.
        """
        if self._engine is None:
            return  # it came while the node was deactivated
        pair = entry.pair
        queue_ms = (time.monotonic() - entry.arrived) * 1e3
        age_ms = self._age_ms(pair)
        draws = not again and self._outputs.overlay_is_due(self._values.overlay_rate)
        answer = self._engine.process(pair, entry.number, images_wanted=draws)
        if answer is None:
            return
        latency = StageLatency(
            pair_ms=max(age_ms - queue_ms, 0.0),
            queue_ms=queue_ms,
            decode_ms=answer.decode_ms,
        )
        if answer.tracks:
            timing = next(iter(answer.tracks.values())).timing  # the same for all
            latency.preprocess_ms = timing.preprocess_ms
            latency.network_ms = timing.network_ms
            latency.postprocess_ms = timing.postprocess_ms
        latency.total_ms = self._age_ms(pair)
        header = self._header(pair)
        if not again:
            self._say_if_degraded(pair, header)
        size = (0, 0) if answer.images is None else answer.images[0].shape[1::-1]
        self._outputs.tracks(header, pair, size, answer.tracks, latency)
        self._outputs.changed(header, answer.changed)
        remarks = "; ".join(answer.remarks)
        if remarks:
            self.get_logger().warning(remarks, throttle_duration_sec=FAILURE_PERIOD_S)
        if again:
            return
        self._images = None if pair.degraded else answer.images
        self._outputs.detections(header, answer.tracks)
        self._outputs.bearing(
            header,
            size,
            answer.tracks,
            self._camera_info,
            rectified=self._values.rgb_rectified,
        )
        busy_ms = (
            latency.decode_ms + latency.preprocess_ms + latency.network_ms + latency.postprocess_ms
        )
        self._outputs.times(processing_time_ms=busy_ms, pipeline_latency_ms=latency.total_ms)
        if draws and answer.images is not None:
            self._outputs.overlay(
                header,
                pair,
                answer.tracks,
                answer.images,
                self._values.overlay_style,
                self._values.overlay_quality,
            )
        assert self._health is not None
        self._health.answered(answer.tracks, latency.total_ms, remarks)

    def _header(self, pair: Pair) -> Header:
        """Of the RGB image, or as it would have been."""
        if pair.rgb is not None:
            header: Header = pair.rgb.header
            return header
        stamp = min(max(pair.rgb_stamp, 0), LAST_NS)  # the offset may take it beyond
        return Header(stamp=Time(nanoseconds=stamp).to_msg(), frame_id=self._rgb_frame)

    def _say_if_degraded(self, pair: Pair, header: Header) -> None:
        """Where a camera has fallen silent, or has come back, since the last pair."""
        degraded = pair.degraded
        if degraded == self._degraded:
            return
        self._degraded = degraded
        self._outputs.event(Event.DEGRADED if degraded else Event.RESTORED, header, {0: 0.0})
        if degraded:
            rgb, thermal = self._topics
            silent, other = (rgb, thermal) if pair.rgb is None else (thermal, rgb)
            self.get_logger().warning(
                f"DEGRADED: no new image on {silent} for {self._values.degraded_after:g} s; "
                f"tracking goes on with {other} alone"
            )
        else:
            self.get_logger().info("both cameras deliver again")

    def _age_ms(self, pair: Pair) -> float:
        """From the RGB image's stamp to now; 0 where it was stamped by another clock."""
        age_s = self.get_clock().now().nanoseconds / 1e9 - pair.rgb_stamp / 1e9
        return age_s * 1e3 if 0 <= age_s <= OLDEST_CLOCK_S else 0.0

    def _on_failure(self, error: Exception) -> None:
        """A pair could not be tracked through; the node goes on with the next, unless the memory
        does not hold the network."""
        if interrupted(error) or not self.context.ok():
            return  # a signal came while it was tracked
        if isinstance(error, ValueError):
            text = more = f"a pair of images was left out: {error}"
        else:
            text = f"a pair was left out: {type(error).__name__}: {in_one_line(error)}"
            more = text + "\n" + "".join(traceback.format_exception(error))
        assert self._health is not None
        self._health.failed(text)
        if isinstance(error, OutOfMemory):
            self._release()  # at once, and before another pair is tried
            self.executor.create_task(self._give_up, error)
        else:
            self.get_logger().error(more, throttle_duration_sec=FAILURE_PERIOD_S)


def _pairing_options(parameters: TrackerParameters) -> dict[str, int]:
    """Of `NearestTime`, whose attributes they are too."""
    return {
        "slop_ns": round(parameters.slop * 1e9),
        "queue_size": parameters.queue_size,
        "offset_ns": round(parameters.thermal_offset * 1e9),
        "alone_ns": round(parameters.degraded_after * 1e9),
    }


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until Ctrl-C or SIGTERM, and end the process with its exit status."""
    status = 0
    with ros(args):
        node: TrackerNode | None = None
        try:
            node = TrackerNode()
            status = 0 if node.run() else 1
        except (ValueError, OSError) as error:
            get_logger("ainet").fatal(str(error))
            status = 1
        finally:
            ignore_interrupts()
            if node is not None:
                node.close()
                node.destroy_node()  # which rclpy leaves to us where a signal ended the context
    # All is closed. On a small or busy computer the interpreter would need seconds to take torch
    # down.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
