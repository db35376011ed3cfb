# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Training samples, on small recordings in the layouts of the real ones."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ainet_ros.tracker import crop
from ainet_ros.training import blobs, data, degradation, reading, synthesis
from ainet_ros.training.data import TrainingData, contact_sheet

INTACT = {
    "severe": dict.fromkeys(vars(degradation.Severities()), 0.0),
    "inverted": 0.0,
    "grey": 0.0,
    "light": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "misregistered": 0.0,
    "soft": 0.0,
}
HEIGHT, WIDTH = 120, 160
PARTS = {
    "videos": {
        "rgb_video": {"share": 0.5, "modality": "rgb", "every": 3, "validation": ["car"]},
        "rgbt_video": {"share": 0.25, "labels": "moving", "every": 2, "validation": []},
        "rgbt_clips": {"share": 0.1, "labels": "warm", "validation": []},
        "ir_video": {"share": 0.15, "modality": "thermal", "every": 5, "validation": 0.19},
    },
    "stills": {
        "rgbt_stills/roadscene": {"share": 0.30, "warm": False},
        "rgbt_stills/msrs": 0.15,
        "rgbt_stills/llvip": 0.15,
        "rgbt_stills/tno": 0.06,
        "rgbt_clips": 0.15,
        "rgbt_video": 0.10,
    },
    "crops": ["flir_crops.zip"],
}


def open_data(root: Path, **options: Any) -> TrainingData:
    """Of every part, unless `options` name others."""
    return TrainingData(root, **{**PARTS, **options})


def textured(seed: int, tint: tuple[int, int, int] = (90, 140, 90)) -> np.ndarray:
    """(H, W, 3) of soft patches in RGB."""
    grid = np.random.default_rng(seed).uniform(0.4, 1.0, (12, 16, 1)).astype(np.float32)
    shade = cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    return np.clip(shade * tint, 0, 255).astype(np.uint8)


