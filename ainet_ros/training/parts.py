# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The parts that training data are made of, as a configuration names them.

Each is a folder (or, of crops, a zip file) under the folder of training data:

    videos   several recordings, by `modality` and `labels`:
             both, files     sequences as a benchmark has them (LasHeR, RGBT234, RGBT210, GTOT,
                             VTUAV), or others of image folders or videos with the same files of
                             boxes, up to three levels down
             both, warm or   NAME/{visible,infrared}, folders of images or videos from a camera
             moving          at rest; persons are looked for, and tracked where they are plain
             rgb, thermal    NAME/STREAM, a folder of images or a video, with groundtruth*.txt, one
                             for each target; or NAME.mp4 with NAME.txt. A line is x,y,w,h
                             or nan, or frame,x,y,w,h,lost
    stills   {visible,infrared}/NAME: aligned pairs; of a folder that stands among the videos with
             warm or moving labels, its frames
    crops    .../CLASS/ID_{v,i}.jpg: tight crops of objects
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar


@dataclass(frozen=True)
class Videos:
    """A folder of recordings."""

    share: float = 1.0
    """How often a sample comes from it, among the videos."""
    modality: Literal["both", "rgb", "thermal"] = "both"
    labels: Literal["files", "warm", "moving"] = "files"
    """Boxes from files; or of persons that stand out warm, or that move in front of what is
    still."""
    every: int = 1
    """Every n-th of the frames (where files label them, of the labelled ones) is used."""
    validation: float | Sequence[str] = 0.1
    """Recordings held out for validation: about that share of them, or these by name."""
    benchmark: str | None = None
    """One of `benchmarks.NAMES`, where the tree does not tell."""
    cached: int = 0
    """Keep in the cache a copy of each frame, its longer side at most so many pixels, rather than
    read the image files for each sample anew. 0: only what is no image file is kept."""

    def __post_init__(self) -> None:
        if isinstance(self.validation, str):
            raise ValueError("validation is a share or a list of names")
        if isinstance(self.validation, Sequence):
            for name in self.validation:
                if not isinstance(name, str):  # YAML takes 0114_1551 for a number
                    raise ValueError(f"validation: {name!r} is no name: write it in quotes")
        if self.every < 1 or self.cached < 0 or self.share < 0:
            raise ValueError("every is 1 or more, cached and share are 0 or more")
        for name, known in (
            ("modality", ("both", "rgb", "thermal")),
            ("labels", ("files", "warm", "moving")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        if self.modality != "both" and self.labels != "files":
            raise ValueError(f"labels {self.labels!r} need both modalities")


@dataclass(frozen=True)
class Stills:
    """A folder of aligned pairs."""

    share: float = 1.0
    """How often a sample comes from it, among the stills."""
    warm: bool = True
    """Whether what stands out warm is a target; of equalised thermal pictures it is not."""
    validation: float = 0.1
    """Share of the pairs held out for validation."""


@dataclass(frozen=True)
class Parts:
    """All parts, by the path under the folder of training data."""

    videos: Mapping[str, Videos]
    stills: Mapping[str, Stills]
    crops: Sequence[str]

    @classmethod
    def of(
        cls,
        videos: Mapping[str, Any] | None = None,
        stills: Mapping[str, Any] | None = None,
        crops: Sequence[str] | None = None,
    ) -> Parts:
        """From a configuration: of a part, its options by name, or only its share.

        What is not given is none. Raises ValueError where that is all, and naming a part with a
        bad option.
        """
        if not (videos or stills or crops):
            raise ValueError("data: no videos, stills or crops are named: nothing to train on")
        return cls(
            {name: _options(Videos, name, value) for name, value in (videos or {}).items()},
            {name: _options(Stills, name, value) for name, value in (stills or {}).items()},
            _listed(crops or ()),
        )


def _listed(crops: Sequence[str]) -> tuple[str, ...]:
    if isinstance(crops, str):
        raise ValueError(f"crops: expected a list, [{crops}]")
    return tuple(crops)


_P = TypeVar("_P", Videos, Stills)


def _options(kind: type[_P], name: str, value: Any) -> _P:
    try:
        return kind(**value) if isinstance(value, Mapping) else kind(float(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind.__name__.lower()}: {name}: {error}") from None
