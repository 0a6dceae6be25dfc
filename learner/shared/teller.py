"""What does the leader tell the others, and when?

It looks at the files of its own data directory about once a second, and appends what is another than the topic has: the
newest of each, once the append before it is durable. So the loop knows nothing of it and waits for nothing here, and a
log that is away costs no more than what was shown meanwhile.

A version is told of once its model is in the store, where all find it. One that is to be dropped (versions.py) is taken
away in three steps, so that none is lost that somebody pins or chooses in the same moment:

    1. the topic's record of it is taken away
    2. that is read back: where a pin of it, or the choice, stands before it, the version stays and is told of again
    3. it goes from this disk, then from the store

Claims whose time is over are taken away, so that the topic has no more keys than there are people at work.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from driftline.learner.rebuild import erase
from driftline.learner.report import review
from driftline.learner.report.history import N_ROWS, ROW_BYTES, rows_of
from driftline.learner.report.status import FILE as STATUS
from driftline.learner.serving.versions import Kept, Versions
from driftline.learner.shared import claims, topic
from driftline.learner.shared.models import ModelName, Models, name_of
from driftline.learner.shared.replica import Replica
from driftline.learner.store.stored import Name
from driftline.stream.errors import DriftlineError, Overtaken
from driftline.stream.log.base import Appended, Log, NewRecord

EVERY_S: Final = 1.0
STORE_S: Final = 2.0  # between two looks at the store, where a model is to be put there
OVER_MS: Final = 60_000  # a claim is taken away so long after its time
FLUSH_S: Final = 2.0
POLL_S: Final = 0.02
_LOG: Final = logging.getLogger(__name__)


class _Said(msgspec.Struct):
    epoch: int


_SAID: Final = msgspec.json.Decoder(_Said)


class Teller:
    """Tells what this learner's data directory shows, while it leads. One thread, that of the replica.

    Parameters
    ----------
    log, name : where the topic lies
    replica : which reads it; at its end, and it leads
    epoch : of this learner's claim
    check : raises where it was overtaken; any thread
    """

    def __init__(
        self, log: Log, name: str, data: Path, replica: Replica, epoch: int, check: Callable[[], None]
    ) -> None:
        self._log, self._name, self._data, self._replica = log, name, data, replica
        self._epoch, self._check = epoch, check
        self._versions = Versions(data)
        self._next = 0.0
        self._sent: Future[Sequence[Appended]] | None = None
        self._sending: dict[str, bytes | None] = {}  # what is in it: digests, None of what is taken away
        self._end = 0  # behind what was sent last
        values, first = replica.order.values, topic.LEADER not in replica.order.values
        self._told = {key: value.digest for key, value in values.items() if not key.startswith(topic.HISTORY)}
        self._rows = np.zeros((N_ROWS, ROW_BYTES), np.uint8)
        for place, value in replica.order.under(topic.HISTORY).items():
            if place.isdecimal() and int(place) < N_ROWS and len(value.content) == ROW_BYTES:
                self._rows[int(place)] = np.frombuffer(value.content, np.uint8)
        self._begun = [*topic.records(topic.LEADER, str(epoch).encode(), epoch), *(self._own() if first else ())]
        self._keeper = _Keeper(self._versions, replica.models, check, self._wanted_models())

    def turn(self) -> None:
        """Tell what is new, where it is time. Raises Overtaken."""
        now = time.monotonic()
        if now < self._next or not self._is_taken():
            return
        self._check()
        self._next = now + EVERY_S
        self._settle_leaving()
        self._keeper.turn(now)
        self._append([*self._begun, *self._changes()])
        self._begun = []

    def finish(self) -> None:
        """Tell once more, and wait a little until that is durable. Raises Overtaken."""
        self._keeper.finish(FLUSH_S)
        self._wait()
        self._next = 0.0
        self.turn()
        self._wait()

    def close(self) -> None:
        """Put nothing more into the store."""
        self._keeper.close()

    def _append(self, records: list[NewRecord]) -> None:
        if records:
            self._sent = self._log.submit(self._name, records)

    def _is_taken(self) -> bool:
        """Tell whether the append before is over; note what the topic has by it."""
        if self._sent is None:
            return True
        if not self._sent.done():
            return False
        sent, self._sent = self._sent, None
        try:
            self._end = sent.result()[-1].offset + 1
        except DriftlineError as error:
            _LOG.warning("what this learner shows was not taken: %s", error)
            self._sending.clear()  # nobody knows what of it: it is told again
            return True
        for key, digest in self._sending.items():
            if digest is None:
                self._told.pop(key, None)
            elif key.startswith(topic.HISTORY):
                self._rows[int(key.removeprefix(topic.HISTORY))] = np.frombuffer(digest, np.uint8)
            else:
                self._told[key] = digest
        self._sending.clear()
        return True

    def _wait(self) -> None:
        if self._sent is not None:
            with suppress(DriftlineError, TimeoutError):
                self._sent.result(FLUSH_S)
        self._is_taken()

    # What there is to tell.

    def _changes(self) -> Iterator[NewRecord]:
        order = self._replica.order
        for key in order.overlaid:
            self._told.pop(key, None)
            if key.startswith(topic.HISTORY) and (place := key.removeprefix(topic.HISTORY)).isdecimal():
                self._rows[min(int(place), N_ROWS - 1)] = 0
        order.overlaid.clear()
        wanted = dict(self._wanted())
        for key, content in wanted.items():
            digest = topic.digest(content)
            if self._told.get(key) != digest:
                self._sending[key] = digest
                yield from topic.records(key, content, self._epoch)
        for key in [key for key in self._told if key.startswith((topic.KEPT, topic.ERASED)) and key not in wanted]:
            self._sending[key] = None
            yield from topic.records(key, None, self._epoch)
        yield from self._rows_changed()
        yield from self._done()
        yield from self._over()

    def _wanted(self) -> Iterator[tuple[str, bytes]]:
        """Give what a key should have."""
        with suppress(OSError, ValueError):
            status = (self._data / STATUS).read_bytes()
            if _SAID.decode(status).epoch == self._epoch:  # else this learner said nothing yet
                yield topic.STATUS, status
        with suppress(OSError):
            yield topic.REVIEW, (self._data / review.FILE).read_bytes()
        leaving = self._versions.leaving()
        for kept in self._versions.kept():
            key = topic.KEPT + kept.version
            if kept.version not in leaving and (key in self._told or self._keeper.has(kept)):
                yield key, msgspec.json.encode(kept)
        with suppress(DriftlineError):  # a damaged one is told of elsewhere
            for erased in erase.read_done(self._data):
                yield topic.ERASED + erase.name_of(erased), msgspec.json.encode(erased)

    def _rows_changed(self) -> Iterator[NewRecord]:
        rows = rows_of(self._data)
        for place in np.flatnonzero((rows != self._rows).any(axis=1)).tolist():
            content = rows[place].tobytes()
            self._sending[f"{topic.HISTORY}{place}"] = content
            yield from topic.records(f"{topic.HISTORY}{place}", content, self._epoch)

    def _done(self) -> Iterator[NewRecord]:
        """Take away what was asked to be erased, and is: its file is gone."""
        waiting = {path.stem for path in erase.pending(self._data)}
        for name in self._replica.order.under(topic.ERASE):
            key = topic.ERASE + name
            if name not in waiting and self._replica.is_applied(key):
                yield from topic.records(key, None, self._epoch)

    def _over(self) -> Iterator[NewRecord]:
        """Take away claims whose time is over."""
        now_ms = int(time.time() * 1000)
        for name, value in self._replica.order.under(topic.CLAIM).items():
            wanted = claims.decode(value.content)
            if wanted is None or wanted.until_ms + OVER_MS < now_ms:
                yield topic.removal(topic.CLAIM + name, value.offset)

    def _own(self) -> Iterator[NewRecord]:
        """Give what was chosen in this directory before it was one of several: of the first leader of all."""
        active = self._versions.active()
        if active.version is not None and self._replica.chosen is None:
            yield NewRecord(topic.CHOICE.encode(), msgspec.json.encode(active))
        pinned = self._replica.order.under(topic.PIN)
        for version, pin in self._versions.pins().items():
            if version not in pinned:
                yield NewRecord(f"{topic.PIN}{version}".encode(), msgspec.json.encode(pin))

    # What is dropped.

    def _wanted_models(self) -> set[str]:
        """Return the versions whose models are not to go from the store, by what the topic says now."""
        order, chosen = self._replica.order, self._replica.chosen
        served = {chosen.version} if chosen is not None and chosen.version is not None else set()
        return {*order.under(topic.KEPT), *order.under(topic.PIN), *served, *(k.version for k in self._versions.kept())}

    def _settle_leaving(self) -> None:
        """2 and 3: once all that was told is read back."""
        order = self._replica.order
        if order.offset < self._end:
            return
        for version in self._versions.leaving():
            if topic.KEPT + version in order.values:
                continue  # 1 is to come
            chosen = self._replica.chosen
            if version in order.under(topic.PIN) or (chosen is not None and chosen.version == version):
                self._versions.stay(version)
                continue
            with suppress(DriftlineError):
                kept = self._versions.get(version)
                self._versions.drop(version)
                self._keeper.drop(kept)


class _Keeper:
    """Has the models of the kept versions in the store. A thread of its own does so.

    Parameters
    ----------
    models : None: there is no store
    wanted : versions of which nothing goes at the beginning; what else is there nobody needs
    """

    def __init__(self, versions: Versions, models: Models | None, check: Callable[[], None], wanted: set[str]) -> None:
        self._versions, self._models, self._check, self._wanted = versions, models, check, wanted
        self._there: set[ModelName] | None = None  # not known yet
        self._gone: list[ModelName] = []  # to be deleted there
        self._thread = ThreadPoolExecutor(1, "kept-models")
        self._working: Future[None] | None = None
        self._next = 0.0
        self._closed = False
        self._why = ""

    def has(self, kept: Kept) -> bool:
        """Tell whether all find a version's model."""
        return self._there is not None and name_of(kept) in self._there

    def drop(self, kept: Kept) -> None:
        """Have a version's model be deleted."""
        self._gone.append(name_of(kept))

    def turn(self, now: float) -> None:
        """Have done what is to be done."""
        if self._models is None or now < self._next:
            return
        if self._working is not None:
            if not self._working.done():
                return
            error, self._working = self._working.exception(), None
            why = "" if error is None else str(error)
            if why and why != self._why:
                _LOG.warning("a model that is kept is not in the store yet: %s", why)
            self._why = why
            self._next = now + STORE_S
            return
        if self._there is None or self._gone or self._missing():
            self._working = self._thread.submit(self._work, self._models)

    def finish(self, timeout_s: float) -> None:
        """Wait a little until all is done. Raises Overtaken."""
        deadline = time.monotonic() + timeout_s
        while self._models is not None and (self._working is not None or self._gone or self._missing()):
            if (now := time.monotonic()) > deadline:
                return
            self._check()
            self._next = 0.0
            self.turn(now)
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the thread; what is on its way is broken off."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _missing(self) -> list[Kept]:
        leaving = self._versions.leaving()
        there = self._there or set()
        return [
            kept
            for kept in self._versions.kept()
            if kept.version not in leaving and name_of(kept) not in there and self._versions.has_model(kept.version)
        ]

    def _work(self, models: Models) -> None:
        if self._there is None:
            there = models.names()
            for name in there:
                if name.version not in self._wanted:  # left by a leader that was killed
                    self._go_on()
                    models.drop(name)
            self._there = {name for name in there if name.version in self._wanted}
        while self._gone:
            self._go_on()
            name = self._gone[0]
            models.drop(name)
            self._there.discard(name)
            self._gone.pop(0)
        if not (missing := self._missing()):
            return
        newest = models.newest()
        for kept in missing:
            # Its checkpoint may be on its way: then its model need not go there twice.
            if newest is not None and newest >= Name(kept.epoch, kept.checkpoint):
                models.put(kept, self._versions.model_of(kept.version), self._go_on)
                self._there.add(name_of(kept))
                if not self._versions.has_model(kept.version):  # it was dropped just now
                    self.drop(kept)

    def _go_on(self) -> None:
        if self._closed:
            raise Overtaken("it no longer leads")
        self._check()