def person(image: np.ndarray, x: int, y: int, value: int = 230) -> None:
    """Draws an upright figure, 14 wide and 40 high, with its top left corner at x, y."""
    cv2.ellipse(image, (x + 7, y + 5), (3, 5), 0, 0, 360, (value,) * 3, cv2.FILLED)
    cv2.rectangle(image, (x + 1, y + 10), (x + 13, y + 26), (value,) * 3, cv2.FILLED)
    cv2.rectangle(image, (x + 3, y + 26), (x + 11, y + 40), (value,) * 3, cv2.FILLED)


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every part of the data, a few pictures each; the red crops are the only red things."""
    root = tmp_path_factory.mktemp("data")
    for k in range(24):
        thermal = textured(100 + k, (60, 60, 60))
        if k % 2:
            person(thermal, 60, 40)
        folder = root / "rgbt_stills" / ("msrs" if k % 2 else "roadscene")
        write(folder / "visible" / f"{k:03}.png", textured(k))
        write(folder / "infrared" / f"{k:03}.png", thermal)
    for k in range(12):
        thermal = textured(7, (60, 60, 60))
        person(thermal, 40 + 2 * k, 50)
        write(root / "rgbt_clips/clip/visible" / f"{k:04}.png", textured(6))
        write(root / "rgbt_clips/clip/infrared" / f"{k:04}.png", thermal)
    thermal_frames = []
    for k in range(60):
        thermal = textured(9, (60, 60, 60))
        person(thermal, 10 + 2 * k, 60)
        thermal_frames.append(thermal)
    write_video(root / "rgbt_video/walk/visible.mp4", [textured(8)] * 60)
    write_video(root / "rgbt_video/walk/infrared.mp4", thermal_frames)
    write_video(root / "rgb_video/Ride/visible.mp4", [textured(10)] * 12)
    (root / "rgb_video/Ride/groundtruth_rect.txt").write_text(
        "".join(f"{k + 1},{20 + k},30.5,24,36,{int(k == 6)}\n" for k in range(12))
    )
    write_video(root / "rgb_video/car/visible.mp4", [textured(11)] * 12)
    (root / "rgb_video/car/groundtruth_rect.txt").write_text("20,30,24,36\n" * 12)
    (root / "ir_video").mkdir()
    for k in range(3):
        write_video(root / f"ir_video/IR_{k}.mp4", [textured(12 + k)] * 12)
        (root / f"ir_video/IR_{k}.txt").write_text("nan,nan,nan,nan\n" + "40,50,16,8\n" * 11)
    with zipfile.ZipFile(root / "flir_crops.zip", "w") as archive:
        for k in range(30):
            kind = ("person", "car", "bicycle")[k % 3]
            for stream in "vi":
                red = np.full((60, 30, 3), (235, 20, 20) if stream == "v" else (200,) * 3)
                _, code = cv2.imencode(".jpg", red[..., ::-1].astype(np.uint8))
                archive.writestr(f"day/{kind}/{k:05}_0_{stream}.jpg", code.tobytes())
    return root


@pytest.fixture(scope="module")
def make(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingData]:
    cache = tmp_path_factory.mktemp("cache")

    def make(**options: object) -> TrainingData:
        options = {"template_size": 48, "search_size": 96, **options}
        return open_data(root, cache=cache, **options)

    return make


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_samples_have_the_promised_form(make: Callable[..., TrainingData]) -> None:
    samples = make()
    seen = [samples[i] for i in range(120)]
    for sample in seen:
        assert sample["template"].shape == (2, 3, 48, 48)
        assert sample["search"].shape == (2, 3, 96, 96)
        assert sample["template"].dtype == sample["search"].dtype == torch.uint8
        assert torch.equal(sample["search"][1, 0], sample["search"][1, 2])
        assert sample["box"].shape == sample["template_box"].shape == (4,)
        cx, cy, w, h = sample["template_box"].tolist()
        # A template spans twice the box that it was cut by, but for whole pixels.
        assert w * h == pytest.approx(0.25, rel=0.2)
        assert max(abs(cx - 0.5), abs(cy - 0.5)) < 0.06
        if sample["present"]:
            cx, cy, w, h = sample["box"].tolist()
            assert 0 < cx < 1
            assert 0 < cy < 1
            assert 0.01 < w * h < 0.4
        else:
            assert sample["box"].tolist() == [0, 0, 0, 0]
    assert 0 < sum(not s["present"] for s in seen) < 40


def test_a_sample_depends_on_seed_and_index_alone(make: Callable[..., TrainingData]) -> None:
    one, other = make(seed=3), pickle.loads(pickle.dumps(make(seed=3)))
    first = [one[i] for i in range(12)]
    for i in (11, 4, 0, 7):
        assert equal(first[i], other[i])
    assert not equal(first[0], make(seed=4)[0])
    assert not equal(first[0], first[1])
    assert not equal(first[0], make(seed=3, split="validation")[0])
    loader = torch.utils.data.DataLoader(one, 4, sampler=range(8), num_workers=1)
    for k, batch in enumerate(loader):
        assert torch.equal(batch["search"], torch.stack([s["search"] for s in first])[4 * k :][:4])


@pytest.mark.parametrize("kind", ["still", "paste", "video"])
def test_each_kind_of_sample(make: Callable[..., TrainingData], kind: str) -> None:
    mix = {name: float(name == kind) for name in data.MIX}
    for split in ("train", "validation"):
        samples = make(mix=mix, split=split)
        presence = {bool(samples[i]["present"]) for i in range(60)}
        assert presence == {True, False}
        assert samples[0]["search"].float().std() > 0


def test_the_box_follows_a_pasted_object(
    make: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "KINDS", {"car": 1.0, "person": 0.0, "bicycle": 0.0})
    monkeypatch.setattr(data, "THINGS", 0.0)
    monkeypatch.setattr(data, "_LOOK_ALIKES", [1.0, 0, 0, 0, 0])
    monkeypatch.setattr(synthesis, "BLENT", {"thermal": 0.0, "rgb": 0.0})
    samples = make(
        mix={"still": 0, "paste": 1, "video": 0}, absent=0.0, degradation=INTACT, search_size=192
    )
    filled = []
    for i in range(60):
        search, (cx, cy, w, h) = samples[i]["search"][0].int(), samples[i]["box"] * 192
        red = search[0] > 1.5 * search[1] + 8
        rows, columns = torch.nonzero(red.any(dim=1)), torch.nonzero(red.any(dim=0))
        if not len(rows):
            continue
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        truth = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clamp(0, 192)
        # An occluder may hide a part, nothing may lie outside but the blur of small ones.
        assert (found[:2] - truth[:2]).min() > -6
        assert (found[2:] - truth[2:]).max() < 6
        filled.append(float((found - truth).abs().max()))
    assert len(filled) > 45
    assert np.median(filled) < 3


def test_a_target_that_is_taken_out_leaves_no_trace_of_itself(
    make: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "KINDS", {"car": 1.0, "person": 0.0, "bicycle": 0.0})
    monkeypatch.setattr(data, "THINGS", 0.0)
    monkeypatch.setattr(data, "_LOOK_ALIKES", [1.0, 0, 0, 0, 0])
    monkeypatch.setattr(data, "CLEARED", 1.0)
    only = {"still": 0, "paste": 1, "video": 0}
    samples = make(mix=only, absent=0.999, degradation=INTACT, search_size=192)
    for i in range(40):
        sample = samples[i]
        search = sample["search"][0].int()
        assert not sample["present"]
        # A tenth of the share that a target has in its search region.
        assert (search[0] > 1.5 * search[1] + 30).float().mean() < 0.1 / 16


@pytest.mark.parametrize("box", [(40, 30, 16, 20), (-4, 50, 20, 30), (10, 10, 76, 76)])
def test_clearing_covers_the_box_and_little_else(box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(1)
    picture = np.dstack([textured(3), textured(4)[..., 0]])[:96, :96].copy()
    x, y, w, h = box
    picture[y : y + h, max(x, 0) : x + w] = 255
    before = picture.copy()
    synthesis.clear(rng, picture, box)
    assert not (picture[y + 2 : y + h - 2, max(x, 0) + 2 : x + w - 2] == 255).any()
    rows, columns = np.nonzero((picture != before).any(axis=2))
    assert rows.min() >= y - 0.1 * h - 1
    assert rows.max() <= y + 1.1 * h + 1
    assert columns.min() >= x - 0.1 * w - 1
    assert columns.max() <= x + 1.1 * w + 1


def test_a_part_of_an_object_blends_in(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = np.full((60, 30, 4), (200, 60, 60, 240), np.uint8)
    mask = np.full((60, 30), 255, np.uint8)
    surroundings = np.full((20, 20, 4), (60, 120, 60, 70), np.uint8)

    def warmth(seed: int, share: float) -> np.ndarray:
        monkeypatch.setattr(synthesis, "BLENT", {"thermal": share, "rgb": 0.0})
        settled = synthesis.settle(np.random.default_rng(seed), patch, mask, surroundings)
        return settled[..., 3].mean(axis=1)

    for seed in range(20):
        plain, blent = warmth(seed, 0.0), warmth(seed, 1.0)
        assert np.ptp(plain) <= 1
        changed = np.abs(plain - blent) > 0.1 * np.abs(plain - 70)
        assert 0.1 < changed.mean() < 0.85
        middle = round(np.flatnonzero(changed).mean())
        assert abs(blent[middle] - 70) < 0.6 * abs(plain[middle] - 70)


def test_a_template_is_cut_by_the_box_that_its_prompt_tells(
    make: Callable[..., TrainingData],
) -> None:
    samples, box = make(), (200.0, 100.0, 40.0, 90.0)
    drawn = []
    for seed in range(40):
        window, prompt = samples._template(np.random.default_rng(seed), box)
        assert prompt[0] == pytest.approx(0.5, abs=0.01)
        assert prompt[1] == pytest.approx(0.5, abs=0.01)
        assert prompt[2] * prompt[3] == pytest.approx(0.25, rel=0.05)
        drawn.append(window.to_image(prompt))
    # Off by up to half of a tenth of the side, and larger or smaller by a twentieth or so.
    offsets = np.subtract(drawn, box)[:, :2]
    assert 2 < np.abs(offsets).max() < 12
    assert 0.02 < np.std(np.log(np.array(drawn)[:, 2] / 40)) < 0.1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_look_alikes_pass_before_the_target_or_behind_it(
    make: Callable[..., TrainingData], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(data, "IN_FRONT", share)
    monkeypatch.setattr(data, "_LOOK_ALIKES", [0, 0, 0, 0, 1.0])
    # A target lies in both scenes; what stands beside it is drawn behind it in the first.
    places, look = [], TrainingData._look

    def spy(self, rng, first, box, second, second_box):  # type: ignore[no-untyped-def]
        whole = [np.abs(np.subtract(layer.box(), second_box)).max() for layer in second.layers]
        if min(whole) == 0:  # else the frame cuts a part of the target off
            places.append((whole.index(0), len(whole)))
        return look(self, rng, first, box, second, second_box)

    monkeypatch.setattr(TrainingData, "_look", spy)
    samples = make(mix={"still": 0, "paste": 1, "video": 0}, absent=0.0)
    for i in range(20):
        samples[i]
    assert sum(layers for _, layers in places) > 40
    for at, layers in places:
        assert at == 0 if share else at >= layers - 2  # an occluder may come after it


def test_near_targets_lie_about_where_the_last_box_was(
    make: Callable[..., TrainingData],
) -> None:
    centres = {}
    for near in (0.0, 0.5, 1.0):
        samples = make(near=near, absent=0.0)
        boxes = torch.stack([samples[i]["box"] for i in range(60)])
        centres[near] = (boxes[:, :2] - 0.5).abs().amax(dim=1)
    # A quarter of 3 / 2 sides, in search regions of 4 sides, and their scale.
    assert centres[1.0].max() < 0.094 * 1.3
    assert 0.3 < (centres[0.5] < 0.094 * 1.3).float().mean() < 0.85
    assert (centres[0.0] < 0.094 * 1.3).float().mean() < 0.25


def test_the_box_of_a_layer_is_that_of_its_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((60, 40), np.uint8)
        cv2.ellipse(mask, (20, 30), (12, 25), 0, 0, 360, 255, cv2.FILLED)
        place = synthesis.about(
            (20, 30), (100, 90), tuple(rng.uniform(0.8, 1.5, 2)), rng.normal(0, 5), 0.1
        )
        layer = synthesis.Layer(np.full((60, 40, 4), 255, np.uint8), mask, place)
        scene = synthesis.Scene(np.zeros((200, 200, 4), np.uint8), np.eye(2, 3), (layer,))
        picture = scene.render(crop.Window(0, 0, 200), 200)
        rows, columns = np.nonzero(picture[..., 3] >= 128)
        found = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        assert layer.box() == pytest.approx(found, abs=1.2)


@pytest.mark.parametrize("corner", [(0, 40), (200, 90), (60, 0), (150, 198)])
def test_the_frame_cuts_off_a_layer_and_its_box(corner: tuple[int, int]) -> None:
    mask = np.full((60, 40), 255, np.uint8)
    place = synthesis.about((20, 30), corner, (1.0, 1.0), 4)
    layer = synthesis.Layer(np.full((60, 40, 4), 255, np.uint8), mask, place)
    camera = synthesis.about((100, 100), (100, 100), (0.98, 0.98), 3)
    scene = synthesis.Scene(np.full((200, 200, 4), 50, np.uint8), camera, (layer,))
    picture = scene.render(crop.Window(-50, -50, 300), 300)
    frame = synthesis.Scene(scene.background, camera).render(crop.Window(-50, -50, 300), 300)
    assert not picture[frame[..., 0] == 0].any()
    rows, columns = np.nonzero(picture[..., 3] >= 192)
    found = columns.min() - 50, rows.min() - 50, np.ptp(columns) + 1, np.ptp(rows) + 1
    assert scene.box(layer) == pytest.approx(found, abs=1.5)
    w, h = layer.box()[2:]
    assert w * h > 1.3 * found[2] * found[3]
    away = synthesis.Layer(layer.patch, mask, synthesis.about((20, 30), (-80, 100), (1, 1)))
    with pytest.raises(ValueError, match="outside of the frame"):
        scene.box(away)


@pytest.mark.parametrize("window", [crop.Window(30, 20, 60), crop.Window(-10, 50, 91)])
def test_a_scene_is_cut_as_the_tracker_cuts_a_frame(window: crop.Window) -> None:
    frame = np.dstack([textured(1), textured(2)[..., 0]])
    scene = synthesis.Scene(frame, np.eye(2, 3))
    for size in (48, 96):
        tracked = crop.extract(frame, window, size).astype(int)
        difference = np.abs(scene.render(window, size).astype(int) - tracked)
        # The frame's edge may fall within a pixel of a reduced crop.
        assert np.quantile(difference, 0.97) <= 2


def test_only_one_modality_fails_and_padding_stays_black(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(degradation, "VEILED", 0.0)
    severe = {**INTACT["severe"], "dead": 1.0}
    damage = data._degradation({**INTACT, "severe": severe, "smoke_on_rgb": 0.5})
    failed = set()
    for seed in range(30):
        picture = np.dstack([textured(seed), textured(seed + 50)[..., 0]])[:96, :96].copy()
        picture[:, :20] = 0
        search, template = picture.copy(), picture[:48, :48].copy()
        damage.apply(np.random.default_rng(seed), template, search, picture[:, 30:60])
        assert not search[:, :20].any()
        changed = [bool((search != picture)[..., part].any()) for part in (slice(3), slice(3, 4))]
        assert sum(changed) == 1
        failed.add(changed[0])
    assert failed == {True, False}


@pytest.mark.parametrize("shared", [True, False])
def test_modalities_change_alike_on_request(shared: bool) -> None:
    """Both show the same here, and no longer do if each is changed for itself."""
    options = {"brightness": 0.3, "contrast": 0.3, "shared": shared}
    damage = data._degradation({**INTACT, **options})
    picture = np.repeat(textured(1)[..., 1:2], 4, axis=2)[:96, :96].copy()
    search = picture.copy()
    damage.apply(np.random.default_rng(0), picture[:48, :48].copy(), search, picture)
    assert not np.array_equal(search, picture)
    assert np.array_equal(search[..., 1], search[..., 3]) == shared


@pytest.mark.parametrize("name", vars(degradation.Severities()))
def test_each_severe_degradation_hides_one_modality(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(degradation, "VEILED", 0.0)
    severe = {**INTACT["severe"], name: 1.0}
    damage = data._degradation({**INTACT, "severe": severe})
    for seed in range(6):
        picture = np.dstack([textured(seed), textured(seed + 50)[..., 0]])[:96, :96].copy()
        search = picture.copy()
        damage.apply(np.random.default_rng(seed), picture[:48, :48].copy(), search, picture)
        rgb, thermal = (search != picture)[..., :3].any(), (search != picture)[..., 3].any()
        assert rgb != thermal


def test_a_modality_that_shows_nothing_spares_the_other() -> None:
    damage = data._degradation({**INTACT, "severe": {**INTACT["severe"], "night": 1.0}})
    picture = np.dstack([textured(1), np.full((HEIGHT, WIDTH), 40, np.uint8)])[:96, :96].copy()
    search = picture.copy()
    damage.apply(np.random.default_rng(0), picture[:48, :48].copy(), search, picture)
    assert np.array_equal(search, picture)


@pytest.mark.parametrize("died", [False, True])
def test_thin_smoke_may_lie_before_the_camera_that_is_left(
    died: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thermal camera shows nothing, or dies in the sample; RGB is veiled, but not hidden."""
    monkeypatch.setattr(degradation, "VEILED", 1.0)
    severe = {**INTACT["severe"], "dead" if died else "smoke": 1.0}
    damage = data._degradation({**INTACT, "severe": severe, "smoke_on_rgb": 0.0 if died else 1.0})
    thermal = textured(2)[..., 0] if died else np.full((HEIGHT, WIDTH), 40, np.uint8)
    picture = np.dstack([textured(1), thermal])[:96, :96].copy()
    lost = []
    for seed in range(30):
        search, template = picture.copy(), picture[:48, :48].copy()
        damage.apply(np.random.default_rng(seed), template, search, picture)
        assert np.array_equal(template[..., :3], picture[:48, :48, :3])
        assert (search[..., :3] != picture[..., :3]).any()
        assert (search[..., 3] != picture[..., 3]).any() == died
        seen = np.corrcoef(search[..., 1].ravel(), picture[..., 1].ravel())[0, 1]
        lost.append(1 - seen)
    assert 0.01 < np.median(lost) < 0.5


