# SPDX-License-Identifier: Apache-2.0
"""Training as the paper does it, and data to train on."""
