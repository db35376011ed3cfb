# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Writing of MP4 videos."""

from __future__ import annotations

from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ainet_ros.files import replacing


class VideoWriter:
    """Writes an MP4 video; a context manager, which closes the file and checks it.

    The file is there when it is whole: what was there before stays until then, and for good where
    no frame is written or the block fails.

    Args:
        path: of the file; its folder must be there.
        rate: frames a second; written to a thousandth, from 65 on to a tenth.

    Raises:
        OSError: at the end, when the file does not hold every frame (OpenCV does not report a
            full disk).
    """

    def __init__(self, path: str | PathLike[str], rate: float) -> None:
        self._path = Path(path)
        # MPEG-4 counts time in units of at least 1/65535 s, and OpenCV takes thousandths of the
        # rate as they come.
        self._rate = min(max(round(rate, 3 if rate < 65 else 1), 0.01), 6000.0)
        self._file = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._count = 0

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: npt.NDArray[Any]) -> None:
        """Adds a frame, uint8 (height, width, 3) in RGB order; all are of the first one's size.

        Raises:
            ValueError: the image is of another type or size.
            OSError: the file cannot be opened.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self._path}: a frame is uint8 (height, width, 3), not {image.dtype} "
                f"{image.shape}"
            )
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            self._writer = self._open(size)
        if size != self._size:
            raise ValueError(
                f"{self._path}: a frame of {size[0]}x{size[1]} pixels does not fit the video of "
                f"{self._size[0]}x{self._size[1]}"
            )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        with ExitStack() as file:
            partial = file.enter_context(replacing(self._path, self._path.suffix))
            # OpenCV does not say why it cannot write; the file system does.
            partial.open("wb").close()
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(partial), codec, self._rate, size)
            if not writer.isOpened():
                raise OSError(
                    f"{self._path}: OpenCV cannot write a video of {size[0]}x{size[1]} pixels; "
                    "MPEG-4 has 2 to 8191 a side"
                )

            def close(kind: type[BaseException] | None, *_: object) -> None:
                writer.release()
                if kind is None:
                    self._check(partial)

            file.push(close)
            self._size, self._file = size, file.pop_all()
        return writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, traceback)

    def _check(self, file: Path) -> None:
        video = cv2.VideoCapture(str(file))
        written = round(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if written < self._count:  # one more, where it was interrupted before that was counted
            raise OSError(
                f"{self._path}: {written} of {self._count} frames were written: is the disk full?"
            )
