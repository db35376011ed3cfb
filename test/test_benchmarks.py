# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The benchmarks' layouts, as small trees written here, with their traps."""

import cv2
import numpy as np
import pytest

from ainet_ros.vision.benchmarks import ATTRIBUTES, open_benchmark
from ainet_ros.vision.sources import open_source

COUNT = 4
BOXES = [(10, 12, 8, 6), (11, 12, 8, 6), (0, 0, 0, 0), (13, 14, 9, 6)]


def lines(boxes, separator=","):
    return "".join(separator.join(f"{value:g}" for value in box) + "\n" for box in boxes)


def write_images(root, names, files, shape=(32, 48)):
    for name, pattern in zip(names, files, strict=True):
        (root / name).mkdir(parents=True)
        for number in range(*pattern[1]):
            image = np.full((*shape, 3), number % 250, np.uint8)
            assert cv2.imwrite(str(root / name / pattern[0].format(number)), image)


def write_plain(root, texts, files=("{:05d}v.jpg", "{:05d}i.jpg"), count=COUNT):
    """A sequence as in RGBT234, RGBT210 and, by the images' names, LasHeR."""
    numbers = (1, count + 1)
    write_images(root, ("visible", "infrared"), [(file, numbers) for file in files])
    for name, text in texts.items():
        (root / name).write_text(text)


def write_gtot(root):
    write_images(root, ("v", "i"), [("{:05d}v.bmp", (1, COUNT + 1)), ("{:05d}i.bmp", (1, 5))])
    (root / "groundTruth_v.txt").write_text("10 12 18 18\n19 18 11 12\n11 18 19 12\n13 20 22 14\n")
    (root / "groundTruth_i.txt").write_text("10 12 18 18\n11 12 19 18\n11 12 19 18\n13 14 23 20\n")
    (root / "init.txt").write_text("10\t12\t8\t6\n" * COUNT)


def write_vtuav(root, start=17, count=25, truths=3):
    numbers = (start, start + count)
    write_images(root, ("rgb", "ir"), [("{:06d}.jpg", numbers)] * 2)
    (root / "rgb.txt").write_text(lines([(k, 1, 8, 6) for k in range(1, truths + 1)], " "))
    (root / "ir.txt").write_text(lines([(k, 2, 8, 6) for k in range(1, truths + 1)], " "))


LASHER = ("v{:06d}.jpg", "i{:06d}.jpg")
SAME = {name: lines(BOXES) for name in ("visible.txt", "infrared.txt", "init.txt")}
OTHER = {**SAME, "infrared.txt": lines([(x + 1, y, w, h) for x, y, w, h in BOXES])}


def test_gtot_corners_in_any_order(tmp_path):
    write_gtot(tmp_path / "Jogging")
    benchmark = open_benchmark(tmp_path)
    (sequence,) = benchmark.sequences
    assert (benchmark.name, benchmark.title, sequence.name) == ("gtot", "GTOT", "Jogging")
    assert sequence.visible.tolist() == [
        [10, 12, 8, 6], [11, 12, 8, 6], [11, 12, 8, 6], [13, 14, 9, 6]
    ]  # fmt: skip
    assert sequence.infrared[3].tolist() == [13, 14, 10, 6]
    assert sequence.start == (10, 12, 8, 6)
    assert np.array_equal(sequence.source.boxes, sequence.visible)


def test_rgbt234_has_two_truths_and_starts_from_init(tmp_path):
    truths = {**OTHER, "init.txt": lines([(9, 9, 9, 9), *BOXES[1:]])}
    write_plain(tmp_path / "afterrain", truths)
    write_plain(tmp_path / "aligned", SAME)
    benchmark = open_benchmark(tmp_path)
    assert benchmark.name == "rgbt234"
    (first, second) = benchmark.sequences
    assert first.visible.tolist() == [list(box) for box in BOXES]  # invalid ones as they stand
    assert first.infrared[0].tolist() == [11, 12, 8, 6]
    assert first.start == (9, 9, 9, 9)
    assert np.isnan(first.source.boxes[2]).all()
    assert first.source.boxes[3].tolist() == [13, 14, 9, 6]
    assert second.start == (10, 12, 8, 6)


