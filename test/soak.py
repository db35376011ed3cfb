# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`make soak`: do the nodes hold for an hour, through 1,000 restarts, and asked by many at once?

Three parts: an hour of full load (`soak_load`), the tracker through its states 1,000 times
(`soak_cycles`), and ten minutes of requests from three processes (`soak_stress`). The raw samples
go into a folder as they are taken; what came of them goes to docs/reliability.md.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import soak_cycles
import soak_load
import soak_stress
from matplotlib.figure import Figure
from reliability import write_section

from ainet_ros.bench.measure import machine
from ainet_ros.ros.process import ros
from ainet_ros.tracker import weights

MOST_MIB_A_MINUTE = 2.0
"""By which the memory of a process may rise, by least squares, under load."""
MOST_KIB_A_CYCLE = 4.0
"""By which the memory of the tracker may rise, less what libraries keep by themselves."""
FAULTS_SHOWN = 5


def main(words=None):
    """The exit status: 1 where something did not hold."""
    args = make_parser().parse_args(words)
    # The nodes meet on this computer only.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    args.output.mkdir(parents=True, exist_ok=True)
    for folder in ("recorded", "cycles", "stress"):
        shutil.rmtree(args.output / folder, ignore_errors=True)
    result = {"machine": machine(), "soak": {}, "cycles": {}, "stress": {}}
    parts = {
        "soak": lambda part: soak_load.run(
            part,
            args.output,
            args.seconds,
            parameters={"weights": args.weights},
            size=args.size,
            known=args.weights == weights.DEFAULT,
            say=say,
        ),
        "cycles": lambda part: soak_cycles.run(part, args.output / "cycles", args.cycles, say=say),
        "stress": lambda part: soak_stress.run(part, args.output / "stress", args.stress, say=say),
    }
    whole = False
    try:
        with ros([]):
            for name, run in parts.items():
                try:
                    run(result[name])
                except (OSError, AssertionError, subprocess.SubprocessError) as error:
                    result[name].setdefault("faults", []).append(f"the run ended: {error}")
            whole = True
    finally:
        text = json.dumps(result, indent=2, default=dataclasses.asdict)
        (args.output / "result.json").write_text(text + "\n")
        say(f"samples and result are in {args.output}")
    if not whole:
        say("interrupted: no page was written")
        return 130
    if args.picture and result["soak"].get("windows"):
        draw(args.picture, args.output / "soak.csv", result["soak"])
    if args.page:
        picture = args.picture and os.path.relpath(args.picture, args.page.parent)
        write_section(args.page, "soak", soak_text(result, picture))
        write_section(args.page, "stress", stress_text(result))
    wrong = [*soak_growth(result["soak"]), *cycles_growth(result["cycles"])]
    wrong += [fault for name in parts for fault in result[name]["faults"]]
    for line in wrong:
        say(f"does not hold: {line}")
    return 1 if wrong else 0


def make_parser():
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0, help="of full load")
    parser.add_argument("--cycles", type=int, default=1000, help="through the states")
    parser.add_argument("--stress", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--weights", default=weights.DEFAULT, help="under full load")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WxH")
    parser.add_argument("--output", type=Path, default=Path("soak_output"))
    parser.add_argument("--page", type=Path, help="to write what came of it into")
    parser.add_argument("--picture", type=Path, help="to draw latency and memory into")
    return parser


def _size(text):
    width, height = re.fullmatch(r"(\d+)x(\d+)", text).groups()
    return int(width), int(height)


def say(line):
    print(line, flush=True)


# Verdicts


def soak_growth(part):
    """What is not flat under load."""
    trends = part.get("trends", [])
    rising = [
        f"{trend.process}: memory rises by {trend.slope * 60:.2f} MiB a minute"
        for trend in trends
        if trend.slope * 60 > MOST_MIB_A_MINUTE
    ]
    return rising + [line for trend in trends for line in trend.growth()]


