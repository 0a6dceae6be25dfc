"""What is kept is counted, or is not kept: real bytes beside those that the limits go by."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from driftline.stream.join.join import Join
from driftline.stream.join.message_rows import BIT, NOTE, ROOM, ROW, SPARE, MessageStore
from driftline.stream.limits import Limits
from driftline.stream.wire.records import Feedback, Message, Rejected, encode, reject

BATCH = 5
FIXED = 1 << 17
LIMITS = Limits(messages=1 << 30, n_bytes=1 << 20, age_ms=1 << 40)
WIDE = "\N{GRINNING FACE}"
Record = Message | Feedback


def messages(text: str, key: str = "") -> Iterator[Record]:
    for number in range(1 << 30):
        yield Message(f"{key}{number}", text)


def labelled(label: str, n: int, feedback_id: str = "", text: str = "hi") -> Iterator[Record]:
    for number in range(1 << 30):
        yield Message(f"m{number}", text)
        for each in range(n):
            yield Feedback(f"m{number}", label + "xy"[each % 2], id=f"{feedback_id}{number}-{each}")


def sharing(texts: int, key: str) -> Iterator[Record]:
    for number in range(1 << 30):
        yield Message(f"{key}{number // texts}", f"text {number}")


def early(n: int, key: str = "", label: str = "spam", **fields: str) -> Iterator[Record]:
    for number in range(1 << 30):
        kept = {name: f"{value}{number}" for name, value in fields.items()}
        yield Feedback(f"{key}{number // n}", f"{label}{number % n}", **kept)  # type: ignore[arg-type]


ROWS: dict[str, Callable[[], Iterator[Record]]] = {
    "short texts": lambda: messages("hi"),
    "long texts": lambda: messages("x" * 10_000),
    "texts of wide characters": lambda: messages(WIDE * 300),
    "long ids of wide characters": lambda: messages("hi", WIDE * 500),
    "a label each": lambda: labelled("spam", 1),
    "a long label each": lambda: labelled(WIDE * 255, 1),
    "labels that go back and forth": lambda: labelled("spam", 20),
    "the same, all of it long": lambda: labelled(WIDE * 255, 20, WIDE * 490),
}
SHARED: dict[str, Callable[[], Iterator[Record]]] = {
    "two texts an id": lambda: sharing(2, ""),
    "two texts a long id": lambda: sharing(2, WIDE * 500),
    "all texts one id": lambda: sharing(1 << 30, "m"),
}
EARLY: dict[str, Callable[[], Iterator[Record]]] = {
    "labels alone": lambda: early(1),
    "with ids": lambda: early(1, id="f"),
    "sixteen for a message": lambda: early(16, id="f"),
    "long strings": lambda: early(1, "k" * 400, "l" * 200, id="f" * 400),
    "long strings of wide characters": lambda: early(1, WIDE * 500, WIDE * 250, id=WIDE * 500),
    "a source of a megabyte": lambda: early(1, source="s" * (1 << 20)),
}


class Fed:
    """A join, given records until it has dropped some."""

    def __init__(self, records: Iterator[Record], n_scores: int) -> None:
        self.join, self._records, self._n_scores, self._n = Join(), records, n_scores, 0
        self.join.configure(1, LIMITS)
        (self._window,) = self.join.windows
        self.most_touched = self.largest_batch = 0

    def feed(self, n: int) -> None:
        """Take records in, in small batches."""
        for _ in range(n // BATCH):
            batch = [next(self._records) for _ in range(BATCH)]
            n_bytes = sum(len(encode(record)) for record in batch)
            self.join.make_room(BATCH, 2 * n_bytes, BATCH * self._n_scores)
            for record in batch:
                self._take(record)
            self.most_touched = max(self.most_touched, touched(self.join.store))
            self.largest_batch = max(self.largest_batch, n_bytes)

    @property
    def allowed(self) -> float:
        """What may be taken by what is counted; what a batch may bring, and an empty store, come on top."""
        return 1.1 * self.join.n_bytes + 2 * ROOM * self.largest_batch + FIXED

    def close(self) -> None:
        """Let go of the last record."""
        self._records = iter(())

    def _take(self, record: Record) -> None:
        self._n += 1
        if isinstance(record, Message):
            self._window.add_message(record, self._n, self._n_scores)
        else:
            value = encode(record)
            self._window.add_feedback(record, self._n, orphan(record, self._n, value))
        self.join.evict(self._window)


def orphan(feedback: Feedback, offset: int, value: bytes) -> Rejected:
    """Return what the machine would make of it."""
    detail = f"no message {feedback.message_id!r} came while the label could wait"
    return reject("feedback", 0, offset, value, "orphaned", detail)


def touched(store: MessageStore) -> int:
    """Return the bytes of a store that were ever written, and those of a copy of what lives, as when it is moved."""
    rows, n_bytes, scores, notes = store.used.tolist()
    used = rows * 8 * (len(ROW) + 1) + n_bytes + 4 * scores + notes * 8 * len(NOTE)
    return int(store.table.nbytes + used * (SPARE + 1) / SPARE)


@pytest.mark.parametrize("n_scores", [0, 60])
@pytest.mark.parametrize("records", ROWS)
def test_what_is_counted_is_what_is_taken(records: str, n_scores: int) -> None:
    """From full to full again, so that rows move."""
    fed = Fed(ROWS[records](), n_scores)
    while not fed.join.counts.expired and fed.join.n_bytes < 0.9 * LIMITS.n_bytes:
        fed.feed(100)
    fed.feed(1000)
    assert 0.5 * LIMITS.n_bytes < fed.join.n_bytes <= LIMITS.n_bytes
    assert fed.most_touched < fed.allowed
    assert fed.most_touched > 0.2 * fed.join.n_bytes, "and it is no wild guess"


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("records", SHARED)
def test_texts_that_share_an_id_are_counted_with_all_that_knows_them(records: str) -> None:
    fed = Fed(SHARED[records](), 2)
    before = objects(fed.join)
    fed.feed(1500)
    taken = objects(fed.join) - before
    store = fed.join.store
    n_aside = np.count_nonzero(store.now[: store.used[0]] & (BIT.LIVE | BIT.ASIDE) == BIT.LIVE | BIT.ASIDE)
    assert sum(of_key[0] for of_key in fed.join.shared.values()) == n_aside > 0
    assert fed.most_touched + taken < fed.allowed
    assert fed.join.n_bytes <= LIMITS.n_bytes


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("records", EARLY)
def test_labels_that_wait_are_counted_with_all_that_is_kept_of_them(records: str) -> None:
    fed = Fed(EARLY[records](), 0)
    before = objects(fed.join)
    fed.feed(500)
    fed.close()
    taken, waiting = objects(fed.join) - before, fed.join.waiting
    assert waiting > 0
    assert fed.join.n_bytes <= LIMITS.n_bytes / 4
    assert taken < 1.1 * fed.join.n_bytes + FIXED
    (saved,) = fed.join.state()
    assert len(saved) < fed.join.n_bytes
    again = Join()
    again.configure(1, LIMITS)
    before = objects(again)
    again.load_state(fed.join.counts, [saved])
    assert objects(again) - before < 1.1 * again.n_bytes + FIXED
    assert again.n_bytes == fed.join.n_bytes


@pytest.fixture
def tracing() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def objects(join: Join) -> int:
    """Return what is taken by all but a store's arrays, which have room that nobody has touched."""
    gc.collect()
    store = join.store
    arrays = store.rows, store.now, store.notes, store.kept, store.scores, store.table
    return tracemalloc.get_traced_memory()[0] - sum(array.nbytes for array in arrays)
