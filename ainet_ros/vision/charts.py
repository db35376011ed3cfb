# SPDX-License-Identifier: Apache-2.0
"""Charts as picture files."""

from __future__ import annotations

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
        overlap: (M,) intersection over union with the true boxes, where they are known.
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
            seconds[: len(overlap)], overlap, color="tab:gray", lw=1, label="overlap with truth"
        )
    axes.plot(seconds, scores, color="tab:blue", lw=1.6, label="score")
    axes.set(xlabel="time (s)", ylabel="score", ylim=(0, 1.02))
    axes.set_title(title, loc="left")
    axes.set_xlim(0, max(float(seconds[-1]), 1 / rate))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize="small", frameon=False)
    figure.savefig(path)
