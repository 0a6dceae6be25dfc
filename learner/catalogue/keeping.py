"""How does the catalogue come to have what the log has, and cost nothing while nobody looks?

A thread reads the log once somebody asks, and for LINGER_S after the last question; then it lets go of the log. It is a
nice batch job, takes STEP_RECORDS at a time, and rests a little between two steps, so whoever wants a prediction waits
for none of it. Of several processes one does it at a time, under a lock on a file; the others read what it has written.

It begins at most `limit` messages back, and goes on behind what it had. What the log has dropped is dropped here. A
file that is damaged, or of another log, is made anew. While the disk is full, or the log away, it says so and tries
again; nothing else depends on it.

    catalogue.lock      held by the process that reads
    catalogue/          see file.py
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final, NamedTuple

import msgspec

from driftline.learner.catalogue import file
from driftline.learner.catalogue.file import FORMAT, Damaged, Unusable
from driftline.learner.catalogue.taking import Taker
from driftline.learner.disk.lock import alone
from driftline.learner.loop.background import in_background
from driftline.learner.rebuild.erase import left_of
from driftline.stream.errors import DriftlineError, OffsetsLost, StateError
from driftline.stream.limits import ClockRule
from driftline.stream.log.base import Log, TopicPartition, TopicState, Watermarks
from driftline.stream.log.merge import Merger
from driftline.stream.log.open import open_to_keep
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

LOCK: Final = "catalogue.lock"
STEP_RECORDS: Final = 1024
REST_S: Final = 0.002  # between two steps
SLICES_S: Final = (0.01, 0.05)  # of waiting for records: just after a question, and else
SOON_S: Final = 1.0
LOOK_S: Final = 2.0  # between two looks at what topics there are, and what they have dropped
NEAR_RECORDS: Final = 10_000  # so far behind it is still told as ready: on a busy stream it is never at the end
TELL_S: Final = 0.2  # between two times that it is noted how far it is, at most
LINGER_S: Final = 15.0  # a page that asks every few seconds keeps it going
RETRY_S: Final = 1.0
CLOSE_S: Final = 3.0  # a log that does not answer may hold up the thread for longer: it ends with the process
CLOCK_RULE: Final = ClockRule(max_jump_ms=24 * 3_600_000)  # as the learner's by default: for the order of records
HELD: Final = "another process reads the log for it"
_LOG: Final = logging.getLogger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """How far it is.

    Attributes
    ----------
    ready : whether it had all that the log had at the last look
    indexed : messages that it holds
    behind : records that it has not read
    oldest_ms : when the oldest message came
    limit : messages that it holds at most
    looked_ms : when it had all (this machine's clock); what was appended before is in it
    problem : why it gets no further
    """

    ready: bool = False
    indexed: int = 0
    behind: int = 0
    oldest_ms: int | None = None
    limit: int = 0
    looked_ms: int = 0
    problem: str | None = None


PROGRESS: Final = msgspec.json.Decoder(Progress)


class _Topic(NamedTuple):
    name: str
    state: TopicState


class Keeper:
    """Keeps one data directory's catalogue. `ask` may be called by any thread.

    Parameters
    ----------
    limit : messages that it holds at most

    Attributes
    ----------
    problem : why this process gets no further, None where it does or another one is at it
    progress : how far it is, where this process reads the log; None where it does not
    """

    def __init__(self, stream: StreamSettings, limit: int) -> None:
        self.problem: str | None = None
        self.progress: Progress | None = None
        self._stream, self._limit = stream, limit
        self._asked = -LINGER_S
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ask(self) -> None:
        """Have it catch up, now and for a while."""
        self._asked = time.monotonic()
        self._wake.set()
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                self._thread = threads.start("catalogue", self._run)

    def close(self) -> None:
        """Let go of everything."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def catch_up(self, on_progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Return once all is in it that the log has now. In the caller's thread.

        Raises
        ------
        DriftlineError : it cannot be done.
        """
        began_ms, tries = _now_ms(), 0

        def is_enough(progress: Progress) -> bool:
            on_progress(progress)
            return progress.looked_ms >= began_ms

        while True:
            try:
                with self._alone() as held:
                    if held:
                        self._keep(is_enough)
                        return
            except Damaged as error:
                tries += 1
                self._begin_anew(error)
                if tries > 3:
                    raise
            except OffsetsLost:
                tries += 1
                if tries > 3:
                    raise
            else:
                progress = told(self._stream)
                on_progress(progress)
                if progress.looked_ms >= began_ms:
                    return
                time.sleep(TELL_S)

    @property
    def _is_wanted(self) -> bool:
        return time.monotonic() - self._asked < LINGER_S and not self._closing.is_set()

    def _run(self) -> None:
        with in_background():
            while not self._closing.is_set():
                self._wake.wait()
                self._wake.clear()
                while self._is_wanted:
                    self._try()

    def _try(self) -> None:
        try:
            with self._alone() as held:
                if held:
                    try:
                        self._keep(lambda _: not self._is_wanted)
                    finally:
                        self.progress = None
                    return
            self.problem = None
            self._closing.wait(TELL_S)
        except Damaged as error:
            self._begin_anew(error)
            self._closing.wait(TELL_S)
        except OffsetsLost:  # the log has dropped what came next: what is left is read
            pass
        except Exception as error:  # noqa: BLE001, RUF100  (all else goes on without it)
            problem = str(error) or repr(error)
            if problem != self.problem:
                _LOG.warning("catalogue: %s; trying again", problem)
            self.problem = problem
            self._closing.wait(RETRY_S)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Give whether this process is the one that reads, to the end of the block."""
        with ExitStack() as stack:
            self._stream.data.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(alone(self._stream.data / LOCK, HELD))
            except StateError as error:
                if str(error) != HELD:
                    raise
                yield False
                return
            yield True

    def _begin_anew(self, error: Exception) -> None:
        path = file.newest(self._stream.data)
        if path is not None:
            _LOG.warning("the catalogue is made anew: %s", error)
            file.remove(path)

    def _keep(self, is_enough: Callable[[Progress], object]) -> None:
        """Read the log until it is enough: asked after each step."""
        stream = self._stream
        path = file.newest(stream.data) or file.make(stream.data)
        with ExitStack() as opened:
            taker = opened.enter_context(
                closing(Taker(path, stream.topics, self._limit, stream.max_record_bytes, left_of(stream.data)))
            )
            if taker.meta.get("format") != FORMAT:
                raise Damaged(f"{path}: it is of another version")
            log = opened.enter_context(closing(open_to_keep(stream)))
            enough = False
            while not enough:
                enough = self._read(log, taker, is_enough)

    def _read(self, log: Log, taker: Taker, is_enough: Callable[[Progress], object]) -> bool:
        """Read until it is enough (True), or there are other topics than there were."""
        topics = _topics(log, self._stream)
        _check_origin(taker, topics, self._stream.log_shown)
        positions = _positions(taker, topics, self._limit, self._stream)
        taker.note_positions(positions)
        by_topic: dict[str, dict[TopicPartition, int]] = {}
        for partition, position in positions.items():
            by_topic.setdefault(partition.topic, {})[partition] = position
        with ExitStack() as opened:
            readers = [opened.enter_context(closing(log.reader(by_topic[topic.name]))) for topic in topics]
            merger = Merger(readers, positions, {}, CLOCK_RULE)
            looked = time.monotonic()
            _drop(taker, {name: mark.low for name, mark in _marks(topics).items()})
            ends = {name: mark.high for name, mark in _marks(topics).items()}
            told_at, progress = 0.0, PROGRESS.decode(taker.meta.get("progress", "{}"))
            while True:
                if time.monotonic() - looked >= LOOK_S:
                    now = _topics(log, self._stream)
                    if _shape(now) != _shape(topics):
                        return False
                    marks = _marks(now)
                    ends = {name: mark.high for name, mark in marks.items()}
                    _drop(taker, {name: mark.low for name, mark in marks.items()})
                    looked = time.monotonic()
                began_ms = _now_ms()
                batch = merger.take(STEP_RECORDS, SLICES_S[time.monotonic() - self._asked > SOON_S])
                if not taker.path.exists():
                    raise Damaged(f"{taker.path} was deleted")
                positions = merger.positions
                if len(batch):
                    taker.take(batch, positions)
                has_all = not len(batch) and merger.at_end
                behind = 0 if has_all else sum(max(0, end - positions[name]) for name, end in ends.items())
                before, progress = (
                    progress,
                    Progress(
                        ready=has_all or (progress.ready and behind <= NEAR_RECORDS),
                        indexed=taker.count,
                        behind=behind,
                        limit=self._limit,
                        looked_ms=began_ms if has_all else progress.looked_ms,
                    ),
                )
                enough = is_enough(progress)
                if enough or progress.ready != before.ready or time.monotonic() - told_at >= TELL_S:
                    taker.note("progress", msgspec.json.encode(progress).decode())
                    told_at = time.monotonic()
                self.problem, self.progress = None, progress
                if enough:
                    return True
                if len(batch):
                    time.sleep(REST_S)


def _shape(topics: list[_Topic]) -> list[object]:
    return [(name, state.identity, *state.watermarks) for name, state in topics]


def _drop(taker: Taker, lows: dict[TopicPartition, int]) -> None:
    """Drop what the log has no longer; what takes long goes on at the next look."""
    began = time.monotonic()
    while taker.drop_before(lows) and time.monotonic() - began < LOOK_S / 2:
        time.sleep(REST_S)


def told(stream: StreamSettings) -> Progress:
    """Return how far the catalogue is, whoever reads the log for it; none where there is none."""
    path = file.newest(stream.data)
    if path is None:
        return Progress()
    try:
        with file.explained(path), closing(file.connect(path, read_only=True)) as db:
            return PROGRESS.decode(file.meta(db).get("progress", "{}"))
    except (Damaged, Unusable, msgspec.MsgspecError):
        return Progress()


def _topics(log: Log, stream: StreamSettings) -> list[_Topic]:
    """Return those that are there, in the order in which they are to be read: what comes of a message before it.

    Raises DriftlineError where messages or labels have none.
    """
    messages, feedback, predictions, _ = stream.topics
    found = log.describe([predictions, feedback, messages])
    if missing := [name for name in (messages, feedback) if name not in found]:
        raise DriftlineError(f"topic {missing[0]} is not there; start the learner or the API, which makes it")
    return [_Topic(name, found[name]) for name in (predictions, feedback, messages) if name in found]


def _marks(topics: list[_Topic]) -> dict[TopicPartition, Watermarks]:
    return {TopicPartition(name, number): mark for name, state in topics for number, mark in state.watermarks.items()}


def _check_origin(taker: Taker, topics: list[_Topic], log: str) -> None:
    """Raise Damaged where the file is of another log."""
    for name, state in topics:
        key, identity = f"topic {name}", state.identity or log
        known = taker.meta.get(key)
        if known is None:
            taker.note(key, identity)
        elif known != identity:
            raise Damaged(f"{taker.path}: it is of another log: topic {name} is a new one")


def _positions(taker: Taker, topics: list[_Topic], limit: int, stream: StreamSettings) -> dict[TopicPartition, int]:
    """Return from where on each partition is to be read. Raises Damaged where the log ends before."""
    marks, positions = _marks(topics), dict[TopicPartition, int]()
    waiting = {
        name: mark.high - mark.low
        for name, mark in marks.items()
        if name.topic == stream.topics.messages and name not in taker.positions
    }
    share = min(1.0, limit / max(1, sum(waiting.values())))
    for name, mark in marks.items():
        known = taker.positions.get(name)
        if known is None:
            known = mark.high - int(waiting[name] * share) if name in waiting else mark.low
        if known > mark.high:
            raise Damaged(f"{taker.path}: {name} ends at {mark.high}, and was read up to {known}")
        positions[name] = max(known, mark.low)
    return positions


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
