# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The report of an evaluation: Markdown, with pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ainet_ros.network import AINetConfig
from ainet_ros.network.cost import NetworkCost
from ainet_ros.vision import benchmarks, charts
from ainet_ros.vision.benchmarks import Benchmark

from . import failures, metrics, published, runner
from .metrics import RULES, Score

_FROM_PAPER = {"precision": "PR", "normalized_precision": "NPR", "auc": "SR"}


@dataclass(frozen=True)
class Judged:
    """A tracker's results, scored.

    Attributes:
        label: of the tracker.
        scores: by the names of the sequences.
        boxes: (N, 4) x, y, w, h in pixels, of every frame, by the same.
        fps: frames a second, by the same; None where it is not known.
        devices: that the tracker ran on.
    """

    label: str
    scores: dict[str, Score]
    boxes: dict[str, NDArray[np.float64]]
    fps: dict[str, float | None]
    devices: tuple[str, ...] = ()

    @property
    def mean(self) -> Score:
        return metrics.mean(list(self.scores.values()))

    @property
    def mean_fps(self) -> float | None:
        """Over the sequences whose speed is known."""
        known = [fps for fps in self.fps.values() if fps is not None]
        return sum(known) / len(known) if known else None

    def of(self, names: Iterable[str]) -> Score:
        """The mean over some of the sequences."""
        return metrics.mean([self.scores[name] for name in names])


def judge(benchmark: Benchmark, folder: Path, label: str) -> Judged:
    """Scores the results in a folder by the benchmark's rules.

    Raises:
        FileNotFoundError, ValueError: those of a sequence are not there or not complete.
    """
    results = {sequence.name: runner.read(folder, sequence) for sequence in benchmark.sequences}
    scores = {
        sequence.name: metrics.score(
            results[sequence.name].boxes,
            sequence.visible,
            sequence.infrared,
            frames=sequence.frames,
            rules=RULES[benchmark.name],
        )
        for sequence in benchmark.sequences
    }
    return Judged(
        label,
        scores,
        {name: result.boxes for name, result in results.items()},
        {name: result.fps for name, result in results.items()},
        tuple(sorted({result.device for result in results.values() if result.device})),
    )


