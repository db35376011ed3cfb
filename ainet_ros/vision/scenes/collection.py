# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Many generated recordings, each with attributes of its own, laid out as a benchmark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from os import PathLike
from pathlib import Path

import numpy as np

from ainet_ros.files import write_whole
from ainet_ros.vision.scenes.scene import ATTRIBUTES, RECORD, Scene

SHARE = 0.35
"""Of the recordings that have an attribute, whatever others they have."""
_PARTIAL = ".partial"


def drawn_attributes(seed: int) -> tuple[str, ...]:
    """The attributes of the recording of a seed where they are left to chance."""
    chances = np.random.default_rng((seed, 1)).random(len(ATTRIBUTES))
    return tuple(name for name, at in zip(ATTRIBUTES, chances, strict=True) if at < SHARE)


def write_collection(
    folder: str | PathLike[str],
    seeds: Sequence[int],
    *,
    frames: int,
    attributes: Collection[str] | None = None,
    workers: int = 1,
    on_scene: Callable[[], object] | None = None,
) -> None:
    """Writes FOLDER/scene_SEED in LasHeR's layout, and FOLDER/attr_txt with the attributes.

    What an earlier call wrote is kept, so that it can go on where it was stopped.

    Args:
        folder: is made where it is not there.
        seeds, frames: of the recordings.
        attributes: of all of them; each has its own, `drawn_attributes`, where None.
        workers: processes that draw.
        on_scene: is called after each recording.

    Raises:
        ValueError: an argument of `Scene` is out of its range, there is no worker, or the folder
            has a recording of the same name that is another one.
        OSError: the folder cannot be written.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers: there must be one at least")
    root = Path(folder)
    chosen = {
        seed: drawn_attributes(seed) if attributes is None else tuple(attributes) for seed in seeds
    }
    if chosen:
        # Raises what is wrong with the arguments before there is a folder.
        Scene(seeds[0], frames=frames, attributes=chosen[seeds[0]])
    shutil.rmtree(root / _PARTIAL, ignore_errors=True)
    (root / _PARTIAL).mkdir(parents=True)
    # Not forked: the caller may have threads.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for _ in pool.map(partial(_write, root, frames), chosen.items()):
                if on_scene:
                    on_scene()
        except BrokenProcessPool:
            raise ValueError(
                f"one of {workers} workers died, for want of memory perhaps; what is written "
                "stays, and the same command goes on with the rest"
            ) from None
    (root / _PARTIAL).rmdir()
    table = root / "attr_txt"
    table.mkdir(exist_ok=True)
    # Of all that are there, those of earlier calls too; a copy under another name is none.
    found = [record for record in root.glob(f"scene_*/{RECORD}") if _seed(record).isdecimal()]
    records = {
        record.parent.name: json.loads(record.read_text())["attributes"]
        for record in sorted(found, key=lambda record: int(_seed(record)))
    }
    write_whole(table / "SequencesName.txt", _lines(list(records)))
    for attribute in ATTRIBUTES:
        flags = [str(int(attribute in names)) for names in records.values()]
        write_whole(table / f"{attribute}.txt", _lines(flags))


def _write(root: Path, frames: int, chosen: tuple[int, tuple[str, ...]]) -> None:
    """Writes one recording, whole or not at all."""
    seed, attributes = chosen
    scene = Scene(seed, frames=frames, attributes=attributes)
    place = root / scene.name
    if place.exists():
        record = place / RECORD
        if not record.is_file() or json.loads(record.read_text()) != scene.record:
            raise ValueError(f"{place}: holds another recording; choose another folder")
        return
    scene.write(root / _PARTIAL / scene.name)
    (root / _PARTIAL / scene.name).rename(place)


def _seed(record: Path) -> str:
    return record.parent.name.removeprefix("scene_")


def _lines(values: Sequence[str]) -> bytes:
    return "".join(f"{value}\n" for value in values).encode()
