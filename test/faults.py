# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What was seen of the faults that were put to the nodes, and its section of a page."""

import os
import platform
import re
from dataclasses import dataclass, field

from ainet_ros.bench.measure import machine

LONGEST = 300
"""Characters of what a node said that are shown."""


@dataclass
class Fault:
    """A fault, and what came of it."""

    what: str
    seen: list[str] = field(default_factory=list)
    after: str = ""
    """Of the node."""

    def says(self, log, pattern):
        """A node has logged a line of that pattern. log: its text."""
        line = next(line for line in log.splitlines() if re.search(pattern, line))
        self._quote("log", re.sub(r"^(\[\w+-\d+\] )?\[\w+\] \[[\d.]+\] \[[\w./]+\]: ", "", line))

    def answered(self, service, words, pattern):
        """A service has answered so."""
        assert re.search(pattern, words), words
        self._quote(f"`{service}`", words)

    def reported(self, part, level, words):
        """/diagnostics has said so."""
        self._quote(f"`/diagnostics`, {part}, {level}", words)

    def notes(self, what):
        """What is seen in another way."""
        self.seen.append(what)

    def _quote(self, where, words):
        # Folders are of the computer that ran it.
        words = " ".join(re.sub(r"(?<!\S)(/[^/\s]+){3,}/", "", words).split())
        shown = words if len(words) <= LONGEST else f"{words[:LONGEST]}…"
        self.seen.append(f'{where}: "{shown}"')


def section(faults, seconds, tracker):
    """The section. tracker: what is to be told of the one that most of them were put to."""
    about = machine()
    rows = ["| fault | what the user sees | the node |", "|---|---|---|"]
    for fault in faults:
        cells = (fault.what, "; ".join(fault.seen) or "nothing", fault.after)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(
        [
            "`make faults` puts these to running nodes and looks from outside. What is quoted is",
            "what was read in that run, of a tracker with `camera_timeout: 0.5`. *Answers* means:",
            "afterwards it tracked a new target, and `~/init`, `~/reset`, its parameters and its",
            "state were answered.",
            "",
            *rows,
            "",
            f"{tracker} All in {seconds:.0f} s on {about['cpu']}, {os.cpu_count()} cores; "
            f"{platform.system()} {platform.release().split('-')[0]}, Python {about['python']}, "
            f"torch {about['torch']}, ROS 2 {os.environ.get('ROS_DISTRO', 'Kilted (wheels)')}.",
        ]
    )
