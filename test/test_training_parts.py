# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Training on benchmarks, on other folders with boxes, and on parts that a configuration names."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_training_data import INTACT, textured, write, write_video

from ainet_ros.training import data, reading
from ainet_ros.training.config import TrainConfig
from ainet_ros.training.data import TrainingData
from ainet_ros.training.parts import Parts
from ainet_ros.training.recordings import Recordings, Unreadable
from ainet_ros.vision.thermal import ToneMap

ROOT = Path(__file__).resolve().parents[1]
EXACT = dict(
    template_size=48, search_size=96, absent=0.0, centre_jitter=0.0, scale_jitter=0.0,
    template_centre_jitter=0.0, template_scale_jitter=0.0, degradation=INTACT,
)  # fmt: skip


def frame(number: int) -> np.ndarray:
    """A red square of 20 pixels that moves two to the right with each frame."""
    image = textured(3)
    image[50:70, 20 + 2 * number : 40 + 2 * number] = (250, 10, 10)
    return image


def sequence(folder: Path, frames: int = 8, boxes: str | None = None) -> Path:
    """A recording as LasHeR has it."""
    for k in range(frames):
        write(folder / "visible" / f"v{k:04}.png", frame(k))
        write(folder / "infrared" / f"i{k:04}.png", np.full((120, 160, 3), 10 * k, np.uint8))
    text = boxes or "".join(f"{20 + 2 * k},50,20,20\n" for k in range(frames))
    for name in ("visible", "infrared", "init"):
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def lasher(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("one", "two"):
        sequence(root / "lasher" / name)
    return root


def open_parts(root: Path, strict: bool = False, **parts: object) -> Recordings:
    return Recordings(root, root.parent / "cache", Parts.of(**parts), strict)


def red(image: np.ndarray) -> tuple[float, ...]:
    """x, y, w, h of what is red."""
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 80))
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_a_benchmarks_images_are_read_when_they_are_needed(lasher: Path) -> None:
    found = open_parts(lasher, videos={"lasher": {"validation": ["two"]}})
    assert [(t.name, t.split) for t in found.tracks] == [
        ("lasher/one#0", "train"),
        ("lasher/two#0", "validation"),
    ]
    track = found.tracks[0]
    assert track.frames == list(range(8))
    image = found.frame(track, 5)
    assert image.shape == (120, 160, 4)
    assert red(image) == tuple(track.boxes[5]) == (30, 50, 20, 20)
    assert (image[..., 3] == 50).all()
    (pixels,) = (lasher.parent / "cache").glob("*.bin")
    assert pixels.stat().st_size == 0

    samples = TrainingData(lasher, cache=lasher.parent / "cache", videos={"lasher": 1.0}, **EXACT)
    for i in range(10):
        search = samples[i]["search"][0].permute(1, 2, 0).numpy()
        # The target spans a quarter of the search region, in its middle.
        assert red(search) == pytest.approx((36, 36, 24, 24), abs=2)


