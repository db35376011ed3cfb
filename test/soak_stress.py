# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Requests of all kinds to one tracker at once, from three processes, and what must hold then.

A client asks one thing after another and writes down what it asked, when, and what the answer was.
`check` looks at all that was written down. What is asked of the node by one client while another
asks too may take effect in any order; what was answered before something else was asked came
before it.

``python test/soak_stress.py NAME ...`` is one client; `run` starts all of them.
"""

import bisect
import dataclasses
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import ros_nodes
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python
from soak_load import troubles

from ainet_ros.msg import Box, Event, Track
from ainet_ros.srv import InitTarget, ResetTarget
from ainet_ros.vision.encoding import stamp_ns
from ainet_ros.vision.scenes import Scene

DEPTH = 5000
RATE = 50.0
"""Most requests a second of a client; each waits for its answer before the next."""
PATIENCE_S = 60.0
RECONFIGURE_S = 1.0
CAMERA_HZ = 30
SIZE = (160, 120)
BOX = (60.0, 40.0, 30.0, 30.0)
UNKNOWN = 2**31
"""No target ever has this id."""
FIRST_PAIR_S = 10.0
"""So long after its activation the node may be without a pair of images."""
LOW, HIGH = "tone_percentile_low", "tone_percentile_high"
"""Set together, so that they add up to 100, by one client, and read by all."""
OWNED = {
    "first": {"overlay_rate": (1.0, 60.0), "catch_up_s": (0.1, 5.0)},
    "second": {"history_s": (1.0, 20.0), "latency_warn": (100.0, 900.0)},
    "manager": {"search_windows": (2, 16), "overlay_quality": (10, 90)},
}
"""The parameters that a client alone sets, and between what."""
OWNER_OF_PAIR = "first"
INACTIVE = "the node is not active"
TRANSITIONS = {
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a client asked, and what came of it."""

    client: str
    kind: str
    asked: dict
    began: int
    """Nanoseconds since the epoch, as in the stamps of the images."""
    ended: int
    answer: dict | None
    """None where none came."""

    @property
    def success(self):
        return self.answer is not None and self.answer.get("success", False)


class Asker:
    """One client."""

    def __init__(self, name, client, seed, file):
        self.name = name
        self.values = {}  # of its parameters, as set last
        self._client, self._file = client, file
        self._random = random.Random(seed)
        self._ids = [0]  # of targets, as answered

    def ask(self, kind, service_type, service, request, read, **asked):
        """The answer as a dict of what `read` makes of it. Raises AssertionError without one."""
        began = time.time_ns()
        answer = None
        try:
            answer = read(self._client.call(service_type, f"ainet/{service}", request))
        finally:
            operation = Operation(self.name, kind, asked, began, time.time_ns(), answer)
            self._file.write(json.dumps(dataclasses.asdict(operation)) + "\n")
        return answer

    def step(self):
        """Anything that anybody may ask."""
        kinds = {
            self.init: 4, self.reset: 2, self.reset_unknown: 1, self.reset_all: 1,
            self.init_nowhere: 1, self.set: 4, self.set_wrong: 1, self.get: 4,
        }  # fmt: skip
        self._random.choices(list(kinds), list(kinds.values()))[0]()

    def init(self, box=BOX, kind="init"):
        x, y, width, height = box
        add = self._random.random() < 0.5
        answer = self.ask(
            kind,
            InitTarget,
            "init",
            InitTarget.Request(box=Box(x=x, y=y, width=width, height=height), add=add),
            lambda r: {"success": r.success, "message": r.message, "id": r.target_id},
            box=box,
            add=add,
        )
        if answer["success"]:
            self._ids.append(answer["id"])

    def init_nowhere(self):
        self.init((BOX[0], BOX[1], 0.0, 0.0), "init nowhere")

    def reset(self, target_id=None):
        # Of the last, which are likely to be there still.
        target_id = self._random.choice(self._ids[-3:]) if target_id is None else target_id
        self.ask(
            "reset",
            ResetTarget,
            "reset",
            ResetTarget.Request(target_id=target_id),
            lambda r: {"success": r.success, "message": r.message},
            id=target_id,
        )

    def reset_unknown(self):
        self.reset(UNKNOWN)

    def reset_all(self):
        self.reset(0)

    def set(self):
        if self.name == OWNER_OF_PAIR and self._random.random() < 0.5:
            low = round(self._random.uniform(0.0, 40.0), 3)
            self._set({LOW: low, HIGH: 100.0 - low})
            return
        name, (low, high) = self._random.choice(list(OWNED[self.name].items()))
        draw = self._random.randint if isinstance(low, int) else self._random.uniform
        self._set({name: draw(low, high)})

    def set_wrong(self):
        name, (_, high) = self._random.choice(list(OWNED[self.name].items()))
        self._set({name: type(high)(10**6)}, "set wrong")

    def _set(self, values, kind="set"):
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        answer = self.ask(
            kind,
            SetParametersAtomically,
            "set_parameters_atomically",
            SetParametersAtomically.Request(parameters=parameters),
            lambda r: {"success": r.result.successful, "message": r.result.reason},
            values=values,
        )
        if answer["success"]:
            self.values |= values

    def get(self):
        names = [*OWNED[self.name], LOW, HIGH]
        self.ask(
            "get",
            GetParameters,
            "get_parameters",
            GetParameters.Request(names=names),
            lambda r: {
                "success": len(r.values) == len(names),
                "values": {
                    n: parameter_value_to_python(v) for n, v in zip(names, r.values, strict=True)
                },
            },
            names=names,
            own=dict(self.values),
        )

    def reconfigure(self):
        """Through all states and back; meanwhile nothing is to be had."""
        for name in TRANSITIONS:
            self.change(name)
            if name != "activate":
                self.init(kind="init inactive")

    def change(self, name):
        self.ask(
            name,
            ChangeState,
            "change_state",
            ChangeState.Request(transition=Transition(id=TRANSITIONS[name])),
            lambda r: {"success": r.success},
        )


