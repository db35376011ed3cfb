# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Reads recordings, once, into the two files of a cache."""

from __future__ import annotations

import json
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ainet_ros.files import replacing
from ainet_ros.vision.benchmarks import Sequence as Labelled
from ainet_ros.vision.boxes import masked
from ainet_ros.vision.registration import Registration
from ainet_ros.vision.sources import FolderSource, Frame, frames_at, images_of, open_source
from ainet_ros.vision.thermal import ToneMap

from . import blobs
from .parts import Parts, Stills, Videos

logger = logging.getLogger(__name__)

Image = NDArray[Any]
Skip = Callable[[str], None]
"""Reports a problem, or raises it as ValueError where it shall not be skipped."""

FORMAT = 6
"""Of the cache: raise it with any change to what is read or how."""
EVALUATION = "rgbt_eval"
"""The folder that nothing here ever reads."""
STREAMS = {"rgb": ("visible", "rgb", "v"), "thermal": ("infrared", "ir", "i")}
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
LEAST_SIDE = 4.0
"""Pixels: a smaller box is a bad box."""
LEAST_LENGTH = {"warm": 8, "moving": 12}
"""Frames of a track that is found without labels."""
CROPS_HELD_OUT = 0.1
STILL_STEP = 10
"""Every n-th frame of an unlabelled recording serves as a still too."""


@dataclass(frozen=True)
class Still:
    """An aligned pair, and the boxes (x, y, w, h) of what stands out warm in it."""

    name: str
    split: str
    image: int
    boxes: list[list[float]]


@dataclass(frozen=True)
class Track:
    """A target in a video. `frames` (numbers in the video) and `boxes` go together, and so do
    `images` where they are in the cache; else the frames are those of `source`.
    """

    name: str
    split: str
    images: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    source: FolderSource | None = None


@dataclass(frozen=True)
class Cutout:
    """An object cut out of its picture: (H, W, 4) pixels, and an (H, W, 1) mask or -1."""

    name: str
    split: str
    kind: str
    image: int
    mask: int


@dataclass
class Index:
    """What the cache holds: [offset, height, width, channels] of each image, and their use."""

    images: list[list[int]] = field(default_factory=list)
    stills: list[Still] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    cutouts: list[Cutout] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def refuse_evaluation(path: Path) -> None:
    """Raises ValueError if the path leads to the evaluation recordings."""
    if EVALUATION in path.resolve().parts:
        raise ValueError(f"{path}: {EVALUATION} is for evaluation only, never for training")


def cache_files(cache: Path, key: str) -> tuple[Path, Path]:
    """The pixels and the index of one choice of data: another run may have another."""
    return cache / f"{key}.bin", cache / f"{key}.json"


