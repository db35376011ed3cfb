# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Square windows around a box: what the network sees of the images, and the way back.

The window is that of OSTrack and AINet: side = ceil(sqrt(w * h) * factor), centred on the box,
zero outside the image, resized bilinearly (OpenCV's default).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""x, y, w, h in pixels; x, y is the top left corner."""
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's, in RGB order, for images in 0..1; for both modalities."""


@dataclass(frozen=True)
class Window:
    """A square of `side` pixels with its top left corner at (`x`, `y`), all in image pixels."""

    x: int
    y: int
    side: int

    def to_crop(self, box: Box) -> Box:
        """A box in image pixels as (cx, cy, w, h) in fractions of the window."""
        x, y, w, h = box
        return (
            (x + w / 2 - self.x) / self.side,
            (y + h / 2 - self.y) / self.side,
            w / self.side,
            h / self.side,
        )

    def to_image(self, box: Box) -> Box:
        """A box (cx, cy, w, h) in fractions of the window as x, y, w, h in image pixels."""
        cx, cy, w, h = (value * self.side for value in box)
        return self.x + cx - w / 2, self.y + cy - h / 2, w, h


def window(box: Box, factor: float) -> Window:
    """The window of side ceil(sqrt(w * h) * factor) centred on `box` (x, y, w, h in pixels)."""
    x, y, w, h = box
    side = max(1, math.ceil(math.sqrt(w * h) * factor))
    return Window(round(x + w / 2 - side / 2), round(y + h / 2 - side / 2), side)


def extract(image: Image, window: Window, size: int) -> Image:
    """The window's pixels, resized to (size, size) or (size, size, channels), uint8.

    `image` is HxW or HxWxC. Only the window is read; what lies outside the image is zero.
    """
    height, width = image.shape[:2]
    x0, y0 = window.x, window.y
    x1, y1 = x0 + window.side, y0 + window.side
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return np.zeros((size, size, *image.shape[2:]), np.uint8)
    view: Any = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    top, left = max(-y0, 0), max(-x0, 0)
    bottom, right = max(y1 - height, 0), max(x1 - width, 0)
    if top or left or bottom or right:
        view = cv2.copyMakeBorder(view, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.resize(view, (size, size)), np.uint8)


class Crops:
    """The network's input: windows of pairs of images, on its device. Not thread safe."""

    def __init__(self, size: int, device: torch.device) -> None:
        """size: of a crop's side, pixels."""
        self._device = device
        self._pixels = torch.empty(0, 2, 3, size, size, dtype=torch.uint8)

    def __call__(self, rgb: Image, thermal: Image, views: Sequence[Window]) -> Tensor:
        """(len(views), 2, 3, size, size), normalized; modality 0 is RGB, 1 thermal, grey in each
        channel. Images as for `extract`. Only the crops are uploaded, as bytes and at once."""
        size = self._pixels.shape[-1]
        if len(self._pixels) != len(views):
            pinned = self._device.type == "cuda"  # page-locked: the GPU copies it by itself
            self._pixels = torch.empty(
                len(views), *self._pixels.shape[1:], dtype=torch.uint8, pin_memory=pinned
            )
        for pair, view in zip(self._pixels.numpy(), views, strict=True):
            for planes, image in zip(pair, (rgb, thermal), strict=True):
                crop = extract(image, view, size)
                # (size, size, 3) or (size, size) -> (3, size, size)
                planes[:] = crop.transpose(2, 0, 1) if crop.ndim == 3 else crop
        return normalize(self._pixels.to(self._device))


def normalize(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) in RGB order to float32 by ImageNet's mean and deviation."""
    mean, std = (
        torch.tensor(v, device=images.device)[:, None, None] * 255 for v in (IMAGE_MEAN, IMAGE_STD)
    )
    return (images.float() - mean) / std
