# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`make fuzz` in a short form, and what it has found before."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import fuzz
import fuzz_targets
import numpy as np
import pytest
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save

from ainet_ros.bench.measure import memory_growth
from ainet_ros.files import MOST_BYTES, read_yaml
from ainet_ros.network import AINetConfig
from ainet_ros.tracker import weights
from ainet_ros.training.config import TrainConfig
from ainet_ros.vision import calibration
from ainet_ros.vision.encoding import decode_compressed
from ainet_ros.vision.registration import Calibration

NEEDS = {
    "rclpy": "services parameters topics sockets http images bearing".split(),
    "aiohttp": ["sockets", "http"],
    "rosbags": ["yaml", "bags"],
}


def judged(check, folder, inputs=10):
    """A judge of a check, for this process."""
    return fuzz.Judge(check, folder, inputs)


def faults(folder):
    return json.loads((folder / "state.json").read_text())["faults"]


def changed(examples):
    """A strategy: examples with some bytes changed, left out or said twice."""
    change = st.tuples(st.integers(0, 4096), st.binary(max_size=4), st.integers(0, 8))

    def apply(given):
        data, changes = given
        for at, new, gone in changes:
            at %= len(data) + 1
            data = data[:at] + new + data[at + gone :]
        return data

    return st.tuples(st.sampled_from(examples), st.lists(change, max_size=6)).map(apply)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", [name for name in fuzz.TARGETS if name != "kernel"])
def test_nothing_breaks(name, tmp_path):
    for module, users in NEEDS.items():
        if name in users:
            pytest.importorskip(module, reason=f"needs {module}", exc_type=ImportError)
    target = fuzz.TARGETS[name]
    with getattr(fuzz_targets, name)(tmp_path) as (check, source):
        judge = judged(check, tmp_path, target.short)
        # Atheris does not come back, and is not everywhere.
        strategy = changed(source) if target.tool == "atheris" else source
        for example in source if target.tool == "atheris" else ():
            judge(example)
        fuzz._by_strategy(judge, strategy, target.short, 0, tmp_path)
    assert judge.count == target.short
    assert not faults(tmp_path), [path.read_text() for path in tmp_path.glob("*.txt")]


def test_the_kernel_is_sound(tmp_path, monkeypatch):
    if shutil.which("g++") is None or os.uname().machine != "x86_64":
        pytest.skip("needs g++ on x86-64")
    for library in ("libasan.so", "libubsan.so"):  # packages of their own on some systems
        found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True)
        if not Path(found.stdout.decode().strip()).is_absolute():
            pytest.skip(f"needs g++'s {library}")
    monkeypatch.setenv("CXXFLAGS", "-O0 -g0")  # a fifth of the compiler's time
    outcome = fuzz.fuzz("kernel", fuzz.TARGETS["kernel"].short, 0, tmp_path)
    assert not outcome.faults, (tmp_path / "kernel" / "log").read_text()[-3000:]


def test_by_coverage_and_the_page(tmp_path, monkeypatch, capsys):
    pytest.importorskip("atheris", reason="needs atheris", exc_type=ImportError)
    page = tmp_path / "page.md"
    page.write_text("<!-- fuzz: begin -->\n<!-- fuzz: end -->\n")
    options = ["boxes", "--scale", "0.005", "--output", str(tmp_path / "out"), "--page", str(page)]
    monkeypatch.setattr("sys.argv", ["fuzz.py", *options])
    assert fuzz.main() == 0
    inputs = round(0.005 * fuzz.TARGETS["boxes"].inputs)
    assert f"boxes: {inputs} in" in capsys.readouterr().out
    assert f"| files of true boxes | atheris | {inputs} | 0 | 0 | 0 |" in page.read_text()


def test_what_is_wrong_is_kept_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_S", 0.05)

    def check(data):
        if data == b"slow":
            time.sleep(0.06)
        elif data == b"wrong":
            raise KeyError("not documented")
        elif data:
            raise ValueError("documented")

    judge = judged(check, tmp_path, 5)
    for data in (b"", b"slow", b"wrong", b"bad", b"wrong"):
        judge(data)
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["inputs"] == 5
    kept = {what: (tmp_path / name).read_bytes() for what, name in state["faults"].items()}
    assert list(kept.values()) == [b"slow", b"wrong"]
    assert [what.partition(":")[0] for what in kept] == ["hang", "crash"]
    (text,) = (path.read_text() for path in tmp_path.glob("crash-*.txt"))
    assert "KeyError: 'not documented'" in text


