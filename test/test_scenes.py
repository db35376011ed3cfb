# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Generated recordings: the same for a seed, true boxes, and attributes that do what they say."""

import numpy as np
import pytest

from ainet_ros.vision.scenes import ATTRIBUTES, Scene
from ainet_ros.vision.scenes.collection import drawn_attributes, write_collection
from ainet_ros.vision.sources import open_source

SMALL = {"size": (160, 120), "frames": 12}


def contrast(image, box):
    """How much the inside of a box differs from the ring around it, grey levels."""
    x, y, w, h = (round(float(value)) for value in box)
    grey = image.astype(float) if image.ndim == 2 else image.astype(float).mean(2)
    # The middle of a person, and the strips left and right of it.
    inside = grey[y + h // 4 : y + h // 2, x + 2 * w // 5 : x + 3 * w // 5]
    rows = slice(y + h // 4, y + h // 2)
    outside = np.concatenate(
        [grey[rows, max(x - w, 0) : x], grey[rows, x + w : x + 2 * w]], axis=1
    )
    return abs(inside.mean() - outside.mean())


def test_frames_are_as_announced():
    scene = Scene(3, **SMALL)
    frames = list(scene)
    assert len(frames) == len(scene) == 12
    assert scene.boxes.shape == (12, 4)
    for frame in frames:
        assert frame.rgb.shape == (120, 160, 3)
        assert frame.thermal.shape == (120, 160)
        assert frame.rgb.dtype == frame.thermal.dtype == np.uint8
    assert [frame.stamp_ns for frame in frames[:2]] == [0, 100_000_000]


def test_a_seed_gives_the_same_recording_each_time():
    first, second, other = (list(Scene(seed, **SMALL)) for seed in (3, 3, 4))
    again = Scene(3, **SMALL)
    list(again)
    for one, two, three in zip(first, second, again, strict=True):
        assert np.array_equal(one.rgb, two.rgb)
        assert np.array_equal(one.rgb, three.rgb)
        assert np.array_equal(one.thermal, two.thermal)
    assert not np.array_equal(first[0].rgb, other[0].rgb)


@pytest.mark.parametrize("seed", range(6))
def test_box_is_where_the_target_is_drawn(seed):
    """Without the target the picture differs within the box, up to its edges, and not beyond."""
    scene = Scene(seed, frames=30, attributes=())
    x, y, w, h = scene.boxes[0]
    empty = Scene(seed, frames=30, attributes=())
    empty._actors.remove(empty._target)
    heat, without = (next(iter(one)).thermal.astype(int) for one in (scene, empty))
    changed = np.abs(heat - without) > 6
    rows, cols = np.nonzero(changed)
    edges = np.array([cols.min(), rows.min(), cols.max() + 1, rows.max() + 1])
    assert np.abs(edges - [x, y, x + w, y + h]).max() <= 3  # the thermal camera's blur


@pytest.mark.parametrize("attributes", [(), tuple(ATTRIBUTES)])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_stay_in_the_image_and_move_steadily(seed, attributes):
    boxes = Scene(seed, frames=100, attributes=attributes).boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 640).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 480).all()
    assert (boxes[:, 2:] > 20).all()
    centers = boxes[:, :2] + boxes[:, 2:] / 2
    assert np.linalg.norm(np.diff(centers, axis=0), axis=1).max() < 90
    assert np.ptp(centers, axis=0).max() > 10


def middle_frames(attributes, seed=1):
    """The frame in the middle of the only failure, and its box."""
    scene = Scene(seed, frames=30, attributes=attributes)
    index = 14
    frame = next(frame for number, frame in enumerate(scene) if number == index)
    return frame, scene.boxes[index]


def test_night_and_smoke_fail_the_rgb_camera_alone():
    clear, box = middle_frames(())
    assert contrast(clear.thermal, box) > 40
    night, _ = middle_frames(("night",))
    assert night.rgb.mean() < 0.45 * clear.rgb.mean()
    smoke, _ = middle_frames(("smoke",))
    assert smoke.rgb.astype(float).std() < 0.6 * clear.rgb.astype(float).std()
    for frame in (night, smoke):
        assert contrast(frame.thermal, box) > 35


