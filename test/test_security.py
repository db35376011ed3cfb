# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# ruff: noqa: E402 - without ROS the rest is not imported
"""The policy for SROS2: against the tables, against running nodes, and as DDS enforces it."""

import asyncio
import copy
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")

from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.parameter import Parameter

from ainet_ros.ros.interfaces import REPLAY_CAMERA, TRACKER

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "config/sros2/policy.xml"
USES = {
    "publish": "published",
    "subscribe": "subscribed",
    "reply": "services",
    "request": "clients",
}
"""What a policy allows, as the graph and the tables have it."""
BOND = {("published", "/bond"), ("subscribed", "/bond")}
NOT_EVERYWHERE = {"get_type_description"}
"""Services that a distribution may not have."""


def full_name(name, node):
    """As a node in the namespace / resolves it."""
    if name.startswith("~/"):
        return f"/{node}/{name[2:]}"
    return name if name.startswith("/") else f"/{name}"


def granted(node):
    """(use, name) of all that the policy allows the enclave of a node."""
    (profile,) = [
        profile
        for enclave in ElementTree.parse(POLICY).getroot().iter("enclave")
        if enclave.get("path") == f"/{node}"
        for profile in enclave.iter("profile")
    ]
    assert (profile.get("ns"), profile.get("node")) == ("/", node)
    found = [
        (use, full_name(expression.text, node))
        for entry in profile
        for attribute, use in USES.items()
        if entry.get(attribute) == "ALLOW"
        for expression in entry
    ]
    assert len(found) == len(set(found)), "something is allowed twice"
    return set(found)


def of_every(kind, context):
    """What a node of this class uses that adds nothing."""
    simulated = [Parameter("use_sim_time", value=True)]
    bare = kind("bare", context=context, parameter_overrides=simulated)
    found = {(use, name.replace("/bare/", "~/")) for use, name in used(bare, "bare")}
    bare.destroy_node()
    return found


def used(observer, node):
    """(use, name) of what the graph knows of a node; nothing while it does not know the node."""
    queries = {
        "published": observer.get_publisher_names_and_types_by_node,
        "subscribed": observer.get_subscriber_names_and_types_by_node,
        "services": observer.get_service_names_and_types_by_node,
        "clients": observer.get_client_names_and_types_by_node,
    }
    try:
        return {(use, name) for use, query in queries.items() for name, _ in query(node, "/")}
    except NodeNameNonExistentError:
        return set()


def missing_here(entry):
    """Allowed, and not to be found where a package or the distribution lacks it."""
    absent = {
        full_name(one.name, "ainet")
        for one in (*TRACKER.published, *TRACKER.subscribed)
        if one.needs and importlib.util.find_spec(one.needs) is None
    }
    return entry[1] in absent or entry[1].rpartition("/")[2] in NOT_EVERYWHERE


@pytest.mark.parametrize(
    ("node", "kind", "interfaces", "more"),
    [
        ("ainet", LifecycleNode, TRACKER, BOND),
        ("replay_camera", Node, REPLAY_CAMERA, set()),
    ],
    ids=["ainet", "replay_camera"],
)
def test_policy_is_what_the_tables_say(tmp_path, node, kind, interfaces, more):
    with ros_nodes.client(tmp_path) as client:
        common = {
            (use, full_name(name, node)) for use, name in of_every(kind, client.node.context)
        }
    own = {
        (use, full_name(one.name, node))
        for use in ("published", "subscribed", "services")
        for one in getattr(interfaces, use)
    }
    expected = common | own | more
    assert expected - granted(node) == set(), "the node needs it, and the policy refuses it"
    beyond = {entry for entry in granted(node) - expected if not missing_here(entry)}
    assert beyond == set(), "the policy allows it, and the node does not need it"


def any_transport(entries):
    """The same, whichever way the images come."""
    return {(use, name.replace("/image_raw/compressed", "/image_raw")) for use, name in entries}


async def look(address, view):
    """A page of the console that is open until this is cancelled."""
    aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp")
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}socket") as page:
        await page.send_json({"do": "view", "view": view})
        async for _ in page:
            await page.send_json({"do": "seen"})


