"""What does a window look like in a checkpoint, and how is it written while its own thread goes on?

For that nothing is copied but a word for each row: what the words name is never changed (join/message_rows.py), so the
rest is read where it is; where rows move meanwhile, they leave what is being read behind.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Final, NamedTuple

import msgspec
import numpy as np

from driftline.stream.join.codec import array_head, measure_rows, pack_rows
from driftline.stream.join.early import Early
from driftline.stream.join.feedback_said import ANY, Word, short
from driftline.stream.join.late import Gone
from driftline.stream.join.message_rows import Arrays

SLICE: Final = 4096  # rows encoded at once, without the GIL
EARLY_SLICE: Final = 256  # messages whose waiting labels are encoded at once, with it

CAME_AT: Final = 2  # in an entry: whether the message itself came
SAID_AT: Final = 6  # in an entry: its words

_pack = msgspec.msgpack.Encoder().encode
_unpack_pairs = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode


FORMAT: Final = 3  # of a window; before, there was no number
LATE_FORMAT: Final = 4  # of one that has messages, too, that left and that a label can still correct


class WindowState(msgspec.Struct, array_like=True):
    """A window as it stands in a checkpoint."""

    format: int
    clock_ms: int
    messages: msgspec.Raw  # pairs of an id and its entry, for join/unpack.py
    early: list[tuple[str, list[Early]]]
    late: list[tuple[str, Gone]] = []


_WINDOW_STATE: Final = msgspec.msgpack.Decoder(WindowState)


class Frozen(NamedTuple):
    """A window as it was at one moment, to be encoded by any thread.

    Parameters
    ----------
    arrays : rows, words, notes, bytes and scores, of all windows (MessageStore.hold)
    n_rows : how many of the rows are this window's and live
    early : the labels that waited, by message
    late : the messages that left it, and that a label can still correct
    """

    number: int
    clock_ms: int
    arrays: Arrays
    n_rows: int
    early: list[tuple[Early, ...]]
    late: Sequence[tuple[str, Gone]] = ()

    def encode(self) -> Iterator[bytes]:
        """Give the window's state in parts."""
        rows, now, notes, kept, scores = self.arrays
        yield (b"\x95" if self.late else b"\x94") + _pack(LATE_FORMAT if self.late else FORMAT)
        yield _pack(self.clock_ms) + array_head(self.n_rows)
        for start in range(0, len(now), SLICE):
            some, words = rows[start : start + SLICE], now[start : start + SLICE]
            out = np.empty(measure_rows(some, words, notes, self.number), np.uint8)
            n = pack_rows(some, words, notes, kept, scores.view(np.uint8), self.number, out)
            yield out[:n].tobytes()
        yield array_head(len(self.early))
        for start in range(0, len(self.early), EARLY_SLICE):
            yield b"".join(
                _pack((waiting[0].feedback.message_id, waiting)) for waiting in self.early[start : start + EARLY_SLICE]
            )
        if self.late:
            yield array_head(len(self.late))
        for start in range(0, len(self.late), EARLY_SLICE):
            yield b"".join(map(_pack, self.late[start : start + EARLY_SLICE]))


def decode(state: bytes) -> WindowState:
    """Return what `encode` gave in parts, in this version or an older one.

    Raises
    ------
    ValueError, RecursionError, OverflowError : it is none.
    """
    if state.startswith(_BEFORE):
        return _as_of_today(_BEFORE_DECODER.decode(state))
    found = _WINDOW_STATE.decode(state)
    if found.format not in (FORMAT, LATE_FORMAT):
        raise ValueError(f"it has format {found.format}, this version of Driftline reads format {LATE_FORMAT}")
    return found


_BEFORE: Final = b"\x93"


class _EntryBefore(msgspec.Struct, array_like=True):
    """A message as format 2 had it: of its labels only the ids are known, and of its label not how heavy it was."""

    text: str
    timestamp_ms: int
    n_bytes: int
    came: bool
    label: str | None
    feedback_ids: list[str]
    scores: bytes | None
    window: int


class _Before(msgspec.Struct, array_like=True):
    """A window as format 2 had it."""

    clock_ms: int
    messages: list[tuple[str, _EntryBefore]]
    early: list[tuple[str, list[Early]]]


_BEFORE_DECODER: Final = msgspec.msgpack.Decoder(_Before)


def _as_of_today(before: _Before) -> WindowState:
    messages = [(key, _entry_of_today(entry)) for key, entry in before.messages]
    early = [
        (key, [Early.of(each.feedback, each.timestamp_ms, each.orphan) for each in waiting])
        for key, waiting in before.early
    ]
    return WindowState(FORMAT, before.clock_ms, msgspec.Raw(_pack(messages)), early)


def _entry_of_today(before: _EntryBefore) -> tuple[object, ...]:
    words = [Word(short(each), ANY, 0) for each in before.feedback_ids]
    return before.text, before.timestamp_ms, before.came, False, before.label, 0, words, before.scores


class Unwanted(NamedTuple):
    """What a window is to forget.

    Attributes
    ----------
    ids : of messages, with all that is known of them, and of labels that wait
    texts : of messages of which only labels came, with their texts
    places : topic, partition and offset of labels that wait for their message
    words : a message's id and that of a feedback: that this one was there
    """

    ids: Set[str]
    texts: Set[str] = frozenset()
    places: Set[tuple[str, int, int]] = frozenset()
    words: Set[tuple[str, str]] = frozenset()


def forget(state: bytes, unwanted: Unwanted) -> bytes:
    """Return a window's state without what it is to forget. Raises what `decode` does."""
    loaded = decode(state)
    said = dict[str, set[str]]()
    for key, feedback_id in unwanted.words:
        said.setdefault(key, set()).add(short(feedback_id))
    messages = [
        (key, _without_words(entry, said[key]) if key in said else entry)
        for key, entry in _unpack_pairs(loaded.messages)
        if not _is_unwanted(key, entry, unwanted)
    ]
    early = []
    for key, waiting in loaded.early:
        kept = [each for each in waiting if not _is_unwanted_label(each, unwanted)]
        if kept and key not in unwanted.ids:
            early.append((key, kept))
    late = [(key, gone) for key, gone in loaded.late if key not in unwanted.ids]
    parts = loaded.clock_ms, msgspec.Raw(_pack(messages)), early
    return _pack((LATE_FORMAT, *parts, late) if late else (FORMAT, *parts))


def _is_unwanted(key: str, entry: msgspec.Raw, unwanted: Unwanted) -> bool:
    return key in unwanted.ids or (key in unwanted.texts and not msgspec.msgpack.decode(entry)[CAME_AT])


def _without_words(entry: msgspec.Raw, feedback_ids: Set[str]) -> msgspec.Raw:
    fields = msgspec.msgpack.decode(entry)
    fields[SAID_AT] = [word for word in fields[SAID_AT] if word[0] not in feedback_ids]
    return msgspec.Raw(_pack(fields))


def _is_unwanted_label(label: Early, unwanted: Unwanted) -> bool:
    said, orphan = label.feedback, label.orphan
    place = None if orphan is None else (orphan.topic, orphan.partition, orphan.offset)
    is_named = said.id is not None and (said.id in unwanted.ids or (said.message_id, said.id) in unwanted.words)
    return is_named or place in unwanted.places
