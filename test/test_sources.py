# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Recordings of each kind, written here as real files and read back."""

import contextlib
import sqlite3
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from ainet_ros.vision.sources import DEFAULT_RATE, Frame, open_source

SIZE = (48, 64)
COUNT = 4


def picture(index, channels=3):
    """A smooth image, another one for each index: codecs keep it."""
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([rows * 4, cols * 3, np.full(SIZE, 50 + 40 * index)], axis=2).astype(np.uint8)
    return image if channels == 3 else image[..., 2]


def write_folders(root, names=("visible", "infrared"), count=COUNT, start=8, suffix=".png"):
    for name, channels in zip(names, (3, 1), strict=True):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = picture(index, channels)
            file = root / name / f"{name[0]}{start + index}{suffix}"
            assert cv2.imwrite(str(file), image[..., ::-1] if channels == 3 else image)


def write_videos(root, counts=(COUNT, COUNT), rate=12.5):
    root.mkdir(exist_ok=True)
    for name, count in zip(("visible", "infrared"), counts, strict=True):
        file = str(root / f"{name}.mp4")
        video = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*"mp4v"), rate, SIZE[::-1])
        for index in range(count):
            video.write(picture(index)[..., ::-1])
        video.release()


class TestFolders:
    @pytest.mark.parametrize("names", [("visible", "infrared"), ("rgb", "ir"), ("v", "i")])
    def test_pairs_in_natural_order(self, tmp_path, names):
        write_folders(tmp_path / "walk", names)
        source = open_source(tmp_path / "walk")
        assert (source.name, len(source), source.rate) == ("walk", COUNT, DEFAULT_RATE)
        assert source.boxes is None
        frames = list(source)
        assert [frame.name[1:] for frame in frames] == ["8", "9", "10", "11"]
        for index, frame in enumerate(frames):
            assert np.array_equal(frame.rgb, picture(index))
            assert np.array_equal(frame.thermal, picture(index, 1))
        assert len(list(source)) == COUNT  # once more

    def test_stamps_follow_the_rate(self, tmp_path):
        write_folders(tmp_path)
        source = open_source(tmp_path, rate=4)
        assert source.rate == 4
        assert [frame.stamp_ns for frame in source] == [0, 250_000_000, 500_000_000, 750_000_000]
        for rate in (0, -5, float("nan"), float("inf")):
            with pytest.raises(ValueError, match=f"rate {rate} must be positive and finite"):
                open_source(tmp_path, rate=rate)

    def test_raw_counts_stay_16_bit(self, tmp_path):
        write_folders(tmp_path, count=1)
        counts = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 20
        assert cv2.imwrite(str(tmp_path / "infrared" / "i8.png"), counts)
        (frame,) = open_source(tmp_path)
        assert frame.thermal.dtype == np.uint16
        assert np.array_equal(frame.thermal, counts)

    def test_grey_rgb_stream_gets_three_channels(self, tmp_path):
        write_folders(tmp_path, count=1)
        assert cv2.imwrite(str(tmp_path / "visible" / "v8.png"), picture(0, 1))
        (frame,) = open_source(tmp_path)
        assert frame.rgb.shape == (*SIZE, 3)

    @pytest.mark.parametrize("file", ["visible.txt", "init.txt", "infrared.txt"])
    def test_boxes(self, tmp_path, file):
        write_folders(tmp_path)
        (tmp_path / file).write_text("1,2,3,4\n0,0,0,0\n5,6,7,8\n")
        boxes = open_source(tmp_path).boxes
        assert boxes[[0, 2]].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert np.isnan(boxes[1]).all()
        assert len(boxes) == 3

    def test_the_rgb_stream_s_boxes_come_first(self, tmp_path):
        write_folders(tmp_path)
        for file, x in (("init.txt", 1), ("infrared.txt", 2), ("visible.txt", 3)):
            (tmp_path / file).write_text(f"{x},2,3,4\n")
        assert open_source(tmp_path).boxes[0, 0] == 3

    def test_more_boxes_than_frames(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "init.txt").write_text("1,2,3,4\n" * 5)
        with pytest.raises(ValueError, match=r"init.txt: 5 boxes for 4 frames"):
            open_source(tmp_path)

    def test_counts_that_differ(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "infrared" / "i9.png").unlink()
        with pytest.raises(ValueError, match="visible has 4 images, infrared 3"):
            open_source(tmp_path)

    def test_empty_folder(self, tmp_path):
        write_folders(tmp_path, count=0)
        with pytest.raises(ValueError, match="visible: no images"):
            open_source(tmp_path)

    def test_broken_image_is_named(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "infrared" / "i9.png").write_bytes(b"torn")
        frames = iter(open_source(tmp_path))
        next(frames)
        with pytest.raises(ValueError, match=r"i9.png: .*cannot be decoded"):
            next(frames)

    def test_exchanged_streams(self, tmp_path):
        write_folders(tmp_path, count=1)
        assert cv2.imwrite(str(tmp_path / "visible" / "v8.png"), np.zeros(SIZE, np.uint16))
        with pytest.raises(ValueError, match=r"v8.png: .*exchanged"):
            next(iter(open_source(tmp_path)))


