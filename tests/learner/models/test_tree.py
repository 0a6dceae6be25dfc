"""The Hoeffding tree: its splits beside a plain count and beside River, its memory, its branches that give way."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import oracles
import pytest
from numpy.typing import NDArray
from river.tree import HoeffdingTreeClassifier

from driftline.learner.models.linear import Linear, LinearSettings
from driftline.learner.registry import make_classifier
from driftline.learner.text.features import TextSettings
from driftline.learner.tree.growth import best_split, hoeffding_bound
from driftline.learner.tree.kernel import score_and_learn
from driftline.learner.tree.layout import COUNTER, LINK, Memory, Options
from driftline.learner.tree.tree import MIB, Tree, TreeSettings, new_work
from driftline.stream.errors import ConfigError, StateError

SMALL = {"bits": 14, "max_labels": 8, "memory_mb": 4.0, "chars": False, "pairs": False}


def tree(**options: object) -> Tree:
    return Tree(TreeSettings(**{**SMALL, **options}))  # type: ignore[arg-type]


def memory_of(model: Tree) -> Memory:
    return Memory(**{name: model.state()[name] for name in Memory._fields})


def n_splits(model: Tree) -> int:
    """Return how many splits there were, those of branches that are gone included."""
    return int(model._memory.counters[COUNTER.N_SPLITS])


def word(feature: str) -> int:
    return oracles.features(feature, TextSettings(chars=False, pairs=False))[0]


def leaves(model: Tree) -> NDArray[np.int64]:
    links = memory_of(model).links
    return np.flatnonzero((links[:, LINK.USED] == 1) & (links[:, LINK.PRESENT] == 0))


def right(model: Tree, texts: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each text, test then train, whether the best score was its label's."""
    targets = np.array([model.label_index(label) for label in labels], np.int32)
    scores = model.score_and_learn(texts, targets, np.ones(len(texts), np.float32))
    return np.asarray(scores.argmax(axis=1) == targets)


def assert_sound(model: Tree) -> None:
    """Check that every node and block is where exactly one other thing says it is."""
    memory = memory_of(model)
    links, owners = memory.links, memory.owners
    reached = []
    waiting = [(0, 0, 0)]
    while waiting:
        node, parent, depth = waiting.pop()
        reached.append(node)
        assert links[node, LINK.USED] == 1
        assert links[node, LINK.PARENT] == parent
        assert links[node, LINK.DEPTH] == depth
        if links[node, LINK.PRESENT] > 0:
            assert links[node, LINK.BLOCK] == 0
            waiting += [(links[node, child], node, depth + 1) for child in (LINK.PRESENT, LINK.ABSENT)]
        elif links[node, LINK.BLOCK] > 0:
            assert owners[links[node, LINK.BLOCK] - 1] == node + 1
        if links[node, LINK.ALTERNATE] > 0:
            waiting.append((links[node, LINK.ALTERNATE], node, depth))
    assert sorted(reached) == np.flatnonzero(links[:, LINK.USED]).tolist()
    assert not links[links[:, LINK.USED] == 0].any()
    assert np.count_nonzero(owners) == np.count_nonzero(links[:, LINK.BLOCK])
    for array in memory:
        assert np.isfinite(array).all()


def one_word_decides(n: int, seed: int = 1, faith: float = 0.9) -> tuple[list[str], list[str]]:
    """Return texts of 12 words of 40, of which `w7` comes with label a, `w3` less so."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(n):
        is_a = rng.random() < 0.5
        words = {f"w{i}" for i in rng.integers(8, 40, 8)}
        for name, chance in (("w7", faith), ("w3", 0.65)):
            if rng.random() < (chance if is_a else 1 - chance):
                words.add(name)
        texts.append(" ".join(sorted(words)))
        labels.append("a" if is_a else "b")
    return texts, labels


def turning(n: int, seed: int = 1, until: int | None = None) -> tuple[list[str], list[str]]:
    """Return texts in which `flip` turns round what all other words say, up to the text `until`."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        flip = rng.random() < 0.5
        is_a = rng.random() < (0.65 if flip else 0.35)
        says_up = is_a != flip if until is None or i < until else is_a
        words = [
            f"{'up' if says_up else 'down'}{w}" if own else f"noise{w}"
            for w, own in zip(rng.integers(40, size=8), rng.random(8) < 0.6, strict=True)
        ]
        texts.append(" ".join(["flip" if flip else "plain", *words]))
        labels.append("a" if is_a else "b")
    return texts, labels


