"""Where all places are taken a label that was seen seldom and long ago gives its own, as if it had never been."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.label_places import FEW, MOST_KEPT, Places
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import watched
from driftline.learner.models.classifier import Classifier
from driftline.learner.registry import make_classifier
from driftline.stream.errors import StateError
from driftline.stream.log.base import NewRecord, Record, TopicPartition
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, decode_prediction, decode_rejected, encode
from tests.data import batch
from tests.faults.stage import START_MS, SqliteStage, finish, learned, steps

FEEDBACK, MESSAGES = TopicPartition("feedback", 0), TopicPartition("messages", 0)
HOUR = 3_600_000
OWN = ["linear?bits=16&max_labels=8", "bayes?bits=16&max_labels=8", "blend?bits=16&max_labels=8"]
OWN += ["tree?bits=16&max_labels=8&memory_mb=4"]
COMMON = ["the first thing to say", "another thing that was said", "what is there to say"]
JUNK = ["zebra quagga okapi", "giraffe antelope gnu", "okapi gnu zebra WALLABY 42"]
NEW = "entirely other words here"


def taught(spec: str) -> Classifier:
    """Return a classifier that knows two labels well, and one of JUNK."""
    classifier = make_classifier(spec)
    for _ in range(20):
        classifier.learn_many(COMMON, ["a", "b", "a"])
    classifier.learn_many(JUNK, ["junk"] * len(JUNK))
    classifier.learn_many(COMMON, ["a", "b", "a"])
    return classifier


def odds(classifier: Classifier, text: str) -> float:
    """Return the log odds of a new label against an old one."""
    found = classifier.predict_proba_one(text)
    return float(np.log(found["new"] / found["a"]))


def renewed(spec: str, *, with_texts: bool, in_its_place: bool) -> Classifier:
    """Return a classifier that knows JUNK's label no more, and another one, learned on other words.

    That has the place of JUNK's, or one that nobody had.
    """
    classifier = taught(spec)
    column = classifier.columns["junk"]
    classifier.clear(column, [classifier.imprint(text) for text in JUNK] if with_texts else [])
    assert classifier.predict_proba_one(JUNK[0])["junk"] == 0
    if in_its_place:
        classifier.rename(column, "new")
        assert (classifier.labels, classifier.columns) == (["a", "b", "new"], {"a": 0, "b": 1, "new": 2})
    classifier.learn_many([NEW] * 3, ["new"] * 3)
    return classifier


@pytest.mark.parametrize("spec", OWN)
def test_a_place_that_was_given_is_as_one_that_nobody_had(spec: str) -> None:
    """But for what no text of the label before tells: which texts of others its weights were against."""
    weighs = spec.startswith(("linear", "blend"))
    fresh = renewed(spec, with_texts=True, in_its_place=False)
    given = renewed(spec, with_texts=True, in_its_place=True)
    for text in [*JUNK, NEW, "kumquat loquat medlar", ""]:
        assert odds(given, text) == pytest.approx(odds(fresh, text), abs=0.5 if weighs else 0.001)
    for text in COMMON:
        more = odds(given, text) - odds(fresh, text)
        assert more < 0 if weighs else more == pytest.approx(0, abs=0.001)
        assert given.predict_one(text) == fresh.predict_one(text)
    assert given.predict_one(NEW) == "new"
    assert sum(given.predict_proba_one(JUNK[0]).values()) == pytest.approx(1, abs=1e-5)
    remembering = renewed(spec, with_texts=False, in_its_place=True)
    more = max(odds(remembering, text) - odds(fresh, text) for text in JUNK)
    assert more > 1.4, "what is seen above is not there by itself"


@pytest.mark.parametrize("spec", OWN)
def test_only_a_label_that_shares_its_slots_loses_anything(spec: str) -> None:
    classifier, other = taught(spec), taught(spec)
    classifier.clear(classifier.columns["junk"], [classifier.imprint(text) for text in JUNK])
    for text in COMMON:
        one, two = classifier.predict_proba_one(text), other.predict_proba_one(text)
        without = {label: p / (1 - two["junk"]) for label, p in two.items() if label != "junk"}
        for label, p in without.items():
            assert one[label] == pytest.approx(p, abs=0.05)


@pytest.mark.parametrize("spec", OWN)
def test_what_is_kept_of_a_long_text_is_bounded(spec: str) -> None:
    text = " ".join(f"word{number}" for number in range(3000))
    found = make_classifier(spec).imprint(text)
    assert found.dtype == np.uint32
    assert len(found) <= 1 + MOST_KEPT
    assert 0 < found[0] < len(found)
    assert len(make_classifier(spec).imprint("")) <= 40


def machine(spec: str = "linear?bits=12&max_labels=4", **options: Any) -> Machine:
    return Machine(LearnerSettings(**options).rules(StreamSettings(), 1), make_classifier(spec), lineage="abc")


class Feed:
    """Records with their offsets and times."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.time_ms = 1000
        self._next = {MESSAGES: 0, FEEDBACK: 0}

    def add(self, value: Message | Feedback) -> None:
        partition = MESSAGES if isinstance(value, Message) else FEEDBACK
        self.time_ms += 1
        self.records.append(Record(partition, self._next[partition], self.time_ms, None, encode(value)))
        self._next[partition] += 1

    def label(self, label: str, text: str = "some text", times: int = 1) -> None:
        for _ in range(times):
            self.add(Feedback(f"m{len(self.records)}", label, text=text))

    def later(self, hours: float) -> None:
        self.time_ms += int(hours * HOUR)

    def into(self, learner: Machine, size: int | None = None) -> list[str]:
        """Take all in; return the errors of what was refused."""
        records, self.records = self.records, []
        size = size or len(records)
        dead = []
        for start in range(0, len(records), size):
            dead += learner.apply(batch(records[start : start + size]))["dead-letter"]
        return [decode_rejected(each.value or b"").error for each in dead]


