"""Labels that look the same are one, wherever they come in."""

import json
import unicodedata
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.cli.commands.rebuild import _left_out
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.explain.explain import UnknownLabel
from driftline.learner.loop.loop import Learner
from driftline.learner.registry import make_classifier
from driftline.stream.decode.scan import LABEL, N_FIELDS, ODD, scan
from driftline.stream.errors import BadRecord
from driftline.stream.files.reader import LabelledTexts
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.column import Column
from driftline.stream.wire.many import decode_feedbacks
from driftline.stream.wire.names import _composed, same_name
from driftline.stream.wire.records import LABELLED, READING, Feedback, Message, decode_feedback, encode
from tests.stream.join.test_scan import decoded

ONE = "l\u00e9gal avis"
FORMS = [
    "l\u00e9gal avis",
    "le\u0301gal avis",
    " l\u00e9gal avis\t",
    "l\u00e9gal\u00a0 avis",
    "\ufeffl\u00e9gal avis\u200b",
    "l\u200be\u2060\u0301gal avis",
    "le\u0301g\u00adal avis\u200e",
    "l\u200d\u00e9gal avis",
]
STAY = [
    *("m\u00b2", "\ufb01", "Spam", "a b", "\u5783\u573e", "\uc2a4\ud338", "\u0441\u043f\u0430\u043c"),
    *("\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f469\u200d\U0001f4bb"),
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
]


@pytest.mark.parametrize("form", FORMS)
def test_names_that_look_the_same_are_one(form: str) -> None:
    assert same_name(form) == ONE


@pytest.mark.parametrize("name", STAY)
def test_names_that_look_different_stay(name: str) -> None:
    assert same_name(name) == name


@given(st.text(max_size=20))
def test_a_name_has_one_form(name: str) -> None:
    form = same_name(name)
    assert same_name(form) == form
    assert form == form.strip()
    assert unicodedata.is_normalized("NFC", form)
    if name.isprintable():
        assert same_name(unicodedata.normalize("NFD", name)) == form


@pytest.mark.parametrize("label", [" ", "\u00a0\t", "\u200b", "\ufeff\u200d "])
def test_a_label_of_which_nothing_is_seen_is_refused(label: str) -> None:
    value = encode(Feedback("m", label))
    with pytest.raises(BadRecord, match="label is empty"):
        decode_feedback(value)
    for found in (
        decode_feedbacks([value], None),
        decode_feedbacks([value] * 20, None),
        decoded([value], messages=False),
    ):
        assert all(isinstance(each, BadRecord) for each in found)


LABELS = st.sampled_from([*FORMS, *STAY, "spam", " spam", "a  b"]) | st.text(st.characters(codec="utf-8"), max_size=6)


@given(st.lists(st.tuples(LABELS, st.none() | LABELS), max_size=40))
def test_every_way_to_read_a_label_gives_the_one_form(rows: list[tuple[str, str | None]]) -> None:
    values = [encode(Feedback("m", label, source=source)) for label, source in rows]
    for read in (decode_feedbacks(values, None), decoded(values, messages=False)):
        for found, (label, source) in zip(read, rows, strict=True):
            if isinstance(found, Feedback):
                assert found.label == same_name(label)
                assert found.source == ((same_name(source) or None) if source else source)
            else:
                assert not same_name(label) or "\0" in label


def test_a_replay_of_before_reads_names_as_they_are_written() -> None:
    values = [encode(Feedback("m", form)) for form in FORMS] * 3
    found = decode_feedbacks(values, None, as_written=True)
    assert [each.label for each in found if isinstance(each, Feedback)] == FORMS * 3
    useless = [encode(Feedback("m", "")), encode(Feedback("", "spam")), encode(Feedback("m", "spam", weight=-1.0))]
    assert [type(each) for each in decode_feedbacks(useless * 3, None, as_written=True)] == [BadRecord] * 9