def test_pairs_are_within_the_largest_gap(lasher: Path) -> None:
    samples = TrainingData(
        lasher, cache=lasher.parent / "cache", videos={"lasher": 1.0}, largest_gap=1, **EXACT
    )
    gaps = set()
    for i in range(40):
        template, search = (samples[i][name][1, 0].max().item() for name in ("template", "search"))
        gaps.add(abs(template - search) // 10)  # thermal grows by 10 with each frame
    assert gaps == {0, 1}


def test_where_the_target_is_absent_no_frame_of_its_recording_is_shown(
    lasher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of another target's folder that has links to them."""
    monkeypatch.setattr(data, "CLEARED", 0.0)
    part = lasher / "lasher"
    shutil.rmtree(part / "two")
    again = sequence(part / "one-2")
    for stream in ("visible", "infrared"):
        shutil.rmtree(again / stream)
        (again / stream).symlink_to(part / "one" / stream)
    for k, path in enumerate(sorted((sequence(part / "warm") / "infrared").iterdir())):
        write(path, np.full((120, 160, 3), 200 + k, np.uint8))
    samples = TrainingData(
        lasher,
        cache=lasher.parent / "cache",
        videos={"lasher": {"validation": []}},
        **EXACT | {"absent": 0.999},
    )
    warm = [
        {name: bool(sample[name][1, 0].max() >= 200) for name in ("template", "search")}
        for sample in map(samples.__getitem__, range(40))
    ]
    assert all(sample["template"] != sample["search"] for sample in warm)
    assert {sample["template"] for sample in warm} == {True, False}


def test_sparse_labels_and_every_nth_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "data/vtuav/bike"
    for k in range(41):
        write(folder / "rgb" / f"{k:06}.png", frame(k // 10))
        write(folder / "ir" / f"{k:06}.png", textured(1))
    for name in ("rgb.txt", "ir.txt"):
        (folder / name).write_text("".join(f"{20 + 2 * k} 50 20 20\n" for k in range(5)))
    (track,) = open_parts(tmp_path / "data", videos={"vtuav": 1.0}).tracks
    assert track.frames == [0, 10, 20, 30, 40]
    (track,) = open_parts(tmp_path / "data", videos={"vtuav": {"every": 2}}).tracks
    assert track.frames == [0, 20, 40]


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_a_small_copy_is_kept_on_request(tmp_path: Path, kind: str) -> None:
    folder = sequence(tmp_path / "data/mine/walk")
    if kind == "videos":
        for name in ("visible", "infrared"):
            files = sorted((folder / name).iterdir())
            images = [cv2.imread(str(file))[..., ::-1] for file in files]
            write_video(folder / f"{name}.mp4", images)
            for file in files:
                file.unlink()
            (folder / name).rmdir()
    found = open_parts(tmp_path / "data", videos={"mine": {"cached": 80, "every": 3}})
    (track,) = found.tracks
    assert track.frames == [0, 3, 6]
    assert track.boxes[1] == [13, 25, 10, 10]
    assert found.frame(track, 1).shape == (60, 80, 4)
    assert red(found.frame(track, 1)) == pytest.approx(track.boxes[1], abs=1)


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_one_modality_as_images(tmp_path: Path, modality: str) -> None:
    stream = {"rgb": "visible", "thermal": "ir"}[modality]
    for k in range(6):
        write(tmp_path / "data/single/run" / stream / f"{k + 7}.png", frame(k))  # 9 before 10
    (tmp_path / "data/single/run" / stream / "Thumbs.db").write_bytes(b"no image")
    truth = "".join(f"{20 + 2 * k},50,20,20\n" for k in range(6))
    (tmp_path / "data/single/run/groundtruth.txt").write_text(truth)
    videos = {"single": {"modality": modality, "every": 2}}
    found = open_parts(tmp_path / "data", videos=videos)
    (track,) = found.tracks
    assert track.frames == [0, 2, 4]
    assert found.frame(track, 0).shape == (120, 160, 3 if modality == "rgb" else 1)
    for number, k in enumerate(track.frames):
        expected = frame(k) if modality == "rgb" else reading.grey(frame(k))
        assert np.array_equal(found.frame(track, number).squeeze(), expected)
    samples = TrainingData(tmp_path / "data", cache=tmp_path / "c", videos=videos, **EXACT)
    assert samples[0]["search"].float().std() > 0


def test_crops_of_a_folder_and_of_a_new_class(tmp_path: Path) -> None:
    for k in range(30):
        for stream in "vi":
            write(tmp_path / f"data/crops/boat/{k}_{stream}.png", textured(k)[:60, :40])
    for stream in ("visible", "infrared"):
        for k in range(4):
            write(tmp_path / "data/places" / stream / f"{k}.png", textured(50 + k))
    samples = TrainingData(
        tmp_path / "data",
        cache=tmp_path / "cache",
        stills={"places": {"validation": 0.0}},
        crops=["crops"],
        mix={"still": 0.0},
    )
    assert set(samples.cutouts) == {"boat"}
    assert samples.mix == {"still": 0, "paste": 1, "video": 0}
    assert samples[0]["search"].float().std() > 0


def test_thermal_counts_are_seen_as_the_tracker_sees_them(tmp_path: Path) -> None:
    counts = (7400 + 10 * textured(3)[..., 0].astype(np.uint16)).astype(np.uint16)
    write(tmp_path / "data/places/visible/0.png", textured(3))
    (tmp_path / "data/places/infrared").mkdir()
    cv2.imwrite(str(tmp_path / "data/places/infrared/0.png"), counts)
    found = open_parts(tmp_path / "data", stills={"places": {"validation": 0.0}})
    assert np.array_equal(found.image(found.stills[0].image)[..., 3], ToneMap()(counts))


def test_recordings_held_out_by_a_name_that_is_none_are_named(lasher: Path) -> None:
    videos = {"lasher": {"validation": ["two", "three"]}}
    text = "lasher: no three to hold out for validation"
    assert text in open_parts(lasher, videos=videos).problems
    with pytest.raises(ValueError, match=text):
        open_parts(lasher, strict=True, videos=videos)
    assert open_parts(lasher, videos={"lasher": {"validation": ["two"]}}).problems == []


def test_crops_that_are_no_zip_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/crops.zip").write_bytes(b"half of a download")
    for k in range(4):
        for stream in ("visible", "infrared"):
            write(tmp_path / "data/places" / stream / f"{k}.png", textured(50 + k))
    found = open_parts(
        tmp_path / "data", stills={"places": {"validation": 0.0}}, crops=["crops.zip"]
    )
    assert any("crops.zip: neither a folder nor a zip file" in p for p in found.problems)


def test_a_broken_image_is_named_and_another_one_taken(
    lasher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, missing = (lasher / "lasher/one/visible" / f"v000{k}.png" for k in (3, 4))
    broken.write_bytes(b"not a picture")
    options = {"cache": lasher.parent / "cache", "videos": {"lasher": 1.0}, **EXACT}
    samples = TrainingData(lasher, **options)
    missing.unlink()
    for i in range(40):
        assert samples[i]["search"].float().std() > 0
    for path in (broken, missing):
        assert sum(str(path) in message for message in caplog.messages) == 1
    write(missing, frame(4))
    strict = TrainingData(lasher, strict=True, **options)
    with pytest.raises(Unreadable, match=str(broken)):
        [strict[i] for i in range(40)]
    for path in (lasher / "lasher").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="10 frames in a row cannot be read"):
        samples[0]


def test_faults_of_a_benchmark_are_named(lasher: Path) -> None:
    sequence(lasher / "lasher/small", boxes="20,50,20,20\n" + "20,50,2,20\n" * 3)
    sequence(lasher / "lasher/short").joinpath("infrared/i0007.png").unlink()
    sequence(lasher / "lasher/outside", boxes="20,50,20,20\n900,50,20,20\n")
    found = open_parts(lasher, videos={"lasher": 1.0})
    assert {t.name for t in found.tracks} == {
        "lasher/one#0", "lasher/two#0", "lasher/outside#0"
    }  # fmt: skip
    told = "\n".join(found.problems)
    assert "lasher/small: 3 bad boxes, of less than 4 pixels" in told
    assert "lasher/small: fewer than two frames with a box" in told
    assert "short: visible has 8 images, infrared 7" in told
    outside = next(t for t in found.tracks if "outside" in t.name)
    with pytest.raises(Unreadable, match=r"lasher/outside#0: bad box of frame 1: \[900.0"):
        found.frame(outside, 1)
    with pytest.raises(ValueError, match=r"small|short"):
        open_parts(lasher, strict=True, videos={"lasher": 1.0})
    with pytest.raises(FileNotFoundError, match=r"nothing to train on .*nowhere: no such folder"):
        open_parts(lasher, videos={"nowhere": 1.0})


def test_the_evaluation_recordings_are_no_benchmark_to_train_on(tmp_path: Path) -> None:
    sequence(tmp_path / "rgbt_eval/run")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").symlink_to(tmp_path / "rgbt_eval")
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_parts(tmp_path / "data", videos={"mine": 1.0})
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_parts(tmp_path, videos={".": 1.0})
    sequence(tmp_path / "data/yours/walk")
    (tmp_path / "data/yours/run").symlink_to(tmp_path / "rgbt_eval/run")
    with pytest.raises(ValueError, match="rgbt_eval is for evaluation only"):
        open_parts(tmp_path / "data", videos={"yours": 1.0})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"videos": {"a": {"speed": 1}}}, "videos: a: .*speed"),
        ({"videos": {"a": {"modality": "sonar"}}}, "videos: a: modality 'sonar' is none of"),
        ({"videos": {"a": {"modality": "rgb", "labels": "warm"}}}, "videos: a: labels 'warm'"),
        ({"videos": {"a": {"validation": "b"}}}, "videos: a: validation is a share or a list"),
        ({"videos": {"a": {"validation": [39785]}}}, "39785 is no name: write it in quotes"),
        ({"crops": "objects.zip"}, r"crops: expected a list, \[objects.zip\]"),
        ({"stills": {"a": {"warm": True, "every": 2}}}, "stills: a: .*every"),
        ({"stills": {"a": "much"}}, "stills: a: could not convert"),
    ],
)
def test_bad_parts_are_named(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Parts.of(**parts)


def test_parts_that_are_not_named_are_none() -> None:
    with pytest.raises(ValueError, match="no videos, stills or crops"):
        Parts.of()
    assert Parts.of(crops=["a"]) == Parts({}, {}, ("a",))


def test_two_processes_do_not_make_one_cache_at_once(
    lasher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    running, most = [0], [0]
    build = reading.Builder.build

    def slow(self: reading.Builder, *args: object) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        build(self, *args)
        running[0] -= 1

    monkeypatch.setattr(reading.Builder, "build", slow)
    videos = {"lasher": {"cached": 160}}
    threads = [
        threading.Thread(target=open_parts, args=(lasher,), kwargs={"videos": videos})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(open_parts(lasher, videos=videos).tracks[0].images) == 8


@pytest.mark.parametrize("size", [256, 384])
def test_the_published_recipe(size: int) -> None:
    config = TrainConfig.read(ROOT / f"config/train/base_{size}.yaml")
    assert config.steps * config.batch == 15 * 60_000
    assert (config.lr, config.backbone_lr, config.weight_decay) == (1e-4, 1e-5, 1e-4)
    assert (config.batch, config.clip, config.schedule, config.box_at) == (16, 0.1, "step", "peak")
    assert vars(config.losses) == {"giou": 2.0, "l1": 5.0, "focal": 1.0, "presence": 0.0}
    assert config.preset == f"base_{size}"
    assert (config.dfm_lr, config.frozen_blocks, config.ema) == (None, 0, 0.0)
    assert config.truth_as == "published"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "config/train").glob("*.yaml")), ids=lambda p: p.stem
)
def test_each_configurations_data_are_understood(path: Path, lasher: Path) -> None:
    """On other folders, of the same options."""
    options = TrainConfig.read(path).data
    pairs = [
        part
        for part in options.get("videos", {"": 1.0}).values()
        if not isinstance(part, dict) or not {"modality", "labels"} & set(part)
    ]
    options = {**options, "videos": {"lasher": pairs[0]}, "stills": {}, "crops": []}
    samples = TrainingData(lasher, cache=lasher.parent / "cache", **options)
    assert samples[0]["search"].shape == (2, 3, 168, 168)
