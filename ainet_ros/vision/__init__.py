# SPDX-License-Identifier: Apache-2.0
"""Image helpers around the tracker: sources, thermal tone mapping, registration, drawing."""
