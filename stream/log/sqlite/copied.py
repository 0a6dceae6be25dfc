"""How is the log's file copied while others write to it?

`frozen` holds the lock on writing for as long as its body runs, so that what is read beside the log meanwhile is of the
same moment; appending waits so long. Then the file is copied as it was at that moment, while appending goes on.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from driftline.stream.errors import StateError
from driftline.stream.log.sqlite.file import connect, explained, open_file

PAGES: Final = 1000  # between two looks at how far it is: 4 MB

OnBytes = Callable[[int, int], None]  # how many so far, of how many


class Frozen:
    """A log's file as it was at one moment."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path, self._db = path, db

    @property
    def bytes(self) -> int:
        """How large the copy will be."""
        with explained(self._path):
            pages, size = (self._db.execute(f"PRAGMA page_{what}").fetchone()[0] for what in ("count", "size"))
            return int(pages) * int(size)

    def copy(self, target: Path, on_bytes: OnBytes = lambda *_: None) -> None:
        """Write a copy to a file that is not there, and see that it is whole.

        Raises
        ------
        StateError : the log is damaged, or the copy is.
        LogUnavailable : it cannot be written: no room, no right to.
        """
        total = self.bytes
        with explained(target), closing(sqlite3.connect(target, isolation_level=None)) as copied:
            with explained(self._path):
                self._db.backup(
                    copied,
                    pages=PAGES,
                    progress=lambda _, left, pages: on_bytes(total * (pages - left) // pages, total),
                )
            copied.execute("PRAGMA journal_mode = DELETE")  # one file, without a WAL beside it
            found = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StateError(f"log {self._path}: its copy is damaged ({found}), and so is the log; `driftline status`")


@contextmanager
def frozen(path: Path, look: Callable[[], None]) -> Iterator[Frozen]:
    """Give a log's file as it is while `look` is called; nobody appends during that call.

    Raises
    ------
    LogUnavailable : another process holds the lock, or the file cannot be opened.
    StateError : it is no log.
    """
    open_file(path).close()  # whether it is one
    with closing(connect(path)) as writing, closing(connect(path)) as db:
        with explained(path):
            writing.execute("BEGIN IMMEDIATE")
            try:
                look()
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM meta").fetchone()  # now it sees this moment
            finally:
                with suppress(sqlite3.Error):
                    writing.execute("ROLLBACK")
        yield Frozen(path, db)