def test_after_a_flood_an_honest_label_is_learned_a_day_later() -> None:
    feed, learner = Feed(), machine("linear?bits=16&max_labels=100")
    feed.label("spam", "win a prize", times=5)
    feed.label("ham", "see you at home", times=5)
    for number in range(2000):
        feed.label(f"junk {number}", f"words {number}")
    feed.label("honest", "an invoice is due", times=3)
    assert feed.into(learner, 500) == ["too-many-labels"] * 1905
    assert (len(learner.classifier.labels), learner.n_places) == (100, 0)
    feed.later(24)
    feed.label("honest", "an invoice is due", times=3)
    assert feed.into(learner) == []
    assert learner.counts.places_given == 1
    assert learner.classifier.labels[:4] == ["spam", "ham", "honest", "junk 1"]
    assert learner.classifier.predict_one("an invoice is due") == "honest"
    assert learner.n_places == 97


def test_the_label_that_came_least_lately_goes_first_and_one_that_is_used_stays() -> None:
    feed, learner = Feed(), machine()
    for label, times in (("often", FEW + 1), ("seldom", FEW), ("early", 1), ("again", 1)):
        feed.label(label, times=times)
        feed.later(1)
    feed.label("again")
    feed.label("young")
    assert feed.into(learner) == ["too-many-labels"]
    feed.later(24 - 3)
    feed.label("first")
    assert feed.into(learner) == []
    assert learner.classifier.labels == ["often", "first", "early", "again"]
    feed.label("second")
    assert feed.into(learner) == ["too-many-labels"], "an hour too early"
    feed.later(3)
    feed.label("second")
    feed.label("third")
    feed.label("fourth")
    assert feed.into(learner) == ["too-many-labels"]
    assert learner.classifier.labels == ["often", "first", "second", "third"]
    assert learner.classifier.columns == {"often": 0, "first": 1, "second": 2, "third": 3}


@pytest.mark.parametrize("options", [{"free_labels_hours": float("inf")}, {"free_labels_hours": 500.0}])
def test_none_is_given_before_its_time(options: dict[str, float]) -> None:
    feed, learner = Feed(), machine(**options)
    for number in range(4):
        feed.label(f"label {number}")
    feed.later(400)
    feed.label("late")
    assert feed.into(learner) == ["too-many-labels"]
    assert learner.n_places == 0


