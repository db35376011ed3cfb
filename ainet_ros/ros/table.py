# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""A node's parameters, described once, in a frozen dataclass.

From the dataclass come the ROS descriptors, the check of every value, a parameter file and a page
of the documentation.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node
    from rclpy.parameter import Parameter

TableType = TypeVar("TableType", bound="Table")

MEGABYTE = 1_000_000
"""What the unit MB of a parameter is, in bytes."""


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


def parameter(default: Any, text: str, **description: Any) -> Any:
    """A field of a table; `description` are the fields of `Description`."""
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


def updated(values: TableType, changes: Iterable[Parameter]) -> TableType:
    """The table with the changes of a set-parameters request; others' parameters are left out.

    Raises ValueError naming the parameter whose new value is wrong.
    """
    known = describe(type(values))
    return dataclasses.replace(
        values, **{change.name: change.value for change in changes if change.name in known}
    )


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


def to_yaml(tables: Mapping[str, type[Table]]) -> str:
    """A ROS parameter file with every parameter of the nodes' tables at its default, described.

    tables: by the names of the nodes, which may run in any namespace.
    """
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        "# SPDX-FileCopyrightText: the authors of ainet_ros",
        "# The values are the defaults.",
    ]
    for node, table in tables.items():
        lines += [f"/**/{node}:", "  ros__parameters:"]
        for field in dataclasses.fields(table):
            sentence = field.metadata["description"].sentence()
            lines += textwrap.wrap(
                sentence, 96, initial_indent="    # ", subsequent_indent="    # "
            )
            entry = yaml.safe_dump({field.name: field.default}, width=1000).strip()
            lines.append(f"    {entry}")
    return "\n".join(lines) + "\n"


def to_markdown(tables: Mapping[str, type[Table]]) -> str:
    """A page with every parameter of the nodes' tables, its default and its description.

    tables: by the names of the nodes.
    """
    parts = ["# Parameters\n"]
    for node, table in tables.items():
        parts += [f"## Node `{node}`\n", rows(table)]
    return "\n".join(parts)


def rows(table: type[Table]) -> str:
    """A table of Markdown: every parameter, its default and its description."""
    lines = ["| parameter | default | |", "|---|---|---|"]
    for field in dataclasses.fields(table):
        default = json.dumps(field.default)
        lines.append(
            f"| `{field.name}` | `{default}` | {field.metadata['description'].sentence()} |"
        )
    return "\n".join(lines) + "\n"
