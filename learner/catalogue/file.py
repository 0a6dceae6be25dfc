"""Which file holds the catalogue, and what is in it?

One SQLite file in the data directory, `catalogue/NAME.db`. All that it holds is in the log: it may be deleted at any
time, and is made anew. A new one gets a new name, since whoever lets go of an old one deletes that one's write-ahead
log by its name; the newest counts. So what was erased from the log is erased here by deleting all of them
(rebuild/erase.py), which leaves nothing in pages that are free, or in segments of words that were not merged yet.

    messages    a row for each message, small: what is asked for and sorted by stands here
    texts       its text, fields and metadata
    words       FTS5, of texts and fields, without a copy of them
    labels, predictions    as they came, with their message's number; none: it was not there yet

Rows are numbered in the order in which the learner takes records; the highest number is the newest.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from driftline.learner.catalogue.words import PREFIXES, TOKENIZER
from driftline.learner.rebuild.erase import CATALOGUE
from driftline.stream.errors import DriftlineError

FORMAT: Final = "1"
NO_SCORE: Final = 2.0  # where nothing was predicted: behind all that was, in the order of doubt
FROM_MESSAGE, FROM_LABEL = 0, 1  # which topic's record brought a text
BUSY_S: Final = 10.0
READ_KIB, WRITE_KIB = 16 << 10, 32 << 10  # of pages that a connection keeps
WAL_PAGES: Final = 8000  # 32 MB between two checkpoints, each of which syncs the file
_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE positions (topic TEXT, partition INTEGER, position INTEGER NOT NULL, PRIMARY KEY (topic, partition))"
    " WITHOUT ROWID",
    # `whole`, `plain`: hashes of the text with its fields, and without.
    "CREATE TABLE messages (number INTEGER PRIMARY KEY, id TEXT NOT NULL, origin INTEGER NOT NULL,"
    " partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, whole INTEGER NOT NULL,"
    " plain INTEGER NOT NULL, predicted TEXT, score REAL NOT NULL DEFAULT 2.0, model_version TEXT, label TEXT,"
    " label_source TEXT, label_ms INTEGER, weight REAL, note TEXT, retracted INTEGER NOT NULL DEFAULT 0,"
    " n_labels INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT NOT NULL, fields TEXT NOT NULL, metadata TEXT NOT NULL)",
    "CREATE TABLE labels (number INTEGER PRIMARY KEY, message INTEGER, message_id TEXT NOT NULL,"
    " partition INTEGER NOT NULL, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, label TEXT NOT NULL,"
    " op TEXT NOT NULL, source TEXT, weight REAL NOT NULL, id TEXT, note TEXT)",
    "CREATE TABLE predictions (number INTEGER PRIMARY KEY, message INTEGER, message_id TEXT NOT NULL,"
    " partition INTEGER NOT NULL, offset INTEGER NOT NULL, label TEXT, score REAL NOT NULL, scores TEXT NOT NULL,"
    " model_version TEXT NOT NULL, ts TEXT NOT NULL)",
    f"CREATE VIRTUAL TABLE words USING fts5(text, fields, content='', tokenize='{TOKENIZER}', prefix='{PREFIXES}')",
    "CREATE INDEX of_id ON messages (id)",
    "CREATE INDEX of_place ON messages (origin, partition, offset)",
    "CREATE INDEX of_time ON messages (timestamp_ms)",
    "CREATE INDEX of_label ON messages (label)",
    "CREATE INDEX of_predicted ON messages (predicted)",
    "CREATE INDEX of_source ON messages (label_source) WHERE label IS NOT NULL",
    "CREATE INDEX of_doubt ON messages (score, number DESC)",
    "CREATE INDEX of_labelled ON messages (number) WHERE label IS NOT NULL",
    "CREATE INDEX of_mistakes ON messages (number) WHERE label IS NOT NULL AND predicted IS NOT NULL"
    " AND label <> predicted",
    "CREATE INDEX of_doubt_unlabelled ON messages (score, number DESC) WHERE label IS NULL",
    "CREATE INDEX labels_of ON labels (message_id, message)",
    "CREATE INDEX labels_waiting ON labels (number) WHERE message IS NULL",
    "CREATE INDEX predictions_waiting ON predictions (number) WHERE message IS NULL",
    "CREATE INDEX labels_place ON labels (partition, offset)",
    "CREATE INDEX predictions_of ON predictions (message_id, message)",
    "CREATE INDEX predictions_place ON predictions (partition, offset)",
)


class Unusable(DriftlineError):
    """The catalogue cannot be read or written just now; the message says why, and what to do."""


class Damaged(DriftlineError):
    """Its file is none, or no longer; it is to be made anew."""


def newest(data: Path) -> Path | None:
    """Return the file that counts, None where there is none yet."""
    return max((data / CATALOGUE).glob("*.db"), default=None, key=lambda path: path.name)


def make(data: Path) -> Path:
    """Make a new file, and delete what was there before. Raises Unusable."""
    root = data / CATALOGUE
    path = root / f"{time.time_ns():020d}.db"
    with explained(path):
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"{root} cannot be made: {error.strerror}") from None
        older = list(root.glob("*.db*"))
        db = connect(path, mode="rwc")
        try:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
            db.execute("COMMIT")
        finally:
            db.close()
        for each in older:
            with suppress(OSError):
                each.unlink(missing_ok=True)
    return path


def remove(path: Path) -> None:
    """Delete a file, and what belongs to it."""
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        with suppress(OSError):
            each.unlink(missing_ok=True)


def connect(path: Path, *, mode: str = "rw", read_only: bool = False) -> sqlite3.Connection:
    """Open a file. A power cut may take the last commits, never the file: what is missing is read from the log again.

    Raises sqlite3.Error.
    """
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA cache_size = -{READ_KIB if read_only else WRITE_KIB}")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA journal_size_limit = 67108864")
        if read_only:
            db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def meta(db: sqlite3.Connection) -> dict[str, str]:
    """Return what is noted of the whole. Raises sqlite3.Error."""
    return dict(db.execute("SELECT name, value FROM meta"))


def note(db: sqlite3.Connection, name: str, value: str) -> None:
    """Note something of the whole. Raises sqlite3.Error."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


_NEXT_STEP: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, or lower catalogue_messages",
    sqlite3.SQLITE_READONLY: "the directory may not be written; let the API write to it",
    sqlite3.SQLITE_CANTOPEN: "the directory may not be written; let the API write to it",
    sqlite3.SQLITE_IOERR: "check the disk's space and health",
    sqlite3.SQLITE_BUSY: "another process holds its lock; it is tried again",
    sqlite3.SQLITE_INTERRUPT: "it took too long; ask for less",
}
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into Unusable or, where the file is to be made anew, Damaged."""
    try:
        yield
    except sqlite3.Error as error:
        code = int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
        if not path.exists():
            raise Damaged(f"{path} was deleted") from error
        if code in _NEXT_STEP:
            raise Unusable(f"the catalogue {path}: {error}: {_NEXT_STEP[code]}") from error
        if code in _DAMAGED or code == sqlite3.SQLITE_ERROR:  # the latter: tables are missing, or others
            raise Damaged(f"{path}: {error}") from error
        raise Unusable(f"the catalogue {path}: {error}") from error
