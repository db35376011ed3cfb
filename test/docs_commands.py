# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What the documentation tells users to type, checked against the code.

Each check raises ValueError naming what is wrong.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import io
import itertools
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import yaml
from markdown_it import MarkdownIt

from ainet_ros.cli import make_parser
from ainet_ros.ros.interfaces import TRACKER
from ainet_ros.ros.parameters import NODES, TrackerParameters
from ainet_ros.ros.replay_camera import CameraParameters
from ainet_ros.ros.table import describe
from ainet_ros.training.config import TrainConfig
from ainet_ros.training.parts import Parts

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir())
MADE = (
    *(".venv/", "build/", "install/", "log/", "runs/"),
    *("bench_output/", "demo_output/", "fuzz_output/", "soak_output/"),
)
"""Folders that are not there in a clean clone."""
SHARE = "$(ros2 pkg prefix --share ainet_ros)/"
TYPES = ("ainet_ros/msg/", "ainet_ros/srv/")
OTHERS = set(
    "apt cd colcon cp export git mkdir pip rosdep rqt_image_view rviz2".split()
    + "ssh sudo tensorboard".split()
)
"""Programs of others: what they are given is not checked, save files of this repository."""
OTHERS_OPTIONS = set(
    "--clock --enclave --loop --nnodes --rdzv-endpoint --ros-args --show-args".split()
)
ROS2 = {"bag", "launch", "lifecycle", "param", "run", "security", "service", "topic"}
INCLUDED = r"\w+\.launch\.py"
TRANSITIONS = {"configure", "activate", "deactivate", "cleanup", "shutdown"}
TABLES = {
    **NODES,
    "tracker_node": TrackerParameters,
    "replay_camera": CameraParameters,
}
"""By executable and by node."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Something to type."""

    line: int
    language: str
    """Of a fenced block; of an indented one bash; empty within a sentence."""
    text: str


def pieces(page):
    """All of a Markdown page."""
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            yield Piece(line, token.info.strip(), token.content)
        elif token.type == "code_block":
            yield Piece(line, "bash", token.content)
        elif token.type == "inline":
            for child in token.children:
                if child.type == "code_inline":
                    yield Piece(line, "", child.content)


def check(piece):
    """Raises ValueError where a piece is wrong."""
    if piece.language == "bash":
        for words in commands(piece.text):
            check_command(words)
    elif piece.language == "yaml":
        check_yaml(yaml.safe_load(piece.text))
    elif piece.language == "xml":
        check_launch_xml(ElementTree.fromstring(piece.text))
    elif piece.language == "":
        check_inline(piece.text)


