# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the node `recorder` is told, and the images that it keeps until they are answered."""

from __future__ import annotations

from dataclasses import dataclass

from .pairing import JUMP_NS
from .table import Table, parameter

TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class RecorderParameters(Table):
    """Parameters of `recorder`."""

    folder: str = parameter(
        "",
        "Where recordings go; each start makes one, named by its time. Each recorder needs a "
        "folder of its own.",
        read_only=True,
    )
    rgb_transport: str = parameter(
        "raw",
        "As the tracker's; where that differs, the recorder follows it.",
        choices=TRANSPORTS,
        read_only=True,
    )
    thermal_transport: str = parameter(
        "raw", "The same for thermal/image_raw.", choices=TRANSPORTS, read_only=True
    )
    part_mb: int = parameter(
        500,
        "A recording is written in parts of this size.",
        unit="MB",
        limits=(1, 65536),
        read_only=True,
    )
    total_mb: int = parameter(
        20000,
        "Most of all recordings in the folder: the oldest parts are deleted for new ones. 0: no "
        "bound.",
        unit="MB",
        limits=(0, 2**31 - 1),
        read_only=True,
    )
    free_mb: int = parameter(
        1000,
        "So much of the disk is left free: with less, recording waits until there is more.",
        unit="MB",
        limits=(0, 2**31 - 1),
        read_only=True,
    )
    memory_mb: int = parameter(
        256,
        "Most memory of the images that the tracker has not answered yet; as much again may wait "
        "for the disk.",
        unit="MB",
        limits=(1, 65536),
        read_only=True,
    )

    def check(self) -> None:
        if 0 < self.total_mb < 2 * self.part_mb:
            raise ValueError(
                f"total_mb ({self.total_mb}) must be 0, or twice part_mb ({self.part_mb}) or more"
            )


Key = tuple[int, int]
"""An image: the number of its camera and its stamp in nanoseconds."""


class UnansweredImages:
    """Serialized images of all cameras that an answer may still name, each given out once.

    Answers may come before the images that they name. Times are `time.monotonic`.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        """Images are kept so long, and no more of them; so long too an answer waits for one."""
        self.seconds = seconds
        self.given = 0
        """Images that were given out."""
        self.missing = 0
        """Images that were named and did not come, or were not kept."""
        self._max_bytes = max_bytes
        self._bytes = 0
        # Each in order of time.
        self._kept: dict[Key, tuple[float, bytes]] = {}
        self._named: dict[Key, float] = {}
        self._given_at: dict[Key, float] = {}
        self._newest: dict[int, int] = {}  # stamps, by camera

    def add(self, key: Key, image: bytes, now: float) -> bytes | None:
        """Take an image; returns it where an answer has named it already."""
        self.forget(now)
        camera, stamp = key
        if stamp < self._newest.get(camera, stamp) - JUMP_NS:  # as where a bag is looped
            self._given_at = {k: at for k, at in self._given_at.items() if k[0] != camera}
        self._newest[camera] = stamp
        if self._named.pop(key, None) is not None:
            self._note_given(key, now)
            return image
        if key in self._given_at or key in self._kept:
            return None  # it comes twice while its camera is subscribed anew
        self._kept[key] = (now, image)
        self._bytes += len(image)
        while self._bytes > self._max_bytes:
            self._drop_oldest()
        return None

    def name(self, key: Key, now: float) -> bytes | None:
        """An answer names an image; returns it where it is here and was not given yet."""
        self.forget(now)
        if key in self._given_at:
            return None
        if key not in self._kept:
            self._named.setdefault(key, now)
            return None
        _, image = self._kept.pop(key)
        self._bytes -= len(image)
        self._note_given(key, now)
        return image

    def forget(self, now: float) -> None:
        """Drop what is too old."""
        since = now - self.seconds
        while self._kept and next(iter(self._kept.values()))[0] < since:
            self._drop_oldest()
        for times in (self._named, self._given_at):
            while times and next(iter(times.values())) < since:
                del times[next(iter(times))]
                self.missing += times is self._named

    def _note_given(self, key: Key, now: float) -> None:
        self._given_at[key] = now
        self.given += 1

    def _drop_oldest(self) -> None:
        _, image = self._kept.pop(next(iter(self._kept)))
        self._bytes -= len(image)
