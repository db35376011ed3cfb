# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The tables of parameters, and the file made from one."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from ainet_ros.ros.parameters import NODES, TrackerParameters
from ainet_ros.ros.table import describe, to_markdown, to_yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("path", "form"),
    [("config/tracker.yaml", to_yaml), ("docs/parameters.md", to_markdown)],
    ids=["yaml", "markdown"],
)
def test_committed_files_are_the_table_s(path, form, request):
    committed = (ROOT / path).read_text(encoding="utf-8")
    assert committed == form(NODES), (
        f"write it anew: python -m ainet_ros.ros.parameters {request.node.callspec.id} > {path}"
    )


def test_file_holds_every_parameter_at_its_default():
    nodes = yaml.safe_load(to_yaml(NODES))
    assert set(nodes) == {f"/**/{name}" for name in NODES}
    for name, table in NODES.items():
        entries = nodes[f"/**/{name}"]["ros__parameters"]
        assert entries == dataclasses.asdict(table())
        assert table(**entries) == table()


def test_every_parameter_is_described():
    for table in NODES.values():
        for name, description in describe(table).items():
            assert description.text.endswith("."), name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"slop": -0.1}, r"slop: -0.1 is outside 0 to 10 s"),
        ({"slop": float("nan")}, "slop"),
        ({"queue_size": 0}, "queue_size"),
        ({"rgb_transport": "theora"}, "rgb_transport: 'theora' is none of raw, compressed"),
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"tone_percentile_low": 99.5}, "tone_percentile_high"),
        ({"tone_fixed_low": 65535.0}, "tone_fixed_high"),
        ({"lost_below": 0.5, "found_above": 0.4}, "found_above"),
        ({"lost_below": -0.3}, "lost_below"),
        ({"registration": "homography"}, "calibration_file"),
        ({"overlay_quality": 101}, "overlay_quality"),
    ],
)
def test_a_wrong_value_is_named(changes, text):
    with pytest.raises(ValueError, match=text):
        TrackerParameters(**changes)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device):
    assert TrackerParameters(device=device).device == device
