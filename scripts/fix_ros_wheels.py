# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Point the CMake files of the ROS wheels in this venv at this machine's Python and NumPy.

The wheels name the include folders of the machine that built them, and CMake refuses a target
whose include folder does not exist. Run it with the Python of the venv.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILDER = r"/opt/(?:_internal|python)/[^;\"]*"
FOLDERS = {
    re.compile(BUILDER + r"/include/python3\.\d+"): sysconfig.get_paths()["include"],
    re.compile(BUILDER + r"/numpy/(?:_core|core)/include"): numpy.get_include(),
}


def main() -> None:
    rewritten = 0
    for path in Path(sys.prefix, "share").glob("**/*.cmake"):
        before = path.read_text()
        after = before
        for pattern, folder in FOLDERS.items():
            after = pattern.sub(folder, after)
        if after != before:
            path.write_text(after)
            rewritten += 1
    print(f"include folders corrected in {rewritten} files of the ROS wheels")


if __name__ == "__main__":
    main()
