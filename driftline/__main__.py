"""The command line, as `driftline` and as `python -m driftline`; where only the client is installed it says so."""

import logging
import sys

from driftline.light import not_installed
from driftline.stream.errors import NotInstalled


def main() -> None:
    """Run the command line."""
    try:
        from driftline.stream.process import interrupts

        interrupts.end_as_first_process()
        from driftline.cli.main import main as run

        run()
    except KeyboardInterrupt:  # while the libraries are loaded
        sys.exit(130)
    except ModuleNotFoundError as error:
        refused = not_installed("the command", error)
        if refused is error:
            raise
        _say(str(refused))
        sys.exit(NotInstalled.exit_code)


def _say(what: str) -> None:
    """Say it as any error is said, without the libraries that the commands do so with."""
    try:
        from driftline.cli import streams
        from driftline.stream.process import log_lines, variables
    except ModuleNotFoundError:  # the client alone
        sys.exit(f"driftline: {what}")
    streams.settle()
    if not log_lines.as_json():
        log_lines.begin("json" if variables.options().get("DRIFTLINE_LOG_FORMAT") == "json" else "text")
    logging.getLogger("driftline").error("%s", what)


if __name__ == "__main__":
    main()