def test_rgbt210_has_init_alone(tmp_path):
    write_plain(tmp_path / "afterrain", {"init.txt": lines(BOXES)})
    benchmark = open_benchmark(tmp_path)
    assert benchmark.name == "rgbt210"
    assert np.array_equal(benchmark.sequences[0].visible, benchmark.sequences[0].infrared)


def test_init_that_stands_for_the_rgb_truth_has_its_length(tmp_path):
    write_plain(tmp_path, {"init.txt": lines(BOXES[:1]), "infrared.txt": lines(BOXES)})
    with pytest.raises(ValueError, match=r"init\.txt: 1 boxes, infrared\.txt 4"):
        open_source(tmp_path)


def test_rgbt210_of_an_rgbt234_tree_takes_init(tmp_path):
    write_plain(tmp_path / "walk", {**OTHER, "init.txt": lines([(1, 2, 3, 4)] * 3)})
    (sequence,) = open_benchmark(tmp_path, "rgbt210").sequences
    assert sequence.visible.tolist() == sequence.infrared.tolist() == [[1, 2, 3, 4]] * 3
    assert sequence.frames.tolist() == [0, 1, 2]


def test_lasher_by_the_names_of_its_images(tmp_path):
    write_plain(tmp_path / "testingset" / "walk", OTHER, LASHER)
    benchmark = open_benchmark(tmp_path)  # a level further down
    assert benchmark.name == "lasher"
    assert benchmark.sequences[0].frames.tolist() == [0, 1, 2, 3]
    assert open_benchmark(tmp_path / "testingset" / "walk").name == "lasher"


@pytest.mark.parametrize("start", [0, 17])
def test_vtuav_is_labelled_every_tenth_frame_from_its_first(tmp_path, start):
    write_vtuav(tmp_path / "car_001", start)
    benchmark = open_benchmark(tmp_path)
    (sequence,) = benchmark.sequences
    assert benchmark.name == "vtuav"
    assert sequence.frames.tolist() == [0, 10, 20]
    assert sequence.visible[:, 0].tolist() == [1, 2, 3]
    assert sequence.infrared[:, 1].tolist() == [2, 2, 2]
    assert sequence.source.labelled.tolist() == [0, 10, 20]
    assert sequence.source.boxes.shape == (21, 4)
    assert np.isfinite(sequence.source.boxes).all(1).nonzero()[0].tolist() == [0, 10, 20]
    assert sequence.source[10].name == f"{start + 10:06d}"
    assert abs(int(sequence.source[10].rgb[0, 0, 0]) - start - 10) <= 2


def test_vtuav_goes_by_the_numbers_where_an_image_is_missing(tmp_path):
    write_vtuav(tmp_path / "car_001", 17)
    for name in ("rgb", "ir"):
        (tmp_path / "car_001" / name / "000030.jpg").unlink()
    assert open_benchmark(tmp_path).sequences[0].frames.tolist() == [0, 10, 19]
    for name in ("rgb", "ir"):
        (tmp_path / "car_001" / name / "000037.jpg").unlink()
    with pytest.raises(ValueError, match=r"rgb.txt:3: is of image 37, which is not there"):
        open_benchmark(tmp_path)


def test_attributes_with_a_file_for_each(tmp_path):
    for name in ("afterrain", "walk"):
        write_plain(tmp_path / "RGBT234" / name, OTHER)
    folder = tmp_path / "attr_txt"
    folder.mkdir()
    (folder / "SequencesName.txt").write_text("walk\nelsewhere\nafterrain\n")
    for name in ATTRIBUTES["rgbt234"]:
        (folder / f"{name}.txt").write_text(
            {"TC": "1\n1\n0\n", "BC": "1\n1\n1"}.get(name, "0 0 0")
        )
    (folder / "AAA.txt").write_text("1\n0\n0\n")  # one that the benchmark does not know
    benchmark = open_benchmark(tmp_path / "RGBT234")
    assert benchmark.attributes == ("BC", "TC", "AAA")
    assert {s.name: s.attributes for s in benchmark.sequences} == {
        "afterrain": {"BC"}, "walk": {"BC", "TC", "AAA"}
    }  # fmt: skip
    (folder / "MB.txt").write_text("0\n1\n")
    benchmark = open_benchmark(tmp_path / "RGBT234")
    assert benchmark.attributes == ()
    assert "MB.txt: expected 3 values" in benchmark.problems[0]


