# SPDX-License-Identifier: Apache-2.0
"""The recordings to train on, read once into a cache that all worker processes map.

A folder of training data holds any of

    rgbt_stills/SET/{visible,infrared}/NAME    aligned pairs
    rgbt_clips/CLIP/{visible,infrared}/NAME    aligned video, camera at rest, no boxes
    rgbt_video/NAME/{visible,infrared}.mp4     the same, longer
    rgb_video/NAME/visible.mp4                 with groundtruth_rect*.txt: x,y,w,h a frame, or
                                               frame,x,y,w,h,lost
    ir_video/NAME.mp4                          with NAME.txt: x,y,w,h or nan a frame
    flir_crops.zip                             day|night/CLASS/ID_{v,i}.jpg: tight crops

Pixels are kept as uint8: (H, W, 4) RGB and thermal, (H, W, 3) RGB or (H, W, 1) thermal.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from . import blobs

Image = NDArray[Any]
logger = logging.getLogger(__name__)

EVALUATION = "rgbt_eval"
"""The folder that nothing here ever reads."""
VALIDATION = ("rgb_video/car", "rgb_video/jogging", "rgbt_clips/0115_1847")
"""Held out, besides a tenth of the stills and crops and a fifth of the ir_video clips."""
FORMAT = 4
"""Of the cache: raise it with any change to what is read or how."""
RGB_STEP, THERMAL_STEP, PAIR_STEP = 3, 5, 2
"""Every n-th frame is kept of rgb_video, ir_video and rgbt_video."""
LEAST_SIDE = 4.0
"""Pixels: a smaller box is a bad box."""


@dataclass(frozen=True)
class Still:
    """An aligned pair, and the boxes (x, y, w, h) of what stands out warm in it."""

    name: str
    split: str
    image: int
    boxes: list[list[float]]


@dataclass(frozen=True)
class Track:
    """A target in a video. `images`, `frames` (numbers in the video) and `boxes` go together."""

    name: str
    split: str
    images: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)


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

    key: str
    images: list[list[int]] = field(default_factory=list)
    stills: list[Still] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    cutouts: list[Cutout] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Recordings:
    """The recordings under `root`, decoded into two files in the folder `cache`.

    A cache that was made from the same files is used as it is. `problems` names what was
    skipped. Picklable: another process maps the same file.

    Raises:
        FileNotFoundError: nothing to train on is under `root`; with `strict`, a part is missing.
        ValueError: `root` leads to the evaluation recordings; with `strict`, a broken image, a
            broken video or a bad box.
    """

    def __init__(self, root: Path, cache: Path, strict: bool = False) -> None:
        refuse_evaluation(root)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of training data {root}")
        self.pixels_path, index_path = cache / "pixels.bin", cache / "index.json"
        key = _key(root, strict)
        if not index_path.is_file() or json.loads(index_path.read_text())["key"] != key:
            cache.mkdir(parents=True, exist_ok=True)
            _Builder(root, cache, key, strict).build()
        values: dict[str, Any] = json.loads(index_path.read_text())
        self._images: list[list[int]] = values["images"]
        self.stills = [Still(**value) for value in values["stills"]]
        self.tracks = [Track(**value) for value in values["tracks"]]
        self.cutouts = [Cutout(**value) for value in values["cutouts"]]
        self.problems: list[str] = values["problems"]
        self._pixels: NDArray[np.uint8] | None = None

    def image(self, number: int) -> Image:
        """The image of that number, (H, W, C) uint8, read-only."""
        if self._pixels is None:
            self._pixels = np.memmap(self.pixels_path, np.uint8, "r")
        offset, height, width, channels = self._images[number]
        size = height * width * channels
        return self._pixels[offset : offset + size].reshape(height, width, channels)

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of an image."""
        return self._images[number][1], self._images[number][2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


def refuse_evaluation(path: Path) -> None:
    """Raises ValueError if the path leads to the evaluation recordings."""
    if EVALUATION in path.resolve().parts:
        raise ValueError(f"{path}: {EVALUATION} is for evaluation only, never for training")


class _Builder:
    """Reads everything once and writes the cache, the index last."""

    def __init__(self, root: Path, cache: Path, key: str, strict: bool) -> None:
        self.root, self.cache, self.strict = root, cache, strict
        self.index = Index(key)
        self.offset = 0

    def build(self) -> None:
        partial = self.cache / "pixels.partial"
        with partial.open("wb") as self.file:
            for jobs, read in (
                (self._stills(), self._add_still),
                (self._folders("rgbt_clips"), self._add_clip),
                (self._folders("rgbt_video"), self._add_video),
                (self._folders("rgb_video"), self._add_rgb),
                (self._thermal_videos(), self._add_thermal),
                (self._crops(), self._add_crop),
            ):
                self._run(jobs, read)
        if not (self.index.stills or self.index.tracks):
            raise FileNotFoundError(
                f"nothing to train on under {self.root}: {'; '.join(self.index.problems)}"
            )
        os.replace(partial, self.cache / "pixels.bin")
        partial = self.cache / "index.partial"
        partial.write_text(json.dumps(asdict(self.index)))
        os.replace(partial, self.cache / "index.json")

    def _run(self, jobs: Sequence[Any], read: Callable[[Any], None]) -> None:
        name = read.__name__.removeprefix("_add_")
        for job in tqdm(jobs, desc=f"cache: {name}", unit=name, disable=not jobs):
            try:
                read(job)
            except (ValueError, OSError) as error:
                if self.strict:
                    raise
                self._skip(str(error))

    def _skip(self, problem: str) -> None:
        logger.warning("skipped: %s", problem)
        self.index.problems.append(problem)

    def _part(self, name: str) -> Path | None:
        """A part of the data; None, and reported, where it is missing."""
        path = self.root / name
        if path.exists():
            refuse_evaluation(path)
            return path
        if self.strict:
            raise FileNotFoundError(f"no {path}")
        self._skip(f"no {path}")
        return None

    def _folders(self, name: str) -> list[Path]:
        part = self._part(name)
        return sorted(p for p in part.iterdir() if p.is_dir()) if part else []

    def _stills(self) -> list[Path]:
        """The visible images of all sets."""
        return [
            path
            for folder in self._folders("rgbt_stills")
            for path in sorted((folder / "visible").glob("*"))
        ]

    def _thermal_videos(self) -> list[Path]:
        part = self._part("ir_video")
        return sorted(part.glob("*.mp4")) if part else []

    def _crops(self) -> list[tuple[zipfile.ZipFile, str]]:
        """The visible crops, by name."""
        part = self._part("flir_crops.zip")
        if not part:
            return []
        archive = zipfile.ZipFile(part)
        return [(archive, n) for n in sorted(archive.namelist()) if n.endswith("_v.jpg")]

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

    def _add_still(self, visible: Path) -> None:
        image = read_pair(visible, visible.parents[1] / "infrared" / visible.name)
        name = visible.relative_to(self.root).as_posix()
        split = _tenth(visible.stem)
        # The thermal pictures of road scenes are equalised: warmth says nothing there.
        found = [] if "roadscene" in name else blobs.warm_blobs(image[..., 3])
        boxes = [[float(v) for v in blob.box] for blob in found]
        self.index.stills.append(Still(name, split, self._add(image), boxes))
        self._cut(name, split, image, found)

    def _add_clip(self, folder: Path) -> None:
        names = sorted(p.name for p in (folder / "visible").glob("*"))
        images = [read_pair(folder / "visible" / n, folder / "infrared" / n) for n in names]
        found = [blobs.warm_blobs(image[..., 3]) for image in images]
        self._add_pseudo_tracks(folder, images, found, step=1, least_length=8)
        name = folder.relative_to(self.root).as_posix()
        for k in range(0, len(images), 10):
            self._cut(f"{name}/{k}", _split(name), images[k], found[k])

    def _add_video(self, folder: Path) -> None:
        streams = [
            read_video(folder / f"{name}.mp4", PAIR_STEP) for name in ("visible", "infrared")
        ]
        images = [
            _stack(rgb, thermal, folder) for (_, rgb), (_, thermal) in zip(*streams, strict=True)
        ]
        background = np.median(np.stack([i[..., 3] for i in images[::8]]), axis=0)
        found = [blobs.moving_blobs(i[..., 3], background.astype(np.uint8)) for i in images]
        self._add_pseudo_tracks(folder, images, found, step=PAIR_STEP, least_length=12)
        name = folder.relative_to(self.root).as_posix()
        for k in range(0, len(images), 10):
            self._cut(f"{name}/{k}", _split(name), images[k], found[k])

    def _add_pseudo_tracks(
        self,
        folder: Path,
        images: Sequence[Image],
        found: Sequence[Sequence[blobs.Blob]],
        step: int,
        least_length: int,
    ) -> None:
        name = folder.relative_to(self.root).as_posix()
        split = _split(name)
        numbers = [self._add(image) for image in images]
        tracks = blobs.link(found, least_length)
        for i, (first, boxes) in enumerate(tracks):
            span = range(first, first + len(boxes))
            self.index.tracks.append(
                Track(
                    f"{name}#{i}",
                    split,
                    [numbers[k] for k in span],
                    [k * step for k in span],
                    boxes.tolist(),
                )
            )
        # A frame serves as a still too: the places where nothing was found are worth it.
        for k in range(0, len(images), 10):
            boxes_here = [[float(v) for v in blob.box] for blob in found[k]]
            self.index.stills.append(Still(f"{name}/{k}", split, numbers[k], boxes_here))
        if not tracks:
            self._skip(f"{folder}: no track is plain enough")

    def _add_rgb(self, folder: Path) -> None:
        truths = {path: read_boxes(path) for path in sorted(folder.glob("groundtruth_rect*.txt"))}
        if not truths:
            raise FileNotFoundError(f"{folder}: no groundtruth_rect*.txt")
        self._add_labelled(folder, folder / "visible.mp4", truths, RGB_STEP, 3)

    def _add_thermal(self, video: Path) -> None:
        path = video.with_suffix(".txt")
        self._add_labelled(video.with_suffix(""), video, {path: read_boxes(path)}, THERMAL_STEP, 1)

    def _add_labelled(
        self, place: Path, video: Path, truths: dict[Path, NDArray], step: int, channels: int
    ) -> None:
        """Adds a video of one modality with the boxes of its targets."""
        name = place.relative_to(self.root).as_posix()
        split = _split(name)
        tracks = [Track(f"{name}#{i}", split) for i in range(len(truths))]
        for frame, image in read_video(video, step):
            number = self._add(image if channels == 3 else grey(image))
            for track, (path, boxes) in zip(tracks, truths.items(), strict=True):
                if frame >= len(boxes):
                    raise ValueError(f"{path}: {len(boxes)} boxes, {video} has more frames")
                box = boxes[frame]
                if np.isnan(box).any():
                    continue
                if not _plausible(box, image.shape):
                    self._bad_box(f"{path}:{frame + 1}: bad box {box.tolist()}")
                    continue
                track.images.append(number)
                track.frames.append(frame)
                track.boxes.append(box.tolist())
        self.index.tracks += [track for track in tracks if len(track.images) > 1]

    def _bad_box(self, problem: str) -> None:
        if self.strict:
            raise ValueError(problem)
        self._skip(problem)

    def _add_crop(self, entry: tuple[zipfile.ZipFile, str]) -> None:
        archive, name = entry
        rgb, thermal = (
            decode(archive.read(n), f"{archive.filename}:{n}")
            for n in (name, name.removesuffix("v.jpg") + "i.jpg")
        )
        place = f"flir_crops.zip:{name}"
        image = _stack(rgb, thermal, place)
        kind = name.split("/")[-2]
        found = blobs.outline(image[..., 3]) if kind == "person" else None
        mask = -1
        if found is not None:
            x, y, w, h = found.box
            image = np.ascontiguousarray(image[y : y + h, x : x + w])
            mask = self._add(found.mask)
        self.index.cutouts.append(
            Cutout(place, _tenth(Path(name).stem.split("_")[0]), kind, self._add(image), mask)
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


def read_video(path: Path, step: int) -> Iterator[tuple[int, Image]]:
    """Every `step`-th frame: its number and its (H, W, 3) RGB image. Raises ValueError for a
    video that cannot be read.
    """
    refuse_evaluation(path)
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
    return _stack(images[0], images[1], visible)


def decode(data: bytes, name: str) -> Image:
    """(H, W, 3) RGB of an image file's bytes. Raises ValueError with the name."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError(f"{name}: broken, or not an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def grey(image: Image) -> Image:
    """(H, W, 3) to (H, W)."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _stack(rgb: Image, thermal: Image, place: object) -> Image:
    if rgb.shape != thermal.shape:
        raise ValueError(f"{place}: visible {rgb.shape} and infrared {thermal.shape} differ")
    return np.dstack([rgb, grey(thermal)])


def _plausible(box: NDArray, shape: tuple[int, ...]) -> bool:
    """Whether the box is large enough and its centre inside the image."""
    x, y, w, h = box
    centre_inside = 0 <= x + w / 2 <= shape[1] and 0 <= y + h / 2 <= shape[0]
    return bool(w >= LEAST_SIDE and h >= LEAST_SIDE and centre_inside)


def _split(name: str) -> str:
    if name in VALIDATION or (name.startswith("ir_video/") and _share(name) < 0.19):
        return "validation"
    return "train"


def _tenth(name: str) -> str:
    return "validation" if _share(name) < 0.1 else "train"


def _share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return zlib.crc32(name.encode()) / 2**32


def _key(root: Path, strict: bool) -> str:
    """Of the format and of every file's name, size and time."""
    digest = hashlib.sha256(f"{FORMAT} {strict}".encode())
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {EVALUATION})
        for name in sorted(names):
            path = Path(folder, name)
            stat = path.stat()
            digest.update(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()
