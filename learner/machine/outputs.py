"""What is sent of a batch? Its predictions as they were served, and what could not be learned, as the log takes it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk.settings import Rules
from driftline.learner.machine.plan import Plan
from driftline.learner.machine.prediction_lines import Strings, Versions, column_of, write_lines
from driftline.learner.models.classifier import Scores
from driftline.stream.decode.batch import Decoded
from driftline.stream.decode.scan import KEY, SIZE
from driftline.stream.log.base import NewColumns, NewRecord
from driftline.stream.wire.records import Rejected
from driftline.stream.wire.shorten import fit_prediction, fit_rejected

Ints = NDArray[np.int64]
Outputs = Mapping[str, Sequence[NewRecord]]  # by topic


def predictions(plan: Plan, scores: Scores, n_labels: Ints, rules: Rules, versions: Versions) -> tuple[NewColumns, int]:
    """Return the records of a plan's predictions, and how many the log cannot take.

    Parameters
    ----------
    scores : float32 [n_messages, n_labels], what was served
    n_labels : int64 [n_messages], how many labels were known then; one that came later in the batch is left out
    """
    steps, records = plan.steps_scored, plan.records
    if not len(steps) or records is None:
        return NewColumns.of([], [], []), 0
    places, times_ms = plan.steps.places[steps], plan.steps.times_ms[steps]
    starts, sizes = records.fields[records.order[places]][:, [KEY, KEY + SIZE]].T
    updates = plan.updates + np.cumsum(plan.steps.targets >= 0)[steps]
    stamps = _stamps(records, places)
    ids = records.data, starts, sizes
    values = write_lines(
        ids, scores, n_labels, rules.predictions_scores, plan.labels, versions, updates, times_ms, stamps
    )
    made = NewColumns(column_of(*ids), values, times_ms)
    return (made, 0) if made.longest <= rules.max_record_bytes else _fitting(made, rules.max_record_bytes)


def dead_letter(rejected: Rejected, limit: int) -> NewRecord:
    """Return the record of what could not be learned. `limit` : of its bytes."""
    key = f"{rejected.topic}-{rejected.partition}-{rejected.offset}"
    return NewRecord(key.encode(), fit_rejected(rejected, limit))


def _fitting(made: NewColumns, limit: int) -> tuple[NewColumns, int]:
    """Return those of the predictions that the log takes, cut where they have to be, and how many it does not take."""
    values = [value if value is None or len(value) <= limit else fit_prediction(value, limit) for value in made.values]
    fit = [place for place, value in enumerate(values) if value is not None]
    taken = NewColumns.of(made.keys.some(fit), [values[place] for place in fit], made.times_ms[fit].tolist())
    return taken, len(values) - len(fit)


def _stamps(records: Decoded, places: Ints) -> Strings:
    """Return the times that messages brought themselves, of the others nothing: theirs is the log's.

    So a prediction that is written again is the same.
    """
    if not records.found:
        return Strings(np.empty(0, np.uint8), np.zeros(len(places) + 1, np.int64))
    messages = [records.found.get(index) for index in records.order[places].tolist()]
    return Strings.of([b"" if each is None or each.ts is None else _stamp(each.ts) for each in messages])


def _stamp(time: datetime) -> bytes:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
