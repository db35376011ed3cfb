# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet doctor`."""

import importlib.util
import sys

import pytest

from ainet_ros.cli import doctor, main
from ainet_ros.tracker import weights


def lines(capsys):
    """By what was looked for: the mark and the rest."""
    found = {}
    for line in capsys.readouterr().out.splitlines():
        found[line[8:30].strip()] = (line[:8].strip(), line[30:])
    return found


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "LISTEN_S", 0.5)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def test_doctor_finds_this_installation_fit(quick, capsys):
    assert main(["doctor"]) == 0
    found = lines(capsys)
    assert found["Python"] == ("ok", sys.version.split()[0])
    assert found["scan for the CPU"] == ("ok", "compiled")
    mark, text = found["weights"]
    assert mark == "ok"
    assert f"{weights.DEFAULT}.safetensors" in text
    if importlib.util.find_spec("rclpy"):
        assert found["ainet_ros.msg"][0] == "ok"
        assert "start the drivers" in found["cameras"][1]


def test_doctor_names_what_is_missing_and_the_remedy(quick, monkeypatch, capsys):
    monkeypatch.setattr(weights, "DEFAULT", "no_such")
    for module in ("rclpy", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["doctor"]) == 1
    found = lines(capsys)
    assert found["weights"][0] == "MISSING"
    assert "no weights called 'no_such'" in found["weights"][1]
    assert found["onnxruntime"] == ("-", "to track with .onnx files: pip install onnxruntime")
    assert found["rclpy"][0] == "-"
    assert "cameras" not in found


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({"ROS_DOMAIN_ID": "abc"}, "ROS_DOMAIN_ID must be a number"),
        (
            {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"},
            "ROS_SECURITY_KEYSTORE and ROS_SECURITY_ENCLAVE_OVERRIDE must name",
        ),
    ],
)
def test_doctor_says_why_no_node_starts(quick, monkeypatch, capsys, variables, remedy):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    monkeypatch.delenv("ROS_SECURITY_KEYSTORE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    mark, text = lines(capsys)["ROS node"]
    assert mark == "MISSING"
    assert "failed to initialize" in text
    assert remedy in text


def test_doctor_finds_cameras_and_takes_no_overlay_for_one(quick, monkeypatch, capsys, tmp_path):
    ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")
    monkeypatch.setattr(doctor, "LISTEN_S", 3.0)
    with ros_nodes.client(tmp_path) as client:
        client.node.create_publisher(ros_nodes.Image, "ainet/overlay", 1)
        monkeypatch.setenv("ROS_DOMAIN_ID", str(client.domain))
        assert main(["doctor"]) == 0
    found = lines(capsys)["cameras"]
    assert found == ("ok", "publishers of /rgb/image_raw, /thermal/image_raw")
