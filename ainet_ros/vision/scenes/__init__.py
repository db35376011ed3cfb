# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Generated RGB-T recordings of a street, for demonstration, tests and held-out evaluation."""

from ainet_ros.vision.scenes.collection import write_collection
from ainet_ros.vision.scenes.scene import ATTRIBUTES, DEFAULT_ATTRIBUTES, Scene

__all__ = ["ATTRIBUTES", "DEFAULT_ATTRIBUTES", "Scene", "write_collection"]
