"""What was tried, how often, and what was lost? `python -m tests.faults.tally FILE` makes the README's table of it.

A test that counts calls `tally`; where DRIFTLINE_TALLY names a file (`make torture` does) a line of JSON goes there.
Counts of the same thing are added up, whatever log they are of.
"""

import json
import os
import sys
from pathlib import Path


def tally(what: str, command: str, times: int, lost: int = 0, **more: object) -> None:
    """Count what was tried: `times`, of which `lost` lost or doubled something, or let something through."""
    line = json.dumps({"what": what, "command": command, "times": times, "lost": lost, **more})
    print(line)
    if path := os.environ.get("DRIFTLINE_TALLY"):
        with Path(path).open("a") as file:
            print(line, file=file)


def table(lines: list[str]) -> str:
    """Return the counts as a table in Markdown, in the order in which they first came."""
    times: dict[tuple[str, str], int] = {}
    lost: dict[tuple[str, str], int] = {}
    for line in lines:
        found = json.loads(line)
        key = found["what"], found["command"]
        times[key] = times.get(key, 0) + found["times"]
        lost[key] = lost.get(key, 0) + found["lost"]
    rows = [f"| {what} | {times[what, command]:,} | {lost[what, command]} | `{command}` |" for what, command in times]
    return "\n".join(["| what was tried | how often | lost | command |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text().splitlines()))
