"""The command line: the commands of cli/ under one name.

Nothing is decided here or in cli/. The options of each folder stand in its settings.py; process/flags.py makes them
flags. What is heavy is imported inside the commands, so that help comes at once.

Exit codes: 0; 1 what Driftline refuses (DriftlineError); 2 options that cannot be meant; 3 another learner has taken
over; 130 Ctrl-C.
"""

import os
import sys
from typing import Annotated

import typer

from driftline.cli import streams
from driftline.cli.commands import keys
from driftline.cli.commands.erase import erase
from driftline.cli.commands.evaluate import evaluate
from driftline.cli.commands.explain import explain
from driftline.cli.commands.learn import learn
from driftline.cli.commands.predict import predict
from driftline.cli.commands.rebuild import rebuild
from driftline.cli.commands.send import send
from driftline.cli.commands.serve import serve
from driftline.cli.commands.snapshots import snapshots
from driftline.cli.commands.status import status
from driftline.cli.commands.up import up
from driftline.cli.commands.verify import verify
from driftline.cli.copies.backup import backup
from driftline.cli.copies.export import export
from driftline.cli.copies.restore import restore
from driftline.cli.help import Command, Group
from driftline.cli.terminal import print_error
from driftline.stream.errors import DriftlineError
from driftline.stream.process import interrupts, log_lines, variables
from driftline.stream.process.flags import BadOptions
from driftline.stream.version import version as number

MAX_COLUMNS = 110  # of help: longer lines are hard to read

app = typer.Typer(
    cls=Group,
    name="driftline",
    help="A text classifier that never stops learning.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_COLUMNS},
)

COMMANDS = (
    *(up, learn, serve, status, predict, explain, send, export, evaluate),
    *(verify, rebuild, erase, snapshots, backup, restore),
)
for command in COMMANDS:
    app.command(cls=Command)(command)
app.add_typer(keys.app, name="keys", no_args_is_help=True)


def main() -> None:
    """Run the command line."""
    streams.settle()
    try:
        with interrupts.ctrl_c_heard():
            app(prog_name="driftline")
    except BadOptions as error:
        print_error(*error.lines)
        sys.exit(2)
    except DriftlineError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except (PermissionError, NotADirectoryError) as error:  # of --data, most likely
        what = (error.strerror or "refused").lower()
        next_step = f"give user {os.geteuid()} the right to it, or name another directory or file"
        print_error(f"{error.filename}: {what}; {next_step}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _version(value: bool) -> None:
    if value:
        print(f"driftline {number()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A text classifier that never stops learning."""
    del version
    # Now, so that options that cannot be meant, and what nobody catches, are such lines too.
    log_lines.begin("json" if variables.options().get("DRIFTLINE_LOG_FORMAT") == "json" else "text")
