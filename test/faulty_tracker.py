# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The tracker's node with a network that fails on request, for test_faults.py.

The first argument is a file; each run of the network takes its first line: nothing, `memory`
(more is asked for than there is), `nan`, or the text of an exception. What follows are the node's
arguments.
"""

import os
import sys
from pathlib import Path

import torch

from ainet_ros.network import AINet
from ainet_ros.ros import tracker_node
from ainet_ros.tracker import weights

FAULTS = Path(sys.argv.pop(1))
MORE_THAN_THERE_IS = 1 << 60
match, load = AINet.match, weights.load


def next_fault():
    first, _, rest = FAULTS.read_text().partition("\n")
    if first:
        beside = FAULTS.with_suffix(".next")
        beside.write_text(rest)
        os.replace(beside, FAULTS)
    return first


def faulty_match(self, template, search):
    fault = next_fault()
    if fault == "memory":
        torch.empty(MORE_THAN_THERE_IS, dtype=torch.uint8)
    if fault == "nan":
        output = match(self, template, search)
        return output._replace(score_map=torch.full_like(output.score_map, float("nan")))
    if fault:
        raise RuntimeError(fault)
    return match(self, template, search)


def announced_load(*arguments):
    print("loading weights", flush=True)
    return load(*arguments)


AINet.match = faulty_match
weights.load = announced_load
tracker_node.main()
