# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet ablation`: train the variants of a network alike, and write how they compare."""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ainet_ros.evaluation.ablation import Cost
    from ainet_ros.network import AINet
    from ainet_ros.training.config import TrainConfig
    from ainet_ros.vision.benchmarks import Benchmark

REPEATS = 15
"""Of a network, to tell its time."""


class Reached(NamedTuple):
    """success: mean area under the success curve. overlap: mean IoU on held-out samples."""

    success: float
    overlap: float


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the subcommand."""
    parser = subparsers.add_parser(
        "ablation",
        help="train a network's variants alike and compare them",
        description="Train each variant of a configuration with each of its seeds, run the "
        "results over the sequences, and write a page. Run again, it goes on where it was.",
    )
    parser.add_argument("config", type=Path, help="YAML file, as config/ablation.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of training data")
    parser.add_argument(
        "--sequences", type=Path, required=True, help="to run over, as for `ainet evaluate`"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--page", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="variants trained side by side, which share the cores (default: 1)",
    )
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Plan:
    """A configuration: what all runs share, where they start from, and what varies.

    Attributes:
        run: of every variant, but for its seed and its network's options.
        start: the run that all start from, as the paper's do from DropTrack.
        seeds: of the runs of a variant.
        tables: by title and row, the options of the network.
    """

    run: dict[str, Any]
    start: TrainConfig
    seeds: list[int]
    tables: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def read(cls, path: Path) -> _Plan:
        """Raises FileNotFoundError, or ValueError naming what is wrong."""
        from ainet_ros.files import read_yaml
        from ainet_ros.training.config import TrainConfig

        if not path.is_file():
            raise FileNotFoundError(f"no configuration {path}")
        values = read_yaml(path)
        expected = {"run", "start", "seeds", "tables"}
        if not isinstance(values, dict) or set(values) != expected:
            raise ValueError(f"{path}: expected {', '.join(sorted(expected))}")
        try:
            if not isinstance(values["seeds"], list) or not isinstance(values["tables"], dict):
                raise ValueError("seeds are a list, and tables have titles")
            start = TrainConfig.of(_merged(values["run"], values["start"]))
            plan = cls(values["run"], start, values["seeds"], values["tables"])
            for seed in plan.seeds:
                for _, options in plan.rows():
                    plan.variant(options, seed)
            return plan
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from None

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """The options of the variants by the names of their rows; a variant may be in two tables.

        Raises ValueError where two variants have one name.
        """
        rows = [row for rows in self.tables.values() for row in rows.items()]
        options = dict(rows)
        for name, own in rows:
            if own != options[name]:
                raise ValueError(f"two rows of different options are called {name!r}")
        return rows

    def variant(self, options: dict[str, Any], seed: int) -> TrainConfig:
        from ainet_ros.training.config import TrainConfig

        return TrainConfig.of(_merged(self.run, {"network": options, "seed": seed}))


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    from functools import partial

    from ainet_ros.evaluation import ablation, published
    from ainet_ros.files import write_whole
    from ainet_ros.network import create
    from ainet_ros.training.run import train
    from ainet_ros.vision.benchmarks import open_benchmark

    if args.workers < 1:
        raise ValueError(f"{args.workers} workers: there must be one at least")
    plan = _Plan.read(args.config)
    benchmark = open_benchmark(args.sequences, strict=True)
    cache = args.output / "cache"
    train(plan.start, args.data, args.output / "start", cache=cache, device=args.device)
    start = str(args.output / "start" / "weights.safetensors")
    rows = plan.rows()
    # The same network in two tables is trained once.
    folders = {name: _slug(options) for name, options in rows}
    success: dict[str, list[float]] = {slug: [] for slug in folders.values()}
    overlap: dict[str, list[float]] = {slug: [] for slug in folders.values()}
    judge = partial(
        _train_and_judge,
        benchmark=benchmark,
        data=args.data,
        cache=cache,
        start=start,
        device=args.device,
    )
    # All variants with one seed, then with the next: the page is of use before the end.
    for seed in plan.seeds:
        configs = {folders[name]: plan.variant(options, seed) for name, options in rows}
        outputs = [args.output / f"{slug}_{seed}" for slug in configs]
        reached = _side_by_side(judge, list(configs.values()), outputs, args.workers)
        for slug, (success_of, overlap_of) in zip(configs, reached, strict=True):
            success[slug].append(success_of)
            overlap[slug].append(overlap_of)
        networks = {
            slug: create(config.preset, **config.network).eval()
            for slug, config in configs.items()
        }
        paper = {
            name: values[-1]
            for printed in published.tables("lasher")
            if printed.number in (2, 3)
            for name, values in printed.rows.items()
        }
        measured = _measure(networks)
        tables = {
            title: [
                ablation.Variant(
                    name,
                    tuple(success[folders[name]]),
                    tuple(overlap[folders[name]]),
                    measured[folders[name]],
                    paper.get(name),
                )
                for name in rows_of
            ]
            for title, rows_of in plan.tables.items()
        }
        done = plan.seeds.index(seed) + 1
        write_whole(args.page, ablation.page(tables, _intro(plan, benchmark, done)).encode())
    print(f"written to {args.page}")
    return 0


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Options of a run; those of its network one by one."""
    network = {**below.get("network", {}), **above.get("network", {})}
    return {**below, **above, "network": network}


