# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The package as its users get it: from `make setup`, from colcon in a workspace, and from pip."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import docs_commands
import pytest
import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from catkin_pkg.changelog import get_changelog_from_path
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message

import ainet_ros
import ainet_ros.msg
import ainet_ros.srv

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (
    "CMakeLists.txt LICENSE MANIFEST.in ainet_ros config csrc launch msg package.xml "
    "pyproject.toml requirements scripts setup.py srv test weights"
).split()
ROS_PATHS = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


@pytest.mark.parametrize(
    "place",
    ".github ainet_ros config csrc launch msg scripts srv test "
    "CMakeLists.txt Makefile docs/conf.py env.sh package.xml pyproject.toml setup.py".split(),
)
def test_each_file_names_its_licence_and_its_authors(place):
    files = [ROOT / place]
    if (ROOT / place).is_dir():
        kinds = set(".py .cpp .h .sh .yaml .xml .rviz .html .css .js .msg .srv".split()) | {""}
        files = [p for p in (ROOT / place).rglob("*") if p.is_file() and p.suffix in kinds]
        files = [p for p in files if "__pycache__" not in p.parts]
    assert files
    for path in files:
        head = path.read_text()[:300]
        assert "SPDX-License-Identifier: Apache-2.0" in head, path
        assert "SPDX-FileCopyrightText: the authors of ainet_ros" in head, path


def ros_environment() -> dict[str, str]:
    """The ROS 2 that this process runs on, without what `make setup` built of this package."""
    environment = {
        name: os.pathsep.join(
            part
            for part in os.environ.get(name, "").split(os.pathsep)
            if part and not Path(part).is_relative_to(ROOT / "install")
        )
        for name in ROS_PATHS
    }
    return environment | {k: v for k, v in os.environ.items() if k.startswith("ROS_")}


# What a user's shell knows of ROS before env.sh is sourced: the distribution, if there is one.
SHELL = ros_environment() if "ROS_DISTRO" in os.environ else {}


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """What a command prints, run without this process's ROS environment but for `env`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "PATH", "LANG") or name.startswith("PIP_")
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the package in a workspace, so that no build writes into the real one."""
    folder = tmp_path / "src" / "ainet_ros"
    folder.mkdir(parents=True)
    made = shutil.ignore_patterns("__pycache__", "*.so")
    for name in SOURCE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=made)
        else:
            shutil.copy(path, folder)
    return folder


def test_version_is_that_of_package_xml() -> None:
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    assert ainet_ros.__version__ == version
    assert importlib.metadata.version("ainet_ros") == version


def test_change_log_and_declaration_agree_with_the_version() -> None:
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    log = get_changelog_from_path(str(ROOT / "CHANGELOG.rst"), package_name="ainet_ros")
    headings = [heading for heading, _, _ in log.foreach_version(reverse=True)]
    released = [heading for heading in headings if heading != "Forthcoming"]
    assert released[:1] in ([], [version])
    assert all(log.get_content_of_version(heading) for heading in headings)
    declaration = (ROOT / "QUALITY_DECLARATION.md").read_text()
    assert ("below 1.0" in declaration) == version.startswith("0.")


def test_workflow_runs_what_a_contributor_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
    jobs = workflow["jobs"]
    (told,) = [
        piece.text
        for piece in docs_commands.pieces((ROOT / "CONTRIBUTING.md").read_text())
        if piece.language == "bash"
    ]
    expected = [shlex.split(line, comments=True) for line in told.splitlines()]
    runs = [shlex.split(step["run"]) for step in jobs["wheels"]["steps"] if "run" in step]
    assert sorted(runs) == sorted(expected)
    for words in runs:
        docs_commands.check_command(words)
    uses = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@v\d+(\.\d+)?", one) for one in uses)
    matrix = [one["ros"].title() for one in jobs["distribution"]["strategy"]["matrix"]["include"]]
    assert f"{', '.join(matrix[:-1])} or {matrix[-1]}" in (ROOT / "README.md").read_text()


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ainet_ros.nothing


def test_source_tree_and_generated_messages_are_one_package() -> None:
    assert Path(ainet_ros.__file__).parent == ROOT / "ainet_ros"
    assert Path(ainet_ros.msg.__file__).is_relative_to(get_package_prefix("ainet_ros"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("msg/*.msg")) + sorted(ROOT.glob("srv/*.srv")))
def test_every_interface_is_generated(path: Path) -> None:
    module = {".msg": ainet_ros.msg, ".srv": ainet_ros.srv}[path.suffix]
    assert hasattr(module, path.stem)


pixels = st.floats(allow_nan=False, allow_infinity=False)
milliseconds = st.floats(min_value=0, max_value=1e6, width=32)


