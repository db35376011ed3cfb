# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What happens to cameras: light, noise, blur, and one modality that fails.

Fusion pays only where the network has seen each modality fail while the other went on. A
severe degradation therefore falls on one modality of a sample, never on both; only thin smoke
may lie before the one that is left. Pictures are (S, S, 4) uint8, RGB and thermal, and are
changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
Rng = np.random.Generator
RGB, THERMAL = slice(0, 3), slice(3, 4)
LEAST_TEXTURE = 7.0
"""Standard deviation, in grey levels, around the target that a modality needs to show it."""


@dataclass(frozen=True)
class Severities:
    """How often a sample meets each severe degradation; at most one of them meets it."""

    smoke: float = 0.40
    night: float = 0.12
    dead: float = 0.09
    glare: float = 0.05
    crossover: float = 0.07
    coarse: float = 0.05

    def draw(self, rng: Rng) -> str | None:
        """The name of one, or None."""
        at = rng.random()
        for name, share in vars(self).items():
            at -= share
            if at < 0:
                return name
        return None


@dataclass(frozen=True)
class Degradation:
    """All that is done to the pictures of a sample."""

    severe: Severities = field(default_factory=Severities)
    smoke_on_rgb: float = 0.65
    smoke_on_template: float = 0.33
    inverted: float = 0.10
    """Share of samples whose thermal camera shows warm as dark."""
    grey: float = 0.05
    """Share of samples whose RGB camera shows grey."""
    light: float = 0.2
    """Largest change of brightness, as a share, common to both pictures and modalities."""
    brightness: float = 0.2
    """Largest further change of each picture."""
    contrast: float = 0.2
    """Largest change of contrast and of gamma, of each picture."""
    shared: bool = False
    """Whether both modalities of a picture change alike in brightness, contrast and gamma, and in
    what `soft` stands for; else each is drawn for itself."""
    misregistered: float = 0.3
    """Share of pictures whose thermal lies off its RGB, by up to 3 % of the target's side."""
    soft: float = 1.0
    """Factor on how often blur, noise, compression and coarse pixels, all mild, occur."""

    def apply(self, rng: Rng, template: Image, search: Image, region: Image) -> None:
        """Degrades a template and a search region (S, S, 4).

        `region` is the part of the search region around the target: a modality that already
        shows nothing there keeps the other one from being degraded.
        """
        outside = [image.view(np.uint32)[..., 0] == 0 for image in (template, search)]
        if rng.random() < self.inverted:
            for image in (template, search):
                image[..., 3] = 255 - image[..., 3]
        if rng.random() < self.grey:
            for image in (template, search):
                image[..., RGB] = cv2.cvtColor(
                    np.ascontiguousarray(image[..., RGB]), cv2.COLOR_RGB2GRAY
                )[..., None]
        severe = self.severe.draw(rng)
        if severe:
            self._fail(rng, severe, template, search, region)
        common = 1 + rng.uniform(-self.light, self.light)
        for image in (template, search):
            # A target spans a half of the template, a quarter of the search region.
            side = image.shape[0] / (2 if image is template else 4)
            if rng.random() < self.misregistered:
                _shift_thermal(rng, image, 0.03 * side)
            self._tone(rng, image, common)
            both = rng.integers(1 << 63) if self.shared else None
            for part in (RGB, THERMAL):
                _soft(np.random.default_rng(both) if self.shared else rng, image, part, self.soft)
        # What lies outside of the frame stays black: a crop is padded after the camera.
        for image, black in zip((template, search), outside, strict=True):
            image[black] = 0

    def _tone(self, rng: Rng, image: Image, common: float) -> None:
        """Changes brightness, contrast and gamma."""
        levels = np.arange(256, dtype=np.float32)
        tables = np.empty((256, 4), np.uint8)
        for part in (slice(0, 4),) if self.shared else (RGB, THERMAL):
            gain = common * (1 + rng.uniform(-self.brightness, self.brightness))
            contrast = 1 + rng.uniform(-self.contrast, self.contrast)
            curve = 255 * (levels / 255) ** np.exp(rng.uniform(-self.contrast, self.contrast))
            curve = ((curve - 128) * contrast + 128) * gain
            tables[:, part] = np.clip(curve, 0, 255).astype(np.uint8)[:, None]
        cv2.LUT(image, tables[None], dst=image)

    def _fail(self, rng: Rng, severe: str, template: Image, search: Image, region: Image) -> None:
        texture = textures(region)
        on_thermal = severe == "crossover" or (
            severe in ("smoke", "dead", "coarse") and rng.random() > self.smoke_on_rgb
        )
        if texture[0 if on_thermal else 1] < LEAST_TEXTURE:
            # The other modality shows nothing already.
            if severe == "smoke" and texture[1 if on_thermal else 0] >= LEAST_TEXTURE:
                smoke(rng, THIN)(rng, search, THERMAL if on_thermal else RGB)
                return
            if severe in ("night", "glare", "crossover"):
                return
            on_thermal = not on_thermal
            if texture[0 if on_thermal else 1] < LEAST_TEXTURE:
                return
        part = THERMAL if on_thermal else RGB
        on_template = (
            rng.random()
            < {
                "smoke": self.smoke_on_template,
                "night": 0.7,
                "dead": 0.5,
                "glare": 0.1,
                "crossover": 0.4,
                "coarse": 0.3,
            }[severe]
        )
        change = _SEVERE[severe](rng)
        for image in (search, template) if on_template else (search,):
            change(rng, image, part)
        if severe == "dead" and rng.random() < VEILED:
            smoke(rng, THIN)(rng, search, RGB if on_thermal else THERMAL)


