"""A command line that is killed before its n-th change below a directory: `python -m tests.faults.killed N DIR -- ...`.

Changes are files that are opened to be written, renames, links, new and deleted names. Exit code 9 where it was killed.
"""

import os
import signal
import sys
from typing import Any

NAMING = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}


def main() -> None:
    """Run it."""
    left, directory = int(sys.argv[1]), sys.argv[2]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and bool(set(str(arguments[1])) & set("wxa+"))
        if (writes or event in NAMING) and str(arguments[-1 if event == "os.link" else 0]).startswith(directory):
            left -= 1
            if left < 0:
                os._exit(9)

    import driftline  # noqa: PLC0415  (before anything is counted)

    sys.addaudithook(count)
    sys.argv = ["driftline", *sys.argv[4:]]
    signal.alarm(100)
    driftline.main()


if __name__ == "__main__":
    main()
