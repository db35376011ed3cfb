# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Messages into bags of bounded size, each a part of a recording: FOLDER/TIME/part_NNNNNN."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys.store import Typestore

from ainet_ros.files import expanded, write_whole
from ainet_ros.vision.bag import PARAMETERS, PARTS, holds_messages

from .recording import RecorderParameters
from .table import MEGABYTE

RESERVE = 16 * MEGABYTE
"""Of the queue, for messages that are no images."""
RUNS = "????-??-??_??-??-??*"
RUN_NAME = "%Y-%m-%d_%H-%M-%S"
RETRY_S = 5.0
"""Between attempts to write where that has failed."""
VERSION = 8
"""Of the bags: the newest whose metadata Humble's rosbag2 can read."""


class Topic(NamedTuple):
    """name: as it stands in the bag; type: as sensor_msgs/msg/Image."""

    name: str
    type: str


class Message(NamedTuple):
    """data: serialized, as it came."""

    topic: Topic
    data: bytes


class Status(NamedTuple):
    """How the writing fares, counted since the start."""

    run: Path | None
    """The folder of this recording, once there is one."""
    parts: int
    messages: int
    bytes: int
    dropped: int
    """Messages that could not be written, or not in time."""
    trouble: str
    """Why nothing is written at present."""


class PartWriter:
    """Writes what is `put`, in a thread of its own, which a full or slow disk may hold up.

    Each part is a bag that is complete when the next one begins. Where writing fails, what comes
    is dropped and counted, and a new part is tried every `RETRY_S`.
    """

    def __init__(self, parameters: RecorderParameters, types: Typestore) -> None:
        self._folder = expanded(parameters.folder).absolute()
        self._part_bytes = parameters.part_mb * MEGABYTE
        self._total_bytes = parameters.total_mb * MEGABYTE
        self._free_bytes = parameters.free_mb * MEGABYTE
        self._queue_bytes = parameters.memory_mb * MEGABYTE
        self._types = types
        self._changed = threading.Condition()
        # Below the condition: shared with the callers' threads.
        self._queue: deque[Sequence[Message]] = deque()
        self._queued = 0  # bytes
        self._stop_by: float | None = None
        self._parameters: str | None = None
        self._status = Status(None, 0, 0, 0, 0, "")
        # The thread's own.
        self._bag: Writer | None = None
        self._connections: dict[Topic, Connection] = {}
        self._in_part = 0  # bytes
        self._parameters_written: str | None = None
        self._last_ns = 0
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._run, name="writing", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        with self._changed:
            return self._status

    def put(self, messages: Sequence[Message], *, images: bool = False) -> None:
        """Hand over messages that are written together, or counted as dropped."""
        size = _size(messages)
        limit = self._queue_bytes + (0 if images else RESERVE)
        with self._changed:
            if self._queued + size > limit or self._stop_by is not None:
                self._count(dropped=len(messages))
                return
            self._queue.append(messages)
            self._queued += size
            self._changed.notify()

    def keep_parameters(self, text: str) -> None:
        """Have a file of parameters written beside the parts."""
        with self._changed:
            self._parameters = text

    def close(self, timeout_s: float) -> None:
        """Write what waits, for so long, and complete the part, for as long again."""
        with self._changed:
            self._stop_by = time.monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(2 * timeout_s)

    # The thread's

    def _run(self) -> None:
        while (messages := self._next()) is not None:
            self._write(messages)
        try:
            self._complete()
        except (OSError, WriterError) as error:
            self._fail(error)

    def _next(self) -> Sequence[Message] | None:
        """None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stop_by is not None)
            if self._stop_by is not None and time.monotonic() > self._stop_by:
                self._count(dropped=sum(map(len, self._queue)))
                self._queue.clear()
            if not self._queue:
                return None
            messages = self._queue.popleft()
            self._queued -= _size(messages)
            return messages

    def _write(self, messages: Sequence[Message]) -> None:
        if time.monotonic() < self._retry_at:
            with self._changed:
                self._count(dropped=len(messages))
            return
        try:
            self._check_free()
            self._check_there()
            bag = self._bag or self._begin()
            self._write_parameters(bag.path.parent)
            for message in messages:
                # Never back, though the clock may be set: a part that is torn off is only
                # readable in order.
                self._last_ns = max(self._last_ns, time.time_ns())
                bag.write(self._connection(bag, message.topic), self._last_ns, message.data)
            self._in_part += _size(messages)
            if self._in_part >= self._part_bytes:
                self._complete()
        except (OSError, WriterError) as error:
            self._fail(error, dropped=len(messages))
            return
        with self._changed:
            self._count(messages=len(messages), bytes=_size(messages))
            self._status = self._status._replace(trouble="")

    def _check_free(self) -> None:
        """Raises OSError where the disk is fuller than it may be."""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < self._free_bytes:
            self._complete()
            raise OSError(
                errno.ENOSPC,
                f"{free / MEGABYTE:.0f} MB are free on the disk, and free_mb asks for "
                f"{self._free_bytes / MEGABYTE:.0f}",
                str(self._folder),
            )

    def _check_there(self) -> None:
        """Raises FileNotFoundError where the part was deleted: its file takes what nobody will
        read."""
        if self._bag is not None and not self._bag.path.exists():
            raise FileNotFoundError(
                errno.ENOENT,
                "what was recorded has been deleted or moved, recording begins anew",
                str(self._bag.path),
            )

    def _begin(self) -> Writer:
        run = self._status.run or self._new_run()
        self._make_room(run)
        with self._changed:
            number = self._status.parts
        path = run / PARTS.replace("*", f"{number:06d}")
        bag = Writer(path, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        try:
            bag.open()
        except (OSError, WriterError):
            _remove_empty(path)  # else no attempt could begin it again
            raise
        self._bag, self._connections, self._in_part = bag, {}, 0
        with self._changed:
            self._status = self._status._replace(parts=number + 1)
        return bag

    def _write_parameters(self, run: Path) -> None:
        with self._changed:
            text = self._parameters
        path = run / PARAMETERS
        if text is None or (text == self._parameters_written and path.exists()):
            return
        write_whole(path, text.encode())
        self._parameters_written = text

    def _new_run(self) -> Path:
        run = self._folder / time.strftime(RUN_NAME)
        names = (run.with_name(f"{run.name}_{number}") for number in itertools.count(2))
        while run.exists():
            run = next(names)
        run.mkdir()
        with self._changed:
            self._status = self._status._replace(run=run)
        return run

    def _make_room(self, run: Path) -> None:
        """Delete the oldest parts, those of this run last, until there is room for another."""
        if not self._total_bytes:
            return
        parts = sorted(
            filter(Path.is_dir, self._folder.glob(f"{RUNS}/{PARTS}")),
            key=lambda part: (part.parent == run, part.parent.name, part.name),
        )
        sizes = [sum(file.stat().st_size for file in part.iterdir()) for part in parts]
        total = sum(sizes)
        for part, size in zip(parts, sizes, strict=True):
            if total + self._part_bytes <= self._total_bytes:
                return
            shutil.rmtree(part)
            total -= size
            if part.parent != run and not any(part.parent.glob(PARTS)):
                shutil.rmtree(part.parent)

    def _connection(self, bag: Writer, topic: Topic) -> Connection:
        if topic not in self._connections:
            self._connections[topic] = bag.add_connection(
                topic.name, topic.type, typestore=self._types
            )
        return self._connections[topic]

    def _complete(self) -> None:
        """End the part, and have it reach the disk."""
        if self._bag is None:
            return
        self._bag.close()
        for file in self._bag.path.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        self._bag = None

    def _fail(self, error: Exception, *, dropped: int = 0) -> None:
        """Leave the part as it is: what has reached the file can be read."""
        if self._bag is not None:
            with suppress(Exception):  # it fails as the writing did
                self._bag.abort()
            _remove_empty(self._bag.path)
            self._bag = None
        self._retry_at = time.monotonic() + RETRY_S
        with self._changed:
            self._count(dropped=dropped)
            self._status = self._status._replace(trouble=str(error))

    def _count(self, **more: int) -> None:
        """Add to the counts, below the condition."""
        counts = self._status._asdict()
        self._status = self._status._replace(**{k: counts[k] + n for k, n in more.items()})


def _remove_empty(part: Path) -> None:
    """Remove a part of which nothing can be read."""
    if not any(map(holds_messages, part.glob("*.mcap"))):
        shutil.rmtree(part, ignore_errors=True)


def _size(messages: Sequence[Message]) -> int:
    return sum(len(message.data) for message in messages)