def textures(region: Image) -> tuple[float, float]:
    """How much RGB and thermal show of a region: standard deviations in grey levels."""
    return float(region[..., RGB].mean(axis=2).std()), float(region[..., THERMAL].std())


Change = Callable[[Rng, Image, slice], None]


THIN = 0.15, 0.6
"""The opacity of smoke that leaves its camera the only one that shows something."""
VEILED = 0.35
"""Share of the pairs with a dead camera in which such smoke lies before the other one."""


def smoke(rng: Rng, opacities: tuple[float, float] = (0.3, 1.0)) -> Change:
    """A smooth veil of so much opacity: grey, at times white or black, in RGB; in thermal, of the
    mean warmth.
    """
    opacity = rng.uniform(*opacities)
    unevenness = rng.uniform(0.1, 0.9)
    color = rng.choice(
        [rng.uniform(90, 220), rng.uniform(200, 250), rng.uniform(0, 40)], p=[0.7, 0.12, 0.18]
    )

    def change(rng: Rng, image: Image, part: slice) -> None:
        size = image.shape[0]
        veil = _clouds(rng, size)
        alpha = np.clip(opacity * (1 + unevenness * 1.2 * (veil - 0.35)), 0, 1)[..., None]
        values = image[..., part].astype(np.float32)
        if part == THERMAL:
            tone = np.float32(values.mean() + rng.uniform(-10, 10))
        else:
            tone = (color + rng.uniform(-8, 8, 3)).astype(np.float32)
            tone = tone + (12 * (_clouds(rng, size) - 0.5))[..., None]
        _store(image, part, values + (tone - values) * alpha)

    return change


def night(rng: Rng) -> Change:
    """Little light: dark, noisy, coarse in grey levels, of a cast."""
    light = np.exp(rng.uniform(np.log(0.04), np.log(0.35)))
    gain = rng.uniform(1.0, 0.6 / light) if light < 0.5 else 1.0
    cast = rng.uniform(0.75, 1.25, 3)
    noise = rng.uniform(1.0, 5.0)

    def change(rng: Rng, image: Image, part: slice) -> None:
        values = np.rint(image[..., part] * light * cast + _noise(rng, image, part, noise / gain))
        _store(image, part, values * min(gain, 4.0))

    return change


def dead(rng: Rng) -> Change:
    """A camera that gives black, one level, or noise."""
    level = rng.choice([0.0, 0.0, rng.uniform(0, 255)])
    noise = rng.choice([0.0, rng.uniform(2, 40)])

    def change(rng: Rng, image: Image, part: slice) -> None:
        _store(image, part, level + _noise(rng, image, part, noise))

    return change


def glare(rng: Rng) -> Change:
    """A light that shines into the lens."""
    strength, spread = rng.uniform(120, 330), rng.uniform(0.12, 0.5)
    centre = rng.uniform(0.2, 0.8, 2)
    color = rng.uniform(0.75, 1.0, 3)

    def change(rng: Rng, image: Image, part: slice) -> None:
        at = np.linspace(0, 1, image.shape[0], dtype=np.float32)
        blob = np.exp(
            -(np.abs(at[:, None] - centre[0]) ** 1.5 + np.abs(at - centre[1]) ** 1.5) / spread**1.5
        )
        _store(image, part, image[..., part] + strength * blob[..., None] * color)

    return change


