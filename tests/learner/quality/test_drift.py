"""Alarms come soon after a change, hardly ever without one, and are River's, wherever the stream is cut."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import drift

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.quality import adwin
from driftline.learner.quality.alarms import RECENT_ALARMS, Alarms, log_alarms
from driftline.learner.quality.drift import MAX_LABELS, MAX_LOSS, Drift, Shift
from driftline.learner.report.status import read_status
from driftline.stream.errors import StateError
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.data import alarm
from tests.often import times

Arrays = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


def levels(seed: int, binary: bool) -> NDArray[np.float64]:
    """Return numbers in 0 to 1 around a mean that jumps now and then."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(rng.integers(1, 7)):
        n, mean = int(rng.integers(1, 3000)), rng.random()
        parts.append(rng.random(n) < mean if binary else np.clip(rng.normal(mean, rng.random() / 3, n), 0, 1))
    return np.concatenate(parts).astype(np.float64)


def rivers_changes(numbers: NDArray[np.float64]) -> list[int]:
    detector = drift.ADWIN(delta=adwin.DELTA, clock=adwin.CLOCK)
    found = []
    for index, number in enumerate(numbers.tolist()):
        detector.update(number)
        if detector.drift_detected:
            found.append(index)
    return found


@settings(deadline=None, max_examples=times(60, 20))
@given(st.integers(0, 2**32), st.booleans())
def test_changes_are_rivers(seed: int, binary: bool) -> None:
    numbers = levels(seed, binary)
    found = adwin.add(adwin.new_windows(1), np.zeros(len(numbers), np.int32), numbers)
    assert found.number.tolist() == rivers_changes(numbers)


def test_a_change_says_when_it_began_and_how_large_it_is() -> None:
    numbers = np.concatenate([np.full(1000, 0.25), np.full(400, 0.5), np.full(500, 0.125)])
    found = adwin.add(adwin.new_windows(1), np.zeros(len(numbers), np.int32), numbers)
    assert found.number.tolist() == [1055, 1439]
    assert found.widths.tolist() == [[1000, 56], [344, 40]]  # a window begins anew where the change was seen
    np.testing.assert_allclose(found.means, [[0.25, 0.5], [0.5, 0.125]])


def test_windows_do_not_disturb_each_other() -> None:
    numbers = levels(1, binary=False)
    rows = np.random.default_rng(0).integers(0, 4, len(numbers)).astype(np.int32)
    windows = adwin.new_windows(4)
    found = adwin.add(windows, rows, numbers)
    for row in range(4):
        own = np.flatnonzero(rows == row) if row else np.arange(len(rows))
        assert found.number[found.window == row].tolist() == own[rivers_changes(numbers[own])].tolist()
    assert adwin.sound(windows)


def test_a_number_costs_little() -> None:
    numbers = np.random.default_rng(0).random(200_000)
    rows = np.ones(len(numbers), np.int32)
    adwin.add(adwin.new_windows(2), rows[:1], numbers[:1])
    started = time.process_time()
    adwin.add(adwin.new_windows(2), rows, numbers)
    assert (time.process_time() - started) / len(numbers) < 1e-6  # about 0.1e-6 for both windows; tests share machines


