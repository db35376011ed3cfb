# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The RGB-T benchmarks on disk: GTOT, RGBT210, RGBT234, LasHeR and VTUAV.

A sequence is a folder as `sources.open_source` reads it; `truth` has the files of boxes. The
attributes stand beside the sequences or a level above:

    AttriSeqsTxt/SEQUENCE.txt                  LasHeR: 0 or 1 for each attribute, in one line
    attr_txt/ATTRIBUTE.txt, SequencesName.txt  the others: 0 or 1 a line, a line a sequence
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from . import truth as truth_files
from .boxes import Boxes, masked
from .sources import STREAMS, FolderSource, Source, has_stream, is_sequence, open_source
from .truth import Truth

NAMES = ("gtot", "rgbt210", "rgbt234", "lasher", "vtuav")
TITLES = dict(zip(NAMES, ("GTOT", "RGBT210", "RGBT234", "LasHeR", "VTUAV"), strict=True))
SIZES = dict(zip(NAMES, (50, 210, 234, 245, 176), strict=True))
"""Sequences in the whole benchmark; LasHeR's test set, VTUAV's short-term test set."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gtot": (),
    "rgbt210": tuple("BC CM DEF FM HO LI LR MB NO TC PO SC".split()),
    "rgbt234": tuple("BC CM DEF FM HO LI LR MB NO TC PO SC".split()),
    "lasher": tuple("NO PO TO HO MB LI HI AIV LR DEF BC SA CM TC FL OV FM SV ARC".split()),
    "vtuav": tuple("BC CM DEF FM OV EI LR TB TVS PO SV TC FO".split()),
}
"""Of each benchmark, in the order of its own tools; GTOT's are not released as files."""
_BY_SEQUENCE, _BY_ATTRIBUTE, _ORDER = "AttriSeqsTxt", "attr_txt", "SequencesName"
_DEPTH = 3  # of folders between the root and the sequences, as archives unpack


@dataclass(frozen=True)
class Sequence:
    """A recording with its truth.

    Attributes:
        source: the frames; a `FolderSource` where they are images, which are then read in any
            order. Its `boxes` are the RGB image's.
        visible, infrared: (M, 4) float64 x, y, w, h, the truths that the benchmark scores by, as
            they stand in the files, invalid ones too.
        frames: (M,) int64, the frames they are of.
        start: x, y, w, h of the first frame, which a tracker is given.
        attributes: that the benchmark says it has.
    """

    source: Source
    visible: Boxes
    infrared: Boxes
    frames: np.ndarray
    start: tuple[float, float, float, float]
    attributes: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.source.name


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, or a part of one.

    Attributes:
        name: one of `NAMES`.
        sequences: in order of their names.
        attributes: those that any sequence has, in the benchmark's order, then any others.
        problems: what was skipped and why, each with its path: to be shown to the user.
    """

    name: str
    sequences: list[Sequence]
    attributes: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name as its authors write it."""
        return TITLES[self.name]


