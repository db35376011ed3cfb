# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Recordings of RGB-T pairs: folders of images, videos and rosbag2 bags."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from . import RGB_TOPIC, THERMAL_TOPIC
from . import truth as truth_files
from .boxes import Boxes
from .encoding import decode_compressed, from_opencv, to_rgb

# Names of the two streams in LasHeR, RGBT234 and RGBT210; VTUAV; GTOT.
STREAMS = (("visible", "infrared"), ("rgb", "ir"), ("v", "i"))
DEFAULT_RATE = 30.0  # Hz, of folders and of videos that do not say theirs

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
_BAG_SUFFIXES = {".mcap", ".db3"}


class Frame(NamedTuple):
    """One RGB-T pair.

    Attributes:
        rgb: uint8 (height, width, 3), RGB order.
        thermal: uint8 (h, w) or (h, w, 3), or uint16 (h, w) raw counts; any size.
        stamp_ns: time of the RGB image in nanoseconds.
        name: of the frame within its source.
    """

    rgb: npt.NDArray[np.uint8]
    thermal: npt.NDArray[Any]
    stamp_ns: int
    name: str


class Source(ABC):
    """A recording: sized, and an iterable that reads it anew each time.

    Attributes:
        name: of the recording.
        rate: frames a second.
        boxes: (M, 4) float64 x, y, w, h in pixels of the RGB image, true boxes of the first M
            frames, NaN rows where the target is not to be seen or nobody labelled it; None where
            none are known.
        truth: the labels of both modalities, as they stand in the files; None where there are no
            files.
    """

    name: str
    rate: float
    boxes: Boxes | None = None
    truth: truth_files.Truth | None = None

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """The files, RGB and thermal, that it is read from, where it has pairs of them."""
        return []

    @property
    def labelled(self) -> npt.NDArray[np.int64]:
        """The frames whose boxes somebody labelled, be it as not to be seen."""
        if self.truth is not None:
            return self.truth.frames
        return np.arange(0 if self.boxes is None else len(self.boxes))

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...


def open_source(
    path: str | PathLike[str],
    *,
    rate: float | None = None,
    rgb_topic: str = RGB_TOPIC,
    thermal_topic: str = THERMAL_TOPIC,
) -> Source:
    """Opens a recording.

    Args:
        path: a folder that holds a pair of image folders or of videos (``visible`` and
            ``infrared``, ``rgb`` and ``ir``, ``v`` and ``i``), a rosbag2 bag (its folder, or
            an .mcap or .db3 file), or a recording of the node `recorder`.
        rate: frames a second; sets the stamps to frame / rate. By default the video's own rate,
            the stamps of the bag, `DEFAULT_RATE` for folders.
        rgb_topic, thermal_topic: image topics of a bag. A relative name is looked for in any
            namespace; compressed topics (name/compressed) serve where the raw one is not there.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is no such recording, its streams do not fit together, or its boxes
            cannot be read.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such recording")
    check_rate(rate)
    if is_bag(root):
        try:
            from .bag import BagSource
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{root}: bags are read by the package rosbags: pip install rosbags"
            ) from error
        return BagSource(root, rate, rgb_topic, thermal_topic)
    for names in STREAMS:
        folders = [root / name for name in names]
        if all(folder.is_dir() for folder in folders):
            return FolderSource(root, (folders[0], folders[1]), rate)
        videos = [_video(root, name) for name in names]
        if videos[0] and videos[1]:
            return VideoSource(root, (videos[0], videos[1]), rate)
    pairs = ", ".join(" + ".join(names) for names in STREAMS)
    raise ValueError(
        f"{root}: not a recording: expected two folders of images or two videos named "
        f"{pairs}, or a rosbag2 bag"
    )


def check_rate(rate: float | None) -> None:
    """Raises ValueError for a rate that is no number of frames a second; None is the source's."""
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"rate {rate} must be positive and finite")


def is_bag(path: Path) -> bool:
    """Whether there is a bag, or a recording of the node `recorder`."""
    return (
        path.suffix in _BAG_SUFFIXES
        or (path / "metadata.yaml").is_file()
        or any(path.glob("*.mcap"))
        or any(path.glob("part_*/*.mcap"))
    )


def is_sequence(path: Path) -> bool:
    """Whether a folder holds a pair of image folders or videos with true boxes."""
    return any((path / name).is_file() for name in truth_files.FILES) and any(
        all(has_stream(path, name) for name in names) for names in STREAMS
    )


