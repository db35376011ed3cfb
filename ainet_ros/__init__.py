# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""AINet, an RGB-T object tracker, and its ROS 2 node.

This module imports nothing heavy: ROS tools import it to find ``ainet_ros.msg`` and
``ainet_ros.srv``, on machines without torch too.
"""

from __future__ import annotations

import importlib.metadata
import pkgutil

# The generated messages lie in the install tree and this file may lie in the source tree:
# one package spans both.
__path__ = pkgutil.extend_path(__path__, __name__)


def __getattr__(name: str) -> str:
    if name == "__version__":  # package.xml's, from the metadata that colcon or pip installed
        return importlib.metadata.version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