def ask_for(name, domain, path, seconds, seed):
    """One client, for so long."""
    with path.open("w", buffering=1) as file:
        client = ros_nodes.Client(path.parent, domain)
        try:
            asker = Asker(name, client, seed, file)
            end = time.monotonic() + seconds
            due, reconfigure_due = time.monotonic(), time.monotonic() + RECONFIGURE_S
            while time.monotonic() < end:
                if name == "manager" and time.monotonic() >= reconfigure_due:
                    asker.reconfigure()
                    reconfigure_due = time.monotonic() + RECONFIGURE_S
                else:
                    asker.step()
                due = max(due + 1 / RATE, time.monotonic())
                client.spin_for(due - time.monotonic())
        finally:
            client.close()


class Observer:
    """What the node publishes meanwhile."""

    def __init__(self, client):
        self.events = []
        """Kind and id of the target."""
        self.tracks = []
        """When it came and the pair's stamp, nanoseconds, and the target's id or 0."""
        client.node.create_subscription(Event, "ainet/events", self._on_event, DEPTH)
        client.node.create_subscription(Track, "ainet/track", self._on_track, DEPTH)

    def _on_event(self, event):
        self.events.append((event.event, event.target_id))

    def _on_track(self, track):
        self.tracks.append((time.time_ns(), stamp_ns(track.header.stamp), track.target_id))


def run(result, folder, seconds, *, say):
    """Fill a dict for JSON. folder: to be made, for what was asked and answered."""
    result |= {"seconds": seconds, "faults": []}
    folder.mkdir()
    with ros_nodes.client(folder) as client:
        observer = Observer(client)
        weights = ros_nodes.save_tiny_weights(folder / "tiny.safetensors")
        # What the tiny network scores means nothing.
        thresholds = {"lost_below": 0.0, "found_above": 0.0}
        tracker = client.start("tracker_node", {"weights": weights, **thresholds})
        Scene(0, frames=2, size=SIZE).write(folder / "scene")
        camera = {"source": folder / "scene", "rate": float(CAMERA_HZ), "paused": True}
        cameras = client.start("replay_camera", camera)
        client.spin_until(lambda: observer.tracks, "answer of the node")
        say(f"stress: {', '.join(OWNED)} ask at up to {RATE:g} Hz each, {seconds:.0f} s")
        files = {name: folder / f"{name}.jsonl" for name in OWNED}
        began = time.monotonic()
        askers = [
            subprocess.Popen(
                [sys.executable, __file__, name, str(client.domain), str(files[name]),
                 str(seconds), str(seed)]
            )
            for seed, name in enumerate(OWNED)
        ]  # fmt: skip
        try:
            told = began
            while any(asker.poll() is None for asker in askers):
                client.spin_for(0.2)
                now = time.monotonic()
                if now - told > min(60.0, seconds / 2):
                    told = now
                    say(f"stress: {now - began:5.0f} s: {len(observer.events)} events")
                if now - began > seconds + 4 * PATIENCE_S:
                    result["faults"].append("the clients do not end")
                    break
                if not (tracker.alive() and cameras.alive()):
                    result["faults"].append("a node ended")
                    break
        finally:
            for asker in askers:
                asker.kill()
                asker.wait()
            operations = [operation for file in files.values() for operation in read(file)]
            with (folder / "seen.jsonl").open("w") as seen:
                for name, rows in (("event", observer.events), ("track", observer.tracks)):
                    seen.writelines(json.dumps([name, *row]) + "\n" for row in rows)
        if not result["faults"]:
            client.reset()  # all targets end
            client.spin_for(1.0)
        counts = {}
        for operation in operations:
            counts.setdefault(operation.kind, []).append(operation)
        result["asked"] = {kind: len(all_of) for kind, all_of in sorted(counts.items())}
        result["refused"] = {
            kind: sum(not operation.success for operation in all_of)
            for kind, all_of in sorted(counts.items())
        }
        result["slowest_ms"] = {
            kind: max(operation.ended - operation.began for operation in all_of) / 1e6
            for kind, all_of in sorted(counts.items())
        }
        result["pairs"] = len({stamp for _, stamp, _ in observer.tracks})
        result["targets"] = sum(kind == Event.INIT for kind, _ in observer.events)
        result["faults"] += check(operations, observer.events, observer.tracks)
        result["faults"] += troubles("tracker_node", tracker.text())