def test_a_learner_learns_one_label(tmp_path: Path) -> None:
    """And one that comes again in another form is repeated, not corrected."""
    stream = StreamSettings(data=tmp_path)
    log = open_log(stream)
    log.create_topics(stream.topics)
    for number, form in enumerate(FORMS):
        message = Message(f"m{number}", "avis important")
        log.append("messages", [NewRecord(message.id.encode(), encode(message))])
        log.append("feedback", [NewRecord(message.id.encode(), encode(Feedback(message.id, form)))])
        log.append("feedback", [NewRecord(message.id.encode(), encode(Feedback(message.id, ONE)))])
    learner = Learner(stream, LearnerSettings(model="linear?bits=8&max_labels=4", expire_as=" expire\u0301 "), log)
    learner.start()
    learner.run(lambda: False, log.watermarks(stream.topics[:2]))
    machine = learner._work.machine
    assert machine.classifier.labels == [ONE]
    assert machine.rules.expire_as == "expir\u00e9"
    assert (machine.counts.labels_learned, machine.join.counts.repeated, machine.join.counts.corrected) == (8, 8, 0)
    learner.close()
    log.close()


def test_a_file_a_command_and_a_question_name_one_label(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "avis", "label": form}) + "\n" for form in [*FORMS, " "]))
    assert [row.label for row in LabelledTexts(path)] == [ONE] * len(FORMS) + [None]
    left_out = _left_out(None, [f"label={FORMS[1]}", f"source={FORMS[2]}", "id= a"])
    assert (left_out.labels, left_out.sources, left_out.ids) == ([ONE], [ONE], [" a"])
    classifier = make_classifier("linear?bits=8&max_labels=4")
    classifier.learn_many(["avis", "menu"], [ONE, "other"])
    assert list(classifier.explain_one("avis", [FORMS[1]]).bias) == [ONE]
    with pytest.raises(UnknownLabel):
        classifier.explain_one("avis", ["menu"])


def test_rules_of_before_take_names_as_they_are() -> None:
    rules = LearnerSettings().rules(StreamSettings(), 1)
    assert rules.one_form
    kept = msgspec.to_builtins(rules)
    del kept["one_form"], kept["reading"]
    before = msgspec.convert(kept, type(rules))
    assert not before.one_form
    assert before.reading == LABELLED < READING == rules.reading


def test_a_batch_of_plain_labels_is_read_at_once() -> None:
    """No label of it is odd: the scan reads letters with marks, Cyrillic and ideographs itself."""

    def kinds(labels: list[str]) -> list[int]:
        values = Column.of([encode(Feedback("m", label)) for label in labels])
        found = np.empty(len(labels), np.int8)
        scan(values.data, values.starts, False, 1 << 20, np.empty((len(labels), N_FIELDS), np.int64), found)
        return found.tolist()

    assert set(kinds(["spam", "l\u00e9gal avis", "\u0441\u043f\u0430\u043c", "\u5783\u573e"])) == {LABEL}
    assert set(kinds([" spam", "spam ", "a  b", "le\u0301gal", "sp\u200bam", "a\u00a0b"])) == {ODD}


@given(
    st.text(
        st.sampled_from("ae\u0301\u0316\u0345\u0f73\u0f75\u0344\u1100\u1161\u212b\u0338\u1dce\ufb2c\u2adc"),
        min_size=300,
        max_size=400,
    )
)
def test_a_long_name_is_put_together_as_unicode_says(name: str) -> None:
    assert _composed(name) == unicodedata.normalize("NFC", name)


def test_marks_out_of_order_are_sorted_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself moves each mark past all before it: of a megabyte, some 10**11 steps."""
    seen: list[bool] = []
    compose = unicodedata.normalize

    def watched(form: str, name: str) -> str:
        seen.append(len(name) < 300 or any(unicodedata.is_normalized(each, name) for each in ("NFC", "NFD")))
        return compose(form, name)  # type: ignore[arg-type]

    monkeypatch.setattr("driftline.stream.wire.names.unicodedata.normalize", watched)
    assert same_name("a" + "\u0301\u0316" * 5000) == "\u00e1" + "\u0316" * 5000 + "\u0301" * 4999
    assert all(seen), "what is long is in order before it is put together"
    source = "\u0301\u0316" * 200_000
    assert decode_feedback(encode(Feedback("m", "a", source=source)), None, 1 << 21).source == source