def test_warm_persons_are_found_and_tracked(make: Callable[..., TrainingData]) -> None:
    thermal = textured(3, (60, 60, 60))
    person(thermal, 50, 40)
    (found,) = blobs.warm_blobs(thermal[..., 0].copy())
    assert blobs.overlap(found.box, (51, 40, 13, 41)) > 0.75
    assert blobs.warm_blobs(textured(3, (60, 60, 60))[..., 0].copy()) == []

    tracks = make().recordings.tracks
    (walk,) = (t for t in tracks if t.name.startswith("rgbt_video/walk"))
    assert len(walk.images) > 20
    for frame, box in zip(walk.frames[3:-3], walk.boxes[3:-3], strict=True):
        truth = 11 + 2 * frame, 60, 13, 41
        assert blobs.overlap(tuple(round(v) for v in box), truth) > 0.6


def test_boxes_and_held_out_recordings(make: Callable[..., TrainingData]) -> None:
    everything = make().recordings
    (ride,) = (t for t in everything.tracks if t.name.startswith("rgb_video/Ride"))
    # The seventh frame is marked as lost.
    assert ride.frames == [0, 3, 9]
    assert ride.boxes[1] == [23, 30.5, 24, 36]
    (car,) = (t for t in everything.tracks if t.name.startswith("rgb_video/car"))
    assert (ride.split, car.split) == ("train", "validation")
    assert all(t.split == "train" for tracks in make().tracks.values() for t in tracks)


