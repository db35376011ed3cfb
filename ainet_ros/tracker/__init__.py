# SPDX-License-Identifier: Apache-2.0
"""One target's state around a network, and the weights that the network comes from."""

from .crop import Box, Window
from .tracker import State, Timing, Track, Tracker

__all__ = ["Box", "State", "Timing", "Track", "Tracker", "Window"]