def test_policy_is_what_running_nodes_use(tmp_path):
    pytest.importorskip("rosbags", reason="needs rosbags")
    with ros_nodes.client(tmp_path) as client:
        weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
        # A camera of either transport.
        transports = {"thermal_transport": "compressed"}
        client.start("replay_camera", {"loop": True, **transports})
        client.start("tracker_node", {"weights": weights, **transports})
        client.start("recorder", {"folder": str(tmp_path / "record"), **transports})
        console = client.start("console", {"port": 0})
        client.run([sys.executable, "-m", "ainet_ros.ros.demo", "--attach"])
        console.wait_for_log("ready: ")
        address = re.search(r"ready: (\S+)", console.text())[1]
        found = {node: set() for node in ("ainet", "console", "recorder", "replay_camera")}

        def idle(node):
            """Allowed, and not seen to be used."""
            found[node] |= any_transport(used(client.node, node))
            left = any_transport(granted(node)) - found[node] - BOND - {("subscribed", "/clock")}
            return {entry for entry in left if not missing_here(entry)}

        async def watch():
            pages = [asyncio.create_task(look(address, view)) for view in ("overlay", "rgb")]
            pages.append(asyncio.create_task(look(address, "thermal")))
            spinning = functools.partial(
                client.spin_until,
                lambda: not any(idle(node) for node in found),
                "use of all that is allowed",
            )
            try:
                await asyncio.to_thread(spinning)
            finally:
                for page in pages:
                    page.cancel()

        # The browser's tests leave a loop in this thread.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, watch()).result()
        for node, entries in found.items():
            assert entries - any_transport(granted(node)) == set()
        client.spin_until(lambda: used(client.node, "operator"), "operator")
        assert used(client.node, "operator") <= granted("operator")


def test_sros2_can_read_the_policy():
    """It takes every child of <enclaves> for an enclave, a comment too."""
    keep_comments = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    (enclaves,) = [
        child
        for child in ElementTree.parse(POLICY, keep_comments).getroot()
        if child.tag is not ElementTree.Comment
    ]
    assert [child.tag for child in enclaves] == ["enclave"] * 5


def test_who_gets_images_raw_gets_them_compressed():
    for node in ("ainet", "console", "recorder", "replay_camera"):
        for use, name in granted(node):
            if name.endswith("/image_raw"):
                assert (use, f"{name}/compressed") in granted(node)


def test_an_operator_sees_and_starts_targets_and_no_more():
    offered = {
        ("subscribed" if use == "published" else "clients", full_name(one.name, "ainet"))
        for use in ("published", "services")
        for one in getattr(TRACKER, use)
    }
    offered.add(("subscribed", "/replay_camera/frame"))
    own = {entry for entry in granted("operator") if entry[0] in ("subscribed", "clients")}
    assert own - {("subscribed", "/clock")} <= offered


# Enforcement


def write_others(path):
    """A policy of two more enclaves: an operator with cameras, and one who may only look."""
    policy = ElementTree.parse(POLICY).getroot()
    (enclaves,) = policy
    (operator,) = [enclave for enclave in enclaves if enclave.get("path") == "/operator"]
    enclaves[:] = [copy.deepcopy(operator), copy.deepcopy(operator)]
    for enclave, name in zip(enclaves, ("client", "outsider"), strict=True):
        enclave.set("path", f"/{name}")
        enclave[0][0].set("node", name)
    client, outsider = (enclave[0][0] for enclave in enclaves)
    cameras = ElementTree.SubElement(client, "topics", publish="ALLOW")
    for name in ("rgb/image_raw", "thermal/image_raw"):
        ElementTree.SubElement(cameras, "topic").text = name
    outsider[:] = [entry for entry in outsider if entry.get("request") is None]
    ElementTree.ElementTree(policy).write(path)


CALL = """
import sys
import rclpy
from ainet_ros.srv import InitTarget
name, seconds = sys.argv[1:]
rclpy.init(args=["--ros-args", "--enclave", f"/{name}"])
node = rclpy.create_node(name)
print("a node")
there = node.create_client(InitTarget, "ainet/init").wait_for_service(float(seconds))
print("it sees ~/init" if there else "it sees no ~/init")
"""
WAIT_S = 10.0
"""An outsider's patience: who may see the service does so in less."""


def security(keystore):
    return {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(keystore),
    }


