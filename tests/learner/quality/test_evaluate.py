"""Progressive validation: what a plain loop finds, whatever the batches; and the picture that it is drawn as."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from matplotlib.figure import Figure

from driftline.learner.models.classifier import Classifier
from driftline.learner.quality.drift import Shift
from driftline.learner.quality.evaluate import CURVE_POINTS, Evaluation, Result, evaluate, warm_up
from driftline.learner.quality.plots import _mark_alarms, plot_curves
from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import LabelledTexts, Row
from tests.data import CountingClassifier, sms_spam  # noqa: F401  (a fixture)

WORDS = np.array(["sun", "rain", "snow", "wind", "fog", "hail", "storm", "cloud"])


def weather(n: int, n_labels: int = 4, unlabelled: float = 0.2) -> list[Row]:
    """Return texts whose label is mostly the first word's; some have none, and the last label comes late."""
    rng = np.random.default_rng(n)
    rows = []
    for number in range(n):
        label = int(rng.integers(n_labels if number > n // 2 else n_labels - 1))
        words = [WORDS[label if rng.random() < 0.8 else rng.integers(8)], *rng.choice(WORDS, 2)]
        rows.append(Row(None, " ".join(words), None if rng.random() < unlabelled else f"l{label}", number + 2))
    return rows


def plain_loop(rows: list[Row], classifier: Classifier, delay: int) -> tuple[list[str | None], list[str], list[float]]:
    """Score one text, then learn the label that is `delay` messages old; nothing else. The oracle."""
    predicted, truth, p_truth = [], [], []
    waiting: deque[Row] = deque()
    for row in rows:
        scores = classifier.predict_proba_one(row.text)
        if row.label is not None:
            best = max(scores, key=scores.__getitem__, default=None)
            predicted.append(best if best is not None and scores[best] > 0 else None)
            truth.append(row.label)
            p_truth.append(scores.get(row.label, 0.0))
        waiting.append(row)
        if len(waiting) > delay and (due := waiting.popleft()).label is not None:
            classifier.learn_one(due.text, due.label)
    for row in waiting:
        if row.label is not None:
            classifier.learn_one(row.text, row.label)
    return predicted, truth, p_truth


def same(one: Result, other: Result) -> bool:
    """Compare all but the clock."""
    curves = zip(one.curve, other.curve, strict=True)
    alike = one._replace(seconds=0.0, curve=None) == other._replace(seconds=0.0, curve=None)  # type: ignore[arg-type]
    return alike and all(np.array_equal(a, b) for a, b in curves)


@pytest.mark.parametrize("delay", [0, 1, 2, 7, 100, 1000])
@pytest.mark.parametrize("batch_rows", [1, 3, 64, 1000])
def test_equals_a_plain_loop(delay: int, batch_rows: int) -> None:
    rows = weather(300)
    oracle, classifier = CountingClassifier(), CountingClassifier()
    predicted, truth, p_truth = plain_loop(rows, oracle, delay)
    result = evaluate(rows, classifier, delay, batch_rows=batch_rows)
    assert classifier.learned == oracle.learned
    assert classifier.labels == oracle.labels
    assert (result.messages, result.labels) == (300, len(truth))
    served = [number for number, label in enumerate(predicted) if label is not None]
    if not served:  # the delay is longer than the stream
        assert (result.accuracy, result.macro_f1, result.log_loss) == (0.0, 0.0, 0.0)
        return
    truth, names, p_truth = ([each[number] for number in served] for each in (truth, predicted, p_truth))
    assert result.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, names))
    f1 = sklearn.metrics.f1_score(truth, names, labels=classifier.labels, average="macro", zero_division=0.0)
    assert result.macro_f1 == pytest.approx(f1)
    assert result.log_loss == pytest.approx(-np.log(np.maximum(p_truth, 1e-15)).mean())
    assert same(result, evaluate(rows, CountingClassifier(), delay, batch_rows=17))


def test_one_call_a_batch() -> None:
    calls = []

    class Counted(CountingClassifier):
        def score_and_learn(self, texts, targets, weights):  # type: ignore[no-untyped-def]
            calls.append(len(texts))
            return super().score_and_learn(texts, targets, weights)

    evaluate(weather(100, unlabelled=0.0), Counted(), 0, batch_rows=50)
    assert calls == [50, 50]
    calls.clear()
    evaluate(weather(100, unlabelled=0.0), Counted(), 10, batch_rows=50)
    assert calls == [90, 100, 10]  # what was scored and what was due; the last ten labels


def test_without_labels_nothing_is_learned() -> None:
    classifier = CountingClassifier()
    result = evaluate(weather(50, unlabelled=1.0), classifier, 3)
    assert (result.messages, result.labels, result.accuracy, result.log_loss) == (50, 0, 0.0, 0.0)
    assert classifier.learned == []
    assert len(result.curve.labels) == 0
    assert evaluate([], CountingClassifier()).messages == 0


