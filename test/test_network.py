# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The network against the published one, and its options against each other."""

import dataclasses
import json
import math
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import tiny

from ainet_ros.network import PRESETS, AINetConfig, checkpoint, create
from ainet_ros.network.cost import count
from ainet_ros.network.dfm import CrossAttentionFusion
from ainet_ros.network.int8 import Int8Linear, quantize
from ainet_ros.network.mamba import Mamba
from ainet_ros.network.model import BoxPrompt
from ainet_ros.network.ofm import straight_through_permutation


def pair(config, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, 2, 3, side, side, generator=generator)
        for side in (config.template_size, config.search_size)
    ]


BOX = torch.tensor([[0.5, 0.5, 0.4, 0.6]] * 2)


def golden_rng(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def golden_value(key, shape):
    """A tensor by the rule of shared/golden/README.md."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    n = golden_rng(key).standard_normal(shape, dtype=np.float32)
    if leaf == "running_mean":
        n = 0.1 * n
    elif leaf == "running_var":
        n = 1 + 0.2 * abs(n)
    elif "A_log" in leaf or leaf in ("A_b_log", "A_s_log"):
        n = np.log(np.arange(1, shape[1] + 1)) + 0.05 * n
    elif leaf in ("D", "D_b", "D_s"):
        n = 1 + 0.1 * n
    elif leaf == "bias" and "dt_proj" in key:
        n = -3.5 + 0.5 * n
    elif leaf in ("pos_embed", "pos_embed_x", "pos_embed_z", "cls_token"):
        n = 0.02 * n
    elif leaf == "weight" and len(shape) == 1:
        n = 1 + 0.1 * n
    elif leaf == "bias":
        n = 0.05 * n
    else:
        n = n / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(n, np.float32))


@pytest.fixture(scope="module")
def golden_state(shared):
    keys = json.loads((shared / "golden" / "ainet_256_keys.json").read_text())
    return {key: golden_value(key, tuple(shape)) for key, shape in keys.items()}


def test_golden_outputs_of_the_published_network(shared, golden_state):
    network = create("base_256").eval()
    checkpoint.load_state(network, checkpoint.from_published(golden_state))

    def images(kind, side):
        return torch.from_numpy(
            np.stack(
                [
                    golden_rng(f"{kind}_{name}").standard_normal(
                        (1, 3, side, side), dtype=np.float32
                    )
                    for name in ("rgb", "tir")
                ],
                axis=1,
            )
        )

    with torch.inference_mode():
        output = network(images("template", 128), images("search", 256), features=True)
    golden = np.load(shared / "golden" / "ainet_256.npz")
    ours = {
        "score_map": output.score_map,
        "size_map": output.size_map,
        "offset_map": output.offset_map,
        "pred_boxes": output.boxes[:, None],
        "ofm_output": output.ofm_output[:, :, :8],
        "fused_layers": output.fused_layers[:, 0, ::16, :4],
    }
    for name, value in ours.items():
        assert value.shape == golden[name].shape, name
        assert np.abs(value.numpy() - golden[name]).max() < 1e-3, name
    assert np.array_equal(output.order.numpy(), golden["order"])


def test_published_names_reject_a_stranger(golden_state):
    with pytest.raises(ValueError, match=r"backbone\.foreign"):
        checkpoint.from_published({**golden_state, "backbone.foreign": torch.zeros(1)})


def test_load_state_names_what_does_not_fit():
    network = tiny()
    state = dict(network.state_dict())
    state["extra.weight"] = torch.zeros(1)
    state["norm.weight"] = torch.zeros(3)
    del state["norm.bias"]
    with pytest.raises(ValueError, match="do not fit") as error:
        checkpoint.load_state(network, state)
    for part in ("missing norm.bias", "extra extra.weight", "norm.weight has shape (3,)"):
        assert part in str(error.value)


def test_positions_are_resized_bilinearly():
    # A plane stays a plane under bilinear resizing, but for the clamped border.
    grid = torch.arange(8.0)[:, None] + torch.arange(8.0)
    resized = checkpoint.resize_positions(grid.reshape(1, 64, 1), 16).reshape(16, 16)
    middle = resized[2:-2, 2:-2]
    assert torch.allclose(middle.diff(dim=0), torch.full((11, 12), 0.5), atol=1e-5)


@pytest.mark.parametrize("class_tokens", [0, 1])
def test_a_class_token_has_no_place_among_the_patches(class_tokens):
    config = tiny().config
    places = torch.full((1, 9, config.channels), 2.0)
    token = torch.full((1, class_tokens, config.channels), 50.0)
    ours = checkpoint.from_vit({"pos_embed": torch.cat([token, places], dim=1)}, config)
    for part, tokens in (("z", config.template_tokens), ("x", config.search_tokens)):
        embedded = ours[f"backbone.pos_embed_{part}"]
        assert torch.allclose(embedded, torch.full((1, tokens, config.channels), 2.0))


def test_counts_of_the_convolution():
    network = tiny(ofm="none")
    tokens = network.config.template_tokens + network.config.search_tokens
    wider = tiny(ofm="none", d_conv=network.config.d_conv + 1)
    grown = count(wider).stages["DFM"].macs - count(network).stages["DFM"].macs
    # One multiply-accumulate for each channel of each token and further tap.
    assert grown == len(network.config.interaction_layers) * tokens * network.config.channels


def test_counts_of_the_published_network():
    cost = count(create("base_256"))
    assert cost.stages["DFM"].parameters == 36_827_136
    assert cost.stages["OFM"].parameters == 6_632_332
    assert cost.added.macs == pytest.approx(26.2e9, rel=0.01)
    assert cost.whole.macs == pytest.approx(86e9, rel=0.01)
    assert cost.added_seen_by_hooks.parameters == pytest.approx(16.6e6, rel=0.01)
    assert cost.added_seen_by_hooks.macs == pytest.approx(5.46e9, rel=0.01)


def test_384_keeps_the_published_token_arithmetic():
    config = PRESETS["base_384"]
    assert config.template_tokens + config.search_tokens - config.ofm_skipped_tokens == 656


@pytest.mark.parametrize(
    "changes",
    [
        dict(dfm="none", ofm="none"),
        dict(ofm="none"),
        dict(dfm="none"),
        dict(ofm_dynamic=False),
        dict(dfm="attention", ofm="attention"),
        dict(interaction_layers=(3,)),
        dict(fusion_activation="tanh"),
        dict(ofm_tokens="all"),
        dict(box_prompt=False),
        dict(ofm_order="hard"),
    ],
    ids=str,
)
def test_every_option_gives_maps_of_the_right_shape_and_trains(changes):
    network = tiny(**changes)
    config = network.config
    side = config.map_size
    output = network.train()(*pair(config), BOX, features=True)
    assert output.score_map.shape == (2, 1, side, side)
    assert output.size_map.shape == output.offset_map.shape == (2, 2, side, side)
    assert output.boxes.shape == (2, 4)
    assert output.order.shape == (2, len(config.interaction_layers))
    tokens = config.template_tokens + config.search_tokens
    assert output.fused_layers.shape == (len(config.interaction_layers), 2, tokens, 48)
    (output.score_map.sum() + output.size_map.sum() + output.offset_map.sum()).backward()
    untrained = {n for n, p in network.named_parameters() if p.grad is None}
    expected = set()
    if config.ofm == "mamba" and config.ofm_order == "hard" and config.ofm_dynamic:
        # The published argsort passes no gradient to the order net.
        expected = {n for n, _ in network.named_parameters() if "order_net" in n}
    if config.ofm == "none" and config.dfm != "none":
        # Only the last fused feature goes to the head.
        expected = {
            n
            for n, _ in network.named_parameters()
            if n.startswith(("dfm.0.fusion", "dfm.1.fusion"))
        }
    assert untrained == expected


def test_batch_rows_do_not_mix():
    network = tiny()
    template, search = pair(network.config)
    with torch.inference_mode():
        both = network(template, search, BOX)
        one = network(template[1:], search[1:], BOX[1:])
    assert torch.allclose(both.score_map[1:], one.score_map, atol=1e-5)
    assert torch.allclose(both.boxes[1:], one.boxes, atol=1e-5)


def test_modalities_are_not_interchangeable_inputs():
    network = tiny()
    template, search = pair(network.config)
    with torch.inference_mode():
        straight = network(template, search, BOX)
        swapped = network(template.flip(1), search.flip(1), BOX)
    assert not torch.allclose(straight.score_map, swapped.score_map, atol=1e-5)


def test_box_prompt_uses_the_box():
    network = tiny(layer_scale=False)
    template, search = pair(network.config)
    with pytest.raises(ValueError, match="template_box"):
        network(template, search, BOX[:1])
    wide = torch.tensor([[0.5, 0.5, 0.6, 0.4]] * 2)
    with torch.inference_mode():
        assert not torch.equal(
            network(template, search, BOX).score_map, network(template, search, wide).score_map
        )


def test_box_prompt_tells_how_much_of_a_token_the_box_covers():
    prompt = BoxPrompt(dataclasses.replace(PRESETS["small"], template_size=112))
    with torch.no_grad():
        prompt.embed.weight.copy_(torch.eye(prompt.embed.out_features, 3))
        told = prompt(torch.tensor([[0.5, 0.375, 2.5 / prompt.side, 0.25]]))
    told = told.unflatten(1, (prompt.side, prompt.side))[0, ..., :3]  # (side, side, 3)
    middle = prompt.side // 2
    columns, rows = torch.zeros(prompt.side), torch.zeros(prompt.side)
    columns[middle - 2 : middle + 2] = torch.tensor([0.25, 1.0, 1.0, 0.25])
    rows[prompt.side // 4 : middle] = 1
    assert torch.allclose(told[..., 0], torch.outer(rows, columns), atol=1e-5)
    assert torch.allclose(told[middle - 1, middle, 1:].exp(), torch.tensor([5 / prompt.side, 0.5]))


def test_cross_attention_adds_what_the_other_modality_tells():
    fusion = CrossAttentionFusion(tiny().config).eval()
    rgb, thermal, other = torch.randn(3, 2, 6, 48).unbind()
    with torch.no_grad():
        fusion.attention.proj.bias.zero_()
        told = fusion(rgb, thermal)[0] - rgb
        assert not torch.allclose(told, fusion(rgb, other)[0] - rgb, atol=1e-3)
        swapped = fusion(thermal, rgb)[1] - rgb  # one attention for both
        assert torch.allclose(told, swapped, atol=1e-5)
        fusion.attention.proj.weight.mul_(2)
        assert torch.allclose(fusion(rgb, thermal)[0] - rgb, 2 * told, atol=1e-5)


def test_a_mamba_starts_with_steps_of_a_thousandth_to_a_tenth():
    torch.manual_seed(0)
    steps = F.softplus(Mamba(2000, 4, 3, 8).ssm.dt_proj.bias)
    assert 1e-3 <= steps.min() < 1.1e-3
    assert 9e-2 < steps.max() <= 1e-1
    assert steps.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.1)


def test_straight_through_order_is_hard_forward_and_reaches_the_order_net():
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, -1.0]], requires_grad=True)
    permutation = straight_through_permutation(logits)
    assert torch.equal(permutation.argmax(dim=2), logits.argsort(dim=1))
    assert torch.equal(permutation.detach().sort(dim=2).values[..., -1], torch.ones(2, 3))
    assert set(permutation.detach().unique().tolist()) == {0.0, 1.0}

    network = tiny().train()
    template, search = pair(network.config)
    trained = network(template, search, BOX)
    trained.score_map.sum().backward()
    gradient = network.ofm.mixer.order_net.logits.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_gradient_of_the_order_is_that_of_softsort():
    logits = torch.tensor([[0.0, math.log(3)]], requires_grad=True)
    straight_through_permutation(logits)[0, 0, 0].backward()
    # Its soft form there is 1 / (1 + exp(-|difference|)) = 3/4, and so falls by 3/16 a logit.
    assert torch.allclose(logits.grad, torch.tensor([[-3 / 16, 3 / 16]]), atol=1e-6)


def test_straight_through_and_hard_order_give_the_same_result():
    network = tiny()
    template, search = pair(network.config)
    with torch.no_grad():
        hard = network(template, search, BOX)
    soft = network(template, search, BOX)  # gradients on: the straight-through path
    assert torch.equal(hard.order, soft.order)
    assert torch.allclose(hard.score_map, soft.score_map, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(template_size=30), "template_size 30"),
        (dict(heads=5), "heads 5"),
        (dict(interaction_layers=(2, 1)), "must rise"),
        (dict(interaction_layers=(0, 4)), "0..3"),
        (dict(dfm="cat"), "dfm must be one of .* not 'cat'"),
        (dict(ofm_tokens="published"), "set ofm_tokens to search"),
        (dict(colour=1), "colour"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_unknown_preset_and_wrong_shape_are_named():
    with pytest.raises(ValueError, match="huge"):
        create("huge")
    network = tiny()
    with pytest.raises(ValueError, match=r"search must be \(batch, 2, 3, 56, 56\)"):
        network(torch.zeros(1, 2, 3, 28, 28), torch.zeros(1, 2, 3, 28, 28), BOX[:1])


def test_config_survives_json():
    for config in PRESETS.values():
        assert AINetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="surprise"):
        AINetConfig.from_dict({**dataclasses.asdict(PRESETS["small"]), "surprise": 1})


def test_int8_linear_is_near_the_linear_layer():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 96)
    x = torch.randn(2, 7, 64) * torch.logspace(-3, 3, 7)[:, None]  # tokens of any size
    x[0, 0] = 0
    exact, rounded = linear(x), Int8Linear(linear, torch.float32)(x)
    error = (rounded - exact).abs().amax(-1) / (exact - linear.bias).abs().amax(-1).clamp_min(1e-9)
    assert rounded.shape == exact.shape
    assert 0 < error.max() < 0.03
    assert torch.equal(rounded[0, 0], linear.bias)


@pytest.mark.parametrize("kind", ["mamba", "attention"])
def test_quantized_network_keeps_scans_order_and_head(kind):
    config = {"dfm": kind, "ofm": kind}
    exact, network = tiny(**config), tiny(**config)
    quantize(network, torch.float32)
    kinds = {name: type(module) for name, module in network.named_modules()}
    assert kinds["backbone.blocks.0.attn.qkv"] is kinds["backbone.blocks.3.fc2"] is Int8Linear
    assert kinds["dfm.0.fusion.linear"] is Int8Linear
    if kind == "mamba":
        assert kinds["ofm.mixer.out_proj"] is kinds["dfm.0.mamba.in_proj"] is Int8Linear
        assert kinds["dfm.0.mamba.ssm.x_proj"] is torch.nn.Linear
        assert Int8Linear not in {t for name, t in kinds.items() if "order_net" in name}
    images = torch.randn(1, 2, 3, 28, 28), torch.randn(1, 2, 3, 56, 56)
    with torch.inference_mode():
        wanted, got = exact(*images), network(*images)
    for found, map in zip(got[:3], wanted[:3], strict=True):
        torch.testing.assert_close(found, map, atol=0.03, rtol=0)
    assert not torch.equal(got.score_map, wanted.score_map)
