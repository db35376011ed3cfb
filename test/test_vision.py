# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pixels of messages, tone mapping, registration, drawing, video and chart files."""

import os

import cv2
import numpy as np
import pytest

from ainet_ros.tracker import State, Timing, Track
from ainet_ros.vision import boxes, charts, encoding, overlay
from ainet_ros.vision.registration import Calibration, Registration
from ainet_ros.vision.thermal import ToneMap
from ainet_ros.vision.video import VideoWriter

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = COLOR[..., 0]
COUNTS = RNG.integers(0, 1 << 16, (5, 7), np.uint16)

IMAGES = {
    "mono8": GREY,
    "8UC1": GREY,
    "mono16": COUNTS,
    "16UC1": COUNTS,
    "rgb8": COLOR,
    "bgr8": COLOR,
    "rgba8": COLOR,
    "bgra8": COLOR,
    "8UC3": COLOR,
}
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
YUV = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv"}
"""And the order of their bytes."""


class TestEncoding:
    def test_all_encodings_are_covered(self):
        assert set(IMAGES) == set(encoding.ENCODINGS)
        assert {*BAYER, *YUV} == set(encoding.RAW_ENCODINGS)

    @pytest.mark.parametrize("name", IMAGES)
    def test_round_trip(self, name):
        data, step = encoding.encode(IMAGES[name], name)
        image = encoding.decode(data, 5, 7, name, step, False)
        assert image.dtype == IMAGES[name].dtype
        assert np.array_equal(image, IMAGES[name])

    def test_channel_order_in_the_bytes(self):
        pixel = np.array([[[1, 2, 3]]], np.uint8)
        assert encoding.encode(pixel, "rgb8")[0] == bytes([1, 2, 3])
        assert encoding.encode(pixel, "bgr8")[0] == bytes([3, 2, 1])
        assert encoding.encode(pixel, "bgra8")[0] == bytes([3, 2, 1, 255])

    @pytest.mark.parametrize("name", IMAGES)
    def test_padded_rows(self, name):
        data, step = encoding.encode(IMAGES[name], name)
        rows = np.frombuffer(data, np.uint8).reshape(5, step)
        padded = np.pad(rows, ((0, 0), (0, 3)), constant_values=99)
        whole = padded.tobytes()
        for given in (whole, whole[:-3]):  # some cameras leave out the last padding
            image = encoding.decode(given, 5, 7, name, step + 3, False)
            assert np.array_equal(image, IMAGES[name])
            assert cv2.resize(image, (14, 10)).dtype == image.dtype  # OpenCV is particular

    def test_big_endian(self):
        image = encoding.decode(COUNTS.astype(">u2").tobytes(), 5, 7, "mono16", 14, True)
        assert image.dtype == np.uint16
        assert np.array_equal(image, COUNTS)

    def test_decoding_does_not_copy(self):
        data = bytearray(encoding.encode(COLOR, "bgr8")[0])
        image = encoding.decode(data, 5, 7, "bgr8", 21, False)
        data[0] ^= 0xFF
        assert image[0, 0, 2] == data[0]

    @pytest.mark.parametrize("name", BAYER)
    def test_bayer_patterns(self, name):
        color = np.array([200, 100, 30], np.uint8)
        pattern = [color["rgb".index(letter)] for letter in name[6:10]]
        mosaic = np.tile(np.reshape(pattern, (2, 2)), (4, 6))
        padded = np.pad(mosaic, ((0, 0), (0, 4))).tobytes()
        image = encoding.decode(padded, 8, 12, name, 16, False)
        assert image.shape == (8, 12, 3)
        assert (image == color).all()

    @pytest.mark.parametrize(("name", "order"), YUV.items())
    def test_yuv(self, name, order):
        # Y, U, V of ITU-R BT.601 in studio range: grey, and the bars of 75 % red and blue.
        colors = {(128, 128, 128): (126, 128, 128), (191, 0, 0): (65, 100, 212),
                  (0, 0, 191): (35, 212, 114)}  # fmt: skip
        for rgb, yuv in colors.items():
            data = bytes(yuv["yuv".index(letter)] for letter in order) * (3 * 4)
            image = encoding.decode(data, 3, 8, name, 16, False)
            assert image.shape == (3, 8, 3)
            assert np.abs(image.astype(int) - rgb).max() <= 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((b"", 1, 1, "nv24", 2, False), "nv24.*convert it to one of mono8.*bgra8.*yuyv$"),
            ((b"\0" * 4, 2, 2, "bayer_rggb8", 2, False), "bayer_rggb8 image of 2x2.*3 a side"),
            ((b"\0" * 30, 3, 5, "yuv422", 10, False), "yuv422 image of 5x3.*width is odd"),
            ((b"\0" * 10, 4, 4, "bayer_rggb8", 4, False), "10 bytes.*needs 16"),
            ((b"\0" * 20, 5, 7, "mono8", 7, False), "20 bytes.*needs 35"),
            ((b"\0" * 99, 5, 7, "rgb8", 7, False), "step 7 is less"),
            ((b"", 0, 7, "mono8", 7, False), "empty"),
        ],
    )
    def test_bad_messages_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            encoding.decode(*arguments)

    @pytest.mark.parametrize(
        ("image", "name"), [(COUNTS, "mono8"), (GREY, "rgb8"), (COLOR, "mono8"), (GREY, "jpeg")]
    )
    def test_what_does_not_fit_is_not_encoded(self, image, name):
        with pytest.raises(ValueError, match=name):
            encoding.encode(image, name)

    def test_compressed(self):
        for image in (COLOR, GREY, COUNTS):
            stored = image[..., ::-1] if image.ndim == 3 else image
            data = cv2.imencode(".png", stored)[1].tobytes()
            assert np.array_equal(encoding.decode_compressed(data), image)
        for data in (b"", b"no image"):
            with pytest.raises(ValueError, match="cannot be decoded"):
                encoding.decode_compressed(data)

    def test_to_rgb(self):
        assert np.array_equal(encoding.to_rgb(GREY), np.stack([GREY] * 3, axis=2))
        assert encoding.to_rgb(COLOR) is COLOR
        with pytest.raises(ValueError, match="exchanged"):
            encoding.to_rgb(COUNTS)


