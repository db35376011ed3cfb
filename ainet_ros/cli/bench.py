# SPDX-License-Identifier: Apache-2.0
"""`ainet bench`: measurements of speed and memory."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and memory on this machine",
        description="Measure speed and memory on this machine. Figures of one run are medians of "
        "runs that take turns, and compare; those of different runs need not.",
    )
    benches = parser.add_subparsers(required=True, metavar="WHAT")
    scan = benches.add_parser(
        "scan", help="the backends of the selective scan against its step-by-step reference"
    )
    scan.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    scan.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    scan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    scan.set_defaults(run=run_scan)


def run_scan(args: argparse.Namespace) -> int:
    import json

    import torch

    from ainet_ros.bench import scan

    if args.repeats < 1:
        raise ValueError(f"--repeats must be 1 or more, got {args.repeats}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA GPU; use cpu")
    result = scan.measure(args.device, args.repeats)
    print(json.dumps(result, indent=2) if args.json else scan.table(result))
    return 0
