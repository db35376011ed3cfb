# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another path to write to, this process's own; at the end of the block, unless it fails,
    `path` becomes that.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    yield partial
    os.replace(partial, path)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file."""
    with replacing(path) as partial:
        partial.write_bytes(data)
