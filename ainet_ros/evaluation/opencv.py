# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""OpenCV's single-camera trackers, to compare with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ainet_ros.tracker import Box, State, Timing, Track

NAMES = ("csrt", "kcf", "nanotrack")
_CLASSES = {"csrt": "TrackerCSRT", "kcf": "TrackerKCF", "nanotrack": "TrackerNano"}


class OpenCVTracker:
    """A tracker of OpenCV on the RGB images it is given; `one_pass.run` chooses the stream.

    Args:
        name: one of `NAMES`.
        networks: NanoTrack's backbone and head, ONNX files.

    Raises:
        FileNotFoundError: such a file is not there.
        ValueError: the name is unknown, the OpenCV that is installed does not have the tracker,
            or the files are missing or not NanoTrack's.
    """

    device = torch.device("cpu")

    def __init__(self, name: str, networks: tuple[Path, Path] | None = None) -> None:
        if name not in NAMES:
            raise ValueError(f"tracker {name!r} is none of {', '.join(NAMES)}")
        self.name = name
        self._kind: Any = getattr(cv2, _CLASSES[name], None)
        if self._kind is None:
            raise ValueError(
                f"the OpenCV here, {cv2.__version__}, has no {name.upper()}: it is in the package "
                "opencv-contrib-python-headless, which takes the place of opencv-python-headless"
            )
        self._parameters: list[Any] = []
        if name == "nanotrack":
            self._parameters = [_nanotrack(networks)]
            self._create()  # reads the files
        self._tracker: Any = None
        self._box: Box = (0, 0, 0, 0)

    def init(self, rgb: npt.NDArray[np.uint8], thermal: npt.NDArray[np.uint8], box: Box) -> None:
        """Starts on a target; the box is rounded to whole pixels within the image.

        OpenCV refuses some targets, of a few pixels say: they are lost from the start.
        """
        height, width = rgb.shape[:2]
        corner = np.clip(np.round(box[:2]), 0, (width - 1, height - 1))
        opposite = np.clip(np.round(np.add(box[:2], box[2:])), corner + 1, (width, height))
        self._tracker = self._create()
        self._box = box
        try:
            self._tracker.init(_bgr(rgb), [int(v) for v in (*corner, *(opposite - corner))])
        except cv2.error:
            self._tracker = None

    def track(self, rgb: npt.NDArray[np.uint8], thermal: npt.NDArray[np.uint8]) -> Track:
        """The target in the next frame: where it was, and LOST, when the tracker gives it up."""
        started = time.perf_counter()
        found, box = self._tracker.update(_bgr(rgb)) if self._tracker else (False, self._box)
        if found:
            x, y, w, h = (float(value) for value in box)
            self._box = (x, y, w, h)
        timing = Timing(0.0, (time.perf_counter() - started) * 1e3, 0.0)
        state = State.TRACKING if found else State.LOST
        return Track(self._box, float(found), state, timing)

    def _create(self) -> Any:
        try:
            return self._kind.create(*self._parameters)
        except cv2.error as error:
            raise ValueError(f"OpenCV cannot make {self.name}: {error}") from None


def _nanotrack(networks: tuple[Path, Path] | None) -> Any:
    if networks is None:
        raise ValueError("NanoTrack needs the ONNX files of its backbone and its head")
    for path in networks:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    parameters = cv2.TrackerNano.Params()
    parameters.backbone, parameters.neckhead = map(str, networks)
    return parameters


def _bgr(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rgb[..., ::-1])
