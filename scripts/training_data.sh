#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Makes in OUT what the shipped weights are trained on: links to the recordings in DATA, persons of
# the clips with the boxes of config/train/labels, and generated recordings. What is there stays.
#   scripts/training_data.sh DATA OUT
set -euo pipefail
[ $# = 2 ] && [ -d "$1" ] || { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
labels=$(cd "$(dirname "$0")/../config/train/labels" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2"
cd "$2"

for part in flir_crops.zip ir_video rgb_video rgbt_clips rgbt_stills rgbt_video; do
    [ -e "$data/$part" ] || { echo "no $data/$part" >&2; exit 1; }
    ln -sfn "$data/$part" "$part"
done
for boxes in "$labels"/*.txt; do
    name=$(basename "$boxes" .txt)
    person=rgbt_people/$name
    mkdir -p "$person"
    for stream in visible infrared; do
        ln -sfn "$data/rgbt_clips/${name%-*}/$stream" "$person/$stream"
        cp "$boxes" "$person/$stream.txt"
    done
    # The frames before the target comes are no start.
    grep -v nan "$boxes" | head -n 1 > "$person/init.txt"
done
ainet scenes scenes --seed 10000 --count 120 --frames 120 --workers "$(nproc)"
