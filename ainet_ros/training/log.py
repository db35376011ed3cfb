# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What a run says of itself: log.csv, curves.png, and TensorBoard's files where it is there."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

from ainet_ros.files import replacing, write_whole
from ainet_ros.vision import charts

COLUMNS = [
    "step",
    "samples",
    "seconds",
    "lr",
    "loss",
    "giou",
    "l1",
    "focal",
    "presence",
    "iou",
    "validation_iou",
    "score_present",
    "score_absent",
]

logger = logging.getLogger(__name__)


class Log:
    """The log in `folder` of a run that has come to `step`; what it said beyond is dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        rows = list(csv.DictReader(self.path.open(newline=""))) if self.path.exists() else []
        self._rows: list[Mapping[str, str]] = [row for row in rows if int(row["step"]) <= step]
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("no TensorBoard log: it comes with pip install tensorboard")
            self._board = None
        else:
            self._board = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, row: Mapping[str, str]) -> None:
        """Adds a row, whose names are COLUMNS."""
        self._rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(self.path, text.getvalue().encode())

        def column(name: str) -> list[float]:
            return [float(row[name]) for row in self._rows]

        with replacing(self.path.with_name("curves.png")) as partial:
            charts.training_plot(
                partial,
                [int(row["samples"]) for row in self._rows],
                {"training": column("iou"), "held out": column("validation_iou")},
                {"target there": column("score_present"), "absent": column("score_absent")},
            )
        if self._board is not None:
            for name in COLUMNS[2:]:
                self._board.add_scalar(name, float(row[name]), int(row["step"]))
            self._board.flush()
