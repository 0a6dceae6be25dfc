"""What was tried, how often, and what was lost? `python -m tests.faults.tally FILES` makes the table of the docs.

A test that counts calls `tally`; where DRIFTLINE_TALLY names a file (`make torture` does) a line of JSON goes there.
Counts of the same thing are added up.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEAD = "| what was tried | how often | lost, learned twice, or other bytes | command |"


def tally(what: str, command: str, times: int, lost: int = 0, **more: float | str) -> None:
    """Count what was tried: `times`, of which `lost` lost or doubled something, or let something through.

    Further numbers are added up too, but for those whose names end in `_s` or `_most`: of these the highest is told.
    """
    line = json.dumps({"what": what, "command": command, "times": times, "lost": lost, **more})
    print(line)
    if path := os.environ.get("DRIFTLINE_TALLY"):
        with Path(path).open("a") as file:
            print(line, file=file)


def table(lines: Iterable[str]) -> str:
    """Return the counts as a table in Markdown, in the order in which they came, and below it what else is known."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        new = json.loads(line)
        known = found.setdefault((new.pop("what"), new.pop("command")), {})
        for name, value in new.items():
            known[name] = _together(name, known[name], value) if name in known else value
    rows = [
        f"| {what} | {each.pop('times'):,} | {each.pop('lost')} | `{command}` |"
        for (what, command), each in found.items()
    ]
    notes = [
        f"{what}: {', '.join(f'{name} {value}' for name, value in each.items())}"
        for (what, _), each in found.items()
        if each
    ]
    return "\n".join([HEAD, "|---|---|---|---|", *rows, *([""] if notes else []), *notes])


def _together(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, str):
        return other
    return max(one, other) if name.endswith(("_s", "_most")) else one + other


if __name__ == "__main__":
    print(table(line for path in sys.argv[1:] for line in Path(path).read_text().splitlines()))
