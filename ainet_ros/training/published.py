# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The authors' checkpoints: reading them without building what is pickled in them.

A published checkpoint is a `torch.save` dict with the weights under `net`, and under `stats` and
`settings` objects of the authors' package, which a plain load would import and build.
"""

from __future__ import annotations

import collections
import pickle
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ainet_ros.network import PRESETS, AINet, AINetConfig, checkpoint, create


class Placeholder:
    """What any foreign object becomes: it takes every argument and state, and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Pickled lists of a foreign class append their items."""

    def extend(self, items: Any) -> None:
        """Pickled lists of a foreign class append their items."""


_TENSOR_PARTS = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    **{
        ("torch", f"{kind}Storage"): getattr(torch, f"{kind}Storage")
        for kind in (
            "Float",
            "Half",
            "BFloat16",
            "Double",
            "Long",
            "Int",
            "Short",
            "Char",
            "Byte",
            "Bool",
        )
    },
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; every other class becomes a `Placeholder`."""

    def find_class(self, module: str, name: str) -> Any:
        return _TENSOR_PARTS.get((module, name), Placeholder)


# torch.load takes a module in place of pickle and uses these two names of it.
_restricted = types.ModuleType("restricted_pickle")
_restricted.Unpickler = RestrictedUnpickler  # type: ignore[attr-defined]
_restricted.load = lambda file, **options: RestrictedUnpickler(  # type: ignore[attr-defined]
    file, **options
).load()


def read_published(path: Path) -> dict[str, Tensor]:
    """The state dict of a published checkpoint; nothing in the file is executed.

    Raises FileNotFoundError, or ValueError where the file holds no weights under `net`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        content = torch.load(
            path, map_location="cpu", pickle_module=_restricted, weights_only=False
        )
    except (
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
    ) as error:
        raise ValueError(f"{path} is no checkpoint that torch can read: {error}") from None
    state = content.get("net") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds no weights under 'net': not a published checkpoint")
    bad = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if bad:
        raise ValueError(f"{path}: under 'net', {bad[0]} is no tensor")
    return state


def to_network(state: dict[str, Tensor], preset: str | None = None) -> AINet:
    """The network that a published state dict belongs to, with its weights.

    `preset` resizes the position embeddings to another geometry; without it the geometry is the
    checkpoint's own. Raises ValueError naming a tensor that is missing, extra or misshapen.
    """
    ours = checkpoint.from_published(state)
    if preset is None:
        sides = {
            config.search_tokens: name
            for name, config in PRESETS.items()
            if name.startswith("base_")
        }
        tokens = ours["backbone.pos_embed_x"].shape[1]
        if tokens not in sides:
            raise ValueError(
                f"backbone.pos_embed_x has {tokens} tokens, of no preset: name the preset to "
                "resize it to"
            )
        preset = sides[tokens]
    config: AINetConfig = PRESETS[preset]
    grids = (config.template_size // config.patch_size, config.map_size)
    fused = sorted({int(name.split(".")[1]) for name in ours if name.startswith("dfm.")})
    changes: dict[str, Any] = {}
    if "ofm.norm1.weight" not in ours:
        changes["ofm"] = "none"
    if not fused:
        changes.update(dfm="none", interaction_layers=(config.depth - 1,))
    elif len(fused) != config.depth:
        changes["interaction_layers"] = published_layers(len(fused))
    network = create(preset, **changes)
    checkpoint.load_state(network, checkpoint.from_published(state, grids))
    return network


def published_layers(count: int) -> tuple[int, ...]:
    """The interaction layers of Table 3 by their number, which a checkpoint does not tell."""
    choices = {1: (11,), 3: (0, 6, 11), 6: (0, 2, 4, 6, 8, 11)}
    if count not in choices:
        raise ValueError(f"{count} DFMs in the checkpoint: the paper has 1, 3, 6 or 12")
    return choices[count]
