# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the code never does: build objects out of files, run text as code, go to the network."""

import ast
import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from networks import tiny

from ainet_ros.tracker import weights
from ainet_ros.vision.scenes import Scene

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "ainet_ros").rglob("*.py"))
FORBIDDEN = re.compile(
    r"(c?[pP]ickle|dill|joblib|marshal|shelve|cloudpickle)\.(load|loads|open|Unpickler)"
    r"|(pandas|pd)\.read_pickle|torch\.(hub|jit)\..*|yaml\.(load|load_all|full_load|unsafe_load)"
    r"|eval|exec|compile|__import__|os\.(system|popen)|urllib\.request\..*|requests\..*"
    r"|huggingface_hub\..*|socket\.(socket|create_connection)"
)
"""Calls that build any object a file names, run text as code, or fetch something."""
RESTRICTED = "ainet_ros/training/published.py"
"""Reads the authors' checkpoints with an unpickler of its own, which builds tensors only."""


def calls(tree):
    """Each call of a module: its name, with what was imported from where, and the node."""
    origins = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                origins[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                origins[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            if not dot or first in origins:  # else a method of some object
                yield origins.get(first, first) + dot + rest, node


def unsafe(source):
    """The lines of a module that call something forbidden, with the call."""
    found = []
    for name, node in calls(ast.parse(source)):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        bad = (
            FORBIDDEN.fullmatch(name)
            or (name == "torch.load" and options.get("weights_only") != "True")
            or options.get("allow_pickle", "False") != "False"
            or options.get("trust_remote_code", "False") != "False"
            or (name.startswith("subprocess.") and options.get("shell", "False") != "False")
        )
        if bad:
            found.append(f"{node.lineno}: {name}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(data)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch\ntorch.hub.load('a', 'b')",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "import subprocess as s\ns.run(text, shell=True)",
        "from urllib.request import urlopen\nurlopen(address)",
    ],
)
def test_what_is_unsafe_is_found(source):
    assert len(unsafe(source)) == 1


def test_what_is_safe_is_not():
    source = """
import re, torch, yaml, numpy as np
torch.load(path, weights_only=True)
yaml.safe_load(text)
np.load(path)
re.compile(pattern)
network.eval()
requests.append(one)
"""
    assert unsafe(source) == []


def test_no_module_builds_objects_out_of_files_or_fetches_anything():
    assert len(MODULES) > 80
    found = {
        str(path.relative_to(ROOT)): lines
        for path in MODULES
        if (lines := unsafe(path.read_text(encoding="utf-8")))
    }
    allowed = [line.partition(": ")[2] for line in found.pop(RESTRICTED)]
    assert allowed == ["torch.load"]
    assert found == {}


# Without the network

OFFLINE = ["-c", "import sys; from ainet_ros.cli import main; sys.exit(main(sys.argv[1:]))"]
GUARD = """
import atexit, os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments[-1 if event != 'socket.getaddrinfo' else 0]}\\n")

sys.addaudithook(watch)
with open(os.environ["WATCHED"], "a") as file:
    file.write("watching\\n")
"""


@pytest.fixture
def scene(tmp_path):
    Scene(0, frames=4, size=(160, 120)).write(tmp_path / "scene")
    weights.save(tiny(), tmp_path / "tiny.safetensors")
    return tmp_path / "scene"


def track(scene, *before, **environment):
    """Run `ainet track`."""
    options = ["--weights", str(scene.parent / "tiny.safetensors")]
    options += ["--output", str(scene.parent / "out")]
    command = [*before, sys.executable, *OFFLINE, "track", str(scene), *options]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert any((scene.parent / "out").rglob("*.txt"))


def watched(folder):
    """Environment of a process of Python whose use of sockets is written down, and the file."""
    (folder / "shim").mkdir()
    (folder / "shim" / "sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join([str(folder / "shim"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "WATCHED": str(folder / "watched.txt")}, folder / "watched.txt"


def test_a_connection_would_be_seen(tmp_path):
    environment, log = watched(tmp_path)
    code = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)
    assert "socket.connect ('127.0.0.1', 9)" in log.read_text()


def test_ainet_track_opens_no_connection(scene, tmp_path):
    environment, log = watched(tmp_path)
    track(scene, **environment)
    assert set(log.read_text().splitlines()) == {"watching"}


def test_ainet_track_needs_no_network(scene):
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("needs unshare, and the right to make a network of its own")
    track(scene, *alone)


LOCAL = [ipaddress.ip_network(net) for net in ("127.0.0.0/8", "::1/128", "::/128", "0.0.0.0/32")]


def is_here(address, own):
    """Whether what is sent to an address stays on this computer, or is discovery's multicast."""
    one = ipaddress.ip_address(address)
    mapped = getattr(one, "ipv4_mapped", None)
    one = mapped or one
    return one.is_multicast or str(one) in own or any(one in net for net in LOCAL)


def own_addresses():
    """Of this computer's interfaces."""
    table = Path("/proc/net/fib_trie").read_text()
    found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", table)
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits = line.split()[0]
        found.append(str(ipaddress.ip_address(bytes.fromhex(digits))))
    return set(found)


def test_addresses_are_told_apart():
    assert not is_here("8.8.8.8", {"10.0.0.1"})
    assert not is_here("2001:db8::1", set())
    for address in ("127.0.0.1", "10.0.0.1", "239.255.0.1", "::1", "::ffff:127.0.0.1"):
        assert is_here(address, {"10.0.0.1"})


def test_the_tracker_sends_to_this_computer_only(tmp_path):
    """All that the process does, DDS in C++ too. With -D signals reach the node, not strace."""
    ros_nodes = pytest.importorskip("ros_nodes", reason="needs ROS 2")
    calls = tmp_path / "calls.txt"
    trace = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-o", str(calls)]
    trace += ["-e", "trace=connect,sendto,sendmsg,sendmmsg"]
    if shutil.which("strace") is None or subprocess.run([*trace, "true"]).returncode:
        pytest.skip("needs strace, and the right to trace")
    environment, log = watched(tmp_path)
    tiny_weights = ros_nodes.save_tiny_weights(tmp_path / "tiny.safetensors")
    with pytest.MonkeyPatch.context() as patch, ros_nodes.client(tmp_path) as client:
        for name, value in environment.items():
            patch.setenv(name, value)
        node = [sys.executable, "-m", "ainet_ros.ros.tracker_node", "--ros-args"]
        client.run([*trace, *node, "-p", f"weights:={tiny_weights}"])
        client.spin_until(lambda: client.hears(client.rgb), "discovery")
        client.spin_until(lambda: client.hears(client.thermal), "discovery")
        client.spin_for(0.5)
        pairs, boxes = ros_nodes.moving_scene(2)
        first = client.publish(*pairs[0])
        client.spin_for(0.2)
        answer = client.init(boxes[0], first.stamp)
        assert answer.success, answer.message
        client.track(*pairs[1])
    assert set(log.read_text().splitlines()) == {"watching"}
    written = calls.read_text()
    addresses = set(re.findall(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', written))
    reached = {one or other for one, other in addresses}
    assert reached, "discovery sends something"
    own = own_addresses()
    assert {address for address in reached if not is_here(address, own)} == set()
