"""Which commands are there, with which options? docs/command-line.md, made from the commands themselves.

`python -m docs.commands` writes the page, and `make docs` asks for it; tests/whole/test_docs.py compares. Options that
several commands share stand once, below the commands.
"""

import re
from pathlib import Path
from typing import Any, Final

import typer

from driftline.cli.main import app

PAGE: Final = Path(__file__).parent / "command-line.md"
SHARED: Final = {
    "Options of the log": "What are the options of the log?",
    "Options of the learner": "What are the options of the learner?",
    "Options of the API": "What are the options of the API?",
}
FEW: Final = 5  # options of a section, up to which they are named one by one
HEAD: Final = """# Command line

*This page is made from the commands: `make docs` writes it.*

## How is an option given?

In one of three ways. The first that is there counts:

1. as a flag: `--log kafka://b1:9092`
2. as a variable: `DRIFTLINE_LOG=kafka://b1:9092`. Its name: `DRIFTLINE_`, then the flag's in capitals, `_` for `-`.
3. as a line of `driftline.toml` in the working directory: `log = "kafka://b1:9092"`

A list is written with commas. An empty variable is none. A variable that is misspelt is told of; those that Kubernetes
or Docker make for a Service called `driftline` are not taken for ours. The model and its options are one word:
`--model 'linear?bits=20&chars=0'` ([which there are](models.md)).

What stays as it is from one version to the next: names, flags, variables, exit codes, what `--json` prints
([Versions](versions.md)).

## Which exit codes are there?

| code | means |
|---|---|
| 0 | done; of `status`: the learner is at work |
| 1 | refused, with what to do; of `status`: no learner is at work, or it is stalled; of `verify`: a byte differs |
| 2 | an option that cannot be meant; of `verify`: it cannot be told, and why |
| 3 | another learner has taken over the data directory |
| 130 | Ctrl-C |

## What do the commands print?

What `up`, `learn` and `serve` say while they run is one line of JSON an event wherever standard error is no terminal,
or with `--log-format json`; in the image always. `--log-format text` is for people. Lines are their own events, the
libraries', warnings, and the traceback of what nobody caught.

## Which commands are there?
"""


def page() -> str:
    """Return the page."""
    group: Any = typer.main.get_command(app)
    found: dict[str, dict[str, str]] = {title: {} for title in SHARED}
    parts = [
        HEAD,
        *(
            f"- [`driftline {name}`](#{anchor(f'driftline {name}')}): {command.get_short_help_str(1000)}"
            for name, command in every(group)
        ),
    ]
    details = [detail(name, command, found) for name, command in every(group)]
    shared = [f"## {SHARED[title]}\n\n{table(rows)}" for title, rows in found.items()]
    return "\n".join(parts) + "\n\n" + "\n\n".join([*details, *shared]) + "\n"


def every(group: Any) -> list[tuple[str, Any]]:
    """Return the commands in their order, with those of a group in its place."""
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, command)] if inner is None else [(f"{name} {each}", inner[each]) for each in inner]
    return found


def detail(name: str, command: Any, found: dict[str, dict[str, str]]) -> str:
    """Return what there is to say of a command; options that others have too go to `found`."""
    context = command.make_context(name, [], resilient_parsing=True)
    own: dict[str, str] = {}
    taken: dict[str, list[str]] = {title: [] for title in SHARED}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is None or param.name == "help":
            continue
        flags, text = record
        panel = getattr(param, "rich_help_panel", None)
        if panel in SHARED:
            taken[panel].append(flags.split(" ")[0])
            found[panel].setdefault(flags, text)
        else:
            own[flags] = text
    paragraphs = [f"### driftline {name}", paragraph(command.help)]
    if own:
        paragraphs.append(table(own))
    sections = [title for title, flags in taken.items() if len(flags) > FEW]
    few = [flag for flags in taken.values() if len(flags) <= FEW for flag in flags]
    links = [f"[{title[0].lower()}{title[1:]}](#{anchor(SHARED[title])})" for title in sections]
    if takes := [*(f"the {link}" for link in links), *(f"`{flag}`" for flag in few)]:
        paragraphs.append(f"Takes {', '.join(takes)}.")
    return "\n\n".join(paragraphs)


def paragraph(text: str) -> str:
    """Return what a command says of itself; options in it as code."""
    parts = re.split(r"(`[^`]*`)", text.strip())  # what is code already is every second one
    return "".join(
        part if n % 2 else re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", part) for n, part in enumerate(parts)
    )


def table(rows: dict[str, str]) -> str:
    """Return options as a table. Their variables are left out: the head says how they are called."""
    lines = ["| option | does |", "|---|---|"]
    for flags, text in rows.items():
        said = re.sub(r"\[env(?: var)?: (\w+)(; )?", lambda found: f"[{found[1]}; " if found[2] else "[", text).replace(
            " []", ""
        )
        lines.append(f"| `{flags.replace('|', chr(92) + '|')}` | {cell(said)} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return a text as it may stand in a cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def anchor(heading: str) -> str:
    """Return where a heading is."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page())
