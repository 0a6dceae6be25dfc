"""What is to be erased, where does it lie in the log, and what was erased when?

Erased are a message and all labels of it (by its id, or the id of a label), or all that a source sent: its labels with
the texts that they brought, and the messages whose metadata name it as their `source`. With them go the predictions and
dead letters that came of them. Whoever asks writes a request into the data directory; from then on it is done, whatever
is killed, by the one writer (loop/erasing.py).

    erase/01790000000000000000-5f0c2a91.json      a request that is to be done
    erased.jsonl               what was erased when: ids and sources as SHA-256, no text; the newest KEPT

Nothing here deletes anything of the log or of a model. The catalogue of messages (learner/catalogue/) goes whole each
time that something was erased: it is made anew from the log, which has it no longer.
"""

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.disk import durable
from driftline.stream.errors import BadRecord, LogUnavailable, StateError
from driftline.stream.join.window_saved import Unwanted
from driftline.stream.log.base import Chunk, Log, Place, Reader, Remains, TopicPartition
from driftline.stream.log.bounded import Bounded
from driftline.stream.wire.many import decode_feedbacks, decode_messages
from driftline.stream.wire.records import NONE, Feedback, Message, Topics, decode_rejected

REQUESTS: Final = "erase"
DONE: Final = "erased.jsonl"
CATALOGUE: Final = "catalogue"  # the directory of learner/catalogue/
KEPT: Final = 10_000
_NAME: Final = re.compile(r"[0-9]{1,20}-[0-9a-f]{1,16}")
MAX_NAMES: Final = 1_000  # ids and sources in one request
READ_RECORDS: Final = 4096
_TEXT: Final = msgspec.json.Decoder(str)


class _Metadata(msgspec.Struct):
    source: msgspec.Raw = NONE


_SOURCE: Final = msgspec.json.Decoder(_Metadata)
Places = dict[TopicPartition, list[Place]]


class Request(msgspec.Struct, kw_only=True):
    """What is to be erased; it has names, and goes once it is done."""

    at: str
    ids: list[str] = []  # of messages, or of labels
    sources: list[str] = []
    records: dict[str, int] = {}  # by topic, as far as they were found