def test_a_process_that_ends_leaves_its_input(tmp_path, monkeypatch):
    code = (
        "import contextlib, os\n"
        "@contextlib.contextmanager\n"
        "def boxes(folder):\n"
        "    yield lambda number: number == 7 and os.abort(), lambda seed, number: number\n"
    )
    (tmp_path / "fuzz_targets.py").write_text(code)
    (tmp_path / "fuzz.py").write_text((fuzz.ROOT / "test" / "fuzz.py").read_text().replace(
        '"files of true boxes", "atheris"', '"files of true boxes", "random"'
    ))  # fmt: skip
    monkeypatch.setattr(fuzz, "__file__", str(tmp_path / "fuzz.py"))
    outcome = fuzz.fuzz("boxes", 100, 0, tmp_path / "out")
    ((what, kept),) = outcome.faults.items()
    assert "process ended (-6)" in what
    assert (tmp_path / "out" / "boxes" / kept).read_bytes() == b"7"


# What was found


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (fuzz_targets.png(50_000, 50_000, 8, 2), "more pixels than cameras have"),
        (fuzz_targets.png(12_000, 10_000, 16, 6), "claim 12000x10000 pixels"),
        (fuzz_targets.jpeg_of(65_000, 65_000), "more pixels than cameras have"),
        (fuzz_targets.png(0, 5, 8, 0), "cannot be decoded"),
        (b"", r"compressed image data \(0 bytes\) cannot be decoded"),
        (cv2.imencode(".tiff", np.zeros((4, 4), np.float32))[1].tobytes(), "float32 pixels"),
    ],
)
def test_images_that_claim_too_much(data, text):
    with pytest.raises(ValueError, match=text):
        decode_compressed(data)


def test_a_part_of_a_png_that_claims_gigabytes_takes_none():
    data = fuzz_targets.png(7, 5, 8, 0)
    at = data.index(b"IDAT")
    data = data[: at - 4] + (1 << 31).to_bytes(4, "big") + data[at:]

    def decode():
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode_compressed(data)

    assert memory_growth(decode) < 1 << 28


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "too many for a configuration"),
        ("a: &a [*a]", "too many for a configuration"),
        (LAUGHS.replace("[", "{<<: [").replace("]", "]}").replace("1", "{}"), "too many"),
        ("#" * (MOST_BYTES + 1), "too many for a configuration"),
        ("[" * 60_000, "not a YAML file: more than 50 brackets"),
        ("- " * 30_000, "not a YAML file"),
        ("a: !!timestamp x", "not a YAML file"),
        ("a: !!bool x", "not a YAML file"),
        ("a: [", "not a YAML file"),
        ("\x80", "not a YAML file"),
    ],
)
def test_yaml_of_bad_will(text, message, tmp_path):
    file = tmp_path / "file.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"file.yaml: .*{message}"):
        read_yaml(file)


def test_yaml_from_what_never_ends(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            read_yaml(path)
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "nothing")


def test_yaml_that_refers_to_values_is_read(tmp_path):
    (tmp_path / "file").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert read_yaml(tmp_path / "file") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    "change",
    [
        {"homography": [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]},
        {"rgb_size": [True, True]},
    ],
)
def test_calibrations_of_no_numbers(change, tmp_path):
    good = {"homography": np.eye(3).tolist(), "rgb_size": [4, 4], "thermal_size": [4, 4]}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**good, **change}))
    with pytest.raises(ValueError, match=f"c.yaml: {next(iter(change))} must be"):
        Calibration.load(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"channels": 1 << 40}, "channels 1099511627776 is outside 1 to"),
        ({"depth": 10**6}, "depth 1000000 is outside 1 to 100"),
        ({"patch_size": 0}, "patch_size 0 is outside"),
        ({"heads": "2"}, "heads must be int, not '2'"),
        ({"depth": True}, "depth must be int, not True"),
        ({"dfm": 3}, "dfm must be one of mamba, attention, none, not 3"),
        ({"interaction_layers": 3}, "interaction_layers must be"),
        ({"order_widths": [8, 8]}, "order_widths must be"),
        ({"drop_path": 1.5}, "drop_path 1.5 must be"),
        ({"channels": 16_384, "heads": 1}, "do not fit the network"),  # of 100 GB
    ],
)
def test_weights_of_an_absurd_network(changes, text, tmp_path):
    state = {"norm.weight": torch.zeros(16)}
    metadata = {
        "format": weights.FORMAT,
        "sha256": weights.digest(state),
        "config": json.dumps({**fuzz_targets.TINY, **changes}),
    }
    (tmp_path / "w.safetensors").write_bytes(save(state, metadata))
    with pytest.raises(ValueError, match=f"w.safetensors: .*{text}"):
        weights.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize("text", ["[]", "3", "[" * 100_000, '{"1": 2}', "{"])
