# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Charts as picture files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure


def score_plot(
    path: str | PathLike[str],
    scores: npt.NDArray[np.float64],
    rate: float,
    *,
    lost: npt.NDArray[np.bool_],
    overlap: npt.NDArray[np.float64] | None = None,
    title: str = "",
) -> None:
    """Draws a track's score over time.

    Args:
        path: of the picture; its suffix gives the kind (png, svg, pdf).
        scores: (N,) 0..1, NaN where there is none.
        rate: frames a second.
        lost: (N,) where the state is LOST; shaded.
        overlap: (M,) intersection over union with the true boxes, NaN where they are not known.
        title: of the chart.
    """
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    seconds = np.arange(len(scores)) / rate
    axes.fill_between(
        seconds, 0, 1, where=lost, color="tab:orange", alpha=0.3, lw=0, step="mid", label="lost"
    )
    if overlap is not None:
        axes.plot(
            seconds[: len(overlap)],
            overlap,
            color="tab:gray",
            lw=1,
            marker=".",  # no line goes through a point whose neighbours are not known
            ms=3,
            label="overlap with truth",
        )
    axes.plot(seconds, scores, color="tab:blue", lw=1.6, label="score")
    axes.set(xlabel="time (s)", ylabel="score", ylim=(0, 1.02))
    axes.set_title(title, loc="left")
    axes.set_xlim(0, max(float(seconds[-1]), 1 / rate))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize="small", frameon=False)
    figure.savefig(path)


def training_plot(
    path: str | PathLike[str],
    samples: Sequence[int],
    overlaps: Mapping[str, Sequence[float]],
    scores: Mapping[str, Sequence[float]],
) -> None:
    """Draws what a training run reached over the samples that it has seen, as PNG.

    Args:
        path: of the picture.
        samples: (N,).
        overlaps, scores: (N,) each, 0..1, by their labels; NaN where there is none.
    """
    figure = Figure(figsize=(8, 3), dpi=120, layout="constrained")
    for number, (ylabel, curves) in enumerate({"overlap": overlaps, "score": scores}.items(), 1):
        axes = figure.add_subplot(1, 2, number)
        for label, curve in curves.items():
            axes.plot(
                samples, curve, lw=1.6, marker="." if len(samples) < 3 else None, label=label
            )
        axes.set(xlabel="samples", ylabel=ylabel, ylim=(0, 1), xlim=(0, samples[-1]))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize="small", frameon=False)
    figure.savefig(path, format="png")


def line_plots(
    path: str | PathLike[str],
    panels: Mapping[tuple[str, str], Mapping[str, Sequence[tuple[float, float]]]],
) -> None:
    """Draws measurements, one panel beside the other.

    Args:
        path: of the picture; its suffix gives the kind (png, svg, pdf).
        panels: by the labels of their axes, x and y, the points (x, y) of each line by its label.
    """
    figure = Figure(figsize=(3.6 * len(panels), 3.2), dpi=120, layout="constrained")
    for number, ((xlabel, ylabel), lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), number)
        for label, points in lines.items():
            xs, ys = zip(*points, strict=True) if points else ((), ())
            axes.plot(xs, ys, marker="o", ms=4, lw=1.6, label=label if number == 1 else None)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=4, fontsize="small", frameon=False)
    figure.savefig(path)


def threshold_plot(
    path: str | PathLike[str],
    thresholds: npt.NDArray[np.float64],
    curves: Mapping[str, npt.NDArray[np.float64]],
    *,
    xlabel: str,
    ylabel: str,
    read_at: float | None = None,
) -> None:
    """Draws shares of frames over a threshold, a precision or success plot.

    Args:
        path: of the picture; its suffix gives the kind (png, svg, pdf).
        thresholds: (N,).
        curves: (N,) each, 0..1, by their labels.
        xlabel, ylabel: of the axes.
        read_at: the threshold that the published figure is read at; marked.
    """
    figure = Figure(figsize=(5, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for label, curve in curves.items():
        axes.plot(thresholds, curve, lw=1.8, label=label)
    if read_at is not None:
        axes.axvline(read_at, color="tab:gray", lw=1, ls=":")
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(thresholds[0], thresholds[-1]), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper left", fontsize="small", frameon=False)
    figure.savefig(path)


def radar_plot(
    path: str | PathLike[str],
    spokes: Sequence[str],
    charts: Mapping[str, Mapping[str, Sequence[float]]],
) -> None:
    """Draws radar charts side by side, all over the same spokes.

    Args:
        path: of the picture; its suffix gives the kind (png, svg, pdf).
        spokes: their names. The least and the greatest value of each stand with it.
        charts: by their titles the values on the spokes, 0..1, by their labels.
    """
    figure = Figure(figsize=(6 * len(charts), 6), dpi=120, layout="constrained")
    angles = np.linspace(0, 2 * np.pi, len(spokes), endpoint=False)
    for number, (title, rings) in enumerate(charts.items(), 1):
        axes = figure.add_subplot(1, len(charts), number, projection="polar")
        values = np.array(list(rings.values()))
        for label, ring in zip(rings, values, strict=True):
            # Closed: the first spoke once more.
            axes.plot([*angles, angles[0]], [*ring, ring[0]], marker="o", ms=4, lw=1.5,
                      label=label if number == 1 else None)  # fmt: skip
        names = [
            f"{name}\n({low:.3f}, {high:.3f})" if len(rings) > 1 else f"{name}\n{high:.3f}"
            for name, low, high in zip(spokes, values.min(0), values.max(0), strict=True)
        ]
        axes.set_xticks(angles, names, fontsize="small")
        axes.set_ylim(0, 1)
        axes.tick_params("y", labelsize="x-small", labelcolor="tab:gray")
        axes.set_title(title, pad=24)
        axes.grid(alpha=0.4)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)