def write(
    folder: Path,
    benchmark: Benchmark,
    judged: Sequence[Judged],
    network: tuple[AINetConfig, NetworkCost] | None = None,
) -> Path:
    """Writes report.md and its pictures.

    Args:
        folder: is made.
        benchmark: its sequences and problems.
        judged: the trackers, of the same sequences; the first is the one the report is about.
        network: of the first, where it is one of ours.

    Returns:
        The path of the Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subject = judged[0]
    frames = sum(len(sequence.source) for sequence in benchmark.sequences)
    whole = len(benchmark.sequences) == benchmarks.SIZES[benchmark.name]
    parts = [
        f"# {subject.label} by {benchmark.title}'s rules",
        f"Sequences: {len(benchmark.sequences)}{', the whole benchmark' if whole else ''}. "
        f"Frames: {frames}, scored {subject.mean.frames}. One pass from the first true box. "
        "Shares in percent.",
        _summary(judged),
        "![Success plot](success.png) ![Precision plot](precision.png)",
        *([_cost(network[1])] if network else []),
        *_attributes(benchmark, judged),
        *_published(benchmark, subject, network, whole),
        *_sequences(judged),
        *_failures(folder, benchmark, subject),
    ]
    if benchmark.problems:
        parts.append("## Skipped\n\n" + "\n".join(f"- {fault}" for fault in benchmark.problems))
    _draw(folder, benchmark, judged)
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def attribute_scores(benchmark: Benchmark, judged: Judged) -> dict[str, Score]:
    """The mean over the sequences with each attribute."""
    return {
        attribute: judged.of(s.name for s in benchmark.sequences if attribute in s.attributes)
        for attribute in benchmark.attributes
    }


def _summary(judged: Sequence[Judged]) -> str:
    names = list(judged[0].mean.published)
    return markdown_table(
        ["tracker", *names, "frames/s", "on"],
        [
            [one.label, *_percents(one.mean), _number(one.mean_fps), "; ".join(one.devices)]
            for one in judged
        ],
    )


def _cost(cost: NetworkCost) -> str:
    rows = {
        "whole network": cost.whole,
        "added by DFM and OFM": cost.added,
        "added, as a hook-based profiler sees it": cost.added_seen_by_hooks,
    }
    return "## Network\n\n" + markdown_table(
        ["", "parameters, M", "MACs of one pair, G"],
        [
            [name, f"{value.parameters / 1e6:.2f}", f"{value.macs / 1e9:.2f}"]
            for name, value in rows.items()
        ],
    )


def _attributes(benchmark: Benchmark, judged: Sequence[Judged]) -> list[str]:
    if not benchmark.attributes:
        return []
    by_tracker = [attribute_scores(benchmark, one) for one in judged]
    counts = {
        attribute: sum(attribute in sequence.attributes for sequence in benchmark.sequences)
        for attribute in benchmark.attributes
    }
    rows = [
        [attribute, str(count), *(cell for s in by_tracker for cell in _percents(s[attribute]))]
        for attribute, count in counts.items()
    ]
    return [
        "## Attributes",
        markdown_table(["attribute", "sequences", *_columns(judged)], rows),
        "![Attributes](attributes.png)",
    ]


def _published(
    benchmark: Benchmark,
    subject: Judged,
    network: tuple[AINetConfig, NetworkCost] | None,
    whole: bool,
) -> list[str]:
    tables = published.tables(benchmark.name)
    if not tables:
        return []
    if not whole:
        return [
            f"The paper's figures are of all {benchmarks.SIZES[benchmark.name]} sequences of "
            f"{benchmark.title}; this is another set, and stands beside none of them."
        ]
    names = subject.mean.rules.metrics.values()
    values = {_FROM_PAPER[name]: f"{100 * getattr(subject.mean, name):.1f}" for name in names}
    values[published.FPS] = _number(subject.mean_fps)
    parts = ["## Beside the paper"]
    for table in tables:
        own = {f"**{subject.label}, this run**": values}
        if network is not None:
            own = _own_rows(table.number, subject.label, values, *network)
        rows = [[f"{name} (published)", *map(str, row)] for name, row in table.rows.items()]
        rows += [
            [name, *(row.get(column, "") for column in table.columns)] for name, row in own.items()
        ]
        parts += [
            f"Table {table.number} of the paper. {table.title}:",
            markdown_table(["", *table.columns], rows),
        ]
    if subject.devices:
        parts.append(f"This run's frames a second are on {'; '.join(subject.devices)}.")
    return parts


def _own_rows(
    table: int, label: str, values: dict[str, str], config: AINetConfig, cost: NetworkCost
) -> dict[str, dict[str, str]]:
    """Our rows in a table of the paper, with what the table is about."""
    if table == 4:
        counts = {"": cost.added, ", as the paper counts": cost.added_seen_by_hooks}
        return {
            f"**{label}, this run{how}**": {
                **values,
                published.ADDED: f"{count.parameters / 1e6:.1f}",
                published.MACS: f"{count.macs / 1e9:.1f}",
            }
            for how, count in counts.items()
        }
    modules = [
        *(["DFM"] if config.dfm != "none" else []),
        *(["OFM"] if config.ofm != "none" else []),
    ]
    order = "" if config.ofm_dynamic else " without the dynamic order"
    what = {
        2: f": {' and '.join(modules) or 'baseline'}{order if config.ofm != 'none' else ''}",
        3: f": {len(config.interaction_layers)} of {config.depth} layers",
    }.get(table, "")
    return {f"**{label}, this run{what}**": values}


def _sequences(judged: Sequence[Judged]) -> list[str]:
    rows = [
        [name, str(score.frames), *(c for one in judged for c in _percents(one.scores[name]))]
        for name, score in judged[0].scores.items()
    ]
    return ["## Sequences", markdown_table(["sequence", "frames scored", *_columns(judged)], rows)]


def _failures(folder: Path, benchmark: Benchmark, subject: Judged) -> list[str]:
    lines = failures.draw(folder / "failures.png", benchmark.sequences, subject.boxes)
    if not lines:
        return []
    return [
        "## Worst frames",
        f"The first frame of a sequence in which {subject.label} overlaps the truth, the thin "
        "white box, least.",
        "![The worst frames](failures.png)",
        "\n".join(f"- {line}" for line in lines),
    ]


def _columns(judged: Sequence[Judged]) -> list[str]:
    """The metrics of each tracker; its label only where there are several."""
    return [
        f"{one.label} {name}" if len(judged) > 1 else name
        for one in judged
        for name in one.mean.published
    ]


def _percents(score: Score) -> list[str]:
    return [f"{100 * value:.1f}" for value in score.published.values()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right of the first column."""
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _draw(folder: Path, benchmark: Benchmark, judged: Sequence[Judged]) -> None:
    rules = RULES[benchmark.name]
    names = {value: name for name, value in rules.metrics.items()}
    means = {one.label: one.mean for one in judged}
    charts.threshold_plot(
        folder / "success.png",
        metrics.OVERLAP_THRESHOLDS,
        {f"{label} [{m.auc:.3f}]": m.success_curve for label, m in means.items()},
        xlabel="overlap threshold",
        ylabel=f"success rate ({names['auc']} [area])",
    )
    charts.threshold_plot(
        folder / "precision.png",
        rules.thresholds,
        {f"{label} [{m.precision:.3f}]": m.precision_curve for label, m in means.items()},
        xlabel="centre error threshold (pixels)",
        ylabel=f"precision rate ({names['precision']} [at {rules.read_at:g}])",
        read_at=rules.read_at,
    )
    if benchmark.attributes:
        scores = {one.label: attribute_scores(benchmark, one) for one in judged}
        charts.radar_plot(
            folder / "attributes.png",
            benchmark.attributes,
            {
                names[value]: {
                    label: [getattr(score, value) for score in by_attribute.values()]
                    for label, by_attribute in scores.items()
                }
                for value in ("precision", "auc")
            },
        )