_REQUEST: Final = msgspec.json.Decoder(Request)


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased: a line of `erased.jsonl`."""

    asked_at: str
    done_at: str
    ids: list[str]  # SHA-256
    sources: list[str]  # SHA-256
    records: dict[str, int]  # by topic
    checkpoint: int  # the first one without it
    remains: list[Remains] = []  # what the log still has, and what takes it
    left: dict[str, dict[str, list[int]]] = {}  # where: topic, partition, offsets
    foreign: bool = False  # models of another library are kept, whose pickles hold what they hold


_ERASED: Final = msgspec.json.Decoder(Erased)


def ask(data: Path, ids: Sequence[str] = (), sources: Sequence[str] = ()) -> Path:
    """Have something erased; return the request, which is there until that is done. Durable. Raises StateError."""
    root = data / REQUESTS
    durable.make_directory(root)
    request = Request(at=_now(), ids=sorted(set(ids)), sources=sorted(set(sources)))
    path = root / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"  # two may ask at once
    durable.AppendFile(path, msgspec.json.encode(request)).close()
    return path


def ask_so(data: Path, name: str, request: Request) -> None:
    """Have something erased that was asked for elsewhere, under the name that it got there. Durable.

    Raises
    ------
    ValueError : that is no request's name; StateError, OSError : it cannot be written.
    """
    path = _path_of(data, name)
    durable.make_directory(path.parent)
    with suppress(FileExistsError):
        durable.AppendFile(path, msgspec.json.encode(request)).close()


def withdraw(data: Path, name: str) -> None:
    """Have a request be done, which another one has carried out. Raises ValueError."""
    durable.remove(_path_of(data, name))


def _path_of(data: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:100]!r} is no request's name")
    return data / REQUESTS / f"{name}.json"


def pending(data: Path) -> list[Path]:
    """Return the requests that are not done, oldest first."""
    return sorted((data / REQUESTS).glob("[0-9]*.json"))


def read(path: Path) -> Request | None:
    """Return a request; None where it is done by now.

    Raises
    ------
    StateError : it is damaged.
    """
    try:
        return _REQUEST.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is no request: {error}; remove it and ask again") from None


class Search:
    """Looks for what is to be erased: among messages and labels, then (`go_on`) among what came of them.

    Each time up to the log's end as it is when this is made, or `go_on` called: both in the log's own thread.

    Parameters
    ----------
    request : what is looked for

    Attributes
    ----------
    places : of the records that were found
    stopped : set by any thread, ends `run`
    """

    def __init__(self, log: Log, topics: Topics, request: Request, max_record_bytes: int) -> None:
        self._topics, self._max_record_bytes = topics, max_record_bytes
        self._ids, self._sources, self._texts = set(request.ids), set(request.sources), set[str]()
        self._words: set[tuple[str, str]] = set()
        self._rejected: set[tuple[str, int, int]] = set()
        names = b"|".join(re.escape(msgspec.json.encode(name)) for name in request.ids + request.sources)
        self._pattern = re.compile(rb'"(?:id|message_id|source)"\s*:\s*(?:' + names + b")") if names else None
        self._readers = [
            (_reader(log, topics.messages), self._of_message),
            (_reader(log, topics.feedback), self._of_feedback),
        ]
        self.places: Places = {}
        self.stopped = False

    def go_on(self, log: Log) -> "Search":
        """Have `run` look through predictions and dead letters: once all that comes of what was found is sent."""
        predictions, dead_letter = self._topics[2:]
        self._readers = [
            (_reader(log, predictions), self._of_prediction),
            (_reader(log, dead_letter), self._of_dead_letter),
        ]
        return self

    @property
    def unwanted(self) -> Unwanted:
        """What windows have to forget."""
        return Unwanted(frozenset(self._ids), frozenset(self._texts), frozenset(self._rejected), frozenset(self._words))

    @property
    def records(self) -> dict[str, int]:
        """How many records were found, by topic."""
        counts: dict[str, int] = {}
        for partition, found in self.places.items():
            counts[partition.topic] = counts.get(partition.topic, 0) + len(found)
        return counts

    @property
    def ends(self) -> dict[TopicPartition, int]:
        """Behind which position of messages and labels a learner must be, to have all of it taken in."""
        return {
            partition: max(place.offset for place in found) + 1
            for partition, found in self.places.items()
            if partition.topic in self._topics[:2]
        }

    def run(self, on_records: Callable[[int], None] = lambda _: None) -> "Search":
        """Read what was not read yet. Any one thread."""
        for reader, find in self._readers:
            with closing(reader):
                while not all(map(reader.at_end, reader.partitions)):
                    if self.stopped:
                        raise LogUnavailable("the learner ends; its next start looks again")
                    for chunk in reader.fetch(READ_RECORDS, 0.05):
                        self._keep(chunk, find(chunk))
                        on_records(len(chunk))
        return self

    def _keep(self, chunk: Chunk, indices: Iterable[int]) -> None:
        found = [Place(int(chunk.offsets[i]), chunk.keys[i], int(chunk.timestamps_ms[i])) for i in indices]
        if found:
            self.places.setdefault(chunk.partition, []).extend(found)
            self._rejected.update((*chunk.partition, place.offset) for place in found)

    def _of_message(self, chunk: Chunk) -> Iterator[int]:
        for i, message in enumerate(decode_messages(chunk.values, chunk.headers, self._max_record_bytes)):
            if isinstance(message, Message):
                if _source_of(message) in self._sources:
                    self._ids.add(message.id)
                if message.id in self._ids:
                    yield i
            elif self._names(chunk, i, message):
                yield i

    def _of_feedback(self, chunk: Chunk) -> Iterator[int]:
        for i, feedback in enumerate(decode_feedbacks(chunk.values, chunk.headers, self._max_record_bytes)):
            if not isinstance(feedback, Feedback):
                if self._names(chunk, i, feedback):
                    yield i
            elif feedback.message_id in self._ids:
                yield i
            elif feedback.id in self._ids or feedback.source in self._sources:
                if feedback.text is not None:
                    self._texts.add(feedback.message_id)
                if feedback.id is not None:
                    self._words.add((feedback.message_id, feedback.id))
                yield i

    def _names(self, chunk: Chunk, i: int, bad: BadRecord | None) -> bool:
        """Tell whether a record that cannot be read, or has no value, names what is to be erased."""
        key, value = chunk.keys[i], chunk.values[i]
        if bad is None:
            return False  # a tombstone: there is nothing in it
        return (key is not None and key.decode(errors="replace") in self._ids) or self._named(value or b"")

    def _named(self, value: bytes) -> bool:
        return self._pattern is not None and self._pattern.search(value) is not None

    def _of_prediction(self, chunk: Chunk) -> Iterator[int]:
        return (
            i
            for i in range(len(chunk))
            if (key := chunk.keys[i]) is not None
            and chunk.values[i] is not None
            and key.decode(errors="replace") in self._ids
        )

    def _of_dead_letter(self, chunk: Chunk) -> Iterator[int]:
        for i in range(len(chunk)):
            try:
                letter = decode_rejected(chunk.values[i] or b"")
            except (msgspec.MsgspecError, ValueError):
                continue
            which = letter.topic, letter.partition, letter.offset
            if which in self._rejected or self._named(letter.value_start.encode()):
                yield i


def _source_of(message: Message) -> str | None:
    """Return the source that a message's metadata name, where it is a text."""
    if not bytes(message.metadata):
        return None
    source = bytes(_SOURCE.decode(message.metadata).source)
    return _TEXT.decode(source) if source[:1] == b'"' else None