class Builder:
    """Reads everything once and writes the cache, the index last."""

    def __init__(self, root: Path, cache: Path, key: str, strict: bool) -> None:
        self.root, self.cache, self.key, self.strict = root, cache, key, strict
        self.index = Index()
        self.offset = 0

    def build(self, parts: Parts, labelled: Mapping[str, Sequence[Labelled]]) -> None:
        """Reads the parts, and of those with sequences the given ones."""
        videos = sorted(parts.videos.items())
        stills = sorted(item for item in parts.stills.items() if item[0] not in parts.videos)
        pixels, index = cache_files(self.cache, self.key)
        with replacing(pixels) as partial, partial.open("wb") as self.file:
            self._run(self._stills(stills), self._add_still)
            for labels in ("warm", "moving"):
                chosen = [item for item in videos if item[1].labels == labels]
                self._run(self._unlabelled(chosen), self._add_unlabelled)
            for modality in ("rgb", "thermal"):
                chosen = [item for item in videos if item[1].modality == modality]
                self._run(self._single(chosen), self._add_single)
            self._run(
                [(n, parts.videos[n], s) for n, found in labelled.items() for s in found],
                self._add_labelled,
            )
            self._run([crop for name in parts.crops for crop in self._crops(name)], self._add_crop)
        with replacing(index) as partial:
            partial.write_text(json.dumps(asdict(self.index)))

    def _run(self, jobs: Sequence[Any], read: Callable[..., None]) -> None:
        name = read.__name__.removeprefix("_add_")
        for job in tqdm(jobs, desc=f"cache: {name}", unit=name, disable=not jobs):
            try:
                read(*job)
            except (ValueError, OSError) as error:
                if self.strict:
                    raise
                self._skip(str(error))

    def _skip(self, problem: str) -> None:
        if self.strict:
            raise ValueError(problem)
        logger.warning("skipped: %s", problem)
        self.index.problems.append(problem)

    def _part(self, name: str) -> Path | None:
        """A part of the data; None, and reported, where it is missing."""
        path = self.root / name
        refuse_evaluation(path)
        if path.exists():
            return path
        if self.strict:
            raise FileNotFoundError(f"no {path}")
        self._skip(f"no {path}")
        return None

    def _folders(self, name: str) -> list[Path]:
        part = self._part(name)
        return sorted(p for p in part.iterdir() if p.is_dir()) if part else []

    def _stills(self, parts: Iterable[tuple[str, Stills]]) -> list[tuple[Path, Stills]]:
        """The visible images of all sets."""
        found = []
        for name, options in parts:
            part = self._part(name)
            images = sorted((part / "visible").glob("*")) if part else []
            if part and not images:
                self._skip(f"{part}: no images in visible/")
            found += [(path, options) for path in images]
        return found

    def _unlabelled(self, parts: Iterable[tuple[str, Videos]]) -> list[tuple[Path, Videos]]:
        return [(path, options) for name, options in parts for path in self._folders(name)]

    def _single(
        self, parts: Iterable[tuple[str, Videos]]
    ) -> list[tuple[Path, Path, list[Path], Videos]]:
        """Of each recording its place, its stream and its files of boxes."""
        found = []
        for name, options in parts:
            part = self._part(name)
            for path in sorted(part.iterdir()) if part else []:
                if path.suffix in VIDEO_SUFFIXES:
                    truth = path.with_suffix(".txt")
                    found.append((path.with_suffix(""), path, [truth], options))
                elif path.is_dir():
                    stream = _stream(path, STREAMS[options.modality])
                    truths = sorted(path.glob("groundtruth*.txt"))
                    found.append((path, stream, truths, options))
        return found

    def _crops(self, name: str) -> list[tuple[Crops, str]]:
        """The visible crops of a part, by name."""
        part = self._part(name)
        if not part:
            return []
        try:
            crops = Crops(part)
        except ValueError as error:
            self._skip(str(error))
            return []
        return [(crops, n) for n in crops.names() if re.search(r"/[^/]+_v\.\w+$", f"/{n}")]

    def _add(self, image: Image) -> int:
        """Appends an image (H, W, C) or (H, W) and returns its number."""
        height, width = image.shape[:2]
        channels = image.size // (height * width)
        self.file.write(np.ascontiguousarray(image).tobytes())
        self.index.images.append([self.offset, height, width, channels])
        self.offset += image.size
        return len(self.index.images) - 1

    def _cut(self, name: str, split: str, image: Image, found: Sequence[blobs.Blob]) -> None:
        """Adds the blobs of an (H, W, 4) image that are persons as objects with masks."""
        for number, blob in enumerate(filter(blobs.has_person_outline, found)):
            x, y, w, h = blob.box
            patch = self._add(image[y : y + h, x : x + w])
            mask = self._add(blob.mask)
            self.index.cutouts.append(Cutout(f"{name}#{number}", split, "person", patch, mask))

    def _add_still(self, visible: Path, options: Stills) -> None:
        image = read_pair(visible, visible.parents[1] / "infrared" / visible.name)
        name = visible.relative_to(self.root).as_posix()
        split = split_of(visible.stem, options.validation)
        found = blobs.warm_blobs(image[..., 3]) if options.warm else []
        boxes = [[float(v) for v in blob.box] for blob in found]
        self.index.stills.append(Still(name, split, self._add(image), boxes))
        self._cut(name, split, image, found)

    def _add_unlabelled(self, folder: Path, options: Videos) -> None:
        refuse_evaluation(folder)
        source = open_source(folder)
        images = [stack(frame) for k, frame in enumerate(source) if k % options.every == 0]
        if options.labels == "warm":
            found = [blobs.warm_blobs(image[..., 3]) for image in images]
        else:
            still = np.median(np.stack([i[..., 3] for i in images[::8]]), axis=0)
            found = [blobs.moving_blobs(i[..., 3], still.astype(np.uint8)) for i in images]
        name = folder.relative_to(self.root).as_posix()
        split = split_of(name, options.validation)
        numbers = [self._add(image) for image in images]
        tracks = blobs.link(found, least_length=LEAST_LENGTH[options.labels])
        for i, (first, boxes) in enumerate(tracks):
            span = range(first, first + len(boxes))
            self.index.tracks.append(
                Track(
                    f"{name}#{i}",
                    split,
                    [numbers[k] for k in span],
                    [k * options.every for k in span],
                    boxes.tolist(),
                )
            )
        # A frame serves as a still too: the places where nothing was found are worth it.
        for k in range(0, len(images), STILL_STEP):
            boxes_here = [[float(v) for v in blob.box] for blob in found[k]]
            self.index.stills.append(Still(f"{name}/{k}", split, numbers[k], boxes_here))
            self._cut(f"{name}/{k}", split, images[k], found[k])
        if not tracks:
            self._skip(f"{folder}: no track is plain enough")

    def _add_single(self, place: Path, stream: Path, files: list[Path], options: Videos) -> None:
        """Adds a recording of one modality with the boxes of its targets."""
        if not files:
            raise FileNotFoundError(f"{place}: no groundtruth*.txt")
        truths = {path: read_boxes(path) for path in files}
        name = place.relative_to(self.root).as_posix()
        split = split_of(name, options.validation)
        tracks = [Track(f"{name}#{i}", split) for i in range(len(truths))]
        for frame, image in read_stream(stream, options.every):
            image, scale = smaller(image, options.cached)
            number = self._add(image if options.modality == "rgb" else grey(image))
            for track, (path, boxes) in zip(tracks, truths.items(), strict=True):
                if frame >= len(boxes):
                    raise ValueError(f"{path}: {len(boxes)} boxes, {stream} has more frames")
                self._add_box(track, number, frame, boxes[frame], scale, f"{path}:{frame + 1}")
        self.index.tracks += [track for track in tracks if len(track.images) > 1]

    def _add_labelled(self, part: str, options: Videos, sequence: Labelled) -> None:
        """Adds a sequence of both modalities."""
        track = labelled_track(part, options, sequence, self._skip)
        boxes = dict(zip(track.frames, track.boxes, strict=True))
        kept = Track(track.name, track.split)
        for number, frame in frames_at(sequence.source, boxes):
            image, scale = smaller(stack(frame), options.cached)
            where = f"{track.name}: frame {number}"
            self._add_box(kept, self._add(image), number, np.array(boxes[number]), scale, where)
        if len(kept.images) > 1:
            self.index.tracks.append(kept)

    def _add_box(
        self, track: Track, number: int, frame: int, box: NDArray, scale: float, where: str
    ) -> None:
        """Adds image `number`, scaled as it is, with its target's box in the unscaled one."""
        if np.isnan(box).any():
            return
        _, height, width, _ = self.index.images[number]
        if not plausible(box, (round(height / scale), round(width / scale))):
            self._skip(f"{where}: bad box {box.tolist()}")
            return
        track.images.append(number)
        track.frames.append(frame)
        track.boxes.append((box * scale).tolist())

    def _add_crop(self, crops: Crops, name: str) -> None:
        rgb, thermal = (
            decode(crops.read(n), f"{crops.path}:{n}")
            for n in (name, re.sub(r"_v(\.\w+)$", r"_i\1", name))
        )
        place = f"{crops.path.relative_to(self.root).as_posix()}:{name}"
        image = _join(rgb, thermal, place)
        kind = Path(crops.path, name).parent.name
        found = blobs.outline(image[..., 3]) if kind == "person" else None
        mask = -1
        if found is not None:
            x, y, w, h = found.box
            image = np.ascontiguousarray(image[y : y + h, x : x + w])
            mask = self._add(found.mask)
        split = split_of(Path(name).stem.split("_")[0], CROPS_HELD_OUT)
        self.index.cutouts.append(Cutout(place, split, kind, self._add(image), mask))


