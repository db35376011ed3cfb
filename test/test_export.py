# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The network as an ONNX file, in ONNX Runtime and in the tracker."""

import json
import sys

import cv2
import numpy as np
import onnx
import pytest
from networks import tiny

from ainet_ros import cli
from ainet_ros.tracker import Tracker, weights
from ainet_ros.tracker.device import out_of_memory
from ainet_ros.tracker.onnx import export
from ainet_ros.vision.scenes import Scene

BOXES = [(100.0, 80.0, 40.0, 30.0), (200.0, 60.0, 25.0, 60.0)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    network = tiny(depth=2, interaction_layers=(0, 1))
    weights.save(network, folder / "tiny.safetensors")
    assert cli.main(["export", str(folder / "tiny.safetensors"), str(folder / "tiny.onnx")]) == 0
    return folder


def pairs(count):
    rng = np.random.default_rng(3)
    for _ in range(count):
        rgb = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (320, 240))
        yield rgb, np.ascontiguousarray(rgb[..., 1])


def test_onnx_runtime_s_lack_of_memory_is_one(files, monkeypatch):
    class Session:
        def run(self, *arguments):
            raise Exception("Failed to allocate memory for requested buffer of size 9")

    tracker = Tracker.load(files / "tiny.onnx")
    (first,) = pairs(1)
    monkeypatch.setattr(tracker.network, "_session", Session())
    tracker.init(*first, BOXES[0])
    with pytest.raises(RuntimeError) as error:
        tracker.track(*first)
    assert out_of_memory(error.value)


def test_onnx_tracks_as_torch_does(files):
    trackers = [
        Tracker.load(files / "tiny.safetensors", precision="float32"),
        Tracker.load(files / "tiny.onnx"),
    ]
    answers = []
    for tracker in trackers:
        tracker.set_thresholds(0.0, 0.0)
        first, *others = pairs(4)
        targets = [tracker.start(*first, box) for box in BOXES]
        answers.append([track for pair in others for track in tracker.advance(*pair, targets)])
    for track, wanted in zip(*answers, strict=True):
        assert track.box == pytest.approx(wanted.box, abs=1e-2)
        assert track.score == pytest.approx(wanted.score, abs=1e-4)


def test_evaluate_runs_a_file_and_reports_what_it_tells(files, tmp_path, capsys):
    Scene(4, frames=4, size=(160, 120)).write(tmp_path / "held" / "scene_4")
    rows = {}
    for name in ("tiny.onnx", "tiny.safetensors"):
        out = tmp_path / name
        options = ["--weights", str(files / name), "--report", str(out), "--json"]
        precision = [] if name.endswith("onnx") else ["--precision", "float32"]
        assert cli.main(["evaluate", str(tmp_path / "held"), *options, *precision]) == 0
        rows[name] = json.loads(capsys.readouterr().out)["mean"]
        # How large the network is, a file does not tell.
        assert ("MACs" in (out / "report.md").read_text()) is bool(precision)
    onnx_row, torch_row = rows.values()
    assert onnx_row["frames"] == 4
    assert onnx_row["auc"] == pytest.approx(torch_row["auc"], abs=1e-3)


def test_file_has_operations_of_the_standard_only(files):
    model = onnx.load(files / "tiny.onnx")
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    assert [value.name for value in model.graph.input] == ["template", "template_box", "search"]


def test_what_is_no_export_is_refused(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ONNX file .*absent\.onnx"):
        Tracker.load(tmp_path / "absent.onnx")
    whole = (files / "tiny.onnx").read_bytes()
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"damaged\.onnx is no ONNX file, or is damaged"):
        Tracker.load(damaged)
    foreign = onnx.load(files / "tiny.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="was not written by `ainet export`"):
        Tracker.load(tmp_path / "foreign.onnx")
    for options in ({"precision": "int8"}, {"compile": True}):
        with pytest.raises(ValueError, match="leave precision at auto and compile off"):
            Tracker.load(files / "tiny.onnx", **options)


def test_command_says_what_is_wrong(files, tmp_path, capsys):
    assert cli.main(["export", str(files / "tiny.safetensors"), str(tmp_path / "x.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
    assert cli.main(["export", "nothing", str(tmp_path / "x.onnx")]) == 2
    assert "no weights called 'nothing'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_remedy_is_said(monkeypatch, files, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="pip install onnx onnxscript"):
        export(tiny(depth=1, interaction_layers=(0,)), tmp_path / "x.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="pip install onnxruntime"):
        Tracker.load(files / "tiny.onnx")
