# SPDX-License-Identifier: Apache-2.0
"""Pairs of images out of rosbag2 bags (MCAP or SQLite), read by the package rosbags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from .encoding import decode, decode_compressed, to_rgb
from .sources import (
    DEFAULT_RATE,
    Frame,
    Source,
    errors_at,
    recording_name,
    stamp_of,
)

SLOP = 0.05  # s, the largest difference of the stamps of a pair

_RAW = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"

Stamps = npt.NDArray[np.int64]


class BagSource(Source):
    """Two image topics of a bag, each RGB image paired with the nearest thermal one.

    Images pair where each is the other's nearest and their stamps differ by at most `SLOP`; the
    others are left out. Stamps are those of the headers, or the times of recording where a
    topic's headers carry none. `boxes` is None.
    """

    def __init__(self, path: Path, rate: float | None, rgb_topic: str, thermal_topic: str) -> None:
        self.name = recording_name(path)
        self._path = path
        with _opened(path) as bag:
            self._topics = [_topic(bag, path, topic) for topic in (rgb_topic, thermal_topic)]
            rgb, thermal = _stamps(bag, self._topics)
        self._pairs = nearest_pairs(rgb, thermal, round(SLOP * 1e9))
        if not len(self._pairs):
            raise ValueError(
                f"{path}: no image of {self._topics[0]} ({len(rgb)} images) is within {SLOP} s "
                f"of one of {self._topics[1]} ({len(thermal)} images)"
            )
        self._stamps = rgb[self._pairs[:, 0]]
        span = float(self._stamps[-1] - self._stamps[0]) / 1e9
        self.rate = rate or ((len(self) - 1) / span if span > 0 else DEFAULT_RATE)
        if rate:
            self._stamps = np.array([stamp_of(index, rate) for index in range(len(self))])

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[Frame]:
        wanted = [set(self._pairs[:, side].tolist()) for side in (0, 1)]
        waiting: list[dict[int, npt.NDArray[Any]]] = [{}, {}]  # images whose partner is to come
        seen = [0, 0]
        done = 0
        with _opened(self._path) as bag:
            for side, _, message in _messages(bag, self._topics):
                if seen[side] in wanted[side]:
                    where = f"{self._path}: {self._topics[side]}, image {seen[side]}"
                    with errors_at(where):
                        image = _pixels(message)
                        waiting[side][seen[side]] = image if side else to_rgb(image)
                seen[side] += 1
                while done < len(self):
                    rgb, thermal = self._pairs[done].tolist()
                    if rgb not in waiting[0] or thermal not in waiting[1]:
                        break
                    yield Frame(
                        waiting[0].pop(rgb),
                        waiting[1].pop(thermal),
                        int(self._stamps[done]),
                        f"{done:06d}",
                    )
                    done += 1


def nearest_pairs(first: Stamps, second: Stamps, slop: int) -> npt.NDArray[np.int64]:
    """Pairs stamps that are each other's nearest.

    Args:
        first, second: (N,), (M,) stamps in any order.
        slop: largest difference of a pair, in the stamps' unit.

    Returns:
        (K, 2) indices into `first` and `second`, in order of the stamps; none occurs twice.
    """
    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64)
    orders = [np.argsort(stamps, kind="stable") for stamps in (first, second)]
    ours, theirs = first[orders[0]], second[orders[1]]
    partner = _nearest(ours, theirs)
    index = np.arange(len(ours))
    kept = _nearest(theirs, ours)[partner] == index
    kept &= np.abs(ours - theirs[partner]) <= slop
    return np.stack([orders[0][index[kept]], orders[1][partner[kept]]], axis=1)


def _nearest(stamps: Stamps, others: Stamps) -> npt.NDArray[np.int64]:
    """For each stamp the index of the nearest of the sorted others, the earlier of two."""
    right = np.searchsorted(others, stamps).clip(max=len(others) - 1)
    left = (right - 1).clip(min=0)
    nearest: npt.NDArray[np.int64] = np.where(
        np.abs(stamps - others[left]) <= np.abs(others[right] - stamps), left, right
    )
    return nearest


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as bag:
            yield bag
    except AnyReaderError as error:
        raise ValueError(f"{path}: the bag cannot be read: {error}") from error


def _topic(bag: AnyReader, path: Path, wanted: str) -> str:
    """The bag's topic of that name, raw before compressed."""
    images = sorted({c.topic for c in bag.connections if c.msgtype in (_RAW, _COMPRESSED)})
    for name in (wanted, f"{wanted}/compressed"):
        found = [
            topic
            for topic in images
            if topic == name or (not name.startswith("/") and topic.endswith(f"/{name}"))
        ]
        if len(found) > 1:
            raise ValueError(f"{path}: topic {wanted} could be each of {', '.join(found)}")
        if found:
            return found[0]
    raise ValueError(
        f"{path}: no image topic {wanted}; its image topics are {', '.join(images) or 'none'}"
    )


def _messages(bag: AnyReader, topics: list[str]) -> Iterator[tuple[int, int, Any]]:
    """Yields (0 for RGB or 1 for thermal, time of recording in ns, message)."""
    connections = [c for c in bag.connections if c.topic in topics]
    for connection, time, data in bag.messages(connections):
        yield topics.index(connection.topic), time, bag.deserialize(data, connection.msgtype)


def _stamps(bag: AnyReader, topics: list[str]) -> tuple[Stamps, Stamps]:
    headers: tuple[list[int], list[int]] = ([], [])
    recorded: tuple[list[int], list[int]] = ([], [])
    for side, time, message in _messages(bag, topics):
        stamp = message.header.stamp
        headers[side].append(stamp.sec * 1_000_000_000 + stamp.nanosec)
        recorded[side].append(time)
    rgb, thermal = headers if all(any(stamps) for stamps in headers) else recorded
    return np.array(rgb, np.int64), np.array(thermal, np.int64)


def _pixels(message: Any) -> npt.NDArray[Any]:
    if message.__msgtype__ == _COMPRESSED:
        return decode_compressed(message.data)
    return decode(
        message.data,
        message.height,
        message.width,
        message.encoding,
        message.step,
        bool(message.is_bigendian),
    )