def open_benchmark(
    root: str | PathLike[str], name: str | None = None, *, strict: bool = False
) -> Benchmark:
    """Opens a benchmark, a part of one, or one sequence.

    Args:
        root: a sequence, or a folder with sequences in it, up to three levels down.
        name: one of `NAMES`; by default it is found from the tree. GTOT and VTUAV are known by
            their truth files. In the layout that the others share, images ``v*`` or equal truths
            of both modalities mean LasHeR, truths that differ RGBT234, and JPEG images of other
            names with `truth.INIT` alone RGBT210.
        strict: refuse what is at fault instead of skipping it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no sequence is there, or the name is unknown or not that of the tree. With
            `strict`, anything that would go into `problems`.
    """
    root = Path(root)
    if name is not None and name not in NAMES:
        raise ValueError(f"benchmark {name!r} is none of {', '.join(NAMES)}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    problems: list[str] = []

    def report(problem: str) -> None:
        if strict:
            raise ValueError(problem)
        problems.append(problem)

    opened: dict[str, tuple[Source, Truth]] = {}
    for path, fault in _find(root):
        try:
            if fault:
                raise ValueError(f"{path}: {fault}")
            source, truth = _open(path)
            if source.name in opened:
                raise ValueError(f"{path}: there is another sequence of this name")
            opened[source.name] = source, truth
        except (ValueError, OSError) as error:
            report(str(error))
    if not opened:
        raise ValueError(
            "; ".join(problems)
            or f"{root}: no sequence here or below; a sequence is a folder with visible/, "
            "infrared/ and init.txt"
        )
    name = name or _recognize(root, opened.values())
    for key, (_, truth) in list(opened.items()):
        if fault := _misfit(name, truth):
            report(f"{root}: {key} {fault}: not {TITLES[name]}")
            del opened[key]
    if not opened:
        raise ValueError("; ".join(problems))
    attributes = {key: frozenset[str]() for key in opened}
    try:
        attributes |= _attributes(name, root, list(opened))
    except (ValueError, OSError) as error:
        report(str(error))
    known = sorted(frozenset[str]().union(*attributes.values()))
    order = {attribute: place for place, attribute in enumerate(ATTRIBUTES[name])}
    return Benchmark(
        name,
        [
            _sequence(name, source, truth, attributes[key])
            for key, (source, truth) in sorted(opened.items())
        ],
        tuple(sorted(known, key=lambda attribute: order.get(attribute, len(order)))),
        problems,
    )


def _find(folder: Path, depth: int = _DEPTH) -> Iterator[tuple[Path, str]]:
    """The sequences of a folder, and what is none, with what is wrong with it."""
    if is_sequence(folder):
        yield folder, ""
        return
    streams = [name for names in STREAMS for name in names if has_stream(folder, name)]
    truths = [name for name in truth_files.FILES if (folder / name).is_file()]
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    if streams or truths:
        yield folder, _what_is_missing(streams, truths)
    elif depth and inner:
        for path in inner:
            if path.name not in (_BY_SEQUENCE, _BY_ATTRIBUTE):
                yield from _find(path, depth - 1)
    elif depth < _DEPTH:
        yield folder, "no sequence with true boxes"


def _what_is_missing(streams: list[str], truths: list[str]) -> str:
    for names in STREAMS:
        missing = [name for name in names if name not in streams]
        if len(missing) == 1:
            return f"no {missing[0]} beside {next(n for n in names if n in streams)}"
    if not truths:
        return f"no true boxes beside {streams[0]}: expected {', '.join(truth_files.FILES)}"
    return f"no recording beside {truths[0]}: expected visible and infrared, v and i, rgb and ir"


def _open(path: Path) -> tuple[Source, Truth]:
    source = open_source(path)
    truth = source.truth
    assert truth is not None  # `_find` has seen the file
    if np.isnan(masked(truth.start[None])).any():
        values = ",".join(f"{value:g}" for value in truth.start)
        raise ValueError(f"{path}: the first true box, {values}, is none to start from")
    if len(truth.visible) < 2:
        raise ValueError(
            f"{path}: true boxes of the first frame and of at least one more are needed"
        )
    return source, truth


def _recognize(root: Path, opened: Iterable[tuple[Source, Truth]]) -> str:
    kinds = Counter(_kind(source, truth) for source, truth in opened)
    if len(kinds) > 1 and set(kinds) == {"rgbt234", "lasher"}:
        return "rgbt234"  # in some of its sequences the truths are equal
    if len(kinds) > 1:
        found = ", ".join(f"{count} of {TITLES[kind]}" for kind, count in kinds.items())
        raise ValueError(f"{root}: sequences of several benchmarks ({found}): name one of them")
    return next(iter(kinds))


def _kind(source: Source, truth: Truth) -> str:
    if truth.files == truth_files.CORNERS:
        return "gtot"
    if truth.files == truth_files.SPARSE:
        return "vtuav"
    if not isinstance(source, FolderSource) or source.files[0][0].name.startswith("v"):
        return "lasher"
    if not np.array_equal(truth.visible, truth.infrared, equal_nan=True):
        return "rgbt234"
    alone = truth.init is truth.visible and truth.init is truth.infrared
    return "rgbt210" if alone and source.files[0][0].suffix == ".jpg" else "lasher"


def _misfit(name: str, truth: Truth) -> str:
    """What a sequence lacks to be one of the benchmark's."""
    files = {"gtot": truth_files.CORNERS, "vtuav": truth_files.SPARSE}.get(name, truth_files.PLAIN)
    if truth.files != files:
        return f"has no {files[0]}"
    if name == "rgbt210" and truth.init is None:
        return f"has no {truth_files.INIT}"
    return ""


def _sequence(name: str, source: Source, truth: Truth, attributes: frozenset[str]) -> Sequence:
    visible, infrared, frames = truth.visible, truth.infrared, truth.frames
    if name == "rgbt210":
        assert truth.init is not None  # or it were a misfit
        visible = infrared = truth.init
        frames = np.arange(len(visible))
    x, y, w, h = truth.start.tolist()
    return Sequence(source, visible, infrared, frames, (x, y, w, h), attributes)


def _attributes(name: str, root: Path, sequences: list[str]) -> dict[str, frozenset[str]]:
    """The attributes of the sequences; empty where no file has any."""
    for folder in (root, *root.resolve().parents[:2]):
        if (folder / _BY_SEQUENCE).is_dir():
            return {
                key: _flags(folder / _BY_SEQUENCE / f"{key}.txt", ATTRIBUTES[name])
                for key in sequences
            }
        if (folder / _BY_ATTRIBUTE).is_dir():
            return _transposed(folder / _BY_ATTRIBUTE, sequences)
    return {}


def _transposed(folder: Path, sequences: list[str]) -> dict[str, frozenset[str]]:
    """The attributes where each has a file."""
    order = folder / f"{_ORDER}.txt"
    names = tuple(order.read_text().split())
    having = {
        path.stem: _flags(path, names) for path in sorted(folder.glob("*.txt")) if path != order
    }
    if unknown := set(sequences) - set(names):
        raise ValueError(f"{order}: no {', '.join(sorted(unknown))}")
    return {
        key: frozenset(attribute for attribute, keys in having.items() if key in keys)
        for key in sequences
    }


def _flags(path: Path, names: tuple[str, ...]) -> frozenset[str]:
    """The names that have a 1 in a file of as many values 0 or 1."""
    values = path.read_text().replace(",", " ").split()
    if len(values) != len(names) or not set(values) <= {"0", "1"}:
        raise ValueError(f"{path}: expected {len(names)} values 0 or 1")
    return frozenset(name for name, value in zip(names, values, strict=True) if value == "1")
