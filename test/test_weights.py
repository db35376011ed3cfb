# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Weights files, and the conversion of published checkpoints."""

import collections
import json
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from networks import tiny
from safetensors.torch import load_file, save_file

from ainet_ros.cli import main
from ainet_ros.files import replacing, write_whole
from ainet_ros.network import PRESETS
from ainet_ros.tracker import weights
from ainet_ros.training.published import published_layers, read_published, to_network


def test_weights_survive_the_file(tmp_path):
    network = tiny()
    weights.save(network, tmp_path / "net.safetensors", {"origin": "test"})
    loaded = weights.load(tmp_path / "net.safetensors")
    assert loaded.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


SHIPPED = sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_weights_are_of_their_preset_and_have_a_card(path):
    assert weights.load(path.stem).config == PRESETS[path.stem]
    assert path.with_suffix(".md").read_text().startswith(f"# {path.stem}\n")


def test_shipped_weights_are_two_and_small():
    assert weights.DEFAULT in [path.stem for path in SHIPPED]
    assert len(SHIPPED) == 2
    assert sum(path.stat().st_size for path in SHIPPED) < 80e6


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "weights"
    write_whole(path, b"old")

    def write_half():
        with replacing(path) as partial:
            partial.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("weights", b"old")]


def test_half_weights_are_used_as_float32(tmp_path):
    network = tiny()
    weights.save(network, tmp_path / "net.safetensors", half=True)
    loaded = weights.load(tmp_path / "net.safetensors")
    assert loaded.norm.weight.dtype == torch.float32
    assert torch.equal(loaded.head.score[0].weight, network.head.score[0].weight.half().float())


def rewrite(path, change_state=None, change_metadata=None):
    """The file again, with its tensors or metadata changed."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    (change_state or (lambda s: None))(state)
    (change_metadata or (lambda m: None))(metadata)
    save_file(state, path, metadata)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"

    def refuse(message, **changes):
        weights.save(tiny(), path)
        rewrite(path, **changes)
        with pytest.raises(ValueError, match=message):
            weights.load(path)

    refuse("do not match their SHA-256", change_state=lambda s: s["norm.bias"].add_(1))
    refuse("not written by ainet_ros", change_metadata=lambda m: m.pop("format"))

    def drop(state):
        state.pop("norm.bias")

    refuse("SHA-256", change_state=drop)

    def other_config(metadata):
        config = json.loads(metadata["config"])
        metadata["config"] = json.dumps({**config, "head_channels": 8})

    refuse("has shape", change_metadata=other_config)
    refuse("newer version", change_metadata=lambda m: m.update(config='{"surprise": 1}'))

    weights.save(tiny(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        weights.load(path)
    path.write_bytes(pickle.dumps({"net": 1}))
    with pytest.raises(ValueError, match="ainet convert"):
        weights.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weights.load("nowhere")


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("a pickle ran code",))


def published_checkpoint(path, state, **others):
    """A file as the authors' training writes it, with an object of a package nobody has."""
    module = types.ModuleType("authors_package")
    foreign = type("Stats", (), {"__module__": "authors_package", "__qualname__": "Stats"})
    module.Stats = foreign
    sys.modules["authors_package"] = module
    try:
        instance = foreign()
        instance.values = [1, 2]
        torch.save({"net": state, "stats": collections.OrderedDict(loss=instance), **others}, path)
    finally:
        del sys.modules["authors_package"]


