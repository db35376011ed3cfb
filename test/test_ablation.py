# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`ainet ablation`, on a very small network, and the page it writes."""

import time
from pathlib import Path

import pytest
import yaml
from networks import TINY
from test_training_parts import sequence

from ainet_ros.cli import main
from ainet_ros.cli.ablation import _Plan
from ainet_ros.evaluation.ablation import Cost, Variant, page
from ainet_ros.network import create
from ainet_ros.vision.scenes import Scene

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        sequence(tmp_path / "data" / "walks" / name)
    Scene(4, frames=3, size=(160, 120)).write(tmp_path / "scenes" / "scene_4")
    plan = {
        "seeds": [0, 1],
        "start": {"network": {"dfm": "none", "ofm": "none"}, "steps": 1},
        "run": {
            "preset": "small",
            "network": {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()},
            "steps": 2,
            "batch": 2,
            "workers": 0,
            "validation_samples": 2,
            "data": {"videos": {"walks": {"validation": ["two"]}}},
        },
        "tables": {
            "Modules": {"baseline": {"dfm": "none", "ofm": "none"}, "DFM": {"ofm": "none"}},
            "Again": {"OFM": {"dfm": "none"}, "the same DFM": {"ofm": "none"}},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return tmp_path


def command(folder: Path, workers: int = 1) -> list[str]:
    return [
        "ablation", str(folder / "plan.yaml"), "--data", str(folder / "data"),
        "--sequences", str(folder / "scenes"), "--output", str(folder / "runs"),
        "--page", str(folder / "ablation.md"), "--device", "cpu", "--workers", str(workers),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_trains_each_variant_once_and_compares_them(folder: Path, workers: int) -> None:
    assert main(command(folder, workers)) == 0
    text = (folder / "ablation.md").read_text()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rows = {name: values for name, *values in cells if name not in ("", "---")}
    assert list(rows) == ["baseline", "DFM", "OFM", "the same DFM"]
    assert rows["DFM"][:-1] == rows["the same DFM"][:-1]
    assert [values[-1] for values in rows.values()] == ["56.9", "57.4", "57.3", ""]
    assert "2 seeds" in text
    runs = sorted(p.name for p in (folder / "runs").iterdir())
    assert runs == [
        "cache", "dfm-none_0", "dfm-none_1", "dfm-none_ofm-none_0", "dfm-none_ofm-none_1",
        "ofm-none_0", "ofm-none_1", "start",
    ]  # fmt: skip
    # Run again, nothing is trained anew.
    checkpoint = folder / "runs" / "ofm-none_1" / "checkpoint.pt"
    made = checkpoint.stat().st_mtime_ns
    started = time.time_ns()
    assert main(command(folder, workers)) == 0
    assert checkpoint.stat().st_mtime_ns == made < started


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": None}, "expected run, seeds, start, tables"),
        ({"start": {"speed": 3}}, "unknown options"),
        ({"seeds": 3}, "seeds are a list"),
        ({"tables": {"A": {"x": {"ofm": "none"}}, "B": {"x": {"dfm": "none"}}}}, "called 'x'"),
    ],
)
def test_bad_configurations_are_named(folder: Path, capsys, change, message) -> None:
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan.update(change)
    plan = {name: value for name, value in plan.items() if value is not None}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    assert main(command(folder)) == 2
    assert not (folder / "runs").exists()  # nothing was trained before it was seen
    error = capsys.readouterr().err
    assert message in error
    assert "plan.yaml" in error
    assert main(command(folder, workers=0)) == 2
    assert "0 workers" in capsys.readouterr().err
    (folder / "plan.yaml").unlink()
    assert main(command(folder)) == 2
    assert "no configuration" in capsys.readouterr().err


def test_every_variant_of_the_shipped_configuration_is_a_network() -> None:
    plan = _Plan.read(ROOT / "config" / "ablation.yaml")
    names = [name for rows in plan.tables.values() for name in rows]
    assert len(names) == len(set(names)) == 13
    for rows in plan.tables.values():
        for options in rows.values():
            config = plan.variant(options, 0)
            create(config.preset, **config.network)
    assert plan.start.network["dfm"] == plan.start.network["ofm"] == "none"


def test_the_page_says_what_rows_add_run_by_run() -> None:
    def row(name: str, success: tuple, overlap: tuple, published: float) -> Variant:
        cost = Cost(1.0, 2.0, 3_000_000, 4_000_000_000)
        return Variant(name, success, overlap, cost, published)

    text = page(
        {
            "Modules": [
                row("a", (0.1, 0.3), (0.2, 0.4), 50.0),
                row("b", (0.2, 0.4), (0.1, 0.3), 51.0),
                row("c", (0.5, 0.2), (0.6, 0.8), 52.0),
            ]
        },
        "What it is.",
    )
    assert "| b | 0.300 ± 0.141 | 0.200 ± 0.141 | 1.0 | 2 | 3.00 | 4.00 | 51.0 |" in text
    assert "b against a: overlap -0.100 ± 0.000, success +0.100 ± 0.000 (paper: +0.010)" in text
    assert "The paper's order: a < b < c." in text
    assert "Ours by overlap: b < a < c." in text
    assert "Ours by success: the same." in text
