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
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.waiting import wait_until

MODEL = "linear?bits=10&max_labels=4"


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


class Cluster:
    """A log, a store, and learners.

    Parameters
    ----------
    uploads : whether each checkpoint goes to the store, and not only those that others have to go on from
    """

    def __init__(self, root: Path, uploads: bool = False) -> None:
        self._root, self._uploads = root, uploads
        self.log_url = f"sqlite:///{root / 'shared.db'}"
        (root / "store").mkdir()
        self.store = CheckpointStore((root / "store").as_uri())
        self.running: list[Running] = []
        self.options: dict[str, dict[str, Any]] = {}  # of the log, by who goes by them

    def stream(self, name: str) -> StreamSettings:
        options = {"checkpoints": (self._root / "store").as_uri()} if self._uploads else {}
        return StreamSettings(data=self._root / name, log=self.log_url, **options, **self.options.get(name, {}))

    def start(self, name: str, **options: object) -> Running:
        settings = LearnerSettings(**{"model": MODEL, "journal": "log", **options})  # type: ignore[arg-type]
        self.running.append(running := Running(self.stream(name), settings, self.store))
        return running

    def close(self) -> None:
        for running in self.running:
            running.stop()


@contextmanager
def cluster(root: Path, uploads: bool = False) -> Iterator[Cluster]:
    """Give a cluster, and end what runs in it."""
    warm.warm_up()  # what has to be compiled is, before anything is waited for
    registry.warm_up(MODEL.partition("?")[0])
    made = Cluster(root, uploads)
    try:
        yield made
    finally:
        made.close()
