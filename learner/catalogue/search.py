"""Which messages are asked for, and what is known of them?

Pages in an order, each from where the last one ended: a cursor names a place, so what comes in meanwhile shifts
nothing. Each question is one short read of the file; one that takes longer than MOST_S is given up. What of a message
is told is what the catalogue has: nothing is asked of the log or of the learner.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, NamedTuple

import msgspec

from driftline.learner.catalogue import file
from driftline.learner.catalogue.file import NO_SCORE, Damaged, Unusable, explained
from driftline.learner.catalogue.keeping import PROGRESS, Progress
from driftline.learner.catalogue.words import expression
from driftline.stream.errors import ConfigError
from driftline.stream.surrogates import whole_characters

MAX_TEXT_CHARS: Final = 500
MAX_SAID: Final = 1000  # labels and predictions that are told of one message: the last ones
COUNTED: Final = 10_000  # so many are counted exactly
MOST_S: Final = 10.0
CHECK_STEPS: Final = 20_000  # of SQLite's machine, between two looks at the clock
MAX_N: Final = 500
PAGE_CHARS: Final = 4 << 20  # in a page of whole texts, but for its last one
State = Literal["all", "labelled", "unlabelled", "mistakes"]
Order = Literal["new", "old", "doubt"]
STATES: Final = ("all", "labelled", "unlabelled", "mistakes")
ORDERS: Final = ("new", "old", "doubt")


class Filters(NamedTuple):
    """What is asked for; None: anything.

    query : words (words.py)
    label, predicted, source : of the label that stands, of the last prediction, who gave that label
    since_ms, until_ms : when the message came: from the one, before the other
    """

    query: str = ""
    label: str | None = None
    predicted: str | None = None
    source: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    state: State = "all"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A message, as a list shows it."""

    id: str
    text: str  # its first MAX_TEXT_CHARS characters; in an export all
    truncated: bool
    timestamp_ms: int
    fields: dict[str, Any]
    predicted: str | None
    score: float | None
    model_version: str | None
    label: str | None  # the last one that stands; null: none, or it was taken back
    label_source: str | None
    label_ms: int | None
    label_weight: float | None
    retracted: bool
    n_labels: int
    note: str | None


class Page(NamedTuple):
    """Some messages, where the next ones begin, and how many there are in all: COUNTED or more, if not exact."""

    messages: list[Listed]
    next: str | None
    total: int
    is_exact: bool
    progress: Progress


class PredictionSaid(msgspec.Struct, frozen=True):
    """What the model said of a message when it came in."""

    label: str | None
    score: float
    scores: dict[str, float]
    model_version: str
    ts: str


class LabelSaid(msgspec.Struct, frozen=True):
    """What somebody said of a message."""

    label: str | None
    op: str
    source: str | None
    ts_ms: int
    weight: float
    id: str | None
    note: str | None


class Whole(msgspec.Struct, frozen=True):
    """A message, and all that was said of it, the oldest first."""

    id: str
    text: str
    timestamp_ms: int
    fields: dict[str, Any]
    metadata: dict[str, Any]
    predictions: list[PredictionSaid]
    labels: list[LabelSaid]


_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_SCORES: Final = msgspec.json.Decoder(dict[str, float])
_COLUMNS: Final = (
    "m.id, {text}, length(t.text), m.timestamp_ms, t.fields, m.predicted, m.score, m.model_version, m.label,"
    " m.label_source, m.label_ms, m.weight, m.retracted, m.n_labels, m.note"
)


