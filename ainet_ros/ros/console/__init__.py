# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The operator's web page: `node` is its ROS side, `server` its web side, `page` what browsers
get."""
