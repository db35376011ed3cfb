# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""``python -m ainet_ros.ros.console`` runs the node."""

from .node import main

main()