class TestToneMap:
    def ramp(self, low, high):
        return np.linspace(low, high, 10_000).astype(np.uint16).reshape(100, 100)

    def test_8_bit_passes(self):
        assert ToneMap()(GREY) is GREY

    def test_first_image_spans_its_own_percentiles(self):
        image = self.ramp(20_000, 21_000)
        mapped = ToneMap(percentiles=(1, 99))(image)
        assert mapped.dtype == np.uint8
        low, high = np.percentile(image, (1, 99))
        expected = np.clip((image - low) * 255 / (high - low), 0, 255)
        assert np.abs(mapped - expected).max() <= 1

    @pytest.mark.parametrize("percentiles", [(0, 99), (1, 100), (0, 100)])
    def test_percentiles_0_and_100_are_the_least_and_the_most_count(self, percentiles):
        for width in range(2, 130):
            image = np.linspace(7_000, 8_999, width).astype(np.uint16)[None]
            mapped = ToneMap(percentiles=percentiles)(image)
            assert mapped[0, 0] == 0
            assert mapped[0, -1] == 255
            if percentiles == (0, 100):
                assert np.array_equal(mapped, ToneMap("minmax")(image))

    def test_a_small_hot_object_does_not_change_the_rest(self):
        calm = self.ramp(20_000, 21_000)
        hot = calm.copy()
        hot[:5, :10] = 60_000  # 0.5 % of the image
        percentile, minmax = ToneMap(), ToneMap("minmax")
        calm_tones = [tone(calm)[90, 90].astype(int) for tone in (percentile, minmax)]
        hot_tones = [tone(hot)[90, 90].astype(int) for tone in (percentile, minmax)]
        assert abs(calm_tones[0] - hot_tones[0]) <= 1
        assert calm_tones[1] - hot_tones[1] > 150

    def test_a_large_one_changes_it_bit_by_bit(self):
        calm = self.ramp(20_000, 21_000)
        hot = calm.copy()
        hot[:20] = 24_000
        tone = ToneMap(smoothing=0.9)
        values = [int(tone(image)[90, 90]) for image in [calm] + [hot] * 60]
        steps = -np.diff(values)
        sudden = values[0] - int(ToneMap()(hot)[90, 90])
        assert steps.max() < 0.4 * sudden
        assert steps.min() >= 0
        assert abs(steps.sum() - sudden) <= 2

    def test_limits_settle_and_reset_forgets_them(self):
        tone, image = ToneMap(), self.ramp(20_000, 21_000)
        first = tone(image)
        changed = tone(self.ramp(30_000, 32_000))
        assert changed.min() > first.min()
        for _ in range(80):
            settled = tone(image)
        assert np.abs(settled.astype(int) - first).max() <= 1
        tone(self.ramp(30_000, 32_000))
        tone.reset()
        assert np.array_equal(tone(image), first)

    def test_goes_on_from_a_map_of_the_same_kind_only(self):
        cold, warm = self.ramp(20_000, 21_000), self.ramp(22_000, 23_000)
        before = ToneMap()
        before(cold)
        same, other = ToneMap(smoothing=0.5), ToneMap(percentiles=(5, 95))
        for after in (same, other):
            after.go_on_from(before)
        assert same(warm).min() > ToneMap()(warm).min()
        assert np.array_equal(other(warm), ToneMap(percentiles=(5, 95))(warm))

    def test_fixed_and_minmax(self):
        image = np.array([[100, 200, 300]], np.uint16)
        assert ToneMap("fixed", limits=(100, 200))(image).tolist() == [[0, 255, 255]]
        assert ToneMap("minmax")(image).tolist() == [[0, 128, 255]]

    @pytest.mark.parametrize("mode", ["percentile", "minmax"])
    def test_constant_image(self, mode):
        mapped = ToneMap(mode)(np.full((4, 4), 65_535, np.uint16))
        assert mapped.tolist() == [[0] * 4] * 4

    @pytest.mark.parametrize(
        "arguments",
        [
            {"mode": "auto"},
            {"percentiles": (99, 1)},
            {"smoothing": 1.0},
            {"mode": "fixed"},
            {"mode": "fixed", "limits": (5, 5)},
        ],
    )
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match=r"mode|percentiles|smoothing"):
            ToneMap(**arguments)

    @pytest.mark.parametrize(
        "image", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 3), np.uint16)]
    )
    def test_bad_images(self, image):
        with pytest.raises(ValueError, match="cannot be mapped"):
            ToneMap()(image)


