# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Whether the tests see a wrong program: `make mutants`.

cosmic-ray changes one thing in the code (a number, a sign, a comparison, a loop that is not
entered), the tests of that part are run, and one of them should fail. A random sample of all such
changes, the same for the same code, is tried in copies of the repository.
"""

import argparse
import ast
import os
import random
import shlex
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome
from reliability import computer, write_section
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "mutants"
COPIED = ("ainet_ros", "test", "config", "csrc", "pyproject.toml", "package.xml")
TIMEOUT_S = 300.0
"""For the tests of the code as it is."""
PATIENCE = 3
"""A change that makes the tests take so many times as long counts as noticed."""
NEEDED = 0.75


@dataclass(frozen=True)
class Part:
    """Modules, and what should notice that one of them is wrong."""

    name: str
    folder: str
    modules: tuple[str, ...]
    tests: str
    """Arguments for pytest; where tests take tens of seconds they are left out."""


PARTS = (
    Part(
        "network",
        "ainet_ros/network",
        tuple("attention backbone checkpoint config cost dfm head mamba model ofm scan".split()),
        "test/test_network.py test/test_scan.py test/test_weights.py",
    ),
    Part(
        "tracker",
        "ainet_ros/tracker",
        tuple("crop device tracker weights".split()),
        "test/test_tracker.py test/test_weights.py -k 'not compile'",
    ),
    Part("pairing", "ainet_ros/ros", ("pairing", "filters", "worker"), "test/test_pairing.py"),
)


def mutations(part):
    """Every change of the part, but of annotations, which do nothing."""
    paths = [Path(part.folder, f"{module}.py") for module in part.modules]
    with use_db(":memory:") as database:
        init(paths, database, {})
        items = [item.mutations[0] for item in database.work_items]
    hints = {path: list(annotations(path.read_text())) for path in paths}
    return [
        item
        for item in items
        if not any(start <= item.start_pos < end for start, end in hints[item.module_path])
    ]


def annotations(source):
    """From where to where they go: lines from 1 and columns from 0."""
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            hint = getattr(node, name, None)
            if hint is not None:
                yield (hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)


def command(part):
    return f"{shlex.quote(sys.executable)} -m pytest -x -q -p no:cacheprovider {part.tests}"


def enter_copy():
    """Make a copy of the repository for this worker and go there."""
    copy = FOLDER / str(os.getpid())
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "weights").symlink_to(ROOT / "weights")
    os.chdir(copy)
    os.environ.setdefault("AINET_SHARED", str(ROOT.parent / "shared"))
    # Files of one size that are written within a second are the same for Python's cache.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def unchanged(part):
    """Seconds that the tests take for the code as it is. Raises RuntimeError where one fails."""
    start = time.monotonic()
    outcome, output = run_tests(command(part), TIMEOUT_S)
    if outcome is not TestOutcome.SURVIVED:
        raise RuntimeError(f"the tests of {part.name} fail without a change:\n{output}")
    return time.monotonic() - start


def attempt(part, mutation, timeout_s):
    """Empty where a test failed, or else the change as a diff."""
    result = mutate_and_test([mutation], command(part), timeout_s)
    return "" if result.is_killed else f"{result.diff}\n"


def try_part(part, count, workers):
    """How many changes there are, how many were tried, and how many of those no test noticed."""
    every = mutations(part)
    sample = random.Random(1).sample(every, min(count, len(every)))
    timeout_s = PATIENCE * workers.submit(unchanged, part).result()
    jobs = [workers.submit(attempt, part, mutation, timeout_s) for mutation in sample]
    missed = 0
    with (FOLDER / f"{part.name}.diff").open("w", buffering=1) as file:
        for job in tqdm(as_completed(jobs), part.name, len(jobs), unit="mutant"):
            file.write(diff := job.result())
            missed += diff != ""
    return len(every), len(sample), missed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="changes of each part")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS])
    parser.add_argument("--page", type=Path, help="page to write the section 'mutants' of")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    rows, tried, missed = [], 0, 0
    with ProcessPoolExecutor(initializer=enter_copy) as workers:
        for part in PARTS:
            if arguments.parts and part.name not in arguments.parts:
                continue
            every, sample, unnoticed = try_part(part, arguments.count, workers)
            rows.append((part.name, every, sample, f"{1 - unnoticed / sample:.0%}"))
            tried, missed = tried + sample, missed + unnoticed
    noticed = 1 - missed / tried
    text = "\n".join(
        [
            "`make mutants` changed one thing of the code at a time: a number, a sign,",
            f"a comparison. Of {tried} such changes, drawn from all, the tests noticed",
            f"{noticed:.0%}. On {computer()}.",
            "",
            "| part | possible changes | tried | noticed |",
            "|---|---|---|---|",
            *(f"| {' | '.join(map(str, row))} |" for row in rows),
        ]
    )
    print(f"{text}\nwhat no test noticed: {FOLDER}/*.diff")
    if arguments.page is not None:
        write_section(arguments.page, "mutants", text)
    sys.exit(0 if noticed >= NEEDED else 1)


if __name__ == "__main__":
    main()