def crossover(rng: Rng) -> Change:
    """Target and surroundings are equally warm: little contrast is left, noise stays."""
    contrast, noise = rng.uniform(0.02, 0.25), rng.uniform(1.0, 6.0)

    def change(rng: Rng, image: Image, part: slice) -> None:
        values = image[..., part].astype(np.float32)
        mean = values.mean()
        _store(image, part, mean + (values - mean) * contrast + _noise(rng, image, part, noise))

    return change


def coarse(rng: Rng) -> Change:
    """Out of focus, or of far fewer pixels than the other camera."""
    factor = rng.uniform(0.08, 0.2)

    def change(rng: Rng, image: Image, part: slice) -> None:
        _resample(image, part, factor)

    return change


_SEVERE: dict[str, Callable[[Rng], Change]] = {
    "smoke": smoke,
    "night": night,
    "dead": dead,
    "glare": glare,
    "crossover": crossover,
    "coarse": coarse,
}


def _soft(rng: Rng, image: Image, part: slice, often: float) -> None:
    """The small faults that any picture may have."""
    thermal = part == THERMAL
    if rng.random() < 0.12 * often:
        values = np.ascontiguousarray(image[..., part])
        sigma = float(rng.uniform(0.4, 1.6) * image.shape[0] / 168)
        _store(image, part, cv2.GaussianBlur(values, (0, 0), max(0.3, sigma)))
    if rng.random() < 0.1 * often:
        length = int(rng.integers(3, 10)) * image.shape[0] // 168 | 1
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        half = length // 2
        dx, dy = np.cos(angle) * half, np.sin(angle) * half
        cv2.line(
            kernel, (round(half - dx), round(half - dy)), (round(half + dx), round(half + dy)), 1.0
        )
        values = np.ascontiguousarray(image[..., part])
        _store(image, part, cv2.filter2D(values, -1, kernel / kernel.sum()))
    if rng.random() < (0.25 if thermal else 0.08) * often:
        _resample(image, part, rng.uniform(0.3, 0.7))
    if rng.random() < 0.3 * often:
        noise = _noise(rng, image, part, rng.uniform(1, 9))
        if thermal and rng.random() < 0.4:
            # The columns of an uncooled sensor differ.
            columns = rng.standard_normal((image.shape[1], 1), dtype=np.float32)
            noise += np.float32(rng.uniform(1, 4)) * columns
        _store(image, part, image[..., part] + noise)
    if rng.random() < 0.12 * often:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))]
        values = np.ascontiguousarray(image[..., part])
        _, data = cv2.imencode(".jpg", values, quality)
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        _store(image, part, decoded)


def _shift_thermal(rng: Rng, image: Image, reach: float) -> None:
    matrix = np.array([[1, 0, rng.uniform(-reach, reach)], [0, 1, rng.uniform(-reach, reach)]])
    thermal = np.ascontiguousarray(image[..., 3])
    image[..., 3] = cv2.warpAffine(
        thermal, matrix, thermal.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )


def _resample(image: Image, part: slice, factor: float) -> None:
    """Fewer pixels, and back."""
    values = np.ascontiguousarray(image[..., part])
    small = max(4, round(values.shape[0] * factor))
    values = cv2.resize(values, (small, small), interpolation=cv2.INTER_AREA)
    _store(image, part, cv2.resize(values, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def _clouds(rng: Rng, size: int) -> NDArray[np.float32]:
    """Smooth noise of two scales, (size, size) in 0 to 1."""
    rough = max(8, size // 4)
    clouds = np.zeros((rough, rough), np.float32)
    for cells, weight in ((int(rng.integers(2, 5)), 0.7), (int(rng.integers(5, 10)), 0.3)):
        grid = rng.random((cells, cells), dtype=np.float32)
        clouds += weight * cv2.resize(grid, (rough, rough), interpolation=cv2.INTER_CUBIC)
    smooth = cv2.resize(np.clip(clouds, 0, 1), (size, size), interpolation=cv2.INTER_LINEAR)
    return smooth.astype(np.float32, copy=False)


def _noise(rng: Rng, image: Image, part: slice, deviation: float) -> NDArray[np.float32]:
    """Normal noise of the shape of a part."""
    shape = image[..., part].shape
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)


def _store(image: Image, part: slice, values: NDArray) -> None:
    image[..., part] = np.clip(values, 0, 255).reshape(image[..., part].shape)
