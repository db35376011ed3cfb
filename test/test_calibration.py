# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The homography between the cameras, from recordings and from points."""

import cv2
import numpy as np
import pytest

from ainet_ros.cli import main
from ainet_ros.vision import calibration
from ainet_ros.vision.registration import Calibration, Registration
from ainet_ros.vision.scenes import Scene

WIDTH, HEIGHT = 480, 360
SMALL = (240, 180)
GRID = np.stack(np.meshgrid(np.linspace(0, 239, 5), np.linspace(0, 179, 5)), axis=2).reshape(-1, 2)


def skewed(seed, by=0.04, shift=0.06):
    """A homography from a thermal image of size SMALL into the RGB image."""
    random = np.random.default_rng(seed)
    w, h = SMALL
    corners = np.float32([[0, 0], [w, 0], [w, h], [0, h]])
    there = corners * 2 + np.float32(random.uniform(-by, by, (4, 2)) * WIDTH)
    there += np.float32(random.uniform(-shift, shift, 2) * WIDTH)
    return cv2.getPerspectiveTransform(corners, there)


def seen_through(homography, thermal):
    return cv2.warpPerspective(thermal, np.linalg.inv(homography), SMALL)


def distance(one, other):
    return np.linalg.norm(
        calibration.project(one, GRID) - calibration.project(other, GRID), axis=1
    )


@pytest.fixture(scope="module")
def pairs():
    scenes = [next(iter(Scene(seed, frames=2, size=(WIDTH, HEIGHT)))) for seed in range(4)]
    return [(frame.rgb, frame.thermal) for frame in scenes]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_homography_of_a_recording_is_found(pairs, seed):
    truth = skewed(seed)
    found = calibration.from_pairs([(rgb, seen_through(truth, heat)) for rgb, heat in pairs])
    assert found.calibration.rgb_size == (WIDTH, HEIGHT)
    assert found.calibration.thermal_size == SMALL
    assert distance(found.calibration.homography, truth).max() < 4
    assert distance(found.calibration.homography, truth).mean() < 1.5
    assert found.error < 2
    assert found.shift == pytest.approx(distance(truth, np.diag([2.0, 2.0, 1.0])).mean(), abs=3)


def test_reversed_thermal_images_align_as_well(pairs):
    truth = skewed(1)
    found = calibration.from_pairs([(rgb, 255 - seen_through(truth, heat)) for rgb, heat in pairs])
    inside = distance(found.calibration.homography, truth)
    assert inside.mean() < 3


def test_images_that_share_nothing_are_refused(pairs):
    noise = np.random.default_rng(0).integers(0, 255, (180, 240), np.uint8)
    with pytest.raises(ValueError, match="parts of the thermal image agree"):
        calibration.from_pairs([(pairs[0][0], noise)])
    with pytest.raises(ValueError, match="parts of the thermal image agree"):
        calibration.from_pairs([(pairs[0][0], np.zeros((180, 240), np.uint8))])


def test_images_of_several_sizes_or_none_are_refused(pairs):
    with pytest.raises(ValueError, match="no pair"):
        calibration.from_pairs([])
    rgb, heat = pairs[0]
    with pytest.raises(ValueError, match="change their size"):
        calibration.from_pairs([(rgb, heat), (rgb, heat[::2])])


@pytest.mark.parametrize("height", [300, 272])
def test_images_as_wide_as_their_tiles_allow(pairs, height):
    wide = [(cv2.resize(rgb, (640, 480))[:height],) * 2 for rgb, _ in pairs]
    if height == 300:
        assert calibration.from_pairs(wide).error < 1
        assert calibration.misfit(*wide[0]) < 0.01
    else:
        with pytest.raises(ValueError, match=r"640x272 is too long and narrow .*: crop it"):
            calibration.from_pairs(wide)
        assert calibration.misfit(*wide[0]) is None


