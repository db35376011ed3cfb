# SPDX-License-Identifier: Apache-2.0
"""A target's state around a network: template, window, score and what they become."""

from __future__ import annotations

import enum
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ainet_ros.network import AINet
from ainet_ros.network.head import decode
from ainet_ros.network.model import Template

from . import weights
from .crop import Box, Image, Window, extract, window
from .device import compute_in, resolve, resolve_precision, translate
from .onnx import SUFFIX as ONNX_SUFFIX
from .onnx import OnnxNetwork

TEMPLATE_FACTOR = 2.0
SEARCH_FACTOR = 4.0
"""Side of a crop over sqrt(w * h) of the target."""
LOST_BELOW, FOUND_ABOVE = 0.2, 0.35
"""Scores at which a target is given up, and believed again."""
CLIP_MARGIN = 10
"""Pixels of a box that stay inside the image, as published."""
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's, in RGB order, for images in 0..1; for both modalities."""


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
    """0..1, the score map at the chosen cell; it falls when the target is gone."""
    state: State
    timing: Timing


@dataclass
class Target:
    """One target's state. Not thread safe: one owner."""

    template: Template
    """As the network has embedded it, of batch 1. It is fixed."""
    box: Box
    """x, y, w, h in pixels of the RGB image: where the target was last believed to be. The next
    search is centred there, so another source may move it."""
    state: State = State.TRACKING


class Tracker:
    """Follows targets through pairs of registered RGB and thermal images.

    `start` and `advance` follow any number of targets, each on its own, all of them in one batch
    of the network; `init` and `track` follow one that the tracker keeps. A target's state goes to
    LOST when its score falls under `lost_below` and back to TRACKING when it reaches
    `found_above`; while LOST its search region stays where it was last believed to be. Not thread
    safe: one owner.
    """

    def __init__(
        self,
        network: AINet | OnnxNetwork,
        *,
        device: str | torch.device = "cpu",
        precision: torch.dtype = torch.float32,
        compile: bool = False,
        lost_below: float = LOST_BELOW,
        found_above: float = FOUND_ABOVE,
    ) -> None:
        """The network moves to `device`; where `precision` is not float32, its large matrices
        become that, for good. `compile`: by torch.compile, as int8 always is, in the first frame.
        Raises ValueError unless 0 <= lost_below <= found_above <= 1.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self._autocast = compute_in(precision, self.network, self.device)
        self._match = self.network.match
        if compile or precision == torch.int8:
            self._match = translate(self._match, self.device)
        self.set_thresholds(lost_below, found_above)
        config = network.config
        self._template_size, self._search_size = config.template_size, config.search_size
        self._template = torch.zeros(1, 2, 3, *[self._template_size] * 2, device=self.device)
        self._search = torch.zeros(1, 2, 3, *[self._search_size] * 2, device=self.device)
        self._mean, self._scale = (
            torch.tensor(values, device=self.device)[:, None, None] * 255
            for values in (IMAGE_MEAN, IMAGE_STD)
        )
        self._hann = hann_window(config.map_size).to(self.device)
        self._target: Target | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str] = weights.DEFAULT,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        most_targets: int = 1,
    ) -> Tracker:
        """A tracker from a weights file, or from a file of `ainet export`, on a device and in a
        precision by name, warmed up for up to `most_targets`.

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
        tracker.warm_up(most_targets)
        return tracker

    def warm_up(self, most_targets: int) -> None:
        """Run the network, so that the first frames with up to `most_targets` are quick.

        This translates it, where it is compiled. Raises ValueError where that fails.
        """
        blank = np.zeros((64, 64, 3), np.uint8)
        target = self.start(blank, blank, (16.0, 16.0, 32.0, 32.0))
        try:
            # All numbers of targets from two on share a translation.
            for count in range(1, min(2, most_targets) + 1):
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
        self._fill(self._template[0], rgb, thermal, view)
        template_box = torch.tensor([view.to_crop(box)], device=self.device)
        with self._autocast:
            return Target(self.network.embed_template(self._template, template_box), box)

    @torch.inference_mode()
    def advance(self, rgb: Image, thermal: Image, targets: Sequence[Target]) -> list[Track]:
        """Find each target in the next pair and change its state; images as for `start`.

        Raises ValueError on bad images, or where there is no target; no state is then changed.
        The times of each answer are those of all targets together.
        """
        started = time.perf_counter()
        check_images(rgb, thermal)
        if not targets:
            raise ValueError("no targets to advance")
        if len(self._search) != len(targets):
            self._search = self._search.new_empty(len(targets), *self._search.shape[1:])
        views = [window(target.box, SEARCH_FACTOR) for target in targets]
        for search, view in zip(self._search, views, strict=True):
            self._fill(search, rgb, thermal, view)
        prepared = time.perf_counter()
        with self._autocast:
            output = self._match(batched([t.template for t in targets]), self._search)
        # The window prefers the middle; the score that is reported is the network's own.
        chosen = output.score_map * self._hann  # (targets, 1, F, F)
        found = decode(chosen, output.size_map, output.offset_map)  # (targets, 4)
        best = chosen.flatten(1).argmax(dim=1, keepdim=True)  # (targets, 1)
        scores = output.score_map.flatten(1).gather(1, best)  # (targets, 1)
        answers = torch.cat([found, scores], dim=1).tolist()
        inferred = time.perf_counter()
        height, width = rgb.shape[:2]
        for target, view, (cx, cy, w, h, score) in zip(targets, views, answers, strict=True):
            self._update(target, view.to_image((cx, cy, w, h)), score, width, height)
        timing = Timing(
            (prepared - started) * 1e3,
            (inferred - prepared) * 1e3,
            (time.perf_counter() - inferred) * 1e3,
        )
        return [
            Track(target.box, answer[-1], target.state, timing)
            for target, answer in zip(targets, answers, strict=True)
        ]

    def _update(self, target: Target, box: Box, score: float, width: int, height: int) -> None:
        if not math.isfinite(score) or score < self.lost_below:
            target.state = State.LOST
        elif score >= self.found_above:
            target.state = State.TRACKING
        if target.state is State.TRACKING:
            target.box = clip(box, width, height)

    def _fill(self, target: Tensor, rgb: Image, thermal: Image, view: Window) -> None:
        """Put the normalized crops into `target` (2, 3, side, side)."""
        side = target.shape[-1]
        for modality, image in enumerate((rgb, thermal)):
            crop = torch.from_numpy(extract(image, view, side)).to(self.device)
            # (side, side, 3) or (side, side) -> (3, side, side), thermal grey in each channel
            planes = crop.permute(2, 0, 1) if crop.dim() == 3 else crop.expand(3, side, side)
            target[modality].copy_(planes).sub_(self._mean).div_(self._scale)


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
    return x, y, w, h
