# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""How time and memory are measured, and on what machine."""

from __future__ import annotations

import ctypes
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, str | int]:
    """What a figure was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def median_times(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median wall time of each function in seconds, after one run to warm up.

    The functions take turns, so that what else the machine does falls on all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def available_memory() -> int:
    """Bytes that this machine can still give to processes without swapping (Linux)."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024  # type: ignore[index]


def memory_growth(function: Callable[[], Any]) -> int:
    """Bytes by which the resident memory of this process rises at most while `function` runs.

    What it returns counts too. Linux with glibc: the kernel keeps the greatest resident size
    (VmHWM), which is set back first; memory that was freed before is given back to the system
    first, so that none of it is used again unseen. Linux counts pages in batches on each CPU: of
    two CPUs the figure may be short by half a MiB.
    """

    def status(field: str) -> int:
        text = Path("/proc/self/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    function()
    return status("VmHWM") - before