def commands(script):
    """The words of each command of a script, less redirections."""
    script = script.replace("\\\n", " ")
    for command in re.findall(r"\$\(([^()]*)\)", script):
        yield from commands(command)
    # What is installed lies there as it lies here.
    script = re.sub(r"\$\([^()]*\)", "RESULT", script.replace(SHARE, ""))
    waiting = ""
    for line in script.splitlines():
        waiting += line + "\n"
        lexer = shlex.shlex(waiting, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:  # a quotation goes on in the next line
            continue
        waiting = ""
        words = []
        for token in [*tokens, ";"]:
            if not set(token) <= set(";&|"):
                words.append(token)
                continue
            while len(words) > 2 and words[-2] in (">", ">>", "<"):
                del words[-2:]
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
    if waiting:
        raise ValueError(f"a quotation does not end: {waiting}")


def check_inline(text):
    """Code within a sentence: a command that may be cut short, an option, or NAME:=VALUE."""
    option = re.match(r"--[a-z][\w-]*", text)
    argument = re.match(r"(\w+):=", text)
    if text.split(" ")[0] in ("ainet", "make", "ros2"):
        for words in commands(text):
            check_command(words, whole=False)
    elif option:
        if option[0] not in all_options() | OTHERS_OPTIONS:
            raise ValueError(f"no command has the option {option[0]}")
    elif argument:
        known = {*launch_arguments("demo.launch.py"), *describe(TrackerParameters)}
        if argument[1] not in known:
            raise ValueError(f"neither a launch argument nor a parameter: {argument[1]}")


def check_command(words, whole=True):
    """whole: nothing that it needs is left out."""
    check_files(words)
    program, *rest = words
    if program == "ainet":
        check_ainet(rest, whole)
    elif program in ("python", "python3", "torchrun"):
        if "-m" not in rest:
            raise ValueError(f"{program}: only -m MODULE is known here")
        module, *arguments = rest[rest.index("-m") + 1 :]
        if module == "ainet_ros.cli":
            check_ainet(arguments, whole)
        else:
            module_of(module)
    elif program == "make":
        check_make(rest)
    elif program == "ros2":
        check_ros2(rest, whole)
    elif program in (".", "source"):
        made = rest[0].startswith(("/opt/ros/", *MADE)) or rest[0].endswith("/bin/activate")
        if not made and not (ROOT / rest[0]).exists():
            raise ValueError(f"no file {rest[0]}")
    elif program not in OTHERS and not program.startswith("scripts/"):
        raise ValueError(f"a program not known here: {program}")


def check_files(words):
    """Files of the repository, and extras of the package, that a command names."""
    for word in words:
        path = word.partition(":=")[2] or word
        ours = path.startswith(FOLDERS) and not path.startswith((*MADE, *TYPES))
        if ours and not (ROOT / path).exists():
            raise ValueError(f"no file {path} in the repository")
        extras = re.fullmatch(r"(?:\.|ainet_ros)\[([\w,]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            if f'"{extra}"' not in (ROOT / "setup.py").read_text(encoding="utf-8"):
                raise ValueError(f"setup.py has no extra {extra}")


def run_parser(words):
    """Exit status, output and last line of the errors of `ainet` as it reads its arguments."""
    output, errors = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            make_parser().parse_args(words)
        except SystemExit as end:
            status = end.code
    return status, output.getvalue(), errors.getvalue().strip().rpartition("\n")[2]


def help_of(*words):
    return run_parser([*words, "--help"])[1]


def options(*words):
    """The options of a subcommand."""
    return set(re.findall(r"--[a-z][\w-]*", help_of(*words)))


@functools.cache
def all_options(*words):
    """The options of a command and of its subcommands, which its help shows further in."""
    names = re.findall(r"^    ([a-z]+)(?: |$)", help_of(*words), re.MULTILINE)
    return options(*words).union(*(all_options(*words, name) for name in names))


def check_ainet(words, whole):
    status, _, error = run_parser(words)
    if not status:
        return
    if whole or "are required" not in error:
        raise ValueError(error)
    plain = [word for word in words if not word.startswith("-")]
    for option in set(re.findall(r"--[a-z][\w-]*", " ".join(words))) - options(*plain):
        raise ValueError(f"ainet {' '.join(plain)} has no option {option}")


def check_make(words):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable and f"$({name})" not in makefile:
            raise ValueError(f"the Makefile uses no variable {name}")
        if not is_variable and not re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE):
            raise ValueError(f"the Makefile has no target {name}")


def check_ros2(words, whole):
    if len(words) == 1 and not whole and words[0] in ROS2:
        return
    match words:
        case ["launch", "ainet_ros", file, *arguments]:
            check_launch(file, arguments)
        case ["run", "ainet_ros", executable, *arguments]:
            check_run(executable, arguments)
        case ["service", "call", name, *rest] if rest or not whole:
            service = find(TRACKER.services, name)
            if rest and rest[0] != service.type:
                raise ValueError(f"the type of {name} is {service.type}, not {rest[0]}")
            if len(rest) > 1:
                check_fields(yaml.safe_load(rest[1]), interface(rest[0]).Request)
        case ["topic", "pub", *rest]:
            name, kind, *data = [word for word in rest if not word.startswith("-")]
            topic = find(TRACKER.subscribed, name)
            if kind != topic.type:
                raise ValueError(f"the type of {name} is {topic.type}, not {kind}")
            if data:
                check_fields(yaml.safe_load(data[0]), interface(kind))
        case ["topic", "bw" | "delay" | "echo" | "hz" | "info" | "type", *rest]:
            name = next((word for word in rest if word.startswith("/")), "")
            if whole and not name:
                raise ValueError("no topic is named")
            if "/ainet/" in name or name == "/diagnostics":
                find(TRACKER.subscribed + TRACKER.published, name)
        case ["param", "describe" | "get" | "set" as verb, node, name, *_]:
            table = TABLES.get(node.rpartition("/")[2])
            if table is None:
                raise ValueError(f"no node {node}")
            if name not in describe(table):
                raise ValueError(f"{node} has no parameter {name}")
            if verb == "set" and describe(table)[name].read_only:
                raise ValueError(f"the parameter {name} is read only")
        case ["param", "dump" | "list", node]:
            if node.rpartition("/")[2] not in TABLES:
                raise ValueError(f"no node {node}")
        case ["lifecycle", "set", _, transition]:
            if transition not in TRANSITIONS:
                raise ValueError(f"no transition {transition}")
        case ["interface", "show", kind]:
            interface(kind)
        case ["lifecycle", "get" | "list" | "nodes", *_]:
            pass
        case ["bag", "info" | "play" | "record", *_] | ["node" | "topic", "list", *_]:
            pass
        case ["pkg", "prefix", *_] | ["security", "generate_artifacts", *_]:
            pass
        case _:
            raise ValueError(f"not known here: ros2 {' '.join(words)}")


def find(interfaces, name):
    """The entry of the table by a name in whatever namespace."""
    for one in interfaces:
        full = one.name.replace("~/", "/ainet/")
        if name == full or name.endswith("/" + full.lstrip("/")):
            return one
    raise ValueError(f"the node has no {name}")


def module_of(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"no module {name}") from None


def interface(kind):
    """The class of a message or service type, PACKAGE/msg/NAME."""
    name = kind.rpartition("/")[2]
    try:
        return getattr(module_of(kind.removesuffix(f"/{name}").replace("/", ".")), name)
    except (ValueError, AttributeError):
        raise ValueError(f"no type {kind}") from None


def check_fields(values, message):
    """values: of a message, as YAML gives them."""
    if not isinstance(values, dict):
        raise ValueError(f"{values!r} are no fields of {message.__name__}")
    fields = message.get_fields_and_field_types()
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"{message.__name__} has no field {name}")
        if "/" in fields[name] and isinstance(value, dict):
            check_fields(value, interface(fields[name].replace("/", "/msg/")))


