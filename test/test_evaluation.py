# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Runs over benchmarks: what is run, by whom, what it leaves, and the report."""

import dataclasses
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import tiny
from test_benchmarks import LASHER, SAME, write_gtot, write_plain, write_vtuav
from tqdm import tqdm

import ainet_ros
from ainet_ros.cli import main
from ainet_ros.evaluation import failures, metrics, opencv, published, report, runner
from ainet_ros.evaluation.runner import Runner, Share
from ainet_ros.network.cost import count
from ainet_ros.tracker import State, Timing, Track, weights
from ainet_ros.vision import benchmarks
from ainet_ros.vision import boxes as box_files
from ainet_ros.vision.benchmarks import open_benchmark
from ainet_ros.vision.scenes import Scene

NAMES = ("a", "b", "c")
ALL = Share()


class Still:
    """A tracker that stays where it starts, and writes down the sequences it starts on."""

    device = torch.device("cpu")

    def __init__(self, diary):
        self._diary = diary

    def init(self, rgb, thermal, box):
        self._box = box
        with open(self._diary, "a") as file:
            file.write(f"{box[0]:g}\n")

    def track(self, rgb, thermal):
        return Track(self._box, 1.0, State.TRACKING, Timing(0.0, 0.0, 0.0))


def broken(text):
    raise ValueError(text)


@pytest.fixture
def root(tmp_path):
    """Three sequences, that start at x of 10, 11 and 12, with attributes."""
    (tmp_path / "AttriSeqsTxt").mkdir()
    for number, name in enumerate(NAMES):
        boxes = "".join(f"{10 + number},12,8,6\n" for _ in range(4))
        write_plain(tmp_path / "set" / name, dict.fromkeys(SAME, boxes), LASHER)
        flags = ",".join("1" if k in (0, number) else "0" for k in range(19))
        (tmp_path / "AttriSeqsTxt" / f"{name}.txt").write_text(flags)
    return tmp_path


class Run:
    """Runs a `Still` tracker over the set; `started` is what it started on."""

    def __init__(self, root):
        self.root, self.results = root, root / "results"
        self.sequences = open_benchmark(root / "set").sequences

    def __call__(self, maker="still", workers=1, share=ALL, strict=False, make=None):
        diary = self.root / "diary"
        diary.write_text("")
        make = make or partial(Still, str(diary))
        whole = Runner(make, {"tracker": maker}, "both", self.results, workers, share)
        with tqdm(total=0, disable=None) as self.bar:
            faults = whole.run(self.sequences, self.bar, strict)
        self.started = sorted(diary.read_text().split())
        return faults


