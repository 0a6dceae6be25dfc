"""Are the pairs that are confused most those of all labels, however many there are?"""

from collections import Counter

import msgspec
import numpy as np
import pytest

from driftline.learner.quality.progress import MAX_CONFUSION_LABELS, Progress
from driftline.learner.report import confusion
from driftline.learner.report.confusion import MAX_PAIRS, Confused, Pairs


def counted(
    pairs: Pairs, progress: Progress, labels: list[str], seed: int, batches: int = 20
) -> Counter[tuple[str, str]]:
    """Show batches to both; return what a plain count has."""
    random, found = np.random.default_rng(seed), Counter[tuple[str, str]]()
    for _ in range(batches):
        truth = random.integers(0, len(labels), 300).astype(np.int32)
        wrong = random.random(300) < 0.4
        predicted = np.where(wrong, (truth + random.integers(0, 3, 300)) % len(labels), truth).astype(np.int32)
        predicted[random.random(300) < 0.02] = -1
        progress.add(predicted, truth, np.full(300, 0.5, np.float32), np.full(300, 0.5, np.float32))
        pairs.see(labels, truth, predicted)
        found.update((labels[a], labels[b]) for a, b in zip(truth, predicted, strict=True) if b >= 0 and a != b)
    return found


def named(shown: Confused) -> dict[tuple[str, str], int]:
    return {(shown.labels[a], shown.labels[b]): n for a, b, n in shown.pairs}


@pytest.mark.parametrize("n", [0, 1, 2, 77, MAX_CONFUSION_LABELS, MAX_CONFUSION_LABELS + 1, 500])
def test_they_are_those_of_a_plain_count(n: int) -> None:
    labels = [f"label {number}" for number in range(n)]
    pairs, progress = Pairs(Confused()), Progress()
    truth = counted(pairs, progress, labels, 1) if n > 1 else Counter()
    shown = pairs.shown(progress, labels)
    found = named(shown)
    assert found.items() <= dict(truth).items()
    assert len(found) == min(MAX_PAIRS, len(truth))
    assert sorted(found.values()) == sorted(truth.values())[-len(found) :] if found else not truth
    counts = [count for _, _, count in shown.pairs]
    assert counts == sorted(counts, reverse=True)
    assert set(shown.labels) == {label for pair in found for label in pair}
    assert shown.mistakes == sum(truth.values())


def test_a_restart_goes_on_from_what_was_shown() -> None:
    labels = [f"label {number}" for number in range(300)]
    pairs, progress = Pairs(Confused()), Progress()
    truth = counted(pairs, progress, labels, 2)
    shown = msgspec.json.decode(msgspec.json.encode(pairs.shown(progress, labels)), type=Confused)
    again = Pairs(shown)
    truth += counted(again, progress, labels, 3)
    found = named(again.shown(progress, labels))
    late = {pair for pair in found if max(map(labels.index, pair)) >= MAX_CONFUSION_LABELS}
    assert late
    assert found == {pair: truth[pair] for pair in found}, "none is counted twice, or forgotten"
    assert found == named(again.shown(progress, labels)), "to look changes nothing"


def test_a_label_that_left_is_not_shown() -> None:
    labels = [f"label {number}" for number in range(300)]
    pairs, progress = Pairs(Confused()), Progress()
    counted(pairs, progress, labels, 4)
    labels[299] = "another one"
    assert "label 299" not in pairs.shown(progress, labels).labels


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MAX_RARE", 200)
    labels = [f"label {number}" for number in range(1000)]
    pairs, progress = Pairs(Confused()), Progress()
    for _ in range(50):  # one pair is common
        pairs.see(labels, np.array([998], np.int32), np.array([999], np.int32))
    counted(pairs, progress, labels, 5)
    found = named(pairs.shown(progress, labels))
    assert found["label 998", "label 999"] >= 50
    late = [pair for pair in found if max(map(labels.index, pair)) >= MAX_CONFUSION_LABELS]
    assert len(late) <= 200 + 300
