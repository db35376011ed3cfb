# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Training samples: a template and a search region of one target in two modalities.

Sample i depends on the seed and on i alone. Three kinds of samples are mixed: a region of a still
pair, seen twice; an object cut out of one pair and moved over another, among look-alikes and
behind occluders; two frames of a video. In some the target is absent from the search region.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ainet_ros.tracker import crop

from . import synthesis
from .degradation import LEAST_TEXTURE, Degradation, Severities, textures
from .parts import Parts
from .reading import Cutout, Still, Track
from .recordings import Recordings, Unreadable
from .synthesis import Layer, Scene

logger = logging.getLogger(__name__)

Image = NDArray[Any]
Rng = np.random.Generator
Box = crop.Box

MIX = {"still": 0.35, "paste": 0.45, "video": 0.20}
ABSENT_MIX = {"still": 0.5, "paste": 1.0, "video": 0.5}
"""Weights on that mix where the target is absent."""
LEAST_CONTENT = 25.0
"""Sum of the standard deviations of green and thermal that a region needs to be a target."""
CLEARED = 0.5
"""Share of the samples without a target in which it is covered with what is beside it."""
MARKED = 0.12
"""Share of those with a target in which another place is covered, so that traces of covering tell
less."""
KINDS = {"person": 0.60, "car": 0.25, "bicycle": 0.15}
"""Shares of the pasted objects; the share of any other kind is OTHERS."""
OTHERS = 0.15
THINGS = 0.25
"""Share of the pasted objects that are a region of another pair instead."""
OUTLINED = 0.40
"""Share of the pasted persons that have an outline of their own; most of the others wear one."""
BORROWED = 0.75
IN_FRONT = 0.33
"""Share of the pasted targets that pass behind their look-alikes rather than in front."""
ATTEMPTS = 10
"""Frames that cannot be read, one after another, before a run ends."""
NEAR = 0.25
"""Share of the jitter of the search region that a sample with the target near keeps."""
DEAD_STREAM = 0.25
"""Share of one-modality videos whose other stream is black rather than imitated."""


@dataclass
class View:
    """Two pictures of a target, before degradation: (S, S, 4), boxes cx, cy, w, h in [0, 1]."""

    template: Image
    template_box: Box
    search: Image
    box: Box

    def region(self) -> Image:
        """The search picture around the target: a quarter wider and higher than its box."""
        cx, cy, w, h = (v * self.search.shape[0] for v in self.box)
        x0, y0 = max(0, int(cx - 0.625 * w)), max(0, int(cy - 0.625 * h))
        return self.search[y0 : int(cy + 0.625 * h) + 1, x0 : int(cx + 0.625 * w) + 1]