class TestRunner:
    def test_files(self, root):
        run = Run(root)
        assert run() == {}
        assert run.started == ["10", "11", "12"]
        assert sorted(path.name for path in run.results.iterdir()) == [
            "a.json", "a.txt", "b.json", "b.txt", "c.json", "c.txt"
        ]  # fmt: skip
        assert (run.results / "b.txt").read_text() == "11.000,12.000,8.000,6.000\n" * 4
        results = runner.read(run.results, run.sequences[1])
        assert results.boxes.tolist() == [[11, 12, 8, 6]] * 4
        assert results.fps > 0
        assert (results.device, results.maker) == ("cpu", {"tracker": "still"})

    def test_complete_results_are_not_run_again(self, root):
        run = Run(root)
        run()
        run()
        assert run.started == []
        (run.results / "a.txt").unlink()
        (run.results / "c.txt").write_text("1,2,3,4\n" * 3)  # of 4 frames
        run()
        assert run.started == ["10", "12"]

    def test_results_of_another_maker_are_run_again(self, root):
        run = Run(root)
        run()
        run("other")
        assert len(run.started) == 3
        assert runner.read(run.results, run.sequences[0]).maker == {"tracker": "other"}

    def test_another_program_is_another_maker(self, tmp_path, monkeypatch):
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"weights")
        package = Path(ainet_ros.__file__).parent
        for part in ("network", "tracker", "vision", "evaluation"):
            shutil.copytree(package / part, tmp_path / "ainet_ros" / part)
        here = runner.made_by(weights, stream="both")
        monkeypatch.setattr(ainet_ros, "__file__", str(tmp_path / "ainet_ros/__init__.py"))
        assert runner.made_by(weights, stream="both") == here
        with (tmp_path / "ainet_ros/tracker/tracker.py").open("a") as file:
            file.write("JUMP = 0.8\n")
        assert runner.made_by(weights, stream="both")["program"] != here["program"]

    def test_results_from_another_start_are_run_again(self, root):
        run = Run(root)
        run()
        run.sequences[1] = dataclasses.replace(run.sequences[1], start=np.array([11.0, 2, 9, 9]))
        run()
        assert run.started == ["11"]

    def test_results_that_do_not_say_who_made_them_are_taken(self, root):
        run = Run(root)
        run.results.mkdir()
        (run.results / "b.txt").write_text("1 2 3 4\n" * 4)
        run()
        assert run.started == ["10", "12"]
        assert runner.read(run.results, run.sequences[1]).fps is None

    def test_workers(self, root):
        run = Run(root)
        run(workers=2)
        assert run.started == ["10", "11", "12"]
        assert runner.read(run.results, run.sequences[2]).boxes.tolist() == [[12, 12, 8, 6]] * 4
        assert "2 trackers side by side" in runner.read(run.results, run.sequences[0]).device

    def test_worker_that_cannot_make_its_tracker(self, root):
        run = Run(root)
        del run.sequences[1:]
        with pytest.raises(ValueError, match="no such tracker"):
            run(workers=2, make=partial(broken, "no such tracker"))

    def test_broken_image_is_skipped_or_refused(self, root):
        (root / "set" / "b" / "infrared" / "i000002.jpg").write_bytes(b"torn")
        run = Run(root)
        (name, fault), = run().items()  # fmt: skip
        assert name == "b"
        assert str(root / "set" / "b" / "infrared" / "i000002.jpg") in fault
        assert run.started == ["10", "11", "12"]
        assert not (run.results / "b.txt").exists()
        with pytest.raises(ValueError, match=r"i000002.jpg"):
            run(strict=True)
        run()
        assert run.started == ["11"]  # tried again

    def test_processes_share_the_sequences(self, root):
        run = Run(root)
        run(share=Share(1, 2))
        assert run.started == ["11"]
        run(share=Share(0, 2))  # finds the other's there
        assert run.started == ["10", "12"]

    def test_first_process_tries_what_another_could_not(self, root):
        image = root / "set" / "b" / "infrared" / "i000002.jpg"
        whole = image.read_bytes()
        image.write_bytes(b"torn")
        run = Run(root)
        assert list(run(share=Share(1, 2))) == ["b"]
        assert list(run(share=Share(0, 2))) == ["b"]
        image.write_bytes(whole)
        assert run(share=Share(0, 2)) == {}
        assert run.started == ["11"]

    def test_share_of_torchrun(self, monkeypatch):
        assert Share.from_environment() == Share(0, 1, 0)
        for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
            monkeypatch.setenv(name, value)
        assert Share.from_environment() == Share(3, 4, 1)
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(ValueError, match="do not fit"):
            Share.from_environment()


def judged(root, **results):
    """The benchmark, and trackers that are off by so many pixels."""
    benchmark = open_benchmark(root / "set")
    for label, off in results.items():
        (root / label).mkdir()
        for sequence in benchmark.sequences:
            boxes = np.add(sequence.visible, (off, 0, 0, 0))
            box_files.write(root / label / f"{sequence.name}.txt", boxes)
    return benchmark, [report.judge(benchmark, root / label, label) for label in results]