@settings(max_examples=30, deadline=None)
@given(
    box=st.tuples(pixels, pixels, pixels, pixels),
    score=st.floats(min_value=0, max_value=1, width=32),
    target=st.integers(min_value=0, max_value=2**32 - 1),
    total=milliseconds,
    second=st.integers(min_value=-(2**31), max_value=2**31 - 1),
    nanosecond=st.integers(min_value=0, max_value=999_999_999),
    frame=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
)
def test_track_survives_the_wire(box, score, target, total, second, nanosecond, frame) -> None:
    track = ainet_ros.msg.Track(target_id=target, state=ainet_ros.msg.Track.LOST, score=score)
    track.box.x, track.box.y, track.box.width, track.box.height = box
    track.latency.total_ms = total
    track.header.stamp.sec, track.header.stamp.nanosec = second, nanosecond
    track.thermal_stamp.nanosec = nanosecond
    track.header.frame_id = frame
    assert deserialize_message(serialize_message(track), ainet_ros.msg.Track) == track


def test_messages_import_without_torch(tmp_path: Path) -> None:
    code = 'import sys, ainet_ros.msg, ainet_ros.srv; print("torch" in sys.modules)'
    command = f"source {shlex.quote(f'{ROOT}/env.sh')} && python -c '{code}'"
    assert run("bash", "-c", command, cwd=tmp_path, **SHELL) == "False\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_env_sh_puts_everything_on_the_path(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = (
        f"source {shlex.quote(f'{ROOT}/env.sh')} && command -v python colcon ainet && "
        "python -c 'import ainet_ros.msg, rclpy; print(ainet_ros.__file__)'"
    )
    # errexit: nothing that env.sh runs may fail
    printed = run(shell, "-ec", command, cwd=tmp_path, **SHELL)
    python, colcon, ainet, module = printed.splitlines()
    assert python == str(ROOT / ".venv/bin/python")
    assert Path(colcon).exists()
    assert ainet == str(ROOT / "install/bin/ainet")
    assert Path(module).is_relative_to(ROOT / "install")


def check_installed(prefix: Path, share: Path) -> None:
    for name in ("tracker_node", "replay_camera", "recorder", "console", "demo"):
        assert os.access(prefix / "lib/ainet_ros" / name, os.X_OK)
    assert os.access(prefix / "bin/ainet", os.X_OK)
    for folder in ("config", "launch", "weights"):
        names = {
            path.relative_to(ROOT)
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert names
        assert not [name for name in names if not (share / name).is_file()]


def test_make_setup_installs_every_file() -> None:
    check_installed(
        Path(get_package_prefix("ainet_ros")), Path(get_package_share_directory("ainet_ros"))
    )


def test_plain_colcon_build_in_a_workspace(source: Path) -> None:
    workspace = source.parents[1]
    ros = ros_environment()
    run("colcon", "build", cwd=workspace, **ros)
    prefix = workspace / "install/ainet_ros"
    check_installed(prefix, prefix / "share/ainet_ros")
    shutil.rmtree(source)  # nothing may be left that points at it
    code = "import ainet_ros.msg, ainet_ros.network; print(*ainet_ros.__path__)"
    command = f"source install/local_setup.bash && python3 -c '{code}'"
    package = Path(run("bash", "-c", command, cwd=workspace, **ros).strip())
    assert package.is_relative_to(prefix)
    assert (package / "network/_scan.so").is_file()


def pip_install(source: Path, target: Path, **env: str) -> str:
    command = ("-m", "pip", "install", "-v", "--no-deps", "--no-build-isolation", "--target")
    return run(sys.executable, *command, target, source, cwd=source.parent, **env)


def test_pip_install_works_without_ros(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    pip_install(source, target)
    assert (target / "ainet_ros/network/_scan.so").is_file()
    assert {path.name for path in (target / "share/ainet_ros/weights").iterdir()} == {
        path.name for path in (ROOT / "weights").iterdir()
    }
    code = """
import sys
sys.modules["rclpy"] = None
import ainet_ros
from ainet_ros import cli, evaluation, network, tracker, training
print(ainet_ros.__version__, *ainet_ros.__path__)
"""
    printed = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target))
    assert printed.split() == [ainet_ros.__version__, str(target / "ainet_ros")]
    usage = run(target / "bin/ainet", "--help", cwd=tmp_path, PYTHONPATH=str(target))
    assert usage.startswith("usage: ainet")


def test_pip_install_without_a_compiler_says_so(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    printed = pip_install(source, target, CC="/no/compiler", CXX="/no/compiler")
    assert "warning: the selective scan for CPU was not built" in printed
    assert (target / "ainet_ros/network/scan.py").is_file()
    assert not (target / "ainet_ros/network/_scan.so").exists()
