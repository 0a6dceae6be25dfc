"""What are standard input, output and error, however this process was started?

One that is closed (`2>&-`) leaves its number to the next file that is opened: what a library writes to standard error
would then go into that file. So a closed one becomes /dev/null, before any file is opened. One whose encoding lacks a
character (PYTHONIOENCODING=ascii) gets it as an escape: no text may end a command.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Final

_NAMES: Final = ("stdin", "stdout", "stderr")


def settle() -> None:
    """Make all three usable. Once, before anything is opened."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(number, True)  # a process that is started here has the same three
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):
                stream.reconfigure(errors="backslashreplace")