def look_for_init(name, domain, **environment):
    """What a node of this name prints that looks for ~/init, in the enclave of its name."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ROS_SECURITY_")}
    done = subprocess.run(
        [sys.executable, "-c", CALL, name, str(WAIT_S)],
        env=inherited | {"ROS_DOMAIN_ID": str(domain)} | environment,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def generate(keystore, domain, *policies):
    """Keys and permissions as docs/security.md has them made."""
    command = ["ros2", "security", "generate_artifacts", "-k", str(keystore), "-p"]
    done = subprocess.run(
        [*command, *map(str, policies)],
        env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def domain():
    """That the keys are for."""
    return ros_nodes.new_domain()


@pytest.fixture
def keystore(tmp_path, domain):
    """A keystore of the policy and of two more enclaves; skips where nothing enforces it."""
    if (
        shutil.which("ros2") is None
        or subprocess.run(["ros2", "security", "-h"], capture_output=True).returncode
    ):
        pytest.skip("needs sros2 (ros2 security)")
    folder = tmp_path / "keystore"
    others = tmp_path / "others.xml"
    write_others(others)
    generate(folder, domain, POLICY, others)
    said = look_for_init("outsider", domain, **security(folder))
    if "a node" not in said:
        pytest.skip(f"DDS has no security here: {said.strip().splitlines()[-1]}")
    return folder


@pytest.fixture
def secured(tmp_path, keystore, domain, monkeypatch):
    """A client in the enclave /client, whose processes are secured too."""
    for name, value in security(keystore).items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as early:
        early.setattr(ros_nodes, "new_domain", lambda: domain)
        early.setenv("ROS_SECURITY_ENCLAVE_OVERRIDE", "/client")
        one = ros_nodes.Client(tmp_path)
    try:
        yield one
    finally:
        one.close()


def test_targets_are_tracked_within_and_nobody_gets_in_from_without(secured, tmp_path, keystore):
    weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    tracker = secured.start("tracker_node", {"weights": weights}, "--enclave", "/ainet")
    tracker.wait_for_log("ready:")
    secured.spin_until(lambda: secured.hears(secured.rgb), "discovery")
    secured.spin_until(lambda: secured.hears(secured.thermal), "discovery")
    secured.spin_for(1.0)
    pairs, boxes = ros_nodes.moving_scene(4)
    first = secured.publish(*pairs[0])
    secured.spin_for(0.2)
    answer = secured.init(boxes[0], first.stamp)
    assert answer.success, answer.message
    track = secured.track(*pairs[1])
    assert track.target_id == answer.target_id
    keys = security(keystore)
    assert "it sees ~/init" in look_for_init("operator", secured.domain, **keys)
    # Without keys the tracker is not seen at all.
    assert "it sees no ~/init" in look_for_init("operator", secured.domain)
    # In an enclave that lacks ~/init there is a node, and no way to ask.
    refused = look_for_init("outsider", secured.domain, **keys)
    assert "a node" in refused
    assert "it sees ~/init" not in refused
    # The tracker is as it was.
    assert secured.track(*pairs[2]).target_id == answer.target_id


def test_every_node_works_within_its_enclave(secured, tmp_path):
    pytest.importorskip("rosbags", reason="needs rosbags")
    weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    record = str(tmp_path / "record")
    nodes = [
        secured.start(module, parameters, "--enclave", enclave)
        for module, enclave, parameters in (
            ("recorder", "/recorder", {"folder": record, "free_mb": 0}),
            ("console", "/console", {"port": 0}),
            ("tracker_node", "/ainet", {"weights": weights}),
            ("replay_camera", "/replay_camera", {"loop": True, "rate": 5.0}),
        )
    ]
    operator = ["-m", "ainet_ros.ros.demo", "--attach", "--ros-args", "--enclave", "/operator"]
    nodes.append(secured.run([sys.executable, *operator]))
    nodes[0].wait_for_log("ready: the tracker has told")
    secured.spin_until(lambda: any(track.target_id for track in secured.tracks), "target")
    nodes[0].wait_for_log("recording into")
    for node in nodes:
        assert node.alive()
        assert "allow rule" not in node.text()


def test_without_its_keys_the_tracker_does_not_start(tmp_path, keystore, monkeypatch):
    for name, value in security(keystore).items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "tracker.log"
    command = [sys.executable, "-m", "ainet_ros.ros.tracker_node", "--ros-args"]
    process = ros_nodes.Process([*command, "--enclave", "/nobody"], log, ros_nodes.new_domain())
    try:
        assert process.wait() != 0
    finally:
        process.end()
    assert "/nobody" in process.text()