def cycles_growth(part):
    """What is not flat over the cycles."""
    trends = part.get("trends", [])
    rising = [
        f"{trend.process}: memory rises by {own:.1f} KiB a cycle of its own"
        for trend in trends
        if (own := trend.slope * 1024 - kept_kib(part)) > MOST_KIB_A_CYCLE
    ]
    return rising + [line for trend in trends for line in trend.growth()]


def kept_kib(part):
    """What rclpy and safetensors keep of a cycle."""
    kept = part["kept"]
    return (soak_cycles.SUBSCRIPTIONS * kept["subscription"] + kept["weights"]) / 1024


# The page


def soak_text(result, picture):
    """picture: its path from the page, or None."""
    soak, cycles = result["soak"], result["cycles"]
    parts = [f"`make soak`, on {computer(result)}.", *_load_text(soak, picture)]
    return "\n\n".join([*parts, *_cycles_text(cycles)])


def computer(result):
    return "{cpu}, {threads} threads, GPU: {gpu}".format(**result["machine"])


def _load_text(soak, picture):
    faults = "\n".join(f"- {fault}" for fault in _shown(soak["faults"]))
    if not soak.get("windows"):
        yield f"**Full load**: it did not come to a measurement.\n\n{faults}"
        return
    width, height = soak["size"]
    yield (
        f"**{_duration(soak['seconds'])} at full load.** Two cameras of {width}x{height} at "
        f"{soak['rate']:.0f} Hz, more than the node can take, and beside it a recorder that keeps "
        f"its newest {soak_load.RECORDER['total_mb']} MB, a console whose page was opened and "
        f"closed {soak['page']['visits']} times, and a subscriber of the overlay that came and "
        f"went {soak['viewer']['visits']} times. While there is no target, about half of the "
        "time, pairs are answered without the network."
    )
    yield "\n".join(
        [
            "| until | answered | 50 % of the answers within | 95 % | 99 % |",
            "|---|---|---|---|---|",
            *(
                f"| {_duration(window['until'])} | {window['answered_hz']:.1f} Hz | "
                + " | ".join(f"{ms:.0f} ms" for ms in window["latency_ms"])
                + " |"
                for window in soak["windows"]
            ),
        ]
    )
    if picture:
        yield f"![Latency and memory in the course of the run]({picture})"
    yield _trends_table(soak["trends"], "a minute", 60)
    growth = soak_growth(soak)
    limits = (
        f"Flat is: after {_duration(soak['warm_up'])} the memory of no process rises by more than "
        f"{MOST_MIB_A_MINUTE:g} MiB a minute, by least squares, and at the end there are no more "
        "threads, file handles and shared memory segments than then. "
    )
    yield limits + (
        "All of it was flat." if not growth else "Not flat: " + "; ".join(growth) + "."
    )
    waits = soak["waits_ms"]
    recorder = soak["recorder"]
    yield (
        f"{soak['inits']} targets were started and {soak['resets']} times all were dropped"
        + (
            f"; the first answer with a new target came {max(waits):.0f} ms after the service's "
            "at the latest"
            if waits
            else ""
        )
        + f". The recorder wrote {recorder.get('images', '0')} images, "
        f"{recorder.get('messages dropped', '0')} messages were too much for its disk. "
        + (
            "No request was refused or left without an answer, and each box was that of the next "
            "answers."
            if not soak["faults"]
            else "What did not hold:"
        )
    )
    if faults:
        yield faults


