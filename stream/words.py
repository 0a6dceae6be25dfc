"""How is a number of things said?"""

import signal
from contextlib import suppress


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return `1 row`, `2,000 rows`; `many` is for words that take no s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ended(exit_code: int | None) -> str:
    """Say how a process ended: `was killed by SIGKILL`, `ended with exit code 1`."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-exit_code).name}"
        return f"was killed by signal {-exit_code}"
    return f"ended with exit code {exit_code}"
