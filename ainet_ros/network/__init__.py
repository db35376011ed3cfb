# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""AINet as published: tensors in, tensors out. No ROS, no files, no OpenCV."""

from .config import PRESETS, AINetConfig
from .model import AINet, Output, create

__all__ = ["PRESETS", "AINet", "AINetConfig", "Output", "create"]
