"""Whom a person is asked about: those the model doubts, within a budget, and so that accuracy can be told from them."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.learner.report.label_requests import HORIZON_S, MAX_OPEN, Estimate, LabelRequest, Requests

Scores = NDArray[np.float32]


def request(number: int, chance: float = 0.5, label: str | None = "a") -> LabelRequest:
    known: dict[str, float] = {} if label is None else {label: 0.5}
    return LabelRequest(
        id=str(number),
        text="text",
        truncated=False,
        timestamp_ms=number,
        label=label,
        score=0.5,
        scores=known,
        chance=chance,
    )


def choose(
    requests: Requests, p_best: Scores, per_second: int, on_chosen: Callable[[int, float], None]
) -> NDArray[np.float64]:
    """Have messages come in, so many a second, in batches of a second."""
    spent = np.zeros(len(p_best))
    for second, first in enumerate(range(0, len(p_best), per_second)):
        places, chances = requests.draw(p_best[first : first + per_second], float(second))
        spent[first + places] = 1
        for place, chance in zip(places.tolist(), chances.tolist(), strict=True):
            on_chosen(first + place, chance)
    return spent


def doubtful(rng: np.random.Generator, n: int) -> tuple[Scores, NDArray[np.bool_]]:
    """Return predicted labels' scores, and which predictions were right: as often as it said."""
    p_best = rng.beta(6, 1, n).astype(np.float32) * 0.5 + 0.5
    return p_best, rng.random(n) < p_best


def test_the_reweighted_accuracy_is_the_true_one() -> None:
    """Over many streams the estimate's error is as large as it says, around the truth; the plain mean's is not."""
    z, plain = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        p_best, right = doubtful(rng, 3000)
        right[:1000] &= rng.random(1000) < 0.7  # drift: it gets better
        estimate = Estimate()
        choose(
            Requests(3600, seed),
            p_best,
            per_second=rng.integers(5, 60),
            on_chosen=lambda place, chance, e=estimate, r=right: e.add(chance, correct=bool(r[place])),
        )
        assert estimate.accuracy is not None
        assert estimate.standard_error is not None
        z.append((estimate.accuracy - right.mean()) / estimate.standard_error)
        plain.append(estimate.correct / estimate.labels - right.mean())
    assert abs(np.mean(z)) < 0.35, "its own error is 0.1"
    assert 0.7 < np.std(z) < 1.3
    assert np.mean(plain) < -0.05, "those chosen are the doubtful ones, so the plain mean is too low"


def test_the_budget_is_kept_whatever_the_rate() -> None:
    for per_second in (1, 10, 1000):
        seconds = 7200
        p_best = np.random.default_rng(1).uniform(0.5, 1, seconds * per_second).astype(np.float32)
        chosen = choose(Requests(360, 7), p_best, per_second, lambda *_: None).sum()
        expected = 360 * (seconds + HORIZON_S) / 3600
        assert 0.8 * expected < chosen < 1.2 * expected, per_second


def test_a_burst_is_not_more_than_what_was_saved() -> None:
    requests = Requests(3600, 1)
    requests.draw(np.full(10, 0.9, np.float32), 0.0)
    places, _ = requests.draw(np.full(1_000_000, 0.6, np.float32), 1_000_000.0)
    assert len(places) < 2 * HORIZON_S + 100


def test_the_less_sure_the_likelier() -> None:
    p_best = np.tile([0.99, 0.9, 0.6, 0.3, 0.0], 20_000).astype(np.float32)
    counts = np.zeros(5)
    chances: list[set[float]] = [set() for _ in range(5)]

    def count(place: int, chance: float) -> None:
        counts[place % 5] += 1
        chances[place % 5].add(chance)

    choose(Requests(7200, 3), p_best, 100, count)
    assert (np.diff(counts) > 0).all(), counts
    assert counts[0] > 0
    assert all(0 < chance <= 1 for each in chances for chance in each)


def test_scores_that_are_none() -> None:
    places, chances = Requests(1e6, 1).draw(np.array([np.nan, np.inf, -1.0, 0.0], np.float32), 0.0)
    assert places.tolist() == [0, 1, 2, 3][: len(places)] or len(places) <= 4
    assert np.isfinite(chances).all()
    assert (chances > 0).all()


def test_no_budget_no_requests() -> None:
    assert not len(Requests(0, 1).draw(np.zeros(1000, np.float32), 0.0)[0])


def test_those_that_wait_are_bounded_and_leave_with_a_label_or_their_message() -> None:
    requests = Requests(60, 1)
    for number in range(MAX_OPEN + 50):
        requests.add(request(number))
    assert len(requests.open) == MAX_OPEN
    assert "49" not in requests.open
    labels: dict[str, str | None] = dict.fromkeys(requests.open)
    labels |= {"100": "a", "101": "b"}
    del labels["102"]
    requests.settle(lambda request: labels[request.id])
    assert len(requests.open) == MAX_OPEN - 3
    assert (requests.estimate.labels, requests.estimate.correct) == (2, 1)


def test_a_message_without_a_prediction_says_nothing_about_accuracy() -> None:
    requests = Requests(60, 1)
    requests.add(request(1, label=None))
    requests.settle(lambda request: {"1": "a"}[request.id])
    assert requests.estimate.labels == 0
    assert requests.estimate.accuracy is None


@pytest.mark.parametrize("correct", [True, False])
def test_one_answer_has_no_error_to_tell(correct: bool) -> None:
    estimate = Estimate()
    estimate.add(0.1, correct=correct)
    assert estimate.accuracy == float(correct)
    assert estimate.standard_error is None


def test_a_correction_corrects_what_was_told() -> None:
    requests = Requests(100, 0)
    for number in range(3):
        requests.add(request(number, chance=0.25 * (number + 1)))
    labels: dict[str, str | None] = {"0": "a", "1": "b", "2": None}
    requests.settle(lambda request: labels[request.id])
    assert (requests.estimate.labels, requests.estimate.correct) == (2, 1)
    labels |= {"0": "b", "1": "a", "2": "a"}
    requests.settle(lambda request: labels[request.id])
    expected = Estimate()
    for chance, correct in ((0.25, False), (0.5, True), (0.75, True)):
        expected.add(chance, correct=correct)
    assert requests.estimate == expected
    labels |= {"0": None}
    requests.settle(lambda request: labels[request.id])
    assert list(requests.open) == ["0"], "it was taken back, so it is asked for again"
    assert (requests.estimate.labels, requests.estimate.accuracy) == (2, 1.0)
    labels |= {"0": "c", "1": "b", "2": "b"}
    requests.settle(lambda request: labels[request.id])
    assert (requests.estimate.labels, requests.estimate.accuracy) == (3, 0.0)
    del labels["1"]
    requests.settle(lambda request: labels[request.id])
    assert requests.estimate.labels == 3, "what left the window stays counted"
    for number in range(10, 10 + 2 * MAX_OPEN):
        requests.add(request(number))
        labels[str(number)] = "a"
        requests.settle(lambda request: labels[request.id])
    assert len(requests._settled) == MAX_OPEN
    requests.add(request(5))
    requests.forget(["5", "10", *requests._settled, "nothing"])
    assert not requests.open
    assert not requests._settled
