# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The parameters of the nodes of `tracker.launch.py`.

``python -m ainet_ros.ros.parameters yaml`` prints `config/tracker.yaml`, and ``markdown`` prints
`docs/parameters.md`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from ainet_ros.tracker import Box, weights
from ainet_ros.tracker.device import DEVICES, PRECISIONS
from ainet_ros.tracker.tracker import SEARCH_WINDOWS
from ainet_ros.tracker.weights import FOUND_ABOVE, LOST_BELOW
from ainet_ros.vision import overlay, registration, thermal

from .recording import TRANSPORTS, RecorderParameters
from .table import Table, parameter, to_markdown, to_yaml


@dataclass(frozen=True)
class TrackerParameters(Table):
    """Parameters of `tracker_node`."""

    weights: str = parameter(
        weights.DEFAULT,
        "The network: the name of shipped weights, or the path of a .safetensors file or of an "
        ".onnx file of `ainet export`.",
        read_only=True,
    )
    device: str = parameter(
        "auto",
        "Where the network runs: auto (CUDA where there is a GPU, else the CPU), cpu, cuda or "
        "cuda:N.",
        read_only=True,
    )
    precision: str = parameter(
        "auto",
        "Arithmetic of the network's matrix products; auto is bfloat16 on a CPU with instructions "
        "for it, else float32; int8 is quickest on a CPU, and translated as with compile.",
        choices=PRECISIONS,
        read_only=True,
    )
    compile: bool = parameter(
        False,
        "Translate the network by torch.compile when the node is configured: that takes a minute "
        "or two and on a CPU a C++ compiler, and saves a fifth of a frame's time.",
        read_only=True,
    )
    autostart: bool = parameter(
        True,
        "Configure and activate the node as it starts; else a lifecycle manager does.",
        read_only=True,
    )
    rgb_transport: str = parameter(
        "raw",
        "raw subscribes rgb/image_raw, compressed subscribes rgb/image_raw/compressed.",
        choices=TRANSPORTS,
        read_only=True,
    )
    thermal_transport: str = parameter(
        "raw",
        "The same for thermal/image_raw; 16-bit images compressed as PNG are understood.",
        choices=TRANSPORTS,
        read_only=True,
    )
    rgb_rectified: bool = parameter(
        False,
        "The RGB images are rectified ones (image_rect): `~/bearing` takes them as "
        "rgb/camera_info's P has them, without distortion.",
    )
    slop: float = parameter(
        0.05, "Most that the stamps of a pair may differ.", unit="s", limits=(0.0, 10.0)
    )
    queue_size: int = parameter(
        10, "Most images of a stream that wait for a partner.", limits=(1, 100)
    )
    thermal_offset: float = parameter(
        0.0,
        "Added to the thermal stamps before pairing: negative where they are late.",
        unit="s",
        limits=(-10.0, 10.0),
    )
    degraded_after: float = parameter(
        0.5,
        "Where a camera that delivered is silent for so long, tracking goes on with the other "
        "alone (DEGRADED) until it is back.",
        unit="s",
        limits=(0.1, 3600.0),
    )
    tone_mode: str = parameter(
        "percentile",
        "How 16-bit thermal images become 8 bit: between percentiles smoothed over time, between "
        "each image's minimum and maximum, or between fixed counts.",
        choices=thermal.MODES,
    )
    tone_percentile_low: float = parameter(
        1.0, "Lower percentile of tone_mode percentile.", unit="%", limits=(0.0, 100.0)
    )
    tone_percentile_high: float = parameter(
        99.0, "Upper percentile of tone_mode percentile.", unit="%", limits=(0.0, 100.0)
    )
    tone_smoothing: float = parameter(
        0.9,
        "Weight of the past in the percentiles; 0 takes each image's own.",
        limits=(0.0, 0.999),
    )
    tone_fixed_low: float = parameter(
        0.0, "Counts shown black by tone_mode fixed.", limits=(0.0, 65535.0)
    )
    tone_fixed_high: float = parameter(
        65535.0, "Counts shown white by tone_mode fixed.", limits=(0.0, 65535.0)
    )
    registration: str = parameter(
        "resize",
        "How thermal images are brought into the geometry of the RGB images: none (they are), "
        "resize (same view, any size), homography (by calibration_file).",
        choices=registration.MODES,
    )
    calibration_file: str = parameter(
        "", "YAML file with the homography; used by registration homography only."
    )
    init_box: str = parameter(
        "",
        "x,y,width,height in pixels of the RGB image: a target is started there in the first "
        "pair, and in the next one whenever this is set. Empty: none.",
    )
    max_targets: int = parameter(
        8, "Most targets at once; they go through the network as one batch.", limits=(1, 64)
    )
    lost_below: float = parameter(
        -1.0,
        "A tracked target whose score falls below this is LOST, as is one whose box jumps with "
        "less than nine tenths of its usual score; with 0 only one whose score is no number; -1 "
        "takes what suits the weights, where they have the name of shipped ones, and else "
        f"{LOST_BELOW:g}.",
        limits=(-1.0, 1.0),
    )
    found_above: float = parameter(
        -1.0,
        "A lost target whose score reaches this, and nine tenths of what it usually was, in four "
        "pairs in a row is TRACKING again; not below lost_below; -1 as there, and else "
        f"{FOUND_ABOVE:g}.",
        limits=(-1.0, 1.0),
    )
    search_windows: int = parameter(
        SEARCH_WINDOWS,
        "Windows that lost targets are looked for in, each pair: the last place and places around "
        "it, further away each time. More find them sooner, and take their time.",
        limits=(2, 64),
    )
    overlay_rate: float = parameter(
        10.0, "Most overlay images; 0 draws every pair.", unit="Hz", limits=(0.0, 240.0)
    )
    overlay_style: str = parameter(
        overlay.STYLES[0],
        "How the overlay shows the thermal image: inset (small, in the corner), blend (half of it "
        "and half of the RGB image, by which one sees whether they fit), rgb (not at all), "
        "thermal (alone).",
        choices=overlay.STYLES,
    )
    overlay_quality: int = parameter(
        80, "JPEG quality of the compressed overlay.", limits=(1, 100)
    )
    history_s: float = parameter(
        5.0,
        "How far back a target may be initialised: so long the pairs are kept.",
        unit="s",
        limits=(0.0, 60.0),
    )
    history_mb: int = parameter(
        128, "Most memory of the pairs kept.", unit="MB", limits=(1, 65536)
    )
    catch_up_s: float = parameter(
        1.0,
        "Longest way from the image that a target was drawn on to the newest; pairs in between "
        "are skipped as that demands.",
        unit="s",
        limits=(0.05, 60.0),
    )

    camera_timeout: float = parameter(
        2.0,
        "A camera without an image for so long is an ERROR in /diagnostics; one whose images are "
        "all the same for so long, a WARN.",
        unit="s",
        limits=(0.1, 600.0),
    )
    unpaired_warn: float = parameter(
        0.2,
        "Share of the slower camera's images without a partner that is a WARN in /diagnostics.",
        limits=(0.0, 1.0),
    )
    misfit_warn: float = parameter(
        0.04,
        "How far the thermal image may be off, as a share of the width, before that is a WARN in "
        "/diagnostics; looked at every 10 s where both images show edges.",
        limits=(0.0, 1.0),
    )
    latency_warn: float = parameter(
        500.0,
        "Time from the stamp to the answer, of 95 in 100, that is a WARN in /diagnostics.",
        unit="ms",
        limits=(1.0, 60000.0),
    )

    @property
    def thresholds(self) -> tuple[float, float]:
        """lost_below and found_above, those of the weights where they are not given."""
        given = (self.lost_below, self.found_above)
        own = weights.thresholds(self.weights)
        low, high = (
            mine if mine >= 0 else theirs for mine, theirs in zip(given, own, strict=True)
        )
        return low, high

    @property
    def box(self) -> Box | None:
        """init_box. Raises ValueError where it is no box."""
        if not self.init_box.strip():
            return None
        try:
            x, y, width, height = (float(part) for part in self.init_box.split(","))
        except ValueError:
            raise ValueError(
                f"init_box: {self.init_box!r} is not x,y,width,height in pixels"
            ) from None
        return x, y, width, height

    def check(self) -> None:
        _ = self.box
        if self.tone_percentile_low >= self.tone_percentile_high:
            raise ValueError(
                f"tone_percentile_low ({self.tone_percentile_low:g}) must be below "
                f"tone_percentile_high ({self.tone_percentile_high:g})"
            )
        if self.tone_fixed_low >= self.tone_fixed_high:
            raise ValueError(
                f"tone_fixed_low ({self.tone_fixed_low:g}) must be below "
                f"tone_fixed_high ({self.tone_fixed_high:g})"
            )
        for name in ("lost_below", "found_above"):
            if -1 < getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name):g} is not 0 to 1, nor -1")
        lost_below, found_above = self.thresholds
        if lost_below > found_above:
            raise ValueError(
                f"lost_below ({lost_below:g}) must not be above found_above ({found_above:g})"
            )
        if not DEVICES.fullmatch(self.device):
            raise ValueError(f"device: {self.device!r} is none of auto, cpu, cuda, cuda:N")
        if self.registration == "homography" and not self.calibration_file:
            raise ValueError("registration: homography needs a calibration_file")