def test_the_curve_is_the_accuracy_so_far_and_of_late() -> None:
    result = evaluate(weather(5001, unlabelled=0.0), CountingClassifier())
    curve = result.curve
    assert len(curve.labels) == CURVE_POINTS
    assert curve.labels[-1] == result.labels - 1  # the first message had no prediction
    assert curve.accuracy[-1] == pytest.approx(result.accuracy)
    assert curve.window == 500
    hits = curve.accuracy * curve.labels
    before = np.interp(curve.labels[-1] - curve.window, curve.labels, hits)
    assert curve.recent_accuracy[-1] == pytest.approx((hits[-1] - before) / curve.window)
    assert len(evaluate(weather(6, unlabelled=0.0), CountingClassifier()).curve.labels) == 5


def test_several_can_share_one_reading() -> None:
    rows = weather(200)
    evaluations = [Evaluation(CountingClassifier(), delay) for delay in (0, 5)]
    for start in range(0, 200, 50):
        for evaluation in evaluations:
            evaluation.add(rows[start : start + 50])
    for evaluation, delay in zip(evaluations, (0, 5), strict=True):
        assert same(evaluation.finish(), evaluate(rows, CountingClassifier(), delay))


def test_drift_is_found_and_counted() -> None:
    """Half of the stream's labels change places in the middle."""
    rows = weather(6000, unlabelled=0.0)
    turned = {"l0": "l1", "l1": "l0"}
    rows = [row._replace(label=turned.get(row.label, row.label)) if row.line > 3000 else row for row in rows]
    result = evaluate(rows, CountingClassifier(), model="counts")
    overall = [shift for shift in result.shifts if shift.column is None and shift.change == "worse"]
    assert 3000 < overall[0].at_label < 3200
    counted = result.to_json()["drift_alarms"]
    assert counted["overall"]["worse"] == len(overall)
    assert sum(n for of in counted.values() for n in of.values()) == len(result.shifts)
    assert same(result, evaluate(rows, CountingClassifier(), model="counts", batch_rows=77))


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ConfigError, match="delay: must be 0 or more"):
        evaluate([], CountingClassifier(), -1)


@pytest.fixture
def results() -> list[Result]:
    return [
        evaluate(weather(1500), CountingClassifier(), 3, model=model)
        for model in ("linear?bits=$22$", "counts", "third")
    ]


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml")])
def test_plots(tmp_path: Path, results: list[Result], name: str, magic: bytes) -> None:
    plot_curves(results, tmp_path / name, "weather $1.jsonl")
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_plot_is_the_same_every_time(tmp_path: Path, results: list[Result]) -> None:
    for name in ("one.svg", "two.svg"):
        plot_curves(results, tmp_path / name, "weather")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_plot_has_every_kind_of_alarm(tmp_path: Path, results: list[Result]) -> None:
    kinds = [(column, after) for column in (None, 3) for after in (0.1, 0.9)]
    shifts = [Shift(column, at * 10, 5, 5, 0.5, after) for at in range(100) for column, after in kinds]
    plot_curves([result._replace(shifts=()) for result in results], tmp_path / "plain.svg", "weather")
    plot_curves([result._replace(shifts=tuple(shifts)) for result in results], tmp_path / "many.svg", "weather")
    assert (tmp_path / "plain.svg").stat().st_size < (tmp_path / "many.svg").stat().st_size
    names = [
        handle.get_label()
        for handle in _mark_alarms(Figure().add_subplot(), [results[0]._replace(shifts=tuple(shifts))])
    ]
    assert names == ["drift alarm: worse", "drift alarm: better", "drift alarm: one label worse"]
    assert _mark_alarms(Figure().add_subplot(), [results[0]._replace(shifts=())]) == []


def test_a_plot_of_nothing_is_drawn(tmp_path: Path) -> None:
    plot_curves([evaluate([], CountingClassifier())], tmp_path / "a.svg", "empty")


def test_a_plot_that_cannot_be_is_refused(tmp_path: Path, results: list[Result]) -> None:
    with pytest.raises(ConfigError, match=r"must end in .png or .svg"):
        plot_curves(results, tmp_path / "a.gif", "weather")
    with pytest.raises(ConfigError, match="cannot be written"):
        plot_curves(results, tmp_path / "none" / "a.svg", "weather")


@pytest.mark.parametrize("delay", [0, 100])
def test_linear_learns_sms_spam(sms_spam: Path, delay: int) -> None:  # noqa: F811
    models = pytest.importorskip("driftline.learner.registry")
    warm_up(models.make_classifier("linear"))
    with LabelledTexts(sms_spam) as rows:
        result = evaluate(rows, models.make_classifier("linear"), delay, model="linear")
    assert (result.messages, result.labels) == (5574, 5574)
    assert result.accuracy >= (0.98 if delay == 0 else 0.97)
    if delay:
        with LabelledTexts(sms_spam) as rows:
            again = evaluate(rows, models.make_classifier("linear"), delay, model="linear", batch_rows=333)
        assert same(again, result)