def impurity(counts: Counter[str], criterion: str) -> float:
    n = sum(counts.values())
    shares = [count / n for count in counts.values() if count]
    return 1 - sum(s * s for s in shares) if criterion == "gini" else -sum(s * math.log2(s) for s in shares)


def plain_gains(texts: Sequence[str], labels: Sequence[str], criterion: str) -> dict[int, float]:
    """Return each word's gain, by counting."""
    everything, gains = Counter(labels), {}
    for name in {name for text in texts for name in text.split()}:
        present = Counter(label for text, label in zip(texts, labels, strict=True) if name in text.split())
        absent = everything - present
        if min(present.total(), absent.total()) >= 0.01 * len(texts):
            after = present.total() * impurity(present, criterion) + absent.total() * impurity(absent, criterion)
            gains[word(name)] = impurity(everything, criterion) - after / len(texts)
    return gains


def test_the_bound_by_hand() -> None:
    assert hoeffding_bound(1.0, 1e-7, 200) == pytest.approx(0.2007, abs=1e-4)  # sqrt(16.118 / 400)
    assert hoeffding_bound(2.0, 1e-7, 800) == pytest.approx(0.2007, abs=1e-4)
    assert hoeffding_bound(math.log2(77), 0.05, 1000) == pytest.approx(0.2425, abs=1e-4)


@pytest.mark.parametrize("criterion", ["gain", "gini"])
@pytest.mark.parametrize("n_labels", [2, 3])
def test_gains_are_those_of_a_plain_count(criterion: str, n_labels: int) -> None:
    texts, labels = one_word_decides(500, faith=0.8)
    labels = [f"{label}{i % 5 == 0}" if n_labels == 3 and label == "a" else label for i, label in enumerate(labels)]
    model = tree(max_depth=0, criterion=criterion)
    model.learn_many(texts, labels)
    options = Options(
        *[np.float32(0)] * 3, *[np.float32(0)] * 2, 1.0, -1, int(criterion == "gini"), 1.0, 0.1, 0.0, 0, 0
    )
    best, first, second, n, value_range = best_split(memory_of(model), new_work(model.settings), options, 0, n_labels)
    gains = plain_gains(texts, labels, criterion)
    expected = sorted(gains, key=lambda feature: -gains[feature])
    assert best == expected[0] == word("w7")
    assert first == pytest.approx(gains[expected[0]], rel=1e-6)
    assert second == pytest.approx(gains[expected[1]], rel=1e-6)
    assert n == 500
    assert value_range == pytest.approx(1.0 if criterion == "gini" else math.log2(n_labels))


@pytest.mark.parametrize(("faith", "tau"), [(0.9, 0.05), (0.72, 0.05), (0.66, 0.12)])
def test_the_first_split_is_rivers(faith: float, tau: float) -> None:
    """The same word, after the same number of texts: by the bound, later by it, and by a tie."""
    texts, labels = one_word_decides(4000, seed=3, faith=faith)
    names = sorted({name for text in texts for name in text.split()})
    model = tree(tau=tau)
    peer = HoeffdingTreeClassifier(
        grace_period=200, delta=1e-7, tau=tau, leaf_prediction="mc", nominal_attributes=names, binary_split=True
    )
    ours, theirs = 0, 0
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not ours:
            model.learn_one(text, label)
            ours = i + 1 if n_splits(model) else 0
        if not theirs:
            present = set(text.split())
            peer.learn_one({name: int(name in present) for name in names}, label)
            theirs = i + 1 if peer.n_branches else 0
    assert 0 < ours == theirs < 4000
    assert memory_of(model).features[0] == word(str(peer._root.feature)) == word("w7")


def test_noise_is_not_split() -> None:
    texts, _ = one_word_decides(6000)
    model = tree(tau=1.0)
    model.learn_many(texts, np.random.default_rng(0).choice(["a", "b"], 6000).tolist())
    assert n_splits(model) == 0


