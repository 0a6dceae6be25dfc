"""What probes are told of a learner: whether a new start may help, and whether it could learn now."""

import signal
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

import httpx
import pytest

from driftline.learner.report.health import Health
from driftline.learner.report.status import State, blank_status
from tests.faults.nursery import Nursery
from tests.ports import reserved
from tests.waiting import wait_until

DEAD = {"stalled", "failed"}
NOT_READY = DEAD | {"starting", "recovering", "waiting"}


@pytest.mark.parametrize("state", [None, *get_args(State)])
def test_who_is_alive_and_who_could_learn(state: State | None) -> None:
    status = None
    if state is not None:
        status = blank_status("linear")
        status.state, status.at = state, time.time()
    with closing(Health("127.0.0.1", 0, lambda: status)) as health:
        for path, refused in (("healthz", DEAD), ("readyz", NOT_READY)):
            answer = httpx.get(f"http://127.0.0.1:{health.port}/{path}", timeout=30)
            said = state or "starting"
            assert answer.json()["state"] == said
            assert answer.status_code == (503 if said in refused else 200), path


def test_one_that_waits_for_kafka_from_the_beginning_is_alive(nursery: Nursery, tmp_path: Path) -> None:
    """Else whatever supervises it would start it anew, for ever, while Kafka is away."""
    with reserved() as nobody, reserved() as port:
        log, data = f"kafka://127.0.0.1:{nobody}", str(tmp_path / "data")
        child = nursery.start("learn", "--log", log, "--data", data, "--health-port", str(port))
        url = f"http://127.0.0.1:{port}"

        def state() -> str | None:
            assert child.code is None, "it has ended"
            try:
                answer = httpx.get(f"{url}/healthz", timeout=30)
            except httpx.TransportError:
                return None
            assert answer.status_code == 200
            return str(answer.json()["state"])

        wait_until(lambda: state() == "waiting")
        ready = httpx.get(f"{url}/readyz", timeout=30)
        assert ready.status_code == 503
        assert str(nobody) in ready.json()["detail"]
        child.send(signal.SIGTERM)
        assert child.wait(60) == 0
