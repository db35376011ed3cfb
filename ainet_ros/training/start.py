# SPDX-License-Identifier: Apache-2.0
"""Where training starts from."""

from __future__ import annotations

from pathlib import Path

from ainet_ros.network import AINet
from ainet_ros.network.checkpoint import resize_positions
from ainet_ros.tracker import weights as weights_file

from .vit import read_vit


def warm_start(network: AINet, vit: Path | None = None, weights: str | None = None) -> None:
    """Copy into `network` a pretrained ViT, or what fits of another AINet's weights.

    Position embeddings of another resolution are resized. Tensors of another shape or name are
    left as they are. Raises ValueError where nothing of the weights fits.
    """
    if vit is not None:
        network.load_state_dict(read_vit(vit, network.config), strict=False)
    if weights is not None:
        source = weights_file.load(weights).state_dict()
        config = network.config
        grids = {"z": config.template_size // config.patch_size, "x": config.map_size}
        own = network.state_dict()
        for part, side in grids.items():
            name = f"backbone.pos_embed_{part}"
            source[name] = resize_positions(source[name], side)
        fitting = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape}
        if not any(name.startswith("backbone.blocks.") for name in fitting):
            raise ValueError(f"the weights {weights} are of another backbone than this network's")
        network.load_state_dict(fitting, strict=False)
