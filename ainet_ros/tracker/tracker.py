# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A target's state around a network: template, window, score and what they become."""

from __future__ import annotations

import enum
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ainet_ros.network import AINet
from ainet_ros.network.head import decode
from ainet_ros.network.model import Template

from . import weights
from .crop import Box, Crops, Image, Window, window
from .device import convert, resolve, resolve_precision, translate
from .onnx import SUFFIX as ONNX_SUFFIX
from .onnx import OnnxNetwork
from .threads import Threads

TEMPLATE_FACTOR = 2.0
SEARCH_FACTOR = 4.0
"""Side of a crop over sqrt(w * h) of the target."""
SEARCH_WINDOWS = 4
"""Windows that a lost target is looked for in, each pair."""
USUAL_SHARE = 0.9
"""Of its usual score that a lost target needs to be found, and one that jumps to be believed."""
JUMP = 0.7
"""Of sqrt(w * h): a target whose middle moves by more from one pair to the next jumps."""
LONGEST_STEPS = 2.0
"""Of the longest recent step: up to there it does not jump, as where pairs come seldom."""
USUAL_DECAY = 0.9
"""Weight of the past in the usual score and the longest step, each pair."""
CONFIRMED_IN = 4
"""Pairs in a row that a lost target must be seen in to be found."""
MOST_PLACES = 256
"""Side by side, that a lost target is looked for at."""
CLIP_MARGIN = 10
"""Pixels of a box that stay inside the image, as published."""


class State(enum.Enum):
    """What the tracker believes of its target."""

    TRACKING = "tracking"
    LOST = "lost"


@dataclass(frozen=True)
class Timing:
    """Where the time of one frame went, milliseconds."""

    preprocess_ms: float
    network_ms: float
    postprocess_ms: float


@dataclass(frozen=True)
class Track:
    """The answer for one pair of images."""

    box: Box
    """x, y, w, h in pixels of the RGB image; while LOST, the last box that was believed."""
    score: float
    """0..1, the score map at the chosen cell; it falls when the target is gone. NaN where the
    network's answer is no number: the target is then LOST."""
    state: State
    timing: Timing


@dataclass
class Target:
    """One target's state. Not thread safe: one owner."""

    template: Template
    """As the network has embedded it, of batch 1. It is fixed."""
    box: Box
    """x, y, w, h in pixels of the RGB image: where the target was last believed to be. While it is
    TRACKING the next search is centred there, so another source may move it."""
    state: State = State.TRACKING
    usual_score: float = 0.0
    """A running mean while TRACKING."""
    longest_step: float = 0.0
    """While TRACKING, the longest `step` from pair to pair; it fades."""
    looked_at: int = 0
    """While LOST: how many places besides the last one it was looked for at."""
    candidate: Box | None = None
    """While LOST: where it was seen in the last pair."""
    seen: int = 0
    """While LOST: in so many pairs in a row."""


