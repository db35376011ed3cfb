# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Put what `make setup` made on the path of a shell, bash or zsh: source env.sh

if [ -n "${ZSH_VERSION:-}" ]; then
    _ainet_shell=zsh
    _ainet_root="$(cd "$(dirname "${(%):-%x}")" && pwd)"
else
    _ainet_shell=bash
    _ainet_root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
fi

if [ ! -e "$_ainet_root/.venv/bin/activate" ]; then
    echo "env.sh: there is no $_ainet_root/.venv: run 'make setup' first" >&2
    return 1
fi
. "$_ainet_root/.venv/bin/activate"

if [ -e "$VIRTUAL_ENV/share/ament_index" ]; then
    # ROS 2 comes from wheels: the venv is its prefix. The wheels' start-up hook knows where
    # their libraries lie, and runs each Python twice unless it is told that they are found.
    # Nothing of another ROS or checkout may come before what is here.
    unset ROS_DISTRO PYTHONPATH
    export AMENT_PREFIX_PATH="$VIRTUAL_ENV" CMAKE_PREFIX_PATH="$VIRTUAL_ENV"
    [ -z "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ] || unset LD_LIBRARY_PATH
    _ainet_libraries="$(env -u LD_LIBRARY_PATH -u _ROS_WHEELS_BOOTSTRAP_COMPLETE \
        python -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')"
    export LD_LIBRARY_PATH="$_ainet_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
elif [ -z "${ROS_DISTRO:-}" ]; then
    echo "env.sh: .venv was made for a ROS 2 distribution: source its setup file first" >&2
    return 1
fi

if [ -e "$_ainet_root/install/local_setup.$_ainet_shell" ]; then
    . "$_ainet_root/install/local_setup.$_ainet_shell"
fi
unset _ainet_root _ainet_shell _ainet_libraries
