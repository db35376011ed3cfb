# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# ruff: noqa: E402 - without ROS the rest is not imported
"""Nodes in processes of their own, and a client of them, for the tests."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")

from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ainet_ros import network
from ainet_ros.msg import Box, Track
from ainet_ros.ros.images import to_image
from ainet_ros.srv import InitTarget, ResetTarget
from ainet_ros.tracker import weights
from ainet_ros.vision.encoding import stamp_ns

# Nothing leaves this machine, and each client has a domain of its own.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":  # which does not know the former
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
_domains = itertools.count(os.getpid() * 7)
PATIENCE_S = 60.0
"""A small computer under load starts a node in tens of seconds."""


def new_environment(domain=None):
    """Variables of a process in a ROS domain, by default in a new one."""
    return {**os.environ, "ROS_DOMAIN_ID": str(new_domain() if domain is None else domain)}


def new_domain():
    return 1 + next(_domains) % 100


def save_tiny_weights(path):
    """Weights of a network so small that the tests are quick; what it finds means nothing."""
    import torch

    torch.manual_seed(0)
    net = network.create(
        "small",
        template_size=56,
        search_size=112,
        channels=32,
        heads=2,
        depth=2,
        interaction_layers=(0, 1),
        dt_rank=4,
        d_state=4,
        head_channels=16,
        ofm_tokens="search",
        order_pool=16,
        order_widths=(16, 8, 8),
    )
    weights.save(net.eval(), path)
    return str(path)


class Process:
    """A node's process and what it logs."""

    def __init__(self, command, log, domain):
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=new_environment(domain),
            )

    @property
    def pid(self):
        return self._process.pid

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for_log(self, text):
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.text():
            assert self._process.poll() is None, f"the node ended:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {text!r} in the log:\n{self.text()}"
            time.sleep(0.05)

    def mapped(self):
        """What the process has in its memory: lines that end with a file's path."""
        return Path("/proc", str(self._process.pid), "maps").read_text()

    def wait_for_library(self, name):
        """Until the process has loaded it."""
        deadline = time.monotonic() + PATIENCE_S
        while name not in self.mapped():
            assert self._process.poll() is None, f"the process ended:\n{self.text()}"
            assert time.monotonic() < deadline, f"{name} was not loaded:\n{self.text()}"
            time.sleep(0.01)

    def memory_mib(self):
        """Resident."""
        status = Path("/proc", str(self._process.pid), "status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def send(self, number):
        self._process.send_signal(number)

    def alive(self):
        return self._process.poll() is None

    def wait(self, timeout_s=PATIENCE_S):
        """The exit status."""
        return self._process.wait(timeout_s)

    def end(self):
        if self.alive():
            self.send(signal.SIGINT)
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self.wait()


class Client:
    """A node of the test: a camera, an operator and a listener in one."""

    def __init__(self, folder, domain=None):
        self._folder = folder
        self.domain = new_domain() if domain is None else domain
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node("client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.processes = []
        self.tracks = []
        self.node.create_subscription(Track, "ainet/track", self.tracks.append, 100)
        self.rgb = self.node.create_publisher(Image, "rgb/image_raw", 10)
        self.thermal = self.node.create_publisher(Image, "thermal/image_raw", 10)
        self._clients = {}

    def close(self):
        for process in self.processes:
            process.end()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def start(self, module, parameters, *ros_arguments):
        """Start a node as a process."""
        command = [sys.executable, "-m", f"ainet_ros.ros.{module}"]
        return self.run([*command, *arguments(parameters), *ros_arguments])

    def run(self, command):
        log = self._folder / f"{len(self.processes)}.log"
        process = Process(command, log, self.domain)
        self.processes.append(process)
        return process

    def start_tracker(self, weights_file, **parameters):
        """Start the tracker and wait until it hears this client's camera."""
        process = self.start("tracker_node", {"weights": weights_file, **parameters})
        process.wait_for_log("ready:")
        self.wait_for_listener()
        return process

    def wait_for_listener(self):
        """Wait until a tracker that is ready hears this client's camera."""
        self.spin_until(lambda: self.hears(self.rgb) and self.hears(self.thermal), "discovery")
        # The tracker may find the cameras a little later than they find it, and nothing tells.
        self.spin_for(0.3)

    @staticmethod
    def hears(publisher):
        return publisher.get_subscription_count() > 0

    def spin_until(self, condition, what, timeout_s=PATIENCE_S):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self._story(what)
            self._executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _story(self, what):
        logs = "\n".join(process.text()[-2000:] for process in self.processes)
        return f"no {what}\n{logs}"

    def call(self, service_type, name, request):
        """A service's answer."""
        return self.result(self.request(service_type, name, request))

    def request(self, service_type, name, request):
        """The future of a service's answer."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(service_type, name)
            self.spin_until(client.service_is_ready, name)
            # The service may find the client a little later, and an answer meanwhile is lost.
            self.spin_for(0.1)
        self.spin_until(client.service_is_ready, name)
        return client.call_async(request)

    def result(self, future):
        self.spin_until(future.done, "answer of a service")
        return future.result()

    def init(self, box, stamp=None, **options):
        return self.result(self.request_init(box, stamp, **options))

    def request_init(self, box, stamp=None, **options):
        x, y, width, height = (float(value) for value in box)
        request = InitTarget.Request(box=Box(x=x, y=y, width=width, height=height), **options)
        if stamp is not None:
            request.stamp = stamp
        return self.request(InitTarget, "ainet/init", request)

    def reset(self, target_id=0):
        return self.call(ResetTarget, "ainet/reset", ResetTarget.Request(target_id=target_id))

    def set_parameter(self, node, **values):
        changes = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=changes)
        return self.call(SetParameters, f"{node}/set_parameters", request).results

    def get_parameter(self, node, name):
        request = GetParameters.Request(names=[name])
        answer = self.call(GetParameters, f"{node}/get_parameters", request)
        return parameter_value_to_python(answer.values[0])

    def now(self):
        return self.node.get_clock().now().to_msg()

    def publish(self, rgb, thermal, stamp=None):
        """Publish a pair of images, or of arrays (RGB), stamped now; return the RGB header.

        None leaves a camera's image out.
        """
        stamp = stamp or self.now()
        for publisher, image, frame, kinds in (
            (self.rgb, rgb, "rgb_frame", {3: "bgr8"}),
            (self.thermal, thermal, "thermal_frame", {2: "mono8", 3: "rgb8"}),
        ):
            if image is None:
                continue
            if isinstance(image, np.ndarray):
                kind = "mono16" if image.dtype == np.uint16 else kinds[image.ndim]
                image = to_image(image, kind, Header())
            image.header = Header(stamp=stamp, frame_id=frame)
            publisher.publish(image)
        return Header(stamp=stamp, frame_id="rgb_frame")

    def answer(self, header):
        """The first answer to the pair with this RGB header."""
        self.spin_until(lambda: self.answers(header), f"answer to {header.stamp}")
        return self.answers(header)[0]

    def answers(self, header):
        stamp = stamp_ns(header.stamp)
        return [track for track in self.tracks if stamp_ns(track.header.stamp) == stamp]

    def track(self, rgb, thermal):
        """Publish a pair and return its answer."""
        return self.answer(self.publish(rgb, thermal))


def arguments(parameters):
    """Of a node's command."""
    settings = [f"{name}:={_yaml(value)}" for name, value in parameters.items()]
    return ["--ros-args", *(part for setting in settings for part in ("-p", setting))]


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def client(folder):
    """A client with a domain of its own, whose processes end with it."""
    one = Client(folder)
    try:
        yield one
    finally:
        one.close()


def moving_scene(count, size=(120, 160), seed=0):
    """Pairs (rgb, thermal) of a noisy ground with a square that moves, and its boxes."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 120, (*size, 3), dtype=np.uint8)
    heat = random.integers(0, 60, size, dtype=np.uint8)
    pairs, boxes = [], []
    for index in range(count):
        x, y, side = 30 + 2 * index, 40 + index, 24
        rgb, thermal = ground.copy(), heat.copy()
        rgb[y : y + side, x : x + side] = (200, 60, 30)
        thermal[y : y + side, x : x + side] = 220
        pairs.append((rgb, thermal))
        boxes.append((float(x), float(y), float(side), float(side)))
    return pairs, boxes
