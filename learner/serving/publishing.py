"""When is the model published, and when does the one before stay in its place?

At most so often, and for at most a small share of the loop's time, whatever the model's size. Not while it is much
worse than it was (quality/publish_gate.py), nor where a number in it is none: then readers keep what was published
before.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from driftline.learner.disk.full import DiskRoom
from driftline.learner.models.classifier import Classifier
from driftline.learner.serving.snapshot import Publisher, SnapshotInfo
from driftline.stream.errors import NotFinite

# Publishing takes at most this share of the loop's processor time, whatever the model's size.
PUBLISH_SHARE: Final = 0.1
HELD_BACK_S: Final = 1.0  # until a model that is not served is looked at again
_LOG: Final = logging.getLogger(__name__)


class Newest(NamedTuple):
    """A model as it is now, which may be published."""

    classifier: Classifier
    version: str
    updates: int  # how much was learned, as the version counts it
    labels_learned: int
    why_not: str  # it is not to be served; "": it may be


class Publishing:
    """What readers see of the model. One thread.

    Parameters
    ----------
    root, epoch : where snapshots lie; whose they are
    interval_s : between two, at least
    room : what is waited for where the disk is full
    check : as in Publisher

    Attributes
    ----------
    quarantine : why the newest model is not served, or nothing
    seconds : how long the last publish took
    """

    def __init__(self, root: Path, epoch: int, interval_s: float, room: DiskRoom, check: Callable[[], None]) -> None:
        self._publisher = Publisher(root, epoch, check)
        self._epoch, self._interval_s, self._room = epoch, interval_s, room
        self._published: tuple[str, Mapping[str, int]] | None = None
        self._next = self._cpu_s = 0.0
        self.quarantine = ""
        self.seconds = 0.0

    def is_due(self, now: float) -> bool:
        """Tell whether it is time."""
        return now >= self._next

    def due_in(self, now: float) -> float:
        """Return how many seconds it is until then."""
        return max(0.0, self._next - now)

    def hurry(self) -> None:
        """Have it be time."""
        self._next = 0.0

    def prepare(self, classifier: Classifier) -> None:
        """Make ready for a model that has learned nothing yet."""
        self._room.wait_for(lambda: self._publisher.prepare(classifier))

    def publish(self, newest: Newest, offsets: dict[str, int]) -> None:
        """Publish the model where it is another than before; `offsets` are up to where it has learned."""
        wanted = (newest.version, offsets)
        if not newest.updates or (wanted == self._published and self._publisher.is_there()):
            return
        if newest.why_not:
            self._hold_back(newest.why_not)
            return
        started, used = time.monotonic(), time.thread_time()
        info = self._describe(newest, offsets)
        try:
            self._room.wait_for(lambda: self._publisher.publish(newest.classifier, info))
        except NotFinite as error:
            self._hold_back(str(error))
            return
        self._published = wanted
        if self.quarantine:
            _LOG.warning("the newest model is served again")
            self.quarantine = ""
        now, used = time.monotonic(), time.thread_time() - used
        # The lesser cost of two: one that began a file says nothing about the next.
        cost, self._cpu_s = min(self._cpu_s, used), used
        self.seconds = now - started
        self._next = now + max(self._interval_s, cost / PUBLISH_SHARE)

    def close(self) -> None:
        """Make what is published last beyond this boot."""
        self._publisher.close()

    def _describe(self, newest: Newest, offsets: dict[str, int]) -> SnapshotInfo:
        return SnapshotInfo(
            version=newest.version,
            epoch=self._epoch,
            model=newest.classifier.spec,
            config=newest.classifier.config(),
            labels=newest.classifier.labels,
            labels_learned=newest.labels_learned,
            feedback_offsets=offsets,
            published_at=time.time(),
        )

    def _hold_back(self, why: str) -> None:
        """Leave in its place what was published before."""
        if not self.quarantine:
            _LOG.error("the newest model is not served, the one before is: %s", why)
        self.quarantine = why
        self._next = time.monotonic() + max(HELD_BACK_S, self._interval_s)
