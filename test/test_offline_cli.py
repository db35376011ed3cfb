# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet scenes`, `evaluate` and `track` on recordings made here, with a small real network."""

import json
import os
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from networks import tiny

from ainet_ros.cli import main
from ainet_ros.evaluation import metrics, one_pass
from ainet_ros.tracker import State, Tracker, weights
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision.benchmarks import open_benchmark
from ainet_ros.vision.registration import Calibration, Registration
from ainet_ros.vision.scenes import ATTRIBUTES, Scene
from ainet_ros.vision.scenes.collection import drawn_attributes
from ainet_ros.vision.sources import open_source

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two sequences and of one folder that is none; weights beside it."""
    root = tmp_path_factory.mktemp("set")
    for seed in (0, 1):
        scene = Scene(seed, frames=COUNT, size=(160, 120))
        scene.write(root / "sequences" / scene.name)
    (root / "sequences" / "notes").mkdir()
    weights.save(tiny(), root / "tiny.safetensors")
    return root / "sequences"


def options(folder):
    return ["--weights", str(folder.parent / "tiny.safetensors")]


class TestOnePass:
    @pytest.fixture
    def tracker(self):
        return Tracker(tiny())

    def test_starts_from_the_given_box(self, folder, tracker):
        source = open_source(folder / "scene_0")
        start = source.boxes[0].tolist()
        steps = []
        result = one_pass.run(tracker, source, start, on_step=steps.append)
        assert result.boxes.shape == (COUNT, 4)
        assert result.boxes[0].tolist() == start
        assert np.isnan(result.scores[0])
        assert ((result.scores[1:] >= 0) & (result.scores[1:] <= 1)).all()
        assert result.fps > 0
        assert [step.frame.name for step in steps] == [frame.name for frame in source]
        assert [list(step.track.box) for step in steps] == result.boxes.tolist()

    def test_equals_the_tracker_by_hand(self, folder, tracker):
        source = open_source(folder / "scene_0")
        result = one_pass.run(tracker, source, source.boxes[0].tolist())
        other = Tracker(tiny())
        frames = list(source)
        other.init(frames[0].rgb, frames[0].thermal, source.boxes[0].tolist())
        by_hand = [other.track(frame.rgb, frame.thermal).box for frame in frames[1:]]
        assert result.boxes[1:].tolist() == [list(box) for box in by_hand]

    def test_streams(self, folder, tracker):
        source = open_source(folder / "scene_0")
        given = []

        class Spy(Tracker):
            def track(self, rgb, thermal):
                given.append((rgb, thermal))
                return super().track(rgb, thermal)

        for stream in one_pass.STREAMS:
            one_pass.run(Spy(tiny()), source, source.boxes[0].tolist(), stream=stream)
        steps = COUNT - 1
        both, rgb, thermal, no_rgb, no_thermal = (
            given[index : index + steps] for index in range(0, 5 * steps, steps)
        )
        frames = list(source)[1:]
        for frame, (first, second) in zip(frames, both, strict=True):
            assert np.array_equal(first, frame.rgb)
            assert np.array_equal(second, frame.thermal)
        for frame, (first, second) in zip(frames, rgb, strict=True):
            assert np.array_equal(first, frame.rgb)
            assert np.array_equal(second, frame.rgb)
        for frame, (first, second) in zip(frames, thermal, strict=True):
            assert np.array_equal(first, second)
            assert np.array_equal(first[..., 1], frame.thermal)
        for frame, (first, second) in zip(frames, no_rgb, strict=True):
            assert not first.any()
            assert np.array_equal(second, frame.thermal)
        for frame, (first, second) in zip(frames, no_thermal, strict=True):
            assert np.array_equal(first, frame.rgb)
            assert not second.any()
        with pytest.raises(ValueError, match="stream 'depth'"):
            one_pass.run(tracker, source, source.boxes[0].tolist(), stream="depth")

    def test_thermal_of_another_size_and_depth(self, tmp_path, tracker):
        scene = Scene(0, frames=3, size=(160, 120))
        scene.write(tmp_path)
        for file in (tmp_path / "infrared").iterdir():
            small = cv2.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), (80, 60))
            file.unlink()
            assert cv2.imwrite(str(file.with_suffix(".png")), small.astype(np.uint16) * 50)
        source = open_source(tmp_path)
        steps = []
        one_pass.run(tracker, source, scene.boxes[0].tolist(), on_step=steps.append)
        for step, frame in zip(steps, scene, strict=True):
            assert step.thermal.shape == (120, 160)
            assert step.thermal.dtype == np.uint8
            assert np.corrcoef(step.thermal.ravel(), frame.thermal.ravel())[0, 1] > 0.9
        with pytest.raises(ValueError, match="registration"):
            one_pass.run(
                tracker, source, scene.boxes[0].tolist(), registration=Registration("none")
            )


class TestEvaluate:
    def test_json(self, folder, tmp_path, capsys):
        results = tmp_path / "results"
        arguments = ["evaluate", str(folder), "--json", "--results", str(results)]
        assert main([*arguments, *options(folder)]) == 0
        printed = capsys.readouterr()
        assert "skipped" in printed.err
        assert "notes" in printed.err
        report = json.loads(printed.out)  # and nothing else on stdout
        assert list(report["sequences"]) == ["scene_0", "scene_1"]
        for name, row in report["sequences"].items():
            truth = open_source(folder / name).boxes
            score = metrics.score(box_files.read(results / f"{name}.txt"), truth)
            assert row["frames"] == COUNT
            assert row["auc"] == score.auc
            assert row["precision"] == score.precision
            assert row["normalized_precision"] == score.normalized_precision
            assert row["fps"] > 0
        for key in ("auc", "precision", "normalized_precision"):
            values = [row[key] for row in report["sequences"].values()]
            assert report["mean"][key] == pytest.approx(sum(values) / 2)

    def test_table_of_one_sequence(self, folder, capsys):
        arguments = ["evaluate", str(folder / "scene_1"), "--stream", "thermal"]
        assert main([*arguments, *options(folder)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["sequence", "scene_1", "mean"]
        assert lines[1].split()[1:5] == lines[2].split()[1:5]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["{folder}/notes"], "no sequence"),
            (["{folder}/nowhere"], "nowhere"),
            (["{folder}", "--weights", "{folder}/none.safetensors"], "none.safetensors"),
            (["{folder}", "--device", "gpu9"], "device 'gpu9'"),
            (["{folder}", "--device", "meta"], "device 'meta' is none of auto, cpu, cuda"),
        ],
    )
    def test_bad_input(self, folder, capsys, arguments, message):
        filled = [argument.format(folder=folder) for argument in arguments]
        if "--weights" not in filled:
            filled += options(folder)
        assert main(["evaluate", *filled]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "error: " in printed.err
        assert message in printed.err


class TestTrack:
    def test_sequence_with_truth(self, folder, tmp_path, capsys):
        output = tmp_path / "out"
        arguments = ["track", str(folder / "scene_0"), "--output", str(output)]
        assert main([*arguments, *options(folder)]) == 0
        boxes = box_files.read(output / "boxes.txt")
        truth = open_source(folder / "scene_0").boxes
        assert boxes.shape == (COUNT, 4)
        assert boxes[0] == pytest.approx(truth[0], abs=1e-3)
        scores = np.loadtxt(output / "scores.txt")
        assert np.isnan(scores[0])
        assert ((scores[1:] > 0) & (scores[1:] < 1)).all()
        video = cv2.VideoCapture(str(output / "track.mp4"))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == COUNT
        assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 160
        assert cv2.imread(str(output / "score.png")).std() > 5
        printed = capsys.readouterr().out
        assert f"{COUNT} frames" in printed
        assert f"success (AUC) {metrics.score(boxes, truth).auc:.3f}" in printed

    def test_same_boxes_as_evaluate(self, folder, tmp_path):
        assert main(["evaluate", str(folder / "scene_0"), "--results", str(tmp_path),
                     *options(folder)]) == 0  # fmt: skip
        assert main(["track", str(folder / "scene_0"), "--output", str(tmp_path / "out"),
                     *options(folder)]) == 0  # fmt: skip
        evaluated = (tmp_path / "scene_0.txt").read_text()
        assert (tmp_path / "out" / "boxes.txt").read_text() == evaluated

    def test_video_with_a_box_and_a_calibration(self, tmp_path, folder, capsys):
        scene = Scene(0, frames=3, size=(160, 120))
        for name in ("visible", "infrared"):
            file = str(tmp_path / f"{name}.mp4")
            video = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
            for frame in scene:
                image = frame.rgb if name == "visible" else np.stack([frame.thermal] * 3, axis=2)
                video.write(np.ascontiguousarray(image[..., ::-1]))
            video.release()
        Calibration(np.eye(3), (160, 120), (160, 120)).save(tmp_path / "calibration.yaml")
        command = ["track", str(tmp_path), "--output", str(tmp_path / "out"), *options(folder)]
        assert main(command) == 2
        assert "give --box" in capsys.readouterr().err
        box = ",".join(f"{value:.1f}" for value in scene.boxes[0])
        calibration = ["--calibration", str(tmp_path / "calibration.yaml")]
        assert main([*command, "--box", box, *calibration]) == 0
        assert len(box_files.read(tmp_path / "out" / "boxes.txt")) == 3
        assert "AUC" not in capsys.readouterr().out

    def test_starts_where_an_evaluation_does(self, folder, tmp_path, capsys):
        """From init.txt, also where the first box of the RGB images is none."""
        shutil.copytree(folder / "scene_0", tmp_path / "clip")
        rows = (tmp_path / "clip" / "visible.txt").read_text().splitlines(keepends=True)
        (tmp_path / "clip" / "visible.txt").write_text("".join(["nan,nan,nan,nan\n", *rows[1:]]))
        command = ["track", str(tmp_path / "clip"), "--output", str(tmp_path / "out")]
        for init in ((40.0, 30.0, 20.0, 25.0), (0.0, 0.0, 0.0, 0.0)):
            box_files.write(tmp_path / "clip" / "init.txt", [init])
            assert main([*command, *options(folder)]) == (0 if any(init) else 2)
            assert box_files.read(tmp_path / "out" / "boxes.txt")[0].tolist() == [40, 30, 20, 25]
        assert "no true box to start from: give --box" in capsys.readouterr().err

    def test_options_come_before_what_was_recorded(self, folder, tmp_path, capsys, monkeypatch):
        pytest.importorskip("rosbags", reason="needs rosbags")
        import bags

        source = open_source(folder / "scene_0")
        bags.write_run(tmp_path / "bag", source, source.boxes[0])
        (tmp_path / "bag" / "parameters.yaml").write_text(
            "/**: {ros__parameters: {device: 'cuda:9', precision: float32, compile: true}}"
        )
        load, given = Tracker.load, []

        def spy(name, *how):
            given.append(how)
            return load(name, *how)

        monkeypatch.setattr(Tracker, "load", spy)
        command = ["track", str(tmp_path / "bag"), "--output", str(tmp_path), *options(folder)]
        assert main(command) == 2
        assert "device cuda:9" in capsys.readouterr().err
        assert main([*command, "--device", "auto", "--precision", "auto", "--no-compile"]) == 0
        assert given == [("cuda:9", "float32", True), ("auto", "auto", False)]
        assert f"target 1 as recorded in {COUNT} pairs" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ("1,2,3", "four numbers"),
            ("1,2,x,4", "four numbers"),
            ("1,2,0,4", "must be positive"),
            ("nan,1,2,3", "must be finite"),
        ],
    )
    def test_bad_boxes(self, folder, capsys, box, message):
        with pytest.raises(SystemExit) as stopped:
            main(["track", str(folder / "scene_0"), "--box", box])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert box in said
        assert message in said

    def test_box_outside_the_image(self, folder, tmp_path, capsys):
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path)]
        assert main([*command, "--box", "900,900,20,20", *options(folder)]) == 2
        assert "outside" in capsys.readouterr().err

    def test_output_that_cannot_be_written(self, folder, tmp_path, capsys):
        (tmp_path / "file").touch()
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path / "file" / "out")]
        assert main([*command, *options(folder)]) == 2
        assert str(tmp_path / "file") in capsys.readouterr().err

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_full_disk(self, folder, tmp_path, capsys):
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path)]
        for name, suffix in (("boxes.txt", ""), ("scores.txt", ""), ("score.png", ".png")):
            full = tmp_path / f"{name}.{os.getpid()}.partial{suffix}"
            full.symlink_to("/dev/full")
            assert main([*command, *options(folder)]) == 2
            assert f"No space left on device: '{tmp_path / name}'" in capsys.readouterr().err

    def test_a_failure_leaves_the_result_before_it(self, folder, tmp_path, capsys):
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path), *options(folder)]
        assert main(command) == 0
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert len(before) == 4
        assert main([*command, "--box", "900,900,20,20"]) == 2
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    def test_what_was_tracked_before_ctrl_c_is_written(
        self, folder, tmp_path, capsys, monkeypatch
    ):
        track, calls = Tracker.track, []

        def interrupted(self, rgb, thermal):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return track(self, rgb, thermal)

        monkeypatch.setattr(Tracker, "track", interrupted)
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path)]
        assert main([*command, *options(folder)]) == 130
        assert f"stopped after 3 of {COUNT} frames" in capsys.readouterr().out
        assert len(box_files.read(tmp_path / "boxes.txt")) == 3
        assert len(np.loadtxt(tmp_path / "scores.txt")) == 3
        video = cv2.VideoCapture(str(tmp_path / "track.mp4"))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
        assert (tmp_path / "score.png").is_file()

    def test_lost_frames_are_counted(self, folder, tmp_path, capsys, monkeypatch):
        track = Tracker.track

        def unsure(self, rgb, thermal):
            self.set_thresholds(1.0, 1.0)
            return track(self, rgb, thermal)

        monkeypatch.setattr(Tracker, "track", unsure)
        command = ["track", str(folder / "scene_0"), "--output", str(tmp_path)]
        assert main([*command, *options(folder)]) == 0
        assert f"{COUNT - 1} {State.LOST.value}" in capsys.readouterr().out


class TestScenes:
    def test_writes_a_sequence(self, tmp_path, capsys):
        arguments = ["scenes", str(tmp_path / "clip"), "--seed", "5", "--frames", "2"]
        assert main([*arguments, "--attributes", "night,speed"]) == 0
        source = open_source(tmp_path / "clip")
        scene = Scene(5, frames=2, attributes=("night", "speed"))
        assert source.boxes == pytest.approx(scene.boxes, abs=1e-3)
        assert "2 frames" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("extra", "message"),
        [(["--attributes", "fog"], "no scene attribute fog"), (["--frames", "0"], "0 frames")],
    )
    def test_bad_arguments(self, tmp_path, capsys, extra, message):
        assert main(["scenes", str(tmp_path / "clip"), *extra]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "clip").exists()

    def test_folder_that_is_taken(self, tmp_path, capsys):
        (tmp_path / "visible").mkdir()
        assert main(["scenes", str(tmp_path), "--frames", "2"]) == 2
        assert "visible" in capsys.readouterr().err


class TestCollectionOfScenes:
    def test_is_a_benchmark_with_attributes(self, tmp_path, capsys):
        arguments = ["scenes", str(tmp_path / "set"), "--seed", "3", "--frames", "2"]
        assert main([*arguments, "--count", "4", "--workers", "2"]) == 0
        assert "4 recordings of 2 frames" in capsys.readouterr().out
        found = open_benchmark(tmp_path / "set")
        assert [s.name for s in found.sequences] == [f"scene_{seed}" for seed in range(3, 7)]
        assert not found.problems
        for seed, sequence in zip(range(3, 7), found.sequences, strict=True):
            assert sequence.attributes == set(drawn_attributes(seed))
            scene = Scene(seed, frames=2, attributes=sequence.attributes)
            assert sequence.visible == pytest.approx(scene.boxes, abs=1e-3)

    def test_the_installed_command_has_workers(self, tmp_path):
        command = shutil.which("ainet")
        assert command, "the command is not on the path: source env.sh"
        arguments = ["scenes", str(tmp_path), "--frames", "2", "--count", "2", "--workers", "2"]
        subprocess.run([command, *arguments], check=True, capture_output=True, timeout=120)
        assert len(open_benchmark(tmp_path).sequences) == 2

    def test_goes_on_where_it_was_stopped(self, tmp_path, capsys):
        arguments = ["scenes", str(tmp_path / "set"), "--frames", "2"]
        assert main([*arguments, "--count", "1"]) == 0
        first = tmp_path / "set" / "scene_0"
        made = first.stat().st_ino
        # What a killed run leaves.
        (tmp_path / "set" / ".partial" / "scene_1" / "visible").mkdir(parents=True)
        assert main([*arguments, "--count", "2"]) == 0
        assert first.stat().st_ino == made
        assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
            "attr_txt", "scene_0", "scene_1"
        ]  # fmt: skip
        shutil.copytree(first, tmp_path / "set" / "scene_0_old")
        assert main([*arguments, "--count", "2"]) == 0
        names = (tmp_path / "set" / "attr_txt" / "SequencesName.txt").read_text().split()
        assert names == ["scene_0", "scene_1"]
        assert main([*arguments, "--count", "2", "--attributes", "night"]) == 2
        assert "scene_0: holds another recording" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            (["--count", "0"], "--count 0"),
            (["--count", "2", "--workers", "0"], "0 workers"),
            (["--count", "2", "--attributes", "fog"], "no scene attribute fog"),
            (["--count", "2", "--seed", "-1"], "--seed -1"),
        ],
    )
    def test_bad_arguments(self, tmp_path, capsys, extra, message):
        assert main(["scenes", str(tmp_path / "set"), *extra]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "set").exists()


def test_every_attribute_is_drawn_about_as_often():
    drawn = [drawn_attributes(seed) for seed in range(200)]
    for name in ATTRIBUTES:
        assert 50 <= sum(name in names for names in drawn) <= 90


def test_real_sequence(shared, folder, capsys):
    sequence = shared / "data" / "rgbt_eval" / "runner_small"
    assert main(["evaluate", str(sequence), "--json", *options(folder)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sequences"]["runner_small"]["frames"] == 46
    assert 0 < report["mean"]["auc"] < 1
