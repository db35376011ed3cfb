# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`python -m ainet_ros.cli`: the `ainet` command where it is not installed."""

import sys

from . import main

sys.exit(main())
