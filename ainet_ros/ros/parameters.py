# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the nodes, described once.

A node's parameters are a frozen dataclass. From it come the ROS descriptors, the check of every
value, and `config/tracker.yaml` (print it with ``python -m ainet_ros.ros.parameters``).
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from ainet_ros.tracker import Tracker, weights
from ainet_ros.vision import registration, thermal

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node

TableType = TypeVar("TableType", bound="Table")
TRANSPORTS = ("raw", "compressed")
# The tracker's own defaults.
_LOST_BELOW = Tracker.__init__.__kwdefaults__["lost_below"]  # type: ignore[index]
_FOUND_ABOVE = Tracker.__init__.__kwdefaults__["found_above"]  # type: ignore[index]


@dataclass(frozen=True)
class Description:
    """What is known of a parameter beside its name, type and default."""

    text: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    """Fixed once the node runs."""

    def sentence(self) -> str:
        """Text, unit, range or choices, and whether it is read only, for people."""
        parts = [self.text]
        if self.choices:
            parts.append(f"One of {', '.join(self.choices)}.")
        if self.limits is not None:
            low, high = self.limits
            parts.append(f"{low:g} to {high:g}{' ' if self.unit else ''}{self.unit}.")
        elif self.unit:
            parts.append(f"In {self.unit}.")
        if self.read_only:
            parts.append("Read only while the node runs.")
        return " ".join(parts)


def _parameter(default: Any, text: str, **description: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"description": Description(text, **description)}
    )


@dataclass(frozen=True)
class Table:
    """Base of the tables. Raises ValueError, which names the parameter, for a wrong value."""

    def __post_init__(self) -> None:
        for name, description in describe(type(self)).items():
            value = getattr(self, name)
            if description.choices and value not in description.choices:
                raise ValueError(f"{name}: {value!r} is none of {', '.join(description.choices)}")
            if description.limits is not None:
                low, high = description.limits
                if not low <= value <= high:  # NaN too is refused
                    unit = f" {description.unit}" if description.unit else ""
                    raise ValueError(f"{name}: {value:g} is outside {low:g} to {high:g}{unit}")
        self.check()

    def check(self) -> None:
        """Raises ValueError where values do not fit together."""