def labels(
    n: int, right: float | Sequence[float], n_labels: int = 3, seed: int = 0, first: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return predictions of a classifier that is right so often (for each label), and as sure as it should be."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(first, first + n_labels, n).astype(np.int32)
    share = np.broadcast_to(np.asarray(right), n_labels)[truth - first]
    hit = rng.random(n) < share
    predicted = np.where(hit, truth, first + (truth - first + 1) % n_labels).astype(np.int32)
    p_truth = np.where(hit, rng.uniform(0.6, 1.0, n), rng.uniform(0.0, 0.4, n)).astype(np.float32)
    return predicted, truth, p_truth


def joined(*parts: Arrays) -> Arrays:
    predicted, truth, p_truth = (np.concatenate(each) for each in zip(*parts, strict=True))
    return predicted, truth, p_truth


def shifts(arrays: Arrays, max_labels: int = 1000) -> list[Shift]:
    return [shift for _, shift in Drift(max_labels).add(*arrays)]


@pytest.mark.parametrize("seed", range(5))
def test_a_sudden_change_is_seen_soon(seed: int) -> None:
    found = shifts(joined(labels(5000, 0.9, seed=seed), labels(2000, 0.6, seed=seed + 100)))
    overall = [shift for shift in found if shift.column is None]
    assert [shift.change for shift in overall] == ["worse"]
    assert 5000 < overall[0].at_label <= 5200
    assert overall[0].loss_after > 1.5 * overall[0].loss_before
    assert {(shift.column, shift.change) for shift in found} == {(each, "worse") for each in (None, 0, 1, 2)}
    assert all(5000 < shift.at_label <= 5800 for shift in found)


def test_hardly_a_false_alarm_in_many_labels() -> None:
    """Of 5 streams of 50,000 labels, each watched by four windows of its own."""
    assert sum(len(shifts(labels(50_000, [0.95, 0.8, 0.6], seed=seed))) for seed in range(5)) <= 1


def test_what_gets_better_is_said_to() -> None:
    found = shifts(joined(labels(2000, 0.5), labels(2000, 0.95)))
    assert {shift.change for shift in found} == {"better"}


def test_one_label_is_seen_where_the_whole_hides_it() -> None:
    """A label of 20 gets worse by as much as the others get better, by a little."""
    before, after = [0.9] + [0.80] * 19, [0.3] + [0.83] * 19
    found = shifts(joined(labels(40_000, before, 20), labels(10_000, after, 20, seed=1)))
    assert [(shift.column, shift.change) for shift in found if shift.column == 0] == [(0, "worse")]
    assert None not in {shift.column for shift in found}


def test_a_label_that_appears_anew_makes_the_whole_worse_and_gets_better_itself() -> None:
    rng = np.random.default_rng(0)
    anew = np.full(1000, 3, np.int32)
    learned = np.clip(np.arange(1000) / 500, 0.01, 0.9).astype(np.float32)  # as the model learns it
    old = labels(1000, 0.9, seed=1)
    order = np.sort(rng.permutation(2000)[:1000])
    mixed = joined(old, (anew, anew, learned))
    places = np.empty(2000, np.int64)
    places[order] = np.arange(1000, 2000)
    places[np.setdiff1d(np.arange(2000), order)] = np.arange(1000)
    predicted, truth, p_truth = (each[places] for each in mixed)
    found = shifts(joined(labels(5000, 0.9), (predicted, truth, p_truth)))
    first = next(shift for shift in found if shift.column is None)
    assert first.change == "worse"
    assert 5000 < first.at_label <= 5200
    assert {shift.change for shift in found if shift.column == 3} == {"better"}


def test_what_had_no_prediction_is_left_out() -> None:
    predicted, truth, p_truth = joined(labels(3000, 0.9), labels(1000, 0.3, seed=1))
    spread = np.arange(len(truth)) * 2
    wide = np.full(2 * len(truth), -1, np.int32), np.zeros(2 * len(truth), np.int32), np.zeros(2 * len(truth))
    for array, own in zip(wide, (predicted, truth, p_truth), strict=True):
        array[spread] = own
    found = Drift(10).add(wide[0], wide[1], wide[2].astype(np.float32))
    plain = Drift(10).add(predicted, truth, p_truth)
    assert plain
    assert found == [(2 * place, shift) for place, shift in plain]


def test_labels_past_the_limit_count_in_the_whole_only() -> None:
    late = joined(labels(3000, 0.9, first=MAX_LABELS), labels(3000, 0.3, first=MAX_LABELS, seed=1))
    assert {shift.column for shift in shifts(late)} == {None}
    last = joined(labels(3000, 0.9, 1, first=MAX_LABELS - 1), labels(3000, 0.3, 1, first=MAX_LABELS - 1, seed=1))
    drift = Drift(1000)
    assert {shift.column for _, shift in drift.add(*last)} == {None, MAX_LABELS - 1}
    assert sum(array.nbytes for array in drift.state().values()) < 300_000


def test_odd_scores_are_losses_within_bounds() -> None:
    odd = np.tile(np.array([math.nan, math.inf, -1.0, 2.0, 0.0], np.float32), 400)
    predicted = truth = np.zeros(len(odd), np.int32)
    found = Drift(1).add(*joined(labels(1000, 0.9, 1), (predicted, truth, odd)))
    assert found
    assert all(0 <= loss <= MAX_LOSS for _, shift in found for loss in (shift.loss_before, shift.loss_after))


STREAM = joined(labels(2000, 0.9), labels(700, 0.3, 5, seed=1), labels(1300, 0.9, 5, seed=2))


@settings(deadline=None, max_examples=times(100, 25))
@given(st.lists(st.integers(0, 4000), max_size=20))
def test_alarms_and_state_do_not_depend_on_the_cuts_nor_on_a_restart(cuts: list[int]) -> None:
    whole, parts = Drift(10), Drift(10)
    found = []
    ends = [*sorted(cuts), 4000]
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if number % 2:
            saved, parts = parts.state(), Drift(10)
            parts.load_state(saved)
        predicted, truth, p_truth = (each[start:end] for each in STREAM)
        found += [(start + place, shift) for place, shift in parts.add(predicted, truth, p_truth)]
    assert found == whole.add(*STREAM)
    assert len({shift.column for _, shift in found}) > 3
    one, other = whole.state(), parts.state()
    assert {name: array.tobytes() for name, array in one.items()} == {n: array.tobytes() for n, array in other.items()}


def damaged(state: dict[str, Any], name: str, index: tuple[int, ...], value: float) -> dict[str, Any]:
    array = state[name].copy()
    array[index] = value
    return state | {name: array}


@pytest.mark.parametrize("name", ["widths", "totals", "sizes", "sums", "labels"])
def test_a_state_that_does_not_fit_is_refused(name: str) -> None:
    source = Drift(10)
    source.add(*labels(1000, 0.9))
    state = source.state()
    drift = Drift(10)
    wrong = [
        {each: array for each, array in state.items() if each != name},
        state | {name: state[name].astype(np.float32)},
        state | {name: state[name][:1]},
        Drift(1000).state() | {name: np.zeros(12, np.int64)},
    ]
    for each in wrong:
        with pytest.raises(StateError, match="drift: "):
            drift.load_state(each)
    assert drift.labels == 0


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("sizes", (0, 0), 7),
        ("sizes", (0, 0), -1),
        ("sizes", (1, 40), 5),
        ("widths", (0,), 3),
        ("totals", (0, 0), math.nan),
        ("sums", (0, 0, 0), math.inf),
        ("labels", (0,), -1),
        ("labels", (1,), 10**6),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(name: str, index: tuple[int, ...], value: float) -> None:
    source = Drift(10)
    source.add(*labels(1000, 0.9))
    with pytest.raises(StateError, match="contradict"):
        Drift(10).load_state(damaged(source.state(), name, index, value))


def test_a_state_with_more_windows_than_labels_is_refused() -> None:
    source = Drift(10)
    source.add(*labels(1000, 0.9))
    with pytest.raises(StateError, match="4 windows, but must be 1 to 3"):
        Drift(2).load_state(source.state())


def test_all_alarms_are_counted_and_the_last_kept() -> None:
    alarms = Alarms()
    for number in range(50):
        alarms.add(alarm(number, label=[None, "spam"][number % 2], change=["worse", "better"][number % 5 == 0]))
    assert alarms.alarms == 50
    assert (alarms.overall.worse, alarms.overall.better) == (20, 5)
    assert [(name, each.worse, each.better) for name, each in alarms.by_label.items()] == [("spam", 20, 5)]
    assert [each.at_label for each in alarms.recent] == list(range(50 - RECENT_ALARMS, 50))


def test_an_alarm_is_one_line_whatever_the_label() -> None:
    line = str(alarm(7, label="a\nb"))
    assert line == (
        "drift: predictions of label 'a\\nb' got worse, log loss 0.100 over 1,000 labels, then 0.500 over 32; "
        "at label 7, feedback/1 offset 7"
    )


def send_drift(stream: StreamSettings, log: Log) -> None:
    """Append messages and their labels, 300 messages late; in the middle two labels change places."""
    log.create_topics(stream.topics)
    names = ["spam", "ham"]
    texts = ["win a prize now", "see you at home"]
    messages = [NewRecord(b"m", encode(Message(f"m{n}", texts[n % 2])), n * 10) for n in range(2000)]
    feedback = [
        NewRecord(b"m", encode(Feedback(f"m{n}", names[(n + (n >= 1000)) % 2])), (n + 300) * 10) for n in range(2000)
    ]
    for topic, records in ((stream.topics.messages, messages), (stream.topics.feedback, feedback)):
        log.submit(topic, records).result()


@contextmanager
def learning(stream: StreamSettings, log: Log) -> Iterator[Learner]:
    # Without predictions each batch has arrived once it was sent: what may not have is logged again after a kill.
    options = LearnerSettings(model="linear?bits=12", batch_records=50, checkpoint_interval_s=1e6, predictions=False)
    learner = Learner(stream, options, log)
    try:
        learner.start()
        yield learner
    finally:
        learner.close()


def test_alarms_survive_a_kill_and_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    streams = [StreamSettings(data=tmp_path / name) for name in ("whole", "killed")]
    found = []
    for stream in streams:
        log = open_log(stream)
        try:
            send_drift(stream, log)
            if stream is streams[1]:
                with learning(stream, log) as learner:
                    while learner.status("running").drift.alarms < 4:
                        learner.step()
                    at_kill = learner.status("running").drift  # no checkpoint since the first one, before the stream
            with learning(stream, log) as learner:
                if stream is streams[1]:
                    assert learner.status("running").drift == at_kill
                learner.run(lambda: False, log.watermarks(stream.topics[:2]))
            with learning(stream, log) as learner:
                found.append(learner.status("running").drift)
        finally:
            log.close()
    assert found[0] == found[1]
    assert found[0].overall.worse > 0 < found[0].overall.better
    status = read_status(streams[1].data)
    assert status is not None
    assert status.drift == found[1]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    lines = [str(each) for each in found[0].recent if each.change == "worse"]
    assert lines
    assert sorted(line for line in warned if line.startswith("drift: ")) == sorted(lines * 2)


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log_alarms([alarm(number, change="better" if number < 10 else "worse") for number in range(20)])
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5 + ["INFO"]
    assert "15 more alarms" in caplog.text