def test_a_leaf_is_as_good_as_what_is_shared_from_its_first_text() -> None:
    """Right after a split the scores are those of before."""
    texts, labels = one_word_decides(4000)
    grown, stump = tree(), tree(max_depth=0)
    for start in range(0, 4000, 200):
        before = stump.predict_proba_many(texts[:50])
        if n_splits(grown) == 1:
            break
        for model in (grown, stump):
            model.learn_many(texts[start : start + 200], labels[start : start + 200])
    assert n_splits(grown) == 1
    np.testing.assert_allclose(grown.predict_proba_many(texts[:50]), before, atol=0.02)


def test_splits_find_what_no_linear_model_can() -> None:
    texts, labels = turning(10_000)
    stump, grown = right(tree(max_depth=0), texts, labels), right(tree(), texts, labels)
    linear = Linear(LinearSettings(bits=14, max_labels=8, chars=False, pairs=False))
    targets = np.array([linear.label_index(label) for label in labels], np.int32)
    scores = linear.score_and_learn(texts, targets, np.ones(len(texts), np.float32))
    assert (scores.argmax(axis=1) == targets)[5000:].mean() < 0.72
    assert stump[5000:].mean() < 0.72
    assert grown[5000:].mean() > 0.99


@pytest.mark.parametrize("leaf", ["majority", "bayes", "linear", "mix", "adaptive"])
def test_every_way_to_predict_learns(leaf: str) -> None:
    texts, labels = one_word_decides(3000)
    assert right(tree(leaf=leaf), texts, labels)[1500:].mean() > 0.85


@pytest.mark.parametrize("leaf", ["adaptive", "mix", "bayes", "linear"])
def test_a_label_of_long_ago_spoils_nothing(leaf: str) -> None:
    """Its share of all labels sinks without end."""
    model = tree(leaf=leaf, forgetting=0.001)
    model.learn_one("zebra", "rare")
    texts, labels = ["yes it is", "no it is not"] * 2000, ["a", "b"] * 2000
    for _ in range(250):  # a million labels: under 1e-300 of them, and twice 0 in 64 bits
        found = right(model, texts, labels)
    assert found.mean() > 0.99
    for name, array in model.state().items():
        assert np.isfinite(array).all(), name
    assert all(math.isfinite(each.shares["rare"]) for each in model.explain_one("zebra", ["rare"]).features)
    model.learn_one("zebra", "rare")
    assert right(model, texts, labels).mean() > 0.99


def test_an_adaptive_leaf_is_nearly_as_good_as_the_best_way() -> None:
    texts, labels = turning(6000)
    found = {leaf: right(tree(leaf=leaf), texts, labels).mean() for leaf in ("majority", "bayes", "linear", "mix")}
    assert right(tree(), texts, labels).mean() > max(found.values()) - 0.02


# Memory.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory_mb": 3.0},
        {"bits": 18, "memory_mb": 5.5, "max_labels": 600},
        {"memory_mb": 16, "max_features": 4096},
    ],
)
def test_memory_is_what_was_set(options: dict[str, object]) -> None:
    model = tree(**options)
    limit = model.settings.memory_mb * MIB
    assert model.n_bytes <= limit
    size = model.n_bytes
    texts, labels = turning(20_000)
    model.learn_many(texts, labels)
    assert model.n_bytes == size
    assert n_splits(model) > 3
    assert_sound(model)


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory_mb=1.0.*at least") as refused:
        tree(memory_mb=1.0)
    least = float(str(refused.value).split("be ")[1].split(" ")[0])
    assert tree(memory_mb=least + 0.1).settings.n_blocks >= 2


def test_leaves_are_closed_where_memory_ends_and_the_tree_goes_on() -> None:
    texts, labels = turning(20_000)
    wide = tree(grace_period=50, delta=0.01, tau=1.0, memory_mb=16.0)
    narrow = tree(grace_period=50, delta=0.01, tau=1.0, memory_mb=2.5)
    assert narrow.settings.n_blocks < 6
    accuracy = [right(model, texts, labels)[10_000:].mean() for model in (wide, narrow)]
    assert len(leaves(wide)) > len(leaves(narrow)) > 1
    counters = memory_of(narrow).counters
    assert counters[COUNTER.N_CLOSED] > 0
    assert memory_of(wide).counters[COUNTER.N_CLOSED] == 0
    assert accuracy[0] > 0.98
    assert accuracy[1] > 0.9
    assert_sound(narrow)


# Branches that give way.


