"""Progressive metrics: the same numbers as scikit-learn and River, and the same bytes wherever the batches are cut."""

import json
import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from river import metrics
from river.metrics.base import ClassificationMetric

from driftline.learner.quality.progress import DELAY_NAMES, MAX_CONFUSION_LABELS, RECENT_LABELS, Progress
from driftline.stream.errors import StateError

Fed = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def stream(n: int, n_labels: int, seed: int = 0) -> Fed:
    """Return labels of which some are never predicted, some predictions that never occur, and some missing ones."""
    rng = np.random.default_rng(seed)
    truth = (n_labels * rng.random(n) ** 2).astype(np.int32)  # the higher, the rarer
    predicted = np.where(rng.random(n) < 0.7, truth, rng.integers(-1, n_labels + 2, n)).astype(np.int32)
    predicted[: n // 10 + 1] = -1
    predicted[-1] = 0
    p_truth, p_predicted = rng.random((2, n), dtype=np.float32)
    return predicted, truth, p_truth, p_predicted, rng.integers(-10, 10**8, n)


def served(arrays: Fed) -> Fed:
    """Return what is left without the labels that had no prediction."""
    predicted, truth, p_truth, p_predicted, delays = (array[arrays[0] >= 0] for array in arrays)
    return predicted, truth, p_truth, p_predicted, delays


def fed(arrays: Fed, cuts: tuple[int, ...] = (), max_labels: int = 1000) -> Progress:
    progress = Progress(max_labels)
    for part in zip(*(np.split(array, cuts) for array in arrays), strict=True):
        progress.add(*part)
    return progress


@pytest.mark.parametrize(("n", "n_labels"), [(50, 3), (3000, 2), (5000, 40), (3000, 400)])
def test_equals_scikit_learn(n: int, n_labels: int) -> None:
    arrays = stream(n, n_labels)
    progress = fed(arrays)
    assert progress.unpredicted == np.count_nonzero(arrays[0] < 0) > 0
    predicted, truth, p_truth, _, _ = served(arrays)
    n = len(truth)
    occurred = np.union1d(truth, predicted)
    f1 = sklearn.metrics.f1_score(truth, predicted, labels=occurred, average="macro", zero_division=0.0)
    precision, recall, _, support = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.arange(len(progress.support)), zero_division=0.0
    )
    assert progress.labels == n
    assert progress.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert progress.macro_f1 == pytest.approx(f1)
    np.testing.assert_allclose(progress.precision, precision)
    np.testing.assert_allclose(progress.recall, recall)
    np.testing.assert_array_equal(progress.support, support)
    right = np.stack([p_truth, 1 - p_truth], axis=1).astype(np.float64)
    assert progress.log_loss == pytest.approx(sklearn.metrics.log_loss(np.zeros(n), right, labels=[0, 1]))
    side = min(len(progress.support), MAX_CONFUSION_LABELS)
    matrix = sklearn.metrics.confusion_matrix(truth, predicted, labels=np.arange(len(progress.support)))
    np.testing.assert_array_equal(progress.confusion, matrix[:side, :side])


def test_equals_river() -> None:
    arrays = stream(2000, 12)
    progress = fed(arrays)
    predicted, truth, p_truth, _, _ = served(arrays)  # River skips what has no prediction
    for metric, value in [(metrics.Accuracy(), progress.accuracy), (metrics.MacroF1(), progress.macro_f1)]:
        assert isinstance(metric, ClassificationMetric)
        for one, other in zip(truth.tolist(), predicted.tolist(), strict=True):
            metric.update(one, other)
        assert value == pytest.approx(metric.get())
    loss = metrics.LogLoss()
    for p in p_truth.tolist():
        loss.update(True, p)
    assert progress.log_loss == pytest.approx(loss.get())


def test_log_loss_is_clipped_and_finite() -> None:
    progress = Progress()
    p_truth = np.array([0.0, np.nan, -1.0, 2.0, np.inf], np.float32)
    progress.add(np.zeros(5, np.int32), np.zeros(5, np.int32), p_truth, p_truth)
    assert progress.log_loss == pytest.approx(-math.log(1e-15) * 3 / 5)


@pytest.mark.parametrize(("sharper", "least", "most"), [(1.0, 0.0, 0.02), (3.0, 0.08, 0.2)])
def test_calibration_error_is_what_the_formula_says(sharper: float, least: float, most: float) -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.5, 1.0, 20_000)
    right = rng.random(20_000) < p
    odds = (p / (1 - p)) ** sharper  # predictions that are too sure of themselves
    served = (odds / (1 + odds)).astype(np.float32)
    progress = Progress()
    progress.add(np.zeros(20_000, np.int32), np.where(right, 0, 1).astype(np.int32), served, served)
    bins = np.minimum((served * 15).astype(int), 14)
    expected = sum(
        abs(right[bins == place].mean() - served[bins == place].mean()) * np.mean(bins == place)
        for place in np.unique(bins)
    )
    assert progress.calibration_error == pytest.approx(expected, abs=1e-6)
    assert least <= progress.calibration_error <= most
    progress.add(*(np.zeros(3, np.int32),) * 2, *(np.array([np.nan, np.inf, -1], np.float32),) * 2)
    assert math.isfinite(progress.calibration_error)