class Search:
    """Asks one data directory's catalogue. Threads may share it: each has a connection of its own.

    Parameters
    ----------
    alone : it has one connection; one thread at a time, whichever
    """

    def __init__(self, data: Path, *, alone: bool = False) -> None:
        self._data = data
        self._own: Any = SimpleNamespace() if alone else threading.local()

    def progress(self) -> Progress:
        """Return how far it is. Raises Unusable."""
        try:
            with self._open() as db:
                return Progress() if db is None else _progress(db)
        except Damaged:
            return Progress()

    def page(self, filters: Filters, order: Order = "new", n: int = 50, after: str | None = None) -> Page:
        """Return a page.

        Raises
        ------
        ConfigError : the query, or the cursor, is none; the message names which.
        Unusable : it cannot be read just now, or takes too long.
        """
        try:
            with self._open() as db:
                if db is None:
                    return Page([], None, 0, False, Progress())
                where = _Where(filters)
                messages, end = _listed(db, where, order, n, self._place(after, order), whole=False)
                count = where.count(db)
                return Page(
                    messages,
                    self._cursor(order, end),
                    min(count, COUNTED),
                    count <= COUNTED,
                    _progress(db),
                )
        except Damaged:  # it is being made anew
            return Page([], None, 0, False, Progress())

    def each(self, filters: Filters, *, at_once: int = 200, order: Order = "old") -> Iterator[list[Listed]]:
        """Give all messages with their whole texts, some at a time: each time a read of its own. One thread.

        Raises as `page` does; Unusable also where the catalogue was made anew meanwhile.
        """
        place: tuple[float, int] | None = None
        name = file.newest(self._data)
        while True:
            try:
                with self._open() as db:
                    if db is None or file.newest(self._data) != name:
                        raise Damaged("")
                    messages, end = _listed(db, _Where(filters), order, at_once, place, whole=True)
            except Damaged:
                raise Unusable("the catalogue was made anew meanwhile; begin again") from None
            if messages:
                yield messages
            if end is None:
                return
            place = end

    def whole(self, key: str) -> Whole | None:
        """Return the message that an id names, None where there is none. Raises Unusable."""
        try:
            with self._open() as db:
                return None if db is None else _whole(db, whole_characters(key))
        except Damaged:
            return None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """Give a connection to the newest file for one question, None where there is none."""
        path = file.newest(self._data)
        known: tuple[Path, sqlite3.Connection] | None = getattr(self._own, "known", None)
        if known is not None and known[0] != path:
            with suppress(sqlite3.Error):
                known[1].close()
            known = self._own.known = None
        if path is None:
            yield None
            return
        with explained(path):
            if known is None:
                known = self._own.known = path, file.connect(path, read_only=True)
            db = known[1]
            deadline = time.monotonic() + MOST_S
            db.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.set_progress_handler(None, 0)
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def close(self) -> None:
        """Give back the connection, this thread's."""
        known = getattr(self._own, "known", None)
        if known is not None:
            self._own.known = None
            with suppress(sqlite3.Error):
                known[1].close()

    def _cursor(self, order: Order, end: tuple[float, int] | None) -> str | None:
        return None if end is None else f"{self._own.known[0].stem}.{order}.{end[0].hex()}.{end[1]}"

    def _place(self, cursor: str | None, order: Order) -> tuple[float, int] | None:
        if cursor is None:
            return None
        try:
            name, of_order, rest = cursor.split(".", 2)
            score, number = rest.rsplit(".", 1)
            place = float.fromhex(score), int(number)
            if of_order != order or not 0 <= place[1] < 1 << 63 or len(cursor) > 100:
                raise ValueError
        except (ValueError, OverflowError):
            raise ConfigError("after: it is no `next` of a list in this order") from None
        if self._own.known[0].stem != name:
            raise ConfigError("after: the catalogue was made anew since that list; begin with its first page")
        return place


class _Where:
    """What a question asks for, as SQL."""

    def __init__(self, filters: Filters) -> None:
        self.parts: list[str] = []
        self.values: list[object] = []
        equal, self._state = (filters.label, filters.predicted, filters.source), filters.state
        self._is_chosen = any(value is not None for value in equal)
        self._narrows = self._is_chosen or filters.state != "all"
        try:
            self.match = expression(filters.query)
        except ValueError as error:
            raise ConfigError(f"query: {error}") from None
        for column, value in (
            ("label", filters.label),
            ("predicted", filters.predicted),
            ("label_source", filters.source),
        ):
            if value is not None:
                self._add(f"m.{column} = ?", whole_characters(value))
        if filters.source is not None:
            self._add("m.label IS NOT NULL")
        if filters.since_ms is not None:
            self._add("m.timestamp_ms >= ?", filters.since_ms)
        if filters.until_ms is not None:
            self._add("m.timestamp_ms < ?", filters.until_ms)
        if filters.state == "labelled":
            self._add("m.label IS NOT NULL")
        elif filters.state == "unlabelled":
            self._add("m.label IS NULL")
        elif filters.state == "mistakes":
            self._add("m.label IS NOT NULL AND m.predicted IS NOT NULL AND m.label <> m.predicted")

    def _add(self, part: str, *values: object) -> None:
        self.parts.append(part)
        self.values += values

    def sql(self, order: Order | None, place: tuple[float, int] | None) -> tuple[str, list[object]]:
        """Return from where and in which order, and the values in it."""
        parts, values = list(self.parts), list(self.values)
        source, number = f"messages m{self._index(order)}", "m.number"
        if self.match is not None and (self._narrows or order == "doubt"):
            # The numbers of all that have the words, against what else narrows it: each alone may be nearly all.
            parts.append("+m.number IN (SELECT rowid FROM words WHERE words MATCH ?)")
            values.append(self.match)
        elif self.match is not None:
            source, number = "words CROSS JOIN messages m ON m.number = words.rowid", "words.rowid"
            parts.insert(0, "words MATCH ?")
            values.insert(0, self.match)
        if place is not None and order is not None:
            score, after = place
            if order == "doubt":
                parts.append(f"m.score >= ? AND (m.score > ? OR {number} < ?)")
                values += [score, score, after]
            else:
                parts.append(f"{number} {'<' if order == 'new' else '>'} ?")
                values.append(after)
        by = {"new": f"{number} DESC", "old": f"{number} ASC", "doubt": f"m.score ASC, {number} DESC"}
        where = f" WHERE {' AND '.join(parts)}" if parts else ""
        return f"FROM {source}{where}" + (f" ORDER BY {by[order]}" if order is not None else ""), values

    def _index(self, order: Order | None) -> str:
        """Return which index is to be gone by, where SQLite would take none, since the numbers are in order anyway."""
        if order == "doubt":
            if self.match is not None or not self._is_chosen:
                return " INDEXED BY " + ("of_doubt_unlabelled" if self._state == "unlabelled" else "of_doubt")
        elif not self._is_chosen and self._state in ("labelled", "mistakes"):
            return f" INDEXED BY of_{self._state}"
        return ""

    def count(self, db: sqlite3.Connection) -> int:
        """Return how many there are, up to one more than COUNTED."""
        tail, values = self.sql(None, None)
        (n,) = db.execute(f"SELECT count(*) FROM (SELECT 1 {tail} LIMIT ?)", (*values, COUNTED + 1)).fetchone()
        return int(n)


