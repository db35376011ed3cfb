# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Where training starts from."""

from __future__ import annotations

from pathlib import Path

from ainet_ros.network import AINet, checkpoint
from ainet_ros.tracker import weights as weights_file

from .vit import read_vit


def warm_start(network: AINet, vit: Path | None = None, weights: str | None = None) -> None:
    """Copy into `network` a pretrained ViT, or what fits of another AINet's weights.

    Position embeddings of another resolution are resized. Of the weights, tensors of another
    shape or name are left out; so is the final norm of a network without OFM (OSTrack, DropTrack)
    where `network` has one, where it has another place. Raises ValueError where the ViT is
    not that of the network, or nothing of the weights fits.
    """
    own = network.state_dict()
    if vit is not None:
        backbone = read_vit(vit, network.config)
        rest = {name: value for name, value in own.items() if not name.startswith("backbone.")}
        try:
            checkpoint.load_state(network, {**rest, **backbone})
        except ValueError as error:
            raise ValueError(f"{vit}: {error}") from None
    if weights is not None:
        other = weights_file.load(weights)
        source = other.state_dict()
        config = network.config
        grids = {"z": config.template_size // config.patch_size, "x": config.map_size}
        for part, side in grids.items():
            name = f"backbone.pos_embed_{part}"
            source[name] = checkpoint.resize_positions(source[name], side)
        if other.ofm is None and network.ofm is not None:
            source = {k: v for k, v in source.items() if not k.startswith("norm.")}
        fitting = {k: v for k, v in source.items() if k in own and v.shape == own[k].shape}
        if not any(name.startswith("backbone.blocks.") for name in fitting):
            raise ValueError(f"the weights {weights} are of another backbone than this network's")
        network.load_state_dict(fitting, strict=False)