def test_points_give_their_homography_and_an_outlier_is_left_out():
    truth = skewed(4)
    of = np.random.default_rng(0).uniform(0, SMALL, (12, 2))
    to = calibration.project(truth, of)
    to[3] += 40
    found = calibration.from_points(to, of, (WIDTH, HEIGHT), SMALL)
    assert distance(found.calibration.homography, truth).max() < 0.01
    assert (found.used, found.given) == (11, 12)
    assert found.error < 0.01


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ([(0, 0), (10, 0), (10, 10)], "4 points"),
        ([(0, 0), (10, 10), (20, 20), (30, 30), (40, 40)], "fit together"),
    ],
)
def test_points_that_say_nothing_are_refused(of, message):
    with pytest.raises(ValueError, match=message):
        calibration.from_points(of, of, (WIDTH, HEIGHT), SMALL)


def test_misfit_is_the_share_of_the_width_that_a_thermal_image_is_off(pairs):
    for rgb, heat in pairs:
        assert calibration.misfit(rgb, heat) < 0.015
        shifted = np.roll(heat, 24, axis=1)
        assert calibration.misfit(rgb, shifted) == pytest.approx(24 / WIDTH, abs=0.01)
        assert calibration.misfit(rgb, np.zeros_like(heat)) is None


class TestCommand:
    @pytest.fixture
    def recording(self, tmp_path):
        """A recording whose thermal camera looks askew, and how."""
        scene = Scene(0, frames=6, size=(WIDTH, HEIGHT))
        scene.write(tmp_path / "scene")
        truth = skewed(1)
        for file in (tmp_path / "scene" / "infrared").iterdir():
            heat = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(file), seen_through(truth, heat))
        return tmp_path / "scene", truth

    def test_writes_what_the_node_reads(self, recording, tmp_path, capsys):
        folder, truth = recording
        output = tmp_path / "cameras.yaml"
        assert main(["calibrate", str(folder), "--output", str(output), "--pairs", "4"]) == 0
        said = capsys.readouterr().out
        assert "parts of the image agree, error" in said
        loaded = Calibration.load(output)
        assert distance(loaded.homography, truth).mean() < 3
        Registration("homography", output)
        picture = cv2.imread(str(tmp_path / "cameras.png"))
        assert picture.shape == (HEIGHT, 2 * WIDTH, 3)
        before, after = picture[:, :WIDTH], picture[:, WIDTH:]
        # White where green and magenta meet: more so afterwards.
        assert (after.min(axis=2) > 200).mean() > (before.min(axis=2) > 200).mean()

    def test_takes_points(self, recording, tmp_path, capsys):
        folder, truth = recording
        corners = np.array([(20, 20), (220, 25), (210, 160), (15, 150), (100, 90)], float)
        points = np.hstack([calibration.project(truth, corners), corners])
        file = tmp_path / "points.csv"
        np.savetxt(file, points, delimiter=",")
        output = tmp_path / "cameras.yaml"
        assert (
            main(["calibrate", str(folder), "--output", str(output), "--points", str(file)]) == 0
        )
        assert "5 of 5 points agree, error 0.00 px" in capsys.readouterr().out
        assert distance(Calibration.load(output).homography, truth).max() < 0.1

    def test_the_picture_does_not_take_the_file_s_place(self, recording, tmp_path, capsys):
        output = tmp_path / "cameras.png"
        assert main(["calibrate", str(recording[0]), "--output", str(output)]) == 2
        assert f"{output}: that is where the picture goes" in capsys.readouterr().err
        assert not output.exists()

    def test_makes_the_folder_first(self, recording, tmp_path, capsys, monkeypatch):
        output = tmp_path / "new" / "cameras.yaml"

        def searched(pairs):
            assert output.parent.is_dir()
            raise ValueError("searched")

        monkeypatch.setattr(calibration, "from_pairs", searched)
        assert main(["calibrate", str(recording[0]), "--output", str(output)]) == 2
        assert "searched" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,2,3\n", "not 3 numbers"),
            ("a,b\n", "a"),
            ("1,2,3,4\n5,nan,7,8\n", "point 2: the numbers must be finite"),
        ],
    )
    def test_names_a_file_of_points_that_is_wrong(
        self, recording, tmp_path, capsys, text, message
    ):
        file = tmp_path / "points.csv"
        file.write_text(text)
        assert main(["calibrate", str(recording[0]), "--points", str(file)]) == 2
        said = capsys.readouterr().err
        assert str(file) in said
        assert message in said
