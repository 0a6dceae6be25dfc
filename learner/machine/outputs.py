"""What is sent of a batch? Its predictions as they were served, and what could not be learned, as the log takes it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk.settings import Rules
from driftline.learner.machine.plan import Plan
from driftline.learner.models.classifier import Scores
from driftline.stream.decode.batch import Decoded
from driftline.stream.log.base import NewRecord
from driftline.stream.wire.records import Prediction, Rejected, encode_lines
from driftline.stream.wire.shorten import fit_prediction, fit_rejected

Outputs = Mapping[str, list[NewRecord]]  # by topic


def predictions(
    plan: Plan, scores: Scores, n_labels: NDArray[np.int64], rules: Rules, version: Callable[[int], str]
) -> tuple[list[NewRecord], int]:
    """Return the records of a plan's predictions, and how many the log cannot take.

    Parameters
    ----------
    scores : float32 [n_messages, n_labels], what was served
    n_labels : int64 [n_messages], how many labels were known then
    version : gives the model's version by its number of updates
    """
    steps = plan.steps_scored
    if not len(steps) or plan.records is None:
        return [], 0
    rows = scores.astype(np.float64).round(6)
    n_best = min(rules.predictions_scores, rows.shape[1])
    best = np.argsort(-rows, axis=1, kind="stable")[:, :n_best]
    values = np.take_along_axis(rows, best, axis=1)
    # A label that came later in the batch stands last, with 0, and is left out; where all are 0, none was known.
    n_known = np.where(values[:, :1].any(axis=1), n_labels, 0)
    labels = plan.labels
    known = [
        dict(zip([labels[column] for column in columns[:n]], of_columns, strict=False))
        for columns, of_columns, n in zip(best.tolist(), values.tolist(), n_known.tolist(), strict=True)
    ]
    updates = plan.updates + np.cumsum(plan.steps.targets >= 0)[steps]
    places, times_ms = plan.steps.places[steps].tolist(), plan.steps.times_ms[steps].tolist()
    keys = list(map(plan.records.key, places))
    made = map(
        Prediction,
        map(bytes.decode, keys),
        [next(iter(each), None) for each in known],
        [next(iter(each.values()), 0.0) for each in known],
        known,
        map(version, updates.tolist()),
        _timestamps(plan.records, places, times_ms),
    )
    # Of an iterator msgspec 0.22 keeps every item for good. JSON has no line break of its own.
    encoded = encode_lines(list(made)).split(b"\n")[:-1]
    if max(map(len, encoded)) <= rules.max_record_bytes:
        return list(map(NewRecord, keys, encoded, times_ms)), 0
    return _fitting(keys, encoded, times_ms, rules.max_record_bytes)


def dead_letter(rejected: Rejected, limit: int) -> NewRecord:
    """Return the record of what could not be learned. `limit` : of its bytes."""
    key = f"{rejected.topic}-{rejected.partition}-{rejected.offset}"
    return NewRecord(key.encode(), fit_rejected(rejected, limit))


def _fitting(
    keys: list[bytes], encoded: list[bytes], times_ms: Sequence[int], limit: int
) -> tuple[list[NewRecord], int]:
    """Return those of the predictions that the log takes, cut where they have to be, and how many it does not take."""
    values = [value if len(value) <= limit else fit_prediction(value, limit) for value in encoded]
    columns = zip(keys, values, times_ms, strict=True)
    return [NewRecord(*each) for each in columns if each[1] is not None], values.count(None)


def _timestamps(records: Decoded, places: Sequence[int], times_ms: Sequence[int]) -> list[str]:
    """Return the messages' own times, or else the log's: a prediction written again is the same."""
    stamps: list[str] = np.datetime_as_string(np.array(times_ms, "M8[ms]"), timezone="UTC").tolist()
    if records.found:
        for index, place in enumerate(places):
            message = records.found.get(int(records.order[place]))
            if message is not None and message.ts is not None:
                stamps[index] = message.ts.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return stamps