@given(
    n=st.integers(1, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=8).map(lambda cuts: tuple(sorted(cuts))),
    stop=st.integers(0, 8),
)
def test_the_same_bytes_wherever_it_is_cut_and_stopped(n: int, cuts: tuple[int, ...], stop: int) -> None:
    arrays = stream(n, 300, seed=n)
    progress = Progress()
    for number, part in enumerate(zip(*(np.split(array, cuts) for array in arrays), strict=True)):
        if number == stop:
            saved, progress = progress.state(), Progress()
            progress.load_state(saved)
        progress.add(*part)
    whole, parts = fed(arrays).state(), progress.state()
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        assert (array.dtype, array.shape) == (parts[name].dtype, parts[name].shape)
        assert array.tobytes() == parts[name].tobytes(), name


@pytest.mark.parametrize("n", [1, RECENT_LABELS - 1, RECENT_LABELS, RECENT_LABELS + 1, 4321])
def test_recent_is_the_last_labels_exactly(n: int) -> None:
    arrays = stream(n, 5)
    predicted, truth, p_truth, _, _ = served(arrays)
    for cuts in [(), tuple(range(1, n, 7))]:
        progress = fed(arrays, cuts)
        assert progress.recent_accuracy == pytest.approx((predicted == truth)[-RECENT_LABELS:].mean())
        assert progress.recent_log_loss == pytest.approx(-np.log(p_truth[-RECENT_LABELS:].astype(np.float64)).mean())


def test_accuracy_by_delay() -> None:
    delays = np.array([-5, 0, 999, 1000, 9_999, 10_000, 59_999, 600_000, 3_599_999, 3_600_000, 86_400_000, 2**62])
    truth = np.zeros(len(delays), np.int32)
    predicted = np.array([0, 1, 0] + [0] * 9, np.int32)
    progress = Progress()
    progress.add(predicted, truth, *np.ones((2, len(delays)), np.float32), delays)
    progress.add(predicted, truth, *np.ones((2, len(delays)), np.float32))  # without delays: not in any bucket
    by_delay = progress.summary()["by_delay"]
    assert [bucket["delay"] for bucket in by_delay] == list(DELAY_NAMES)
    assert [bucket["labels"] for bucket in by_delay] == [3, 2, 2, 0, 2, 1, 2]
    assert by_delay[0]["accuracy"] == pytest.approx(2 / 3)


def test_columns_outside_are_refused_and_change_nothing() -> None:
    progress = fed(stream(100, 3), max_labels=10)
    before = {name: array.tobytes() for name, array in progress.state().items()}
    for predicted, truth in [(0, 10), (10, 0), (0, -1), (-2, 0)]:
        with pytest.raises(ValueError, match="label columns must lie in 0 to 9"):
            progress.add(np.array([predicted], np.int32), np.array([truth], np.int32), *np.ones((2, 1), np.float32))
    assert {name: array.tobytes() for name, array in progress.state().items()} == before


def test_memory_is_bounded() -> None:
    progress = Progress(65_536)
    progress.add(np.array([0], np.int32), np.array([65_535], np.int32), *np.ones((2, 1), np.float32))
    assert sum(array.nbytes for array in progress.state().values()) < 3_000_000


@pytest.mark.parametrize("arrays", [None, stream(3000, 5)], ids=["empty", "fed"])
def test_the_summary_is_finite_json(arrays: Fed | None) -> None:
    progress = fed(arrays) if arrays else Progress()
    summary = progress.summary(["a", "b"])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["by_label"]) == (["a", "b"] if arrays else [])
    assert summary["recent"]["labels"] == (RECENT_LABELS if arrays else 0)


@pytest.mark.parametrize(
    "broken",
    [
        {"hits": np.zeros(2, np.int64)},
        {"loss": np.zeros(1, np.float32)},
        {"confusion": np.zeros((5, 6), np.int64)},
        {"support": np.zeros(2000, np.int64)},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_a_state_that_does_not_fit_is_refused(broken: dict[str, Any]) -> None:
    state = fed(stream(100, 3)).state()
    progress = Progress()
    with pytest.raises(StateError, match="progress: array"):
        progress.load_state(state | broken)
    with pytest.raises(StateError, match="is missing"):
        progress.load_state({name: array for name, array in state.items() if name not in broken})
    assert progress.labels == 0
    with pytest.raises(StateError, match="max_labels is 2"):
        Progress(2).load_state(state)
