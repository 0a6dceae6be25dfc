"""Which records need not be joined one by one?

Nearly all: messages that are new, and the first label of a message that is here. A run of such plain records changes the
windows as its records one by one would, whatever their order, so it is taken in by a few operations on columns, at a
third of the cost. `join_run` makes sure that a run is plain; where it is not, it changes nothing and says so, and
`odd_places` finds the records that keep it from being plain, for the runs between them.
Proved by test_the_outcome_does_not_depend_on_the_cuts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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


def join_run(
    join: Join, run: Run, columns: Mapping[str, int], score_bytes: int, *, may_expire: bool
) -> Joined | None:
    """Take a run in: 1. see that it is plain, 2. that nothing leaves before its turn, 3. messages, 4. labels, 5. leave.

    Parameters
    ----------
    columns : of the labels that are known
    score_bytes : what each message's scores will take
    may_expire : whether unlabelled messages may leave; where they are to be learned, their turn matters

    Returns
    -------
    joined : or None, and nothing was changed
    """
    messages, feedbacks, (message_places, label_places), times_ms, partitions = run

    # 1
    ids = [message.id for message in messages]
    labelled = [feedback.message_id for feedback in feedbacks]
    targets = [columns.get(feedback.label) for feedback in feedbacks]
    index = dict(zip(ids, range(len(ids)), strict=True))
    if not (
        len(index) == len(ids)
        and len(set(labelled)) == len(labelled)
        and None not in targets
        and {feedback.op for feedback in feedbacks} <= {"upsert"}
        and not any([feedback.text is not None for feedback in feedbacks])
        and join.messages.keys().isdisjoint(ids)
        and (not join.homes or join.homes.keys().isdisjoint(ids))
    ):
        return None
    found = list(map(join.messages.get, labelled))
    known = [entry for entry in found if entry is not None]
    indices = [index.get(key, -1) for key, entry in zip(labelled, found, strict=True) if entry is None]
    is_new = np.fromiter((entry is None for entry in found), bool, len(found))
    if (
        -1 in indices
        or any([entry.label is not None or not entry.came or entry.feedback_ids for entry in known])
        or (message_places[indices] > label_places[is_new]).any()
    ):
        return None

    # 2
    n_windows = len(join.windows)
    own = partitions[message_places]
    texts = [message.text for message in messages]
    n_bytes = [ENTRY_BYTES + score_bytes + 4 * (len(key) + len(text)) for key, text in zip(ids, texts, strict=True)]
    grown = [0 if feedback.id is None else FEEDBACK_BYTES + 4 * len(feedback.id) for feedback in feedbacks]
    of_label = np.empty(len(found), np.int64)
    of_label[is_new] = own[indices]
    of_label[~is_new] = [entry.window for entry in known]
    more_bytes = np.bincount(own, n_bytes, n_windows) + np.bincount(of_label, grown, n_windows)
    clocks = np.array([window.clock_ms for window in join.windows], np.int64)
    np.maximum.at(clocks, own, times_ms[message_places])
    np.maximum.at(clocks, of_label, times_ms[label_places])
    message_times = times_ms[message_places].tolist()
    parts = _by_window(own, n_windows)
    changes = list(zip(join.windows, parts, more_bytes.astype(np.int64).tolist(), clocks.tolist(), strict=True))
    leaving = [
        window.leaving(len(part), more, clock_ms, message_times[part[0]] if len(part) else clock_ms)
        for window, part, more, clock_ms in changes
    ]
    for keys in leaving:
        if keys is None or (keys and not (may_expire and set(labelled).isdisjoint(keys))):
            return None

    # 3
    entries = list(map(Entry, texts, message_times, n_bytes))
    join.messages.update(zip(ids, entries, strict=True))
    for (window, part, more, clock_ms), n_labels in zip(changes, np.bincount(of_label, minlength=n_windows), strict=True):
        window.n_bytes += more
        window.clock_ms = clock_ms
        window.unlabelled += len(part) - int(n_labels)
        if len(part) == len(ids):
            window.oldest.extend(ids)
        else:
            window.oldest.extend([ids[place] for place in part])
    if n_windows > 1:
        for entry, number in zip(entries, own.tolist(), strict=True):
            entry.window = number

    # 4
    new = iter(indices)
    all_found = [entries[next(new)] if entry is None else entry for entry in found]
    for entry, feedback, more in zip(all_found, feedbacks, grown, strict=True):
        entry.label = feedback.label
        if more:
            entry.feedback_ids = (feedback.id,)  # type: ignore[assignment]
            entry.n_bytes += more

    # 5
    for window, keys in zip(join.windows, leaving, strict=True):
        if keys:
            window.drop(keys)
    return Joined(entries, all_found, targets)  # type: ignore[arg-type]


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
            key = record.message_id
            entry = join.messages.get(key)
            if (
                (key not in came if entry is None else entry.label is not None or not entry.came or entry.feedback_ids)
                or record.op != "upsert"
                or record.text is not None
                or record.label not in columns
            ):
                odd.add(key)
    return [place for place, record in enumerate(records) if (key := _id_of(record)) is None or key in odd]


def _id_of(record: Any) -> str | None:
    if type(record) is Message:
        return record.id
    return record.message_id if type(record) is Feedback else None