class Tracker:
    """Follows targets through pairs of registered RGB and thermal images.

    `start` and `advance` follow any number of targets, each on its own, all of them in one batch
    of the network; `init` and `track` follow one that the tracker keeps. Not thread safe: one
    owner.

    Not in the paper: a target becomes LOST when its score falls under `lost_below`, or when its
    box jumps (further than `JUMP`, and than `LONGEST_STEPS` times its longest recent step) with a
    score under `USUAL_SHARE` of its running mean: that is probably another one that looks like it.
    (Where `lost_below` is 0, only a score that is no number loses it.) In each pair it is then
    looked for in windows of the size it had (`search_windows`, shared by all that are LOST, two at
    least): where it was last believed to be, and places around that, further away in each pair,
    until the whole image was looked at and it begins anew. Where the score reaches `found_above`,
    and `USUAL_SHARE` of what it usually was, the next pair is looked at there alone; after
    `CONFIRMED_IN` pairs in a row the target is TRACKING.
    """

    def __init__(
        self,
        network: AINet | OnnxNetwork,
        *,
        device: str | torch.device = "cpu",
        precision: torch.dtype = torch.float32,
        compile: bool = False,
        lost_below: float = weights.LOST_BELOW,
        found_above: float = weights.FOUND_ABOVE,
        search_windows: int = SEARCH_WINDOWS,
    ) -> None:
        """The network moves to `device`; where `precision` is not float32, its large matrices
        become that, for good. `compile`: by torch.compile, as int8 always is, in the first frame.
        Raises ValueError unless 0 <= lost_below <= found_above <= 1.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self._autocast = convert(precision, self.network, self.device)
        self._match = self.network.match
        translated = compile or precision == torch.int8
        if translated:
            self._match = translate(self._match, self.device)
        # A translated network would be translated anew for each number; ONNX Runtime has its own.
        by_torch = self.device.type == "cpu" and isinstance(network, AINet) and not translated
        self._threads = Threads(torch.get_num_threads() if by_torch else 1)
        self.set_thresholds(lost_below, found_above)
        self.search_windows = search_windows
        config = network.config
        self._template_crops = Crops(config.template_size, self.device)
        self._search_crops = Crops(config.search_size, self.device)
        self._hann = hann_window(config.map_size).to(self.device)
        self._target: Target | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str] = weights.DEFAULT,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
    ) -> Tracker:
        """A tracker from a weights file, or from a file of `ainet export`, on a device and in a
        precision by name, with the thresholds of the weights, warmed up.

        Raises FileNotFoundError or ValueError as `weights.load`, `OnnxNetwork`, `resolve`,
        `resolve_precision` and `warm_up` do, and on an ONNX file with a precision or `compile`.
        """
        where = resolve(device)
        dtype = resolve_precision(precision, where)
        if os.fspath(name_or_path).endswith(ONNX_SUFFIX):
            if precision != "auto" or compile:
                raise ValueError(
                    f"{name_or_path} is run as it is: leave precision at auto and compile off"
                )
            tracker = cls(OnnxNetwork(name_or_path, where), device=where)
        else:
            network = weights.load(name_or_path)
            tracker = cls(network, device=where, precision=dtype, compile=compile)
        tracker.set_thresholds(*weights.thresholds(name_or_path))
        tracker.warm_up()
        return tracker

    def warm_up(self) -> None:
        """Run the network on one window and on two, so that the first frames are quick.

        This translates it, where it is compiled. Raises ValueError where that fails.
        """
        blank = np.zeros((64, 64, 3), np.uint8)
        target = self.start(blank, blank, (16.0, 16.0, 32.0, 32.0))
        try:
            for count in (1, 2):  # all numbers of windows from two on share a translation
                self.advance(blank, blank, [replace(target) for _ in range(count)])
        except torch._inductor.exc.InductorError as error:
            raise ValueError(
                "torch.compile fails here, which compile and precision int8 need; on a CPU it "
                f"takes a C++ compiler (g++): {error}"
            ) from None

    def set_thresholds(self, lost_below: float, found_above: float) -> None:
        """Change the hysteresis. Raises ValueError unless 0 <= lost_below <= found_above <= 1."""
        if not 0 <= lost_below <= found_above <= 1:
            raise ValueError(
                f"thresholds must satisfy 0 <= lost_below ({lost_below}) <= "
                f"found_above ({found_above}) <= 1"
            )
        self.lost_below, self.found_above = lost_below, found_above

    @property
    def box(self) -> Box:
        """`Target.box` of the target that the tracker keeps. Raises RuntimeError before `init`."""
        return self._kept.box

    @box.setter
    def box(self, box: Box) -> None:
        self._kept.box = box

    @property
    def _kept(self) -> Target:
        if self._target is None:
            raise RuntimeError("the tracker has no target: call init first")
        return self._target

    def init(self, rgb: Image, thermal: Image, box: Box) -> None:
        """`start` a target that the tracker keeps; where it raises, the one before is kept."""
        self._target = self.start(rgb, thermal, box)

    def track(self, rgb: Image, thermal: Image) -> Track:
        """`advance` the target that the tracker keeps. Raises RuntimeError before `init`."""
        return self.advance(rgb, thermal, [self._kept])[0]

    @torch.inference_mode()
    def start(self, rgb: Image, thermal: Image, box: Box) -> Target:
        """Take the target in `box` (x, y, w, h in pixels of `rgb`, floats) as a template.

        rgb: uint8 (H, W, 3) in RGB order; thermal: uint8 (H, W) or (H, W, 3), registered to it.
        Raises ValueError, naming which and why, on a wrong type, shape or size, or on a box that
        is not finite, empty or outside the image.
        """
        check_images(rgb, thermal)
        box = check_box(box, rgb.shape[1], rgb.shape[0])
        view = window(box, TEMPLATE_FACTOR)
        template = self._template_crops(rgb, thermal, [view])  # (1, 2, 3, T, T)
        template_box = torch.tensor([view.to_crop(box)], device=self.device)
        with self._autocast:
            return Target(self.network.embed_template(template, template_box), box)

    @torch.inference_mode()
    def advance(self, rgb: Image, thermal: Image, targets: Sequence[Target]) -> list[Track]:
        """Find each target in the next pair and change its state; images as for `start`.

        Raises ValueError on bad images, or where there is no target. Where it raises anything, no
        state is changed.
        The times of each answer are those of all targets together.
        """
        started = time.perf_counter()
        check_images(rgb, thermal)
        if not targets:
            raise ValueError("no targets to advance")
        height, width = rgb.shape[:2]
        looked_for = [t for t in targets if t.state is State.LOST and t.candidate is None]
        windows = max(2, self.search_windows // max(1, len(looked_for)))
        views = [self._views(target, windows, width, height) for target in targets]
        every = [view for of_target in views for view in of_target]
        search = self._search_crops(rgb, thermal, every)  # (windows, 2, 3, S, S)
        templates = [
            target.template for target, own in zip(targets, views, strict=True) for _ in own
        ]
        prepared = time.perf_counter()
        with self._autocast, self._threads.running(len(every)):
            output = self._match(batched(templates), search)
        # The Hann window favours the middle; the score that is reported is the network's own.
        chosen = output.score_map * self._hann  # (windows, 1, F, F)
        found = decode(chosen, output.size_map, output.offset_map)  # (windows, 4)
        best = chosen.flatten(1).argmax(dim=1, keepdim=True)  # (windows, 1)
        scores = output.score_map.flatten(1).gather(1, best)  # (windows, 1)
        answers = iter(torch.cat([found, scores], dim=1).tolist())
        inferred = time.perf_counter()
        scored = []
        for target, own in zip(targets, views, strict=True):
            seen = [(next(answers), view) for view in own]
            answer, view = max(seen, key=lambda found: _certain(found[0]))
            cx, cy, w, h, score = answer
            box = view.to_image((cx, cy, w, h))
            target.looked_at += len(own) - 1  # not before the network has answered
            certain = _certain(answer)
            self._update(target, clip(box, width, height), certain)
            scored.append(score if score == certain else math.nan)
        timing = Timing(
            (prepared - started) * 1e3,
            (inferred - prepared) * 1e3,
            (time.perf_counter() - inferred) * 1e3,
        )
        return [
            Track(target.box, score, target.state, timing)
            for target, score in zip(targets, scored, strict=True)
        ]

    def _views(self, target: Target, windows: int, width: int, height: int) -> list[Window]:
        """Where to look for a target in an image of this size; windows: of one that is LOST."""
        if target.state is State.TRACKING:
            return [window(target.box, SEARCH_FACTOR)]
        if target.candidate is not None:
            return [window(target.candidate, SEARCH_FACTOR)]
        around = places_around(target.box, width, height)
        count = min(windows - 1, len(around))
        next_ones = (target.looked_at + np.arange(count)) % max(1, len(around))
        boxes = [target.box, *around[next_ones].tolist()]
        return [window(box, SEARCH_FACTOR) for box in boxes]

    def _update(self, target: Target, box: Box, score: float) -> None:
        """box, score: the best that was seen in the windows of `_views`."""
        if target.state is State.TRACKING:
            moved = step(target.box, box)
            jumps = moved > max(JUMP, LONGEST_STEPS * target.longest_step)
            another = jumps and score < USUAL_SHARE * target.usual_score
            if score < self.lost_below or (another and self.lost_below > 0):
                target.state = State.LOST
                target.looked_at, target.candidate, target.seen = 0, None, 0
                return
            before = target.usual_score or score
            target.usual_score = USUAL_DECAY * before + (1 - USUAL_DECAY) * score
            target.longest_step = max(moved, USUAL_DECAY * target.longest_step)
            target.box = box
        elif score < max(self.found_above, USUAL_SHARE * target.usual_score):
            target.candidate, target.seen = None, 0
        else:
            target.candidate, target.seen = box, target.seen + 1
            if target.seen == CONFIRMED_IN:
                target.state, target.box = State.TRACKING, box


def _certain(answer: Sequence[float]) -> float:
    """The score of a box with its score, or what is below all where one of them is no number."""
    return answer[-1] if all(map(math.isfinite, answer)) else -1.0


def batched(templates: Sequence[Template]) -> Template:
    """Templates of batch 1 as one."""
    prompts = [template.prompt for template in templates if template.prompt is not None]
    return Template(
        torch.cat([template.tokens for template in templates]),  # (targets, 2, Nz, C)
        torch.cat(prompts) if prompts else None,  # (targets, Nz, C)
    )


def hann_window(side: int) -> Tensor:
    """0.5 (1 - cos(2 pi k / (side + 1))), k = 1..side, as an outer product (1, 1, side, side)."""
    k = torch.arange(1, side + 1)
    line = 0.5 * (1 - torch.cos(2 * math.pi * k / (side + 1)))
    return torch.outer(line, line)[None, None]


def step(before: Box, after: Box) -> float:
    """How far the middle moves, over sqrt(w * h)."""
    x0, y0, x1, y1 = (box[k] + box[k + 2] / 2 for box in (before, after) for k in (0, 1))
    return math.hypot(x1 - x0, y1 - y0) / math.sqrt(before[2] * before[3])


@lru_cache(maxsize=8)  # they stay the same while a target is LOST, and may be thousands
def places_around(box: Box, width: int, height: int) -> NDArray[np.float64]:
    """(N, 4) boxes of the same size all over an image, half a search window apart, nearest first,
    without the box itself. In a large image those of a speck are further apart."""
    x, y, w, h = box
    step = max(SEARCH_FACTOR / 2 * math.sqrt(w * h), max(width, height) / MOST_PLACES)
    columns = np.arange(-((x + w / 2) // step), (width - x - w / 2) // step + 1)
    rows = np.arange(-((y + h / 2) // step), (height - y - h / 2) // step + 1)
    i, j = (grid.ravel() for grid in np.meshgrid(columns, rows))  # each (places)
    order = np.lexsort((j, i, i * i + j * j))
    order = order[(i[order] != 0) | (j[order] != 0)]
    i, j = i[order], j[order]
    places = np.stack([x + i * step, y + j * step, np.full_like(i, w), np.full_like(i, h)], axis=1)
    places.setflags(write=False)
    return places


def clip(box: Box, width: int, height: int) -> Box:
    """`box` cut to the image, with at least CLIP_MARGIN pixels of each side left inside."""
    x, y, w, h = box
    x0, x1 = clip_side(x, x + w, width)
    y0, y1 = clip_side(y, y + h, height)
    return x0, y0, x1 - x0, y1 - y0


def clip_side(low: float, high: float, size: int) -> tuple[float, float]:
    low = min(max(0.0, low), size - CLIP_MARGIN)
    high = max(min(high, float(size)), CLIP_MARGIN)
    return low, max(high, low + CLIP_MARGIN)


def check_images(rgb: NDArray, thermal: NDArray) -> None:
    """Raises ValueError naming the image and what is wrong with it."""
    for name, image, shapes in (
        ("rgb", rgb, "(H, W, 3)"),
        ("thermal", thermal, "(H, W) or (H, W, 3)"),
    ):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"{name} image must be a uint8 array, got {kind}")
        grey = name == "thermal" and image.ndim == 2
        if not grey and (image.ndim != 3 or image.shape[2] != 3):
            raise ValueError(f"{name} image must be {shapes}, got {image.shape}")
        if 0 in image.shape:
            raise ValueError(f"{name} image is empty: {image.shape}")
    if rgb.shape[:2] != thermal.shape[:2]:
        raise ValueError(
            f"rgb image {rgb.shape[:2]} and thermal image {thermal.shape[:2]} differ in size: "
            "register the thermal image to the RGB one first"
        )


def check_box(box: Box, width: int, height: int) -> Box:
    """`box` as four floats. Raises ValueError where it cannot be a target in the image."""
    values = tuple(float(value) for value in box)
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"box must be four finite numbers x, y, w, h, got {values}")
    x, y, w, h = values
    if w < 1 or h < 1:
        raise ValueError(f"box {values} is empty: w and h must be at least 1 pixel")
    if x + w <= 0 or y + h <= 0 or x >= width or y >= height:
        raise ValueError(f"box {values} lies outside the image of {width}x{height}")
    if w > width + 1 or h > height + 1:  # its windows would take gigabytes
        raise ValueError(f"box {values} is larger than the image of {width}x{height}")
    return x, y, w, h
