"""What stands in a journal that lies in the log?

One topic of one partition (`journal`), whose order is the order for all. A record's value is msgpack, of one of the
kinds below; one that is too large for a record is cut into pieces. Which of them count is decided by the order alone
(cluster/order.py). A kind that this version does not know is stepped over.

A `Batch` also has what was learned in it, so that who only answers (API replicas) needs neither the messages nor the
join: the texts with their labels, in the order in which they were learned. Kafka packs the records (zstd).
"""

import secrets
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import msgspec
import numpy as np

from driftline.learner.disk.settings import Rules
from driftline.learner.machine.plan import Plan
from driftline.learner.models.classifier import Classifier
from driftline.stream.errors import StateError
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.merge import Span
from driftline.stream.texts import PADDING, Texts
from driftline.stream.wire.records import Topics

PIECE_BYTES: Final = 512 << 10  # of a record's value, at most, beside a few bytes of its own
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_TopicNumber = Annotated[int, msgspec.Meta(ge=0, le=1)]  # messages, feedback


class GivenPlace(msgspec.Struct, array_like=True, frozen=True):
    """A label that gave its place to the next one: its column, and what it was learned with."""

    column: _Natural
    imprints: list[bytes]  # uint32, each: Classifier.imprint
    label: str  # that has it now


class Lesson(msgspec.Struct, array_like=True, frozen=True):
    """What was learned, in its order."""

    texts: bytes  # UTF-8, one behind the other
    sizes: bytes  # uint32 little endian, the bytes of each
    targets: bytes  # int32 little endian, the column of each text's label
    weights: bytes  # float32 little endian; empty: all 1
    labels: list[str]  # that are new, in the order of their columns
    place: GivenPlace | None = None  # what was done once these were learned


class Claim(msgspec.Struct, tag="claim", array_like=True, frozen=True):
    """I lead from here on: what follows of a lower epoch counts for nobody."""

    epoch: _Natural
    holder: str
    lineage: str  # of the models of what is learned from here on
    rules: Rules  # by which it is learned


class Batch(msgspec.Struct, tag="batch", array_like=True, frozen=True):
    """A batch of records was taken."""

    epoch: _Natural
    batch: _Natural
    delivered: _Natural  # the last batch up to which all output is durable in the log
    spans: list[
        tuple[_TopicNumber, _Natural, _Natural, _Natural, _Natural | None]
    ]  # topic's number, partition, start, end, records
    updates: _Natural  # how much was learned up to here, as the version counts it
    labels_learned: _Natural
    lessons: list[Lesson]

    def spans_of(self, topics: Topics) -> list[Span]:
        """Return the spans."""
        return [
            Span(TopicPartition(topics[number], partition), start, end, records)
            for number, partition, start, end, records in self.spans
        ]


class Mark(msgspec.Struct, tag="mark", array_like=True, frozen=True):
    """A checkpoint was copied here: a digest of this model follows. Whoever has one may take his own now."""

    epoch: _Natural
    batch: _Natural


class Digest(msgspec.Struct, tag="digest", array_like=True, frozen=True):
    """What the model's file is at a mark: who has another one has another model."""

    epoch: _Natural
    batch: _Natural
    sha256: str


class Gate(msgspec.Struct, tag="gate", array_like=True, frozen=True):
    """Whether the newest model is good enough to be served, from here on: why it is not, or nothing."""

    epoch: _Natural
    batch: _Natural
    why: str


class Restart(msgspec.Struct, tag="restart", array_like=True, frozen=True):
    """Go on from a checkpoint in the store: what stands in it does not follow from what stands before here."""

    epoch: _Natural
    batch: _Natural
    why: str


class HandOver(msgspec.Struct, tag="hand-over", array_like=True, frozen=True):
    """Let this one lead. Anybody may say so."""

    holder: str


class Piece(msgspec.Struct, tag="piece", array_like=True, frozen=True):
    """A part of an entry that is too large for one record."""

    entry: _Natural  # another number each time that one is written
    number: _Natural
    of: _Natural
    content: bytes


