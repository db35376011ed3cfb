# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The documentation: the site, the commands, the messages it speaks of, the order of folders."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup, or a distribution)")
pytest.importorskip("sphinx", reason="needs requirements/docs.txt")

from docs_commands import Piece, check, pieces

from ainet_ros.vision.scenes import Scene

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    path for name in ("*.md", "docs/*.md", "weights/*.md") for path in sorted(ROOT.glob(name))
]
ON_EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def build(root, output):
    """What Sphinx says of a site, made as by `make docs`; empty where all is well."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*command, "-d", output / "doctrees", ".", output],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == bool(done.stderr), done.stderr
    return done.stderr


def test_site_builds_without_a_warning(tmp_path):
    assert build(ROOT, tmp_path) == ""
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT)).with_suffix(".html").is_file()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](other.md#two)", ""),
        ("[a](missing.md)", "missing.md"),
        ("[a](other.md#three)", "three"),
        ("[a](../config/missing.yaml)", "config/missing.yaml"),
        ("![a](images/missing.png)", "missing.png"),
    ],
)
def test_a_broken_link_is_a_warning(text, complaint, tmp_path):
    docs = tmp_path / "site" / "docs"
    docs.mkdir(parents=True)
    for name in ("conf.py", "index.html"):
        shutil.copy(ROOT / "docs" / name, docs)
    (docs / "README.md").write_text(f"# One\n\n[Other](other.md)\n\n{text}\n")
    (docs / "other.md").write_text("# Other\n\n## Two\n")
    said = build(tmp_path / "site", tmp_path / "html")
    assert bool(said) == bool(complaint)
    assert complaint in said


def test_a_page_that_the_front_page_leaves_out_is_a_warning(tmp_path):
    docs = tmp_path / "site" / "docs"
    docs.mkdir(parents=True)
    for name in ("conf.py", "index.html"):
        shutil.copy(ROOT / "docs" / name, docs)
    (docs / "README.md").write_text("# One\n")
    (docs / "other.md").write_text("# Other\n")
    assert "other.md" in build(tmp_path / "site", tmp_path / "html")


PYTHON = ("README.md", "docs/laptop.md")


@ON_EACH_PAGE
def test_what_a_page_tells_to_type_is_right(page):
    wrong = []
    for piece in pieces(page.read_text(encoding="utf-8")):
        # That of the others would not be run, below.
        assert piece.language != "python" or str(page.relative_to(ROOT)) in PYTHON
        try:
            check(piece)
        except ValueError as error:
            wrong.append(f"{page.name}:{piece.line}: {error}: {piece.text.strip()}")
    assert not wrong, "\n".join(wrong)


LAUNCH = "ros2 launch ainet_ros tracker.launch.py"
INIT = "ros2 service call /ainet/init ainet_ros/srv/InitTarget"


@pytest.mark.parametrize(
    ("language", "text", "complaint"),
    [
        ("bash", "ainet trak clips", "invalid choice: 'trak'"),
        ("bash", "ainet track clips --bocks 1,2,3,4", "--bocks"),
        ("bash", "ainet track clips --box 1,2,3", "not four numbers"),
        ("bash", "ainet track", "required: source"),
        ("bash", "cd clips && ainet trak", "trak"),
        ("bash", "ainet track \\\n    clips --bocks 1", "--bocks"),
        ("bash", "torchrun -m ainet_ros.cli trian", "trian"),
        ("bash", "python -m ainet_ros.missing", "ainet_ros.missing"),
        ("bash", "make dome", "no target dome"),
        ("bash", "make demo SEQUENZ=x", "no variable SEQUENZ"),
        ("bash", "source enf.sh", "no file enf.sh"),
        ("bash", "scripts/missing.sh", "no file scripts/missing.sh"),
        (
            "bash",
            "ainet train config/train/mine.yaml --data D --output O",
            "config/train/mine.yaml",
        ),
        ("bash", "cp $(ros2 pkg prefix --share ainet_ros)/config/missing.yaml .", "missing.yaml"),
        ("bash", "cp $(ros2 pgk prefix ainet_ros) .", "ros2 pgk"),
        ("bash", "pip install '.[missing]'", "no extra missing"),
        ("bash", "frobnicate", "not known here: frobnicate"),
        ("bash", "ros2 launch ainet_ros missing.launch.py", "no launch file"),
        ("bash", f"{LAUNCH} rbg:=/camera", "no argument rbg"),
        ("bash", f"{LAUNCH} rviz:=yes", "yes is none of"),
        ("bash", f"{LAUNCH} source:=path", "no argument source"),
        ("bash", "ros2 run ainet_ros missing", "no executable missing"),
        ("bash", "ros2 run ainet_ros replay_camera --ros-args -p lop:=true", "no parameter lop"),
        ("bash", "ros2 run ainet_ros tracker_node --ros-args -r rbg:=/x", "no /rbg"),
        ("bash", f'{INIT} "{{boks: {{x: 1}}}}"', "no field boks"),
        ("bash", f'{INIT} "{{box: {{left: 1}}}}"', "no field left"),
        ("bash", "ros2 service call /ainet/init ainet_ros/srv/Init", "not ainet_ros/srv/Init"),
        ("bash", "ros2 service call /ainet/start ainet_ros/srv/InitTarget", "no /ainet/start"),
        ("bash", "ros2 topic echo /ainet/trak", "no /ainet/trak"),
        ("bash", "ros2 topic pub /ainet/init_box std_msgs/msg/Header", "not std_msgs/msg/Header"),
        ("bash", "ros2 interface show ainet_ros/msg/Trak", "no type ainet_ros/msg/Trak"),
        ("bash", "ros2 param set /ainet slob 1", "no parameter slob"),
        ("bash", "ros2 param set /ainet weights nano", "read only"),
        ("bash", "ros2 param get /anet slop", "no node /anet"),
        ("bash", "ros2 lifecycle set /ainet start", "no transition start"),
        ("bash", "ros2 topik list", "ros2 topik"),
        ("", "ainet trak", "trak"),
        ("", "ainet track --bocks", "--bocks"),
        ("", "--bocks FILE", "--bocks"),
        ("", "wheights:=nano", "wheights"),
        ("yaml", "ainet: {ros__parameters: {slob: 0.1}}", "no parameter slob"),
        ("yaml", "ainet: {ros__parameters: {slop: 11.0}}", "slop: 11 is outside"),
        ("yaml", "data: {videos: {mine: {shares: 1}}}", "shares"),
        ("yaml", "{stepps: 3, data: {}}", "stepps"),
        (
            "xml",
            '<launch><include file="$(find-pkg-share ainet_ros)/launch/tracker.launch.py">'
            '<arg name="rbg" value="x"/></include></launch>',
            "no argument rbg",
        ),
    ],
)
def test_a_wrong_command_is_found(language, text, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        check(Piece(1, language, text))


def test_commands_are_found_in_every_place():
    page = "# `a b`\n\n- list\n\n  ```bash\n  one\n  ```\n\n| `c` |\n|---|\n| `d` |\n\n    two\n"
    assert [(piece.language, piece.text.strip()) for piece in pieces(page)] == [
        ("", "a b"),
        ("bash", "one"),
        ("", "c"),
        ("", "d"),
        ("bash", "two"),
    ]


@pytest.mark.parametrize("page", PYTHON)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = [piece.text for piece in pieces(text) if piece.language == "python"]
    assert blocks
    monkeypatch.chdir(tmp_path)
    Scene(0, frames=3).write(tmp_path / "clips" / "scene_0")
    random = np.random.default_rng(0)
    rgb = random.integers(0, 255, (480, 640, 3), np.uint8)
    for block in blocks:
        names = {"rgb": rgb, "thermal": rgb[..., 0].copy()}
        exec(block, names)
        assert "track" in names or len(names["result"].boxes) == 3


def said_by_the_code():
    """All texts of the code but docstrings, with … for what is filled in, and the scripts."""
    texts = [
        path.read_text(encoding="utf-8") for path in [*ROOT.glob("scripts/*.sh"), ROOT / "env.sh"]
    ]
    for path in [*ROOT.glob("ainet_ros/**/*.py"), *ROOT.glob("launch/*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                texts.append(str(node.value))
    return "\n".join(texts)


def test_messages_of_the_troubleshooting_are_the_code_s():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    symptoms = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    quoted = [text for cell in symptoms for text in re.findall("`([^`]+)`", cell)]
    # Names and commands are shorter, or checked as commands.
    messages = [text for text in quoted if text.count(" ") > 2 and not text.startswith("ros2 ")]
    assert len(messages) > 20
    said = said_by_the_code()
    parts = [part.strip() for message in messages for part in message.split("…")]
    assert not [part for part in parts if part not in said]


FLOORS = (
    ("files", "options"),
    ("network",),
    ("tracker",),
    ("vision",),
    ("training", "evaluation"),
    ("ros",),
    ("bench",),
    ("cli",),
)
"""Of ainet_ros, as docs/architecture.md has them: each imports only what comes before it."""


def test_folders_import_only_what_lies_below():
    heights = {name: height for height, names in enumerate(FLOORS) for name in names}
    folders = [path.name for path in (ROOT / "ainet_ros").iterdir() if path.is_dir()]
    assert set(folders) - {"__pycache__"} == heights.keys() - {"files", "options"}
    for name, height in heights.items():
        for path in (ROOT / "ainet_ros" / name).rglob("*.py"):
            imported = set(re.findall(r"ainet_ros\.(\w+)", "\n".join(imports(path))))
            above = {n for n in imported & heights.keys() if n != name and heights[n] >= height}
            assert not above, f"{path} imports {above}"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
