# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Image helpers around the tracker: sources, thermal tone mapping, registration, drawing."""