def read(file):
    """The operations of a client; the last line may be torn off."""
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        try:
            yield Operation(**json.loads(line))
        except json.JSONDecodeError:
            return


# What must hold


def check(operations, events, tracks):
    """What does not hold, in words.

    Args:
        operations: of all clients, each client's in the order in which it asked.
        events: (kind, id) in the order in which they came, to the end of the last target.
        tracks: as `Observer` has them.
    """
    faults = [
        f"{o.client}: no answer to {o.kind} within {PATIENCE_S:g} s"
        for o in operations
        if o.answer is None
    ]
    operations = [o for o in operations if o.answer is not None]
    changes = [o for o in operations if o.kind in TRANSITIONS]
    faults += [f"{o.kind} failed" for o in changes if not o.success]
    return [
        *faults,
        *_wrong_inits(operations, changes, events),
        *_wrong_resets(operations, changes, events),
        *_wrong_parameters(operations),
        *_wrong_lives(events),
        *_wrong_tracks(operations, changes, events, tracks),
    ]


def _inactive(changes, *, surely):
    """Spans in which the node was surely not active, or may not have been."""
    left = [o for o in changes if o.kind == "deactivate"]
    back = [o for o in changes if o.kind == "activate"]
    spans = []
    for start, end in itertools.zip_longest(left, back):
        if surely:
            spans.append((start.ended, end.began if end else float("inf")))
        else:
            spans.append((start.began, end.ended if end else float("inf")))
    return spans


