# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Training by several processes, as torchrun starts them."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from networks import TINY
from torch import nn

from ainet_ros.cli import main
from ainet_ros.tracker import weights
from ainet_ros.training.processes import Processes, SynchronizedBatchNorm2d

ROOT = Path(__file__).resolve().parents[1]
STEPS = 24
CONFIG = dict(
    preset="small", network={**TINY, "ofm_order": "hard"}, steps=STEPS, batch=4, workers=0,
    save_every=4, validation_samples=8, ema=0.9, clip=1.0, box_at="truth", warmup=4,
    data={"absent": 0.4, "stills": {"rgbt_stills/tno": 1.0}},
)  # fmt: skip
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of `ainet` but for the output folder; small pictures to train on."""
    folder = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    for number in range(24):
        for stream in ("visible", "infrared"):
            image = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (160, 120))
            path = folder / "data/rgbt_stills/tno" / stream / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
    (folder / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    data, cache = str(folder / "data"), str(folder / "cache")
    return ["train", str(folder / "train.yaml"), "--data", data, "--cache", cache, "--device=cpu"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def launch(arguments: list[str], count: int = 2) -> subprocess.Popen:
    """`ainet` in so many processes."""
    return subprocess.Popen(
        [*LAUNCH, str(count), "-m", "ainet_ros.cli", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "log.csv").open()))


@pytest.fixture(scope="module")
def one(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run in one process."""
    folder = tmp_path_factory.mktemp("one")
    assert main([*command, "--output", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("count", [2, 1])
def test_two_processes_that_were_killed_train_as_one(
    command: list[str], one: Path, tmp_path: Path, count: int
) -> None:
    """So they do where one process alone goes on."""
    two = tmp_path / "two"
    killed = launch([*command, "--output", str(two)])
    until = time.monotonic() + 120
    while not (two / "checkpoint.pt").exists():
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)
    worker, _ = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    killed.communicate(timeout=120)
    assert killed.returncode != 0
    assert torch.load(two / "checkpoint.pt", weights_only=True)["step"] < STEPS

    again = launch([*command, "--output", str(two)], count)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    # One process speaks.
    assert said.count(f"step={STEPS} ") == 1
    assert [row["step"] for row in rows(two)] == [str(s) for s in range(4, STEPS + 1, 4)]
    for row, expected in zip(rows(two), rows(one), strict=True):
        for name in set(row) - {"seconds"}:
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-4), name
    networks = [weights.load(folder / "weights.safetensors") for folder in (one, two)]
    variances = [
        torch.cat([b for name, b in network.named_buffers() if name.endswith("running_var")])
        for network in networks
    ]
    torch.testing.assert_close(*variances, rtol=0, atol=1e-4)
    for network in networks:
        # A bias before a batch normalization has no gradient but what rounding leaves, of which
        # Adam makes steps: statistics of the batch cancel it, running ones lag behind.
        network.head.train()
    torch.manual_seed(0)
    template, search = torch.rand(4, 2, 3, 28, 28), torch.rand(4, 2, 3, 56, 56)
    outputs = [network(template, search) for network in networks]
    for part in ("score_map", "size_map", "offset_map"):
        torch.testing.assert_close(
            getattr(outputs[0], part), getattr(outputs[1], part), rtol=0, atol=1e-5
        )


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert Processes(torch.device("cpu"), 1, 4).share(16) == 4
    with pytest.raises(ValueError, match="a batch of 16 cannot be shared by 3 processes"):
        Processes(torch.device("cpu"), 0, 3).share(16)


def test_synchronized_batch_norm_is_batch_norm(tmp_path: Path) -> None:
    """Alone, with its process group of one; the test of two processes has the rest."""
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5)
    nn.init.normal_(plain.weight)
    own = SynchronizedBatchNorm2d.like(plain)
    x = torch.randn(3, 5, 4, 4) * 3 + 7
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(i) for norm, i in zip((plain, own), inputs, strict=True)]
        for output in outputs:
            (output**3).sum().backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(own.state_dict(), plain.state_dict())
    torch.testing.assert_close(own.eval()(x), plain.eval()(x))