def test_attributes_with_a_file_for_each_sequence(tmp_path):
    write_plain(tmp_path / "testingset" / "walk", SAME, LASHER)
    (tmp_path / "AttriSeqsTxt").mkdir()
    (tmp_path / "AttriSeqsTxt" / "walk.txt").write_text("0,1," + "0," * 16 + "1")
    benchmark = open_benchmark(tmp_path / "testingset")
    assert benchmark.attributes == ("PO", "ARC")
    assert benchmark.sequences[0].attributes == {"PO", "ARC"}
    assert open_benchmark(tmp_path).attributes == ("PO", "ARC")
    assert open_benchmark(tmp_path).problems == []


class TestFaults:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("good", "odd"):
            write_plain(tmp_path / name, SAME, LASHER)
        return tmp_path

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda odd: (odd / "visible.txt").write_text("1,2,3\n"), "txt:1: expected four"),
            (lambda odd: (odd / "visible.txt").write_text("1,2,3,x\n"), "visible.txt:1"),
            (lambda odd: (odd / "infrared.txt").write_text("1,2,3,4\n"), "infrared.txt 1"),
            (lambda odd: (odd / "init.txt").write_text("1,2,0,4\n"), "first true box, 1,2,0,4"),
            (lambda odd: [(odd / name).write_text("1,2,3,4\n") for name in SAME], "one more"),
            (lambda odd: (odd / "visible" / "v000002.jpg").unlink(), "visible has 3 images"),
            (lambda odd: (odd / "infrared").rename(odd / "thermal"), "no infrared beside visible"),
            (lambda odd: [file.unlink() for file in odd.glob("*.txt")], "no true boxes beside"),
            (lambda odd: [(odd / name).rename(odd / name[::-1]) for name in
                          ("visible", "infrared")], "no recording beside init.txt"),
        ],
    )  # fmt: skip
    def test_skipped_or_refused_with_the_path(self, root, spoil, message):
        spoil(root / "odd")
        benchmark = open_benchmark(root)
        assert [sequence.name for sequence in benchmark.sequences] == ["good"]
        (problem,) = benchmark.problems
        assert message in problem
        assert str(root / "odd") in problem
        with pytest.raises(ValueError, match=message):
            open_benchmark(root, strict=True)

    def test_folder_without_sequences(self, root):
        (root / "notes").mkdir()
        (problem,) = open_benchmark(root).problems
        assert problem == f"{root / 'notes'}: no sequence with true boxes"
        with pytest.raises(ValueError, match="no sequence"):
            open_benchmark(root / "notes")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_benchmark(root / "nowhere")

    def test_two_of_one_name(self, root):
        write_plain(root / "more" / "good", SAME, LASHER)
        assert "another sequence of this name" in open_benchmark(root).problems[0]

    def test_several_benchmarks(self, root):
        write_gtot(root / "Jogging")
        with pytest.raises(ValueError, match="1 of GTOT, 2 of LasHeR"):
            open_benchmark(root)
        benchmark = open_benchmark(root, "gtot")
        assert [sequence.name for sequence in benchmark.sequences] == ["Jogging"]
        assert len(benchmark.problems) == 2

    def test_wrong_name(self, root):
        with pytest.raises(ValueError, match=r"good has no rgb.txt: not VTUAV"):
            open_benchmark(root, "vtuav")
        with pytest.raises(ValueError, match="'otb' is none of gtot, "):
            open_benchmark(root, "otb")

    def test_broken_image(self, root):
        (root / "odd" / "infrared" / "i000003.jpg").write_bytes(b"torn")
        source = open_benchmark(root).sequences[1].source
        assert source[1].name == "v000002"
        with pytest.raises(ValueError, match=r"i000003.jpg: .*cannot be decoded"):
            source[2]


def test_real_sequences_are_lasher(shared):
    benchmark = open_benchmark(shared / "data" / "rgbt_eval")
    assert benchmark.name == "lasher"
    assert [len(s.source) for s in benchmark.sequences] == [46, 67, 151]
    assert benchmark.sequences[0].start == pytest.approx(
        open_source(shared / "data" / "rgbt_eval" / "runner_small").boxes[0]
    )
