"""Several learners of one log, in this process: who is chosen is for the test to say."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from driftline.learner import registry
from driftline.learner.cluster.member import Member
from driftline.learner.cluster.standby import Standby
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop import warm
from driftline.learner.shared import applied
from driftline.learner.shared.replica import Replica
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.waiting import wait_until

MODEL = "linear?bits=10&max_labels=4"


def append(log: Log, first: int, count: int, prefix: str = "") -> None:
    """Append messages with their labels, one after another."""
    for number in range(first, first + count):
        key = str(number)
        log.append(f"{prefix}messages", [NewRecord(key.encode(), encode(Message(key, f"text {number}")))])
        log.append(f"{prefix}feedback", [NewRecord(key.encode(), encode(Feedback(key, "ab"[number % 2])))])


class Chosen:
    """Stands in for Election: chosen by the test."""

    def __init__(self) -> None:
        self._chosen = threading.Event()
        self.rejoined = 0

    @property
    def chosen(self) -> bool:
        return self._chosen.is_set()

    def choose(self, chosen: bool = True) -> None:
        self._chosen.set() if chosen else self._chosen.clear()

    def wait(self, timeout_s: float) -> bool:
        return self._chosen.wait(timeout_s)

    def rejoin(self, after_s: float = 0.0) -> None:
        del after_s
        self.rejoined += 1
        self._chosen.clear()

    def close(self) -> None:
        self._chosen.clear()


class Running:
    """A member that runs in a thread, with a data directory of its own."""

    def __init__(self, stream: StreamSettings, settings: LearnerSettings, store: CheckpointStore) -> None:
        self.stream, self.election = stream, Chosen()
        self._over = threading.Event()
        self.error: BaseException | None = None
        self.led = 0
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, store), daemon=True)
        self._thread.start()
        wait_until(self.ready.is_set)

    def _run(self, settings: LearnerSettings, store: CheckpointStore) -> None:
        try:
            with (
                closing(open_log(self.stream)) as log,
                closing(open_log(self.stream)) as journal,
                closing(Lock(self.stream.data)) as lock,
            ):
                election, over = self.election, self._over.is_set
                self.member = Member(
                    self.stream,
                    settings,
                    log,
                    journal,
                    store,
                    election,
                    lock,
                    over,
                    self._note,  # type: ignore[arg-type]
                )
                self.ready.set()
                self.member.run()
        except BaseException as error:
            self.error = error
            self.ready.set()

    def _note(self, _: object) -> None:
        self.led += 1

    def wait_for(self, state: str, labels: int | None = None) -> None:
        def there() -> bool:
            assert self.error is None, self.error
            shown = self.member.shown
            return shown.state == state and (labels is None or shown.counts.labels_learned == labels)

        wait_until(there)

    def standby(self) -> Standby:
        """What it follows the journal with."""
        wait_until(lambda: self.member.standby is not None)
        return cast(Standby, self.member.standby)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


class Reading:
    """Reads the shared topic into a directory, in a thread: what a process beside an API does."""

    def __init__(self, stream: StreamSettings) -> None:
        self.stream, self._over = stream, threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.error or applied.read(stream.data))

    def _run(self) -> None:
        try:
            with closing(open_log(self.stream)) as log, closing(Replica(log, self.stream)) as replica:
                while not self._over.is_set():
                    replica.turn(0.02)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


class Cluster:
    """A log, a store, and learners.

    Parameters
    ----------
    log_url, prefix : of a Kafka; None: a file that they share
    uploads : whether each checkpoint goes to the store, and not only those that others have to go on from
    """

    def __init__(self, root: Path, log_url: str | None = None, prefix: str = "", *, uploads: bool = True) -> None:
        self._root, self._prefix, self._uploads = root, prefix, uploads
        self.log_url = log_url or f"sqlite:///{root / 'shared.db'}"
        (root / "store").mkdir(exist_ok=True)
        self.store = CheckpointStore((root / "store").as_uri())
        self.running: list[Running] = []
        self.options: dict[str, dict[str, Any]] = {}  # of the log, by who goes by them

    def stream(self, name: str) -> StreamSettings:
        store = {"checkpoints": (self._root / "store").as_uri()} if self._uploads else {}
        options = {"log": self.log_url, "prefix": self._prefix, **store, **self.options.get(name, {})}
        return StreamSettings(data=self._root / name, **options)

    def start(self, name: str, **options: object) -> Running:
        settings = LearnerSettings(**{"model": MODEL, "journal": "log", **options})  # type: ignore[arg-type]
        self.running.append(running := Running(self.stream(name), settings, self.store))
        return running

    def close(self) -> None:
        for running in self.running:
            running.stop()


@contextmanager
def cluster(root: Path, log_url: str | None = None, prefix: str = "", *, uploads: bool = True) -> Iterator[Cluster]:
    """Give a cluster, and end what runs in it."""
    warm.warm_up()  # what has to be compiled is, before anything is waited for
    registry.warm_up(MODEL.partition("?")[0])
    made = Cluster(root, log_url, prefix, uploads=uploads)
    try:
        yield made
    finally:
        made.close()
