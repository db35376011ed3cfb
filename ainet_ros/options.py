# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Options out of files: dataclasses whose values somebody wrote by hand."""

from __future__ import annotations

import math
import reprlib
import types
import typing
from typing import Any, Literal, Union


def check(options: Any) -> None:
    """Raises ValueError naming the first field of a dataclass whose value is not of its type.

    An int is a float too, a bool is no int; a float must be finite, and the keys of a dict names.
    """
    for name, kind in typing.get_type_hints(type(options)).items():
        value = getattr(options, name)
        if not _fits(value, kind):
            choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
            expected = f"one of {', '.join(choices)}" if choices else _text(kind)
            raise ValueError(f"{name} must be {expected}, not {reprlib.repr(value)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        of_each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(of_each) and all(map(_fits, value, of_each))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(name, str) for name in value)
    if kind is float:
        return type(value) is int or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)


def _text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