class TestVideos:
    def test_round_trip(self, tmp_path):
        write_videos(tmp_path)
        (tmp_path / "init.txt").write_text("1,2,3,4\n" * COUNT)
        source = open_source(tmp_path)
        assert len(source) == COUNT
        assert source.rate == pytest.approx(12.5)
        assert source.boxes.shape == (COUNT, 4)
        for index, frame in enumerate(source):
            assert frame.stamp_ns == index * 80_000_000
            for image in (frame.rgb, frame.thermal):
                assert np.abs(image.astype(int) - picture(index)).mean() < 6
        assert index == COUNT - 1

    def test_lengths_that_differ(self, tmp_path):
        write_videos(tmp_path, (3, 4))
        with pytest.raises(ValueError, match=r"visible.mp4 has 3 frames, infrared.mp4 4"):
            open_source(tmp_path)

    def test_no_video_in_the_file(self, tmp_path):
        write_videos(tmp_path)
        (tmp_path / "visible.mp4").write_bytes(b"torn" * 100)
        with pytest.raises(ValueError, match=r"visible.mp4: not a video"):
            open_source(tmp_path)


def test_what_is_no_recording(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "visible").mkdir()
    with pytest.raises(ValueError, match=r"not a recording: expected .*visible \+ infrared"):
        open_source(tmp_path)


