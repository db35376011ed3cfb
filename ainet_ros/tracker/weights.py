# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Weights files: safetensors with the network's configuration and a digest in the metadata.

Nothing in such a file is code. Tensors may be stored as float16 to halve the file; they are
used as float32.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ainet_ros.files import expanded, shipped, write_whole
from ainet_ros.network import AINet, AINetConfig, checkpoint

DEFAULT = "nano"
LOST_BELOW, FOUND_ABOVE = 0.4, 0.6
"""Scores at which a target is given up, and believed again."""
THRESHOLDS = {"nano": (0.3, 0.5), "small": (0.3, 0.5)}
"""The same for shipped weights whose scores are lower."""
FORMAT = "ainet_ros 1"


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of shipped weights by name ("nano"), or of a path as given.

    Raises FileNotFoundError saying where it looked, ValueError for a home that is none.
    """
    given = expanded(name_or_path)
    if given.is_file():
        return given
    if given.suffix == "" and given.parent == Path("."):
        folders = shipped("weights")
        for folder in folders:
            path = folder / f"{given.name}.safetensors"
            if path.is_file():
                return path
        looked = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(
            f"no weights called {given.name!r}: no such file, and none in {looked}"
        )
    raise FileNotFoundError(f"no weights file {given}")


def thresholds(name_or_path: str | os.PathLike[str]) -> tuple[float, float]:
    """The scores that suit weights: lost_below and found_above."""
    return THRESHOLDS.get(Path(name_or_path).stem, (LOST_BELOW, FOUND_ABOVE))


def load(name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> AINet:
    """The network of a weights file, in evaluation mode on `device`.

    Raises FileNotFoundError where there is no file, ValueError where it is not ours, damaged, has
    values that are no numbers, or tensors that do not fit its own configuration.
    """
    path = find(name_or_path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or is damaged ({error}); a checkpoint of the "
            "authors is turned into one by `ainet convert`"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} was not written by ainet_ros (format {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); use `ainet convert`"
        )
    if digest(state) != metadata.get("sha256"):
        raise ValueError(f"{path} is damaged: its tensors do not match their SHA-256")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{path}: {name} holds NaN or infinity, as where a training failed; take weights "
                "of an earlier step"
            )
    try:
        config = AINetConfig.from_dict(json.loads(metadata["config"]))
        with torch.device("meta"):  # no memory is taken before it is known that all fits
            network = AINet(config)
        checkpoint.load_state(
            network,
            {  # copies: the tensors are the file's pages
                name: tensor.to(
                    copy=True, dtype=torch.float32 if tensor.is_floating_point() else None
                )
                for name, tensor in state.items()
            },
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return network.eval().requires_grad_(False).to(device)


def save(
    network: AINet,
    path: str | os.PathLike[str],
    notes: Mapping[str, str] | None = None,
    half: bool = False,
) -> None:
    """Write `network` to `path`, whole or not at all.

    `notes` are further strings of metadata (origin, licence). `half` stores float16.
    """
    state = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        **(notes or {}),
        "format": FORMAT,
        "config": json.dumps(network.config.to_dict()),
        "sha256": digest(state),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not save_file, whose files nobody but their owner may read.
    write_whole(path, serialize(state, metadata))


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of the tensors, in the order of names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
