#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Build the ROS 2 package into build/ and install/. `make setup` calls it in the repository's folder.
set -eo pipefail
. ./env.sh

# Python files, launch files, configuration and weights are linked, so an edit needs no new build.
echo "make setup: building the messages and nodes into install/, half a minute the first time"
colcon build --paths . --merge-install --symlink-install
find install -xtype l -delete # links to files that are gone
