#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Most benchmarks of docs/performance.md, some with other repeats than there, one after the other, and
# their results as JSON in the folder $1. Not here: training, for which it takes recordings; what was
# compared by hand, as ONNX. Leave the machine alone meanwhile.
set -euo pipefail
out=$1
mkdir -p "$out"

run() { # name of the result, arguments of `ainet bench`
    local name=$1
    shift
    echo
    echo "== ainet bench $*"
    ainet bench "$@" --json "$out/$name.json"
}

run limit limit --repeats 15
run scan scan --repeats 9
run network_base_256 network base_256 --repeats 5
for name in nano small; do
    run "network_$name" network "$name" --precision bfloat16 --repeats 15
    for precision in auto int8; do
        run "track_${name}_$precision" track --weights "$name" --precision $precision --repeats 30
    done
done
for name in nano small; do
    run "precision_$name" precision "$name" --repeats 15
done
run growth network base_256 --growth "$out/growth.png" --repeats 3
for name in nano small; do
    run "node_$name" node --weights "$name"
done
run overload node --weights nano --size 640x480 --overload 600