@dataclass(frozen=True)
class ConsoleParameters(Table):
    """Parameters of `console`."""

    host: str = parameter(
        "127.0.0.1",
        "Address to listen on: 127.0.0.1 serves this host alone, 0.0.0.0 the network, to whoever "
        "has the token.",
        read_only=True,
    )
    port: int = parameter(
        8642, "Port to listen on; 0 takes a free one.", limits=(0, 65535), read_only=True
    )
    token: str = parameter(
        "",
        "What an operator on another host must know, 16 characters or more; empty: made anew at "
        "each start, and logged, where host is not this host.",
        read_only=True,
    )
    rate: float = parameter(
        10.0,
        "Most pictures of a view; the overlay's are also limited by overlay_rate of the tracker.",
        unit="Hz",
        limits=(0.1, 60.0),
        read_only=True,
    )
    quality: int = parameter(
        80, "JPEG quality of the cameras' pictures.", limits=(1, 100), read_only=True
    )

    def check(self) -> None:
        if self.token and (len(self.token) < 16 or not re.fullmatch(r"[\w.~-]+", self.token)):
            raise ValueError(
                "token: must be 16 or more letters, digits and signs of -._~, or empty"
            )


NODES: dict[str, type[Table]] = {
    "ainet": TrackerParameters,
    "console": ConsoleParameters,
    "recorder": RecorderParameters,
}
"""The tables by the names of the nodes."""

if __name__ == "__main__":
    forms = {"yaml": to_yaml, "markdown": to_markdown}
    print(forms[sys.argv[1]](NODES), end="")