def _reader(log: Log, topic: str) -> Reader:
    marks = log.watermarks([topic])
    starts = {partition: mark.low for partition, mark in marks.items()}
    return Bounded(log.reader(starts), starts, {partition: mark.high for partition, mark in marks.items()})


def note(data: Path, erased: Erased, lows: Mapping[TopicPartition, int]) -> None:
    """Add a line to what was erased when; what retention has taken since is no longer left. Durable."""
    _write_done(data, [*(_without(each, lows) for each in read_done(data)), erased])


def take_up(data: Path, erased: Erased) -> None:
    """Have a line of what another one has erased, in the place of the one of the same request. Durable.

    Raises StateError, OSError.
    """
    known = read_done(data)
    if erased not in known:
        others = [each for each in known if name_of(each) != name_of(erased)]
        _write_done(data, sorted([*others, erased], key=lambda each: each.done_at))


def name_of(erased: Erased) -> str:
    """Return what tells a line from others, whatever is left of it by now."""
    what = (erased.asked_at, erased.done_at, erased.ids, erased.sources)
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:32]


def _write_done(data: Path, lines: list[Erased]) -> None:
    lines = lines[-KEPT:]
    path = data / DONE
    durable.replace(path, b"".join(msgspec.json.encode(each) + b"\n" for each in lines))
    durable.settle(path)
    durable.sync_directory(data)
    durable.remove(data / CATALOGUE)


def read_done(data: Path) -> list[Erased]:
    """Return what was erased when, oldest first. Raises StateError."""
    try:
        lines = (data / DONE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        return [_ERASED.decode(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise StateError(f"{data / DONE} is damaged: {error}; put it back from a copy") from None


def left_of(data: Path) -> dict[TopicPartition, set[int]]:
    """Return the offsets that were erased and that the log may still have: no model is to be built from them."""
    found: dict[TopicPartition, set[int]] = {}
    for erased in read_done(data):
        for topic, partitions in erased.left.items():
            for number, offsets in partitions.items():
                found.setdefault(TopicPartition(topic, int(number)), set()).update(offsets)
    return found


def _without(erased: Erased, lows: Mapping[TopicPartition, int]) -> Erased:
    left: dict[str, dict[str, list[int]]] = {}
    for topic, partitions in erased.left.items():
        for number, offsets in partitions.items():
            low = lows.get(TopicPartition(topic, int(number)), 0)
            if kept := [offset for offset in offsets if offset >= low]:
                left.setdefault(topic, {})[number] = kept
    return msgspec.structs.replace(erased, left=left)


def describe(
    request: Request,
    records: dict[str, int],
    batch: int,
    places: Places,
    remains: list[Remains],
    *,
    foreign: bool,
) -> Erased:
    """Return the line of what was done."""
    left: dict[str, dict[str, list[int]]] = {}
    topics = {each.topic for each in remains}
    for (topic, number), found in places.items():
        if topic in topics:
            left.setdefault(topic, {})[str(number)] = [place.offset for place in found]
    return Erased(
        asked_at=request.at,
        done_at=_now(),
        ids=list(map(_hash, request.ids)),
        sources=list(map(_hash, request.sources)),
        records=records,
        checkpoint=batch,
        remains=remains,
        left=left,
        foreign=foreign,
    )


def answers(done: Erased, request: Request) -> bool:
    """Tell whether a line is of a request."""
    return (done.asked_at, done.ids, done.sources) == (
        request.at,
        list(map(_hash, request.ids)),
        list(map(_hash, request.sources)),
    )


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