def _slug(options: dict[str, Any]) -> str:
    text = "_".join(f"{name}-{value}" for name, value in sorted(options.items())) or "whole"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
    return safe if len(safe) < 60 else hashlib.sha256(safe.encode()).hexdigest()[:12]


def _side_by_side(
    judge: Callable[[TrainConfig, Path], Reached],
    configs: list[TrainConfig],
    outputs: list[Path],
    workers: int,
) -> list[Reached]:
    """What each run reaches. Small networks gain little from a second core, a second run does."""
    import torch

    if workers == 1:
        return [judge(*run) for run in zip(configs, outputs, strict=True)]
    threads = max(1, torch.get_num_threads() // workers)
    # Forked processes and the threads of torch do not agree.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        jobs = [pool.submit(judge, *run) for run in zip(configs, outputs, strict=True)]
        try:
            return [job.result() for job in jobs]
        except BrokenProcessPool:
            raise OSError(
                f"one of {workers} workers died, for want of memory perhaps; the same command "
                "goes on where they were: with fewer"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _train_and_judge(
    config: TrainConfig,
    output: Path,
    *,
    benchmark: Benchmark,
    data: Path,
    cache: Path,
    start: str,
    device: str,
) -> Reached:
    """Train a variant, or go on with it, and say what it reached."""
    from ainet_ros.training.run import train

    print(output.name, file=sys.stderr)
    train(config, data, output, weights=start, cache=cache, device=device)
    return Reached(_success(benchmark, output, device), _overlap(output))


def _overlap(output: Path) -> float:
    """The mean IoU on held-out samples at the end of a run."""
    with (output / "log.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["validation_iou"])


def _success(benchmark: Benchmark, output: Path, device: str) -> float:
    """The mean area under the success curve of a run's weights."""
    from functools import partial

    from tqdm import tqdm

    from ainet_ros.evaluation import report
    from ainet_ros.evaluation.runner import Runner, made_by
    from ainet_ros.tracker import Tracker

    weights = output / "weights.safetensors"
    make = partial(Tracker.load, weights, device)
    runner = Runner(make, made_by(weights), "both", output / "results")
    with tqdm(total=0, unit="frame", file=sys.stderr) as bar:
        runner.run(benchmark.sequences, bar, strict=True)
    return report.judge(benchmark, runner.results, output.name).mean.auc


def _measure(networks: dict[str, AINet]) -> dict[str, Cost]:
    """What one pair costs each of the networks."""
    from functools import partial

    import torch

    from ainet_ros.bench.measure import median_times, memory_growth
    from ainet_ros.evaluation.ablation import Cost
    from ainet_ros.network.cost import count

    calls = {}
    for name, network in networks.items():
        pair = (
            torch.zeros(1, 2, 3, side, side)
            for side in (network.config.template_size, network.config.search_size)
        )
        calls[name] = partial(network, *pair)
    with torch.inference_mode():
        times = median_times(calls, REPEATS)
        memory = {name: memory_growth(call) / 2**20 for name, call in calls.items()}
    costs = {name: count(network).whole for name, network in networks.items()}
    return {
        name: Cost(1e3 * times[name], memory[name], costs[name].parameters, costs[name].macs)
        for name in networks
    }


def _intro(plan: _Plan, benchmark: Benchmark, seeds: int) -> str:
    """seeds: how many are done."""
    from ainet_ros.bench.measure import machine
    from ainet_ros.network import create
    from ainet_ros.training.config import TrainConfig

    config = TrainConfig.of(plan.run)
    network = create(config.preset, **config.network).config
    here = machine()
    return (
        f"Networks of {network.depth} layers and {network.channels} channels, the template "
        f"{network.template_size} and the search region {network.search_size} pixels. Each "
        f"variant starts from one network without fusion, trained on "
        f"{plan.start.steps * plan.start.batch:,} samples, and is trained on "
        f"{config.steps * config.batch:,} more, alike but for what the row names: "
        f"{seeds} seed{'s' * (seeds != 1)}, mean ± standard deviation. Success is the area under "
        f"the curve over {len(benchmark.sequences)} generated recordings, overlap the mean IoU on "
        f"{config.validation_samples} held-out samples; time, float32, the template too, and "
        f"memory for one pair on {here['cpu']}, {here['threads']} threads. Written by "
        f"`make ablation`. The networks are much smaller than the paper's, whose figures are "
        f"those of LasHeR."
    )