def test_what_messages_that_leave_are_learned_as_stays() -> None:
    feed, learner = Feed(), machine(expire_as="label 0", window_messages=2)
    for number in range(4):
        feed.label(f"label {number}")
    feed.later(30)
    feed.label("late")
    assert feed.into(learner) == []
    assert learner.classifier.labels == ["label 0", "late", "label 2", "label 3"]


def test_a_model_of_another_library_gives_no_place() -> None:
    model = make_classifier("river:naive_bayes.MultinomialNB?max_labels=2", allow_pickle=True)
    learner = Machine(LearnerSettings().rules(StreamSettings(), 1), model, "abc")
    feed = Feed()
    feed.label("a")
    feed.label("b")
    feed.later(30)
    feed.label("c")
    assert feed.into(learner) == ["too-many-labels"]
    assert learner.n_places == 0


def test_a_retraction_is_taken_whatever_its_label_is() -> None:
    feed, learner = Feed(), machine()
    for number in range(4):
        feed.label(f"label {number}")
    feed.add(Feedback("waits", "label 0"))
    feed.add(Feedback("waits", "no such", op="retract"))
    assert feed.into(learner) == []
    assert (learner.join.counts.retracted, learner.join.waiting) == (1, 0)


def test_what_was_predicted_is_the_old_label_and_never_scored_as_the_new_one() -> None:
    feed, learner = Feed(), machine("linear?bits=16&max_labels=3")
    feed.label("a", "alpha beta", times=5)
    feed.label("b", "gamma delta", times=5)
    feed.label("junk", "zebra quagga", times=2)
    feed.add(Message("was junk", "zebra quagga"))
    feed.add(Message("was a", "alpha beta"))
    feed.later(25)
    feed.add(Feedback("other", "new", text="epsilon zeta"))
    feed.add(Message("is new", "epsilon zeta"))
    records = list(feed.records)
    sent = learner.apply(batch(feed.records))["predictions"]
    predicted = {each.message_id: each for each in (decode_prediction(record.value or b"") for record in sent)}
    assert predicted["was junk"].label == "junk"
    assert set(predicted["was a"].scores) == {"a", "b", "junk"}
    assert predicted["is new"].label == "new"
    assert set(predicted["is new"].scores) == {"a", "b", "new"}
    feed.records.clear()
    feed.add(Feedback("was junk", "new"))
    feed.add(Feedback("was a", "a"))
    feed.add(Feedback("is new", "new"))
    feed.into(learner)
    progress = learner.progress
    assert (progress.labels, progress.correct, progress.unpredicted) == (2, 2, 1), "one was of a label that is gone"
    assert progress.support.tolist() == [1, 0, 1]
    assert progress.predicted.tolist() == [1, 0, 1]
    assert len(records) == 16


def test_a_label_s_figures_go_with_it() -> None:
    feed, learner = Feed(), machine("linear?bits=16&max_labels=3")
    for label, text in (("a", "alpha beta"), ("b", "gamma delta")):
        feed.label(label, text, times=5)
    feed.label("junk", "zebra quagga")
    for number in range(2):
        feed.add(Message(f"x{number}", "zebra quagga"))
    for number in range(2):
        feed.add(Feedback(f"x{number}", "junk"))
    feed.into(learner)
    assert (learner.progress.support[2], learner.progress.confusion[2, 2]) == (2, 2)
    total = learner.progress.labels
    feed.later(25)
    feed.label("new", "epsilon zeta")
    feed.into(learner)
    assert (learner.progress.support[2], learner.progress.confusion[2, 2], learner.progress.labels) == (0, 0, total)
    assert learner.progress.summary(learner.classifier.labels)["by_label"]["new"]["support"] == 0


def test_the_state_comes_back_and_a_damaged_one_is_refused() -> None:
    feed, learner = Feed(), machine()
    for number, times in enumerate((1, 2, 3, 9)):
        feed.label(f"label {number}", f"words {number}", times)
    feed.into(learner)
    state = watched(learner)
    other = Places(4)
    other.load_state(state, 4)
    assert {name: each.tobytes() for name, each in other.state().items()} == {
        name: each.tobytes() for name, each in state.items() if name.startswith("places_")
    }
    assert other.oldest(4, 10**12, None) == 0
    for name, wrong in (("places_sizes", np.full((6, 2), 7)), ("places_kept", state["places_kept"][:-1])):
        with pytest.raises(StateError, match="cannot be read"):
            Places(4).load_state(state | {name: wrong}, 4)
    before = Places(4)
    before.load_state({}, 3)
    assert before.oldest(3, 10**12, None) is None, "an older state does not say how often labels were learned"