class Crops:
    """The files of a folder or a zip file, by name."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where it is neither."""
        self.path = path
        try:
            self._archive = None if path.is_dir() else zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path}: neither a folder nor a zip file: {error}") from None

    def names(self) -> list[str]:
        if self._archive is not None:
            return sorted(self._archive.namelist())
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.path).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none of that name."""
        if self._archive is None:
            return (self.path / name).read_bytes()
        try:
            return self._archive.read(name)
        except KeyError:
            raise FileNotFoundError(f"{self.path}: no {name}") from None
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path}: {name} is damaged: {error}") from None


def labelled_track(part: str, options: Videos, sequence: Labelled, skip: Skip) -> Track:
    """The target of a sequence where its box is known, without images."""
    name = f"{part}/{sequence.name}"
    boxes = masked(sequence.visible)
    labelled = np.flatnonzero(~np.isnan(boxes).any(axis=1))
    large = labelled[(boxes[labelled, 2:] >= LEAST_SIDE).all(axis=1)]
    if len(large) < len(labelled):
        skip(f"{name}: {len(labelled) - len(large)} bad boxes, of less than {LEAST_SIDE:g} pixels")
    used = large[:: options.every]
    if len(used) < 2:
        skip(f"{name}: fewer than two frames with a box")
    return Track(
        f"{name}#0",
        split_of(name, options.validation),
        frames=sequence.frames[used].tolist(),
        boxes=boxes[used].tolist(),
    )


def read_boxes(path: Path) -> NDArray[np.float64]:
    """(N, 4) boxes x, y, w, h of a file with x,y,w,h or frame,x,y,w,h,lost a line; NaN where the
    target is not in view. Raises FileNotFoundError, or ValueError naming the line.
    """
    refuse_evaluation(path)
    if not path.is_file():
        raise FileNotFoundError(f"no boxes {path}")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            values = [float(v) for v in re.split(r"[,\s]+", line.strip()) if v]
        except ValueError:
            values = []
        if len(values) == 6:
            values = [np.nan] * 4 if values[5] else values[1:5]
        if len(values) != 4:
            raise ValueError(f"{path}:{number}: expected a box, found {line!r}")
        rows.append(values)
    return np.array(rows, np.float64).reshape(-1, 4)


def read_stream(path: Path, step: int) -> Iterator[tuple[int, Image]]:
    """Every `step`-th frame of a video or of a folder of images: its number and its (H, W, 3) RGB
    image. Raises ValueError where one cannot be read.
    """
    refuse_evaluation(path)
    if path.is_dir():
        for number, file in enumerate(images_of(path)):
            if number % step == 0:
                yield number, decode(file.read_bytes(), str(file))
        return
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise ValueError(f"{path}: missing, or not a video that OpenCV can read")
        number = 0
        while video.grab():
            if number % step == 0:
                read, image = video.retrieve()
                if not read:
                    raise ValueError(f"{path}: frame {number} is broken")
                yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        video.release()


def read_pair(visible: Path, infrared: Path) -> Image:
    """An aligned pair of image files as (H, W, 4)."""
    images = []
    for path in (visible, infrared):
        refuse_evaluation(path)
        if not path.is_file():
            raise FileNotFoundError(f"no image {path}")
        images.append(decode(path.read_bytes(), str(path)))
    return _join(images[0], images[1], visible)


def decode(data: bytes, name: str) -> Image:
    """(H, W, 3) RGB of an image file's bytes; counts of 16 bit as the tracker would see them.

    Raises ValueError with the name.
    """
    kind = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = cv2.imdecode(np.frombuffer(data, np.uint8), kind) if data else None
    if image is None:
        raise ValueError(f"{name}: broken, or not an image")
    if image.dtype != np.uint8:
        if (image != image[..., :1]).any():
            raise ValueError(f"{name}: {image.dtype} in colour; only grey images have 16 bit")
        image = np.dstack([ToneMap()(np.ascontiguousarray(image[..., 0]))] * 3)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def grey(image: Image) -> Image:
    """(H, W, 3) to (H, W)."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def stack(frame: Frame) -> Image:
    """A pair of images of any kind as (H, W, 4) uint8 of the RGB image's size."""
    rgb, thermal = frame.rgb, ToneMap()(frame.thermal)
    if thermal.ndim == 3:
        thermal = grey(np.ascontiguousarray(thermal))
    height, width = rgb.shape[:2]
    return np.dstack([rgb, Registration().warp(thermal, (width, height))])


