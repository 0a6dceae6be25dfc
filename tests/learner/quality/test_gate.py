"""The gate shuts where labels contradict what was predicted, and at nothing that real streams do by themselves."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.quality.publish_gate import BEFORE, MAX_LOSS, RECENT, Gate
from driftline.learner.registry import make_classifier
from driftline.stream.errors import StateError
from driftline.stream.files.reader import LabelledTexts
from tests.data import labelled_file
from tests.often import only_long

MARGIN = LearnerSettings().publish_margin
STREAMS = ["sms_spam", "banking77", "clickbait32k", "spamassassin", "langid", "reddit_linkkind"]
Rows = Sequence[tuple[str, str]]


def rows_of(name: str, limit: int) -> Rows:
    with LabelledTexts(str(labelled_file(f"{name}.jsonl.gz")), None, None, lambda _: None) as file:
        return [(row.text, row.label) for row in islice(file, limit) if row.label is not None]


def times_shut(rows: Rows, late: int) -> list[int]:
    """Learn each label so many messages late; return at which labels the gate was shut."""
    classifier = make_classifier("blend")
    gate = Gate(classifier.max_labels)
    served: dict[int, NDArray[np.float32]] = {}
    shut = []
    for start in range(0, len(rows) + late, 64):
        steps = [
            (number, place)
            for now in range(start, min(start + 64, len(rows) + late))
            for number, place in ((-1, now), (now - late, now - late))
            if 0 <= place < len(rows)
        ]
        targets = np.array([-1 if n < 0 else classifier.label_index(rows[n][1]) for n, _ in steps], np.int32)
        weights = np.ones(len(steps), np.float32)
        scores = classifier.score_and_learn([rows[place][0] for _, place in steps], targets, weights)
        n_known = 0
        truth, seen, known = [], [], []
        for (number, place), target, row in zip(steps, targets.tolist(), scores, strict=True):
            if number < 0:
                n_known = int(np.count_nonzero(row)) or n_known  # labels that come later in the batch have 0
                served[place] = row[:n_known] if row.any() else row[:0]
            else:
                was = served.pop(place)
                truth.append(target)
                known.append(len(was))
                seen.append(np.pad(was, (0, len(classifier.labels) - len(was))))
        if truth:
            columns = np.array(truth, np.int32), np.array(seen, np.float32), np.array(known, np.int64)
            gate.add(*columns, MARGIN)
        if gate.shut:
            shut.append(start)
    return shut


@pytest.mark.parametrize("late", [pytest.param(0, marks=only_long), 200, pytest.param(1000, marks=only_long)])
@pytest.mark.parametrize("name", STREAMS)
def test_no_real_stream_shuts_it(name: str, late: int) -> None:
    assert times_shut(rows_of(name, 8000), late) == []


@pytest.mark.parametrize("late", [200, 1000])
@pytest.mark.parametrize("name", ["sms_spam", "clickbait32k", "banking77"])
def test_labels_that_are_all_wrong_from_some_time_on_shut_it_for_a_while(name: str, late: int) -> None:
    rows = rows_of(name, 5500)
    labels = sorted({label for _, label in rows})
    another = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    wrong = [*rows[:3500], *((text, another[label]) for text, label in rows[3500:])]
    shut = times_shut(wrong, late)
    assert 3500 + late <= shut[0] <= 3500 + late + RECENT
    assert 3500 + 2 * late <= shut[-1] <= 3500 + 2 * late + 2 * RECENT


def feed(gate: Gate, losses: Sequence[float], n_labels: int = 2) -> list[bool]:
    """Give labels with these losses, the classes by turns, one by one; return when it was shut."""
    shut = []
    for number, loss in enumerate(losses):
        truth = number % n_labels
        row = np.full((1, n_labels), (1 - np.exp(-loss)) / (n_labels - 1), np.float32)
        row[0, truth] = np.exp(-loss)
        gate.add(np.array([truth], np.int32), row, np.array([n_labels]), 1.0)
        shut.append(gate.shut)
    return shut


def test_it_shuts_opens_and_says_why() -> None:
    gate = Gate(10)
    assert not any(feed(gate, [0.1] * 1500))
    assert gate.report().state == "open"
    shut = feed(gate, [5.0] * RECENT)
    assert shut[-1]
    assert not any(shut[:50])
    report = gate.report()
    assert (report.state, report.times) == ("shut", 1)
    assert report.recent_loss == pytest.approx(5.0, abs=0.01)
    assert report.before_loss == pytest.approx(0.1, abs=0.2)
    assert report.prior_loss == pytest.approx(0.7, abs=0.7)
    assert "over the last 200 labels" in report.why
    assert all(feed(gate, [5.0] * 3 * BEFORE)), "what it was before does not become what it is now"
    shut = feed(gate, [0.1] * RECENT)
    assert not shut[-1]
    assert shut == sorted(shut, reverse=True)
    assert (gate.report().state, gate.report().times) == ("open", 1)


def test_a_model_that_was_never_good_is_published() -> None:
    assert not any(feed(Gate(10), [5.0] * 3000))


def test_scores_that_are_no_numbers_shut_it() -> None:
    gate = Gate(2)
    feed(gate, [0.1] * 1000)
    nothing = np.full((RECENT, 2), np.nan, np.float32)
    gate.add(np.zeros(RECENT, np.int32), nothing, np.full(RECENT, 2), 1.0)
    assert gate.shut
    assert gate.report().recent_loss == pytest.approx(MAX_LOSS)


def test_labels_that_were_not_known_and_messages_without_prediction_do_not_count() -> None:
    gate = Gate(3)
    rows = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], np.float32)
    gate.add(np.array([0, 2, 1], np.int32), rows, np.array([0, 2, 2]), 1.0)
    assert gate._counts.tolist() == [1, 0, 0]


@given(st.integers(0, 3), st.lists(st.integers(1, 1399), max_size=6))
def test_the_state_does_not_depend_on_the_cuts_and_comes_back(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.ones(3), 1400).astype(np.float32)
    truth, known = random.integers(0, 3, 1400).astype(np.int32), random.integers(1, 4, 1400)
    one, other = Gate(5), Gate(5)
    one.add(truth, scores, known, 0.01)
    ends = [*sorted(set(cuts)), 1400]
    for start, end in zip([0, *ends], ends, strict=False):
        again = Gate(5)
        again.load_state(other.state())
        other = again
        other.add(truth[start:end], scores[start:end], known[start:end], 0.01)
    assert one.state().keys() == other.state().keys()
    assert all(array.tobytes() == other.state()[name].tobytes() for name, array in one.state().items())
    assert one.report() == other.report()


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = Gate(3).state()
    Gate(3).load_state({})
    for name in state:
        with pytest.raises(StateError):
            Gate(3).load_state(state | {name: np.zeros(5000)})
        with pytest.raises(StateError):
            Gate(3).load_state({other: content for other, content in state.items() if other != name})