class TestBags:
    """Bags written by rosbags, MCAP and SQLite."""

    @pytest.fixture(params=["mcap", "sqlite3"])
    def plugin(self, request):
        writer = pytest.importorskip("rosbags.rosbag2")
        return getattr(writer.StoragePlugin, request.param.upper())

    def write(self, path, plugin, stamps, *, topics=("/rgb/image_raw", "/thermal/image_raw"),
              compressed=(False, False), stamped=True):  # fmt: skip
        """Messages of both topics in the order of their stamps (ms); pixels tell their index."""
        from rosbags.rosbag2 import Writer
        from rosbags.typesys import Stores, get_typestore

        types = get_typestore(Stores.ROS2_JAZZY)
        header, time, raw, packed = (
            types.types[name]
            for name in (
                "std_msgs/msg/Header",
                "builtin_interfaces/msg/Time",
                "sensor_msgs/msg/Image",
                "sensor_msgs/msg/CompressedImage",
            )
        )
        sent = sorted(
            (stamp, side, index) for side in (0, 1) for index, stamp in enumerate(stamps[side])
        )
        with Writer(path, version=9, storage_plugin=plugin) as bag:
            connections = [
                bag.add_connection(topic, (packed if small else raw).__msgtype__, typestore=types)
                for topic, small in zip(topics, compressed, strict=True)
            ]
            for stamp, side, index in sent:
                nanoseconds = stamp * 1_000_000
                clock = divmod(nanoseconds if stamped else 0, 1_000_000_000)
                head = header(stamp=time(*clock), frame_id="camera")
                if compressed[side]:
                    image = picture(index)[..., ::-1] if side == 0 else picture(index, 1)
                    data = cv2.imencode(".png", image)[1].ravel()
                    message = packed(head, "png", data)
                elif side == 0:
                    data = picture(index)[..., ::-1].ravel()
                    message = raw(head, *SIZE, "bgr8", 0, SIZE[1] * 3, data)
                else:
                    counts = (picture(index, 1).astype(np.uint16) * 100).astype(">u2")
                    padded = np.pad(counts.view(np.uint8), ((0, 0), (0, 6)))
                    message = raw(head, *SIZE, "16UC1", 1, padded.shape[1], padded.ravel())
                kind = message.__msgtype__
                bag.write(connections[side], nanoseconds, types.serialize_cdr(message, kind))

    def test_nearest_pairs(self, tmp_path, plugin):
        # 200 has no thermal image within 50 ms; 290 is nearer to 300 than 360 is; 640 is alone.
        self.write(tmp_path / "bag", plugin, ([1000, 1100, 1200, 1300], [1010, 1095, 1290, 1640]))
        source = open_source(tmp_path / "bag")
        frames = list(source)
        assert len(source) == len(frames) == 3
        assert source.name == "bag"
        assert [frame.stamp_ns // 1_000_000 for frame in frames] == [1000, 1100, 1300]
        for frame, rgb, thermal in zip(frames, (0, 1, 3), (0, 1, 2), strict=True):
            assert np.array_equal(frame.rgb, picture(rgb))
            assert frame.thermal.dtype == np.uint16
            assert np.array_equal(frame.thermal, picture(thermal, 1).astype(np.uint16) * 100)
        assert source.rate == pytest.approx(2 / 0.3)

    def test_streams_far_apart_in_the_file(self, tmp_path, plugin):
        late = [0, 33, 66, 100]
        self.write(tmp_path / "bag", plugin, (late, [stamp + 40 for stamp in late]))
        stamps = [frame.stamp_ns for frame in open_source(tmp_path / "bag", rate=10)]
        assert stamps == [index * 100_000_000 for index in range(len(stamps))]

    def test_one_file_of_a_bag(self, tmp_path):
        writer = pytest.importorskip("rosbags.rosbag2")
        self.write(tmp_path / "bag", writer.StoragePlugin.MCAP, ([0, 100], [0, 100]))
        (file,) = (tmp_path / "bag").glob("*.mcap")
        assert len(list(open_source(file))) == 2

    def test_compressed_topics_in_a_namespace(self, tmp_path, plugin):
        topics = ("/robot/rgb/image_raw/compressed", "/robot/thermal/image_raw/compressed")
        self.write(tmp_path / "bag", plugin, ([1, 101], [1, 101]), topics=topics,
                   compressed=(True, True))  # fmt: skip
        for index, frame in enumerate(open_source(tmp_path / "bag")):
            assert np.array_equal(frame.rgb, picture(index))
            assert np.array_equal(frame.thermal, picture(index, 1))
        assert index == 1

    def test_headers_without_stamps(self, tmp_path, plugin):
        self.write(tmp_path / "bag", plugin, ([0, 100, 200], [5, 95, 200]), stamped=False)
        stamps = [frame.stamp_ns for frame in open_source(tmp_path / "bag")]
        assert stamps == [0, 100_000_000, 200_000_000]

    def test_other_topics_by_name(self, tmp_path, plugin):
        self.write(tmp_path / "bag", plugin, ([0], [0]), topics=("/left", "/boson"))
        with pytest.raises(ValueError, match=r"no image topic rgb/image_raw.*/boson, /left"):
            open_source(tmp_path / "bag")
        source = open_source(tmp_path / "bag", rgb_topic="/left", thermal_topic="boson")
        assert len(list(source)) == 1

    def test_a_name_that_two_topics_have(self, tmp_path, plugin):
        topics = ("/a/rgb/image_raw", "/b/rgb/image_raw")
        self.write(tmp_path / "bag", plugin, ([0], [0]), topics=topics)
        with pytest.raises(ValueError, match="could be each of /a/rgb/image_raw, /b/rgb"):
            open_source(tmp_path / "bag")

    def test_streams_that_never_meet(self, tmp_path, plugin):
        self.write(tmp_path / "bag", plugin, ([0, 100], [5000, 5100]))
        with pytest.raises(ValueError, match=r"no image of .* is within 0.05 s"):
            open_source(tmp_path / "bag")

    def test_broken_bag(self, tmp_path):
        pytest.importorskip("rosbags")
        (tmp_path / "metadata.yaml").write_text("torn: true")
        with pytest.raises(ValueError, match="bag cannot be read"):
            open_source(tmp_path)

    def test_without_rosbags(self, tmp_path, monkeypatch):
        for name in ("rosbags", "rosbags.highlevel", "ainet_ros.vision.bag"):
            monkeypatch.setitem(sys.modules, name, None)
        (tmp_path / "metadata.yaml").touch()
        with pytest.raises(ValueError, match="pip install rosbags"):
            open_source(tmp_path)


class TestRecordedRuns:
    """What a tracker said in bags, and the pairs that it went through."""

    FRAMES, BOX = 4, (20.0, 30.0, 15.0, 25.0)

    @pytest.fixture
    def write(self, tmp_path):
        """Writes a run; its arguments are those of `bags.write_run`."""
        pytest.importorskip("rosbags", reason="needs rosbags")
        import bags

        frames = [Frame(picture(n), picture(n, 1), 0, "") for n in range(self.FRAMES)]

        def write(name="bag", **options):
            bags.write_run(tmp_path / name, frames, self.BOX, **options)
            return tmp_path / name

        return write

    def first_target(self, path, rate=None):
        from ainet_ros.vision import recording

        return recording.first_target(path, rate, "rgb/image_raw", "thermal/image_raw")

    @pytest.mark.parametrize(
        ("storage", "defined"), [("MCAP", True), ("SQLITE3", True), ("SQLITE3", False)]
    )
    def test_a_run_is_read_with_and_without_definitions(self, write, storage, defined):
        from rosbags.rosbag2 import StoragePlugin

        bag = write(storage=StoragePlugin[storage])
        if not defined:  # as Humble's rosbag2 writes it
            (file,) = bag.glob("*.db3")
            with contextlib.closing(sqlite3.connect(file)) as database, database:
                database.execute("DELETE FROM message_definitions")
        target = self.first_target(bag)
        assert target.boxes.tolist() == [list(self.BOX)] * self.FRAMES
        assert [frame.stamp_ns // 10**9 for frame in target.source] == [1, 2, 3, 4]
        assert [answer.state for answer in target.recording.answers] == ["TRACKING"] * 3

    @pytest.mark.parametrize("rate", [-5, float("nan")])
    def test_a_rate_that_is_none_is_refused(self, write, rate):
        with pytest.raises(ValueError, match=f"rate {rate} must be positive"):
            self.first_target(write(), rate)

    def test_of_several_trackers_the_error_names_the_way_out(self, write):
        with pytest.raises(ValueError, match=r"/a/track, /b/track; .*give --box x,y,w,h"):
            self.first_target(write(trackers=("/a", "/b")))

    def test_parameters_are_those_of_the_recording_that_a_part_belongs_to(self, write, tmp_path):
        from ainet_ros.vision import recording

        text = "/**: {ros__parameters: {device: cpu}}"
        (tmp_path / "parameters.yaml").write_text(text)
        assert recording.read(write("part_000000")).parameters == {"device": "cpu"}
        other = write("other")
        assert recording.read(other).parameters == {}
        (other / "parameters.yaml").write_text(text.replace("cpu", "cuda"))
        assert recording.read(other).parameters == {"device": "cuda"}

    def test_a_pair_of_two_silent_cameras_is_none(self, write):
        from ainet_ros.vision.bag import BagSource

        source = BagSource(
            write(), None, "rgb/image_raw", "thermal/image_raw", [(0, 0), (2 * 10**9, 0)]
        )
        assert source.present.tolist() == [1]


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ([0, 10, 20], [1, 11, 21], [(0, 0), (1, 1), (2, 2)]),
        ([20, 0, 10], [11, 21, 1], [(1, 2), (2, 0), (0, 1)]),
        ([0, 1], [1], [(1, 0)]),
        ([0], [4], []),
        ([5], [3, 7], [(0, 0)]),
        ([], [1], []),
    ],
)
def test_nearest_pairs_by_hand(first, second, pairs):
    bag = pytest.importorskip("ainet_ros.vision.bag", exc_type=ImportError)
    found = bag.nearest_pairs(np.array(first, np.int64), np.array(second, np.int64), 3)
    assert [tuple(pair) for pair in found.tolist()] == pairs


def test_nearest_pairs_of_random_stamps():
    bag = pytest.importorskip("ainet_ros.vision.bag", exc_type=ImportError)
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, second = (rng.integers(0, 1000, rng.integers(1, 40)) for _ in range(2))
        pairs = bag.nearest_pairs(first, second, 12)
        assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
        assert (np.abs(first[pairs[:, 0]] - second[pairs[:, 1]]) <= 12).all()
        for (a, b), (c, d) in pairwise(pairs):
            assert first[a] <= first[c]
            assert second[b] <= second[d]


def test_real_sequences(shared):
    for name, count in (("stairs_man", 151), ("smoke_cross", 67), ("runner_small", 46)):
        source = open_source(shared / "data" / "rgbt_eval" / name)
        assert len(source) == count
        assert source.boxes.shape == (count, 4)
        frame = next(iter(source))
        assert frame.rgb.shape == (480, 640, 3)
        assert frame.thermal.shape[:2] == (480, 640)
    video = open_source(shared / "data" / "rgbt_video" / "0113_1714")
    assert len(video) == 560
    assert video.boxes is None