class TestReport:
    def test_tables_and_pictures(self, root):
        benchmark, trackers = judged(root, ours=4, other=0)
        path = report.write(root / "report", benchmark, trackers)
        text = path.read_text()
        # Moved by half the width: overlap 1/3, above 7 of 21 thresholds; the first is given.
        success = 100 * (20 + 3 * 7) / 4 / 21
        assert f"| ours | 100.0 | 25.0 | {success:.1f} |" in text
        assert "| other | 100.0 | 100.0 | 95.2 |" in text
        assert f"| NO | 3 | 100.0 | 25.0 | {success:.1f} | 100.0 | 100.0 | 95.2 |" in text
        assert "| PO | 1 |" in text
        assert f"| b | 4 | 100.0 | 25.0 | {success:.1f} |" in text
        assert "another set" in text
        assert "published" not in text
        for name in ("success.png", "precision.png", "attributes.png"):
            assert f"]({name})" in text
            assert cv2.imread(str(root / "report" / name)).std() > 5

    def test_worst_frames_are_shown_the_worst_first(self, root):
        benchmark, trackers = judged(root, ours=0)
        first, second, third = benchmark.sequences
        results = trackers[0].boxes
        x, y, w, h = second.visible[2]
        results[second.name][2] = x + w / 2, y, w, h  # overlap 1/3
        results[second.name][3] = x + w / 4, y, w, h
        results[first.name][1] = np.nan
        lines = failures.draw(root / "worst.png", [first, second], results)
        assert lines == [
            f"{first.name}, frame 1: overlap 0.00",
            f"{second.name}, frame 2: overlap 0.33",
        ]
        picture = cv2.imread(str(root / "worst.png"))
        assert picture.shape[1] == 2 * failures.WIDTH
        assert "](failures.png)" in report.write(root / "report", benchmark, trackers).read_text()
        unlabelled = dataclasses.replace(third, visible=np.full_like(third.visible, np.nan))
        assert failures.draw(root / "none.png", [unlabelled], results) == []
        assert not (root / "none.png").exists()

    def test_problems_are_told(self, root):
        (root / "set" / "a" / "visible.txt").write_text("1,2\n")
        benchmark, trackers = judged(root, ours=0)
        text = report.write(root / "report", benchmark, trackers).read_text()
        assert f"- {root / 'set' / 'a' / 'visible.txt'}:1: expected four numbers" in text

    def test_paper_stands_beside_the_whole_set_alone(self, root, monkeypatch):
        monkeypatch.setitem(benchmarks.SIZES, "lasher", 3)
        benchmark, trackers = judged(root, ours=0)
        network = tiny()
        text = report.write(
            root / "report", benchmark, trackers, (network.config, count(network))
        ).read_text()
        for table in published.tables("lasher"):
            assert f"Table {table.number} of the paper" in text
            for name, values in table.rows.items():
                assert f"| {name} (published) | {' | '.join(map(str, values))} |" in text
        assert "| **ours, this run** | 100.0 | 100.0 | 95.2 |" in text
        assert "| **ours, this run: DFM and OFM** |" in text
        assert "| **ours, this run: 3 of 4 layers** |" in text
        cost = count(network)
        added = cost.added.parameters / 1e6
        assert f"| **ours, this run** | 100.0 | 95.2 | {added:.1f} |" in text
        assert f"| whole network | {cost.whole.parameters / 1e6:.2f} |" in text

    def test_results_that_are_not_complete(self, root):
        judged(root, ours=0)
        (root / "ours" / "b.txt").write_text("1,2,3,4\n")
        with pytest.raises(ValueError, match=r"b.txt: 1 boxes for 4 frames"):
            report.judge(open_benchmark(root / "set"), root / "ours", "ours")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("command")
    for seed in (0, 1):
        Scene(seed, frames=3, size=(160, 120)).write(root / "set" / f"scene_{seed}")
    weights.save(tiny(), root / "tiny.safetensors")
    return root


