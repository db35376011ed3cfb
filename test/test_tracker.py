# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Crops, state and errors of the tracker."""

import ctypes
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import tiny

from ainet_ros.network import Output
from ainet_ros.network.model import Template
from ainet_ros.tracker import State, Tracker, Window, device
from ainet_ros.tracker.crop import Crops, extract, window
from ainet_ros.tracker.tracker import Timing, clip, hann_window, places_around

BOX = (100.0, 80.0, 40.0, 30.0)


def images(seed=0, height=240, width=320):
    rng = np.random.default_rng(seed)
    rgb = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (width, height))
    return rgb, np.ascontiguousarray(rgb[..., 1])


@given(
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
    w=st.floats(1, 900),
    h=st.floats(1, 900),
    factor=st.sampled_from([2.0, 4.0]),
)
def test_window_is_centred_and_as_wide_as_published(x, y, w, h, factor):
    view = window((x, y, w, h), factor)
    assert view.side == math.ceil(math.sqrt(w * h) * factor)
    assert abs(view.x + view.side / 2 - (x + w / 2)) <= 0.5 + 1e-9
    assert abs(view.y + view.side / 2 - (y + h / 2)) <= 0.5 + 1e-9
    assert np.allclose(view.to_image(view.to_crop((x, y, w, h))), (x, y, w, h), atol=1e-6)


def test_extract_is_a_resized_cut_with_zeros_outside():
    rgb, grey = images()
    inside = Window(50, 40, 100)
    assert np.array_equal(extract(rgb, inside, 50), cv2.resize(rgb[40:140, 50:150], (50, 50)))
    corner = extract(rgb, Window(-60, -60, 120), 120)
    assert not corner[:60].any()
    assert not corner[:, :60].any()
    assert np.array_equal(corner[60:, 60:], rgb[:60, :60])
    assert extract(grey, inside, 50).shape == (50, 50)
    assert not extract(rgb, Window(1000, 0, 50), 25).any()


def test_crops_are_the_callers_to_keep():
    rgb, grey = images()
    crops = Crops(28, torch.device("cpu"))
    first, second = Window(50, 40, 100), Window(0, 0, 60)
    kept = crops(rgb, grey, [first])
    assert kept.shape == (1, 2, 3, 28, 28)
    before = kept.clone()
    assert torch.equal(crops(rgb, grey, [second, first])[1:], before)
    assert torch.equal(kept, before)


def test_targets_in_one_batch_are_as_each_by_itself():
    pairs = [images(seed) for seed in range(4)]
    boxes = [BOX, (150.0, 90.0, 25.0, 60.0), (20.0, 30.0, 50.0, 20.0)]
    alone = []
    for box in boxes:
        tracker = Tracker(tiny(), lost_below=0.0, found_above=0.0)
        tracker.init(*pairs[0], box)
        alone.append([tracker.track(*pair) for pair in pairs[1:]])
    tracker = Tracker(tiny(), lost_below=0.0, found_above=0.0)
    targets = [tracker.start(*pairs[0], box) for box in boxes]
    for step, pair in enumerate(pairs[1:]):
        for track, expected in zip(tracker.advance(*pair, targets), alone, strict=True):
            assert track.box == pytest.approx(expected[step].box, abs=1e-2)
            assert track.score == pytest.approx(expected[step].score, abs=1e-5)
    # Fewer again, in another order, none of them mistaken for another.
    more = images(9)
    both = tracker.advance(*more, [replace(targets[2]), replace(targets[0])])
    assert both[0].box == pytest.approx(tracker.advance(*more, [targets[2]])[0].box, abs=1e-2)
    assert both[1].box == pytest.approx(tracker.advance(*more, [targets[0]])[0].box, abs=1e-2)


def test_bad_images_change_no_target():
    tracker = Tracker(tiny())
    target = tracker.start(*images(), BOX)
    with pytest.raises(ValueError, match="no targets"):
        tracker.advance(*images(), [])
    with pytest.raises(ValueError, match="differ in size"):
        tracker.advance(images()[0], images(height=100)[1], [target])
    assert (target.box, target.state) == (BOX, State.TRACKING)