# With a log, a journal and checkpoints.


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[SqliteStage]:
    with closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        yield stage


def say(stage: SqliteStage, hours: float, *labels: tuple[str, str]) -> None:
    """Append labels with their texts, at about so many hours."""
    records = []
    for label, text in labels:
        say.number += 1
        value = encode(Feedback(f"m{say.number}", label, text=text))
        records.append(NewRecord(b"m%d" % say.number, value, START_MS + int(hours * HOUR) + say.number))
    stage.log.append("feedback", records)


say.number = 0
OPTIONS: dict[str, Any] = {"free_labels_hours": 2.0, "batch_records": 7}


def flood(stage: SqliteStage, hours: float, n: int = 20) -> None:
    say(stage, hours, *((f"junk {hours} {number}", f"some words {number}") for number in range(n)))


@pytest.mark.parametrize(
    "model", ["blend?bits=12&max_labels=8", "tree?bits=10&max_labels=8&memory_mb=4", "bayes?bits=10&max_labels=8"]
)
def test_every_state_is_proved_and_comes_out_the_same_after_a_crash(
    stage: SqliteStage, tmp_path: Path, model: str
) -> None:
    options = OPTIONS | {"model": model}
    good = [("spam", "win a prize"), ("ham", "see you at home")] * 4
    say(stage, 0, *good)
    flood(stage, 0)
    with stage.learning(**options) as learner:
        steps(learner, learned(learner, 14))
        finish(learner)
    say(stage, 3, *good)
    flood(stage, 3, 3)
    with stage.learning(**options) as learner:  # crashes: the next one replays
        steps(learner, lambda: learner.status("running").counts.places_given == 3)
    say(stage, 5.5, ("honest", "an invoice is due"), *good)
    stage.learn(**options)
    say(stage, 9, ("another", "the meeting is at noon"), *good)
    stage.learn(**options)
    manifest = stage.newest().manifest
    assert manifest.counts.places_given == 5
    assert {"spam", "ham", "honest", "another"} <= set(manifest.labels)
    assert len(manifest.labels) == 8
    proved = stage.command("verify")
    assert proved.exit_code == 0, proved.output
    assert "differs" not in proved.output
    whole = SqliteStage(StreamSettings(data=tmp_path / "whole", log=stage.stream.log_url))
    with closing(whole):
        whole.learn(**(options | {"batch_records": 1000}))
        assert whole.model() == stage.model()
        assert whole.newest().manifest.labels == manifest.labels
        ours, theirs = whole.newest(), stage.newest()
        for one, other in ((ours.drift, theirs.drift), (ours.progress, theirs.progress)):
            assert {name: each.tobytes() for name, each in one.items()} == {
                name: each.tobytes() for name, each in other.items()
            }


def test_a_model_that_is_built_anew_gives_the_same_places(stage: SqliteStage) -> None:
    say(stage, 0, *[("spam", "win a prize"), ("ham", "see you at home")] * 4)
    flood(stage, 0)
    stage.learn(**OPTIONS)
    say(stage, 3, ("honest", "an invoice is due"))
    stage.learn(**OPTIONS)
    before = stage.newest().manifest.labels
    assert stage.command("rebuild", "--exclude", "label=honest").exit_code == 0
    after = stage.newest().manifest.labels
    assert after == [label if label != "honest" else "junk 0 0" for label in before]
    assert stage.command("verify").exit_code == 0


def test_rules_of_before_give_none() -> None:
    known = msgspec.to_builtins(LearnerSettings().rules(StreamSettings(), 1))
    for name in ("free_after_ms", "labels", "sources", "quota_by_name", "corrects_expired"):
        del known[name]
    old = msgspec.convert(known, type(LearnerSettings().rules(StreamSettings(), 1)))
    assert (old.free_after_ms, old.labels, old.sources) == (None, None, ())
    assert (old.quota_by_name, old.corrects_expired) == (True, False)
