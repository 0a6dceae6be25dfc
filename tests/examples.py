"""The examples of README, docs/ and client/README.md: what they are, and how they are run.

A fenced block says by its language what becomes of it:

- `console`: commands after `$`, each followed by all that it prints; `…` stands for what differs. They are run.
- `python`: it is run; what follows a `print(...)` as a comment is what that prints. One whose first line is
  `# name.py` is a file, which the commands after it may use.
- `pycon`: a session, as doctest has it. It is run.
- `sh`: commands that need what no test has (Docker, another machine). Those of `driftline` are parsed.
- `toml`, `json`, `yaml`: they are parsed; options of a `driftline.toml` have to exist, and the chart has to take what
  begins with `# values.yaml`.
- `text`: no example.

`<!-- needs: FILE -->` before a block names a labelled file that is not in the repository (tests/data.py): without it
the block is left out.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.data import ROOT

LANGUAGES = {"console", "python", "pycon", "sh", "toml", "json", "yaml", "text"}
FENCE = re.compile(r"^(?:<!-- needs: (?P<needs>\S+) -->\n\n?)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block: where it is, what it is, and which file it needs."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None

    @property
    def where(self) -> str:
        """Where to look when it is wrong."""
        return f"{self.page}:{self.line}"


class Step(NamedTuple):
    """A command of a console, and what it is to print."""

    command: str
    printed: str

    @property
    def words(self) -> list[str]:
        """The command's words; of a here-document those of its first line."""
        return shlex.split(self.command.split("\n")[0])


def pages() -> list[Path]:
    """Return the pages for readers, in the order of reading: README, Start here, the others, the client's."""
    first = [ROOT / "README.md", ROOT / "docs" / "start.md"]
    return [*first, *sorted(set(ROOT.glob("docs/*.md")) - set(first)), ROOT / "client" / "README.md"]


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in their order."""
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, found["language"], found["text"], found["needs"])
        for found in FENCE.finditer(text)
    ]


def steps(block: Block) -> Iterator[Step]:
    """Give the commands of a console."""
    lines = block.text.split("\n")[:-1]
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"{block.where}: {lines[at]!r} is neither a command nor what one prints"
        command = lines[at][2:]
        at += 1
        if here := re.search(r"<<'(\w+)'$", command):
            end = lines.index(here[1], at)
            command = "\n".join([command, *lines[at:end]])
            at = end + 1
        begin = at
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        yield Step(command, "\n".join(line.rstrip() for line in lines[begin:at]))


def is_printed(expected: str, printed: str) -> bool:
    """Tell whether that was printed: `…` is anything in a line, alone in a line any lines, and `"…"` any value."""
    pattern = "\n".join(r"(?:.*\n)*?.*" if line == "…" else re.escape(line) for line in expected.split("\n"))
    pattern = pattern.replace('"…"', r'(?:"[^"]*"|[^,}\]"]+)').replace("…", ".*?")
    found = "\n".join(line.rstrip() for line in printed.strip("\n").split("\n"))
    return re.fullmatch(pattern, found) is not None