def test_hann_window_is_the_published_one():
    side = 16
    k = np.arange(1, side + 1)
    line = 0.5 * (1 - np.cos(2 * np.pi * k / (side + 1)))
    assert np.allclose(hann_window(side)[0, 0].numpy(), np.outer(line, line), atol=1e-6)


def test_clip_keeps_ten_pixels_inside():
    assert clip((-30, 20, 50, 40), 320, 240) == (0, 20, 20, 40)
    x, y, w, h = clip((400, -90, 30, 30), 320, 240)
    assert (x, w) == (310, 10)
    assert (y, h) == (0, 10)


class Scripted(torch.nn.Module):
    """A network that answers what the test says, and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.config = tiny().config
        self.score, self.cell, self.offset, self.size = 0.9, (2, 1), (0.5, 0.25), (0.25, 0.5)
        self.template = self.search = self.box = None

    def embed_template(self, template, template_box):
        self.template, self.box = template.clone(), template_box
        return Template(torch.full((1, 2, 4, 8), 3.0), None)

    def match(self, template, search):
        count = len(search)
        assert torch.equal(template.tokens, torch.full((count, 2, 4, 8), 3.0))
        self.search = search.clone()
        side = self.config.map_size
        score = torch.full((count, 1, side, side), 1e-4)
        x, y = self.cell
        # A list is of the windows, in their order.
        score[:, 0, y, x] = torch.tensor(self.score)
        offset = torch.tensor(self.offset)[None, :, None, None].expand(count, 2, side, side)
        size = torch.tensor(self.size)[None, :, None, None].expand(count, 2, side, side)
        return Output(score, size, offset, None, None, None, None)


def test_a_frame_is_cropped_searched_and_mapped_back():
    network = Scripted()
    tracker = Tracker(network)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    assert np.allclose(network.box[0], window(BOX, 2).to_crop(BOX))
    track = tracker.track(rgb, thermal)
    view = window(BOX, 4)
    side = network.config.search_size
    mean, std = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    for modality, image in enumerate((rgb, np.repeat(thermal[..., None], 3, axis=2))):
        expected = (extract(image, view, side) - mean) / std
        seen = network.search[0, modality].permute(1, 2, 0).numpy()
        assert np.abs(seen - expected).max() < 1e-4
    cells = network.config.map_size
    centre = (view.x + view.side * 2.5 / cells, view.y + view.side * 1.25 / cells)
    x, y, w, h = track.box
    assert (x + w / 2, y + h / 2) == pytest.approx(centre, abs=1e-3)
    assert (w, h) == pytest.approx((view.side * 0.25, view.side * 0.5), abs=1e-3)
    assert track.score == pytest.approx(0.9)
    assert track.state is State.TRACKING


def test_where_the_time_went(monkeypatch):
    tracker = Tracker(Scripted())
    tracker.init(*images(), BOX)
    clock = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr("ainet_ros.tracker.tracker.time.perf_counter", lambda: next(clock))
    assert tracker.track(*images()).timing == Timing(1000.0, 2000.0, 4000.0)


def test_search_is_centred_where_the_box_is_moved():
    network = Scripted()
    tracker = Tracker(network)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    first = tracker.track(rgb, thermal)
    assert tracker.box == first.box
    x, y, w, h = BOX
    tracker.box = (x + 7, y - 4, w, h)
    moved = tracker.track(rgb, thermal)
    shift = np.array(moved.box) - first.box
    assert shift == pytest.approx([7, -4, 0, 0], abs=1)  # a window starts at a whole pixel


def lost_tracker(score=0.7, **options):
    """A tracker whose target was seen with that score and is LOST, and its network."""
    network = Scripted()
    network.cell = (network.config.map_size // 2,) * 2
    network.offset = (0.0, 0.0)
    tracker = Tracker(network, lost_below=0.3, found_above=0.6, **options)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    network.score = score
    tracker.track(rgb, thermal)
    network.score = 0.2
    assert tracker.track(rgb, thermal).state is State.LOST
    return tracker, network


def after_a_move(by, score, before=(0.0,), **thresholds):
    """The state after the box has moved by so many of sqrt(w * h), seen with .9 before, when it
    moved by each of `before`."""
    network = Scripted()
    cells = network.config.map_size
    network.cell, network.offset = (cells // 2,) * 2, (0.0, 0.0)
    tracker = Tracker(network, **{"lost_below": 0.3, "found_above": 0.6, **thresholds})
    rgb, thermal = images()
    tracker.init(rgb, thermal, (150.0, 110.0, 20.0, 20.0))
    network.size = (0.25, 0.25)
    for earlier in before:
        network.offset = (earlier * cells / 4, 0.0)
        assert tracker.track(rgb, thermal).state is State.TRACKING
    box = tracker.box
    network.score, network.offset = score, (by * cells / 4, 0.0)  # four of them in a window
    track = tracker.track(rgb, thermal)
    moved = (track.box[0] - box[0]) / box[2]
    expected = by if track.state is State.TRACKING else 0.0
    assert moved == pytest.approx(expected, abs=0.06)  # a window starts at a whole pixel
    return track.state


def test_a_box_that_jumps_is_believed_with_nearly_the_usual_score_only():
    assert after_a_move(by=0.6, score=0.5) is State.TRACKING
    assert after_a_move(by=0.8, score=0.82) is State.TRACKING
    assert after_a_move(by=0.8, score=0.8) is State.LOST
    assert after_a_move(by=-1.5, score=0.8) is State.LOST


def test_a_box_that_moves_far_all_the_time_does_not_jump():
    assert after_a_move(by=1.1, score=0.5, before=[0.6]) is State.TRACKING
    assert after_a_move(by=1.3, score=0.5, before=[0.6]) is State.LOST
    # One that stands again is back to the limit of before.
    assert after_a_move(by=0.9, score=0.5, before=[0.6, 0.0]) is State.TRACKING
    assert after_a_move(by=0.9, score=0.5, before=[0.6, *[0.0] * 6]) is State.LOST


def test_no_target_is_lost_with_thresholds_of_zero():
    assert after_a_move(by=1.5, score=0.01, lost_below=0.0, found_above=0.0) is State.TRACKING


def test_a_lost_target_is_found_after_several_pairs_in_a_row():
    tracker, network = lost_tracker()
    believed = tracker.box
    rgb, thermal = images()
    states, windows = [], []
    for network.score in (0.5, 0.62, 0.7, 0.7, 0.5, 0.7, 0.7, 0.7, 0.7):
        # .62 reaches found_above, and is below nine tenths of the usual .7
        states.append(tracker.track(rgb, thermal).state)
        windows.append(len(network.search))
        if states[-1] is State.LOST:
            assert tracker.box == believed
    assert states == [State.LOST] * 8 + [State.TRACKING]
    assert windows == [4, 4, 4, 1, 1, 4, 1, 1, 1]
    assert tracker.box != believed


def test_as_many_pairs_in_a_row_are_needed_each_time_that_it_is_lost():
    tracker, network = lost_tracker()
    rgb, thermal = images()
    for _ in range(2):
        network.score = 0.7
        states = [tracker.track(rgb, thermal).state for _ in range(4)]
        assert states == [State.LOST] * 3 + [State.TRACKING]
        network.score = 0.1
        assert tracker.track(rgb, thermal).state is State.LOST


def test_a_score_that_is_no_number_is_a_loss_under_any_threshold():
    network = Scripted()
    tracker = Tracker(network, lost_below=0.0, found_above=0.0)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    network.score = float("nan")
    for _ in range(5):
        track = tracker.track(rgb, thermal)
        assert track.state is State.LOST
        assert track.box == BOX


def test_a_box_that_is_no_number_is_a_loss_too():
    network = Scripted()
    tracker = Tracker(network, lost_below=0.0, found_above=0.0)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    network.size = (float("nan"), 0.5)
    for _ in range(5):
        track = tracker.track(rgb, thermal)
        assert (track.state, track.box) == (State.LOST, BOX)
        assert math.isnan(track.score)
    network.size = (0.25, 0.5)
    states = [tracker.track(rgb, thermal).state for _ in range(4)]
    assert states == [State.LOST] * 3 + [State.TRACKING]


def test_a_network_that_fails_changes_no_target(monkeypatch):
    tracker, network = lost_tracker()
    target = tracker._target
    before = replace(target)

    def fail(*_):
        raise RuntimeError("no kernel")

    with monkeypatch.context() as patch:
        patch.setattr(tracker, "_match", fail)
        with pytest.raises(RuntimeError, match="no kernel"):
            tracker.track(*images())
    assert target == before
    network.score = 0.1
    tracker.track(*images())
    assert target.looked_at == before.looked_at + 3


def test_the_usual_score_makes_it_stricter_and_never_milder():
    for usual, score, found in ((0.98, 0.85, False), (0.98, 0.9, True), (0.4, 0.5, False)):
        tracker, network = lost_tracker(usual)
        for network.score in (score,) * 4:
            track = tracker.track(*images())
        assert (track.state is State.TRACKING) == found


def test_a_lost_target_is_looked_for_all_over_the_image():
    tracker, network = lost_tracker(search_windows=3)
    rgb, thermal = images()
    around = places_around(tracker.box, rgb.shape[1], rgb.shape[0])
    assert len(around) > 3
    expected = [window(box, 4) for box in around]
    mean, std = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    side = network.config.search_size
    seen = []
    for _ in range(len(around)):
        tracker.track(rgb, thermal)
        assert len(network.search) == 3
        seen += list(network.search[1:, 0])
    for place, (view, crop) in enumerate(zip(expected * 2, seen, strict=True)):
        wanted = (extract(rgb, view, side) - mean) / std
        assert np.abs(crop.permute(1, 2, 0).numpy() - wanted).max() < 1e-4, place
    # It is where the third window was.
    network.score = [0.1, 0.1, 0.9]
    tracker.track(rgb, thermal)
    network.score = 0.9
    for _ in range(3):
        track = tracker.track(rgb, thermal)
    assert track.state is State.TRACKING
    third = around[(2 * len(around) + 1) % len(around)]
    assert np.hypot(track.box[0] - third[0], track.box[1] - third[1]) < 4 * BOX[2]


def test_places_around_are_in_the_image_nearest_first():
    box = (100.0, 70.0, 16.0, 16.0)
    places = places_around(box, 320, 240)
    centres = np.array([(x + w / 2, y + h / 2) for x, y, w, h in places])
    assert (centres >= 0).all()
    assert (centres <= (320, 240)).all()
    distance = np.hypot(*(centres - (108, 78)).T)
    assert (np.diff(distance) >= -1e-9).all()
    assert distance[0] == 32
    assert len(places) == 10 * 8 - 1
    # In each direction the last one whose centre is in the image.
    assert centres.min(axis=0).tolist() == [12, 14]
    assert centres.max(axis=0).tolist() == [300, 238]
    assert places_around((0, 0, 320, 240), 320, 240).shape == (0, 4)
    assert len(places_around((0, 0, 1, 1), 3840, 2160)) <= 257**2  # of a speck they lie apart


def test_lost_targets_share_the_windows():
    network = Scripted()
    tracker = Tracker(network, lost_below=0.3, found_above=0.6, search_windows=6)
    rgb, thermal = images()
    targets = [tracker.start(rgb, thermal, BOX) for _ in range(4)]
    network.score = [0.1, 0.1, 0.9, 0.9]
    tracker.advance(rgb, thermal, targets)
    network.score = 0.1
    tracker.advance(rgb, thermal, targets)
    assert len(network.search) == 3 + 3 + 1 + 1
    tracker.advance(rgb, thermal, targets)
    assert len(network.search) == 4 * 2


def test_grey_and_three_channel_thermal_are_the_same():
    rgb, thermal = images()
    tracks = []
    for image in (thermal, np.repeat(thermal[..., None], 3, axis=2)):
        tracker = Tracker(tiny(), lost_below=0, found_above=0)
        tracker.init(rgb, image, BOX)
        tracks.append(tracker.track(rgb, image))
    assert tracks[0].box == tracks[1].box
    assert tracks[0].score == tracks[1].score


def test_a_view_of_a_larger_image_is_taken_as_it_is():
    rgb, thermal = images(height=480, width=640)
    tracker = Tracker(tiny(), lost_below=0, found_above=0)
    tracker.init(rgb[::2, ::2], thermal[::2, ::2], BOX)
    strided = tracker.track(rgb[::2, ::2], thermal[::2, ::2])
    rgb, thermal = np.ascontiguousarray(rgb[::2, ::2]), np.ascontiguousarray(thermal[::2, ::2])
    tracker.init(rgb, thermal, BOX)
    assert tracker.track(rgb, thermal).box == strided.box


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 0, 5), "empty"),
        ((10, 10, -4, 5), "empty"),
        ((10, 10, math.nan, 5), "finite"),
        ((math.inf, 10, 5, 5), "finite"),
        ((10, 10, 5), "four"),
        ((400, 10, 5, 5), "outside the image of 320x240"),
        ((0, 0, 30_000, 20_000), "larger than the image of 320x240"),
        ((0, 0, 321.5, 20), "larger than the image of 320x240"),
        ((0, 0, 20, 241.5), "larger than the image of 320x240"),
        ((-10, 10, 10, 5), "outside"),
        ((320, 10, 5, 5), "outside"),
        ((10, 240, 5, 5), "outside"),
    ],
)
def test_bad_boxes_say_why_and_leave_the_old_target(box, message):
    network = Scripted()
    tracker = Tracker(network)
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    with pytest.raises(ValueError, match=message):
        tracker.init(rgb, thermal, box)
    assert tracker.track(rgb, thermal).state is State.TRACKING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, t: (r.astype(np.float32), t), "rgb image must be a uint8 array, got float32"),
        (lambda r, t: (r, t.astype(np.uint16)), "thermal image must be a uint8 array, got uint16"),
        (lambda r, t: (r[..., 0], t), r"rgb image must be \(H, W, 3\)"),
        (lambda r, t: (r, t[None]), "thermal image must be"),
        (lambda r, t: (np.stack([r, r, r], axis=2), t), r"rgb image must be \(H, W, 3\)"),
        (lambda r, t: (r, t[:100]), "differ in size"),
        (lambda r, t: (r[:0], t[:0]), "rgb image is empty"),
        (lambda r, t: (None, t), "NoneType"),
    ],
)
def test_bad_images_say_which_and_why(change, message):
    tracker = Tracker(Scripted())
    rgb, thermal = images()
    tracker.init(rgb, thermal, BOX)
    with pytest.raises(ValueError, match=message):
        tracker.track(*change(rgb, thermal))
    assert tracker.track(rgb, thermal).state is State.TRACKING


def test_a_box_may_be_as_large_as_the_image():
    tracker = Tracker(Scripted())
    tracker.init(*images(), (0, 0, 320.5, 240.5))  # drawn on a scaled picture, say
    assert tracker.track(*images()).state is State.TRACKING


def test_tracking_needs_a_target_and_sane_thresholds():
    rgb, thermal = images()
    with pytest.raises(RuntimeError, match="init"):
        Tracker(tiny()).track(rgb, thermal)
    with pytest.raises(ValueError, match="lost_below"):
        Tracker(tiny(), lost_below=0.8, found_above=0.5)


def test_bfloat16_finds_what_float32_finds():
    exact, quick = (Tracker(tiny(), precision=p) for p in (torch.float32, torch.bfloat16))
    assert quick.network.backbone.blocks[0].fc1.weight.dtype is torch.bfloat16
    rgb, thermal = images()
    for tracker in (exact, quick):
        tracker.set_thresholds(0.0, 0.0)
        tracker.init(rgb, thermal, BOX)
    wanted, got = (tracker.track(*images(1)) for tracker in (exact, quick))
    assert got.box == pytest.approx(wanted.box, abs=1.0)
    assert got.score == pytest.approx(wanted.score, abs=0.01)
    assert got.score != wanted.score  # it does compute in another arithmetic


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", torch.bfloat16),
        ("Features\t: fp asimd bf16 i8mm\n", torch.bfloat16),
        ("flags\t\t: fpu avx2 avx512f\n", torch.float32),
        ("nothing of the kind\n", torch.float32),
        (None, torch.float32),
    ],
)
def test_auto_precision_is_what_the_cpu_has_instructions_for(
    monkeypatch, tmp_path, cpuinfo, precision
):
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(cpuinfo)
    monkeypatch.setattr(device, "CPUINFO", file)
    assert device.resolve_precision("auto", torch.device("cpu")) is precision
    assert device.resolve_precision("auto", torch.device("cuda")) is torch.float32
    assert device.resolve_precision("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert device.resolve_precision("float32", torch.device("cpu")) is torch.float32


def test_devices_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve("cpu") == device.resolve("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=f"device {name}: torch finds no CUDA GPU"):
            device.resolve(name)
    with pytest.raises(ValueError, match="'gpu' is none of"):
        device.resolve("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.resolve("auto") == torch.device("cuda")
    assert device.resolve("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device cuda:2: torch finds 2 GPUs"):
        device.resolve("cuda:2")


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision 'int4'.*auto, float32, bfloat16, int8"):
        device.resolve_precision("int4", torch.device("cpu"))
    with pytest.raises(ValueError, match="int8 is for a CPU, not for cuda"):
        device.resolve_precision("int8", torch.device("cuda"))


def test_compiled_network_answers_as_it_stands():
    """Of one DFM: to compile takes long. In float32 for one target and several, and in int8."""

    def answers(count, **options):
        tracker = trackers.setdefault(str(options), Tracker(small(), **options))
        tracker.set_thresholds(0.0, 0.0)
        return tracker.advance(*images(1), [tracker.start(*images(), BOX)] * count)

    small = partial(tiny, depth=1, interaction_layers=(0,))
    trackers: dict[str, Tracker] = {}
    for count in (1, 3, 2):
        for track, wanted in zip(answers(count, compile=True), answers(count), strict=True):
            assert track.box == pytest.approx(wanted.box, abs=1e-2)
            assert track.score == pytest.approx(wanted.score, abs=1e-5)
    [exact], [rounded] = answers(1), answers(1, precision=torch.int8)
    assert rounded.score == pytest.approx(exact.score, abs=0.02)
    assert rounded.score != exact.score  # it does compute in another arithmetic


def test_without_a_compiler_the_remedy_is_said(tmp_path):
    """In a process of its own, which finds no translation made before."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from networks import tiny\n"
        "from ainet_ros.tracker import Tracker\n"
        "try: Tracker(tiny(depth=1, interaction_layers=(0,)), compile=True).warm_up()\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "CXX": "no-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "C++ compiler" in done.stdout
    assert "no-compiler" in done.stdout


def test_memory_of_images_is_kept():
    """In a process of its own: what malloc has taken from the system for one large buffer."""
    program = """
import ctypes, sys
import numpy as np
from ainet_ros.tracker.device import keep_large_buffers

libc = ctypes.CDLL(None)

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    ).split()]

libc.mallinfo2.restype = Info
for prepare in (lambda: None, keep_large_buffers):
    prepare()
    before = libc.mallinfo2().hblkhd
    image = np.empty(6_000_000, np.uint8)
    print(libc.mallinfo2().hblkhd - before)
    del image
"""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33 or later")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    mapped, kept = map(int, done.stdout.split())
    assert mapped >= 6_000_000
    assert kept == 0