class TestCommand:
    def command(self, folder, *options):
        return ["evaluate", str(folder / "set"), "--weights", str(folder / "tiny.safetensors"),
                *map(str, options)]  # fmt: skip

    def test_report_and_json(self, folder, tmp_path, capsys):
        assert main(self.command(folder, "--report", tmp_path / "report", "--json")) == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["benchmark"], values["tracker"]) == ("LasHeR", "tiny")
        assert values["mean"]["SR"] == values["mean"]["auc"]
        assert values["skipped"] == []
        text = (tmp_path / "report" / "report.md").read_text()
        assert text.startswith("# tiny by LasHeR's rules")
        assert "| whole network |" in text
        results = tmp_path / "report" / "results"
        assert len(box_files.read(results / "scene_0.txt")) == 3
        other = ["--results", results, "--report", tmp_path / "second", "--compare",
                 f"the same={results}"]  # fmt: skip
        assert main(self.command(folder, *other)) == 0
        assert "| the same |" in (tmp_path / "second" / "report.md").read_text()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--workers", "0"], "--workers 0"),
            (["--compare", "x=y"], "give --report"),
            (["--compare", "x", "--report", "out"], "expected NAME=DIR"),
            (["--benchmark", "gtot"], "not GTOT"),
            (["--against", "csrt", "--stream", "both"], "--stream rgb or thermal"),
            (["--against", "mosse"], "'mosse' is none of csrt, kcf, nanotrack"),
            (["--against", "nanotrack"], "backbone"),
            (["--against", "nanotrack", "--nanotrack", "a.onnx", "b.onnx"], "a.onnx"),
            (["--nanotrack", "a.onnx", "b.onnx"], "--against nanotrack"),
        ],
    )
    def test_bad_input(self, folder, capsys, monkeypatch, options, message):
        monkeypatch.chdir(folder)
        assert main(self.command(folder, *options)) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err

    def test_processes_need_a_folder(self, folder, capsys, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(self.command(folder)) == 2
        assert "--results" in capsys.readouterr().err

    def test_nothing_that_can_be_run(self, folder, tmp_path, capsys):
        write_plain(tmp_path / "torn", SAME, LASHER)
        (tmp_path / "torn" / "visible" / "v000001.jpg").write_bytes(b"torn")
        assert main(["evaluate", str(tmp_path), *self.command(folder)[2:]]) == 2
        assert "no sequence could be run" in capsys.readouterr().err

    @pytest.mark.parametrize("write", [write_gtot, write_vtuav])
    def test_other_benchmarks(self, folder, tmp_path, capsys, write):
        write(tmp_path / "car_001")
        assert main(["evaluate", str(tmp_path), *self.command(folder, "--json")[2:]]) == 0
        values = json.loads(capsys.readouterr().out)
        assert set(values["mean"]) >= {"MPR", "MSR", "auc"}
        assert values["sequences"]["car_001"]["frames"] == (4 if write is write_gtot else 3)

    def test_torchrun(self, folder, tmp_path):
        """Two processes leave the files that one leaves, and one report."""
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                   "-m", "ainet_ros.cli",
                   *self.command(folder, "--json", "--results", tmp_path / "two")]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
        )
        assert done.returncode == 0, done.stderr
        assert list(json.loads(done.stdout)["sequences"]) == ["scene_0", "scene_1"]
        assert main(self.command(folder, "--results", tmp_path / "one")) == 0
        for name in ("scene_0.txt", "scene_1.txt"):
            assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


class TestOpenCV:
    def test_absent_tracker_names_the_package(self, monkeypatch):
        monkeypatch.delattr(cv2, "TrackerCSRT", raising=False)
        with pytest.raises(ValueError, match="opencv-contrib-python-headless"):
            opencv.OpenCVTracker("csrt")

    def test_networks_that_are_none(self, tmp_path):
        (tmp_path / "x.onnx").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="cannot make nanotrack"):
            opencv.OpenCVTracker("nanotrack", (tmp_path / "x.onnx", tmp_path / "x.onnx"))

    def test_a_tracker_that_gives_up(self, monkeypatch):
        """OpenCV's own interface, played by a class: not every OpenCV has its trackers."""
        given = []

        class Played:
            @classmethod
            def create(cls):
                return cls()

            def init(self, image, box):
                given.append((image, box))

            def update(self, image):
                given.append((image, None))
                return (True, (5, 6, 7, 8)) if len(given) == 2 else (False, (0, 0, 0, 0))

        monkeypatch.setattr(cv2, "TrackerKCF", Played, raising=False)
        tracker = opencv.OpenCVTracker("kcf")
        rgb = np.zeros((20, 30, 3), np.uint8)
        rgb[..., 0] = 200
        tracker.init(rgb, rgb, (-2.4, 3.6, 40.0, 5.0))
        assert given[0][1] == [0, 4, 30, 5]
        assert given[0][0][0, 0].tolist() == [0, 0, 200]  # BGR
        first, second = tracker.track(rgb, rgb), tracker.track(rgb, rgb)
        assert (first.box, first.state) == ((5, 6, 7, 8), State.TRACKING)
        assert (second.box, second.state) == ((5, 6, 7, 8), State.LOST)

    @pytest.mark.skipif(
        not hasattr(cv2, "TrackerCSRT"), reason="this OpenCV is not opencv-contrib-python"
    )
    @pytest.mark.parametrize("name", ["csrt", "kcf"])
    def test_follows_a_target(self, tmp_path, capsys, name):
        scene = Scene(3, frames=4, size=(320, 240), attributes=())
        scene.write(tmp_path / "clip")
        command = ["evaluate", str(tmp_path / "clip"), "--against", name, "--stream", "thermal"]
        assert main([*command, "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert values["tracker"] == f"{name.upper()}, thermal"
        assert values["mean"]["auc"] > 0.5


def test_every_benchmark_has_rules():
    assert set(metrics.RULES) == set(benchmarks.NAMES)
