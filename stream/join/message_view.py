"""What is known of a message that waits, or of a label that does? What message_rows.py has in arrays, by its names."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.stream.join.feedback_said import Word, decode_words, encode_words
from driftline.stream.join.message_rows import BIT, NOTE, ROW, USED, MessageStore, weight_of
from driftline.stream.wire.records import Feedback, Rejected


class Entry:
    """A message in the window: its row, looked at field by field. Good until rows move, between two batches.

    What changes it may change what it weighs: that is for whoever counts (join/window.py).
    """

    __slots__ = ("_store", "row")

    def __init__(self, store: MessageStore, row: int) -> None:
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
        return self._store.read(self._get(ROW.AT), self._get(ROW.ID_SIZE)).decode()

    @property
    def text(self) -> str:
        """The message's text."""
        return self._store.read(self._get(ROW.AT) + self._get(ROW.ID_SIZE), self._get(ROW.TEXT_SIZE)).decode()

    @property
    def timestamp_ms(self) -> int:
        """When it came, by the log's time."""
        return self._get(ROW.TIME_MS)

    @property
    def window(self) -> int:
        """Its window's number."""
        return self._get(ROW.WINDOW)

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return int(weight_of(self._store.rows[self.row], self._store.note_of(self.row)))

    @property
    def came(self) -> bool:
        """False while only a label that carries the text itself came."""
        return self._is(BIT.CAME)

    @property
    def aside(self) -> bool:
        """Whether its id alone names another message, or another label's text."""
        return self._is(BIT.ASIDE)

    @property
    def label(self) -> str | None:
        """The label learned last."""
        size = self._noted(NOTE.LABEL_SIZE)
        return None if size < 0 else self._store.read(self._noted(NOTE.LABEL_AT), size).decode()

    @property
    def label_weight(self) -> int:
        """The bits of that label's weight; 0 where it is not known."""
        return self._noted(NOTE.LABEL_WEIGHT)

    @property
    def words(self) -> list[Word]:
        """What feedback with an id said of it, the last word of each id; the newest last."""
        return decode_words(
            self._noted(NOTE.N_WORDS), self._store.read(self._noted(NOTE.WORDS_AT), self._noted(NOTE.WORDS_SIZE))
        )

    @property
    def scores(self) -> bytes | None:
        """What was served: float32 [n_labels known then]."""
        if not self._is(BIT.SCORED):
            return None
        at = self._get(ROW.SCORES_AT)
        return self._store.scores[at : at + self._get(ROW.N_SCORES)].tobytes()

    def come(self, n_scores: int) -> None:
        """Note that the message itself came, and make room for its scores."""
        self._store.set_bit(self.row, BIT.CAME, on=True)
        self._store.reserve(self.row, n_scores)

    def set_label(self, label: str, weight: int) -> None:
        """Note the label that is learned, and the bits of its weight."""
        raw = label.encode()
        self._store.note(
            self.row, {NOTE.LABEL_AT: self._store.keep(raw), NOTE.LABEL_SIZE: len(raw), NOTE.LABEL_WEIGHT: weight}
        )

    def set_words(self, words: Sequence[Word]) -> None:
        """Note what feedback said."""
        raw = encode_words(words)
        values = {NOTE.WORDS_AT: self._store.keep(raw), NOTE.WORDS_SIZE: len(raw), NOTE.N_WORDS: len(words)}
        self._store.note(self.row, values)


class Messages(Mapping[str, Entry]):
    """The messages of all windows, by id: of those with one id that which came last."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def __getitem__(self, key: str) -> Entry:
        """Return a message's entry."""
        row = self._store.find(key.encode())
        if row < 0:
            raise KeyError(key)
        return Entry(self._store, row)

    def aside(self, key: str, text: str) -> Entry | None:
        """Return the message with an id and a text, where it was set aside."""
        row = self._store.find_aside(key.encode(), text.encode())
        return None if row < 0 else Entry(self._store, row)

    def _rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._store.now[: self._store.used[USED.ROWS]] & BIT.LIVE)

    def __iter__(self) -> Iterator[str]:
        """Give the ids in the order in which the messages came, of those set aside too."""
        return (Entry(self._store, row).key for row in self._rows().tolist())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows())


class Label(msgspec.Struct, frozen=True, gc=False):
    """A label to be learned now. `corrects` tells that another label of that message was learned before."""

    entry: Entry
    feedback: Feedback
    timestamp_ms: int
    corrects: bool
    orphan: Rejected | None = None  # where it had to wait: what it is on the dead-letter topic


Labels = tuple[Label, ...]