def published_state(kind):
    """A state dict of the real names and shapes, with random values."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape):
        return torch.randn(*shape, generator=generator) * 0.02

    channels = 768
    state = {
        "backbone.cls_token": values(1, 1, channels),
        "backbone.pos_embed": values(1, 197, channels),
        "backbone.pos_embed_z": values(1, 64, channels),
        "backbone.pos_embed_x": values(1, 256, channels),
        "backbone.patch_embed.proj.weight": values(channels, 3, 16, 16),
        "backbone.patch_embed.proj.bias": values(channels),
        "backbone.norm.weight": values(channels),
        "backbone.norm.bias": values(channels),
    }
    for i in range(12):
        block = f"backbone.blocks.{i}."
        for name, shape in {
            "norm1.weight": (channels,),
            "norm1.bias": (channels,),
            "attn.qkv.weight": (3 * channels, channels),
            "attn.qkv.bias": (3 * channels,),
            "attn.proj.weight": (channels, channels),
            "attn.proj.bias": (channels,),
            "norm2.weight": (channels,),
            "norm2.bias": (channels,),
            "mlp.fc1.weight": (4 * channels, channels),
            "mlp.fc1.bias": (4 * channels,),
            "mlp.fc2.weight": (channels, 4 * channels),
            "mlp.fc2.bias": (channels,),
        }.items():
            state[block + name] = values(*shape)
    for branch, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):
        widths = [channels, 256, 128, 64, 32]
        for i in range(4):
            conv = f"box_head.conv{i + 1}_{branch}."
            state[conv + "0.weight"] = values(widths[i + 1], widths[i], 3, 3)
            for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
                state[conv + name] = values(widths[i + 1]).abs()
            state[conv + "1.num_batches_tracked"] = torch.tensor(1)
        state[f"box_head.conv5_{branch}.weight"] = values(outputs, 32, 1, 1)
        state[f"box_head.conv5_{branch}.bias"] = values(outputs)
    if kind == "droptrack":
        state["backbone.temporal_pos_embed_z"] = values(1, 1, channels)
        state["backbone.temporal_pos_embed_x"] = values(1, 1, channels)
    return state


def test_convert_ostrack_makes_the_baseline_that_loads(tmp_path, capsys):
    state = published_state("ostrack")
    published_checkpoint(tmp_path / "ostrack.pth.tar", state)
    assert (
        main(["convert", str(tmp_path / "ostrack.pth.tar"), str(tmp_path / "o.safetensors")]) == 0
    )
    network = weights.load(tmp_path / "o.safetensors")
    assert (network.config.dfm, network.config.ofm) == ("none", "none")
    assert torch.equal(network.norm.weight, state["backbone.norm.weight"])
    assert torch.equal(
        network.backbone.blocks[3].fc1.weight, state["backbone.blocks.3.mlp.fc1.weight"]
    )
    assert "parameters" in capsys.readouterr().out


def test_droptrack_adds_its_temporal_embedding_after_resizing():
    state = published_state("droptrack")
    network = to_network(state, "base_384")
    from ainet_ros.network.checkpoint import resize_positions

    expected = (
        resize_positions(state["backbone.pos_embed_x"], 24)
        + state["backbone.temporal_pos_embed_x"]
    )
    assert torch.equal(network.backbone.pos_embed_x, expected)


def test_convert_names_what_is_missing_extra_or_misshapen(tmp_path, capsys):
    state = published_state("ostrack")
    del state["backbone.blocks.7.attn.qkv.bias"]
    state["box_head.conv5_ctr.weight"] = torch.zeros(3, 32, 1, 1)
    published_checkpoint(tmp_path / "bad.pth.tar", state)
    assert main(["convert", str(tmp_path / "bad.pth.tar"), str(tmp_path / "o.safetensors")]) == 2
    message = capsys.readouterr().err
    assert "missing backbone.blocks.7.attn.qkv.bias" in message
    assert "head.score.12.weight has shape (3, 32, 1, 1)" in message
    assert not (tmp_path / "o.safetensors").exists()


def test_a_pickle_that_tries_to_run_code_does_not(tmp_path):
    torch.save({"net": {"backbone.x": Bomb()}}, tmp_path / "bomb.pth.tar")
    with pytest.raises(ValueError, match="no tensor"):
        read_published(tmp_path / "bomb.pth.tar")


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    (tmp_path / "text.pth.tar").write_text("hello")
    with pytest.raises(ValueError, match="no checkpoint that torch can read"):
        read_published(tmp_path / "text.pth.tar")
    torch.save([1, 2], tmp_path / "list.pth.tar")
    with pytest.raises(ValueError, match="'net'"):
        read_published(tmp_path / "list.pth.tar")
    with pytest.raises(FileNotFoundError):
        read_published(tmp_path / "none.pth.tar")


def test_layers_by_number_are_those_of_table_3():
    assert published_layers(3) == (0, 6, 11)
    with pytest.raises(ValueError, match="5 DFMs"):
        published_layers(5)
