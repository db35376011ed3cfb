# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What `fuzz.py` fuzzes.

Each target takes an empty folder and is a context that gives its check, and what its tool in
`fuzz.TARGETS` makes inputs of: a strategy of hypothesis, examples for atheris to begin with, or a
function of a seed and a number. A check raises AssertionError where something
is wrong; its attribute `pid`, if there, is of the process whose memory is watched.
"""

import base64
import contextlib
import ctypes
import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import socket
import struct
import subprocess
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("mono8 mono16 rgb8 bgr8 rgba8 bgra8 rgb16 bgr16 rgba16 bgra16 8UC1 8UC2 8UC3 8UC4 8SC1 "
         "16UC1 16UC3 16SC1 32SC1 32FC1 32FC3 64FC1 bayer_rggb8 bayer_gbrg16 yuv422 yuv422_yuy2 "
         "uyvy nv12 nv21 nv24").split()  # fmt: skip
BOMB = (50_000, 50_000)
LAST_NS = 2**31 * 10**9 - 1
"""Of a stamp."""
ANSWER_S = 20.0
"""Patience with a console; slow answers are told apart by the time of the whole input."""


# ---- Images


@contextlib.contextmanager
def images(folder):
    """Raw images, as far as to the tracker."""
    from ainet_ros.ros.images import decode
    from ainet_ros.vision.encoding import to_rgb
    from ainet_ros.vision.registration import Calibration, Registration
    from ainet_ros.vision.thermal import MODES, ToneMap

    maps = [ToneMap(mode, limits=(100.0, 40_000.0)) for mode in MODES]
    calibration = Calibration(np.array([[2.0, 0, 1], [0, 2, 3], [0, 0.001, 1]]), (32, 24), (8, 6))
    registrations = [
        Registration("none"),
        Registration("resize"),
        Registration("homography", calibration),
    ]

    def check(given):
        pixels = decode(_image_message(given))
        shape = (given["height"], given["width"])
        assert pixels.shape in (shape, (*shape, 3)), pixels.shape
        assert pixels.dtype in (np.uint8, np.uint16)
        for tone_map in maps:
            mapped = tone_map(pixels)
            assert mapped.dtype == np.uint8
            assert mapped.shape == pixels.shape
        for registration in registrations:
            with contextlib.suppress(ValueError):
                warped = registration.warp(pixels, (32, 24))
                assert warped.shape[:2] == (24, 32)
                assert warped.dtype == pixels.dtype
        assert to_rgb(pixels).shape == (*shape, 3)

    yield check, image_fields()


def image_fields():
    """A strategy: the fields of an image message, many of which fit together."""
    from hypothesis import strategies as st

    side = st.one_of(st.integers(0, 40), st.integers(0, 10_000), st.integers(0, 2**32 - 1))

    @st.composite
    def fields(draw):
        encoding = draw(st.one_of(st.sampled_from(KINDS), st.text(max_size=12)))
        height, width = draw(side), draw(side)
        size = int((re.findall(r"(?<!\d)(?:8|16|32|64)(?!\d)", encoding) or ["8"])[0]) // 8
        channels = 3 if "3" in encoding or "b8" in encoding else 4 if "a" in encoding else 1
        row = width * size * channels
        step = draw(st.one_of(st.just(row), st.integers(-4, 8).map(row.__add__), side))
        whole = max(height * step, 0)
        length = draw(st.one_of(st.just(whole), st.integers(-5, 5).map(whole.__add__), side))
        return {
            "height": height,
            "width": width,
            "encoding": encoding,
            "step": min(max(step, 0), 2**32 - 1),
            "is_bigendian": draw(st.sampled_from((0, 1, 255))),
            "length": min(max(length, 0), 50_000),
            "seed": draw(st.integers(0, 2**32 - 1)),
        }

    return fields()


def _image_message(given):
    import array

    from sensor_msgs.msg import Image

    fields = dict(given)
    random = np.random.default_rng(fields.pop("seed"))
    data = random.integers(0, 256, fields.pop("length"), dtype=np.uint8)
    message = Image(**fields)
    message.data = array.array("B", data.tobytes())
    return message


@contextlib.contextmanager
def pictures(folder):
    """Images of absurd shapes, and boxes anywhere."""
    from hypothesis import strategies as st

    from ainet_ros.tracker.crop import extract, window
    from ainet_ros.tracker.tracker import State, Timing, Track, check_box, places_around
    from ainet_ros.vision import overlay
    from ainet_ros.vision.calibration import misfit

    number = st.one_of(st.floats(-50, 400), st.floats())
    side = st.one_of(st.integers(1, 60), st.integers(1, 10_000))
    given = st.tuples(side, side, st.tuples(number, number, number, number), st.integers(0, 7))

    def check(given):
        height, width, box, kind = given
        height = max(1, min(height, 300_000 // width))
        random = np.random.default_rng(kind)
        rgb = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        thermal = rgb if kind & 1 else np.ascontiguousarray(rgb[..., 0])
        if kind & 4:
            found = misfit(rgb, thermal)
            assert found is None or math.isfinite(found)
        state = State.LOST if kind & 2 else State.TRACKING
        with contextlib.suppress(ValueError):
            box = check_box(box, width, height)
            assert extract(rgb, window(box, 4.0), 32).shape == (32, 32, 3)
            assert len(places_around(box, width, height)) <= 257**2
            track = Track(box, 0.5, state, Timing(0.0, 0.0, 0.0))
            drawn = overlay.draw(rgb, {1: track, 2: track}, thermal, note="note")
            assert drawn.shape == rgb.shape

    yield check, given


@contextlib.contextmanager
def compressed(folder):
    """Compressed images; the checksums of a PNG are put right, or no change would get in."""
    from ainet_ros.vision.encoding import decode_compressed

    def check(data):
        pixels = decode_compressed(with_checksums(data))
        assert pixels.dtype in (np.uint8, np.uint16), pixels.dtype
        assert pixels.ndim == 2 or pixels.shape[2:] == (3,), pixels.shape

    yield check, compressed_examples()


def compressed_examples():
    import cv2

    random = np.random.default_rng(0)
    grey, colour, alpha = (
        random.integers(0, 256, (5, 7, *channels), dtype=np.uint8) for channels in ((), (3,), (4,))
    )
    deep = random.integers(0, 1 << 16, (5, 7), dtype=np.uint16)
    pictures = [
        *((".png", image) for image in (grey, colour, alpha, deep)),
        *((".jpg", image) for image in (grey, colour)),
        *((".tiff", image) for image in (grey, colour, deep, deep.astype(np.float32))),
        *((".bmp", image) for image in (grey, colour)),
    ]
    return [
        *(cv2.imencode(suffix, image)[1].tobytes() for suffix, image in pictures),
        png(*BOMB, 8, 2),
        png(20_000, 20_000, 16, 6),
        png(7, 5, 8, 4, zlib.compress(bytes(5 * 15))),  # grey with alpha
        png(7, 5, 1, 0, zlib.compress(bytes(5 * 2))),
        jpeg_of(65_000, 65_000),
        b"",
    ]


def png(width, height, depth, colour, data=b""):
    """A PNG file with these things in its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data or zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def jpeg_of(width, height):
    """A small JPEG whose header says another size."""
    import cv2

    data = bytearray(cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_checksums(data):
    """The checksums of a PNG's chunks put right; other data as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


@contextlib.contextmanager
def bearing(folder):
    """camera_info of any content."""
    from hypothesis import strategies as st

    from ainet_ros.ros.bearing import ray

    number = st.one_of(st.floats(-2, 2), st.floats(100, 1000), st.floats(), st.just(0.0))
    given = st.fixed_dictionaries(
        {
            "width": st.one_of(st.integers(0, 1000), st.integers(0, 2**32 - 1)),
            "height": st.one_of(st.integers(0, 1000), st.integers(0, 2**32 - 1)),
            "distortion_model": st.sampled_from(
                ("", "plumb_bob", "rational_polynomial", "equidistant", "thin_prism")
            ),
            "k": st.one_of(
                st.lists(number, min_size=9, max_size=9),
                st.just([300.0, 0, 160, 0, 300, 120, 0, 0, 1]),
            ),
            "d": st.lists(number, max_size=16),
            "roi": st.fixed_dictionaries(
                dict.fromkeys(
                    ("x_offset", "y_offset", "width", "height"),
                    st.one_of(st.just(0), st.integers(0, 2**32 - 1)),
                )
            ),
        }
    )

    def check(given):
        info = SimpleNamespace(**{**given, "roi": SimpleNamespace(**given["roi"])})
        found = ray(info, (160, 120), 80.0, 30.0)
        assert found is None or math.isclose(sum(v * v for v in found), 1, abs_tol=1e-6), found

    yield check, given


# ---- Files


@contextlib.contextmanager
def yaml(folder):
    """Every reader of YAML; the first byte says which."""
    from ainet_ros.training.config import TrainConfig
    from ainet_ros.vision import recording
    from ainet_ros.vision.registration import Calibration

    file = folder / "parameters.yaml"
    readers = (Calibration.load, TrainConfig.read, lambda _: recording._parameters(folder))

    def check(data):
        file.write_bytes(data[1:])
        readers[data[0] % len(readers) if data else 0](file)

    laughs = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    size = "rgb_size: [640, 480]\nthermal_size: [320, 256]\n"
    examples = [
        size + "homography: [[2, 0, 1], [0, 2, 3], [0, 0, 1]]\n",
        "/**: {ros__parameters: {slop: 0.1, weights: nano}}\n",
        *(path.read_text() for path in sorted((ROOT / "config" / "train").glob("nano*.yaml"))),
        f"{laughs}{size}homography: *i\n",
        f"{laughs}homography: []\nthermal_size: [1, 2]\nrgb_size: *i\n",
        f"{size}homography: [[{'1' * 400}, 0, 0], [0, 1, 0], [0, 0, 1]]\n",
        f"{size}homography: &h [*h]\n",
        "[" * 1000,
        "preset: nano\nsteps: 3\n1: 2\n",
        "preset: !!timestamp x\nsteps: !!bool y\n",
    ]
    yield check, [bytes([which]) + text.encode() for text in examples for which in range(3)]


@contextlib.contextmanager
def boxes(folder):
    """Files of boxes; the first byte says which."""
    from ainet_ros.vision import truth

    def check(data):
        for name in truth.FILES:
            (folder / name).unlink(missing_ok=True)
        which, text = (data[0], data[1:]) if data else (0, b"")
        for bit, name in enumerate(truth.FILES):
            if which >> bit & 1:
                (folder / name).write_bytes(text)
        found = truth.read(folder, range(1, 30))
        if found is not None:
            assert found.boxes.shape[1] == 4
            assert found.start.shape == (4,)

    lines = b"1,2,3,4\n5 6 7 8\n\t9\t10,11 12\n"
    yield check, [b"\1" + lines, b"\6" + lines, b"\x18" + lines, b"\x60" + lines, b"\7nan,inf,1,0"]


@contextlib.contextmanager
def weights(folder):
    """Weights files; what is left of a header is given the right length and digest."""
    import torch
    from safetensors.torch import save

    from ainet_ros.tracker import weights

    file = folder / "w.safetensors"

    def check(data):
        file.write_bytes(data)
        with contextlib.suppress(ValueError):
            weights.load(file)

    state = {"a": torch.zeros(2, 3), "b": torch.zeros(0), "c": torch.ones((), dtype=torch.int64)}
    metadata = {"format": weights.FORMAT, "sha256": weights.digest(state)}
    huge = json.dumps(
        {"a": {"dtype": "F32", "shape": [10**6] * 2, "data_offsets": [0, 4 * 10**12]}}
    )
    yield (
        check,
        [
            *(save(state, {**metadata, "config": config}) for config in ("{}", "[]", "[" * 3000)),
            struct.pack("<Q", len(huge)) + huge.encode(),
            struct.pack("<Q", 2**63) + b"{}",
            b"",
        ],
    )


TINY = {
    "template_size": 56, "search_size": 112, "patch_size": 14, "channels": 16, "heads": 2,
    "depth": 2, "interaction_layers": [0, 1], "dt_rank": 4, "d_state": 4, "head_channels": 16,
    "ofm_tokens": "search", "order_pool": 16, "order_widths": [8, 8, 8], "layer_scale": True,
    "box_prompt": True,
}  # fmt: skip


@contextlib.contextmanager
def configuration(folder):
    """Options of any kind and size: in a weights file that is otherwise whole, and of a run."""
    import torch
    from hypothesis import strategies as st
    from safetensors.torch import save

    from ainet_ros.network import AINetConfig
    from ainet_ros.tracker import weights
    from ainet_ros.training.config import TrainConfig

    value = st.one_of(anything(), st.integers(-1, 64), st.integers(), st.floats())
    fields = [field.name for field in dataclasses.fields(AINetConfig)]
    network = st.dictionaries(
        st.one_of(st.sampled_from(fields), st.text(max_size=3)), value, min_size=1, max_size=3
    )
    run_fields = [field.name for field in dataclasses.fields(TrainConfig)]
    run = st.dictionaries(
        st.one_of(st.sampled_from(run_fields), st.integers(), st.none()), value, max_size=5
    )
    state = {"norm.weight": torch.zeros(16)}
    digest = weights.digest(state)
    file = folder / "w.safetensors"

    def check(given):
        network, run = given
        text = json.dumps({**TINY, **network})
        file.write_bytes(save(state, {"format": weights.FORMAT, "sha256": digest, "config": text}))
        with contextlib.suppress(ValueError):
            weights.load(file)
            raise AssertionError("weights of one tensor are loaded")
        with contextlib.suppress(ValueError):
            TrainConfig.of({"preset": "nano", "steps": 10, **run})

    yield check, st.tuples(network, run)


def anything():
    """A strategy: all that JSON holds."""
    from hypothesis import strategies as st

    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )


@contextlib.contextmanager
def bags(folder):
    """MCAP and SQLite files; the first byte says which."""
    from ainet_ros.vision import recording
    from ainet_ros.vision.sources import open_source

    files = [folder / "bag.mcap", folder / "bag.db3"]

    def check(data):
        file = files[data[0] & 1 if data else 0]
        file.write_bytes(data[1:])
        with contextlib.suppress(ValueError):
            for frame in open_source(file):
                assert frame.rgb.dtype == np.uint8
        with contextlib.suppress(ValueError):
            recording.read(file)

    yield check, bag_examples(folder)


def bag_examples(folder):
    """One of each storage with two pairs, a Track and an Event; the kind as the first byte."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    types = get_typestore(Stores.LATEST)
    known = {}
    for path in sorted((ROOT / "msg").glob("*.msg")):
        known |= get_types_from_msg(path.read_text(), f"ainet_ros/msg/{path.stem}")
    types.register(known)
    make = types.types
    Header, Time = make["std_msgs/msg/Header"], make["builtin_interfaces/msg/Time"]
    Image, Box = make["sensor_msgs/msg/Image"], make["ainet_ros/msg/Box"]
    examples = []
    for first, (plugin, suffix) in enumerate(
        ((StoragePlugin.MCAP, "mcap"), (StoragePlugin.SQLITE3, "db3"))
    ):
        root = folder / f"example_{suffix}"
        with Writer(root, version=9, storage_plugin=plugin) as bag:
            topics = [
                bag.add_connection(f"/{name}/image_raw", Image.__msgtype__, typestore=types)
                for name in ("rgb", "thermal")
            ]
            events = bag.add_connection("/ainet/events", "ainet_ros/msg/Event", typestore=types)
            for number in range(2):
                stamp = Time(1, number)
                header = Header(stamp, "camera")
                for topic, kind in zip(topics, ("mono8", "16UC1"), strict=True):
                    data = np.zeros(8 if kind == "mono8" else 16, np.uint8)
                    image = Image(header, 2, 4, kind, 0, len(data) // 2, data)
                    bag.write(topic, number, types.serialize_cdr(image, Image.__msgtype__))
                event = make["ainet_ros/msg/Event"](
                    header, 1, 1, 0.5, stamp, False, Box(1.0, 2.0, 3.0, 4.0)
                )
                bag.write(events, number, types.serialize_cdr(event, event.__msgtype__))
        (file,) = root.glob(f"*.{suffix}")
        examples.append(bytes([first]) + file.read_bytes())
        shutil.rmtree(root)
    return [*examples, examples[0][: len(examples[0]) // 2], b"\0", b"\1SQLite format 3\0"]


# ---- The pairing


@contextlib.contextmanager
def pairing(folder):
    """Streams of stamps, gaps and changed settings: order, slop, one to one, bounded memory."""
    from hypothesis import strategies as st

    from ainet_ros.ros.filters import NearestTimePairs, SimpleFilter
    from ainet_ros.ros.pairing import NearestTime

    ms = 1_000_000
    time = st.one_of(
        st.integers(0, 3000).map(ms.__mul__),
        st.integers(-LAST_NS, LAST_NS),
    )
    settings = st.fixed_dictionaries(
        {
            "slop_ns": st.integers(0, 200 * ms),
            "queue_size": st.integers(1, 12),
            "offset_ns": st.integers(-10_000 * ms, 10_000 * ms),
            "alone_ns": st.one_of(st.none(), st.integers(1, 2000 * ms)),
        }
    )
    # Images of one camera or of both by a rhythm; one with any stamp; other settings.
    step = st.one_of(
        st.tuples(st.sampled_from(("rgb", "thermal", "both")), st.integers(1, 200 * ms),
                  st.integers(1, 25)),
        st.tuples(st.sampled_from(("rgb", "thermal")), time),
        settings,
    )  # fmt: skip

    def check(given):
        first, steps = given
        pairing = NearestTime(**first)
        sources, heard = {"rgb": SimpleFilter(), "thermal": SimpleFilter()}, []
        NearestTimePairs(*sources.values(), pairing).registerCallback(heard.append)
        largest = pairing.queue_size
        used, last = set(), {}

        def give(name, stamp):
            stamp = min(max(stamp, -LAST_NS), LAST_NS)
            sec, nanosec = divmod(stamp, 1000 * ms)
            header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
            jumps = pairing.counts.jumps
            heard.clear()
            number = sum(count.received for count in (pairing.counts.rgb, pairing.counts.thermal))
            sources[name].signalMessage(
                SimpleNamespace(header=header, name=name, stamp=stamp, number=number)
            )
            if pairing.counts.jumps > jumps:
                last.clear()
            assert len(pairing) <= 2 * largest
            for pair in heard:
                for kind, image in (("rgb", pair.rgb), ("thermal", pair.thermal)):
                    if image is not None:
                        assert image.name == kind
                        assert image.number not in used
                        assert last.get(kind, -math.inf) < image.stamp
                        used.add(image.number)
                        last[kind] = image.stamp
                if None not in pair[:2]:
                    aligned = pair.thermal_stamp + pairing.offset_ns
                    assert abs(aligned - pair.rgb_stamp) <= pairing.slop_ns

        now = 0
        for step in steps:
            if isinstance(step, dict):
                # Not the offset: what waits was aligned by the former one.
                for name in ("slop_ns", "queue_size", "alone_ns"):
                    setattr(pairing, name, step[name])
                largest = max(largest, pairing.queue_size)
            elif len(step) == 2:
                give(*step)
            else:
                names, period, count = step
                for _ in range(count):
                    now += period
                    for name in ("rgb", "thermal") if names == "both" else (names,):
                        give(name, now - (pairing.offset_ns if name == "thermal" else 0))

    yield check, st.tuples(settings, st.lists(step, max_size=12))


# ---- Nodes


class Log:
    """What a process logged since it was looked at last."""

    def __init__(self, process):
        self._process = process
        self._read = 0

    def check(self):
        """That nothing was unforeseen."""
        with self._process.log.open("rb") as file:
            file.seek(self._read)
            text = file.read().decode(errors="replace")
            self._read = file.tell()
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        assert self._process.alive(), "the node ended"


@contextlib.contextmanager
def tracker(folder, **parameters):
    """A running node that gets a pair now and then: a client, a check of it and its process."""
    import ros_nodes

    folder = folder / "node"
    folder.mkdir()
    rgb, thermal = ros_nodes.moving_scene(1)[0][0]
    with ros_nodes.client(folder) as ros:
        process = ros.start_tracker(
            ros_nodes.save_tiny_weights(folder / "tiny.safetensors"), **parameters
        )
        ros.track(rgb, thermal)
        yield ros, Log(process), process

        ros.set_parameter("ainet", registration="resize", queue_size=10, slop=0.05)
        ros.set_parameter("ainet", thermal_offset=0.0, degraded_after=0.5, max_targets=8)
        ros.track(rgb, thermal)
        answer = ros.init((30, 40, 24, 24))
        assert answer.success, answer.message


def coordinate():
    from hypothesis import strategies as st

    return st.one_of(st.floats(0, 160), st.floats(0, 1), st.floats(), st.just(5e-324))


def stamp():
    from hypothesis import strategies as st

    extreme = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
    return st.one_of(st.none(), extreme)


@contextlib.contextmanager
def services(folder):
    """Requests with any numbers and stamps."""
    from builtin_interfaces.msg import Time
    from hypothesis import strategies as st

    box = st.tuples(coordinate(), coordinate(), coordinate(), coordinate())
    init = st.tuples(st.just("init"), box, stamp(), st.booleans(), st.booleans())
    reset = st.tuples(st.just("reset"), st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)))
    with tracker(folder) as (ros, log, process):

        def check(given):
            if given[0] == "reset":
                answer = ros.reset(given[1])
            else:
                _, box, at, normalized, add = given
                # A stamp ahead is waited for, which is not what is looked for here.
                time = Time(sec=min(at[0], 0), nanosec=at[1]) if at else Time()
                answer = ros.init(box, time, normalized=normalized, add=add)
                assert answer.success == (answer.target_id > 0)
            assert answer.success == (not answer.message)
            log.check()

        check.pid = process.pid
        yield check, st.one_of(init, reset)


@contextlib.contextmanager
def parameters(folder):
    """Every parameter with any value of any type."""
    from hypothesis import strategies as st
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    from ainet_ros.ros.parameters import TrackerParameters
    from ainet_ros.ros.table import describe

    described = describe(TrackerParameters)
    names = [*described, "use_sim_time", "start_type_description_service", "", "nothing"]
    choices = sorted({choice for one in described.values() for choice in one.choices})
    whole = st.one_of(st.integers(-1, 100), st.integers(-(2**63), 2**63 - 1))
    number = st.one_of(st.floats(-1, 100), st.floats())
    text = st.one_of(
        st.sampled_from([*choices, "/", "/dev/zero", "1,2,3,4", "nan,inf,1,1", str(ROOT)]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    )
    value = st.one_of(
        st.just((0,)),
        st.tuples(st.just(1), st.booleans()),
        st.tuples(st.just(2), whole),
        st.tuples(st.just(3), number),
        st.tuples(st.just(4), text),
        st.tuples(st.just(5), st.binary(max_size=4).map(lambda data: [bytes([b]) for b in data])),
        st.tuples(st.just(6), st.lists(st.booleans(), max_size=3)),
        st.tuples(st.just(7), st.lists(whole, max_size=3)),
        st.tuples(st.just(8), st.lists(number, max_size=3)),
        st.tuples(st.just(9), st.lists(text, max_size=3)),
        st.tuples(st.integers(10, 255)),  # of none
    )
    fields = (
        "bool_value integer_value double_value string_value byte_array_value bool_array_value "
        "integer_array_value double_array_value string_array_value"
    ).split()
    with tracker(folder) as (ros, log, process):

        def check(given):
            changes = []
            for name, (kind, *values) in given:
                message = ParameterValue(type=kind)
                for one in values:
                    setattr(message, fields[kind - 1], one)
                changes.append(Parameter(name=name, value=message))
            request = SetParameters.Request(parameters=changes)
            if max(change.value.type for change in changes) > 9:  # rclpy has no answer to it
                ros.request(SetParameters, "ainet/set_parameters", request)
                assert ros.get_parameter("ainet", "weights")
                return
            answer = ros.call(SetParameters, "ainet/set_parameters", request)
            assert len(answer.results) == len(changes)
            assert all(result.successful or result.reason for result in answer.results)
            log.check()

        check.pid = process.pid
        yield check, st.lists(st.tuples(st.sampled_from(names), value), min_size=1, max_size=3)


@contextlib.contextmanager
def topics(folder):
    """Images and camera_info of any content while targets are tracked."""
    from geometry_msgs.msg import Vector3Stamped
    from hypothesis import strategies as st
    from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

    with (
        bearing(folder) as (_, info),
        tracker(folder, overlay_rate=0.0, degraded_after=3600.0) as (ros, log, process),
    ):
        publisher = ros.node.create_publisher(CameraInfo, "rgb/camera_info", 1)
        ros.node.create_subscription(Vector3Stamped, "ainet/bearing", lambda _: None, 1)
        ros.node.create_subscription(Image, "ainet/overlay", lambda _: None, 1)
        good = np.full((24, 32, 3), 90, np.uint8)

        def check(given):
            rgb, thermal, info, box = given
            publisher.publish(CameraInfo(**{**info, "roi": RegionOfInterest(**info["roi"])}))
            ros.publish(_image_message(rgb), _image_message(thermal))
            ros.init(box, add=True)
            ros.track(good, good)  # is answered, whatever came before
            ros.tracks.clear()
            log.check()

        check.pid = process.pid
        box = st.tuples(coordinate(), coordinate(), coordinate(), coordinate())
        yield check, st.tuples(image_fields(), image_fields(), info, box)


@contextlib.contextmanager
def console(folder):
    """A running console beside a tracker: its host and port, and its process."""
    with tracker(folder) as (ros, _, _):
        process = ros.start("console", {"port": 0})
        process.wait_for_log("ready: ")
        host, port = re.search(r"ready: http://([\d.]+):(\d+)/", process.text()).groups()
        yield (host, int(port)), Log(process), process


@contextlib.contextmanager
def http(folder):
    """Requests that are nearly right, and bytes that are none."""
    from hypothesis import strategies as st

    word = st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            b"GET POST / /socket /?token=x /page.js 127.0.0.1 HTTP/1.1 HTTP/1.0 websocket Upgrade "
            b"chunked -1 99999999999999999999 /../../etc/passwd ainet_token=%ff http://[ "
            b"[::1".split()
        ),
        st.just(b"a" * 9000),
    )
    name = st.sampled_from(
        b"Host Origin Cookie Upgrade Connection Content-Length Transfer-Encoding Expect "
        b"Sec-WebSocket-Key Sec-WebSocket-Version Sec-WebSocket-Extensions Range".split()
    )
    given = st.tuples(word, word, word, st.lists(st.tuples(name, word), max_size=5), word)
    with console(folder) as (address, log, process):

        def check(given):
            method, path, version, headers, body = given
            lines = [b" ".join((method, path, version)), b"Connection: close"]
            lines += [b": ".join(header) for header in headers]
            answer = exchange(address, b"\r\n".join([*lines, b"", body]))
            assert not answer.startswith(b"HTTP/1.1 500"), answer
            log.check()

        check.pid = process.pid
        yield check, given


def exchange(address, data):
    """What is answered before the other side hangs up; it is told soon that nothing follows."""
    answer = b""
    with socket.create_connection(address) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(0.1)
        connection.sendall(data)
        try:
            while part := connection.recv(1 << 16):
                answer += part
        except TimeoutError:
            connection.settimeout(ANSWER_S)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
    return answer


class Page:
    """A page's WebSocket: whole frames as they are written, and whether the console is there."""

    def __init__(self, address):
        self._connection = socket.create_connection(address, timeout=ANSWER_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self._connection.sendall(
            f"GET /socket HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._read = self._connection.makefile("rb")
        status = self._read.readline()
        assert b" 101 " in status, status
        while self._read.readline().strip():
            pass

    def send(self, first, payload):
        """A frame; first: its first byte."""
        mask = b"\1\2\3\4"
        head = (
            bytes([first, 0x80 | len(payload)])
            if len(payload) < 126
            else bytes([first, 0x80 | 126]) + struct.pack(">H", len(payload))
        )
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._connection.sendall(head + mask + masked)

    def answers(self):
        """Whether it is there after a ping, or has said why not; texts that came meanwhile."""
        texts = []
        try:
            self.send(0x89, b"there?")
            while True:
                first, length = self._read.read(2)
                if length == 126:
                    (length,) = struct.unpack(">H", self._read.read(2))
                elif length == 127:
                    (length,) = struct.unpack(">Q", self._read.read(8))
                payload = self._read.read(length)
                if first & 15 == 1:
                    texts.append(json.loads(payload))
                if first & 15 == 10:
                    return True, texts
                if first & 15 == 8:
                    return False, texts
        except (ConnectionError, ValueError):  # it has hung up
            return False, texts

    def close(self):
        with contextlib.suppress(ConnectionError):
            self.send(0x88, b"")
            while self._read.read(1 << 12):
                pass
        self._read.close()
        self._connection.close()


@contextlib.contextmanager
def sockets(folder):
    """A page's requests with any values, and frames that are none."""
    from hypothesis import strategies as st

    from ainet_ros.ros.parameters import TrackerParameters
    from ainet_ros.ros.table import describe

    value = st.one_of(anything(), st.integers(), st.floats())
    box = st.one_of(st.lists(coordinate(), min_size=4, max_size=4), anything())
    names = st.one_of(st.sampled_from(list(describe(TrackerParameters))), anything())
    request = st.fixed_dictionaries(
        {"do": st.one_of(st.sampled_from("init reset set seen view".split()), anything())},
        optional={
            "box": box, "stamp": value, "add": value, "target": value, "name": names,
            "value": value, "number": value, "view": st.sampled_from(("rgb", "overlay", 3)),
        },
    )  # fmt: skip
    texts = st.one_of(request, anything()).map(lambda one: (0x81, json.dumps(one).encode()))
    frames = st.tuples(st.integers(0, 255), st.binary(max_size=125))
    longest = st.tuples(st.just(0x81), st.integers(126, 9000).map(lambda n: b"[" * n))
    with console(folder) as (address, log, process):
        page, sent = Page(address), 0

        def check(given):
            nonlocal page, sent
            sent += 1
            page.send(*given)
            there, texts = page.answers()
            replies = [reply for text in texts for reply in text.get("replies", [])]
            assert not [reply for reply in replies if "internal error" in reply["text"]], replies
            if not there or sent % 30 == 0:  # a page may ask for so many things at once
                page.close()
                page = Page(address)
            log.check()

        check.pid = process.pid
        yield check, st.one_of(texts, texts, frames, longest)
        page.close()


# ---- The kernel


FLAGS = (
    "-std=c++17 -O1 -g -fPIC -shared -fopenmp -Wno-psabi -fno-omit-frame-pointer "
    "-fsanitize=address,undefined -fno-sanitize-recover=all -include cstdlib"
).split()
# The machine's instructions, less those that a variable of the environment forbids.
FORMS = '__builtin_cpu_supports(x)=(__builtin_cpu_supports(x)&&!std::getenv("FUZZ_NO_" x))'


@contextlib.contextmanager
def kernel(folder):
    """The scan through its Python interface, in each form that this machine can run."""
    import torch

    from ainet_ros.network import scan

    built = folder / "scan.so"
    source = ROOT / "csrc" / "selective_scan.cpp"
    # The compiler needs none of the sanitizers that this process has.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    own = os.environ.get("CXXFLAGS", "").split()
    command = ["g++", *FLAGS, *own, f"-D{FORMS}", str(source), "-o", str(built)]
    subprocess.run(command, check=True, env=environment)
    forms = []
    for number, without in enumerate(((), ("avx512f",), ("avx512f", "avx2"))):
        for name in without:
            os.environ[f"FUZZ_NO_{name}"] = "1"
        copy = folder / f"scan{number}.so"
        shutil.copy(built, copy)  # another file is another library, which chooses anew
        library = ctypes.CDLL(str(copy))
        for direction, dtype in itertools.product(("forward", "backward"), ("float", "double")):
            run = getattr(library, f"ainet_scan_{direction}_{dtype}")
            run(ctypes.byref(scan._Problem(threads=1, chunk=1)))  # which chooses
        forms.append(library)
    scan._GRAIN = 1  # small problems go to several threads too

    def check(given):
        random = np.random.default_rng(given)
        scan._library = forms[random.integers(len(forms))]
        torch.set_num_threads(int(random.integers(1, 5)))
        _scan_once(scan, torch, random)

    yield check, lambda seed, number: [seed, number]


def _scan_once(scan, torch, random):
    """A scan of random shape, strides, types and values, and mostly its gradients."""
    dtypes = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
    dtype = dtypes[random.integers(len(dtypes))]
    batch, states = int(random.integers(0, 4)), int(random.choice([0, 1, 2, 5, 8, 16]))
    channels = int(random.choice([0, 1, 3, 4, 8, 15, 16, 17, 33, 64]))
    length = int(random.choice([1, 2, 7, 63, 64, 65, 128, 129, 140]))
    wild, wrong = random.random() < 0.3, random.random() < 0.05
    gradients = random.random() < 0.6

    def tensor(*shape):
        if wrong and random.random() < 0.2:
            shape = tuple(int(side + random.integers(-1, 2)) for side in shape)
            shape = tuple(max(side, 0) for side in shape)[: random.integers(0, len(shape) + 1)]
        values = random.normal(size=shape)
        if wild and values.size:
            odd = [np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-40, -1e-310, 5e-324, 0.0, -0.0, 200.0]
            where = random.random(values.shape) < 0.2
            values[where] = random.choice(odd, int(where.sum()))
        made = torch.from_numpy(np.asarray(values)).to(dtype)
        how = random.integers(6)
        if how == 1 and made.ndim > 1:  # the other order in memory
            made = made.transpose(-1, -2).contiguous().transpose(-1, -2)
        elif how == 2 and made.ndim:  # gaps between elements, and not from the start
            wide = made.new_full((*made.shape[:-1], 2 * made.shape[-1] + 1), 7.0)
            wide[..., 1::2] = made
            made = wide[..., 1::2]
        elif how == 3 and made.ndim and made.shape[0]:  # no step at all
            made = made[:1].expand(made.shape)
        elif how == 4 and made.numel():  # an odd address
            raw = bytearray(1 + made.numel() * made.element_size())
            raw[1:] = made.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            made = torch.frombuffer(raw, dtype=dtype, offset=1).reshape(made.shape)
        return made.requires_grad_(gradients and random.random() < 0.8)

    series, of_states = (batch, channels, length), (batch, states, length)
    tensors = [tensor(*shape) for shape in (series, series, (channels, states), of_states,
                                            of_states)]  # fmt: skip
    for shape in ((channels,), series, (channels,)):
        tensors.append(tensor(*shape) if random.random() < 0.6 else None)
    softplus = bool(random.integers(2))
    out, last = scan.selective_scan_fn(*tensors, softplus, True, backend="cpp")
    assert out.shape == series
    assert last.shape == (batch, channels, states)
    if not wild and dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            known, _ = scan.selective_scan_fn(*tensors, softplus, True, backend="reference")
            terms = _terms(scan, torch, *tensors, softplus)
        overflows = ~(terms < 1e36)  # in one order of the products sooner than in another
        assert (((out - known).abs() <= 2e-4 * (1 + terms)) | overflows).all()
    if out.requires_grad:
        loss = out.float().sum() + last.float().sum()
        loss.backward()
        for one in tensors:
            if one is not None and one.requires_grad and one.is_leaf:
                assert one.grad is None or one.grad.shape == one.shape


def _terms(scan, torch, u, delta, A, B, C, D, z, bias, softplus):
    """What `selective_scan_fn` adds up, without signs: the terms may cancel, and the error of
    their sum is then to be judged by their size, not by its own."""
    if bias is not None:
        delta = delta + bias[:, None]
    ways = 1 if softplus else delta.sign()
    terms = scan.selective_scan_fn(
        ways * u.abs(), delta, A, B.abs(), C.abs(), None, None, None, softplus, backend="reference"
    )
    if D is not None:
        terms = terms + D.abs()[:, None] * u.abs()
    return terms if z is None else terms * torch.nn.functional.silu(z).abs()
