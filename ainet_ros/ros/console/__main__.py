# SPDX-License-Identifier: Apache-2.0
"""``python -m ainet_ros.ros.console`` runs the node."""

from .node import main

main()
