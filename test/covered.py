# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""How much of the package the tests run, from what `coverage` has gathered: `make coverage`."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from reliability import computer, write_section

NEEDED = 0.9


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="page to write the section 'coverage' of")
    arguments = parser.parse_args()
    told = subprocess.run(["coverage", "json", "-q", "-o", "-"], check=True, capture_output=True)
    lines, covered = Counter(), Counter()
    for path, file in json.loads(told.stdout)["files"].items():
        for name in (Path(path).parent.as_posix(), "all"):
            lines[name] += file["summary"]["num_statements"]
            covered[name] += file["summary"]["covered_lines"]
    folders = sorted(lines, key=lambda name: (name == "all", name))
    share = covered["all"] / lines["all"]
    text = "\n".join(
        [
            f"`make coverage` ran the tests. They went through {share:.1%} of the statements of",
            f"the package, in processes of nodes too. On {computer()}.",
            "",
            "| folder | statements | run |",
            "|---|---|---|",
            *(f"| {k} | {lines[k]} | {covered[k] / lines[k]:.0%} |" for k in folders),
        ]
    )
    print(text)
    if arguments.page is not None:
        write_section(arguments.page, "coverage", text)
    sys.exit(0 if share >= NEEDED else 1)


if __name__ == "__main__":
    main()
