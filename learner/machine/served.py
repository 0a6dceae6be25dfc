"""What of a learner is about predictions that were served, and stays when another model takes the model's place?

What was predicted when a message came in, and how that compared with its label, is the past: a model that is built anew
does not change it. So at the stroke (loop.py) the new machine gets the old one's figures, its drift windows and alarms,
and the scores of the messages that can still be labelled. A column is a label of the old model, and becomes that of the
same label in the new one. What a label's own figures were is lost where the new model does not know it; so is a
prediction whose best label it was: its label then counts as one that had no prediction.

The publish gate is the new model's own: it asks whether that may be served.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.learner.machine.machine import Machine
from driftline.stream.join.message_rows import BIT, ROW, USED, MessageStore, find, hash_bytes


def carry(old: Machine, new: Machine) -> None:
    """Give a machine what another one, which it takes the place of, knows of predictions that were served.

    Both have applied the same records. The old one is not changed, and no longer needed.
    """
    place = {label: column for column, label in enumerate(new.classifier.labels)}
    columns = np.array([place.get(label, -1) for label in old.classifier.labels], np.int64)
    new.progress = old.progress.carried(columns, new.classifier.max_labels)
    new.drift = old.drift.carried(columns, new.classifier.max_labels)
    new.alarms = old.alarms
    since_ms = old.places.since_ms[: len(columns)]
    _carry_scores(old.join.store, new.join.store, columns, since_ms, len(new.classifier.labels))


def _carry_scores(
    old: MessageStore, new: MessageStore, columns: NDArray[np.int64], since_ms: NDArray[np.int64], n_labels: int
) -> None:
    n = int(new.used[USED.ROWS])
    new.ensure(0, 0, n * n_labels)
    before = old.rows, old.now, old.kept, old.scores, old.table, old.secret
    carry_scores(before, (new.rows, new.now, new.kept, new.scores, new.used), n, columns, since_ms)


@kernel
def carry_scores(before: Any, after: Any, n, columns, since_ms):  # type: ignore[no-untyped-def]
    """Give each of the first rows the scores that the same message has before, in its columns.

    Not those of labels that have given their place to the column's label since the message came (label_places.py).
    """
    rows, now, kept, scores, table, secret = before
    to_rows, to_now, to_kept, to_scores, used = after
    for row in range(n):
        if to_now[row] & BIT.LIVE == 0:
            continue
        to = to_rows[row]
        h = hash_bytes(to_kept, to[ROW.AT], to[ROW.ID_SIZE], secret)
        found, _ = find(table, rows, kept, h, to_kept, to[ROW.AT], to[ROW.ID_SIZE])
        width, best, is_own = 0, -1, False
        if found >= 0 and now[found] & BIT.SCORED != 0:
            start, time_ms = rows[found, ROW.SCORES_AT], rows[found, ROW.TIME_MS]
            for column in range(rows[found, ROW.N_SCORES]):
                own = since_ms[column] < time_ms and columns[column] >= 0
                if own:
                    width = max(width, columns[column] + 1)
                if scores[start + column] > 0 and (best < 0 or scores[start + column] > scores[start + best]):
                    best, is_own = column, own
        if best < 0 or not is_own:
            to_now[row] &= ~BIT.SCORED
            continue
        to[ROW.SCORES_AT], to[ROW.N_SCORES] = used[USED.SCORES], width
        for column in range(width):
            to_scores[used[USED.SCORES] + column] = 0
        for column in range(rows[found, ROW.N_SCORES]):
            if columns[column] >= 0 and since_ms[column] < rows[found, ROW.TIME_MS]:
                to_scores[used[USED.SCORES] + columns[column]] = scores[start + column]
        used[USED.SCORES] += width
        to_now[row] |= BIT.SCORED


def warm_up() -> None:
    """Compile the kernel, or load it compiled, so that no stroke waits for that."""
    store = MessageStore()
    _carry_scores(store, store, np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