def has_stream(path: Path, name: str) -> bool:
    """Whether a folder holds a stream of that name, a folder of images or a video."""
    return (path / name).is_dir() or _video(path, name) is not None


class FolderSource(Source):
    """Two folders of images, paired in natural order of their names."""

    def __init__(self, root: Path, folders: tuple[Path, Path], rate: float | None) -> None:
        self.name = recording_name(root)
        self.rate = rate or DEFAULT_RATE
        self._files = [images_of(folder) for folder in folders]
        counts = [len(files) for files in self._files]
        if counts[0] != counts[1]:
            raise ValueError(
                f"{root}: {folders[0].name} has {counts[0]} images, {folders[1].name} {counts[1]}"
            )
        self.truth = truth_files.read(root, [_number(file) for file in self._files[0]])
        self.boxes = self.truth.boxes if self.truth else None

    def __len__(self) -> int:
        return len(self._files[0])

    def __getitem__(self, index: int) -> Frame:
        """The frame of an index from 0; ValueError where an image of it cannot be decoded."""
        rgb, thermal = (files[index] for files in self._files)
        with errors_at(rgb):
            color = to_rgb(decode_compressed(rgb.read_bytes()))
        with errors_at(thermal):
            heat = decode_compressed(thermal.read_bytes())
        return Frame(color, heat, stamp_of(index, self.rate), rgb.stem)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """The images, RGB and thermal, of each frame."""
        return list(zip(*self._files, strict=True))


class VideoSource(Source):
    """Two videos of equal length."""

    def __init__(self, root: Path, files: tuple[Path, Path], rate: float | None) -> None:
        self.name = recording_name(root)
        self._files = files
        counts, rates = [], []
        for file in files:
            video = _open_video(file)
            counts.append(round(video.get(cv2.CAP_PROP_FRAME_COUNT)))
            rates.append(video.get(cv2.CAP_PROP_FPS))
            video.release()
        if counts[0] != counts[1]:
            raise ValueError(
                f"{root}: {files[0].name} has {counts[0]} frames, {files[1].name} {counts[1]}"
            )
        if counts[0] < 1:
            raise ValueError(f"{files[0]}: no frames in the video")
        self._count = counts[0]
        self.rate = rate or (rates[0] if 0 < rates[0] < 1000 else DEFAULT_RATE)
        self.truth = truth_files.read(root, range(self._count))
        self.boxes = self.truth.boxes if self.truth else None

    def __len__(self) -> int:
        return self._count

    @property
    def files(self) -> list[tuple[Path, Path]]:
        return [self._files]

    def __iter__(self) -> Iterator[Frame]:
        videos = [_open_video(file) for file in self._files]
        try:
            for index in range(self._count):
                images = []
                for file, video in zip(self._files, videos, strict=True):
                    good, image = video.read()
                    if not good:
                        raise ValueError(
                            f"{file}: frame {index} of {self._count} cannot be decoded"
                        )
                    images.append(from_opencv(image))
                stamp = stamp_of(index, self.rate)
                yield Frame(to_rgb(images[0]), images[1], stamp, f"{index:06d}")
        finally:
            for video in videos:
                video.release()


def recording_name(path: Path) -> str:
    """The name of the recording at a path, a folder or one file."""
    return path.resolve().stem if path.is_file() else path.resolve().name


def stamp_of(index: int, rate: float) -> int:
    """The stamp in nanoseconds of a frame of a recording that starts at 0."""
    return round(index * 1e9 / rate)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame10 after frame9."""
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in natural order. Raises ValueError where there are none."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES]
    if not files:
        raise ValueError(f"{folder}: no images in the folder")
    return sorted(files, key=_natural)


def _video(root: Path, name: str) -> Path | None:
    files = (root / f"{name}{suffix}" for suffix in _VIDEO_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _open_video(file: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(file))
    if not video.isOpened():
        raise ValueError(f"{file}: not a video that can be decoded")
    return video


def _number(file: Path) -> int:
    """The number in an image's name, the last one; -1 where there is none."""
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1]) if digits else -1


@contextmanager
def errors_at(where: object) -> Iterator[None]:
    """Puts the place of an image before the message of a decoding error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def frames_at(source: Source, wanted: Iterable[int]) -> Iterator[tuple[int, Frame]]:
    """The wanted frames of a source with their numbers, in their order."""
    if isinstance(source, FolderSource):
        yield from ((number, source[number]) for number in sorted(wanted))
        return
    chosen = set(wanted)
    for number, frame in enumerate(source):
        if number in chosen:
            yield number, frame
