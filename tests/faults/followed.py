"""A cluster on a real Kafka as its operator starts it: learners, and API replicas that follow them."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from driftline.learner.follow import service
from driftline.learner.report.status import read_status
from driftline.stream.process.settings import StreamSettings
from tests.faults.campaign import MODEL
from tests.faults.nursery import FOLLOW, Child, Nursery, Stop
from tests.ports import reserved
from tests.waiting import wait_until


def follow(options: str) -> None:
    """Be a follower: the process that `driftline serve --follow` has beside its API."""
    service.follow(StreamSettings(**json.loads(options)), 0.0)


class Cluster:
    """Learners and followers of one log, each with a directory of its own."""

    def __init__(self, nursery: Nursery, brokers: str, root: Path) -> None:
        self._nursery, self._root = nursery, root
        (root / "store").mkdir(parents=True)
        self._log = StreamSettings(
            log=f"kafka://{brokers}", prefix=f"{uuid4().hex}.", checkpoints=(root / "store").as_uri()
        )
        self.children: list[Child] = []
        self._learners: dict[str, Child] = {}

    def stream(self, name: str) -> StreamSettings:
        """Return the options of one of them."""
        return self._log.model_copy(update={"data": self._root / name})

    def _flags(self, name: str) -> Sequence[str]:
        stream = self.stream(name)
        named = {"data": stream.data, "log": stream.log_url, "prefix": stream.prefix, "checkpoints": stream.checkpoints}
        return [word for flag, value in named.items() for word in (f"--{flag}", str(value))]

    def learn(self, name: str, *more: str, stop: Stop | None = None) -> Child:
        """Start a learner that may lead."""
        fast = ("--session-s", "1", "--publish-interval-s", "0", "--checkpoint-interval-s", "0.5")
        command = ("learn", "--journal", "log", "--model", MODEL, *fast, *self._flags(name), *more)
        self._learners[name] = self._started(self._nursery.start(*command, stop=stop))
        return self._learners[name]

    def follow(self, name: str, stop: Stop | None = None) -> Child:
        """Start a follower without an API."""
        options = self.stream(name).model_dump_json(exclude_unset=True)
        return self._started(self._nursery.start(FOLLOW, options, stop=stop))

    def _started(self, child: Child) -> Child:
        self.children.append(child)
        return child

    @contextmanager
    def replica(self, name: str, *more: str) -> Iterator[str]:
        """Start an API that follows, give its URL once it answers, and end it."""
        with reserved() as port:
            command = ("serve", "--follow", "--port", str(port), "--publish-interval-s", "0", *self._flags(name), *more)
            child = self._started(self._nursery.start(*command))
            url = f"http://127.0.0.1:{port}"
            try:
                wait_until(lambda: answers(url) or not child.running(), 120)
                assert child.running(), child.said
                yield url
            except BaseException as error:
                error.add_note(child.said)
                raise
            finally:
                child.send(signal.SIGTERM)
                assert child.wait() == 0, child.said

    def serve(self, name: str, port: int) -> Child:
        """Start an API that follows, on a port."""
        command = ("serve", "--follow", "--port", str(port), "--publish-interval-s", "0", *self._flags(name))
        return self._started(self._nursery.start(*command))

    def state(self, name: str) -> str | None:
        """Return what a learner says of itself, and not what one said that was killed before it."""
        found = read_status(self.stream(name).data)
        return None if found is None or found.pid != self._learners[name].pid else found.state

    def close(self) -> None:
        """End all that runs."""
        for child in self.children:
            if child.running():
                child.send(signal.SIGTERM)
        for child in self.children:
            child.wait()


def answers(url: str) -> bool:
    """Tell whether an API is there."""
    try:
        return httpx.get(f"{url}/healthz", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def get(url: str) -> Any:
    """Return what is answered."""
    return httpx.get(url, timeout=30).json()


def post(url: str, body: dict[str, Any]) -> Any:
    """Return what is answered to a request that must be taken."""
    answer = httpx.post(url, json=body, timeout=60)
    assert answer.status_code in {200, 202}, answer.text
    return answer.json()
