# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The page of an ablation: what each variant reached, and whether the paper's order holds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .report import markdown_table


@dataclass(frozen=True)
class Cost:
    """What one pair costs a network, the template too.

    Attributes:
        milliseconds: of time.
        mebibytes: by which the memory grows meanwhile.
        parameters, macs: of the whole network.
    """

    milliseconds: float
    mebibytes: float
    parameters: int
    macs: int


@dataclass(frozen=True)
class Variant:
    """A network that was trained several times, seeds apart.

    Attributes:
        name: of the row.
        success: of each run, the mean area under the success curve, 0..1.
        overlap: of each run, the mean IoU of single boxes on held-out samples.
        cost: of one pair.
        published: the success that the paper prints, percent.
    """

    name: str
    success: tuple[float, ...]
    overlap: tuple[float, ...]
    cost: Cost
    published: float | None = None


def page(tables: Mapping[str, Sequence[Variant]], intro: str) -> str:
    """Markdown: of each table its rows and what they say of the paper's order."""
    parts = ["# Ablations", intro]
    for title, variants in tables.items():
        rows = [
            [
                one.name,
                _spread(one.success),
                _spread(one.overlap),
                f"{one.cost.milliseconds:.1f}",
                f"{one.cost.mebibytes:.0f}",
                f"{one.cost.parameters / 1e6:.2f}",
                f"{one.cost.macs / 1e9:.2f}",
                "" if one.published is None else f"{one.published:.1f}",
            ]
            for one in variants
        ]
        head = ["", "success", "held-out overlap", "ms", "MiB", "parameters, M", "MACs, G"]
        parts += [f"## {title}", markdown_table([*head, "paper's SR, %"], rows)]
        parts.append("\n".join(_steps(variants)))
    return "\n\n".join(parts) + "\n"


def _steps(variants: Sequence[Variant]) -> list[str]:
    """What each row adds to the first one, run by run of the same seed."""
    first = variants[0]
    lines = []
    for one in variants[1:]:
        gains = [b - a for a, b in zip(first.overlap, one.overlap, strict=True)]
        successes = [b - a for a, b in zip(first.success, one.success, strict=True)]
        line = f"- {one.name} against {first.name}: overlap {_signed(gains)}, success "
        line += _signed(successes)
        if one.published is not None and first.published is not None:
            line += f" (paper: {(one.published - first.published) / 100:+.3f})"
        lines.append(line)
    ranked = [one for one in variants if one.published is not None]
    if len(ranked) > 2:
        names = [
            " < ".join(v.name for v in sorted(ranked, key=key))
            for key in (
                lambda v: v.published,
                lambda v: statistics.mean(v.overlap),
                lambda v: statistics.mean(v.success),
            )
        ]
        lines.append(f"- The paper's order: {names[0]}.")
        for measure, found in zip(("overlap", "success"), names[1:], strict=True):
            other = "the same" if found == names[0] else found
            lines.append(f"- Ours by {measure}: {other}.")
    return lines


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    text = f"{statistics.mean(values):.3f}"
    return text + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def _signed(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):+.3f}"
    return mean + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")