def _wrong_inits(operations, changes, events):
    inits = [o for o in operations if o.kind.startswith("init")]
    off, perhaps_off = _inactive(changes, surely=True), _inactive(changes, surely=False)
    started = [o for o in inits if o.success]
    ids = [o.answer["id"] for o in started]
    for target_id in {i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ():
        yield f"target {target_id} was started twice"
    told = {target_id for kind, target_id in events if kind == Event.INIT}
    highest, by_end = 0, sorted(started, key=lambda o: o.ended)
    ended = iter(by_end)
    waiting = next(ended, None)
    for o in sorted(started, key=lambda o: o.began):
        while waiting is not None and waiting.ended < o.began:
            highest = max(highest, waiting.answer["id"])
            waiting = next(ended, None)
        if o.answer["id"] <= highest:
            yield f"target {o.answer['id']} was asked for after {highest} was answered"
        if o.answer["id"] not in told:
            yield f"target {o.answer['id']} was started without an event INIT"
    for target_id in sorted(told - set(ids)):
        yield f"an event INIT of target {target_id}, which nobody was answered with"
    for o in inits:
        message = o.answer["message"]
        if o.kind == "init nowhere" and o.success:
            yield f"{o.client}: a box without a size started target {o.answer['id']}"
        if o.success:
            if message or any(begin < o.began and o.ended < end for begin, end in off):
                yield f"target {o.answer['id']} was started while inactive, or with a message"
            continue
        overlaps = any(begin < o.ended and o.began < end for begin, end in perhaps_off)
        if INACTIVE in message:
            fits = overlaps
        elif "no pair of images has come in yet" in message:
            fits = any(begin < o.ended < end + FIRST_PAIR_S * 1e9 for begin, end in perhaps_off)
        elif "max_targets" in message:
            fits = o.asked["add"]
        else:
            fits = o.kind == "init nowhere" and "is empty" in message
        if not fits:
            yield f"{o.client}: {o.kind} was refused: {message!r}"
        if o.kind == "init inactive" and INACTIVE not in message:
            yield f"an init between deactivate and activate was refused: {message!r}"


def _wrong_resets(operations, changes, events):
    perhaps_off = _inactive(changes, surely=False)
    resets = [o for o in operations if o.kind == "reset"]
    told = {target_id for kind, target_id in events if kind == Event.RESET}
    dropped = set()
    for o in resets:
        target_id, message = o.asked["id"], o.answer["message"]
        if o.success:
            if target_id == UNKNOWN:
                yield f"{o.client}: a target that never was could be dropped"
            elif target_id in dropped:
                yield f"target {target_id} was dropped twice"
            elif target_id and target_id not in told:
                yield f"target {target_id} was dropped without an event RESET"
            if target_id:
                dropped.add(target_id)
            continue
        if INACTIVE in message:
            fits = any(begin < o.ended and o.began < end for begin, end in perhaps_off)
        else:
            fits = target_id and f"no target has the id {target_id}" in message
        if not fits:
            yield f"{o.client}: reset of {target_id} was refused: {message!r}"


def _wrong_parameters(operations):
    for o in operations:
        if o.kind == "set" and not o.success:
            yield f"{o.client}: {o.asked['values']} was refused: {o.answer['message']!r}"
        elif o.kind == "set wrong":
            (name,) = o.asked["values"]
            if o.success or name not in o.answer["message"]:
                yield f"{o.client}: {o.asked['values']} was answered {o.answer}"
        elif o.kind == "get":
            values = o.answer["values"]
            for name, value in o.asked["own"].items():
                if values[name] != value:
                    yield f"{o.client}: {name} was set to {value} and read as {values[name]}"
            if abs(values[LOW] + values[HIGH] - 100.0) > 1e-9:
                yield f"{o.client}: {LOW} and {HIGH} were read as of two settings: {values}"


def _wrong_lives(events):
    """Each target is started once, with an id larger than all before, and ends once."""
    alive, newest = set(), 0
    for kind, target_id in events:
        if kind == Event.INIT:
            if target_id <= newest:
                yield f"an event INIT of target {target_id} after that of {newest}"
            newest = max(newest, target_id)
            alive.add(target_id)
        elif kind == Event.RESET:
            if target_id not in alive:
                yield f"an event RESET of target {target_id}, which was not there"
            alive.discard(target_id)
        elif target_id not in alive | {0}:
            yield f"an event {kind} of target {target_id}, which was not there"
    for target_id in sorted(alive):
        yield f"target {target_id} ended without an event"


def _wrong_tracks(operations, changes, events, tracks):
    """Of pairs taken after something was answered."""
    if not any(target_id for _, _, target_id in tracks):
        yield "no pair was answered with a target"
    started = {target_id for kind, target_id in events if kind == Event.INIT}
    dropped = {o.asked["id"]: o.ended for o in operations if o.kind == "reset" and o.success}
    inits = [o for o in operations if o.kind.startswith("init") and o.success]
    # From when on, by the answers, there is no target with a smaller id.
    least = [(o.ended, o.answer["id"]) for o in inits if not o.asked["add"]]
    by_end = sorted((o.ended, o.answer["id"]) for o in inits)
    newest = list(itertools.accumulate((target_id for _, target_id in by_end), max))
    for o in changes:
        index = bisect.bisect_left(by_end, (o.began, 0)) - 1
        if o.kind == "deactivate" and index >= 0:
            least.append((o.ended, newest[index] + 1))
    least.sort()
    ends = [end for end, _ in least]
    oldest = list(itertools.accumulate((target_id for _, target_id in least), max))
    off = _inactive(changes, surely=True)
    offs = [begin for begin, _ in off]
    for came, stamp, target_id in tracks:
        index = bisect.bisect_left(offs, stamp) - 1
        if index >= 0 and came < off[index][1]:
            yield f"the pair of {stamp} was answered while inactive"
        if not target_id:
            continue
        if target_id not in started:
            yield f"the pair of {stamp} was answered with target {target_id}, which never was"
        if stamp > dropped.get(target_id, stamp):
            yield f"the pair of {stamp} was answered with target {target_id}, dropped before"
        index = bisect.bisect_left(ends, stamp) - 1
        if index >= 0 and target_id < oldest[index]:
            yield f"the pair of {stamp} was answered with target {target_id}, gone before"


if __name__ == "__main__":
    name, domain, path, seconds, seed = sys.argv[1:]
    ask_for(name, int(domain), Path(path), float(seconds), int(seed))
