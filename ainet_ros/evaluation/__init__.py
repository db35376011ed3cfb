# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""One-pass evaluation: a tracker over sequences with true boxes, and the benchmarks' metrics."""
