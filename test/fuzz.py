# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`make fuzz`: broken, absurd and hostile input to all that reads input, and what comes of it.

usage: python test/fuzz.py [TARGET ...] [--scale SHARE] [--seed SEED] [--output DIR] [--page PAGE]

Each target of `TARGETS` runs in a process of its own, as many at once as there are cores. Wrong is
an error that is not documented, the end of the process, an input that takes longer than `HANG_S`
each of three times, and memory that grows. An input that shows it is kept in DIR/TARGET, with what
happened; the others go on, and the exit status is 1 at the end. The same seed gives the same
inputs, but for those that atheris finds by what the former ones reached.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import importlib
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from reliability import write_section

ROOT = Path(__file__).resolve().parents[1]
HANG_S = 1.0
"""Longest time of one input."""
STUCK_S = 180.0
"""A process that gets no further for so long is ended."""
PEAK_MB = 600
"""Most memory that one input may add to the highest before; an image of `MOST_PIXELS` takes half
of it."""
GROWTH_MB = 64
"""Most that memory may grow after the first fifth of the inputs."""
DOCUMENTED = (ValueError, OSError)
MOST_FAULTS, MOST_HANGS = 20, 5
"""Of a target: faults of different kinds that are kept, and hangs before it is given up."""
BATCH = 2000
"""Examples of one run of hypothesis, which remembers them."""
LAST_BYTES = 1 << 16
INSTRUMENTED = ["ainet_ros", "rosbags"]


class Target(NamedTuple):
    """What is fuzzed: a function of this name in fuzz_targets.py. inputs: of `make fuzz`; short:
    of `make test`."""

    what: str
    tool: str
    inputs: int
    short: int


TARGETS = {
    "kernel": Target("the scan in C++, with AddressSanitizer and UBSan", "random", 30_000, 300),
    "services": Target("~/init and ~/reset of a running node", "hypothesis", 6_000, 40),
    "parameters": Target("set_parameters of a running node", "hypothesis", 10_000, 80),
    "topics": Target("image and camera_info topics of a running node", "hypothesis", 3_000, 30),
    "sockets": Target("WebSocket messages to a running console", "hypothesis", 6_000, 50),
    "http": Target("HTTP requests to a running console", "hypothesis", 20_000, 50),
    "images": Target("raw images: decoding, tone map, registration", "hypothesis", 40_000, 300),
    "pictures": Target("shapes of images: overlay, crops, misfit", "hypothesis", 5_000, 100),
    "bearing": Target("camera_info for ~/bearing", "hypothesis", 40_000, 200),
    "pairing": Target("streams of stamps to the pairing", "hypothesis", 60_000, 200),
    "configuration": Target("options of networks and training runs", "hypothesis", 10_000, 100),
    "weights": Target("weights files", "atheris", 100_000, 500),
    "compressed": Target("compressed images (PNG, JPEG, TIFF, BMP)", "atheris", 500_000, 1000),
    "yaml": Target("calibration, training and recorded parameters", "atheris", 60_000, 300),
    "boxes": Target("files of true boxes", "atheris", 150_000, 500),
    "bags": Target("bags and recordings (MCAP, SQLite)", "atheris", 100_000, 200),
}