def test_a_branch_that_became_worse_is_replaced() -> None:
    texts, labels = turning(20_000, until=10_000)
    still, drifting = tree(drift=False), tree()
    ours, without = right(drifting, texts, labels), right(still, texts, labels)
    counters = memory_of(drifting).counters
    assert counters[COUNTER.N_ALARMS] > 0
    assert counters[COUNTER.N_REPLACED] > 0
    assert memory_of(still).counters[COUNTER.N_REPLACED] == 0
    assert ours[10_200:12_000].mean() > without[10_200:12_000].mean()
    assert ours[12_000:].mean() > 0.99
    assert_sound(drifting)


def test_branches_come_and_go_and_all_stays_in_order() -> None:
    model = tree(grace_period=30, delta=0.05, tau=1.0, memory_mb=2.85)
    for seed in range(6):
        texts, labels = turning(3000, seed)
        if seed % 2:
            labels = ["b" if label == "a" else "a" for label in labels]
        model.learn_many(texts, labels)
        assert_sound(model)
    assert memory_of(model).counters[COUNTER.N_REPLACED] > 0


def test_a_stream_that_does_not_change_raises_few_alarms() -> None:
    model = tree()
    model.learn_many(*turning(20_000))
    assert memory_of(model).counters[COUNTER.N_ALARMS] <= 5


# Files.


def test_the_defaults_are_part_of_the_format() -> None:
    """A checkpoint names only what differs from these: to change one is to change the format's version."""
    own = {field.name for field in dataclasses.fields(TreeSettings)} - {
        f.name for f in dataclasses.fields(TextSettings)
    }
    values = dataclasses.asdict(TreeSettings())
    assert {name: values[name] for name in own} == {
        "bits": 22,
        "memory_mb": 64.0,
        "rate": 0.5,
        "leaf_rate": 0.1,
        "mix_rate": 0.01,
        "chars_weight": 0.4,
        "decay": 1e-4,
        "forgetting": 5e-5,
        "leaf": "adaptive",
        "criterion": "gain",
        "grace_period": 200.0,
        "delta": 1e-7,
        "tau": 0.2,
        "max_depth": 20,
        "rehearse": 4096,
        "drift": True,
        "max_labels": 1000,
    }


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (LINK.PRESENT, 10**6),
        (LINK.PRESENT, 0),
        (LINK.ABSENT, -1),
        (LINK.BLOCK, 999),
        (LINK.PARENT, 10**6),
        (LINK.DEPTH, 7),
    ],
)
def test_links_that_lead_nowhere_are_refused(column: int, value: int) -> None:
    model = tree()
    model.learn_many(*turning(4000))
    assert n_splits(model) > 0
    state = {name: array.copy() for name, array in model.state().items()}
    state["links"][0 if column in (LINK.PRESENT, LINK.ABSENT) else state["links"][0, LINK.ABSENT], column] = value
    with pytest.raises(StateError, match="links"):
        tree().load_state(state, model.labels)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tree?leaf=guess", "majority"),
        ("tree?criterion=luck", "gini"),
        ("tree?grace_period=0", "1 or more"),
        ("tree?delta=0", "between 0 and 1"),
        ("tree?tau=-1", "0 or more"),
        ("tree?max_depth=-1", "0 to"),
        ("tree?memory_mb=20", "at least"),
        ("tree?memory_mb=0", "above 0"),
        ("tree?forgetting=0.5", "0 to"),
        ("tree?bits=99", "8 to 30"),
        ("tree?mix_rate=2", "0 to 1"),
    ],
)
def test_a_spec_that_cannot_be_meant(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classifier(spec)


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused_and_counted(damage: float) -> None:
    model = tree()
    model.learn_many(["a", "b"], ["x", "y"])
    model.state()["slots"][:, 0] = damage
    assert np.isfinite(model.predict_proba_many(["a", "c"])).all()
    assert model.n_refused == 0
    model.learn_many(["a", "c"], ["x", "y"])
    assert model.n_refused == 2


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    model = tree()
    model.learn_one("a", "x", weight)
    assert model.n_refused == 1
    assert model.predict_proba_one("a") == {"x": 0.0}


def test_there_is_one_compiled_kernel() -> None:
    for options in (
        {},
        {"tau": 1, "grace_period": 10, "leaf": "mix", "criterion": "gini", "drift": False, "forgetting": 0},
    ):
        model = tree(**options)
        model.learn_many(*one_word_decides(50))
        model.predict_many(["a"])
    assert len(score_and_learn.signatures) == 1
