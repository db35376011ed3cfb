# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pairs of images out of rosbag2 bags (MCAP or SQLite), read by the package rosbags.

A recording of the node `recorder` is several bags, its parts, and reads as one. A part that was
not completed, for the recorder was killed or still writes it, reads as far as it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ainet_ros.files import shipped

from .encoding import decode_compressed, decode_image, stamp_ns, to_rgb
from .sources import (
    DEFAULT_RATE,
    Frame,
    Source,
    check_rate,
    errors_at,
    recording_name,
    stamp_of,
)

SLOP = 0.05  # s, the largest difference of the stamps of a pair
PARTS = "part_*"  # of a recording
PARAMETERS = "parameters.yaml"  # beside them: the tracker's

_RAW = "sensor_msgs/msg/Image"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"

_MAGIC = b"\x89MCAP0\r\n"  # begins and ends an MCAP file
_RECORD = struct.Struct("<BQ")  # its operation code and the length of what follows
_HEADER, _FOOTER, _DATA_END = 0x01, 0x02, 0x0F
# Without an index, and without checksums.
_END = _RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(_FOOTER, 20) + bytes(20) + _MAGIC
_COPIED = 2**20  # bytes at once

Stamps = npt.NDArray[np.int64]


class BagSource(Source):
    """Two image topics of a bag, each RGB image paired with the nearest thermal one.

    Images pair where each is the other's nearest and their stamps differ by at most `SLOP`; the
    others are left out. Stamps are those of the headers, or the times of recording for both
    where the headers of one topic carry none. `boxes` is None.

    Args:
        pairs: RGB and thermal stamps of the pairs to read instead, in this order, 0 for a silent
            camera, whose image is then black; those whose images the bag lacks are left out.

    Attributes:
        present: (K,) the indices in `pairs` of those that the bag has.

    Raises:
        ValueError: the rate is not positive and finite, the bag cannot be read, or it has no such
            images.
    """

    def __init__(
        self,
        path: Path,
        rate: float | None,
        rgb_topic: str,
        thermal_topic: str,
        pairs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        check_rate(rate)
        self.name = recording_name(path)
        self._path = path
        with opened(path) as bag:
            topics = [_topic(bag, path, topic) for topic in (rgb_topic, thermal_topic)]
            # Of a camera that was silent all along a recording has no topic.
            if None in topics and (pairs is None or not any(topics)):
                wanted = (rgb_topic, thermal_topic)[topics.index(None)]
                images = ", ".join(_image_topics(bag)) or "none"
                raise ValueError(f"{path}: no image topic {wanted}; its image topics are {images}")
            self._topics = [
                found or wanted
                for found, wanted in zip(topics, (rgb_topic, thermal_topic), strict=True)
            ]
            rgb, thermal = _stamps(bag, self._topics)
        if pairs is None:
            self._pairs = nearest_pairs(rgb, thermal, round(SLOP * 1e9))
            self.present = np.arange(len(self._pairs))
        else:
            self._pairs, self.present = _named_pairs(rgb, thermal, pairs)
        if not len(self._pairs):
            between = (
                f"is within {SLOP} s of one" if pairs is None else "belongs to an answered pair"
            )
            raise ValueError(
                f"{path}: no image of {self._topics[0]} ({len(rgb)} images) {between} "
                f"of {self._topics[1]} ({len(thermal)} images)"
            )
        self._stamps = np.array(
            [rgb[r] if r >= 0 else thermal[t] for r, t in self._pairs.tolist()], np.int64
        )
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
        with opened(self._path) as bag:
            # Height and width of the last images, for those of a silent camera.
            shapes = [
                self._first_shape(bag, side) if self._pairs[0, side] < 0 else () for side in (0, 1)
            ]
            for side, _, message in _messages(bag, self._topics):
                if seen[side] in wanted[side]:
                    where = f"{self._path}: {self._topics[side]}, image {seen[side]}"
                    with errors_at(where):
                        image = _pixels(message)
                        waiting[side][seen[side]] = image if side else to_rgb(image)
                seen[side] += 1
                while done < len(self):
                    indices = self._pairs[done].tolist()
                    if not all(
                        index < 0 or index in images
                        for index, images in zip(indices, waiting, strict=True)
                    ):
                        break
                    rgb, thermal = (
                        images.pop(index, None)
                        for index, images in zip(indices, waiting, strict=True)
                    )
                    shapes = [
                        kept if image is None else image.shape[:2]
                        for image, kept in zip((rgb, thermal), shapes, strict=True)
                    ]
                    if rgb is None:
                        rgb = np.zeros((*shapes[0], 3), np.uint8)
                    if thermal is None:
                        thermal = np.zeros(shapes[1], np.uint8)
                    yield Frame(rgb, thermal, int(self._stamps[done]), f"{done:06d}")
                    done += 1

    def _first_shape(self, bag: AnyReader, side: int) -> tuple[int, ...]:
        """Of a camera's first image; of the other's where it has none."""
        for topic in (self._topics[side], self._topics[1 - side]):
            for _, _, message in _messages(bag, [topic]):
                with errors_at(f"{self._path}: {topic}, image 0"):
                    return _pixels(message).shape[:2]
        raise ValueError(f"{self._path}: no image of {' or '.join(self._topics)}")


def _named_pairs(
    rgb: Stamps, thermal: Stamps, pairs: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(K, 2) indices into the stamps, -1 for a silent camera, and (K,) which pairs they are; a
    pair of two silent cameras is none."""
    places = [
        {0: -1, **{stamp: index for index, stamp in enumerate(stamps.tolist())}}
        for stamps in (rgb, thermal)
    ]
    found = [
        (number, [place.get(stamp) for place, stamp in zip(places, pair, strict=True)])
        for number, pair in enumerate(pairs)
    ]
    whole = [
        (number, indices)
        for number, indices in found
        if None not in indices and indices != [-1, -1]
    ]
    return (
        np.array([indices for _, indices in whole], np.int64).reshape(-1, 2),
        np.array([number for number, _ in whole], np.int64),
    )


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


@cache
def typestore() -> Typestore:
    """The common message types and those of this package, for bags that do not define theirs."""
    types = get_typestore(Stores.LATEST)
    for folder in shipped("msg")[:1]:
        for file in sorted(folder.glob("*.msg")):
            types.register(get_types_from_msg(file.read_text(), f"ainet_ros/msg/{file.stem}"))
    return types


@contextmanager
def opened(path: Path) -> Iterator[AnyReader]:
    """A bag, or all parts of a recording as one.

    Raises ValueError where it cannot be read.
    """
    with ExitStack() as stack:
        parts = sorted(filter(Path.is_dir, path.glob(PARTS))) or [path]
        files = [file for part in parts for file in _readable(part, stack)]
        if not files:
            raise ValueError(f"{path}: nothing that can be read has reached the disk")
        try:
            bag = AnyReader(files, default_typestore=typestore())
            yield stack.enter_context(bag)
        except (ValueError, OSError):
            raise
        except Exception as error:  # rosbags has many kinds for what is damaged
            raise ValueError(f"{path}: the bag cannot be read: {error!r}") from error


def _readable(part: Path, stack: ExitStack) -> list[Path]:
    """What of a bag can be opened; a temporary copy of a file that was not completed."""
    if (part / "metadata.yaml").is_file():
        return [part]
    files = []
    for file in sorted(part.glob("*.mcap")) if part.is_dir() else [part]:
        if file.suffix != ".mcap" or _is_complete(file):
            files.append(file)
        elif holds_messages(file):
            folder = stack.enter_context(TemporaryDirectory(prefix="ainet_"))
            files.append(_completed(file, Path(folder)))
    return files


def _is_complete(file: Path) -> bool:
    with file.open("rb") as opened_file:
        opened_file.seek(-min(len(_MAGIC), file.stat().st_size), 2)
        return opened_file.read() == _MAGIC


def _records(file: Path) -> Iterator[tuple[int, int]]:
    """Operation code and end, in bytes from the beginning, of the records that are whole."""
    size = file.stat().st_size
    with file.open("rb") as opened_file:
        end = len(_MAGIC)
        if opened_file.read(end) != _MAGIC:
            return
        while len(head := opened_file.read(_RECORD.size)) == _RECORD.size:
            code, length = _RECORD.unpack(head)
            end += _RECORD.size + length
            if end > size:
                return
            yield code, end
            opened_file.seek(end)


def holds_messages(file: Path) -> bool:
    """Whether an MCAP file that was not completed has anything to be read."""
    return any(code not in (_HEADER, _DATA_END) for code, _ in _records(file))


def _completed(file: Path, folder: Path) -> Path:
    """A copy of an MCAP file: the data that is whole, and an end."""
    left = len(_MAGIC)
    for code, end in _records(file):
        if code == _DATA_END:
            break
        left = end
    copy = folder / file.name
    with file.open("rb") as torn, copy.open("wb") as completed:
        while left and (data := torn.read(min(left, _COPIED))):
            left -= completed.write(data)
        completed.write(_END)
    return copy


def _image_topics(bag: AnyReader) -> list[str]:
    return sorted({c.topic for c in bag.connections if c.msgtype in (_RAW, _COMPRESSED)})


def _topic(bag: AnyReader, path: Path, wanted: str) -> str | None:
    """The bag's topic of that name, raw before compressed."""
    images = _image_topics(bag)
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
    return None


def _messages(bag: AnyReader, topics: list[str]) -> Iterator[tuple[int, int, Any]]:
    """Yields (0 for RGB or 1 for thermal, time of recording in ns, message)."""
    connections = [c for c in bag.connections if c.topic in topics]
    if not connections:
        return  # of none, rosbags would give all that there is
    for connection, time, data in bag.messages(connections):
        yield topics.index(connection.topic), time, bag.deserialize(data, connection.msgtype)


def _stamps(bag: AnyReader, topics: list[str]) -> tuple[Stamps, Stamps]:
    headers: tuple[list[int], list[int]] = ([], [])
    recorded: tuple[list[int], list[int]] = ([], [])
    for side, time, message in _messages(bag, topics):
        headers[side].append(stamp_ns(message.header.stamp))
        recorded[side].append(time)
    told = all(any(stamps) for stamps in headers if stamps)
    rgb, thermal = headers if told else recorded
    return np.array(rgb, np.int64), np.array(thermal, np.int64)


def _pixels(message: Any) -> npt.NDArray[Any]:
    if message.__msgtype__ == _COMPRESSED:
        return decode_compressed(message.data)
    return decode_image(message)