class TrainingData(Dataset[dict[str, Tensor]]):
    """Samples made from the recordings under `root` (laid out as `parts` says).

    A sample is a dict of
        template       (2, 3, T, T) uint8, modality 0 RGB, 1 thermal (three equal channels)
        template_box   (4) float32, cx, cy, w, h of the target as a user would draw it (moved and
                       scaled a little), in fractions of the template
        search         (2, 3, S, S) uint8
        box            (4) float32, the exact one in the search region; 0 where the target is
                       absent. It may reach over the region's edge, its centre does not
        present        bool, whether the target is in the search region

    Args:
        root: folder of the recordings.
        cache: folder for the decoded recordings; made on first use. Of the default ones 2.2 GB.
        split: "train" or "validation": held-out recordings, and samples of their own.
        seed: of all samples.
        template_size, search_size: T and S in pixels.
        template_factor, search_factor: side of the crops over the target's sqrt(w * h).
        centre_jitter, scale_jitter: of the search region, as OSTrack has them: its centre lies
            off the target by up to half of centre_jitter * sqrt(w * h) on each axis, w and h
            those of the box scaled by exp(scale_jitter * normal).
        near: share of the samples with a quarter of that jitter: the target lies about where it
            was, as from one frame to the next, and its look-alikes do not; 0 as published.
        template_centre_jitter, template_scale_jitter: the same of the template's box, since
            users draw inexact ones; 0 as published.
        absent: share of samples without the target.
        largest_gap: frames between the two pictures of a video.
        videos, stills, crops: the parts and their options, see `Parts.of`.
        mix: shares of the kinds "still", "paste", "video".
        degradation: options of `Degradation`, and of `Severities` under "severe"; all 0 leaves
            the pictures as they are.
        strict: refuse a part that is missing, broken or badly labelled, rather than report and
            skip it (`problems` lists what was). An image that is read when a sample needs it is
            then another's, or the sample raises `Unreadable`.
        length: number of samples, `len()`; any run draws from the same endless row.

    Raises:
        FileNotFoundError, ValueError: as `Recordings`, and ValueError for a bad option.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        cache: str | Path,
        split: str = "train",
        seed: int = 0,
        template_size: int = 84,
        search_size: int = 168,
        template_factor: float = 2.0,
        search_factor: float = 4.0,
        centre_jitter: float = 3.0,
        scale_jitter: float = 0.25,
        near: float = 0.0,
        template_centre_jitter: float = 0.1,
        template_scale_jitter: float = 0.05,
        absent: float = 0.09,
        largest_gap: int = 200,
        videos: Mapping[str, Any] | None = None,
        stills: Mapping[str, Any] | None = None,
        crops: Sequence[str] | None = None,
        mix: Mapping[str, float] | None = None,
        degradation: Mapping[str, Any] | None = None,
        strict: bool = False,
        length: int = 1_000_000_000,
    ) -> None:
        if split not in ("train", "validation"):
            raise ValueError(f"split is 'train' or 'validation', not {split!r}")
        if not 0 <= absent < 1:
            raise ValueError(f"absent is a share in [0, 1), not {absent}")
        if not 0 <= near <= 1:
            raise ValueError(f"near is a share in [0, 1], not {near}")
        if centre_jitter >= search_factor:
            raise ValueError(
                f"centre_jitter {centre_jitter} would move the target out of a search region of "
                f"factor {search_factor}"
            )
        parts = Parts.of(videos, stills, crops)
        recordings = Recordings(Path(root), Path(cache), parts, strict)
        self.recordings, self.problems = recordings, recordings.problems
        self.strict, self._reported = strict, set[str]()
        self.split, self.seed, self.length = split, seed, length
        self.template_size, self.search_size = template_size, search_size
        self.template_factor, self.search_factor = template_factor, search_factor
        self.centre_jitter, self.scale_jitter, self.near = centre_jitter, scale_jitter, near
        self.template_jitter = template_centre_jitter, template_scale_jitter
        self.absent, self.largest_gap = absent, largest_gap
        self.degradation = _degradation(degradation or {})

        self.still_shares = {name: part.share for name, part in parts.stills.items()}
        self.video_shares = {name: part.share for name, part in parts.videos.items()}
        self.stills = _by_folder(
            self.still_shares, [s for s in recordings.stills if s.split == split]
        )
        self.warm = {
            folder: warm
            for folder, stills_of in self.stills.items()
            if (warm := [s for s in stills_of if s.boxes])
        }
        self.tracks = _by_folder(
            self.video_shares, [t for t in recordings.tracks if t.split == split]
        )
        self.recording_of = {t.name: _recording(t) for of in self.tracks.values() for t in of}
        kinds = [*KINDS, *sorted({c.kind for c in recordings.cutouts} - set(KINDS))]
        self.cutouts: dict[str, list[Cutout]] = {
            kind: cutouts
            for kind in kinds
            if (cutouts := [c for c in recordings.cutouts if c.split == split and c.kind == kind])
        }
        self.outlined = [c for c in self.cutouts.get("person", []) if c.mask >= 0]
        self.mix = self._possible({**MIX, **(mix or {})})
        # The kinds differ in how hard they are without a target: the mix is another one then.
        self.absent_mix = {k: v * ABSENT_MIX[k] for k, v in self.mix.items()}

    def _possible(self, mix: dict[str, float]) -> dict[str, float]:
        """The shares of the kinds that the recordings allow, to a sum of 1."""
        unknown = sorted(set(mix) - set(MIX))
        if unknown:
            raise ValueError(f"mix knows {sorted(MIX)}, not {unknown}")
        if not self.stills:
            mix = {**mix, "still": 0.0, "paste": 0.0}
        if not self.tracks:
            mix = {**mix, "video": 0.0}
        total = sum(mix.values())
        if total <= 0:
            raise ValueError(f"no {self.split} sample can be made of the mix {mix}")
        return {kind: share / total for kind, share in mix.items()}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        if get_worker_info() is not None:
            cv2.setNumThreads(0)
        rng = np.random.default_rng((self.seed, int(self.split == "validation"), index))
        present = rng.random() >= self.absent
        for _ in range(4):
            view = self._view(rng, present)
            region = view.region() if present else view.search
            if max(textures(region)) > LEAST_TEXTURE:
                break
        self.degradation.apply(rng, view.template, view.search, region)
        if rng.random() < 0.5:
            view.template, view.search = view.template[:, ::-1], view.search[:, ::-1]
            view.template_box, view.box = _mirror(view.template_box), _mirror(view.box)
        return {
            "template": _to_tensor(view.template),
            "template_box": torch.tensor(view.template_box, dtype=torch.float32),
            "search": _to_tensor(view.search),
            "box": torch.tensor(view.box if present else (0.0,) * 4, dtype=torch.float32),
            "present": torch.tensor(present),
        }

    def _view(self, rng: Rng, present: bool) -> View:
        """A sample before degradation; another one where what it needs cannot be read."""
        make = {"still": self._still, "paste": self._paste, "video": self._video}
        cleared = not present and rng.random() < CLEARED
        mix = self.mix if present or cleared else self.absent_mix
        problem = ""
        for _ in range(ATTEMPTS):
            try:
                view = make[_pick(rng, mix)](rng, present or cleared)
                # Where no sample is cleared, as in the published recipe, none is marked.
                if cleared or (present and self.absent and rng.random() < MARKED):
                    self._clear(rng, view, cleared)
                return view
            except Unreadable as error:
                if self.strict:
                    raise
                problem = str(error)
                if problem not in self._reported:
                    self._reported.add(problem)
                    logger.warning("skipped: %s", problem)
        raise ValueError(f"{ATTEMPTS} frames in a row cannot be read, the last: {problem}")

    def _clear(self, rng: Rng, view: View, target: bool) -> None:
        """Covers the target of the search picture, or else a place of its size apart from it."""
        side = self.search_size
        cx, cy, w, h = (v * side for v in view.box)
        box = cx - w / 2, cy - h / 2, w, h
        if target:
            synthesis.clear(rng, view.search, box)
            return
        x, y = rng.uniform(0, side, 2)
        if abs(cx - x) > 1.2 * w or abs(cy - y) > 1.2 * h:
            synthesis.clear(rng, view.search, (x - w / 2, y - h / 2, w, h), avoid=box)

    # The windows of a target.

    def _template(self, rng: Rng, box: Box) -> tuple[crop.Window, Box]:
        """The window of a template, and the box as a user would draw it, in its fractions."""
        drawn = _jittered(rng, box, *self.template_jitter)
        window = crop.window(drawn, self.template_factor)
        return window, window.to_crop(drawn)

    def _search_window(self, rng: Rng, box: Box) -> crop.Window:
        share = NEAR if self.near and rng.random() < self.near else 1.0
        centre_jitter, scale_jitter = self.centre_jitter * share, self.scale_jitter * share
        return crop.window(_jittered(rng, box, centre_jitter, scale_jitter), self.search_factor)

    def _look(self, rng: Rng, first: Scene, box: Box, second: Scene, second_box: Box) -> View:
        """The template of one scene and the search region of another."""
        template, template_box = self._template(rng, box)
        search = self._search_window(rng, second_box)
        return View(
            first.render(template, self.template_size),
            template_box,
            second.render(search, self.search_size),
            search.to_crop(second_box),
        )

    # A region of a still, seen twice.

    def _still(self, rng: Rng, present: bool) -> View:
        still, box = self._target(rng)
        picture = self.recordings.image(still.image)
        x, y, w, h = box
        centre = x + w / 2, y + h / 2
        zoom, aspect = np.exp(rng.normal(0, 0.15)), np.exp(rng.uniform(-0.08, 0.08))
        camera = synthesis.about(
            centre,
            centre,
            (zoom * aspect, zoom / aspect),
            rng.normal(0, 4),
            rng.uniform(-0.06, 0.06),
        )
        # The box of the inscribed ellipse: a turned rectangle's box would be too large.
        ellipse = camera[:, :2] * [w / 2, h / 2]
        half_w, half_h = np.hypot(ellipse[:, 0], ellipse[:, 1])
        moved = centre[0] - half_w, centre[1] - half_h, 2 * half_w, 2 * half_h
        if not present:
            other, place = self._target(rng)
            if other is still:
                place = _elsewhere(rng, place, box, picture.shape)
            elsewhere = Scene(self.recordings.image(other.image), _IDENTITY)
            return self._look(rng, Scene(picture, _IDENTITY), box, elsewhere, place)
        scenes = [Scene(picture, _IDENTITY), Scene(picture, camera)]
        if rng.random() < 0.12:
            scenes[1] = replace(scenes[1], layers=(self._occluder(rng, picture, moved),))
        return self._look(rng, scenes[0], box, scenes[1], moved)

    def _target(self, rng: Rng) -> tuple[Still, Box]:
        """A still, and what stands out warm in it or else a region with content."""
        if self.warm and rng.random() < 0.45:
            still = self._any_still(rng, self.warm)
            return still, _tuple(_choose(rng, still.boxes))
        for _ in range(5):
            still = self._any_still(rng, self.stills)
            region, content = _region(rng, self.recordings.image(still.image))
            if content > LEAST_CONTENT:
                break
        return still, region

    def _any_still(self, rng: Rng, stills: Mapping[str, Sequence[Still]]) -> Still:
        return _choose(rng, stills[_pick(rng, {k: self.still_shares[k] for k in stills})])

    # Objects on the background of another pair.

    def _paste(self, rng: Rng, present: bool) -> View:
        background = self.recordings.image(self._any_still(rng, self.stills).image)
        height, width = background.shape[:2]
        patch, mask, kind = self._object(rng, None)
        # Seldom is a target's picture enlarged much: it would be the only blurred thing.
        side = _side(rng, height, width, 12.0, 3.0 * np.sqrt(mask.size))
        centre = rng.uniform(0.08, 0.92, 2) * (width, height)
        surroundings = _around(background, centre, 2 * side)
        patch = synthesis.settle(rng, patch, mask, surroundings)
        moved = centre + rng.normal(0, 1.2 * side, 2)
        step = np.clip(moved, 0.2 * side, np.array([width, height]) - 0.2 * side)
        zoom = np.exp(rng.normal(0, 0.2))
        camera = synthesis.about(
            tuple(step), tuple(step), (np.exp(rng.normal(0, 0.1)),) * 2, rng.normal(0, 3)
        )

        others = [
            self._alike(rng, kind, surroundings) for _ in range(rng.choice(5, p=_LOOK_ALIKES))
        ]
        sizes = [side * np.exp(rng.normal(0, 0.2)) for _ in others]
        offsets = [_offset(rng) for _ in others]

        first = _placed(rng, patch, mask, centre, side, kind)
        second = _placed(rng, patch, mask, step, side * zoom, kind)
        box = Scene(background, _IDENTITY).box(first)
        second_box = Scene(background, camera).box(second)
        beside, beside_later = (
            tuple(
                _placed(rng, *other, at + offset * side * scale, size * scale, kind)
                for other, size, offset in zip(others, sizes, where, strict=True)
            )
            for at, scale, where in (
                (centre, 1.0, offsets),
                (
                    step,
                    zoom,
                    [
                        o + rng.normal(0, 0.5, 2) if rng.random() < 0.7 else _offset(rng)
                        for o in offsets
                    ],
                ),
            )
        )
        beside_later = tuple(
            layer for layer in beside_later if not _overlaps(layer.box(), second_box, 0.35)
        )
        layers = [*beside_later]
        if present:
            # They hide a third of it at most, each; the box stays that of the whole.
            layers.insert(0 if rng.random() < IN_FRONT else len(layers), second)
        if present and rng.random() < 0.2:
            layers.append(self._occluder(rng, background, second_box))
        if not present and not layers and rng.random() < 0.6:
            layers.append(
                _placed(rng, *self._alike(rng, kind, surroundings), step, side * zoom, kind)
            )
        # What stands beside the target in the template stays behind it.
        return self._look(
            rng,
            Scene(background, _IDENTITY, (*beside, first)),
            box,
            Scene(background, camera, tuple(layers)),
            second_box,
        )

    def _object(self, rng: Rng, kind: str | None) -> tuple[Image, Image, str]:
        """An object (h, w, 4), its mask (h, w) and its kind, of the asked kind if any."""
        patch, mask, kind = self._any_object(rng, kind)
        # A target spans a quarter of the search region: more pixels would only cost time.
        scale = 0.6 * self.search_size / max(mask.shape)
        if scale < 0.8:
            size = max(4, round(mask.shape[1] * scale)), max(4, round(mask.shape[0] * scale))
            patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        return patch, mask, kind

    def _any_object(self, rng: Rng, kind: str | None) -> tuple[Image, Image, str]:
        if kind is None:
            things = not self.cutouts or rng.random() < THINGS
            kind = (
                "thing" if things else _pick(rng, {k: KINDS.get(k, OTHERS) for k in self.cutouts})
            )
        if kind == "thing":
            picture = self.recordings.image(self._any_still(rng, self.stills).image)
            x, y, w, h = (int(v) for v in _region(rng, picture)[0])
            return picture[y : y + h, x : x + w], synthesis.rounded_mask(rng, h, w), kind
        own = kind == "person" and self.outlined and rng.random() < OUTLINED
        cutout = _choose(rng, self.outlined if own else self.cutouts[kind])
        patch = self.recordings.image(cutout.image)
        height, width = patch.shape[:2]
        if kind == "person" and self.outlined and (cutout.mask >= 0 or rng.random() < BORROWED):
            wearer = cutout if cutout.mask >= 0 else _choose(rng, self.outlined)
            outline = self.recordings.image(wearer.mask)[..., 0]
            if wearer is not cutout:
                outline = cv2.resize(outline, (width, height), interpolation=cv2.INTER_LINEAR)
            return patch, synthesis.soften(outline), kind
        return patch, synthesis.rounded_mask(rng, height, width), kind

    def _alike(self, rng: Rng, kind: str, surroundings: Image) -> tuple[Image, Image]:
        """Another object of the kind, in the same light."""
        patch, mask, _ = self._object(rng, kind)
        if rng.random() < 0.5:
            patch, mask = patch[:, ::-1], mask[:, ::-1]
        return synthesis.settle(rng, patch, mask, surroundings), mask

    def _occluder(self, rng: Rng, picture: Image, box: Box) -> Layer:
        """A piece of the surroundings over 10 to 50 % of the box, from one of its sides."""
        x, y, w, h = box
        x0, y0, sw, sh = (int(v) for v in _region(rng, picture)[0])
        patch = picture[y0 : y0 + sh, x0 : x0 + sw]
        share = rng.uniform(0.1, 0.5)
        if rng.random() < 0.6:
            # A post, or the edge of a wall.
            size = w * share, h * rng.uniform(1.0, 1.8)
            centre = x + w * rng.uniform(0, 1), y + h / 2
        else:
            size = w * rng.uniform(1.0, 1.8), h * share
            centre = x + w / 2, y + h * rng.choice([share / 2, 1 - share / 2])
        mask = synthesis.rounded_mask(rng, *patch.shape[:2])
        place = synthesis.about((sw / 2, sh / 2), centre, (size[0] / sw, size[1] / sh))
        return Layer(patch, mask, place)

    # Two frames of a video.

    def _video(self, rng: Rng, present: bool) -> View:
        folder = _pick(rng, {k: self.video_shares[k] for k in self.tracks})
        track = _choose(rng, self.tracks[folder])
        first = int(rng.integers(len(track.frames)))
        translation = synthesis.Translation(rng)
        dead = rng.random() < DEAD_STREAM
        if present:
            frames = np.array(track.frames)
            near = np.flatnonzero(np.abs(frames - frames[first]) <= self.largest_gap)
            other, second = track, int(rng.choice(near))
            box = _tuple(other.boxes[second])
        else:
            # Of another video: in its own the target may be anywhere.
            shown = self.recording_of[track.name]
            others = [t for t in self.tracks[folder] if self.recording_of[t.name] != shown]
            other = _choose(rng, others or [track])
            second = int(rng.integers(len(other.frames)))
            box = _tuple(other.boxes[second])
            if other is track:
                box = _elsewhere(rng, box, box, self.recordings.frame(other, second).shape)
        template, template_box = self._template(rng, _tuple(track.boxes[first]))
        search = self._search_window(rng, box)
        pictures = []
        for shown, number, window, size in (
            (track, first, template, self.template_size),
            (other, second, search, self.search_size),
        ):
            frame = self.recordings.frame(shown, number)
            picture = np.zeros((size, size, 4), np.uint8)
            inside = _inside(window, size, frame.shape)
            picture[inside] = _complete(crop.extract(frame, window, size), translation, dead)[
                inside
            ]
            pictures.append(picture)
        return View(pictures[0], template_box, pictures[1], search.to_crop(box))


_R = TypeVar("_R", Still, Track)
_IDENTITY = np.eye(2, 3)
_LOOK_ALIKES = [0.2, 0.3, 0.25, 0.15, 0.1]
"""How often there are 0 to 4 of them."""


def _by_folder(folders: Mapping[str, float], recordings: Sequence[_R]) -> dict[str, list[_R]]:
    """The stills or tracks by the folder their name begins with; the folders they come from."""
    return {
        folder: inside
        for folder in folders
        if (inside := [r for r in recordings if r.name.startswith(folder + "/")])
    }


def _recording(track: Track) -> str:
    """Whose frames these are: of several targets of a recording the same, also where each has a
    folder of its own with links to them."""
    if track.source is None:
        return track.name.split("#")[0]
    return str(track.source.files[0][0].resolve().parent)


def _degradation(options: Mapping[str, Any]) -> Degradation:
    options = dict(options)
    try:
        severe = Severities(**options.pop("severe", {}))
        return Degradation(severe=severe, **options)
    except TypeError as error:
        raise ValueError(f"degradation: {error}") from None


def _jittered(rng: Rng, box: Box, centre_jitter: float, scale_jitter: float) -> Box:
    """The box, moved and scaled."""
    x, y, w, h = box
    scale = np.exp(rng.standard_normal() * scale_jitter)
    reach = np.sqrt(w * h) * scale * centre_jitter
    cx = x + w / 2 + reach * (rng.random() - 0.5)
    cy = y + h / 2 + reach * (rng.random() - 0.5)
    w, h = w * scale, h * scale
    return cx - w / 2, cy - h / 2, w, h


def _region(rng: Rng, picture: Image) -> tuple[Box, float]:
    """A rectangle of a picture (H, W, 4), and how much content it has: the best of a few."""
    height, width = picture.shape[:2]
    best, best_content = (0.0, 0.0, float(width), float(height)), -1.0
    for _ in range(4):
        side = _side(rng, height, width, 14.0, np.inf)
        aspect = np.exp(rng.normal(-0.25, 0.5))
        w = int(np.clip(side * np.sqrt(aspect), 8, 0.6 * width))
        h = int(np.clip(side / np.sqrt(aspect), 8, 0.6 * height))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        # A grid of at most about 24 x 24 values tells enough.
        sample = picture[y : y + h : 1 + h // 24, x : x + w : 1 + w // 24].reshape(-1, 4)
        content = float(sample.std(axis=0)[[1, 3]].sum())
        if content > best_content:
            best, best_content = (float(x), float(y), float(w), float(h)), content
        if content > 45:
            break
    return best, best_content


def _side(rng: Rng, height: int, width: int, least: float, largest: float) -> float:
    """A target's sqrt(w * h), log-uniform: mostly such that its search region, four times as
    wide, lies in the picture.
    """
    share = 0.22 if rng.random() < 0.8 else 0.45
    return _log_uniform(rng, least, min(300.0, share * min(height, width), largest))


def _placed(rng: Rng, patch: Image, mask: Image, centre: Any, side: float, kind: str) -> Layer:
    """An object laid at a point with sqrt(w * h) about `side`, in a pose and light of its own."""
    patch, mask = synthesis.sway(
        rng, patch, mask, rng.uniform(0, 0.12 if kind == "person" else 0.04)
    )
    gain = rng.uniform(0.88, 1.12, 4)
    patch = np.clip(patch * gain.astype(np.float32), 0, 255).astype(np.uint8)
    h, w = mask.shape
    scale = side / np.sqrt(h * w)
    aspect = np.exp(rng.uniform(-0.09, 0.09))
    place = synthesis.about(
        (w / 2, h / 2), tuple(centre), (scale * aspect, scale / aspect), rng.normal(0, 2.5)
    )
    return Layer(patch, mask, place)


def _around(picture: Image, centre: Any, side: float) -> Image:
    """The part of a picture around a point, thinned to about 16 x 16 values."""
    height, width = picture.shape[:2]
    x0, y0 = (int(max(0, v - side / 2)) for v in centre)
    x1, y1 = int(min(width, centre[0] + side / 2)), int(min(height, centre[1] + side / 2))
    step = 1 + int(side) // 16
    return picture[y0 : y1 + 1 : step, x0 : x1 + 1 : step]


def _offset(rng: Rng) -> NDArray[np.float64]:
    """Where a look-alike stands, in sides of the target: all around, mostly beside."""
    angle = rng.uniform(0, 2 * np.pi)
    return rng.uniform(0.6, 2.2) * np.array([np.cos(angle), 0.7 * np.sin(angle)])


def _elsewhere(rng: Rng, box: Box, avoid: Box, shape: tuple[int, ...]) -> Box:
    """The box moved to where its search region leaves out the box to avoid."""
    _, _, w, h = box
    height, width = shape[:2]
    reach = 4.5 * np.sqrt(w * h)
    centre = np.array([avoid[0] + avoid[2] / 2, avoid[1] + avoid[3] / 2])
    for _ in range(20):
        to = rng.uniform(0, 1, 2) * (width, height)
        if np.abs(to - centre).max() > reach:
            return float(to[0] - w / 2), float(to[1] - h / 2), w, h
    # No room for it: a small place in the corner farthest from it.
    w, h = w / 4, h / 4
    to = np.where(
        centre < np.array([width, height]) / 2,
        [0.9 * width, 0.9 * height],
        [0.1 * width, 0.1 * height],
    )
    return float(to[0] - w / 2), float(to[1] - h / 2), w, h


def _overlaps(a: Box, b: Box, share: float) -> bool:
    """Whether two boxes overlap by more than a share of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return width > 0 and height > 0 and width * height > share * min(a[2] * a[3], b[2] * b[3])


