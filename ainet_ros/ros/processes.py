# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""Nodes of this package as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

STOP_TIMEOUT_S = 5.0
TAIL = 10
"""Lines of a log that an error repeats."""


class ProcessError(ChildProcessError):
    """A process does not do what it is needed for; where it ended, the message has the end of its
    log."""


class NodeProcesses:
    """A context: what was started in it ends with it."""

    def __init__(self, namespace: str, folder: Path) -> None:
        """Parameters and logs, MODULE.yaml and MODULE.log, go into `folder`."""
        self._namespace, self._folder = namespace, folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> NodeProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        for process in self._running.values():
            _end(process)

    def start(self, module: str, parameters: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Runs the node that `ainet_ros.ros.MODULE` is."""
        file = self._folder / f"{module}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
        command = [sys.executable, "-m", f"ainet_ros.ros.{module}", "--ros-args"]
        command += ["-r", f"__ns:={self._namespace}", "--params-file", str(file)]
        with self._log(module).open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._running[module] = process
        return process

    def stop(self, module: str) -> None:
        """Ends a node as Ctrl-C does."""
        process = self._running.pop(module)
        process.send_signal(signal.SIGINT)
        _end(process)

    def ids(self) -> dict[str, int]:
        """Of the processes that run, by their modules."""
        return {module: process.pid for module, process in self._running.items()}

    def log(self, module: str) -> str:
        """What a node has said so far."""
        return self._log(module).read_text(errors="replace")

    def check(self, modules: Iterable[str]) -> None:
        """Raises ProcessError where one of them has ended."""
        for module in modules:
            status = self._running[module].poll()
            if status is not None:
                tail = "\n".join(self.log(module).splitlines()[-TAIL:])
                raise ProcessError(f"{module} ended with status {status}:\n{tail}")

    def _log(self, module: str) -> Path:
        return self._folder / f"{module}.log"


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
