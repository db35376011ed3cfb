# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The ROS 2 nodes."""

import os

# PyTorch's threads wait for one another busily, by default for milliseconds, and so take the
# processor from the cameras and from the thread that receives their images. OpenMP reads this when
# torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
