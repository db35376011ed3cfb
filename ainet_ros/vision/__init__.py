# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Image helpers around the tracker: sources, thermal tone mapping, registration, drawing."""

RGB_TOPIC = "rgb/image_raw"
THERMAL_TOPIC = "thermal/image_raw"
"""The topics of a bag's images where nobody names others."""