def test_crossover_fails_the_thermal_camera_alone():
    clear, box = middle_frames(())
    crossover, _ = middle_frames(("crossover",))
    assert contrast(crossover.thermal, box) < 0.4 * contrast(clear.thermal, box)
    assert contrast(crossover.rgb, box) == pytest.approx(contrast(clear.rgb, box), abs=3)


def test_first_frames_are_clear():
    attributes = ("night", "smoke", "crossover")
    plain, hard = (Scene(2, frames=30, attributes=names) for names in ((), attributes))
    first, same = next(iter(plain)), next(iter(hard))
    box = hard.boxes[0]
    assert contrast(same.thermal, box) > 0.7 * contrast(first.thermal, box)
    assert same.rgb.mean() == pytest.approx(first.rgb.mean(), rel=0.25)


def test_occluders_hide_the_target_but_not_at_first():
    scene = Scene(1, frames=40, attributes=("occlusion",))
    heat = [contrast(frame.thermal, box) for frame, box in zip(scene, scene.boxes, strict=True)]
    assert heat[0] > 40
    assert min(heat) < 15


def test_scale_and_speed():
    for seed in range(3):
        usual, scale, speed = (
            Scene(seed, frames=100, attributes=names).boxes
            for names in ((), ("scale",), ("speed",))
        )
        heights = [boxes[:, 3].max() / boxes[:, 3].min() for boxes in (usual, scale)]
        assert heights[1] > 1.5 > heights[0]
        centers = [boxes[:, 0] + boxes[:, 2] / 2 for boxes in (usual, speed)]
        usual_step, speed_step = (np.abs(np.diff(x)).mean() for x in centers)
        assert speed_step > usual_step


def test_camera_motion_shakes_the_picture():
    def shake(names):
        boxes = Scene(5, attributes=names).boxes
        return np.diff(boxes[:, 1] + boxes[:, 3], n=2).std()  # of the feet

    assert shake(("camera_motion",)) > 3 * shake(())


def test_lookalikes_wear_the_target_s_clothes():
    plain, alike = (Scene(0, frames=12, attributes=names) for names in ((), ("lookalikes",)))
    coats = []
    for scene in (plain, alike):
        own, other = (
            np.array([part.color for part in scene._actors[index].shape(0.0)]) for index in (0, 1)
        )
        coats.append(np.abs(own.mean(0) - other.mean(0)).max())
    assert coats[1] < 0.06 < coats[0]


def test_written_recording_reads_back(tmp_path):
    scene = Scene(3, size=(160, 120), frames=3)
    written = []
    scene.write(tmp_path / "clip", lambda: written.append(1))
    assert len(written) == 3
    source = open_source(tmp_path / "clip")
    assert source.boxes == pytest.approx(scene.boxes, abs=1e-3)
    for file, frame in zip(source, scene, strict=True):
        assert np.abs(file.rgb.astype(int) - frame.rgb).mean() < 5
        assert np.abs(file.thermal.astype(int) - frame.thermal).mean() < 5
    with pytest.raises(FileExistsError):
        scene.write(tmp_path / "clip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attributes": ("fog", "night")}, "no scene attribute fog; there are night"),
        ({"frames": 1}, "1 frames"),
        ({"seed": -1}, "seed -1"),
        ({"size": (640, 10)}, "640x10"),
        ({"rate": 0}, "rate 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scene(**arguments)


def test_a_set_that_grows_keeps_the_attributes_of_all(tmp_path):
    for seeds in ((3,), (10,)):
        write_collection(tmp_path, seeds, frames=2)
    table = tmp_path / "attr_txt"
    assert (table / "SequencesName.txt").read_text().split() == ["scene_3", "scene_10"]
    for attribute in ATTRIBUTES:
        expected = [str(int(attribute in drawn_attributes(seed))) for seed in (3, 10)]
        assert (table / f"{attribute}.txt").read_text().split() == expected
