# SPDX-License-Identifier: Apache-2.0
"""The metrics against values worked out by hand from the rules of LasHeR's toolkit."""

import numpy as np
import pytest

from ainet_ros.evaluation import metrics

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
        ([BOX], [BOX, BOX], "1 results for 2"),
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
