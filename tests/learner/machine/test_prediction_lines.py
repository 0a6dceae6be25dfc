"""The kernel that writes predictions writes what msgspec does."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.machine.prediction_lines import MILLION, Strings, Versions, write_lines
from driftline.stream.wire.records import Prediction, encode

LAST_MS = int(datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC).timestamp() * 1000)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SCORES = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, 1e-6, 9e-6, 1e-5, 4.9e-7, 5e-7, 5.1e-7, 0.1, 0.999999, 0.9999999]),
    st.floats(0, 1, width=32),
    st.integers(0, MILLION).map(lambda n: n / MILLION),
)


def twin(key: str, scores: list[float], labels: list[str], n_best: int, version: str, stamp: str) -> bytes:
    """Write one as msgspec does: the best scores first, and none where all are 0."""
    told = sorted(
        enumerate(np.array(scores, np.float32).astype(np.float64).round(6).tolist()), key=lambda each: -each[1]
    )
    known = {labels[column]: score for column, score in told[:n_best]}
    if not any(known.values()):
        known = {}
    label, score = next(iter(known.items()), (None, 0.0))
    return encode(Prediction(key, label, score, known, version, stamp))


@given(st.data())
def test_it_writes_what_msgspec_does(data: st.DataObject) -> None:
    labels = data.draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    n, n_best, last = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7)), data.draw(st.integers(0, 10))
    keys = data.draw(st.lists(NAMES, min_size=n, max_size=n))
    rows = data.draw(st.lists(st.lists(SCORES, min_size=len(labels), max_size=len(labels)), min_size=n, max_size=n))
    n_labels = data.draw(st.lists(st.integers(0, len(labels)), min_size=n, max_size=n))
    updates = data.draw(st.lists(st.integers(0, 1 << 50) | st.integers(0, 20), min_size=n, max_size=n))
    times_ms = data.draw(st.lists(st.integers(0, LAST_MS), min_size=n, max_size=n))
    own = data.draw(st.lists(st.sampled_from(["", "2020-02-29T00:00:00.000+05:30"]), min_size=n, max_size=n))
    encoded = [key.encode() for key in keys]
    at = Strings.of(encoded)
    found = write_lines(
        (at.data, at.ends[:-1], np.diff(at.ends)),
        np.array(rows, np.float32),
        np.array(n_labels),
        n_best,
        labels,
        Versions("before", "then", last),
        np.array(updates),
        np.array(times_ms),
        Strings.of([each.encode() for each in own]),
    )
    stamps = np.datetime_as_string(np.array(times_ms, "M8[ms]"), timezone="UTC").tolist()
    for i, line in enumerate(found):
        version = Versions("before", "then", last).at(updates[i])
        row, names = rows[i][: n_labels[i]], labels[: n_labels[i]]
        assert line == twin(keys[i], row, names, n_best, version, own[i] or stamps[i])


def test_every_score_is_written_so() -> None:
    n = MILLION + 1
    none, one = np.zeros(n, np.int64), np.ones(n, np.int64)
    scores = (np.arange(n) / MILLION).astype(np.float32)[:, None]
    version = Versions("v", "v", 0)
    empty = Strings(np.empty(0, np.uint8), np.zeros(n + 1, np.int64))
    lines = write_lines((np.frombuffer(b"k", np.uint8), none, one), scores, one, 1, ["a"], version, none, none, empty)
    values = [line.partition(b'"score":')[2].partition(b",")[0] for line in lines]
    rounded = scores[:, 0].astype(np.float64).round(6).tolist()
    assert values == [encode_score(value) for value in rounded]


def encode_score(value: float) -> bytes:
    return encode(Prediction("k", "a", value, {}, "", "")).partition(b'"score":')[2].partition(b",")[0]