class Judge:
    """Gives inputs to a target's check, counts them, and keeps those that show a fault.

    The state is written to `folder` as JSON, and the present input before it is given, so that
    nothing is lost where the process ends.
    """

    def __init__(self, check: Any, folder: Path, inputs: int) -> None:
        self._check = check
        self._folder = folder
        self._inputs = inputs
        self._pid = getattr(check, "pid", os.getpid())
        self._started = self._written = time.monotonic()
        self._settled_mb = 0.0
        self._peak_mb = _peak_mb()
        self._faults: dict[str, str] = {}
        self._hangs = 0
        self.count = 0
        with (folder / "last").open("wb+") as file:
            file.truncate(LAST_BYTES)
            self._last = mmap.mmap(file.fileno(), LAST_BYTES)
        self.write()

    def __call__(self, given: Any) -> None:
        if self.count >= self._inputs:
            return
        kept = _bytes(given)[: LAST_BYTES - 4]
        self._last[: 4 + len(kept)] = len(kept).to_bytes(4, "big") + kept
        self.count += 1
        if self._run(given) > HANG_S and min(self._run(given), self._run(given)) > HANG_S:
            self._keep("hang", f"longer than {HANG_S:g} s", given)
            self._hangs += 1
            if self._hangs >= MOST_HANGS:
                sys.exit(f"{self._hangs} inputs took too long")
        peak_mb = _peak_mb()
        if self._pid == os.getpid() and peak_mb > self._peak_mb + PEAK_MB and self.count > 1:
            self._keep("memory", f"{peak_mb - self._peak_mb:.0f} MB for one input", given)
        self._peak_mb = max(peak_mb, self._peak_mb)
        if self.count == max(1, self._inputs // 5):
            self._settled_mb = self._mb()
        if self.count == self._inputs or time.monotonic() > self._written + 1:
            self.write()

    def _run(self, given: Any) -> float:
        start = time.perf_counter()
        try:
            self._check(given)
        except DOCUMENTED:
            pass
        except Exception as error:
            self._keep("crash", error, given)
        return time.perf_counter() - start

    def _keep(self, kind: str, what: str | Exception, given: Any) -> None:
        key, text = f"{kind}: {what}", str(what)
        if isinstance(what, Exception):
            frames = traceback.extract_tb(what.__traceback__)
            own = [f for f in frames if "ainet_ros" in f.filename] or frames
            place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
            key = f"{kind}: {type(what).__name__} at {place}"
            text = "".join(traceback.format_exception(what))
        if key in self._faults or len(self._faults) >= MOST_FAULTS:
            return
        data = _bytes(given)
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        (self._folder / name).write_bytes(data)
        (self._folder / f"{name}.txt").write_text(text)
        self._faults[key] = name
        self.write()
        if not self._mb():
            sys.exit("the node has ended")

    def _mb(self) -> float:
        """0 where the process has ended."""
        pages = 0
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def write(self) -> None:
        """Write the state."""
        grown = self._mb() - self._settled_mb if self._settled_mb else 0.0
        if self.count >= self._inputs and grown > GROWTH_MB:
            self._faults.setdefault(f"growth: {grown:.0f} MB", "")
        self._written = time.monotonic()
        state = {
            "inputs": self.count,
            "seconds": self._written - self._started,
            "grown_mb": round(grown, 1),
            "faults": self._faults,
        }
        partial = self._folder / "state.partial"
        partial.write_text(json.dumps(state))
        partial.replace(self._folder / "state.json")


def _bytes(given: Any) -> bytes:
    return given if isinstance(given, bytes) else repr(given).encode(errors="replace")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


# ---- A target's process


def run_target(name: str, inputs: int, seed: int, folder: Path) -> None:
    """Give a target its inputs."""
    faulthandler.enable()
    tool = TARGETS[name].tool
    if tool == "atheris":
        import atheris

        with atheris.instrument_imports(include=INSTRUMENTED):
            targets = importlib.import_module("fuzz_targets")
    else:
        targets = importlib.import_module("fuzz_targets")
    if "LD_PRELOAD" not in os.environ:  # the sanitizers map all that there is
        resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))
    with getattr(targets, name)(folder) as (check, source):
        judge = Judge(check, folder, inputs)
        {"atheris": _by_coverage, "hypothesis": _by_strategy, "random": _by_seed}[tool](
            judge, source, inputs, seed, folder
        )