def _progress(db: sqlite3.Connection) -> Progress:
    try:
        progress = PROGRESS.decode(file.meta(db).get("progress", "{}"))
    except msgspec.MsgspecError:
        progress = Progress()
    row = db.execute("SELECT timestamp_ms FROM messages ORDER BY number LIMIT 1").fetchone()
    return msgspec.structs.replace(progress, oldest_ms=row and row[0])


def _listed(
    db: sqlite3.Connection, where: _Where, order: Order, n: int, place: tuple[float, int] | None, *, whole: bool
) -> tuple[list[Listed], tuple[float, int] | None]:
    """Return messages, and the last one's place where there are more."""
    tail, values = where.sql(order, place)
    found = db.execute(f"SELECT m.number, m.score {tail} LIMIT ?", (*values, n + 1)).fetchall()
    more, found = len(found) > n, found[:n]
    text = "t.text" if whole else f"substr(t.text, 1, {MAX_TEXT_CHARS})"
    messages, n_chars = [], 0
    for at, (number, _) in enumerate(found):
        sql = f"SELECT {_COLUMNS.format(text=text)} FROM messages m JOIN texts t USING (number) WHERE m.number = ?"
        messages.append(_shown(db.execute(sql, (number,)).fetchone(), whole=whole))
        n_chars += len(messages[-1].text)
        if n_chars > PAGE_CHARS and at + 1 < len(found):
            more, found = True, found[: at + 1]
            break
    return messages, (found[-1][1], found[-1][0]) if more else None


def _shown(row: tuple[Any, ...], *, whole: bool) -> Listed:
    key, text, n_chars, timestamp_ms, fields, predicted, score, version, *said = row
    label, source, label_ms, weight, retracted, n_labels, note = said
    known = score < NO_SCORE
    return Listed(
        id=key,
        text=text,
        truncated=not whole and n_chars > MAX_TEXT_CHARS,
        timestamp_ms=timestamp_ms,
        fields=_OBJECT.decode(fields),
        predicted=predicted,
        score=score if known else None,
        model_version=version,
        label=label,
        label_source=source,
        label_ms=label_ms,
        label_weight=weight,
        retracted=bool(retracted),
        n_labels=n_labels,
        note=note,
    )


def _whole(db: sqlite3.Connection, key: str) -> Whole | None:
    row = db.execute(
        "SELECT m.number, t.text, m.timestamp_ms, t.fields, t.metadata FROM messages m JOIN texts t USING (number)"
        " WHERE m.id = ? ORDER BY m.number DESC LIMIT 1",
        (key,),
    ).fetchone()
    if row is None:
        return None
    number, text, timestamp_ms, fields, metadata = row
    predictions = db.execute(
        "SELECT label, score, scores, model_version, ts FROM predictions WHERE message_id = ? AND message = ?"
        " ORDER BY number DESC LIMIT ?",
        (key, number, MAX_SAID),
    ).fetchall()
    labels = db.execute(
        "SELECT label, op, source, timestamp_ms, weight, id, note FROM labels WHERE message_id = ? AND message = ?"
        " ORDER BY number DESC LIMIT ?",
        (key, number, MAX_SAID),
    ).fetchall()
    return Whole(
        key,
        text,
        timestamp_ms,
        _OBJECT.decode(fields),
        _OBJECT.decode(metadata),
        [
            PredictionSaid(label, score, _SCORES.decode(scores), *more)
            for label, score, scores, *more in predictions[::-1]
        ],
        [LabelSaid(label or None, *more) for label, *more in reversed(labels)],
    )
