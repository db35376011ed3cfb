# SPDX-License-Identifier: Apache-2.0
"""One-pass evaluation: a tracker over sequences with true boxes, and the benchmarks' metrics."""