@dataclass(frozen=True)
class TrackerParameters(Table):
    """Parameters of `tracker_node`."""

    weights: str = _parameter(
        weights.DEFAULT,
        "The network: the name of shipped weights, or the path of a .safetensors file.",
        read_only=True,
    )
    device: str = _parameter(
        "auto",
        "Where the network runs: auto (CUDA where there is a GPU, else the CPU), cpu, cuda or "
        "cuda:N.",
        read_only=True,
    )
    rgb_transport: str = _parameter(
        "raw",
        "raw subscribes rgb/image_raw, compressed subscribes rgb/image_raw/compressed.",
        choices=TRANSPORTS,
        read_only=True,
    )
    thermal_transport: str = _parameter(
        "raw",
        "The same for thermal/image_raw; 16-bit images compressed as PNG are understood.",
        choices=TRANSPORTS,
        read_only=True,
    )
    slop: float = _parameter(
        0.05, "Most that the stamps of a pair may differ.", unit="s", limits=(0.0, 10.0)
    )
    queue_size: int = _parameter(
        10, "Most images of a stream that wait for a partner.", limits=(1, 100)
    )
    thermal_offset: float = _parameter(
        0.0,
        "Added to the thermal stamps before pairing: negative where they are late.",
        unit="s",
        limits=(-10.0, 10.0),
    )
    tone_mode: str = _parameter(
        "percentile",
        "How 16-bit thermal images become 8 bit: between percentiles smoothed over time, between "
        "each image's minimum and maximum, or between fixed counts.",
        choices=thermal.MODES,
    )
    tone_percentile_low: float = _parameter(
        1.0, "Lower percentile of tone_mode percentile.", unit="%", limits=(0.0, 100.0)
    )
    tone_percentile_high: float = _parameter(
        99.0, "Upper percentile of tone_mode percentile.", unit="%", limits=(0.0, 100.0)
    )
    tone_smoothing: float = _parameter(
        0.9,
        "Weight of the past in the percentiles; 0 takes each image's own.",
        limits=(0.0, 0.999),
    )
    tone_fixed_low: float = _parameter(
        0.0, "Counts shown black by tone_mode fixed.", limits=(0.0, 65535.0)
    )
    tone_fixed_high: float = _parameter(
        65535.0, "Counts shown white by tone_mode fixed.", limits=(0.0, 65535.0)
    )
    registration: str = _parameter(
        "resize",
        "How thermal images are brought into the geometry of the RGB images: none (they are), "
        "resize (same view, any size), homography (by calibration_file).",
        choices=registration.MODES,
    )
    calibration_file: str = _parameter(
        "", "YAML file with the homography; used by registration homography only."
    )
    lost_below: float = _parameter(
        _LOST_BELOW,
        "A tracked target whose score falls below this is LOST.",
        limits=(0.0, 1.0),
    )
    found_above: float = _parameter(
        _FOUND_ABOVE,
        "A lost target whose score reaches this is TRACKING again; not below lost_below.",
        limits=(0.0, 1.0),
    )
    overlay_rate: float = _parameter(
        10.0, "Most overlay images; 0 draws every pair.", unit="Hz", limits=(0.0, 240.0)
    )
    overlay_quality: int = _parameter(
        80, "JPEG quality of the compressed overlay.", limits=(1, 100)
    )
    history_s: float = _parameter(
        2.0,
        "How far back a target may be initialised: so long the pairs are kept.",
        unit="s",
        limits=(0.0, 60.0),
    )
    history_mb: int = _parameter(
        128, "Most memory of the pairs kept.", unit="MB", limits=(1, 65536)
    )
    catch_up_s: float = _parameter(
        1.0,
        "Longest way from the image that a target was drawn on to the newest; pairs in between "
        "are skipped as that demands.",
        unit="s",
        limits=(0.05, 60.0),
    )

    def check(self) -> None:
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
        if self.lost_below > self.found_above:
            raise ValueError(
                f"lost_below ({self.lost_below:g}) must not be above "
                f"found_above ({self.found_above:g})"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device: {self.device!r} is none of auto, cpu, cuda, cuda:N")
        if self.registration == "homography" and not self.calibration_file:
            raise ValueError("registration: homography needs a calibration_file")


@dataclass(frozen=True)
class CameraParameters(Table):
    """Parameters of `replay_camera`."""

    source: str = _parameter(
        "",
        "Recording to publish: a folder or video pair, or a rosbag2 bag; empty: a generated "
        "scene.",
        read_only=True,
    )
    seed: int = _parameter(
        0, "Seed of the generated scene.", limits=(0, 2**31 - 1), read_only=True
    )
    rate: float = _parameter(
        0.0,
        "Pairs a second; 0: the recording's own rate.",
        unit="Hz",
        limits=(0.0, 1000.0),
        read_only=True,
    )
    thermal_offset: float = _parameter(
        0.0,
        "Thermal images come later than the RGB images by this, in stamp and in time.",
        unit="s",
        limits=(0.0, 10.0),
        read_only=True,
    )
    jitter: float = _parameter(
        0.0,
        "Standard deviation of the stamps and times around their rhythm.",
        unit="s",
        limits=(0.0, 1.0),
        read_only=True,
    )
    loop: bool = _parameter(False, "Begin again at the end.")
    paused: bool = _parameter(False, "Repeat the present pair, with new stamps.")
    rgb_transport: str = _parameter(
        "raw",
        "raw publishes rgb/image_raw, compressed publishes rgb/image_raw/compressed (JPEG).",
        choices=TRANSPORTS,
        read_only=True,
    )
    thermal_transport: str = _parameter(
        "raw", "The same for thermal/image_raw (PNG).", choices=TRANSPORTS, read_only=True
    )
    rgb_encoding: str = _parameter(
        "rgb8", "Of raw RGB images.", choices=("rgb8", "bgr8", "rgba8", "bgra8"), read_only=True
    )
    thermal_encoding: str = _parameter(
        "mono8",
        "Of thermal images; 8-bit recordings become 16 bit as counts of 10000 + 20 times the "
        "grey value. 16-bit recordings need a 16-bit encoding.",
        choices=("mono8", "mono16", "16UC1", "8UC3"),
        read_only=True,
    )
    rgb_frame: str = _parameter("rgb_optical_frame", "frame_id of RGB images.", read_only=True)
    thermal_frame: str = _parameter(
        "thermal_optical_frame", "frame_id of thermal images.", read_only=True
    )


def describe(table: type[Table]) -> dict[str, Description]:
    """The parameters of a table by name, in its order."""
    return {field.name: field.metadata["description"] for field in dataclasses.fields(table)}


def declare(node: Node, table: type[TableType]) -> TableType:
    """Declare a table's parameters on a node and return their values.

    Raises ValueError naming the parameter, where a value given at the start is wrong.
    """
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    values = {}
    for field in dataclasses.fields(table):
        try:
            values[field.name] = node.declare_parameter(
                field.name, field.default, _descriptor(field.metadata["description"], field)
            ).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ValueError(f"parameter {field.name}: {error}") from error
    return table(**values)


def _descriptor(description: Description, field: dataclasses.Field[Any]) -> ParameterDescriptor:
    # Imported here: the tables serve without ROS too.
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        description=description.sentence(), read_only=description.read_only
    )
    if description.choices:
        descriptor.additional_constraints = f"one of {', '.join(description.choices)}"
    if description.limits is not None:
        low, high = description.limits
        if isinstance(field.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
    return descriptor


def to_yaml(table: type[Table]) -> str:
    """A ROS parameter file with every parameter of a table at its default, described."""
    title = (table.__doc__ or "").splitlines()[0].replace("`", "")
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        f"# {title} The values are the defaults.",
        "/**:",
        "  ros__parameters:",
    ]
    for field in dataclasses.fields(table):
        sentence = field.metadata["description"].sentence()
        lines += textwrap.wrap(sentence, 96, initial_indent="    # ", subsequent_indent="    # ")
        entry = yaml.safe_dump({field.name: field.default}, width=1000).strip()
        lines.append(f"    {entry}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(to_yaml(TrackerParameters), end="")
