"""How does an API get, on a machine of its own, the model that a learner elsewhere learns?

A follower runs beside it. It has a data directory of its own, and puts the model there as a learner does: so the API
reads it as ever.

    1. begin with the newest checkpoint in the store that the journal in the log goes on from      (bases.py)
    2. learn what the journal says was learned, compare digests with the leader's                  (following.py)
    3. publish, at most so often; not what has learned less than what is shown, nor what the leader holds back
    4. say how far behind that is                                                                  (lag.py)

Where what is here leads no further it begins again with 1; what was published before is served meanwhile. So does one
that cannot keep up: it leaves out what a newer checkpoint has. One whose model comes out differently twice in a row
does not learn any more until another one leads: its processor computes other bytes. It goes from checkpoint to
checkpoint. A store or a log that is away is waited for.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Final, Protocol

from llvmlite import binding

from driftline.learner.cluster.base import Place
from driftline.learner.cluster.order import Order
from driftline.learner.disk import lock as locks
from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.disk.full import DiskRoom
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.follow.bases import DIRECTORY, Bases
from driftline.learner.follow.following import Differs, Following, NewBase, OtherLeader
from driftline.learner.follow.journal_reader import JournalReader
from driftline.learner.follow.lag import Behind, Lag
from driftline.learner.follow.model import FollowedModel
from driftline.learner.follow.untaken import Untaken
from driftline.learner.models.classifier import State as ModelState
from driftline.learner.quality.figures import GateReport
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.starting import Doing, Start, telling
from driftline.learner.report.status import State, Status, change_status, last_status
from driftline.learner.serving import snapshot
from driftline.learner.serving.double_buffer import Reader
from driftline.learner.serving.publishing import Publishing
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import (
    BeginAnew,
    ConfigError,
    DiskFull,
    LogError,
    OffsetsLost,
    Overtaken,
    StateError,
    StoreError,
)
from driftline.stream.log.base import Log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

TURN_S: Final = 0.05
SAY_S: Final = 0.5
RETRY_S: Final = 1.0
STORE_S: Final = 2.0  # between two looks for a newer checkpoint
NEAR_S: Final = 1.0  # behind by less than that it has caught up
SLOW_S: Final = 10.0  # so far behind, and no nearer after so long: it cannot keep up
NEARER: Final = 0.9  # of how far it was: less than that is nearer
ROW: Final = 2  # so many models in a row that came out differently are no accident
_LOG: Final = logging.getLogger(__name__)


class Beside(Protocol):
    """What else comes from the leader: its figures, its history, what is chosen to be served."""

    @property
    def behind(self) -> str:
        """Why what is here is not up to date; "" where it is. An API is not ready until then."""

    def turn(self) -> None:
        """Take in what came, without waiting for more."""

    def complete(self, status: Status) -> None:
        """Put what the leader says of itself into the status here."""


class Nothing:
    """Nothing else comes."""

    behind = ""

    def turn(self) -> None:
        """Do nothing."""

    def complete(self, status: Status) -> None:
        """Leave it as it is."""


class Follower:
    """A model that follows another one, and is published here. `run` once, then `close`; one thread.

    Parameters
    ----------
    stream : the data directory, of which this is the only writer; whose journal
    log : where the journal lies; closed by who opened it
    store : of checkpoints
    lock : on the data directory, announced
    interval_s : between two versions, at least
    stopped : whether it is time to end
    beside : what else comes from the leader

    Attributes
    ----------
    shown : the last status
    """

    def __init__(
        self,
        stream: StreamSettings,
        log: Log,
        store: CheckpointStore,
        lock: Lock,
        interval_s: float,
        stopped: Callable[[], bool],
        beside: Beside | None = None,
    ) -> None:
        self._stream, self._log, self._store, self._lock, self._stopped = stream, log, store, lock, stopped
        self._beside = beside or Nothing()
        self._bases = Bases(stream.data / DIRECTORY, store)
        self._lag = Lag(log, (stream.journal_name, *stream.topics[:2]))
        self._untaken = Untaken(stream.topics[:2])
        self.shown = last_status(stream.data, DEFAULT_MODEL)
        self._report = self._begin_report(self.shown.following)
        self._shown_offsets = shown_offsets(stream)
        room = DiskRoom(stream.data, stopped, lambda why: self._say("paused", why), self._check)
        root = stream.data / "snapshots"
        self._publishing = Publishing(root, lock.last_epoch(), interval_s, room, self._check)
        self._room = room
        self._following: Following | None = None
        self._journal: str | None = None  # the identity of its topic
        self._above = 0, 0  # what the next base has to be at least
        self._in_a_row = 0  # digests that differed
        self._slow: tuple[float, float] | None = None  # since when it is far behind, and how far it was then
        self._next_say = self._next_look = self._next_store = 0.0
        self._lag.start()

    def run(self) -> None:
        """Follow until it is time to end.

        Raises
        ------
        DriftlineError : it cannot go on, and why.
        """
        while not self._stopped():
            try:
                self._follow()
            except BeginAnew as error:
                self._begin_anew(error)
            except OffsetsLost as error:
                _LOG.warning("%s; going on from the newest checkpoint", error)
                self._rest("recovering", str(error))
            except (LogError, StoreError) as error:
                if str(error) != self.shown.detail:
                    _LOG.warning("%s; trying again", error)
                self._rest("waiting", str(error))

    def close(self) -> None:
        """Make what was published last beyond this boot, and give everything back."""
        self._lag.close()
        with suppress(StateError):  # what was put there by who has the directory now
            self._check()
            self._publishing.close()

    # 1. With what it begins.

    def _follow(self) -> None:
        place = self._place()
        if place is None:
            why = self._lag.problem
            self._rest("waiting", why or "no learner has begun a journal yet (driftline learn --journal log)")
            return
        if place.identity != self._journal:
            self._journal, self._above = place.identity, (0, 0)
        self._following = None  # there is never more than one model in memory
        model = self._take(place)
        if model is None:
            self._rest("waiting", f"for the first checkpoint of the journal in {self._store.where}")
            return
        mark = model.manifest.journal
        assert mark is not None, "it belongs to the journal"
        order = Order(model.epoch, model.batch, mark.offset)
        with closing(JournalReader(self._log, self._stream.journal_name, order)) as journal:
            self._following = following = Following(model, journal, self._report)
            while not self._stopped():
                self._turn(following, place)

    def _place(self) -> Place | None:
        """Return the journal, as the last look saw it; None where there is none, or it was never seen."""
        state = (self._lag.found or {}).get(self._stream.journal_name)
        return None if state is None else Place(state.identity, state.watermarks[0].low)

    def _take(self, place: Place) -> FollowedModel | None:
        """Return the model of the newest checkpoint, None where there is none yet. Raises ConfigError."""
        found = self._room.wait_for(lambda: self._fetch(place))
        if found is None:
            return None
        manifest = found[0]
        if manifest.rules.topics != self._stream.topics:
            raise ConfigError(
                f"prefix: the checkpoints in {self._store.where} were learned from {manifest.rules.topics.messages}, "
                f"not from {self._stream.topics.messages}; set the prefix as it is at the learners"
            )
        with self._telling("starting", "compiling"):
            model = FollowedModel(*found, allow_pickle=self._stream.allow_pickle)
        self._above = model.epoch, model.batch
        self._report.base, self._report.bases = model.batch, self._report.bases + 1
        self._publishing.hurry()
        _LOG.info("following from batch %d on, version %s", model.batch, model.version)
        return model

    def _fetch(self, place: Place) -> tuple[Manifest, ModelState] | None:
        with self._telling("recovering", "fetching the checkpoint"):
            return self._bases.take(place, self._above)

    def _begin_anew(self, error: BeginAnew) -> None:
        """Say why what is here leads no further."""
        agreed = self._following is not None and self._following.agreed
        self._slow = None
        if isinstance(error, NewBase):
            self._above = max(self._above, error.above)
        elif isinstance(error, OtherLeader):
            self._report.by, self._report.why, self._in_a_row = "lessons", "", 0
        elif isinstance(error, Differs):
            self._in_a_row = 1 if agreed else self._in_a_row + 1
            _LOG.error("%s", error)
            if self._in_a_row >= ROW:
                self._report.by, self._report.why = "checkpoints", self._of_other_bytes()
                _LOG.error("%s", self._report.why)
        _LOG.warning("%s; going on from the newest checkpoint", error)
        self._rest("recovering", str(error))

    def _of_other_bytes(self) -> str:
        spec = self._following.model.classifier.spec if self._following is not None else "it"
        return (
            f"the model here ({spec}) came out differently than the leader's from the same lessons, {ROW} times in a "
            f"row: this machine's processor ({binding.get_host_cpu_name()}, {platform.machine()}) computes other bytes "
            "than the leader's. It goes from checkpoint to checkpoint; run replicas on processors like the learners'"
        )

    # 2 to 4.

    def _turn(self, following: Following, place: Place) -> None:
        """Take what is there, show it, and say so."""
        now = time.monotonic()
        following.turn(min(TURN_S, self._publishing.due_in(now) or TURN_S))
        self._beside.turn()
        self._publish(following)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + RETRY_S
            if (seen := self._place()) is None or seen.identity != place.identity:
                raise BeginAnew("the journal's topic was deleted or made again")
            self._look_ahead(following, now)
        self._say(*self._state(following))

    def _publish(self, following: Following) -> None:
        """Show the model, where it is time, and nobody would see less of it than before."""
        if not following.knows or not self._publishing.is_due(time.monotonic()):
            return
        offsets = following.model.feedback_offsets
        if not following.caught_up and any(offsets.get(at, 0) < seen for at, seen in self._shown_offsets.items()):
            return
        self._publishing.publish(following.model.newest(following.shut), offsets)
        if not self._publishing.quarantine:
            self._shown_offsets = offsets

    def _look_ahead(self, following: Following, now: float) -> None:
        """Raise BeginAnew where a newer checkpoint is the better way on."""
        behind = self._lag.behind(*following.place)
        if behind is not None and behind.seconds < NEAR_S:  # where entries come all the time there is no end to be at
            following.caught_up = True
        if self._report.by == "checkpoints":
            if self._newer(following, now):
                raise BeginAnew("there is a newer checkpoint")
            return
        if behind is None or behind.seconds < SLOW_S:
            self._slow, self._report.why = None, ""
        elif self._slow is None:
            self._slow = now, behind.seconds
        elif now - self._slow[0] > SLOW_S:
            is_nearer = behind.seconds < NEARER * self._slow[1]
            self._slow = now, behind.seconds
            if not is_nearer and self._newer(following, now):
                self._report.skips += 1
                self._report.why = "more is learned than can be followed here: what a newer checkpoint has is left out"
                raise BeginAnew(f"{behind.seconds:.0f} s behind, and no nearer since {SLOW_S:.0f} s")

    def _newer(self, following: Following, now: float) -> bool:
        """Tell whether the store has a checkpoint of what is not here; asked of it now and then only."""
        place = self._place()
        if now < self._next_store or place is None:
            return False
        self._next_store = now + STORE_S
        try:
            return self._bases.newest(place, (following.model.epoch, following.model.batch + 1)) is not None
        except StoreError as error:
            _LOG.warning("%s", error)
            return False

    # What it says.

    def _state(self, following: Following) -> tuple[State, str]:
        if self._lag.problem:
            return "waiting", self._lag.problem
        if not following.caught_up:
            return "recovering", f"batch {following.model.batch}"
        untaken = self._untaken.see(self._lag.found or {}, following.journal.order.batch, time.monotonic())
        if untaken:
            return "waiting", f"no learner takes what comes: {counted(untaken, 'record')} so far"
        return "following", self._report.why

    def _say(self, state: State, detail: str) -> None:
        """Write the status, where anything but numbers has changed, or it is time."""
        now = time.monotonic()
        if now < self._next_say and (state, detail) == (self.shown.state, self.shown.detail):
            return
        self._next_say = now + SAY_S
        self._beside.turn()
        self._measure()
        self._check()
        with suppress(DiskFull):
            change_status(self._stream.data, self.shown, state, detail, self._lock.last_epoch())

    def _measure(self) -> None:
        """Put into the status what there is."""
        following, report = self._following, self._report
        if following is not None:
            behind = self._lag.behind(*following.place)
        else:
            behind = self._lag.behind(place.low, None) if (place := self._place()) else self._nothing_there()
        if behind is not None:
            report.behind_entries, report.behind_s, report.at = *behind, time.time()
        report.beside = self._beside.behind
        status = self.shown
        status.following = report
        if following is not None:
            _describe(status, following.model, following.shut or self._publishing.quarantine)
        status.snapshot_seconds = self._publishing.seconds
        self._beside.complete(status)

    def _nothing_there(self) -> Behind | None:
        """Say that nothing is missing here where there is no journal at all; None where that is not known."""
        return Behind(0, 0.0) if self._lag.found is not None and not self._lag.problem else None

    @contextmanager
    def _telling(self, state: State, doing: Doing) -> Iterator[None]:
        """Say, in another thread, what is done meanwhile in this one, which says nothing until it is done."""

        def tell(start: Start) -> None:
            self._measure()
            with suppress(DiskFull):
                change_status(self._stream.data, self.shown, state, str(start), self._lock.last_epoch(), start)

        with telling(tell, doing, lambda: None):
            yield

    def _rest(self, state: State, detail: str) -> None:
        """Say what is waited for, and wait a little."""
        until = time.monotonic() + RETRY_S
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            self._say(state, detail)
            time.sleep(min(left, TURN_S))

    def _begin_report(self, before: FollowReport | None) -> FollowReport:
        """Return a report that knows what the one before found, if any did: how far that was behind, and when."""
        report = FollowReport(store=self._store.where)
        if before is not None:
            report.behind_entries, report.behind_s, report.at = before.behind_entries, before.behind_s, before.at
        return report

    def _check(self) -> None:
        """Return while this is the one that may write here. Raises StateError."""
        try:
            self._lock.check()
        except Overtaken:
            if not (self._stream.data / locks.FILE).exists():
                raise StateError(f"{self._stream.data} is gone: a follower that starts anew makes it again") from None
            raise


def _describe(status: Status, model: FollowedModel, why_not: str) -> None:
    """Put what is known of a model into a status. The leader alone knows the rest; its last checkpoint says some."""
    manifest, classifier = model.manifest, model.classifier
    status.model, status.version, status.labels = classifier.spec, model.version, list(classifier.labels)
    status.places, status.places_left = classifier.max_labels, classifier.max_labels - len(classifier.labels)
    status.counts, status.join = model.counts, manifest.join_counts
    status.positions, status.batch, status.checkpoint = model.positions, model.batch, manifest.batch
    status.drift, status.losses, status.rebuilt, status.erased = (
        manifest.alarms,
        manifest.losses,
        manifest.rebuilt,
        manifest.erased,
    )
    status.gate = GateReport(state="shut", why=why_not) if why_not else GateReport()


def shown_offsets(stream: StreamSettings) -> Mapping[str, int]:
    """Return up to where the model has learned that is served here now; nothing where none is."""
    for path in snapshot.list_snapshots(stream.data / "snapshots"):
        with suppress(StateError, OSError):
            return snapshot.read_info(path, Reader(path)).feedback_offsets
    return {}
