# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Writing of MP4 videos."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


class VideoWriter:
    """Writes an MP4 video; a context manager, which closes the file and checks it.

    Args:
        path: of the file; its folder must be there.
        rate: frames a second; written to a thousandth, from 65 on to a tenth.

    Raises:
        OSError: when the file cannot be opened or, at the end, does not hold every frame (OpenCV
            does not report a full disk).
    """

    def __init__(self, path: str | PathLike[str], rate: float) -> None:
        self._path = Path(path)
        # MPEG-4 counts time in units of at least 1/65535 s, and OpenCV takes thousandths of the
        # rate as they come.
        self._rate = min(max(round(rate, 3 if rate < 65 else 1), 0.01), 6000.0)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0
        # OpenCV does not say why it cannot write; the file system does.
        self._path.open("wb").close()

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: npt.NDArray[Any]) -> None:
        """Adds a frame, uint8 (height, width, 3) in RGB order; all are of the first one's size.

        Raises:
            ValueError: the image is of another type or size.
            OSError: the file cannot be opened.
        """
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            self._size = size
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), codec, self._rate, size)
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: OpenCV cannot write this video")
        if image.dtype != np.uint8 or image.ndim != 3 or size != self._size:
            raise ValueError(
                f"{self._path}: a frame of {image.dtype} {image.shape} does not fit the video "
                f"of {self._size[0]}x{self._size[1]} pixels"
            )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None:
            self._check()

    def _check(self) -> None:
        video = cv2.VideoCapture(str(self._path))
        written = round(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if written != self._count:
            raise OSError(
                f"{self._path}: {written} of {self._count} frames were written: is the disk full?"
            )
