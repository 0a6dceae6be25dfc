"""How does the one writer erase what was asked for?

The loop's side of rebuild/erase.py. Killed anywhere, it begins again with 1: the request is there until all is done.

    1. a thread looks through the log for the messages and labels, up to its end as it is then
    2. once the loop has taken them all, at a batch's border: a checkpoint of the old state, so that nothing is on its
       way any more
    3. the windows forget them, in a batch without records, and a checkpoint is written: its rename is the stroke. A
       second one follows, so that there are two
    4. older checkpoints, set aside ones and journals go; the bases forget them, and the page's messages; a model that
       is being built anew goes, since it has learned them
    5. a thread looks for the predictions and dead letters that came of them, all of which 2 has sent; then it takes all
       that was found out of the log (Log.erase)
    6. what was erased is noted, without a name, and the request goes

No replay crosses 3: the records that it would need are gone. So `verify` begins behind it, and says so of an older
checkpoint that somebody has kept. What the model learned stays in it until it is built anew.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk import journal as journals
from driftline.learner.machine.restore import marks
from driftline.learner.rebuild import bases, erase, rebuild
from driftline.learner.rebuild.erase import Request, Search
from driftline.learner.serving.versions import Versions
from driftline.learner.state.state import LearnerState
from driftline.stream.errors import Overtaken, StateError, SyncFailed
from driftline.stream.join.window_saved import Unwanted, forget
from driftline.stream.log.base import Log, Remains
from driftline.stream.wire.records import Topics

LOOK_S: Final = 0.5
RETRY_S: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


class Erasing:
    """What is being erased, if anything is. One thread, the loop's.

    Parameters
    ----------
    data : the data directory

    Attributes
    ----------
    waits : whether the loop has not taken all of what was found
    """

    def __init__(self, data: Path, log: Log, topics: Topics, max_record_bytes: int) -> None:
        self._data, self._log, self._topics, self._max_record_bytes = data, log, topics, max_record_bytes
        self._thread = ThreadPoolExecutor(1, "erasing")
        self._next = 0.0
        self._path: Path | None = None  # of the request that is being done
        self._request = Request(at="")
        self._searching: Future[Search] | None = None
        self._search: Search | None = None
        self._found: Search | None = None
        self._cleaned = False  # 4 is done
        self._following: Future[Search] | None = None
        self._deleting: Future[list[Remains]] | None = None
        self._batch = 0
        self.waits = False

    @property
    def busy(self) -> bool:
        """Whether something is asked for that is not done."""
        return self._path is not None or bool(erase.pending(self._data))

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to look."""
        return now >= self._next

    def turn(self, work: LearnerState) -> bool:
        """Go on with what can be done beside the loop; tell whether the loop has to do its part now (`carry_out`)."""
        self._next = time.monotonic() + LOOK_S
        try:
            return self._turn(work)
        except (Overtaken, SyncFailed):
            raise
        except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it must not end the learner)
            _LOG.error("what was asked to be erased is not yet: %s; trying again", error)
            self._forget()
            self._next = time.monotonic() + RETRY_S
            return False

    def _turn(self, work: LearnerState) -> bool:
        if self._path is None:
            self._begin()
        elif self._searching is not None and self._searching.done():
            self._found, self._searching = self._searching.result(), None
            self._note_found(self._found.records)
        elif self._cleaned:
            assert self._found is not None, "4 comes behind 1"
            self._cleaned, self._following = False, self._thread.submit(self._found.go_on(self._log).run)
        elif self._following is not None and self._following.done():
            found, self._following = self._following.result(), None
            self._note_found(found.records)
            self._deleting = self._thread.submit(self._log.erase, found.places)
        elif self._deleting is not None and self._deleting.done():
            self._finish(self._deleting.result(), work)
        if self._found is None or self._following is not None or self._deleting is not None:
            return False
        positions = work.positions
        self.waits = any(positions.get(partition, 0) < end for partition, end in self._found.ends.items())
        return not self.waits

    def _begin(self) -> None:
        """1. Look for it."""
        for path in erase.pending(self._data):
            try:
                request = erase.read(path)
            except StateError as error:
                durable.set_aside(path, f"{path.name}.damaged")
                _LOG.error("%s; it was set aside", error)
                continue
            if request is not None:
                self._path, self._request = path, request
                self._search = Search(self._log, self._topics, request, self._max_record_bytes)
                self._searching = self._thread.submit(self._search.run)
                return

    def _note_found(self, records: dict[str, int]) -> None:
        """Write down how much there was, before any of it goes: after a crash it is no longer found."""
        assert self._path is not None
        if sum(records.values()) > sum(self._request.records.values()):
            self._request.records = records
            durable.replace(self._path, msgspec.json.encode(self._request))
            durable.settle(self._path)

    @property
    def unwanted(self) -> Unwanted:
        """What is to be forgotten, once `turn` said so."""
        assert self._found is not None, "`turn` comes first"
        return self._found.unwanted

    def clean(self, work: LearnerState) -> None:
        """4. Take it out of the directory; the loop has done 3."""
        assert self._found is not None, "`turn` comes first"
        self._batch = work.erased.batch
        root = self._data / "checkpoints"
        for path in root.iterdir():
            if not path.name.isdigit() or int(path.name) < self._batch:
                durable.remove(path)
        journals.prune(self._data / "journal", self._batch)
        for path in self._data.glob("*/damaged-*"):
            durable.remove(path)
        durable.remove(self._data / rebuild.DIRECTORY)
        scrub(self._data / bases.DIRECTORY, self._found.unwanted)
        self._cleaned = True

    def _finish(self, remains: list[Remains], work: LearnerState) -> None:
        """6. Note it."""
        assert self._path is not None
        assert self._found is not None
        foreign = any(":" in str(kept.config.get("classifier")) for kept in Versions(self._data).kept())
        records = self._request.records or self._found.records
        done = erase.describe(self._request, records, self._batch, self._found.places, remains, foreign=foreign)
        lows = {partition: mark.low for partition, mark in marks(work.known).items()}
        erase.note(self._data, done, lows)
        durable.remove(self._path)
        durable.sync_directory(self._path.parent)
        _LOG.warning("erased: %s records, asked for at %s", f"{sum(records.values()):,}", self._request.at)
        self._forget()

    def _forget(self) -> None:
        """Have nothing at hand, so that the next turn begins with 1."""
        self._path = self._searching = self._found = self._following = self._deleting = None
        self._cleaned = self.waits = False

    def close(self) -> None:
        """End the thread; what is not done begins again at the next start."""
        if self._search is not None:
            self._search.stopped = True
        self._thread.shutdown()


