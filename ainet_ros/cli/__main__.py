# SPDX-License-Identifier: Apache-2.0
"""`python -m ainet_ros.cli`: the `ainet` command where it is not installed."""

import sys

from . import main

sys.exit(main())
