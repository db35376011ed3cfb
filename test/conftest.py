# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# The nodes under test run beside this process and need the other cores.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--page", type=Path, help="run in full, and write what was seen into this page"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and golden outputs, which are not part of the repository."""
    folder = Path(os.environ.get("AINET_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set AINET_SHARED to where the recordings are")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights of a network so small that the tests are quick."""
    import ros_nodes

    return ros_nodes.save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def ros(tmp_path: Path) -> Iterator[Any]:
    """A client for the nodes that a test starts, which end with it."""
    import ros_nodes

    with ros_nodes.client(tmp_path) as client:
        yield client
