"""An explanation adds up to the score it explains, stands where the text says it, and says what it does not know."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from driftline.learner.blend.settings import BlendSettings
from driftline.learner.explain import explain, sketch
from driftline.learner.explain.explain import Explanation, UnknownLabel
from driftline.learner.explain.trace import trace, trace_shape
from driftline.learner.models.classifier import Classifier
from driftline.learner.registry import make_classifier
from driftline.learner.text.features import TextSettings, features
from driftline.stream.errors import ConfigError
from driftline.stream.wire.fielded import join, text_of
from tests.data import CountingClassifier
from tests.learner.models.test_classifiers import (
    CLASSIFIERS,
    FOREIGN,
    HOSTILE,
    content,
    fielded,
    generated,
    taught,
    texts,
    tried,
)
from tests.learner.text.test_shape import shape
from tests.learner.text.test_text import texts as odd_texts
from tests.often import TORTURE, times

WORDS_ONLY = TextSettings(pairs=False, chars=False)
text_settings = st.builds(
    lambda pairs, chars, shortest, more, step, most, max_features, hashing: BlendSettings(
        pairs=pairs,
        chars=chars,
        chars_min=shortest,
        chars_max=shortest + more,
        chars_step=step,
        max_chars=most[0],
        tail_chars=most[1],
        max_features=max_features,
        hashing=hashing,
    ),
    st.booleans(),
    st.booleans(),
    st.integers(2, 5),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from([(1, 0), (7, 0), (9, 3), (30, 0), (30, 28), (8192, 0)]),
    st.sampled_from([1, 2, 9, 40, 32768]),
    st.sampled_from([1, 2, 2]),
)


def make(spec: str) -> Classifier:
    return make_classifier(spec, allow_pickle=True)


def sums(explanation: Explanation, labels: Sequence[str]) -> list[float]:
    """Return what the parts of an explanation add up to."""
    return [
        explanation.bias[label]
        + explanation.rest[label]
        + sum(feature.shares[label] for feature in explanation.features)
        for label in labels
    ]


def shown(text: str) -> str:
    """Return a text folded, without what is ignored, as features show it."""
    folded = "".join(oracles.fold(c) for c in text if oracles.classify(oracles.fold(c)) != oracles.IGNORED)
    return "".join("\ufffd" if "\ud800" <= c < "\ue000" else c for c in folded)


def first(explanation: Explanation, text: str, kind: str = "word") -> explain.FeatureShare:
    return next(feature for feature in explanation.features if (feature.kind, feature.text) == (kind, text))


# Where features stand.


@settings(max_examples=times(300, 75))
@given(odd_texts, text_settings)
def test_the_features_that_are_traced_are_those_of_the_kernel(text: str, options: TextSettings) -> None:
    assert [feature.hash for feature in trace(text, options)] == features([text], options)[0].tolist()


@settings(max_examples=times(300, 75))
@given(odd_texts.filter(lambda text: "\0" not in text) | st.text("aBCé1_ !'\n字", max_size=2000), text_settings)
def test_the_shape_that_is_traced_is_that_of_the_kernel(text: str, options: BlendSettings) -> None:
    found = trace_shape(text, options, trace(text, options))
    cased, ends, amounts = shape(text, options)
    assert [feature.hash for feature in found] == [*cased, *ends, *amounts]
    assert [feature.kind for feature in found] == ["case"] * len(cased) + ["first", "last"][: len(ends)] + [
        "amount"
    ] * 12
    for feature in found:
        parts = [text[start:stop] for start, stop in feature.spans if feature.kind == "case"]
        assert all(feature.text in (oracles.normal(part) if options.hashing > 1 else part) for part in parts)
        assert options.hashing > 1 or all(part == feature.text for part in parts)
        assert bool(feature.spans) == (feature.kind != "amount")


def test_the_shape_is_named() -> None:
    text = "Call NOW, 2 days left,\nCall"
    found = [feature for feature in make("blend").trace(text) if feature.kind in ("case", "first", "last", "amount")]
    assert [(f.kind, f.text, [text[a:b] for a, b in f.spans]) for f in found[:4]] == [
        ("case", "Call", ["Call", "Call"]),
        ("case", "NOW", ["NOW"]),
        ("first", "call", ["Call"]),
        ("last", "left", ["left"]),
    ]
    assert [f.text for f in found[4:]] == [
        *("characters 22-30", "words 5-6", "lines 2", "digits 1", "signs 2", "characters beyond ASCII 0"),
        *("words in capitals 1", "words with a capital 4/8", "words with a capital 4/8 of 6"),
        *("characters in capitals 2/16", "characters that are signs 2/32", "spaces but for one a word 0"),
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_traced_in_bounds(text: str) -> None:
    options = TextSettings()
    found = trace(text, options)
    assert [feature.hash for feature in found] == features([text], options)[0].tolist()
    assert sum(len(feature.spans) for feature in found if feature.kind != "times") <= options.max_features
    assert all(0 <= start < stop <= len(text) for f in found for start, stop in f.spans)
    assert not text.isascii() or all(stop <= options.max_chars for f in found for _, stop in f.spans)


def test_places_are_those_in_the_whole_text() -> None:
    text = "Call me now, " + "and so on " * 3 + "or Never"
    options = BlendSettings(max_chars=16, tail_chars=8, chars=False)
    found = trace(text, options)
    found += trace_shape(text, options, found)
    places = {(f.kind, f.text): [text[a:b] for a, b in f.spans] for f in found if f.kind in ("word", "case", "last")}
    assert places == {
        ("word", "call"): ["Call"],
        ("word", "me"): ["me"],
        ("word", "or"): ["or"],
        ("word", "never"): ["Never"],
        ("case", "Call"): ["Call"],
        ("case", "Never"): ["Never"],
        ("last", "never"): ["Never"],
    }
    assert {f.text: text[slice(*f.spans[0])] for f in found if f.kind == "pair"}["or never"] == "or Never"


@settings(max_examples=times(300, 75))
@given(odd_texts)
def test_every_place_of_a_feature_has_it(text: str) -> None:
    tokens = [token for _, token in oracles.tokens(text) if token]
    for feature in trace(text, TextSettings(hashing=1)):
        assert list(feature.spans) == sorted(set(feature.spans)) or feature.kind == "chars"
        for start, stop in feature.spans:
            part = text[start:stop]
            if feature.kind == "word":
                assert [f.hash for f in trace(part, replace(WORDS_ONLY, hashing=1))] == [feature.hash]
            elif feature.kind == "pair":
                assert feature.hash in [f.hash for f in trace(part, TextSettings(chars=False, hashing=1))]
            else:
                rest = shown(part).removeprefix(feature.text.strip(" "))
                assert rest == feature.text.strip(" ")[-1] * len(rest), "only a run of one symbol is longer"
        if feature.kind == "word":
            expected = [token for token in tokens if oracles.hash_word(token) == feature.hash]
            assert len(feature.spans) == len(expected)
            assert feature.text == shown(expected[0])


@settings(max_examples=times(300, 75))
@given(odd_texts)
@example("\u2764\u0301")
def test_every_place_of_a_feature_has_it_in_the_one_form(text: str) -> None:
    """And more, where one character becomes several words."""
    for feature in trace(text, TextSettings()):
        assert len(set(feature.spans)) == len(feature.spans) > 0
        for start, stop in feature.spans:
            part = text[start:stop]
            if unicodedata.combining(part[0]):
                continue  # behind a picture a mark begins a word, at the beginning of a text it is nothing
            if feature.kind == "chars":
                assert feature.text.strip(" ") in shown(oracles.normal(part))
            elif feature.kind == "times":
                assert feature.text.rsplit(" ", 2)[0] in [f.text for f in trace(part, WORDS_ONLY) if f.kind == "word"]
            else:
                assert feature.hash in [f.hash for f in trace(part, TextSettings(chars=False))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("İSTANBUL istanbul", {"istanbul": ["İSTANBUL", "istanbul"]}),
        ("Straße STRAẞE", {"straße": ["Straße", "STRAẞE"]}),
        ("FREE!!!!! free!", {"free": ["FREE", "free"], "!!!": ["!!!!!"], "!": ["!"]}),
        ("👍🏽 ok 👍", {"👍": ["👍🏽", "👍"], "ok": ["ok"]}),
        ("👩‍👩‍👧", {"👩👩": ["👩‍👩‍"], "👧": ["👧"]}),
        ("cafe\u0301!", {"caf\u00e9": ["cafe\u0301"], "!": ["!"]}),
        ("ﬁne s\u0336p\u0336", {"fine": ["ﬁne"], "sp": ["s\u0336p\u0336"]}),
        ("\u1112\u1161\u11ab", {"\ud55c": ["\u1112\u1161\u11ab"]}),
        ("漢字A漢", {"漢": ["漢", "漢"], "字": ["字"], "a": ["A"]}),
        ("so\u00adft", {"soft": ["so\u00adft"]}),
        ("don\u2019t Don't", {"don't": ["don\u2019t", "Don't"]}),
        ("a\ud800b", {"a": ["a"], "\ufffd": ["\ud800"], "b": ["b"]}),
    ],
)
def test_places_of_words(text: str, expected: dict[str, list[str]]) -> None:
    features = trace(text, WORDS_ONLY)
    found = {feature.text: [text[a:b] for a, b in feature.spans] for feature in features if feature.kind == "word"}
    assert found == expected


def test_how_often_a_word_comes_stands_where_it_comes_again() -> None:
    text = "Free! \u00c9t\u00e9 free, and FREE again; \u00e9t\u00e9."
    found = [(f.text, f.spans) for f in trace(text, TextSettings()) if f.kind == "times"]
    assert found == [
        ("free 2 times", [(10, 14)]),
        ("free 3 times", [(20, 24)]),
        ("\u00e9t\u00e9 2 times", [(32, 35)]),
    ]


def test_places_of_pairs_and_ngrams() -> None:
    found = {(f.kind, f.text): f.spans for f in trace("Win  WIN, win", TextSettings(chars_max=4))}
    assert found["pair", "win win"] == [(0, 8)]
    assert found["pair", "win ,"] == [(5, 9)]
    assert found["chars", " wi"] == [(0, 2), (5, 7), (10, 12)]
    assert found["chars", "win "] == found["chars", "win"] == [(0, 3), (5, 8), (10, 13)]


# What they add.


@pytest.mark.long
@pytest.mark.parametrize("spec", CLASSIFIERS)
def test_what_is_listed_adds_up_to_the_log_scores(spec: str) -> None:
    classifier = make(spec)
    batch, labels = generated(1200, 4)
    unseen = ["", "own0x1 own1x2 word3 unheard", " ".join(batch[:300]), "!!! 字漢 👍 " * 9]
    for start, stop in pairwise([0, 1, 5, 40, 300, 1200] if TORTURE else [0, 1, 40, 1200]):
        classifier.learn_many(batch[start:stop], labels[start:stop])
        classifier.label_index("never learned")
        for text in [*batch[stop - 3 : stop + 3], *unseen]:
            scores = {label: p for label, p in classifier.predict_proba_one(text).items() if p > 0}
            explanation = classifier.explain_one(text, list(scores), 7)
            assert explanation.method == "sum"
            assert explanation.scores == classifier.predict_proba_one(text)
            logs = np.log(list(scores.values()))
            possible = logs > np.log(1e-25)  # no probability is under LEAST
            np.testing.assert_allclose(
                np.array(sums(explanation, list(scores)))[possible] + (logs - sums(explanation, list(scores)))[0],
                logs[possible],
                atol=2e-3,
            )


@pytest.mark.parametrize("spec", [*CLASSIFIERS, "blend?bits=18&max_labels=600&cross=country"])
def test_fields_are_part_of_the_sum(spec: str) -> None:
    classifier = make(spec)
    batch, labels = fielded(600, "country")
    classifier.learn_many(batch, labels)
    for text in batch[:3]:
        scores = classifier.predict_proba_one(text)
        explanation = classifier.explain_one(text, list(scores), 7)
        logs, added = np.log(list(scores.values())), np.array(sums(explanation, list(scores)))
        np.testing.assert_allclose(added - added[0], logs - logs[0], atol=2e-3)
        assert explanation.features[0].field == "country" or explanation.path, "a tree may have asked for it before"
        assert all(f.kind in ("field", "field_pair", "cross") for f in explanation.features if f.field)
        assert all(f.spans == [] or f.kind == "cross" for f in explanation.features if f.field)
    bare = [text_of(text) for text in batch]
    assert (classifier.predict_proba_many(batch) != classifier.predict_proba_many(bare)).any()


def test_a_tree_says_what_it_asked_of_a_field() -> None:
    classifier = make("tree?bits=16&max_labels=20&grace_period=20&delta=0.1&tau=1&chars=0&memory_mb=8&leaf=linear")
    rng = np.random.default_rng(4)
    for _ in range(600):
        asks, is_nl = rng.random(2) < 0.5
        text = join(f"{'if' if asks else 'so'} noise{rng.integers(20)}", {"country": "NL" if is_nl else "BE"})
        classifier.learn_one(text, "yes" if asks == is_nl else "no")
    texts = [join(word, {"country": country}) for word in ("if", "so") for country in ("NL", "BE")]
    said = {step.word for text in texts for step in classifier.explain_one(text).path if step.present}
    assert said & {"country: NL", "country: BE"}


@pytest.mark.parametrize("spec", tried(*FOREIGN))
def test_a_foreign_model_is_asked_without_each_field(spec: str) -> None:
    classifier = make(spec)
    classifier.learn_many(*fielded(200, "country"))
    explanation = classifier.explain_one(join("word1 word2", {"country": "NL", "amount": 5}), n_features=10)
    assert explanation.method == "occlusion"
    assert {(f.kind, f.field, f.text) for f in explanation.features if f.field} == {
        ("field", "country", "NL"),
        ("field", "amount", "5"),
    }
    assert explanation.features[0].field == "country"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=times(25, 10))
@given(st.lists(st.tuples(texts, st.sampled_from("abc"), st.sampled_from([0.25, 1.0, 2.5])), max_size=25), texts)
@pytest.mark.parametrize("spec", CLASSIFIERS)
def test_generated_texts_add_up(spec: str, batch: list[tuple[str, str, float]], text: str) -> None:
    classifier = make(spec.replace("bits=18&max_labels=600", "bits=10&max_labels=5"))  # many slots are shared
    for row in batch:
        classifier.learn_one(*row)
    scores = classifier.predict_proba_one(text)
    explanation = classifier.explain_one(text, list(scores), 3)
    if scores:
        added = np.array(sums(explanation, list(scores)))
        assert added.sum() == pytest.approx(0, abs=1e-6), "over the mean of all labels"
        np.testing.assert_allclose(np.exp(added) / np.exp(added).sum(), list(scores.values()), atol=1e-3)


@pytest.mark.parametrize("spec", CLASSIFIERS)
def test_the_words_that_tell_come_first(spec: str) -> None:
    classifier = taught(make(spec), 1500)
    explanation = classifier.explain_one("word1 own2x7 word2", n_features=500)
    assert explanation.label == "label2"
    word = first(explanation, "own2x7")
    assert word.spans == [(6, 12)]
    assert word.shares["label2"] > max(0.05, first(explanation, "word1").shares["label2"])
    size = [abs(feature.shares["label2"]) for feature in explanation.features]
    assert size == sorted(size, reverse=True)
    assert next(iter(explanation.features[0].shares)) == "label2", "the best label is the first of three"
    assert len(explanation.features[0].shares) == 3


def test_a_tree_says_what_it_asked() -> None:
    classifier = make("tree?bits=16&max_labels=20&grace_period=20&delta=0.1&tau=1&chars=0&memory_mb=8&leaf=linear")
    rng = np.random.default_rng(4)
    for _ in range(600):
        asks, is_a = rng.random(2) < 0.5
        words = f"{'if' if asks else 'so'} {'alpha' if is_a else 'beta'} noise{rng.integers(20)}"
        classifier.learn_one(words, "yes" if asks == is_a else "no")
    paths = [classifier.explain_one(text).path for text in ("if alpha", "so beta", "if beta", "")]
    assert any(paths), "it has split"
    for text, path in zip(("if alpha", "so beta", "if beta", ""), paths, strict=True):
        assert all((step.word is None) != step.present for step in path)
        assert {step.word for step in path if step.present} <= set(text.split())
    assert any(step.present for path in paths for step in path)


@pytest.mark.parametrize("spec", tried(*FOREIGN))
def test_a_foreign_model_is_asked_without_each_word(spec: str) -> None:
    classifier = taught(make(spec))
    text = "own0x1 word5 own0x1 own1x2"
    explanation = classifier.explain_one(text, n_features=10)
    assert (explanation.method, explanation.bias, explanation.rest) == ("occlusion", {}, {})
    assert {feature.text for feature in explanation.features} == {"own0x1", "word5", "own1x2"}
    word = first(explanation, "own0x1")
    assert word.spans == [(0, 6), (13, 19)]
    logs = [np.log(list(classifier.predict_proba_one(t).values())) for t in (text, "  word5   own1x2")]
    lost = (logs[0] - logs[0].mean()) - (logs[1] - logs[1].mean())
    assert [word.shares[label] for label in classifier.labels] == pytest.approx(lost, abs=1e-6)


@pytest.mark.long
def test_any_classifier_is_explained_with_a_bounded_number_of_predictions() -> None:
    asked: list[int] = []

    class Counted(CountingClassifier):
        def predict_proba_many(self, texts: Sequence[str]) -> explain.Shares:
            asked.append(len(texts))
            return super().predict_proba_many(texts)

    classifier = Counted()
    classifier.learn_many(["free money", "see you"], ["spam", "ham"])
    word = first(classifier.explain_one("you money"), "money")
    assert word.shares["spam"] > 0 > word.shares["ham"]
    assert (word.known, word.shared) == (None, None), "it keeps no sketch"
    explanation = classifier.explain_one(" ".join(f"w{i}" for i in range(times(60_000, 6_000))), n_features=1000)
    assert explanation.n_features == len(explanation.features) == explain.MAX_WORDS
    assert sum(asked) <= 2 * (explain.MAX_WORDS + 2)


# What every classifier can be asked.


# To find the places of features takes long, and is of no model's own: the whole texts go to one that has all kinds.
HOSTILE_OF = {
    spec: HOSTILE if TORTURE or spec == CLASSIFIERS[6] else [text[:1500] for text in HOSTILE]
    for spec in CLASSIFIERS + FOREIGN
}


@pytest.mark.long
@pytest.mark.parametrize("spec", HOSTILE_OF)
def test_explaining_changes_nothing_and_always_gives_an_answer(spec: str) -> None:
    classifier = make(spec)
    nothing = classifier.explain_one("anything")
    assert (nothing.label, nothing.scores, nothing.features, nothing.n_features) == (None, {}, [], 0)
    classifier.learn_one("x", "only")
    assert classifier.explain_one("x").scores == {"only": 1.0}
    taught(classifier)
    before = content(classifier)
    for text in HOSTILE_OF[spec]:
        explanation = classifier.explain_one(text, n_features=5)
        assert len(explanation.features) <= 5
        assert all(np.isfinite(list(feature.shares.values())).all() for feature in explanation.features)
        assert msgspec.json.decode(msgspec.json.encode(explanation), type=Explanation) == explanation
    empty = classifier.explain_one("", n_features=5)
    assert all(feature.kind == "amount" for feature in empty.features)
    assert (empty.n_features > 0) == spec.startswith("blend")
    assert classifier.explain_one("own0x1", n_features=0).features == []
    assert content(classifier) == before


@pytest.mark.parametrize("spec", [CLASSIFIERS[0], FOREIGN[0]])
def test_what_cannot_be_explained_is_refused(spec: str) -> None:
    classifier = make(spec)
    with pytest.raises(UnknownLabel, match="label 'spam' was never learned; known are: none yet"):
        classifier.explain_one("x", ["spam"])
    classifier.label_index("only registered")
    taught(classifier)
    for label in ("spam", "only registered"):
        with pytest.raises(UnknownLabel, match="known are: label"):
            classifier.explain_one("x", ["label1", label])
    with pytest.raises(ConfigError, match="0 or more"):
        classifier.explain_one("x", n_features=-1)
    assert list(classifier.explain_one("own0x1", ["label1", "label1"]).features[0].shares) == ["label1"]


@pytest.mark.parametrize("spec", tried(*CLASSIFIERS, *FOREIGN))
def test_an_explanation_survives_saving(spec: str) -> None:
    straight, loaded = taught(make(spec)), make(spec)
    loaded.load_state({name: array.copy() for name, array in straight.state().items()}, straight.labels)
    for text in ("own0x1 word1 never heard of", "own1x2"):
        assert loaded.explain_one(text) == straight.explain_one(text)


@pytest.mark.parametrize("damage", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "array"), [("linear", "slots"), ("bayes", "counts"), ("blend", "grams")])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_damaged_model_explains_its_equal_scores(name: str, array: str, damage: float) -> None:
    classifier = make(f"{name}?bits=12&max_labels=10")
    classifier.learn_many(["a", "b"], ["x", "y"])
    classifier.state()[array][:] = damage
    explanation = classifier.explain_one("a b")
    assert explanation.scores == {"x": 0.5, "y": 0.5}
    assert sums(explanation, ["x", "y"]) == [0, 0]


# What the sketch knows.


@pytest.mark.parametrize("spec", tried(*(spec for spec in CLASSIFIERS if "half_life" not in spec), *FOREIGN))
def test_a_feature_is_known_once_it_was_learned(spec: str) -> None:
    classifier = make(spec)
    classifier.predict_proba_many(["alpha beta"])
    classifier.learn_many(["alpha beta", "gamma delta"], ["x", "y"])
    explanation = classifier.explain_one("alpha omega delta", n_features=100)
    flags = {
        word: (first(explanation, word).known, first(explanation, word).shared) for word in ("alpha", "omega", "delta")
    }
    assert flags == {"alpha": (True, False), "omega": (False, False), "delta": (True, False)}


@pytest.mark.parametrize("name", ["linear", "bayes", "blend", "tree"])
def test_few_slots_are_shared_and_many_are_not(name: str) -> None:
    batch, labels = generated(300, 2)
    small, large = (make(f"{name}?bits={bits}&max_labels=4") for bits in (9, 22))
    for classifier in (small, large):
        classifier.learn_many(batch, labels)
    shared = [
        np.mean([f.shared for text in batch[:20] for f in classifier.explain_one(text, n_features=1000).features])
        for classifier in (small, large)
    ]
    assert shared[0] > 0.95
    assert shared[1] < 0.05


def test_a_foreign_models_slots_are_shared_too() -> None:
    classifier = make("river:naive_bayes.MultinomialNB?text.bits=4")
    taught(classifier)
    assert all(feature.shared for feature in classifier.explain_one("own0x1 word1").features)


@given(st.lists(st.lists(st.integers(1, 2**32 - 1), max_size=6), max_size=12), st.integers(4, 40), st.integers(1, 5))
def test_the_sketch_equals_a_plain_one(learned: list[list[int]], places: int, reach: int) -> None:
    found = sketch.new_sketch(places)
    plain: defaultdict[int, set[int]] = defaultdict(set)
    for text in learned:
        sketch.note(np.array([*text, 7], np.uint32), len(text), found)
        for feature in text:
            plain[feature * places >> 32].add(min(max(feature & 255, 1), 254))
    for feature in [1, 2**31, *(feature for text in learned for feature in text)]:
        place, own = feature * places >> 32, min(max(feature & 255, 1), 254)
        here = plain.get(place, set())
        beside = any(plain.get(place + step) for step in range(1 - reach, reach) if step)
        known = own in here or len(here) > 1
        assert sketch.look_up(found, feature, reach) == (known, bool(here - {own}) or beside)


def test_two_features_of_one_place_seldom_pass_for_one() -> None:
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(20_000):
        both = (rng.integers(0, 1 << 14) << 18) + rng.integers(0, 1 << 18, 2)  # one of 2**14 places
        found = sketch.new_sketch(1 << 14)
        sketch.note(both.astype(np.uint32), 2, found)
        missed += not sketch.look_up(found, int(both[0]), 1).shared
    assert 20_000 / 400 < missed < 20_000 / 150


def test_all_of_the_first_texts_are_noted_and_a_few_of_the_later_ones() -> None:
    found = sketch.new_sketch(1 << 18)
    noted = []
    for number in range(sketch.ALL + 300 * sketch.ONE_IN):
        feature = np.array([number << 14], np.uint32)
        if sketch.is_due(found):
            sketch.note(feature, 1, found)
        noted.append(sketch.look_up(found, int(feature[0]), 1).known)
    assert all(noted[: sketch.ALL])
    later = np.flatnonzero(noted[sketch.ALL :])
    assert abs(len(later) - 300) <= 2
    assert np.diff(later).max() <= 3 * sketch.ONE_IN, "no stretch goes without"
    for period in range(2, 20):
        assert len({int(number) % period for number in later}) == period, "no period hides"


def test_a_text_that_was_not_learned_is_not_noted() -> None:
    classifier = make("linear?bits=12&max_labels=10")
    classifier.learn_one("alpha", "x", float("nan"))
    classifier.learn_one("beta", "y")
    assert not first(classifier.explain_one("alpha", n_features=99), "alpha").known
