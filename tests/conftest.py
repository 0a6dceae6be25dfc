"""What several test files share: compiled kernels, a real Kafka, an empty log of each kind, and an API."""

import contextlib
import gc
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import httpx
import hypothesis
import pytest
from playwright.sync_api import Browser

# Not a package: tests/kafka must not stand in the way of kafka-python, whose package has that name.
sys.path.insert(0, str(Path(__file__).parent / "kafka"))

from broker import Broker, ContainerBroker, NoKafka, end_broker, start_broker
from shared import Shared, shared_broker

from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.registry import warm_up
from driftline.stream.log.base import Log
from driftline.stream.log.open import open_log
from driftline.stream.process.log_lines import FOLDERS, JsonLines, TextLines
from driftline.stream.process.settings import StreamSettings
from tests import chromium
from tests.beyond import needs_more_than_this_process
from tests.clock import Clock
from tests.faults.campaign import MODEL
from tests.faults.nursery import Nursery
from tests.faults.stage import Stage, open_stage
from tests.often import times
from tests.order import arrange
from tests.place import Api, Place, running

FAULTS = Path(__file__).parent / "faults"
WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # where there are several

# A busy machine is no failure, and a kernel's first call compiles it. In CI the same examples each time: new ones are
# looked for on the machines of those who can look at what they find.
hypothesis.settings.register_profile(
    "driftline",
    deadline=None,
    max_examples=times(200, 50),
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("driftline")


# A client of httpx reads all certificates that are known, 20 ms, before it asks for anything; of thousands one does.
ssl.create_default_context = cache(ssl.create_default_context)

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background: what is started here would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument and place: what is packed holds the time, and all workers must collect one list."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, nor later among what is there by then: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark what `make torture` runs (often.py), and what `make check` leaves out (beyond.py); put all into order."""
    for item in items:
        if item.path.is_relative_to(FAULTS) or getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.long)
        if needs_more_than_this_process(item):
            item.add_marker(pytest.mark.beyond)
    yield
    if WORKER:
        arrange(items, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Compile the default model's kernels: no process under test, each with its deadline, has to do it first."""
    warm_up(DEFAULT_MODEL)


@pytest.fixture(autouse=True)
def said_as_before() -> Iterator[None]:
    """Undo what a command that ran in this process has set for all of it: how, and from which level on, it speaks."""
    folders = [f"driftline.{folder}" for folder in FOLDERS]
    names = (None, "driftline", *folders, "uvicorn", "uvicorn.access", "librdkafka")
    loggers = [logging.getLogger(name) for name in names]
    levels, disabled = [each.level for each in loggers], [each.disabled for each in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    for logger, level, was_disabled in zip(loggers, levels, disabled, strict=True):
        logger.setLevel(level)
        logger.disabled = was_disabled
    for handler in list(loggers[0].handlers):
        if isinstance(handler.formatter, (JsonLines, TextLines)):
            loggers[0].removeHandler(handler)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def start_or_skip(directory: Path) -> Broker | ContainerBroker:
    """Return a broker that runs. Without one the test is skipped, in CI it fails."""
    try:
        return start_broker(directory)
    except NoKafka as error:
        do_without(error)


def do_without(error: NoKafka) -> NoReturn:
    reason = f"no Kafka for this test: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Give the broker that all tests share, of all workers; they must not stop it."""
    base = tmp_path_factory.getbasetemp()
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(shared_broker((base.parent if WORKER else base) / "kafka"))
        except NoKafka as error:
            do_without(error)
        yield broker


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """Give the address of a Kafka, host:port."""
    named = os.environ.get("DRIFTLINE_TEST_KAFKA")
    if named:
        return named
    broker: Shared = request.getfixturevalue("kafka_broker")
    return broker.bootstrap


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | ContainerBroker]:
    """Give a broker that only the tests of a file use: they may stop and kill it, if they start it again."""
    broker = start_or_skip(tmp_path_factory.mktemp("own") / "kafka")
    yield broker
    end_broker(broker)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Give the place that processes of the command line come from, at once."""
    with contextlib.closing(Nursery(MODEL, tmp_path_factory.mktemp("nursery"))) as nursery:
        yield nursery


@pytest.fixture
def command_line(nursery: Nursery, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Give the command line as a function: it runs in this test's directory, in a process of its own."""
    return partial(nursery.run, cwd=tmp_path, environment=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(params=["sqlite", "kafka"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """Give an empty log of one partition."""
    with open_stage(request, tmp_path) as stage:
        yield stage


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Give an API that has a model; the tests of a file share it."""
    place = Place(tmp_path_factory.mktemp("api"), partitions=2)
    place.publish()
    place.report()
    # What schemathesis asks for may wait for labels that never come.
    with running(place.stream, max_wait_s=0.05) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Api(place, url, http)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a place of this test's own."""
    return Place(tmp_path)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give an API without keys; the tests of a file share it."""
    place = Place(tmp_path_factory.mktemp("gate"))
    place.publish()
    with running(place.stream) as url:
        yield url


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock of rates, which stands still."""
    clock = Clock()
    monkeypatch.setattr("driftline.api.access.rate.time", clock)
    return clock


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give the system's Chromium."""
    with chromium.started() as browser:
        yield browser


@pytest.fixture
def prefix() -> str:
    """Give a prefix that no other test's topics have."""
    return f"t{uuid4().hex[:12]}."


@pytest.fixture
def topic(prefix: str) -> str:
    """Give the name of this test's topic."""
    return prefix + "messages"


@pytest.fixture
def opened(prefix: str) -> Iterator[Callable[..., Log]]:
    """Open logs that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def opener(url: str, **options: Any) -> Log:
            settings = StreamSettings(log=url, prefix=prefix, **options)
            log = open_log(settings)
            stack.callback(log.close)
            return log

        yield opener
