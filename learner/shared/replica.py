"""How does a data directory get what the leader shows, and what anybody has chosen?

The shared topic (topic.py) is read from its beginning: it is compacted, and so as short as what it says. Once its end
is reached for the first time the newest value of each key goes into the data directory's files, and from then on each
that changes, in the formats that a learner alone writes there. So whoever answers from a data directory needs to know
nothing of all this.

    status.json     where it is to be the leader's; `at` is by this machine's clock
    history, review.json, snapshots/kept/   unless this machine leads: then they are its own
    snapshots/*.pinned, snapshots/active-*  always: anybody may choose. A model that is to be served is fetched first
    erase/          where this machine may lead: what is to be erased
    erased.jsonl    unless this machine leads
    claims.msgpack  always: who labels what
    shared.json     always: how far it is (applied.py)
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import msgspec

from driftline.learner.disk import durable
from driftline.learner.rebuild import erase
from driftline.learner.report import review
from driftline.learner.report.history import HistoryCopy
from driftline.learner.report.status import Status, write_status
from driftline.learner.serving.choices import Active
from driftline.learner.serving.versions import Pin, UnknownVersion, Versions, decode_kept
from driftline.learner.shared import applied, claims, topic
from driftline.learner.shared.applied import Applied
from driftline.learner.shared.models import Models, have_model
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import DriftlineError, OffsetsLost, StateError
from driftline.stream.log.base import Log, Reader, TopicPartition
from driftline.stream.process.settings import StreamSettings

MANY: Final = 1000
RETRY_S: Final = 1.0
_OF_LEADER: Final = (topic.STATUS, topic.HISTORY, topic.REVIEW, topic.KEPT, topic.ERASED)
_LOG: Final = logging.getLogger(__name__)
_STATUS: Final = msgspec.json.Decoder(Status)
_ACTIVE: Final = msgspec.json.Decoder(Active)
_PIN: Final = msgspec.json.Decoder(Pin)
_ERASED: Final = msgspec.json.Decoder(erase.Erased)
_REQUEST: Final = msgspec.json.Decoder(erase.Request)


class Replica:
    """Brings a data directory up to what the shared topic says. One thread.

    Parameters
    ----------
    log : where the topic lies; it is made where it is missing
    stream : which topic, which data directory; the store, for models that are chosen to be served
    may_lead : this is a learner's: it has a status of its own, and erases what it is asked to once it leads
    shows_status : the leader's status is the one of this directory; else it is only noted

    Attributes
    ----------
    leader : the leader's status, by this machine's clock; replaced whole. None: nobody has led yet
    order : what was read
    leads : this machine says what it is; nothing of what a leader says is applied
    caught_up : the end was reached once

    Raises
    ------
    LogError : the topic cannot be made or read.
    """

    def __init__(self, log: Log, stream: StreamSettings, *, may_lead: bool = False, shows_status: bool = True) -> None:
        self._log, self._data, self._may_lead = log, stream.data, may_lead
        self._shows_status = shows_status and not may_lead
        self.leader: Status | None = None
        self._partition = TopicPartition(stream.state_name, 0)
        durable.make_directory(stream.data)
        log.create_topics([stream.state_name], "values")
        self._versions = Versions(stream.data)
        self._versions.tidy()
        self.models = Models(CheckpointStore(stream.checkpoints)) if stream.checkpoints is not None else None
        self._fetcher = ThreadPoolExecutor(1, "model-fetcher")
        self._history: HistoryCopy | None = None
        self._carry_out: dict[str, Callable[[str, topic.Value | None], None]] = {
            topic.STATUS: self._show_status,
            topic.HISTORY: self._put_row,
            topic.REVIEW: self._show_review,
            topic.KEPT: self._list_version,
            topic.ERASED: self._note_erased,
            topic.ERASE: self._ask_to_erase,
            topic.PIN: self._pin,
        }
        self.leads = False
        self._begin(self._low())

    def _low(self) -> int:
        """Return where the topic begins. Raises LogUnavailable where it is not there."""
        return self._log.state_of(self._partition.topic).watermarks[0].low

    def _begin(self, low: int) -> None:
        self.order, self.caught_up = topic.Order(), False
        self._claims = claims.Table()
        self._changed: dict[str, None] = {}  # keys whose value is not here yet, the oldest first
        self._claims_changed = True
        self._choice, self._served = -1, -1  # the offset of the newest choice; of the one that is served
        self._fetching: Future[None] | None = None
        self._try_again = 0.0
        self._why_not = self._not_served = ""
        self._written: Applied | None = None
        self.order.offset = low
        self._reader: Reader = self._log.reader({self._partition: low})

    # Reading.

    def turn(self, timeout_s: float) -> int:
        """Apply what is there; return how many records that was, after a wait of `timeout_s` where it is none.

        What the disk does not take now is tried again at the next turn. A reader whose topic was made anew begins anew.

        Raises
        ------
        LogUnavailable : the log cannot be reached for good.
        """
        try:
            found = self._reader.read(MANY, timeout_s)
        except OffsetsLost as error:
            _LOG.warning("%s; reading it from its beginning", error)
            low = self._low()  # where it is not there yet all stays as it is, and the next turn comes here again
            self._reader.close()
            applied.write(self._data, Applied(self._partition.topic, 0))
            self._begin(low)
            return 0
        for record in found:
            key = self.order.take(record)
            if key is None:
                continue
            if key.startswith(topic.CLAIM):
                self._take_claim(key)
            elif key == topic.CHOICE:
                self._choice = record.offset
            else:
                self._changed.pop(key, None)
                self._changed[key] = None
        if not self.caught_up:
            if not self._reader.at_end(self._partition):
                return len(found)
            self.caught_up = True
            self._put_away_others()
        self._apply()
        return len(found)

    @property
    def at_end(self) -> bool:
        """Whether the last turn found no more."""
        return self._reader.at_end(self._partition)

    def note_epoch(self, epoch: int) -> None:
        """Take it that a leader of this epoch is there: the journal says so. What one before still says is left out."""
        self.order.see_epoch(epoch)

    @property
    def behind(self) -> str:
        """Why what is here is not what the topic says; "" where it is. Any thread."""
        if not self.caught_up:
            return f"{self._partition.topic} is being read"
        return self._why_not

    def is_applied(self, key: str) -> bool:
        """Tell whether what the topic says of a key is here."""
        return key not in self._changed

    def close(self) -> None:
        """Read no more."""
        self._fetcher.shutdown(cancel_futures=True)
        self._reader.close()
        self.own_history()

    def own_history(self) -> None:
        """Let go of the history's file: another one writes it from now on."""
        if self._history is not None:
            self._history.close()
        self._history = None

    # Applying.

    def _apply(self) -> None:
        for key in list(self._changed):
            kind, slash, name = key.partition("/")
            try:
                if not (self.leads and key.startswith(_OF_LEADER)):
                    self._carry_out.get(kind + slash, _unknown)(name, self.order.values.get(key))
            except (StateError, OSError) as error:
                self._complain(f"{key} is not in {self._data} yet: {error}")
                break  # in their order: later ones wait, too
            del self._changed[key]
        try:
            self._serve_choice()
            self._tell()
            if not self._changed and self._choice == self._served:
                self._why_not = ""
        except (StateError, OSError) as error:
            self._complain(f"{self._data} is behind: {error}")

    def _complain(self, why: str) -> None:
        if why != self._why_not:
            _LOG.warning("%s; trying again", why)
        self._why_not = why

    def _tell(self) -> None:
        """Say how far it is."""
        if self._claims_changed:
            durable.replace(self._data / claims.FILE, msgspec.msgpack.encode(self._claims))
            self._claims_changed = False
        waiting = min(
            (self.order.values[key].offset for key in self._changed if key in self.order.values), default=None
        )
        offset = self.order.offset if waiting is None else waiting
        now = Applied(self._partition.topic, offset, self._served, self._not_served)
        if now != self._written:
            applied.write(self._data, now)
            self._written = now

    def _put_away_others(self) -> None:
        """Remove what the topic no longer has: it was taken away while nobody read it into this directory."""
        if topic.LEADER not in self.order.values:
            return  # nobody has led yet: what is here is what will be told first
        listed, pinned = self.order.under(topic.KEPT), self.order.under(topic.PIN)
        with suppress(StateError, OSError):  # then they are there for longer
            for each in self._versions.kept():
                if each.version not in listed and not self.leads:
                    self._versions.drop(each.version)
            for version in self._versions.pins():
                if version not in pinned:
                    self._versions.set_pin(version, None)

    def _show_status(self, _: str, value: topic.Value | None) -> None:
        if value is None:
            return
        try:
            status = _STATUS.decode(value.content)
        except (ValueError, RecursionError):
            _LOG.warning("the leader's status is not one of this version of Driftline")
            return
        # Clocks of two machines differ. What comes in at the end of the topic was said just now.
        status.at = time.time() if self._is_fresh(value) else min(status.at, time.time())
        if self._shows_status:
            write_status(self._data, status)
        self.leader = status

    def _is_fresh(self, value: topic.Value) -> bool:
        return self._written is not None and value.offset >= self._written.offset

    def _put_row(self, name: str, value: topic.Value | None) -> None:
        if value is not None and name.isdecimal():
            if self._history is None:
                self._history = HistoryCopy(self._data)
            with suppress(ValueError):  # of another version
                self._history.put(int(name), value.content)

    def _show_review(self, _: str, value: topic.Value | None) -> None:
        if value is not None:
            durable.replace(self._data / review.FILE, value.content)

    def _list_version(self, version: str, value: topic.Value | None) -> None:
        if value is None:
            self._versions.drop(version)
            return
        with suppress(ValueError):
            self._versions.list_one(decode_kept(value.content, version))

    def _pin(self, version: str, value: topic.Value | None) -> None:
        with suppress(ValueError):
            self._versions.set_pin(version, None if value is None else _PIN.decode(value.content))

    def _note_erased(self, _: str, value: topic.Value | None) -> None:
        if value is not None:
            with suppress(ValueError):
                erase.take_up(self._data, _ERASED.decode(value.content))

    def _ask_to_erase(self, name: str, value: topic.Value | None) -> None:
        if not self._may_lead:
            return
        if value is None:
            erase.withdraw(self._data, name)
        else:
            with suppress(ValueError):
                erase.ask_so(self._data, name, _REQUEST.decode(value.content))

    def _take_claim(self, key: str) -> None:
        value = self.order.values.get(key)
        wanted = None if value is None else claims.decode(value.content)
        if value is not None and wanted is not None:
            self._claims.take(wanted, value.timestamp_ms)
            self._claims_changed = True

    # What is served.

    @property
    def chosen(self) -> Active | None:
        """Which version is to be served; None where nobody has ever chosen."""
        value = self.order.values.get(topic.CHOICE)
        if value is not None:
            with suppress(ValueError):
                return _ACTIVE.decode(value.content)
        return None

    def _serve_choice(self) -> None:
        """Have the newest choice be served, once its model is here."""
        if self._choice == self._served or time.monotonic() < self._try_again:
            return
        active = self.chosen
        if active is None:
            return
        try:
            if active.version is not None and not self._has_model(active.version):
                return
        except (DriftlineError, OSError) as error:
            self._fetching = None
            self._try_again = time.monotonic() + RETRY_S
            self._not_served = f"version {active.version}, which was chosen, cannot be served here yet: {error}"
            self._complain(self._not_served)
            return
        self._versions.choose(active)
        self._served, self._not_served = self._choice, ""

    def _has_model(self, version: str) -> bool:
        """Tell whether a model is here; have it fetched where it is not. Raises what prevented that."""
        if self._fetching is not None:
            if not self._fetching.done():
                return False
            fetched, self._fetching = self._fetching, None
            with suppress(UnknownVersion):  # it was chosen before, and is gone by now
                fetched.result()
        self._versions.get(version)
        if self._versions.has_model(version):
            return True
        self._fetching = self._fetcher.submit(have_model, self._versions, self.models, version)
        return False


def _unknown(_: str, value: topic.Value | None) -> None:
    """Leave out what this version knows nothing of."""
    del value
