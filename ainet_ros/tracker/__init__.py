# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A target's state around a network, and the weights that the network comes from."""

from .crop import Box, Window
from .tracker import State, Target, Timing, Track, Tracker

__all__ = ["Box", "State", "Target", "Timing", "Track", "Tracker", "Window"]
