# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The score with and without the target: what is cut out, what is asked, the area it gives."""

import itertools
import json
import shutil

import cv2
import numpy as np
import pytest
from networks import tiny

from ainet_ros.cli import main
from ainet_ros.evaluation.lost import trials
from ainet_ros.evaluation.presence import Scores, cut_out, scores
from ainet_ros.tracker import State, Timing, Track, Tracker, weights
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


def test_frames_beyond_the_labels_are_not_asked_for(scene, tmp_path):
    folder = shutil.copytree(scene, tmp_path / "scene")
    for name in ("visible", "infrared"):
        labels = (folder / f"{name}.txt").read_text().splitlines(keepends=True)
        (folder / f"{name}.txt").write_text("".join(labels[:4]))
    (sequence,) = open_benchmark(folder).sequences
    assert len(scores(Tracker(tiny()), sequence, every=3).present) == 1


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


class Seer:
    """A tracker that sees the target where it is, unless the test says otherwise."""

    def __init__(self, places):
        self.places = places
        self.asked = []

    def init(self, rgb, thermal, box):
        self.asked.append(box)

    def track(self, rgb, thermal):
        box, state = self.places(rgb)
        return Track(box, 0.9, state, Timing(1, 1, 1))


def bright(rgb):
    """The box of the brightest pixels, or None."""
    rows, columns = np.nonzero(rgb[..., 0] > 200)
    if not len(rows):
        return None
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


@pytest.fixture
def square(tmp_path):
    """A sequence of a bright square that moves on a dark ground, 10 frames a second."""
    for stream in ("visible", "infrared"):
        (tmp_path / stream).mkdir()
    boxes = []
    for number in range(60):
        image = np.full((120, 160, 3), 40, np.uint8)
        x, y = 60 + number // 4, 50
        image[y : y + 20, x : x + 16] = 255
        for stream in ("visible", "infrared"):
            cv2.imwrite(str(tmp_path / stream / f"{number:04d}.png"), image)
        boxes.append((x, y, 16, 20))
    for name in ("visible", "infrared"):
        np.savetxt(tmp_path / f"{name}.txt", boxes, "%d", ",")
    np.savetxt(tmp_path / "init.txt", boxes[:1], "%d", ",")
    return open_benchmark(tmp_path).sequences[0]


def test_a_hidden_target_that_is_seen_again_is_counted(square):
    def places(rgb):
        box = bright(rgb)
        return ((0, 0, 9, 9), State.LOST) if box is None else (box, State.TRACKING)

    made = list(trials(Seer(places), square))
    assert len(made) == len(range(0, 60 - 4 - 30 - 10, 8))
    for trial in made:
        assert (trial.hidden, trial.lost_after, trial.false, trial.found_after) == (30, 0, 0, 0)


def test_what_is_found_in_its_place_is_counted(square):
    calls = itertools.count()

    def places(rgb):
        box = bright(rgb)
        if box is None:
            return (0, 0, 9, 9), State.TRACKING if next(calls) % 10 == 9 else State.LOST
        return (box, State.TRACKING) if box[0] + box[1] < 140 else ((0, 0, 9, 9), State.LOST)

    made = list(trials(Seer(places), square))
    assert {trial.false for trial in made} == {3}


def test_no_trial_goes_beyond_the_labels(square, tmp_path):
    for name in ("visible", "infrared"):
        labels = (tmp_path / f"{name}.txt").read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.txt").write_text("".join(labels[:45]))
    (sequence,) = open_benchmark(tmp_path).sequences

    def places(rgb):
        box = bright(rgb)
        return ((0, 0, 9, 9), State.LOST) if box is None else (box, State.TRACKING)

    assert [trial.start for trial in trials(Seer(places), sequence)] == [0]


def test_a_target_that_is_never_lost_is_told(square):
    seer = Seer(lambda rgb: (bright(rgb) or (0, 0, 9, 9), State.TRACKING))
    assert {(trial.lost_after, trial.false) for trial in trials(seer, square)} == {(None, 0)}


def test_hiding_by_command(tmp_path, capsys):
    Scene(2, frames=50, attributes=()).write(tmp_path / "scene_2")
    assert main(["presence", str(tmp_path / "scene_2"), "--hide", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == ["scene_2", "all"]
    assert rows["all"]["trials"] == 1
    assert rows["all"]["lost"] in (0, 1)
    assert rows["all"]["found_again"] in (0, 1)
    assert 0 <= rows["all"]["false_per_frame"] <= 0.5