def _by_strategy(judge: Judge, strategy: Any, inputs: int, seed: int, folder: Path) -> None:
    """strategy: of hypothesis."""
    import hypothesis

    while judge.count < inputs:
        settings = hypothesis.settings(
            max_examples=min(BATCH, inputs - judge.count),
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        test = hypothesis.given(strategy)(lambda given: judge(given))
        hypothesis.seed(seed)(settings(test))()
        seed += 1


def _by_seed(judge: Judge, case: Any, inputs: int, seed: int, folder: Path) -> None:
    """case: makes an input of (seed, number)."""
    for number in range(inputs):
        judge(case(seed, number))


def _by_coverage(
    judge: Judge, examples: list[bytes], inputs: int, seed: int, folder: Path
) -> None:
    """examples: to begin with. Does not return."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(examples):
        (corpus / str(number)).write_bytes(data)
    flags = {
        "seed": seed or 1,
        "runs": inputs + 10,  # of which some are empty
        "max_len": max(4096, *map(len, examples)),
        "timeout": int(STUCK_S),
        "rss_limit_mb": 0,
        "verbosity": 0,
        "artifact_prefix": f"{folder}/",
    }
    arguments = [f"-{name}={value}" for name, value in flags.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], judge)
    atheris.Fuzz()


# ---- All of them

_stopping = threading.Event()


class Outcome(NamedTuple):
    """What came of a target. faults: kept inputs by what happened."""

    name: str
    inputs: int
    seconds: float
    grown_mb: float
    faults: dict[str, str]


def fuzz(name: str, inputs: int, seed: int, folder: Path) -> Outcome:
    """Run a target in a process of its own."""
    folder = folder / name
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name another output")
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--run", name, str(inputs), str(seed), str(folder)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    if name == "kernel":
        environment |= sanitizers()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            stuck = _wait(process, folder / "state.json")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and the nodes that it started
    state = {"inputs": 0, "seconds": 0.0, "grown_mb": 0.0, "faults": {}}
    with contextlib.suppress(FileNotFoundError):
        state = json.loads((folder / "state.json").read_text())
    faults = state["faults"]
    if stuck or process.returncode != 0 or state["inputs"] < inputs:
        what = f"stuck for {STUCK_S:g} s" if stuck else f"its process ended ({process.returncode})"
        faults[f"crash: {what}, see {folder / 'log'}"] = _last(folder)
    return Outcome(name, state["inputs"], state["seconds"], state["grown_mb"], faults)


def sanitizers() -> dict[str, str]:
    """Variables of a process that loads a library made with AddressSanitizer and UBSan."""

    def library(name: str) -> str:
        command = ["g++", f"-print-file-name={name}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return {
        # With the C++ library, whose exceptions they watch.
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",  # the leaks are Python's
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _wait(process: subprocess.Popen[bytes], state: Path) -> bool:
    """Until it ends; whether it had to be ended, for it got no further."""
    moved = time.time()
    while process.poll() is None:
        if state.exists():
            moved = max(moved, state.stat().st_mtime)
        if time.time() - moved > STUCK_S or _stopping.is_set():
            process.send_signal(signal.SIGABRT)  # the log says where it was
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            return True
        time.sleep(0.1)
    return False


def _last(folder: Path) -> str:
    """Keep the input that was given last."""
    if not (folder / "last").exists():
        return ""
    data = (folder / "last").read_bytes()
    kept = data[4 : 4 + int.from_bytes(data[:4], "big")]
    name = f"end-{hashlib.sha256(kept).hexdigest()[:12]}"
    (folder / name).write_bytes(kept)
    return name


def table(outcomes: list[Outcome]) -> str:
    """The section of the page."""
    from ainet_ros.bench.measure import machine

    total = sum(outcome.inputs for outcome in outcomes)
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    kinds = ("crash", "hang", "memory", "growth")
    rows = []
    for outcome in outcomes:
        target = TARGETS[outcome.name]
        counts = {kind: sum(f.startswith(kind) for f in outcome.faults) for kind in kinds}
        rows.append(
            f"| {target.what} | {target.tool} | {outcome.inputs:,} | {counts['crash']} | "
            f"{counts['hang']} | {counts['memory'] + counts['growth']} |"
        )
    return f"""`make fuzz` gave {total:,} broken, absurd and hostile inputs to all that reads
input. The targets took {minutes:.0f} minutes together, as many at once as there are cores
({os.cpu_count()} of {machine()["cpu"]}).

Counted are crashes, which are the end of a process and errors that are not documented; inputs
that took over {HANG_S:g} s; and those that took over {PEAK_MB} MB, or memory that had grown by
over {GROWTH_MB} MB since the first fifth of the inputs.

| what | made by | inputs | crashes | hangs | memory |
|---|---|---|---|---|---|
{chr(10).join(rows)}

What the user sees is an error that names the file, message or parameter and what to do; a node
logs it, or answers with it, and goes on. An image that claims more pixels than any camera has is
refused before memory is taken for it, and so are weights whose tensors do not fit their
configuration. One part of a bag that was compressed well can still grow to more than the memory
holds: read bags of people you trust.
"""


def main() -> int:
    """The exit status."""
    if sys.argv[1:2] == ["--run"]:
        name, inputs, seed, folder = sys.argv[2:]
        run_target(name, int(inputs), int(seed), Path(folder))
        return 0
    parser = argparse.ArgumentParser(description="Fuzz what reads input.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--page", type=Path, help="write the section fuzz of this page")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}: one of {', '.join(TARGETS)}")
    output = arguments.output.resolve()

    def one(name: str) -> Outcome:
        inputs = max(1, round(TARGETS[name].inputs * arguments.scale))
        print(f"fuzz: {name}: {inputs:,} inputs", flush=True)
        outcome = fuzz(name, inputs, arguments.seed, output)
        print(
            f"fuzz: {name}: {outcome.inputs:,} in {outcome.seconds:.0f} s, memory "
            f"{outcome.grown_mb:+.0f} MB, {len(outcome.faults)} faults",
            *(f"\n  {what} ({output / name / kept})" for what, kept in outcome.faults.items()),
            flush=True,
        )
        return outcome

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            outcomes = list(pool.map(one, arguments.targets or TARGETS))
        except KeyboardInterrupt:
            _stopping.set()
            pool.shutdown(cancel_futures=True)
            return 130
    print(f"fuzz: {sum(outcome.inputs for outcome in outcomes):,} inputs", flush=True)
    if arguments.page:
        write_section(arguments.page, "fuzz", table(outcomes))
    return int(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
