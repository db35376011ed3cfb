# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet export`: weights as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write weights as an ONNX file",
        description="Write the whole of a tracking step as ONNX, of operations that every runtime "
        "has, and compare it with the network in torch. `--weights FILE.onnx` tracks with it.",
    )
    parser.add_argument("weights", help="shipped weights by name, or a .safetensors file")
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import torch

    from ainet_ros.tracker import onnx, weights

    if args.output.suffix != onnx.SUFFIX:
        raise ValueError(f"{args.output} must end in {onnx.SUFFIX}")
    network = weights.load(args.weights)
    onnx.export(network, args.output)
    exported = onnx.OnnxNetwork(args.output, torch.device("cpu"))
    config = network.config
    generator = torch.Generator().manual_seed(0)
    template, search = (
        torch.randn(1, 2, 3, side, side, generator=generator)
        for side in (config.template_size, config.search_size)
    )
    box = torch.tensor([[0.5, 0.5, 0.4, 0.6]])
    with torch.inference_mode():
        wanted = network(template, search, box)
        got = exported.match(exported.embed_template(template, box), search)
    off = max(
        (getattr(got, name) - getattr(wanted, name)).abs().max().item()
        for name in ("score_map", "size_map", "offset_map")
    )
    if not off <= 1e-3:
        args.output.unlink()
        raise ValueError(
            f"{args.output} was not kept: ONNX Runtime's answers are {off:.2g} off torch's"
        )
    print(f"{args.output}: answers within {off:.1g} of torch's on a random pair")
    return 0
