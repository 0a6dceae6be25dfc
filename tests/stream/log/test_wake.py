"""Who waits for a log that nothing comes into looks no more than now and then, and is woken by what comes."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.stream.log import wake
from driftline.stream.log.base import Log, NewRecord, Reader, TopicPartition
from driftline.stream.log.merge import Merger
from driftline.stream.log.open import open_log
from driftline.stream.log.wake import Wake
from driftline.stream.process.settings import StreamSettings
from tests.logs import APPENDER, run

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of writes")


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return StreamSettings(data=tmp_path)


@pytest.fixture
def log(stream: StreamSettings) -> Iterator[Log]:
    with contextlib.closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        yield log


@pytest.fixture(params=[pytest.param(True, marks=on_linux), False], ids=["told", "looking"])
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have Linux tell of writes, or not."""
    if not request.param:
        monkeypatch.setattr(wake, "_LIBC", None)
    return bool(request.param)


@contextlib.contextmanager
def merging(log: Log, stream: StreamSettings) -> Iterator[tuple[Merger, list[Reader]]]:
    partitions = [TopicPartition(topic, 0) for topic in stream.topics[:2]]
    readers = [log.reader({partition: 0}) for partition in partitions]
    with contextlib.ExitStack() as stack:
        for reader in readers:
            stack.callback(reader.close)
        yield Merger(readers, dict.fromkeys(partitions, 0), {}), readers


@on_linux
def test_a_write_of_any_process_wakes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with contextlib.closing(Wake(path)) as waiting:
        assert waiting.can_tell
        assert not waiting.wait(0.0)
        path.write_bytes(b"a")
        assert waiting.wait(60.0)
        assert not waiting.wait(0.0), "it tells once"
        writer = run("import sys; open(sys.argv[1], 'ab').write(b'b')", str(path))
        assert waiting.wait(60.0)
        writer.communicate(timeout=60)


def test_where_nobody_tells_it_says_so(tmp_path: Path) -> None:
    with contextlib.closing(Wake(tmp_path / "not there")) as waiting:
        assert not waiting.can_tell
        assert not waiting.wait(0.0)


@on_linux
def test_while_nothing_comes_nothing_is_looked_for(log: Log, stream: StreamSettings) -> None:
    """What idle costs: each look is a statement, and it was several hundred a second."""
    with merging(log, stream) as (merger, readers):
        merger.take(10, 0.0)
        looks = 0
        for reader in readers:
            fetch = reader.fetch

            def counted(max_records: int, timeout_s: float, fetch=fetch) -> list:  # type: ignore[no-untyped-def,type-arg]
                nonlocal looks
                looks += 1
                return fetch(max_records, timeout_s)

            reader.fetch = counted  # type: ignore[method-assign]
        assert len(merger.take(10, 0.5)) == 0
        assert looks == len(readers)


@pytest.mark.usefixtures("told")
def test_what_another_process_appends_is_taken(log: Log, stream: StreamSettings) -> None:
    with merging(log, stream) as (merger, _):
        assert len(merger.take(10, 0.0)) == 0
        writer = run(APPENDER, stream.log_url, stream.topics.messages, "writer")
        values: list[bytes | None] = []
        while len(values) < 300:
            values += [record.value for record in merger.take(1000, 60.0)]
        writer.communicate(timeout=60)
    assert values == [f"writer {i} {j}".encode() for i in range(60) for j in range(5)]


def test_a_take_that_waits_long_ends_with_what_comes(log: Log, stream: StreamSettings, told: bool) -> None:
    del told
    with merging(log, stream) as (merger, _):
        merger.take(10, 0.0)
        taken: list[int] = []
        thread = threading.Thread(target=lambda: taken.append(len(merger.take(10, 600.0))))
        thread.start()
        log.append(stream.topics.feedback, [NewRecord(b"k", b"v")])
        thread.join(60)
        assert taken == [1]