class TestRegistration:
    calibration = Calibration(
        np.array([[2.0, 0, 4], [0, 2.0, 6], [0, 0, 1]]), rgb_size=(40, 30), thermal_size=(16, 12)
    )

    def test_equal_sizes_need_nothing(self):
        assert Registration("none").warp(GREY, (7, 5)) is GREY
        assert Registration("resize").warp(GREY, (7, 5)) is GREY

    @pytest.mark.parametrize("size", [(14, 10), (4, 3)])
    def test_resize(self, size):
        for image in (GREY, COUNTS, COLOR):
            warped = Registration().warp(image, size)
            assert warped.shape[:2] == size[::-1]
            assert warped.dtype == image.dtype
            assert abs(float(warped.mean()) - image.mean()) < 0.2 * image.mean()

    def test_homography(self):
        thermal = np.zeros((12, 16), np.uint8)
        thermal[3, 5] = 200
        warped = Registration("homography", self.calibration).warp(thermal, (40, 30))
        assert warped.shape == (30, 40)
        assert np.unravel_index(warped.argmax(), warped.shape) == (12, 14)

    def test_calibration_file_round_trip(self, tmp_path):
        file = tmp_path / "calibration.yaml"
        self.calibration.save(file)
        loaded = Calibration.load(file)
        assert np.array_equal(loaded.homography, self.calibration.homography)
        assert (loaded.rgb_size, loaded.thermal_size) == ((40, 30), (16, 12))
        thermal = RNG.integers(0, 256, (12, 16), np.uint8)
        direct = Registration("homography", self.calibration).warp(thermal, (40, 30))
        assert np.array_equal(Registration("homography", file).warp(thermal, (40, 30)), direct)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[", "not a YAML file"),
            ("rgb_size: [4, 3]", "lacks homography, thermal_size"),
            ("- 3", "lacks"),
            ("{rgb_size: [4], thermal_size: [4, 3], homography: [[1,0,0],[0,1,0],[0,0,1]]}",
             "rgb_size must be"),
            ("{rgb_size: [4, 3], thermal_size: [4, 0], homography: [[1,0,0],[0,1,0],[0,0,1]]}",
             "thermal_size must be"),
            ("{rgb_size: [4, 3], thermal_size: [4, 3], homography: [[1,0],[0,1]]}", "3 rows of 3"),
            ("{rgb_size: [4, 3], thermal_size: [4, 3], homography: [[1,0,0],[2],[0,0,1]]}",
             "3 rows of 3"),
            ("{rgb_size: [4, 3], thermal_size: [4, 3], homography: [[1,0,0],[1,0,0],[0,0,1]]}",
             "singular"),
            ("{rgb_size: [4, 3], thermal_size: [4, 3], homography: [[.nan,0,0],[1,0,0],[0,0,1]]}",
             "finite"),
        ],
    )  # fmt: skip
    def test_bad_calibration_files(self, tmp_path, text, message):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(ValueError, match=f"bad.yaml: .*{message}"):
            Calibration.load(file)

    def test_calibration_file_of_nobody(self):
        with pytest.raises(ValueError, match=r"~no-such-user/a\.yaml: "):
            Calibration.load("~no-such-user/a.yaml")

    def test_missing_calibration_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
            Registration("homography", tmp_path / "none.yaml")

    def test_bad_use(self):
        with pytest.raises(ValueError, match="homography"):
            Registration("none").warp(GREY, (14, 10))
        with pytest.raises(ValueError, match=r"7x5 and RGB 40x30.*made for 16x12"):
            Registration("homography", self.calibration).warp(GREY, (40, 30))
        with pytest.raises(ValueError, match="needs a calibration"):
            Registration("homography")
        with pytest.raises(ValueError, match="uses no calibration"):
            Registration("resize", self.calibration)
        with pytest.raises(ValueError, match="affine"):
            Registration("affine")


