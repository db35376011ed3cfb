# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The page docs/reliability.md, each section of which is written by the command it is about."""

from pathlib import Path

from ainet_ros.bench.measure import machine


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a section. Raises ValueError without such marks."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, mark, rest = page.read_text().partition(begin)
    _, other, after = rest.partition(end)
    if not mark or not other:
        raise ValueError(f"{page} has no section {name!r} between {begin!r} and {end!r}")
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")


def computer() -> str:
    """What a section's figures were measured on."""
    told = machine()
    return f"{told['cpu']}, {told['threads']} threads, Python {told['python']}"
