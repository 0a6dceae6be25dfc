"""A follower of a cluster, in a thread of this process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from driftline.learner.disk.checkpoint import list_checkpoints, read_sums
from driftline.learner.disk.lock import Lock
from driftline.learner.follow import service
from driftline.learner.follow.follower import Beside, Follower
from driftline.learner.follow.model import FollowedModel
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.status import last_status
from driftline.learner.serving.double_buffer import Reader
from driftline.learner.serving.snapshot import SnapshotInfo, list_snapshots, read_info
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.waiting import wait_until


class Replica:
    """A follower that runs."""

    def __init__(self, stream: StreamSettings, store: CheckpointStore, beside: Beside | None = None) -> None:
        self.stream = stream
        self.error: BaseException | None = None
        self._over, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(store, beside), daemon=True)
        self._thread.start()
        wait_until(self._ready.is_set)

    def _run(self, store: CheckpointStore, beside: Beside | None) -> None:
        try:
            with closing(open_log(self.stream)) as log, closing(Lock(self.stream.data)) as lock:
                service.announce(self.stream, lock, last_status(self.stream.data, "linear"))
                follower = Follower(self.stream, log, store, lock, 0.0, self._over.is_set, beside)
                with closing(follower):
                    self.follower = follower
                    self._ready.set()
                    follower.run()
        except BaseException as error:
            self.error = error
            self._ready.set()

    @property
    def report(self) -> FollowReport:
        """What it says of how far it is."""
        found = self.follower.shown.following
        assert found is not None
        return found

    @property
    def model(self) -> FollowedModel:
        """What it has, or had last."""
        assert self.follower._following is not None
        return self.follower._following.model

    @property
    def published(self) -> SnapshotInfo | None:
        """What readers see beside the model."""
        for path in list_snapshots(self.stream.data / "snapshots"):
            return read_info(path, Reader(path))
        return None

    def wait(self, holds: Callable[[], object], what: str = "") -> None:
        """Wait until something holds of one that runs."""

        def there() -> bool:
            if self.error is not None:
                raise self.error
            return bool(holds())

        wait_until(there, what=what or "it follows")

    def wait_for(self, version: str) -> None:
        """Wait until it has published a version."""
        self.wait(lambda: (info := self.published) is not None and info.version == version, version)

    def stop(self) -> "Replica":
        """End it."""
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self


@contextmanager
def following(stream: StreamSettings, store: CheckpointStore, beside: Beside | None = None) -> Iterator[Replica]:
    """Give a follower with a data directory of its own, and end it."""
    replica = Replica(stream, store, beside)
    try:
        yield replica
    finally:
        replica._over.set()
        replica._thread.join(60)


def digest_of(stream: StreamSettings) -> str:
    """Return the SHA-256 of the model in the newest checkpoint on the disk."""
    return read_sums(list_checkpoints(stream.data / "checkpoints")[0])["model.safetensors"]
