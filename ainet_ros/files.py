# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Files that are written whole or not at all, digests of them, and YAML from anybody."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES, MOST_VALUES = 1 << 16, 1 << 16
"""Of a YAML file."""
MOST_NESTED = 50
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Why a file does not take more; such an error of a write does not name the file."""


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Another path to write to, this process's own; at the end of the block `path` becomes that,
    or, where it fails, there is nothing of it, and an OSError names `path`.

    `suffix` is the other path's, for what is written by those that go by it.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial{suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # the error that led here is to be seen
            partial.unlink()
        if isinstance(error, OSError) and (
            error.filename == str(partial) or (error.filename is None and error.errno in FULL)
        ):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose ~ or ~user is replaced. Raises ValueError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from None


def shipped(name: str) -> list[Path]:
    """The folders of that name among the package's files: of the source tree, and
    `share/ainet_ros` of the prefix that it is installed to."""
    module = Path(__file__).resolve()
    shares = [prefix / "share" / "ainet_ros" for prefix in (*module.parents, Path(sys.prefix))]
    return [folder for root in (module.parents[1], *shares) if (folder := root / name).is_dir()]


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def digest(*paths: Path) -> str:
    """SHA-256 of what is in files, in this order, as hexadecimal digits. Raises OSError."""
    each = (hashlib.sha256(path.read_bytes()).digest() for path in paths)
    return hashlib.sha256(b"".join(each)).hexdigest()


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What a YAML file holds, as plain values.

    Raises FileNotFoundError, or ValueError that names the file where it is none, or so large that
    it is no configuration; values that are referred to count each time.
    """
    path = expanded(path)
    if path.exists() and not path.is_file():  # a pipe or a device might never end
        raise ValueError(f"{path}: not a regular file")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES} bytes, too many for a configuration")
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
        count = _count(node, {})  # before merge keys (<<) copy what they refer to
        values = loader.construct_document(node) if node and count <= MOST_VALUES else None
    except Exception as error:  # some of what is no YAML fails with other kinds than YAMLError
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if count > MOST_VALUES:
        raise ValueError(f"{path}: more than {MOST_VALUES} values, too many for a configuration")
    return values


class _Loader(yaml.SafeLoader):
    """One that does not look for the ends of any number of brackets, which takes it long."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= MOST_NESTED:
            raise yaml.YAMLError(f"more than {MOST_NESTED} brackets within each other")
        super().fetch_flow_collection_start(TokenClass)


def _count(node: Any, known: dict[int, int]) -> int:
    """The nodes of YAML within one, itself included; too many where it holds itself."""
    if isinstance(node, tuple):  # of a mapping
        return sum(_count(one, known) for one in node)
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES
        known[id(node)] = 1 + sum(_count(one, known) for one in node.value)
    return known[id(node)]
