# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What all tests share."""

import os
from pathlib import Path

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