def test_weights_without_options(text, tmp_path):
    state = {"norm.weight": torch.zeros(16)}
    metadata = {"format": weights.FORMAT, "sha256": weights.digest(state), "config": text}
    (tmp_path / "w.safetensors").write_bytes(save(state, metadata))
    with pytest.raises(ValueError, match=r"w\.safetensors: "):
        weights.load(tmp_path / "w.safetensors")


def test_options_come_back_from_json():
    config = AINetConfig.from_dict(fuzz_targets.TINY)
    assert AINetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({1: 2, None: 3, "a": 4}, "unknown options"),
        ({"steps": "many"}, "steps must be int, not 'many'"),
        ({"lr": float("nan")}, "lr must be float, not nan"),
        ({"dfm_lr": []}, "dfm_lr must be"),
        ({"network": {1: 2}}, "network must be"),
        ({"losses": {"giou": "2"}}, "giou must be float"),
        ({"schedule": "often"}, "schedule must be one of step, cosine"),
    ],
)
def test_training_runs_of_wrong_types(changes, text):
    with pytest.raises(ValueError, match=text):
        TrainConfig.of({"preset": "nano", "steps": 10, **changes})


@pytest.mark.parametrize("storage", [0, 1])
def test_bags_that_were_cut_off(storage, tmp_path):
    pytest.importorskip("rosbags", reason="needs rosbags")
    from ainet_ros.vision import recording
    from ainet_ros.vision.sources import open_source

    example = fuzz_targets.bag_examples(tmp_path)[storage][1:]
    file = tmp_path / ("bag.mcap", "bag.db3")[storage]
    file.write_bytes(example)
    assert len(open_source(file)) == 2
    assert len(recording.read(file).events) == 2

    def frames():
        with contextlib.suppress(ValueError):
            return len(list(open_source(file)))
        return 0

    counts = []
    for end in range(0, len(example), len(example) // 50):
        file.write_bytes(example[:end])
        counts.append(frames())
    assert min(counts) == 0
    assert max(counts) <= 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"d": [0.1] * 3}, "3 distortion coefficients"),
        ({"d": [0.1] * 5, "distortion_model": "equidistant"}, "5 distortion coefficients"),
        ({"d": [float("nan")] * 5}, "gives no direction"),
        ({"k": [float("nan")] * 9}, "gives no direction"),
    ],
)
def test_camera_info_of_no_lens(changes, text):
    bearing = pytest.importorskip("ainet_ros.ros.bearing", reason="needs ROS 2")
    good = dict(
        width=160,
        height=120,
        distortion_model="plumb_bob",
        k=[300.0, 0, 160, 0, 300, 120, 0, 0, 1],
        d=[],
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    )
    assert bearing.ray(SimpleNamespace(**good), (160, 120), 80, 30)
    with pytest.raises(ValueError, match=text):
        bearing.ray(SimpleNamespace(**{**good, **changes}), (160, 120), 80, 30)


@pytest.mark.parametrize("shape", [(10_000, 1), (1, 10_000), (500, 100)])
def test_a_sliver_is_not_compared(shape):
    """It would be blown up to the width that pairs are compared at."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert calibration.misfit(image, image) is None
    with pytest.raises(ValueError, match="too long and narrow"):
        calibration.from_pairs([(image, image)])


def test_a_parameter_of_no_type_does_not_end_the_node(ros, tiny):
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    process = ros.start_tracker(tiny)
    wrong = Parameter(name="slop", value=ParameterValue(type=192))
    request = SetParameters.Request(parameters=[wrong])
    ros.request(SetParameters, "ainet/set_parameters", request)
    process.wait_for_log("a request was left out: 192 is not a valid Parameter.Type")
    (answer,) = ros.set_parameter("ainet", slop=0.1)
    assert answer.successful


def test_the_console_does_not_log_what_is_no_http(ros):
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    process = ros.start("console", {"port": 0})
    process.wait_for_log("ready: ")
    port = int(process.text().partition("127.0.0.1:")[2].partition("/")[0])
    for request in (
        b"GET " + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    ):
        assert b" 400 " in fuzz_targets.exchange(("127.0.0.1", port), request)
    assert "Traceback" not in process.text()
