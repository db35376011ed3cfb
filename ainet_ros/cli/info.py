# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet info`: the size and cost of a preset or a weights file."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "info",
        help="parameters and multiply-accumulates of a network",
        description="Print the geometry, the parameters and the multiply-accumulates (MACs) of "
        "one pair, whole and added by DFM and OFM.",
    )
    parser.add_argument("network", metavar="PRESET", help="a preset, or a weights file's path")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ainet_ros.network import PRESETS, create
    from ainet_ros.network.cost import Cost, count
    from ainet_ros.tracker import weights

    network = create(args.network) if args.network in PRESETS else weights.load(args.network)
    network.eval()
    config, cost = network.config, count(network)

    def row(name: str, value: Cost) -> None:
        print(f"{name:34}{value.parameters / 1e6:10.2f} M {value.macs / 1e9:10.2f} G")

    print(
        f"{args.network}: template {config.template_size} px, search {config.search_size} px, "
        f"{config.template_tokens} + {config.search_tokens} tokens a modality, "
        f"{config.depth} blocks of {config.channels} channels, "
        f"DFM after blocks {', '.join(map(str, config.interaction_layers))}"
    )
    print(f"{'':34}{'parameters':>12} {'MACs':>12}")
    row("whole network", cost.whole)
    for stage, value in cost.stages.items():
        row(f"  {stage}", value)
    row("added by DFM and OFM", cost.added)
    row("added, as a hook-based profiler", cost.added_seen_by_hooks)
    row("  the paper's Table 4 (256 px)", Cost(15_900_000, 5_200_000_000))
    return 0