def smaller(image: Image, largest: int) -> tuple[Image, float]:
    """The image with its longer side at most so many pixels (0: as it is), and its scale."""
    longer = max(image.shape[:2])
    if not largest or longer <= largest:
        return image, 1.0
    scale = largest / longer
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def plausible(box: Sequence[float] | NDArray, shape: tuple[int, ...]) -> bool:
    """Whether the box is large enough and its centre inside the image."""
    x, y, w, h = box
    centre_inside = 0 <= x + w / 2 <= shape[1] and 0 <= y + h / 2 <= shape[0]
    return bool(w >= LEAST_SIDE and h >= LEAST_SIDE and centre_inside)


def split_of(name: str, validation: float | Sequence[str]) -> str:
    """ "train" or "validation": by the last part of the name, or so that a share is held out."""
    if isinstance(validation, Sequence):
        return "validation" if name.split("/")[-1] in validation else "train"
    # A number in [0, 1) that depends on the name alone.
    return "validation" if zlib.crc32(name.encode()) / 2**32 < validation else "train"


def _stream(folder: Path, names: tuple[str, ...]) -> Path:
    """The images or the video of a recording; the first name where there is none."""
    for name in names:
        for path in (folder / name, *(folder / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES)):
            if path.exists():
                return path
    return folder / names[0]


def _join(rgb: Image, thermal: Image, place: object) -> Image:
    if rgb.shape != thermal.shape:
        raise ValueError(f"{place}: visible {rgb.shape} and infrared {thermal.shape} differ")
    return np.dstack([rgb, grey(thermal)])