def track(box, score=0.8, state=State.TRACKING):
    return Track(box, score, state, Timing(0, 0, 0))


class TestOverlay:
    rgb = np.full((480, 640, 3), 90, np.uint8)
    thermal = np.full((480, 640), 40, np.uint8)

    def test_source_is_not_changed(self):
        before = self.rgb.copy()
        picture = overlay.draw(self.rgb, {1: track((200, 150, 80, 120))}, self.thermal, note="x")
        assert picture.shape == self.rgb.shape
        assert picture.dtype == np.uint8
        assert np.array_equal(self.rgb, before)
        assert not np.array_equal(picture, before)

    @pytest.mark.parametrize("style", overlay.STYLES)
    def test_styles(self, style):
        thermal = cv2.resize(self.thermal, (320, 240))
        thermal[:, :160] = 200
        hot = cv2.applyColorMap(np.full((1, 1), 200, np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
        picture = overlay.draw(self.rgb[..., ::-1], {}, thermal, style=style)
        assert picture.shape == self.rgb.shape
        ground = {"blend": (hot.astype(int) + 90) / 2, "thermal": hot}.get(style, (90, 90, 90))
        assert picture[240, 100] == pytest.approx(ground, abs=1)
        assert (picture[450, 500] == 90).all() == (style == "rgb")
        alone = overlay.draw(self.rgb, {}, style=style)
        assert (alone[240, 100] == 90).all()

    def test_an_unknown_style_is_refused(self):
        with pytest.raises(ValueError, match="'side' is none of inset, blend, rgb, thermal"):
            overlay.draw(self.rgb, {}, style="side")

    def test_views_in_any_order_are_drawn_on(self):
        bgr = np.full((480, 640, 3), 90, np.uint8)
        picture = overlay.draw(bgr[..., ::-1], {1: track((200, 150, 80, 120))})
        assert (bgr == 90).all()
        assert (picture != 90).any()

    @pytest.mark.parametrize("state", State)
    def test_box_is_drawn_in_its_place_in_the_state_s_color(self, state):
        picture = overlay.draw(self.rgb, {1: track((200, 150, 80, 120), state=state)})
        color = overlay.COLORS[state.name]
        for x, y in ((200, 200), (280, 200), (240, 150), (240, 270)):
            assert picture[y, x].tolist() == list(color)
        assert (picture[160:260, 210:270] == 90).all()

    def test_states_look_different(self):
        pictures = [
            overlay.draw(self.rgb, answer)[:40, :200]
            for answer in (
                {},
                {1: track((9, 99, 9, 9))},
                {1: track((9, 99, 9, 9), 0.1, State.LOST)},
            )
        ]
        assert not np.array_equal(pictures[0], pictures[1])
        assert not np.array_equal(pictures[1], pictures[2])

    def test_inset_shows_the_thermal_image_and_the_box(self):
        thermal = self.thermal.copy()
        thermal[:, 320:] = 250
        plain = overlay.draw(self.rgb, {}, thermal)
        inset = plain[-8 - 120 : -8, -8 - 160 : -8].astype(int)
        assert inset[60, 120].sum() > inset[60, 40].sum() + 300  # hot is bright
        assert (plain[:300] == 90).all(axis=2)[60:].all()  # nothing above it
        boxed = overlay.draw(self.rgb, {1: track((100, 100, 200, 200))}, thermal)
        inset = boxed[-8 - 120 : -8, -8 - 160 : -8]
        assert np.abs(inset[50, 25] - np.array(overlay.COLORS["TRACKING"])).max() < 30

    @pytest.mark.parametrize("width", [64, 320, 1920])
    def test_sizes(self, width):
        rgb = np.full((width * 3 // 4, width, 3), 90, np.uint8)
        small = np.full((32, 40, 3), 10, np.uint8)
        picture = overlay.draw(rgb, {1: track((width / 4, 20, 30, 30))}, small, note="frame 7")
        assert picture.shape == rgb.shape

    @pytest.mark.parametrize("box", [(-50, -50, 90, 90), (600, 400, 1e9, 90), (1e5, 1e5, 3, 3)])
    def test_boxes_beyond_the_image(self, box):
        assert overlay.draw(self.rgb, {1: track(box)}, self.thermal).shape == self.rgb.shape

    def test_truth_that_is_not_known_is_left_out(self):
        answer = {1: track((200, 150, 80, 120))}
        plain = overlay.draw(self.rgb, answer)
        assert np.array_equal(overlay.draw(self.rgb, answer, truth=[np.nan] * 4), plain)
        assert not np.array_equal(overlay.draw(self.rgb, answer, truth=(9, 99, 9, 9)), plain)

    def test_several_targets_are_told_apart(self):
        here, there = track((200, 150, 80, 120)), track((400, 150, 80, 120), state=State.LOST)
        picture = overlay.draw(self.rgb, {3: here, 7: there})
        for x, answer in ((240, here), (440, there)):
            assert picture[270, x].tolist() == list(overlay.COLORS[answer.state.name])
        one = overlay.draw(self.rgb, {3: here})
        assert (one[40:60, :100] == 90).all()  # one line of text, the second one is below
        assert not (picture[40:60, :100] == 90).all()
        assert picture[151, 201].tolist() == [24] * 3  # a plate with the id in the box


class TestVideoWriter:
    @pytest.mark.parametrize("rate", [1e-4, 5, 23.976, 29.97003, 64.9999, 71.423, 1000, 1e6])
    def test_every_rate_is_written(self, tmp_path, rate):
        with VideoWriter(tmp_path / "a.mp4", rate) as video:
            for _ in range(3):
                video.write(np.zeros((64, 64, 3), np.uint8))
        read = cv2.VideoCapture(str(tmp_path / "a.mp4"))
        expected = min(max(rate, 0.01), 6000)
        assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(expected, rel=1e-3)

    def test_round_trip(self, tmp_path):
        colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
        with VideoWriter(tmp_path / "a.mp4", 7.5) as video:
            for color in colors:
                video.write(np.full((48, 64, 3), color, np.uint8))
        read = cv2.VideoCapture(str(tmp_path / "a.mp4"))
        assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(7.5)
        for color in colors:
            good, image = read.read()
            assert good
            assert np.abs(image[24, 32, ::-1].astype(int) - color).max() < 12

    def test_frames_of_another_size_are_refused(self, tmp_path):
        with VideoWriter(tmp_path / "a.mp4", 10) as video:
            video.write(np.zeros((48, 64, 3), np.uint8))
            with pytest.raises(ValueError, match="does not fit the video of 64x48"):
                video.write(np.zeros((48, 32, 3), np.uint8))

    @pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 4)])
    def test_frames_of_other_channels_are_refused(self, tmp_path, shape):
        with (
            VideoWriter(tmp_path / "a.mp4", 10) as video,
            pytest.raises(ValueError, match=r"a\.mp4: a frame is uint8 \(height, width, 3\)"),
        ):
            video.write(np.zeros(shape, np.uint8))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(("height", "width"), [(1, 64), (64, 1), (16, 8192)])
    def test_sizes_that_no_mp4_has_are_named(self, tmp_path, height, width):
        with (
            VideoWriter(tmp_path / "a.mp4", 10) as video,
            pytest.raises(OSError, match=rf"a\.mp4: .*{width}x{height} pixels; .*2 to 8191"),
        ):
            video.write(np.zeros((height, width, 3), np.uint8))
        assert not list(tmp_path.iterdir())

    def test_no_such_folder(self, tmp_path):
        with (
            VideoWriter(tmp_path / "none" / "a.mp4", 10) as video,
            pytest.raises(FileNotFoundError, match=r"none/a\.mp4'"),
        ):
            video.write(np.zeros((48, 64, 3), np.uint8))

    def test_what_was_there_stays_until_the_video_is_whole(self, tmp_path):
        (tmp_path / "a.mp4").write_bytes(b"old")

        def record(fails):
            with VideoWriter(tmp_path / "a.mp4", 10) as video:
                video.write(np.zeros((48, 64, 3), np.uint8))
                if fails:
                    raise ValueError("of a frame")

        with pytest.raises(ValueError, match="of a frame"):
            record(fails=True)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]
        record(fails=False)
        (file,) = tmp_path.iterdir()
        assert cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FRAME_COUNT) == 1

    def test_frames_that_are_not_in_the_file_are_missed(self, tmp_path):
        def record():
            with VideoWriter(tmp_path / "a.mp4", 10) as video:
                video.write(np.zeros((48, 64, 3), np.uint8))
                for file in tmp_path.iterdir():
                    file.unlink()  # as on a full disk, they are not there afterwards

        with pytest.raises(OSError, match=r"a\.mp4: 0 of 1 frames were written"):
            record()


