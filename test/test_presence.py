# SPDX-License-Identifier: Apache-2.0
"""The score with and without the target: what is cut out, what is asked, the area it gives."""

import json

import numpy as np
import pytest
from networks import tiny

from ainet_ros.cli import main
from ainet_ros.evaluation.presence import Scores, cut_out, scores
from ainet_ros.tracker import Tracker, weights
from ainet_ros.vision.benchmarks import open_benchmark
from ainet_ros.vision.scenes import Scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presence") / "scene_2"
    Scene(2, frames=7, attributes=()).write(folder)
    return folder


def test_area_is_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    present, absent = rng.random(40).round(1), rng.random(40).round(1)
    pairs = [(p > a) + (p == a) / 2 for p in present for a in absent]
    assert Scores(present, absent).auroc == pytest.approx(np.mean(pairs))
    assert Scores(absent + 2, absent).auroc == 1
    assert Scores(absent, absent).auroc == pytest.approx(0.5)
    assert np.isnan(Scores(np.array([]), np.array([])).auroc)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("box", [(40, 30, 20, 25), (-5, -5, 30, 30), (90, 70, 40, 40)])
def test_target_is_replaced_by_what_is_around_it(channels, box):
    ramp = np.linspace(60, 160, 120)[None, :].repeat(90, axis=0)
    background = np.ascontiguousarray(
        np.broadcast_to(ramp.reshape(90, 120, *(1 for _ in channels)), (90, 120, *channels))
    ).astype(np.uint8)
    image = background.copy()
    x, y, w, h = box
    image[max(y, 0) : y + h, max(x, 0) : x + w] = 255
    before = image.copy()
    filled = cut_out(image, box)
    assert np.array_equal(image, before)
    assert filled.shape == image.shape
    assert np.abs(filled.astype(int) - background).max() < 30
    changed = np.argwhere((filled != image).reshape(90, 120, -1).any(axis=2))
    margin = 0.1 * np.array([h, w]) + 1
    assert (changed >= np.array([y, x]) - margin).all()
    assert (changed <= np.array([y + h, x + w]) + margin).all()


def test_box_outside_leaves_the_image():
    image = np.full((20, 20, 3), 9, np.uint8)
    assert np.array_equal(cut_out(image, (50.0, 50.0, 5.0, 5.0)), image)


def test_asks_at_the_true_box(scene, monkeypatch):
    (sequence,) = open_benchmark(scene).sequences
    asked = []

    class Recorder(Tracker):
        box = None

        def __init__(self):
            pass

        def init(self, rgb, thermal, box):
            assert box == pytest.approx(sequence.start)

        def track(self, rgb, thermal):
            asked.append((self.box, rgb.copy()))
            return type("Answer", (), {"score": 0.5 - 0.1 * (len(asked) % 2)})

    found = scores(Recorder(), sequence, every=3)
    boxes = sequence.source.boxes
    assert [box for box, _ in asked] == [tuple(boxes[k]) for k in (3, 3, 6, 6)]
    assert not np.array_equal(asked[0][1], asked[1][1])
    assert found.present.tolist() == [0.4, 0.4]
    assert found.absent.tolist() == [0.5, 0.5]
    assert found.auroc == 0


def test_command_prints_what_the_frames_gave(scene, tmp_path, capsys):
    weights.save(tiny(), tmp_path / "tiny.safetensors")
    (sequence,) = open_benchmark(scene).sequences
    expected = scores(Tracker(tiny()), sequence, every=2)
    command = ["presence", str(scene), "--every", "2", "--weights"]
    command += [str(tmp_path / "tiny.safetensors"), "--device", "cpu", "--precision", "float32"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["all"] == rows["scene_2"]
    assert rows["all"]["frames"] == len(expected.present) == 3
    assert rows["all"]["auroc"] == pytest.approx(expected.auroc)
    assert rows["all"]["score_present"] == pytest.approx(expected.present.mean(), abs=1e-5)
    assert rows["all"]["score_absent"] == pytest.approx(expected.absent.mean(), abs=1e-5)
    assert main(command) == 0
    assert f"all            3  {expected.auroc:5.3f}" in capsys.readouterr().out


def test_bad_step(scene, capsys):
    assert main(["presence", str(scene), "--every", "0"]) == 2
    assert "every 0: must be at least 1" in capsys.readouterr().err
