# SPDX-License-Identifier: Apache-2.0
"""One target's state around a network: template, window, score and what they become."""

from __future__ import annotations

import enum
import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ainet_ros.network import AINet
from ainet_ros.network.head import decode
from ainet_ros.network.model import Template

from . import weights
from .crop import Box, Image, Window, extract, window
from .device import compute_in, resolve, resolve_precision

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


class Tracker:
    """Follows one target through pairs of registered RGB and thermal images.

    The template is fixed. State goes to LOST when the score falls under `lost_below` and back to
    TRACKING when it reaches `found_above`; while LOST the search region stays where the target was
    last believed to be. Not thread safe: one owner.
    """

    def __init__(
        self,
        network: AINet,
        *,
        device: str | torch.device = "cpu",
        precision: torch.dtype = torch.float32,
        lost_below: float = LOST_BELOW,
        found_above: float = FOUND_ABOVE,
    ) -> None:
        """The network moves to `device`; where `precision` is bfloat16, its large matrices become
        that, for good. Raises ValueError unless 0 <= lost_below <= found_above <= 1.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self._autocast = compute_in(self.network, precision)
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
        self._embedded: Template | None = None
        self.box: Box = (0.0, 0.0, 0.0, 0.0)
        """x, y, w, h in pixels of the RGB image: where the target was last believed to be. The
        next search is centred there, so another source may move it."""
        self._state = State.TRACKING

    @classmethod
    def load(
        cls,
        name_or_path: str | os.PathLike[str] = weights.DEFAULT,
        device: str = "auto",
        precision: str = "auto",
    ) -> Tracker:
        """A tracker from a weights file, on a device and in a precision by name.

        Raises FileNotFoundError or ValueError as `weights.load`, `resolve` and
        `resolve_precision` do.
        """
        where = resolve(device)
        dtype = resolve_precision(precision, where)
        return cls(weights.load(name_or_path), device=where, precision=dtype)

    def set_thresholds(self, lost_below: float, found_above: float) -> None:
        """Change the hysteresis. Raises ValueError unless 0 <= lost_below <= found_above <= 1."""
        if not 0 <= lost_below <= found_above <= 1:
            raise ValueError(
                f"thresholds must satisfy 0 <= lost_below ({lost_below}) <= "
                f"found_above ({found_above}) <= 1"
            )
        self.lost_below, self.found_above = lost_below, found_above

    @torch.inference_mode()
    def init(self, rgb: Image, thermal: Image, box: Box) -> None:
        """Take the target in `box` (x, y, w, h in pixels of `rgb`, floats) as the template.

        rgb: uint8 (H, W, 3) in RGB order; thermal: uint8 (H, W) or (H, W, 3), registered to it.
        Raises ValueError, naming which and why, on a wrong type, shape or size, or on a box that
        is not finite, empty or outside the image; the target before is then kept.
        """
        check_images(rgb, thermal)
        box = check_box(box, rgb.shape[1], rgb.shape[0])
        view = window(box, TEMPLATE_FACTOR)
        self._fill(self._template, rgb, thermal, view)
        template_box = torch.tensor([view.to_crop(box)], device=self.device)
        with self._autocast:
            self._embedded = self.network.embed_template(self._template, template_box)
        self.box = box
        self._state = State.TRACKING

    @torch.inference_mode()
    def track(self, rgb: Image, thermal: Image) -> Track:
        """Find the target in the next pair; images as for `init`.

        Raises ValueError on bad images (the state is kept) and RuntimeError before `init`.
        """
        if self._embedded is None:
            raise RuntimeError("the tracker has no target: call init first")
        started = time.perf_counter()
        check_images(rgb, thermal)
        view = window(self.box, SEARCH_FACTOR)
        self._fill(self._search, rgb, thermal, view)
        prepared = time.perf_counter()
        with self._autocast:
            output = self.network.match(self._embedded, self._search)
        # The window prefers the middle; the score that is reported is the network's own.
        chosen = output.score_map * self._hann
        found = decode(chosen, output.size_map, output.offset_map)  # (1, 4)
        score = output.score_map.flatten()[chosen.argmax()]
        *fractions, confidence = torch.cat([found[0], score[None]]).tolist()
        inferred = time.perf_counter()
        cx, cy, w, h = fractions
        self._update(view.to_image((cx, cy, w, h)), confidence, rgb.shape[1], rgb.shape[0])
        return Track(
            self.box,
            confidence,
            self._state,
            Timing(
                (prepared - started) * 1e3,
                (inferred - prepared) * 1e3,
                (time.perf_counter() - inferred) * 1e3,
            ),
        )

    def _update(self, box: Box, score: float, width: int, height: int) -> None:
        if not math.isfinite(score) or score < self.lost_below:
            self._state = State.LOST
        elif score >= self.found_above:
            self._state = State.TRACKING
        if self._state is State.TRACKING:
            self.box = clip(box, width, height)

    def _fill(self, target: Tensor, rgb: Image, thermal: Image, view: Window) -> None:
        """Put the normalized crops into `target` (1, 2, 3, side, side)."""
        side = target.shape[-1]
        for modality, image in enumerate((rgb, thermal)):
            crop = torch.from_numpy(extract(image, view, side)).to(self.device)
            # (side, side, 3) or (side, side) -> (3, side, side), thermal grey in each channel
            planes = crop.permute(2, 0, 1) if crop.dim() == 3 else crop.expand(3, side, side)
            target[0, modality].copy_(planes).sub_(self._mean).div_(self._scale)


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