@functools.cache
def launch_arguments(file):
    """The choices (or None) of a launch file's arguments, and of those that it includes."""
    path = ROOT / "launch" / file
    if not path.is_file():
        raise ValueError(f"no launch file {file}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants, found = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            with contextlib.suppress(ValueError):
                constants[node.targets[0].id] = ast.literal_eval(node.value)
        elif isinstance(node, ast.Constant) and re.fullmatch(INCLUDED, str(node.value)):
            found |= launch_arguments(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            choices = next((k.value for k in node.keywords if k.arg == "choices"), None)
            if isinstance(choices, ast.Name):
                choices = constants[choices.id]
            elif choices is not None:
                choices = ast.literal_eval(choices)
            found[node.args[0].value] = choices
    return found


def check_launch(file, words):
    known = launch_arguments(file)
    for word in words:
        name, given, value = word.partition(":=")
        if word == "--show-args":
            continue
        if not given or name not in known:
            raise ValueError(f"{file} has no argument {name}")
        if known[name] is not None and value not in known[name]:
            raise ValueError(f"{file}: {value} is none of {known[name]}")


def check_run(executable, words):
    if not (ROOT / "scripts" / executable).is_file():
        raise ValueError(f"no executable {executable}")
    for option, value in itertools.pairwise(words):
        name = value.partition(":=")[0]
        if option == "-p" and name not in describe(TABLES[executable]):
            raise ValueError(f"{executable} has no parameter {name}")
        if option == "-r" and not name.startswith("__"):
            find(TRACKER.subscribed + TRACKER.published, f"/{name.lstrip('/')}")


def check_yaml(values):
    """A parameter file of nodes, or the options of a training."""
    if "data" in values:
        data = TrainConfig.of({"preset": "nano", "steps": 1, **values}).data
        Parts.of(**{k: v for k, v in data.items() if k in ("videos", "stills", "crops")})
        return
    for node, entries in values.items():
        table = TABLES["ainet"] if node == "/**" else TABLES.get(node.rpartition("/")[2])
        if table is not None:
            parameters = dict(entries["ros__parameters"])
            parameters.pop("qos_overrides", None)
            for name in set(parameters) - set(describe(table)):
                raise ValueError(f"{node} has no parameter {name}")
            table(**parameters)


def check_launch_xml(root):
    for include in root.iter("include"):
        package, _, file = include.get("file").rpartition("/launch/")
        if package == "$(find-pkg-share ainet_ros)":
            words = [f"{arg.get('name')}:={arg.get('value')}" for arg in include.iter("arg")]
            check_launch(file, words)
