"""What is rehearsed, when, and what it is good for."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.learner.models.classifier import Classifier
from driftline.learner.models.rehearsal import (
    CLOCK,
    LARGE,
    LONG,
    MOST,
    Rehearsal,
    check_rehearse,
    forget,
    new_rehearsal,
    plan,
    rehearsal_of,
    rehearsal_state,
)
from driftline.learner.registry import as_of_today, make_classifier
from driftline.learner.tree.tree import TreeSettings
from driftline.stream.errors import ConfigError, StateError
from tests.learner.models.test_classifiers import content, generated

OURS = ["linear?bits=18", "tree?bits=18&memory_mb=16.0", "blend?bits=18"]
ONE = np.float32(1)


def planned(rehearsal: Rehearsal, columns: Sequence[int]) -> NDArray[np.int32]:
    """Return what is learned where these labels come: below -1 for what is rehearsed."""
    return plan(rehearsal, np.array(columns, np.int32), np.ones(len(columns), np.float32)).targets


def sorted_by_label(n: int, n_labels: int = 3) -> tuple[list[str], list[str]]:
    rows = sorted(zip(*generated(n, n_labels), strict=True), key=lambda row: row[1])
    return [text for text, _ in rows], [label for _, label in rows]


class TestPlan:
    def test_a_stream_in_mixed_order_has_nothing_to_rehearse(self) -> None:
        rehearsal = new_rehearsal(1024, 22, 10)
        rng = np.random.default_rng(1)
        columns = rng.choice(4, 5000, p=[0.7, 0.2, 0.06, 0.04])
        targets = planned(rehearsal, columns.tolist())
        assert (targets < -1).sum() < 50, "by chance, one in a hundred at the most"

    def test_each_text_of_a_run_is_followed_by_one_of_another_label(self) -> None:
        rehearsal = new_rehearsal(1024, 22, 10)
        targets = planned(rehearsal, [0, 1] * 300 + [2] * 300).tolist()
        assert min(targets[:600]) >= 0
        run = targets[-400:]
        assert run[::2] == [2] * 200
        assert set(run[1::2]) == {-2, -3}

    def test_the_first_label_alone_has_nothing_to_rehearse(self) -> None:
        assert min(planned(new_rehearsal(1024, 22, 10), [3] * 500)) == 3

    def test_a_label_is_rehearsed_as_often_as_it_came(self) -> None:
        rehearsal = new_rehearsal(1024, 22, 10)
        planned(rehearsal, [0] * 900 + [1] * 100)
        targets = planned(rehearsal, [2] * 4000)
        often, seldom = (targets == -2).sum(), (targets == -3).sum()
        assert 7 < often / seldom < 11.5

    def test_of_each_label_as_many_texts_are_kept_as_far_as_they_have_come(self) -> None:
        rehearsal = new_rehearsal(90, 22, 10)
        planned(rehearsal, [0] * 2000 + [1] * 10 + [2] * 300)
        assert rehearsal.kept.tolist()[:4] == [40, 10, 40, 0]
        assert (np.bincount(rehearsal.columns, minlength=10) == rehearsal.kept).all()

    def test_each_text_of_a_label_is_kept_with_the_same_chance(self) -> None:
        hits = np.zeros(4)
        for seed in range(60):
            rehearsal = new_rehearsal(40, 22, 3)
            rehearsal.clock[CLOCK.DRAWN] = 10_000 * seed
            rows = plan(rehearsal, np.zeros(400, np.int32), np.ones(400, np.float32))
            last = {slot: text for text, slot in enumerate(rows.slots.tolist()) if slot >= 0}
            hits += np.bincount(np.array(list(last.values())) // 100, minlength=4)
        assert hits.sum() == 60 * 40
        assert (np.abs(hits / hits.sum() - 0.25) < 0.04).all()

    @settings(deadline=None, max_examples=50)
    @given(
        columns=st.lists(st.integers(-1, 4), max_size=300).map(sorted),
        cuts=st.lists(st.integers(0, 300), max_size=4),
    )
    def test_it_is_the_same_wherever_a_batch_is_cut(self, columns: list[int], cuts: list[int]) -> None:
        whole, parts = new_rehearsal(32, 22, 5), new_rehearsal(32, 22, 5)
        targets = planned(whole, columns).tolist()
        edges = [0, *sorted(min(cut, len(columns)) for cut in cuts), len(columns)]
        found = [each for start, stop in pairwise(edges) for each in planned(parts, columns[start:stop]).tolist()]
        assert found == targets
        assert [array.tobytes() for array in whole] == [array.tobytes() for array in parts]

    def test_what_is_not_learned_is_not_kept(self) -> None:
        rehearsal = new_rehearsal(32, 22, 5)
        weights = np.array([0, -1, np.inf, np.nan, 0.5], np.float32)
        rows = plan(rehearsal, np.zeros(5, np.int32), weights)
        assert (rows.slots >= 0).tolist() == [False] * 4 + [True]
        assert rehearsal.kept.tolist() == [1, 0, 0, 0, 0]

    def test_counts_stay_within_bounds(self) -> None:
        rehearsal = new_rehearsal(32, 22, 5)
        for _ in range(12):
            planned(rehearsal, [0, 1, 2, 3] * 2500)
        assert 0 < rehearsal.clock[CLOCK.TOTAL] <= LONG
        assert rehearsal.clock[CLOCK.TOTAL] == pytest.approx(rehearsal.counts[:, 0].sum())
        assert rehearsal.clock[CLOCK.UNIT] <= LARGE
        assert np.isfinite(rehearsal.counts).all()


class TestState:
    def test_a_label_that_gives_its_place_is_rehearsed_no_more(self) -> None:
        rehearsal = new_rehearsal(32, 22, 5)
        planned(rehearsal, [0] * 50 + [1] * 50)
        forget(rehearsal, 0)
        assert rehearsal.kept[0] == rehearsal.counts[0].sum() == 0
        assert rehearsal.clock[CLOCK.TOTAL] == 50
        assert not (rehearsal.columns == 0).any()
        assert not rehearsal.features[rehearsal.columns < 0].any()
        assert (planned(rehearsal, [2] * 200) >= -3).all()
        assert (np.bincount(rehearsal.columns[rehearsal.columns >= 0], minlength=5) == rehearsal.kept).all()

    @pytest.mark.parametrize("name", ["sizes", "columns", "kept"])
    def test_what_would_be_read_beyond_its_end_is_refused(self, name: str) -> None:
        rehearsal = new_rehearsal(32, 22, 5)
        planned(rehearsal, [0] * 20)
        state = rehearsal_state(rehearsal)
        assert rehearsal_of(state, rehearsal).columns is rehearsal.columns
        damaged = state[f"rehearsal_{name}"].copy()
        damaged[0] = MOST + 1
        with pytest.raises(StateError, match="the state is damaged"):
            rehearsal_of({**state, f"rehearsal_{name}": damaged}, rehearsal)

    def test_it_is_bounded(self) -> None:
        sizes = [sum(array.nbytes for array in new_rehearsal(1 << 20, bits, 1000)) for bits in (8, 18, 22)]
        assert sizes[0] < 50_000
        assert sizes[1] < 450_000
        assert sizes[2] < 6_000_000
        small = TreeSettings(bits=18, memory_mb=16.0)
        assert TreeSettings(bits=18, memory_mb=16.0, rehearse=0).n_blocks > small.n_blocks

    @pytest.mark.parametrize("rehearse", [-1, (1 << 20) + 1])
    def test_what_cannot_be_meant_is_refused(self, rehearse: int) -> None:
        with pytest.raises(ConfigError, match="rehearse="):
            check_rehearse(rehearse)

    @pytest.mark.parametrize("spec", OURS)
    def test_a_model_of_before_rehearses_nothing(self, spec: str) -> None:
        config = make_classifier(spec).config()
        assert config.pop("rehearse") == 4096
        assert as_of_today(config)["rehearse"] == 0

    def test_bayes_has_nothing_to_rehearse(self) -> None:
        assert "rehearse" not in as_of_today(make_classifier("bayes").config())


class TestClassifiers:
    @pytest.mark.parametrize("spec", OURS)
    def test_a_file_sorted_by_label_leaves_a_model_that_knows_all_labels(self, spec: str) -> None:
        texts, labels = sorted_by_label(1500)
        with_, without = make_classifier(spec), make_classifier(f"{spec}&rehearse=0")
        asked, expected = generated(600, seed=8)
        right = []
        for classifier in (with_, without):
            classifier.learn_many(texts, labels)
            names = np.array(classifier.labels)
            right.append((names[classifier.predict_proba_many(asked).argmax(1)] == expected).mean())
        assert right[0] > 0.9
        assert right[0] > right[1] + 0.1

    @pytest.mark.parametrize("spec", OURS)
    def test_in_mixed_order_it_changes_nothing(self, spec: str) -> None:
        texts, labels = generated(300)
        models = [make_classifier(spec), make_classifier(f"{spec}&rehearse=0")]
        order = np.argsort(np.array([labels[:i].count(labels[i]) for i in range(len(labels))]), kind="stable")
        for classifier in models:
            classifier.learn_many([texts[i] for i in order[:240]], [labels[i] for i in order[:240]])
        asked = [texts[i] for i in order[240:]]
        assert models[0].predict_proba_many(asked).tobytes() == models[1].predict_proba_many(asked).tobytes()

    @pytest.mark.parametrize("spec", OURS)
    def test_it_goes_on_the_same_wherever_it_is_cut_and_saved(self, spec: str) -> None:
        texts, labels = sorted_by_label(400)
        whole, parts = make_classifier(spec), make_classifier(spec)
        whole.learn_many(texts, labels)
        for start in range(0, 400, 7):
            parts.learn_many(texts[start : start + 7], labels[start : start + 7])
            state, names = {name: array.copy() for name, array in parts.state().items()}, parts.labels
            parts = make_classifier(parts.spec) if start % 70 == 0 else parts
            parts.load_state(state, names)
        assert content(whole) == content(parts)

    @pytest.mark.parametrize("spec", OURS)
    def test_scores_are_those_of_the_texts_alone(self, spec: str) -> None:
        """Rows that are rehearsed have no scores, and a text is scored before it is learned."""
        texts, labels = sorted_by_label(300)
        many, one = make_classifier(spec), make_classifier(spec)
        for label in sorted(set(labels)):
            many.label_index(label), one.label_index(label)
        targets = np.array([many.label_index(label) for label in labels], np.int32)
        scores = many.score_and_learn(texts, targets, np.ones(300, np.float32))
        assert scores.shape == (300, 3)
        for number in range(300):
            before = one.predict_proba_many([texts[number]])
            one.score_and_learn([texts[number]], targets[number : number + 1], np.ones(1, np.float32))
            assert before[0].tobytes() == scores[number].tobytes()

    @pytest.mark.parametrize("spec", OURS)
    def test_long_texts_are_kept_in_part(self, spec: str) -> None:
        classifier = make_classifier(spec)
        texts = [" ".join(f"w{label}x{number}x{i}" for i in range(400)) for label in "ab" for number in range(60)]
        classifier.learn_many(texts, ["a"] * 60 + ["b"] * 60)
        sizes = classifier.state()["rehearsal_sizes"]
        kept = sizes[sizes[:, 2] > 0]
        assert (kept[:, 2] == MOST).all()
        assert (kept[:, 0] <= kept[:, 1]).all()
        assert (kept[:, 1] <= MOST).all()
        assert (kept[:, 0] > 0).all()
        assert np.isfinite(classifier.predict_proba_many(texts)).all()


def test_settings_of_all_that_rehearse_are_alike() -> None:
    found: list[Classifier] = [make_classifier(spec) for spec in OURS]
    assert {asdict(each.settings)["rehearse"] for each in found} == {4096}  # type: ignore[attr-defined]