def _complete(picture: Image, translation: synthesis.Translation, dead: bool) -> Image:
    """(S, S, 4) from a crop of any modality: the one that is missing is imitated, or black."""
    if picture.ndim == 3 and picture.shape[2] == 4:
        return picture
    if picture.ndim == 3 and picture.shape[2] == 3:
        thermal = translation.thermal(picture)
        return np.dstack([picture, np.zeros_like(thermal) if dead else thermal])
    thermal = picture.reshape(picture.shape[:2])
    rgb = translation.rgb(thermal)
    return np.dstack([np.zeros_like(rgb) if dead else rgb, thermal])


def _inside(window: crop.Window, size: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The rows and columns of a crop that show the frame; the others are padding."""
    rows, columns = (
        slice(
            round(float(np.clip(-start / window.side, 0, 1)) * size),
            round(float(np.clip((length - start) / window.side, 0, 1)) * size),
        )
        for start, length in ((window.y, shape[0]), (window.x, shape[1]))
    )
    return rows, columns


def _mirror(box: Box) -> Box:
    return 1 - box[0], box[1], box[2], box[3]


def _tuple(box: Sequence[float]) -> Box:
    x, y, w, h = box
    return x, y, w, h


def _to_tensor(picture: Image) -> Tensor:
    """(S, S, 4) to (2, 3, S, S)."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
    return torch.from_numpy(np.stack([planes[:3], np.broadcast_to(planes[3], planes[:3].shape)]))


def _pick(rng: Rng, shares: Mapping[str, float]) -> str:
    at = rng.random() * sum(shares.values())
    for name, share in shares.items():
        at -= share
        if at < 0:
            return name
    return next(name for name, share in shares.items() if share > 0)


def _choose(rng: Rng, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))


