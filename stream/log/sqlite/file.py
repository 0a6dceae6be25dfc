"""How is a log's SQLite file opened, and what do its errors mean?

Every connection is in WAL mode and syncs each commit. A file that is no log, or one of another format, is refused and
left as it is. SQLite's errors leave here as Driftline's: LogUnavailable where the same call may succeed later,
StateError where the file is damaged.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from driftline.stream.errors import ConfigError, LogError, LogUnavailable, StateError

FORMAT: Final = "1"
BUSY_S: Final = 30.0  # another process's largest commit and checkpoint take well under a second
WAL_PAGES: Final = 4_000  # 16 MB: a checkpoint for each of SQLite's own 1,000 pages syncs the file too often
WAL_BYTES: Final = 128 << 20  # past this the writer waits for readers so that the WAL can start over
CACHE_KIB: Final = 32 << 10  # the largest commit stays in memory until it is written once

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    low INTEGER NOT NULL DEFAULT 0, high INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);
CREATE TABLE commits (
    consumer_group TEXT, topic TEXT, partition INTEGER, position INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID;
"""


def sqlite_path(url: str) -> Path:
    """Return the file that an address names. The path is taken as it stands: nothing in it is percent-decoded."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(":"):
        raise ConfigError(f"log: {url!r} names no file; use sqlite:///relative/log.db or sqlite:////absolute/log.db")
    return Path(path)


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file, made where it is missing.

    Raises
    ------
    LogUnavailable : it cannot be opened just now.
    StateError : it is something else, or of another format.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogUnavailable(f"log {path}: its directory cannot be made: {error.strerror}") from None
    with explained(path):
        db = connect(path)
        try:
            _check_format(path, db)
        except BaseException:
            db.close()
            raise
        return db


def _check_format(path: Path, db: sqlite3.Connection) -> None:
    with transaction(db):  # two processes may make the file at once
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not names:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
            return
        row = None
        if "meta" in names:
            with suppress(sqlite3.OperationalError):  # a table of this name, but not this one
                row = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        if row is None:
            raise StateError(f"log {path}: this is a SQLite file, but not a Driftline log; choose another path")
        if row[0] != FORMAT:
            raise StateError(
                f"log {path}: its format is {row[0]}, this version of Driftline reads {FORMAT}; "
                "use the version that wrote it or another path"
            )


class SameFile:
    """Whether a path still names the file that it named at first.

    What was deleted or moved away beneath a process is written to no longer: it would be acknowledged and then be gone.
    Nor is the new file taken up: the last process that lets go of the old one deletes the new one's WAL, by its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._look()

    def check(self) -> None:
        """Raise LogError where it is another file, or none."""
        if self._look() != self._file:
            raise LogError(
                f"log {self._path}: the file was deleted or replaced while it was open; "
                "end every process that uses it, then start them again"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(path, db)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, in pages that are free, too
        db.execute("PRAGMA fullfsync = ON")  # macOS: without it a sync may stop at the disk's cache
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(path: Path, db: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for other processes here, whatever the timeout, so this does."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise LogUnavailable(
                f"log {path}: SQLite cannot use WAL there (mode {mode}); choose a path on a local disk"
            )
        return


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled some failures back by itself
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


_NEXT_STEP: Final = {
    sqlite3.SQLITE_BUSY: "another process holds its lock; end that process or wait",
    sqlite3.SQLITE_FULL: "the disk is full; free some space or lower retention_bytes",
    sqlite3.SQLITE_READONLY: "the file or its directory may not be written; check the permissions",
    sqlite3.SQLITE_CANTOPEN: "check that the path names a file in a directory that may be written",
    sqlite3.SQLITE_IOERR: "check the disk's space and health, and limits on file size",
}
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _primary(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, without the extension in its upper bits."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into Driftline's."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        if "closed" in str(error):
            raise LogError(f"log {path}: closed") from None
        raise
    except sqlite3.Error as error:
        code = _primary(error)
        if code in _DAMAGED:
            raise StateError(f"log {path}: {error}; restore it from a copy or choose another path") from error
        if code in _NEXT_STEP:
            raise LogUnavailable(f"log {path}: {error}: {_NEXT_STEP[code]}") from error
        raise LogError(f"log {path}: {error}") from error


def wal_of(path: Path) -> Path:
    """Return where SQLite's write-ahead log of a file lies: all that is written goes there first."""
    return path.with_name(path.name + "-wal")
