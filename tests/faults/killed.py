"""A process that kills itself before its n-th change below a directory.

Changes are files that are opened to be written, renames, links, new and deleted names.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

NAMING: Final = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"})


def killed_at(step: int, directory: Path, run: Callable[[], object]) -> bool:
    """Call `run` in a process that kills itself before its n-th change below a directory; tell whether it did.

    The process is forked, so this one must have no threads that hold anything, and no log open.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread that matters runs here
        child = os.fork()
    if child == 0:
        _run(step, str(directory), run)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}, "it failed"
    return code != 0


def stop_before_change(nth: int, directory: str) -> None:
    """Have this process kill itself before it changes something below a directory for the nth time, from 0 on."""
    left = nth

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and bool(set(str(arguments[1])) & set("wxa+"))
        if (writes or event in NAMING) and str(arguments[event == "os.link"]).startswith(directory):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _run(step: int, directory: str, run: Callable[[], object]) -> None:
    try:
        stop_before_change(step, directory)
        run()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
