# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A bag of a tracked run, written without ROS."""

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from ainet_ros.vision.bag import typestore

SECOND = 10**9


def write_run(path, frames, box, *, storage=StoragePlugin.MCAP, trackers=("/ainet",)):
    """Pairs of the seconds 1, 2, ...: on the first each tracker starts target 1, with `box`, and
    answers the others with the same.
    """
    types = typestore()
    make = types.types
    Box, Time = make["ainet_ros/msg/Box"], make["builtin_interfaces/msg/Time"]
    here, none = Box(*map(float, box)), Box(0.0, 0.0, 0.0, 0.0)
    latency = make["ainet_ros/msg/StageLatency"](*[0.0] * 7)
    with Writer(path, version=8, storage_plugin=storage) as bag:
        topics = {}

        def write(topic, kind, second, *values):
            if topic not in topics:
                topics[topic] = bag.add_connection(topic, kind, typestore=types)
            header = make["std_msgs/msg/Header"](Time(second, 0), "camera")
            data = types.serialize_cdr(make[kind](header, *values), kind)
            bag.write(topics[topic], second * SECOND, data)

        for second, frame in enumerate(frames, 1):
            for name, encoding, image in (
                ("rgb", "rgb8", frame.rgb),
                ("thermal", "mono8", frame.thermal),
            ):
                size, data = image.shape[:2], np.ascontiguousarray(image).ravel()
                write(f"/{name}/image_raw", "sensor_msgs/msg/Image", second, *size, encoding, 0,
                      data.size // size[0], data)  # fmt: skip
            stamp = Time(second, 0)
            for tracker in trackers:
                if second == 1:
                    write(f"{tracker}/events", "ainet_ros/msg/Event", second, 1, 1, 0.0, stamp,
                          False, here)  # fmt: skip
                else:
                    write(f"{tracker}/track", "ainet_ros/msg/Track", second, stamp, False, 1, 1,
                          0.5, here, none, latency)  # fmt: skip
