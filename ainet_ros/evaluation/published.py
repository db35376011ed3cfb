# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Figures of the AINet paper (AAAI 2025), for tables beside our own: PR, NPR and SR in percent.

The paper writes PR and SR for RGBT234's and VTUAV's MPR and MSR.
"""

from __future__ import annotations

from typing import NamedTuple

ADDED, MACS, FPS = "added parameters, M", "added MACs, G", "frames/s"


class Table(NamedTuple):
    """A table of the paper, as far as one benchmark goes.

    Attributes:
        number: the paper's.
        title: what it is about.
        columns: of the values.
        rows: the values by the name of the tracker or the variant.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


_PR_SR, _ALL = ("PR", "SR"), ("PR", "NPR", "SR")
_RESULTS: dict[str, tuple[tuple[str, ...], dict[str, tuple[float, ...]]]] = {
    "rgbt210": (_PR_SR, {"AINet 256": (86.8, 64.1), "AINet 384": (87.5, 64.8)}),
    "rgbt234": (_PR_SR, {"AINet 256": (89.1, 66.8), "AINet 384": (89.2, 67.3)}),
    "lasher": (_ALL, {"AINet 256": (73.0, 69.0, 58.2), "AINet 384": (74.2, 70.1, 59.1)}),
    "vtuav": (_PR_SR, {"AINet 256": (87.1, 74.5), "AINet 384": (88.0, 75.3)}),
}
_LASHER_ONLY = [
    Table(
        2,
        "Ablation of the modules, 256 px",
        _ALL,
        {
            "baseline": (71.1, 67.5, 56.9),
            "DFM": (72.1, 68.3, 57.4),
            "OFM": (72.2, 68.0, 57.3),
            "DFM and OFM without the dynamic order": (72.5, 68.6, 57.8),
            "DFM and OFM": (73.0, 69.1, 58.2),
        },
    ),
    Table(
        3,
        "Number of interacting layers, 256 px",
        _ALL,
        {
            "1 layer": (71.4, 67.4, 56.9),
            "3 layers": (71.9, 68.1, 57.4),
            "6 layers": (72.1, 68.4, 57.8),
            "12 layers": (73.0, 69.1, 58.2),
        },
    ),
    Table(
        4,
        "Cost, frames a second on an RTX 4090",
        (*_PR_SR, ADDED, MACS, FPS),
        {
            "TBSI": (69.2, 55.6, 99.3, 38.5, 35.7),
            "GMMT": (70.7, 56.6, 962.2, 146.5, 22.4),
            "SDSTrack": (66.5, 53.1, 10.1, 13.1, 18.4),
            "AINet 256": (73.0, 58.2, 15.9, 5.2, 38.1),
        },
    ),
]


def tables(benchmark: str) -> list[Table]:
    """The paper's tables for one of `ainet_ros.vision.benchmarks.NAMES`; none for GTOT."""
    if benchmark not in _RESULTS:
        return []
    columns, rows = _RESULTS[benchmark]
    first = Table(1, "Results on the whole benchmark", columns, rows)
    return [first, *(_LASHER_ONLY if benchmark == "lasher" else [])]