def contact_sheet(samples: Sequence[Mapping[str, Tensor]], columns: int = 4) -> Image:
    """Samples side by side as one RGB image: template and search region of each, RGB above
    thermal, with their boxes; a red frame where the target is absent.
    """
    if not samples:
        raise ValueError("no samples to show")
    tiles = []
    for sample in samples:
        template = _boxed(sample["template"], sample["template_box"])
        search = _boxed(sample["search"], sample["box"] if sample["present"] else None)
        below = search.shape[0] - template.shape[0]
        template = np.pad(template, ((0, below), (0, 4), (0, 0)))
        tiles.append(np.pad(np.hstack([template, search]), ((0, 6), (0, 8), (0, 0))))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _boxed(pictures: Tensor, box: Tensor | None) -> Image:
    """(2, 3, S, S) as one (2 * S, S, 3) image with the box drawn in."""
    images = [np.ascontiguousarray(p.permute(1, 2, 0).numpy()) for p in pictures]
    size = images[0].shape[0]
    for image in images:
        if box is None:
            cv2.rectangle(image, (0, 0), (size - 1, size - 1), (255, 0, 0), 2)
            continue
        cx, cy, w, h = (float(v) * size for v in box)
        first = round(cx - w / 2), round(cy - h / 2)
        cv2.rectangle(image, first, (round(cx + w / 2), round(cy + h / 2)), (0, 255, 0), 1)
    return np.vstack(images)