def _cycles_text(cycles):
    faults = "\n".join(f"- {fault}" for fault in _shown(cycles["faults"]))
    if not cycles.get("trends"):
        yield "**Through the states**: it did not come to a measurement."
    else:
        median, slowest = cycles["seconds"]
        growth = cycles_growth(cycles)
        yield (
            f"**{cycles['cycles']:,} times through the states.** One tracker with a tiny network: "
            "configure, activate, answer a pair, deactivate, clean up; in each "
            f"{soak_cycles.INIT_EVERY}th a target too. A cycle took {median:.2f} s, and in 99 of "
            f"100 up to {slowest:.2f} s."
        )
        yield _trends_table(cycles["trends"], "in 1,000 cycles", 1000)
        yield (
            f"The memory of a cycle rises by {cycles['trends'][0].slope * 1024:.1f} KiB. Without "
            f"any node, rclpy keeps {cycles['kept']['subscription']:.0f} bytes of each "
            f"subscription that was destroyed, of which a cycle has {soak_cycles.SUBSCRIPTIONS}, "
            f"and safetensors {cycles['kept']['weights'] / 1024:.1f} KiB of each time that the "
            f"weights are read. Flat is: no more than {MOST_KIB_A_CYCLE:g} KiB beside these, and "
            "no more threads, file handles and segments at the end. "
            + ("It was flat." if not growth else "Not flat: " + "; ".join(growth) + ".")
            + (" No transition failed." if not faults else " What did not hold:")
        )
    if faults:
        yield faults


def _trends_table(trends, over, factor):
    rows = [
        f"| process | memory at start and end | rise {over} | threads | handles | segments |",
        "|---|---|---|---|---|---|",
    ]
    for trend in trends:
        held = " | ".join(f"{first}, {last}" for first, last in trend.held.values())
        first, last = trend.memory
        rows.append(
            f"| `{trend.process}` | {first:.1f}, {last:.1f} MiB | {trend.slope * factor:+.2f} MiB "
            f"| {held} |"
        )
    return "\n".join(rows)


def stress_text(result):
    stress = result["stress"]
    faults = "\n".join(f"- {fault}" for fault in _shown(stress["faults"]))
    if "asked" not in stress:
        return f"It did not come to a measurement.\n\n{faults}"
    total = sum(stress["asked"].values())
    rows = "\n".join(
        f"| {kind} | {count} | {stress['refused'][kind]} | {stress['slowest_ms'][kind]:.0f} ms |"
        for kind, count in stress["asked"].items()
    )
    held = (
        "Each was answered, and each answer was right: ids rise and are never given twice; each "
        "target has one event of its start and one of its end; a target that was dropped is in no "
        "later pair; what was set is what is read, and two parameters that are set together are "
        "read together; who is refused is told a reason that was true."
    )
    return (
        f"`make soak`, on {computer(result)}: {_duration(stress['seconds'])} of requests from "
        f"three processes, each up to {soak_stress.RATE:g} a second, while the node tracked "
        f"{stress['pairs']} pairs with a tiny network and one of the three took it through "
        "deactivate, clean up, configure and activate each second.\n\n"
        "| asked | times | refused | slowest answer |\n|---|---|---|---|\n"
        f"{rows}\n\n{total} requests, each client's after the answer to the one before, together "
        f"{total / stress['seconds']:.0f} a second; {stress['targets']} targets. "
        + (held if not faults else f"What did not hold:\n\n{faults}")
    )


def _shown(faults):
    more = len(faults) - FAULTS_SHOWN
    return [*faults[:FAULTS_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _duration(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def draw(path, samples, soak):
    """Latency and memory over time. samples: the CSV file of `soak_load`."""
    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    axes = figure.add_subplot(1, 2, 1)
    minutes = [window["until"] / 60 for window in soak["windows"]]
    for index, percent in enumerate(soak_load.PERCENTILES):
        values = [window["latency_ms"][index] for window in soak["windows"]]
        axes.plot(minutes, values, marker="o", ms=4, lw=1.6, label=f"{percent} %")
    axes.set(xlabel="time (min)", ylabel="stamp to answer (ms)")
    memory = figure.add_subplot(1, 2, 2)
    rows = [line.split(",") for line in samples.read_text().splitlines()[1:]]
    for process in soak_load.WATCHED:
        points = [(float(row[0]) / 60, float(row[2])) for row in rows if row[1] == process]
        if points:
            memory.plot(*zip(*points, strict=True), lw=1.6, label=process)
    memory.set(xlabel="time (min)", ylabel="memory (MiB)")
    for one in (axes, memory):
        one.set_ylim(bottom=0)
        one.grid(alpha=0.3)
        one.legend(fontsize="small", frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