Entry = Claim | Batch | Mark | Digest | Gate | Restart | HandOver
_decode_any: Final = msgspec.msgpack.Decoder(Entry | Piece).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def encode(entry: Entry) -> list[bytes]:
    """Return the values of the records that say this, in their order."""
    encoded = _encode(entry)
    if len(encoded) <= PIECE_BYTES:
        return [encoded]
    parts = [encoded[at : at + PIECE_BYTES] for at in range(0, len(encoded), PIECE_BYTES)]
    name = secrets.randbits(63)
    return [_encode(Piece(name, number, len(parts), part)) for number, part in enumerate(parts)]


def decode(value: bytes | None) -> Entry | Piece | None:
    """Return what a record says; None where this version cannot read it."""
    try:
        found: Entry | Piece = _decode_any(value or b"")
    except (msgspec.DecodeError, RecursionError):
        return None
    return found


def lessons(plan: Plan) -> list[Lesson]:
    """Return what is learned of a batch, once all of it is planned."""
    return [lesson for part in (*plan.parts, plan) if (lesson := _lesson(part)) is not None]


def _lesson(part: Plan) -> Lesson | None:
    learned = np.flatnonzero(part.steps.targets >= 0)
    new, place = part.labels[part.growth[0][1] :], part.given
    if not len(learned) and not new and place is None:
        return None
    texts, weights = Texts.of(part.texts), part.steps.weights[learned]
    starts, sizes = texts.starts[:-1][learned], np.diff(texts.starts)[learned]
    gathered = Texts.gathered(texts.codes, starts, sizes)
    return Lesson(
        texts=gathered.codes[: gathered.starts[-1]].tobytes(),
        sizes=sizes.astype("<u4").tobytes(),
        targets=part.steps.targets[learned].astype("<i4").tobytes(),
        weights=b"" if (weights == 1).all() else weights.astype("<f4").tobytes(),
        labels=new,
        place=place
        and GivenPlace(place.column, [each.astype("<u4").tobytes() for each in place.imprints], place.label),
    )


def teach(classifier: Classifier, lessons: Sequence[Lesson]) -> Iterator[int]:
    """Have a classifier learn what another one did; give after each lesson how many texts that were.

    A classifier of the same state has the same state again then, byte for byte.

    Raises
    ------
    StateError : it is no lesson for this classifier; TooManyLabels.
    """
    for lesson in lessons:
        for label in lesson.labels:
            classifier.label_index(label)
        _check(lesson, len(classifier.labels))
        targets = np.frombuffer(lesson.targets, "<i4").astype(np.int32)
        if n := len(targets):
            weights = (
                np.frombuffer(lesson.weights, "<f4").astype(np.float32) if lesson.weights else np.ones(n, np.float32)
            )
            classifier.score_and_learn(_texts(lesson), targets, weights)
        if (place := lesson.place) is not None:
            classifier.clear(place.column, [np.frombuffer(each, "<u4").astype(np.uint32) for each in place.imprints])
            classifier.rename(place.column, place.label)
        yield n


def _check(lesson: Lesson, n_labels: int) -> None:
    """Refuse what a kernel must not be given: it looks at no bound. Raises StateError."""
    n, place = len(lesson.targets) // 4, lesson.place
    fits = len(lesson.targets) == len(lesson.sizes) == 4 * n and len(lesson.weights) in {0, 4 * n}
    if fits:
        targets, sizes = np.frombuffer(lesson.targets, "<i4"), np.frombuffer(lesson.sizes, "<u4")
        fits = int(sizes.sum(dtype=np.int64)) == len(lesson.texts)
        fits = fits and (n == 0 or bool(targets.min() >= 0 and targets.max() < n_labels))
    if place is not None:
        fits = fits and place.column < n_labels and not any(len(each) % 4 for each in place.imprints)
    if not fits:
        raise StateError(f"an entry of the journal teaches what no model of {n_labels} labels can learn; it is damaged")


def _texts(lesson: Lesson) -> Texts:
    starts = np.zeros(len(lesson.sizes) // 4 + 1, np.int64)
    np.cumsum(np.frombuffer(lesson.sizes, "<u4"), out=starts[1:])
    return Texts(np.frombuffer(lesson.texts + bytes(PADDING), np.uint8), starts)
