# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The picture that people look at: images, box, score and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ainet_ros.tracker import Track

Image = npt.NDArray[Any]
Color = tuple[int, int, int]

# RGB, told apart by people with a red-green deficiency too.
COLORS = {"TRACKING": (0, 230, 118), "LOST": (255, 145, 0), "NO TARGET": (200, 200, 200)}
STYLES = ("inset", "blend", "rgb", "thermal")
"""How the thermal image is shown: small at the bottom right; half of it and half of the RGB image;
not at all; or alone."""
TRUTH_COLOR = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHIFT = 4  # fractional bits of the drawn coordinates


def draw(
    rgb: Image,
    tracks: Mapping[int, Track],
    thermal: Image | None = None,
    *,
    style: str = "inset",
    truth: Sequence[float] | None = None,
    note: str = "",
) -> Image:
    """Draws tracks on their image.

    Args:
        rgb: uint8 (height, width, 3) in RGB order; not changed.
        tracks: the tracker's answers for this image by the targets' ids; empty where there is no
            target. A score of NaN is left out.
        thermal: uint8 (h, w) or (h, w, 3) of the same field of view; None for the RGB image alone.
        style: of `STYLES`.
        truth: x, y, w, h of a thin second box to compare with, in pixels.
        note: a line of text at the bottom left.

    Returns:
        A new uint8 (height, width, 3) image in RGB order.

    Raises:
        ValueError: `style` is none of `STYLES`.
    """
    if style not in STYLES:
        raise ValueError(f"style {style!r} is none of {', '.join(STYLES)}")
    canvas = _ground(rgb, thermal, style)
    height, width = canvas.shape[:2]
    unit = max(width, 520) / 640  # of lines and letters; small pictures stay legible
    boxes: list[tuple[Sequence[float], Color, int]] = []
    if truth is not None and np.isfinite(truth).all():
        boxes.append((truth, TRUTH_COLOR, max(1, round(unit))))
    boxes += [(t.box, COLORS[t.state.name], max(1, round(2 * unit))) for t in tracks.values()]
    for box, color, line in boxes:
        _box(canvas, box, color, line)
    if thermal is not None and style == "inset":
        inset = _inset(thermal, rgb, boxes)
        gap = round(8 * unit)
        high, wide = inset.shape[:2]
        if high + gap <= height and wide + gap <= width:
            canvas[height - gap - high : height - gap, width - gap - wide : width - gap] = inset
    if not tracks:
        _label(canvas, "NO TARGET", unit, COLORS["NO TARGET"])
    for row, (target_id, track) in enumerate(tracks.items()):
        name = f"{target_id}: " if len(tracks) > 1 else ""
        score = "" if np.isnan(track.score) else f" {track.score:.2f}"
        color = COLORS[track.state.name]
        _label(canvas, f"{name}{track.state.name}{score}", unit, color, row=row)
        if name:
            _tag(canvas, str(target_id), track.box, unit, color)
    if note:
        _label(canvas, note, unit, (255, 255, 255), row=-1)
    return canvas


def _ground(rgb: Image, thermal: Image | None, style: str) -> Image:
    """A new image of the size of the RGB one, to be drawn on."""
    if thermal is None or style in ("inset", "rgb"):
        return np.array(rgb, order="C")
    warm = _colored(cv2.resize(thermal, rgb.shape[1::-1], interpolation=cv2.INTER_AREA))
    if style == "thermal":
        return warm
    return cv2.addWeighted(np.ascontiguousarray(rgb), 0.5, warm, 0.5, 0)


def _colored(thermal: Image) -> Image:
    """(h, w, 3) in RGB order: what is grey, in the colours of a thermal camera."""
    if thermal.ndim == 3 and np.ptp(thermal, axis=2).max() <= 8:  # grey, stored as three channels
        thermal = thermal[..., 1]
    if thermal.ndim == 2:
        thermal = cv2.applyColorMap(thermal, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.ascontiguousarray(thermal)


def _inset(
    thermal: Image, rgb: Image, boxes: Sequence[tuple[Sequence[float], Color, int]]
) -> Image:
    """The thermal image a quarter as wide as the RGB image, with the boxes and a frame."""
    height, width = rgb.shape[:2]
    wide = max(width // 4, 1)
    high = max(round(wide * thermal.shape[0] / thermal.shape[1]), 1)
    inset = _colored(cv2.resize(thermal, (wide, high), interpolation=cv2.INTER_AREA))
    scale = np.array([wide / width, high / height] * 2)
    line = max(1, round(width / 640))
    for box, color, _ in boxes:
        _box(inset, np.asarray(box) * scale, color, line)
    cv2.rectangle(inset, (0, 0), (wide - 1, high - 1), (235, 235, 235), line)
    return inset


def _box(canvas: Image, box: Any, color: Color, line: int) -> None:
    """A rectangle at sub-pixel place with a dark rim, which shows on any ground."""
    x, y, w, h = (float(value) for value in box)
    limit = 1 << 14  # keeps far-off boxes within OpenCV's fixed-point coordinates
    corners = np.clip([x, y, x + w, y + h], -limit, limit) * (1 << _SHIFT)
    left, top, right, bottom = (round(float(value)) for value in corners)
    for tint, thickness in (((0, 0, 0), line + 2), (color, line)):
        cv2.rectangle(canvas, (left, top), (right, bottom), tint, thickness, cv2.LINE_AA, _SHIFT)


def _label(canvas: Image, text: str, unit: float, color: Color, *, row: int = 0) -> None:
    """A line of text on a dark plate at the left edge, so many rows from the top; -1: the last."""
    (_, high), below = cv2.getTextSize(text, _FONT, 0.5 * unit, max(1, round(unit)))
    step = high + below + 2 * round(5 * unit)
    _plate(canvas, text, (0, row * step if row >= 0 else canvas.shape[0] - step), unit, color)


def _tag(canvas: Image, text: str, box: Sequence[float], unit: float, color: Color) -> None:
    """A small plate in the top left corner of a box, or where the image cuts it off."""
    x, y = (
        int(np.clip(value, 0, size - 1))
        for value, size in zip(box[:2], canvas.shape[1::-1], strict=True)
    )
    _plate(canvas, text, (x, y), 0.7 * unit, color)


def _plate(canvas: Image, text: str, corner: tuple[int, int], unit: float, color: Color) -> None:
    """Text on a dark plate that has its top left corner there."""
    scale = 0.5 * unit
    line = max(1, round(unit))
    (wide, high), below = cv2.getTextSize(text, _FONT, scale, line)
    pad = round(5 * unit)
    left, top = corner
    opposite = (left + wide + 2 * pad, top + high + below + 2 * pad)
    cv2.rectangle(canvas, corner, opposite, (24, 24, 24), cv2.FILLED)
    place = (left + pad, top + pad + high)
    cv2.putText(canvas, text, place, _FONT, scale, color, line, cv2.LINE_AA)