def test_the_evaluation_recordings_are_refused(root: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "rgbt_eval" / "data"
    evaluation.mkdir(parents=True)
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_data(evaluation, cache=tmp_path / "cache")
    tree = tmp_path / "tree"
    tree.mkdir()
    write(evaluation / "set/visible/0.png", textured(0))
    (tree / "rgbt_stills").symlink_to(evaluation)
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_data(tree, cache=tmp_path / "cache", strict=True)
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_data(tree, cache=tmp_path / "cache")


def small(root: Path) -> Path:
    """One set of two stills."""
    for k in range(2):
        for stream in ("visible", "infrared"):
            write(root / "rgbt_stills/tno" / stream / f"{k}.png", textured(k))
    return root


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of training data"):
        open_data(tmp_path / "nowhere", cache=tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to train on"):
        open_data(tmp_path / "empty", cache=tmp_path / "cache")

    root = small(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="rgbt_stills/llvip"):
        open_data(root, cache=tmp_path / "cache", strict=True)
    broken = root / "rgbt_stills/tno/infrared/0.png"
    broken.write_bytes(b"not a picture")
    samples = open_data(root, cache=tmp_path / "cache")
    assert any(str(broken) in problem for problem in samples.problems)
    assert [still.name for still in samples.recordings.stills] == ["rgbt_stills/tno/visible/1.png"]


def test_a_bad_box_is_named(tmp_path: Path) -> None:
    root = small(tmp_path / "data")
    write_video(root / "rgb_video/Ride/visible.mp4", [textured(0)] * 9)
    truth = root / "rgb_video/Ride/groundtruth_rect.txt"
    truth.write_text("10,10,20,20\n10,10,20,20\n10,10,20,20\n10,10,0,20\n" + "9,9,20,20\n" * 5)
    samples = open_data(root, cache=tmp_path / "cache")
    assert any(f"{truth}:4: bad box" in problem for problem in samples.problems)
    assert [track.frames for track in samples.recordings.tracks] == [[0, 6]]
    truth.write_text("10,10,20\n")
    samples = open_data(root, cache=tmp_path / "cache")
    assert any(f"{truth}:1: expected a box" in problem for problem in samples.problems)


def test_the_cache_is_made_once_and_follows_the_files(tmp_path: Path) -> None:
    root, cache = small(tmp_path / "data"), tmp_path / "cache"
    first = open_data(root, cache=cache)[0]
    (made,) = cache.glob("*.bin")
    before = made.stat().st_mtime_ns
    begun = open_data(root, cache=cache)  # its pixels are not opened yet
    assert equal(first, open_data(root, cache=cache)[0])
    assert made.stat().st_mtime_ns == before
    write(root / "rgbt_stills/tno/visible/1.png", textured(5, (200, 40, 40)))
    again = open_data(root, cache=cache).recordings
    assert len(list(cache.glob("*.bin"))) == 2
    assert equal(first, begun[0])
    assert np.array_equal(again.image(again.stills[1].image)[..., :3], textured(5, (200, 40, 40)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split is"),
        ({"mix": {"stills": 1.0}}, "mix knows"),
        ({"mix": {"still": 0, "paste": 0, "video": 0}}, "can be made of the mix"),
        ({"absent": 1.0}, "absent is a share"),
        ({"degradation": {"fog": 1.0}}, "degradation: .*fog"),
        ({"degradation": {"severe": {"fog": 1.0}}}, "degradation: .*fog"),
        ({"near": 1.5}, "near is a share"),
        ({"centre_jitter": 4.0}, "move the target out"),
    ],
)
def test_bad_options_are_refused(
    make: Callable[..., TrainingData], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_the_contact_sheet_shows_every_sample(make: Callable[..., TrainingData]) -> None:
    samples = make(absent=0.0)
    sheet = contact_sheet([samples[i] for i in range(5)], columns=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (2 * 96 + 6), 3 * (48 + 4 + 96 + 8), 3)
    assert np.all(sheet == (0, 255, 0), axis=2).any()
    with pytest.raises(ValueError, match="no samples"):
        contact_sheet([])


def test_recordings_hold_the_pixels_of_the_files(make: Callable[..., TrainingData]) -> None:
    everything = make().recordings
    still = next(s for s in everything.stills if s.name.endswith("msrs/visible/003.png"))
    assert np.array_equal(everything.image(still.image)[..., :3], textured(3))
    assert everything.image(still.image).shape == (HEIGHT, WIDTH, 4)
    assert reading.EVALUATION == "rgbt_eval"
