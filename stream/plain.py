"""Which records need not be joined one by one?

Nearly all: messages that are new, and the first label of a message that is here. A run of such plain records changes
the windows as its records one by one would, so it is taken in by a few operations on columns, at a third of the cost.
`join_run` makes sure that a run is plain; where it is not, it changes nothing and says so, and `odd_places` finds the
records that keep it from being plain, for the runs between them.
Proved by test_runs_of_plain_records_are_taken_in_as_one_by_one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.join import ENTRY_BYTES, FEEDBACK_BYTES, Entry, Join
from stream.records import Feedback, Message

Ints = NDArray[np.int64]


class Run(NamedTuple):
    """Records in their order, by kind.

    Attributes
    ----------
    places : int64, of the messages, and of the labels, in the run
    times_ms, partitions : int64, of all records
    """

    messages: list[Message]
    feedbacks: list[Feedback]
    places: tuple[Ints, Ints]
    times_ms: Ints
    partitions: Ints

    @classmethod
    def of(cls, records: Sequence[Any], times_ms: Ints, partitions: Ints) -> "Run":
        """Return records as a run; what can be no part of one is left out of it."""
        messages = [place for place, record in enumerate(records) if type(record) is Message]
        labels = [place for place, record in enumerate(records) if type(record) is Feedback]
        places = np.array(messages, np.int64), np.array(labels, np.int64)
        of_kind = [records[place] for place in messages], [records[place] for place in labels]
        return cls(*of_kind, places, times_ms, partitions)


class Joined(NamedTuple):
    """The messages' entries, to be scored, and the labels', to be learned, with their columns."""

    entries: list[Entry]
    labelled: list[Entry]
    columns: list[int]


def join_run(join: Join, run: Run, columns: Mapping[str, int], score_bytes: int, *, may_expire: bool) -> Joined | None:
    """Take a run in: its messages first, all at once, so that labels find them; out again where it is not plain.

    Parameters
    ----------
    columns : of the labels that are known
    score_bytes : what each message's scores will take
    may_expire : whether unlabelled messages may leave; where they are to be learned, their turn matters

    Returns
    -------
    joined : or None, and nothing was changed
    """
    ids, texts = [message.id for message in run.messages], [message.text for message in run.messages]
    n_bytes = [ENTRY_BYTES + score_bytes + 4 * (len(key) + len(text)) for key, text in zip(ids, texts, strict=True)]
    own = run.partitions[run.places[0]]
    windows = own.tolist() if len(join.windows) > 1 else repeat(0)
    times_ms = run.times_ms[run.places[0]].tolist()
    entries = list(map(Entry, texts, times_ms, n_bytes, repeat(True), repeat(None), repeat(()), repeat(None), windows))
    there = list(map(join.messages.setdefault, ids, entries))
    if all(map(is_, there, entries)) and (not join.homes or join.homes.keys().isdisjoint(ids)):
        joined = _join_labels(join, run, columns, ids, entries, may_expire=may_expire)
        if joined is not None:
            return joined
    for key, entry, held in zip(ids, entries, there, strict=True):
        if held is entry:
            del join.messages[key]
    return None


def _join_labels(
    join: Join, run: Run, columns: Mapping[str, int], ids: list[str], entries: list[Entry], *, may_expire: bool
) -> Joined | None:
    """1. See that all labels are the first of a message that came before. 2. See that nothing leaves before its turn.
    3. Change the windows. 4. Settle the labels. 5. Drop what has to leave.
    """
    _, feedbacks, (message_places, label_places), times_ms, partitions = run

    # 1
    labelled = [feedback.message_id for feedback in feedbacks]
    try:
        targets = [columns[feedback.label] for feedback in feedbacks]
        found = [join.messages[key] for key in labelled]
    except KeyError:
        return None
    odd_feedbacks = [feedback for feedback in feedbacks if feedback.op != "upsert" or feedback.text is not None]
    odd_entries = [entry for entry in found if entry.label is not None or not entry.came or entry.feedback_ids]
    if odd_feedbacks or odd_entries or len(set(labelled)) < len(labelled):
        return None
    place_of = dict(zip(ids, message_places.tolist(), strict=True))
    if (np.fromiter((place_of.get(key, -1) for key in labelled), np.int64, len(labelled)) > label_places).any():
        return None

    # 2
    n_windows = len(join.windows)
    own = partitions[message_places]
    of_label = np.fromiter((entry.window for entry in found), np.int64, len(found))
    grown = [0 if feedback.id is None else FEEDBACK_BYTES + 4 * len(feedback.id) for feedback in feedbacks]
    sizes = [entry.n_bytes for entry in entries]
    more_bytes = np.bincount(own, sizes, n_windows) + np.bincount(of_label, grown, n_windows)
    clocks = np.array([window.clock_ms for window in join.windows], np.int64)
    np.maximum.at(clocks, own, times_ms[message_places])
    np.maximum.at(clocks, of_label, times_ms[label_places])
    parts = _by_window(own, n_windows)
    changes = list(zip(join.windows, parts, more_bytes.astype(np.int64).tolist(), clocks.tolist(), strict=True))
    leaving = [
        window.leaving(len(part), more, clock_ms, entries[part[0]].timestamp_ms if len(part) else clock_ms)
        for window, part, more, clock_ms in changes
    ]
    for keys in leaving:
        if keys is None or (keys and not (may_expire and set(labelled).isdisjoint(keys))):
            return None

    # 3
    for (window, part, more, clock_ms), n_labels in zip(
        changes, np.bincount(of_label, minlength=n_windows).tolist(), strict=True
    ):
        window.n_bytes += more
        window.clock_ms = clock_ms
        window.unlabelled += len(part) - n_labels
        window.oldest.extend(ids if len(part) == len(ids) else [ids[index] for index in part])

    # 4
    if any(window.kept is not None for window in join.windows):
        for entry in found:
            join.windows[entry.window].keep(entry)
    for entry, feedback, more in zip(found, feedbacks, grown, strict=True):
        entry.label = feedback.label
        if feedback.id is not None:
            entry.feedback_ids = (feedback.id,)
            entry.n_bytes += more

    # 5
    for window, keys in zip(join.windows, leaving, strict=True):
        if keys:
            window.drop(keys)
    return Joined(entries, found, targets)


def _by_window(numbers: Ints, n_windows: int) -> list[Any]:
    """Return the indices of each window's messages."""
    if n_windows == 1:
        return [range(len(numbers))]
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=n_windows))
    return [order[start:end].tolist() for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def odd_places(records: Sequence[Any], join: Join, columns: Mapping[str, int]) -> list[int]:
    """Return the places of the records that `join_run` does not take, of whatever kind, in their order.

    With a record every other one of its id is odd, so that the rest does not touch the same entries.
    """
    ids = [record.id for record in records if type(record) is Message]
    labelled = [record.message_id for record in records if type(record) is Feedback]
    odd = {key for each in (ids, labelled) for key, times in Counter(each).items() if times > 1}
    odd |= (join.messages.keys() & ids) | (join.homes.keys() & ids)
    came: set[str] = set()
    for record in records:
        if type(record) is Message:
            came.add(record.id)
        elif type(record) is Feedback:
            entry = join.messages.get(record.message_id)
            is_here = record.message_id in came if entry is None else entry.came and entry.label is None
            is_first = entry is None or not entry.feedback_ids
            is_usual = record.op == "upsert" and record.text is None and record.label in columns
            if not (is_here and is_first and is_usual):
                odd.add(record.message_id)
    keys = map(_id_of, records)
    return [place for place, key in enumerate(keys) if key is None or key in odd]


def _id_of(record: Any) -> str | None:
    if type(record) is Message:
        return record.id
    return record.message_id if type(record) is Feedback else None