def test_score_plot_shows_single_overlaps(tmp_path):
    """As of boxes of every tenth frame."""
    scores, lost = np.full(4, np.nan), np.zeros(4, bool)
    for name, overlap in (("a.png", [np.nan] * 4), ("b.png", [0.5, np.nan, 0.9, np.nan])):
        charts.score_plot(tmp_path / name, scores, 10, lost=lost, overlap=np.array(overlap))
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png")]
    assert (pictures[0] != pictures[1]).any()


def test_score_plot(tmp_path):
    scores = np.array([np.nan, 0.9, 0.2, 0.7])
    lost = np.array([False, False, True, False])
    for name, overlap in (("a.png", None), ("b.png", np.array([1, 0.8, 0.1]))):
        charts.score_plot(tmp_path / name, scores, 10, lost=lost, overlap=overlap, title="t")
    pictures = [cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png")]
    assert pictures[0].std() > 5
    assert (pictures[0] != pictures[1]).any()


class TestBoxFiles:
    def test_separators_and_invalid_rows(self, tmp_path):
        file = tmp_path / "b.txt"
        file.write_text("1,2,3,4\n5\t6\t7\t8\n1.5 2 3 4\n\n0,0,0,0\nnan,nan,nan,nan\n1,2,-3,4\n")
        read = boxes.read(file)
        assert read[:3].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [1.5, 2, 3, 4]]
        assert np.isnan(read[3:]).all()
        assert len(read) == 6

    def test_round_trip(self, tmp_path):
        written = np.array([[1.2345, 2, 3, 4], [5, 6, 7.25, 8]])
        boxes.write(tmp_path / "b.txt", written)
        assert boxes.read(tmp_path / "b.txt") == pytest.approx(written, abs=6e-4)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_full_disk(self, tmp_path):
        boxes.write(tmp_path / "b.txt", [[1, 2, 3, 4]])
        (tmp_path / f"b.txt.{os.getpid()}.partial").symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"No space left on device: '.*b\.txt'"):
            boxes.write(tmp_path / "b.txt", [[5, 6, 7, 8]])
        assert boxes.read(tmp_path / "b.txt").tolist() == [[1, 2, 3, 4]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [("1,2,3,4\n1,2,3\n", "b.txt:2: .*'1,2,3'"), ("a,b,c,d", "b.txt:1"), ("\n", "no boxes")],
    )
    def test_bad_files(self, tmp_path, text, message):
        (tmp_path / "b.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            boxes.read(tmp_path / "b.txt")