def scrub(root: Path, unwanted: Unwanted) -> None:
    """Have the windows of kept checkpoints forget messages; one that cannot be read goes."""
    if not root.is_dir():
        return
    for path in root.iterdir():
        if not path.name.isdigit():
            durable.remove(path)  # left by one that was killed here
    for path in checkpoints.list_checkpoints(root):
        try:
            changed = _scrubbed(path, unwanted)
        except (StateError, OSError, ValueError):
            durable.remove(path)
            continue
        if changed:
            fresh = path.with_name(f"scrubbed-{path.name}")
            links = {each.name: each for each in path.iterdir() if each.name not in changed}
            durable.write_directory(fresh, changed, links)
            durable.remove(path)
            durable.rename(fresh, path.name)


def _scrubbed(path: Path, unwanted: Unwanted) -> dict[str, list[bytes]]:
    """Return the files of a checkpoint that change."""
    sums, changed = checkpoints.read_sums(path), dict[str, list[bytes]]()
    for window in sorted(path.glob("window-*.msgpack")):
        before = window.read_bytes()
        if checkpoints.sha256([before]) != sums[window.name]:
            raise StateError(f"{window} is damaged")
        after = forget(before, unwanted)
        if after != before:
            changed[window.name] = [after]
            sums[window.name] = checkpoints.sha256([after])
    if changed:
        changed["SHA256SUMS"] = ["".join(f"{sum_}  {name}\n" for name, sum_ in sorted(sums.items())).encode()]
    return changed
