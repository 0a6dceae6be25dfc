"""Where an operator says which labels there are no other is taken, by whatever way it comes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.machine.machine import Machine
from driftline.learner.registry import make_classifier
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.label_scheme import nearest, read_scheme
from driftline.stream.wire.records import decode_rejected
from tests.learner.machine.test_machine import Stream, run


def scheme_of(path: Path, content: str | bytes) -> tuple[str, ...]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_scheme(path)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("spam\nham\n", ("spam", "ham")),
        ("\ufeffspam\r\n\r\n  two  words \r\n", ("spam", "two words")),
        ('["spam", "ham, or not"]', ("spam", "ham, or not")),
        (' [ "spam" ] ', ("spam",)),
        ("geschäft\ncafe\u0301", ("geschäft", "caf\u00e9")),
        ("spam, ham", ("spam, ham",)),
    ],
)
def test_a_file_of_labels_is_read(tmp_path: Path, content: str, labels: tuple[str, ...]) -> None:
    assert scheme_of(tmp_path / "labels", content) == labels


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "has no label"),
        (" \n\u200b\n", "has no label"),
        ("[]", "has no label"),
        ("a\nb\na", "label 3: 'a' is 'a' again"),
        ("caf\u00e9\ncafe\u0301", "again; leave one out"),
        ("x" * 257, "at most 256 characters"),
        ("a\0b", "none may be NUL"),
        ('["a"', "begins as a JSON list and is none"),
        ('["a", 5]', "must be a JSON list of texts"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str | bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        scheme_of(tmp_path / "labels", content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels: .*none cannot be read"):
        read_scheme(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_scheme(tmp_path)


@pytest.mark.parametrize(
    ("label", "near"), [("Spam", "spam"), ("biling", "billing"), ("refunds", "refund"), ("?", "spam"), ("", "spam")]
)
def test_the_nearest_label_is_named(label: str, near: str) -> None:
    assert nearest(label, ("spam", "billing", "refund")) == near


def test_no_label_makes_the_search_for_the_nearest_one_long() -> None:
    labels = tuple("ab" * 120 + f"{number:06}" for number in range(100_000))
    seconds = []
    for turn in range(3):
        started = time.process_time()
        nearest("ba" * 120 + str(turn), labels)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 5


def machine(labels: Sequence[str] | None, **options: Any) -> Machine:
    rules = LearnerSettings(**options).rules(StreamSettings(), 1)
    rules = msgspec.structs.replace(rules, labels=None if labels is None else tuple(labels))
    return Machine(rules, make_classifier("linear?bits=10&max_labels=4"), lineage="abc")


def errors(sent: dict[str, list[Any]]) -> list[str]:
    return [decode_rejected(record.value or b"").error for record in sent["dead-letter"]]


def test_a_label_that_is_none_of_them_is_a_dead_letter_and_takes_no_place() -> None:
    stream, learner = Stream(), machine(["spam", "ham"])
    for number in range(10):
        stream.label(f"x{number}", f"junk {number}", text="words")
        stream.label(f"y{number}", ("spam", "ham")[number % 2], text=("win a prize", "see you")[number % 2])
    sent = run(learner, stream.records)
    assert errors(sent) == ["unknown-label"] * 10
    assert (
        "'junk 0' is none of the 2 labels that there are" in decode_rejected(sent["dead-letter"][0].value or b"").detail
    )
    assert learner.classifier.labels == ["spam", "ham"]
    assert learner.counts.rejected_by == {"unknown-label": 10}


def test_a_label_that_was_learned_before_it_was_none_is_learned_no_more() -> None:
    """By the kernel, which takes labels that are known, as by the rules in Python."""
    stream, learner = Stream(), machine(None)
    for label in ("spam", "junk"):
        stream.label(f"first {label}", label, text=f"words of {label}")
    for number in range(20):
        stream.message(f"m{number}", "words")
    stream.label("waits", "junk")
    run(learner, stream.records)
    learner.obey(msgspec.structs.replace(learner.rules, labels=("spam",)))
    stream.records.clear()
    for number in range(20):
        stream.label(f"m{number}", ("spam", "junk")[number % 2])
    stream.message("waits", "words")
    sent = run(learner, stream.records)
    assert errors(sent) == ["unknown-label"] * 11
    assert learner.counts.labels_learned == 2 + 10
    learner.obey(msgspec.structs.replace(learner.rules, labels=None))
    stream.records.clear()
    stream.label("m1", "junk")
    assert errors(run(learner, stream.records)) == []
    assert learner.counts.labels_learned == 13


def test_what_takes_a_label_back_is_taken_whatever_it_names() -> None:
    stream, learner = Stream(), machine(["spam"])
    stream.label("waits", "spam")
    stream.label("waits", "no such", op="retract")
    assert errors(run(learner, stream.records)) == []
    assert learner.join.counts.retracted == 1


def test_the_options_go_into_the_rules_and_have_to_fit(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text("spam\nham\n")
    stream = StreamSettings(labels=path)
    assert LearnerSettings(expire_as="ham").rules(stream, 1).labels == ("spam", "ham")
    with pytest.raises(ConfigError, match="expire_as: 'other' is none of the labels in"):
        LearnerSettings(expire_as="other").rules(stream, 1)
    path.write_text("another\n")
    assert LearnerSettings().rules(stream, 1).labels == ("spam", "ham"), "it is read once"
    rules = LearnerSettings(sources=["bob/x", "alice", "bob"], source_quota="5/s").rules(StreamSettings(), 1)
    assert rules.sources == ("alice", "bob")
    for codec in (msgspec.json, msgspec.msgpack):
        whole = msgspec.structs.replace(rules, labels=("a", "b"), free_after_ms=5)
        assert codec.decode(codec.encode(whole), type=type(whole)) == whole
