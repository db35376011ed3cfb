# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The beginning and the end of a node's process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import rclpy
from ament_index_python.packages import get_package_share_path
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import NotInitializedException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from ainet_ros.tracker.device import keep_large_buffers

PACKAGE = Path(__file__).parents[1]
FAST_DDS_2 = ("humble", "jazzy")
"""Distributions whose Fast DDS reads FASTRTPS_DEFAULT_PROFILES_FILE."""
FOLLOW_PERIOD_S = 0.1
DDS_SETTINGS = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)


@contextlib.contextmanager
def ros(args: list[str] | None) -> Iterator[None]:
    """ROS from its start to its end; Ctrl-C and SIGTERM end the block without an error.

    Fast DDS gets config/fastdds.xml where the environment names no settings of its own, but for
    ROS_LOCALHOST_ONLY: on Humble that adds a transport to those of the file, which stay open to
    the network.
    """
    keep_large_buffers()
    own = any(os.environ.get(name) for name in DDS_SETTINGS)
    if not own and os.environ.get("ROS_LOCALHOST_ONLY") != "1":
        library = "FASTRTPS" if os.environ.get("ROS_DISTRO") in FAST_DDS_2 else "FASTDDS"
        profiles = get_package_share_path("ainet_ros") / "config" / "fastdds.xml"
        os.environ[f"{library}_DEFAULT_PROFILES_FILE"] = str(profiles)
    rclpy.init(args=args)
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (RCLError, NotInitializedException):
        if rclpy.ok():  # else: a signal came while something was created or published
            raise
    except TypeError as error:
        if not interrupted(error):
            raise
    finally:
        ignore_interrupts()
        rclpy.try_shutdown()
        ignore_interrupts()  # the shutdown has put the former handler back


def spin(node: Node, follow: Callable[[], None]) -> None:
    """Run a node's callbacks in this thread until the context is shut down.

    follow: called between two of them, every FOLLOW_PERIOD_S. What makes and destroys
    subscriptions belongs there: executors do not bear that another thread does.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    due = 0.0
    while rclpy.ok():
        spin_once(node, executor, FOLLOW_PERIOD_S)
        if time.monotonic() >= due:
            due = time.monotonic() + FOLLOW_PERIOD_S
            follow()


def spin_once(node: Node, executor: Executor, timeout_s: float) -> None:
    """Run the next of a node's callbacks.

    What rclpy itself does not bear, as a parameter of a type that there is none of, is logged, and
    has no answer.
    """
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except (ExternalShutdownException, RCLError, NotInitializedException):
        raise
    except Exception as error:
        if interrupted(error):
            raise
        if not rclpy.ok():  # a signal came meanwhile
            return
        callbacks = traceback.extract_tb(error.__traceback__)[1:]
        ours = any(PACKAGE in Path(frame.filename).parents for frame in callbacks)
        rclpys = isinstance(error, ValueError) and not ours
        text = f"a request was left out: {error}" if rclpys else traceback.format_exc()
        node.get_logger().error(text, throttle_duration_sec=1.0)


def interrupted(error: Exception) -> bool:
    """Whether Ctrl-C came while rclpy turned a message into Python's or back, which makes a
    TypeError of it."""
    return isinstance(error.__cause__, KeyboardInterrupt)


def ignore_interrupts() -> None:
    """From here on the process ends by itself.

    Ctrl-C reaches a launched node twice, from the terminal and from launch; the second would fall
    into the clean-up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
