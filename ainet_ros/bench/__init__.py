# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Measurements of speed and memory, behind `ainet bench`."""
