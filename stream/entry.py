"""What is known of a message that waits, or of a label that does? What stream/store.py has in arrays, by its names."""

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.stream.pack import array_head
from driftline.stream.records import Feedback, Rejected
from driftline.stream.store import (
    AT,
    CAME,
    GROWN,
    ID_SIZE,
    IDS_AT,
    IDS_SIZE,
    LABEL_AT,
    LABEL_SIZE,
    LIVE,
    N_IDS,
    N_SCORES,
    ROWS,
    SCORED,
    SCORES_AT,
    TEXT_SIZE,
    TIME_MS,
    WEIGHT,
    WINDOW,
    Store,
)

_pack = msgspec.msgpack.Encoder().encode
_unpack_ids = msgspec.msgpack.Decoder(tuple[str, ...]).decode


class Entry:
    """A message in the window: its row, looked at field by field. Good until rows move, between two batches."""

    __slots__ = ("_store", "row")

    def __init__(self, store: Store, row: int) -> None:
        self._store, self.row = store, row

    def _get(self, column: int) -> int:
        return int(self._store.rows[self.row, column])

    def _noted(self, column: int) -> int:
        return int(self._store.note_of(self.row)[column])

    def _is(self, bit: int) -> bool:
        return bool(self._store.now[self.row] & bit)

    @property
    def key(self) -> str:
        """The message's id."""
        return self._store.read(self._get(AT), self._get(ID_SIZE)).decode()

    @property
    def text(self) -> str:
        """The message's text."""
        return self._store.read(self._get(AT) + self._get(ID_SIZE), self._get(TEXT_SIZE)).decode()

    @property
    def timestamp_ms(self) -> int:
        """When it came, by the log's time."""
        return self._get(TIME_MS)

    @property
    def window(self) -> int:
        """Its window's number."""
        return self._get(WINDOW)

    @property
    def n_bytes(self) -> int:
        """What it weighs."""
        return self._get(WEIGHT) + self._noted(GROWN)

    @property
    def came(self) -> bool:
        """False while only a label that carries the text itself came."""
        return self._is(CAME)

    @property
    def label(self) -> str | None:
        """The label learned last."""
        size = self._noted(LABEL_SIZE)
        return None if size < 0 else self._store.read(self._noted(LABEL_AT), size).decode()

    @property
    def feedback_ids(self) -> tuple[str, ...]:
        """The ids of its labels that had one."""
        head = array_head(self._noted(N_IDS))
        return _unpack_ids(head + self._store.read(self._noted(IDS_AT), self._noted(IDS_SIZE)))

    @property
    def scores(self) -> bytes | None:
        """What was served: float32 [n_labels known then]."""
        if not self._is(SCORED):
            return None
        at = self._get(SCORES_AT)
        return self._store.scores[at : at + self._get(N_SCORES)].tobytes()

    def come(self, score_bytes: int) -> None:
        """Note that the message itself came, and make room for its scores."""
        self._store.now[self.row] |= CAME
        self._store.reserve(self.row, score_bytes // 4)
        self._store.note(self.row, {GROWN: self._noted(GROWN) + score_bytes})

    def set_label(self, label: str) -> None:
        """Note the label that is learned."""
        raw = label.encode()
        self._store.note(self.row, {LABEL_AT: self._store.keep(raw), LABEL_SIZE: len(raw)})

    def set_feedback_ids(self, ids: tuple[str, ...], grown: int = 0) -> None:
        """Note the ids of labels, and by how many bytes it weighs more."""
        raw = b"".join(map(_pack, ids))
        grown += self._noted(GROWN)
        self._store.note(self.row, {IDS_AT: self._store.keep(raw), IDS_SIZE: len(raw), N_IDS: len(ids), GROWN: grown})


class Messages(Mapping[str, Entry]):
    """The messages of all windows, by id."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, key: str) -> Entry:
        """Return a message's entry."""
        row = self._store.find(key.encode())
        if row < 0:
            raise KeyError(key)
        return Entry(self._store, row)

    def _rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._store.now[: self._store.used[ROWS]] & LIVE)

    def __iter__(self) -> Iterator[str]:
        """Give the ids in the order in which the messages came."""
        return (Entry(self._store, row).key for row in self._rows().tolist())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows())


class Early(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A label that waits for its message, and what goes to the dead-letter topic if that never comes."""

    feedback: Feedback
    timestamp_ms: int
    orphan: Rejected


class Label(msgspec.Struct, frozen=True, gc=False):
    """A label to be learned now. `corrects` tells that another label of that message was learned before."""

    entry: Entry
    feedback: Feedback
    timestamp_ms: int
    corrects: bool
    orphan: Rejected | None = None  # where it had to wait: what it is on the dead-letter topic


Labels = tuple[Label, ...]
