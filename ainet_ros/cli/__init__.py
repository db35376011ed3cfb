# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The `ainet` command. Each subcommand is a module with `add_parser` and `run`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import (
    ablation,
    bench,
    calibrate,
    convert,
    doctor,
    evaluate,
    export,
    info,
    presence,
    scenes,
    track,
    train,
    view,
)

COMMANDS = (
    track,
    view,
    calibrate,
    evaluate,
    presence,
    train,
    ablation,
    convert,
    export,
    info,
    bench,
    scenes,
    doctor,
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `ainet` and of all its subcommands."""
    parser = argparse.ArgumentParser(
        prog="ainet", description="RGB-T tracking with AINet, without ROS."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ainet`. Returns 0, or 2 where the input is at fault (and says so on stderr)."""
    args = make_parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
