"""What the tests of both logs share: records, readers, and a process that appends."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

from driftline.stream.log.base import Log, NewRecord, Reader, Record, TopicPartition
from tests.data import ROOT

Open = Callable[..., Log]


def new(*values: bytes, key: bytes | None = b"k", **fields: Any) -> list[NewRecord]:
    return [NewRecord(key, value, **fields) for value in values]


def numbered(n: int, start: int = 0) -> list[NewRecord]:
    return [NewRecord(b"%d" % i, b"value %d" % i) for i in range(start, start + n)]


def read_all(reader: Reader, n: int, timeout_s: float = 60.0, batch: int = 1000) -> list[Record]:
    """Read until n records are there."""
    records: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(records) < n and time.monotonic() < deadline:
        records += reader.read(batch, 0.2)
    assert len(records) == n
    return records


def run(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a Python process of this project."""
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})


APPENDER = """
    import sys
    from driftline.stream.log.base import NewRecord
    from driftline.stream.log.open import open_log
    from driftline.stream.process.settings import StreamSettings

    url, topic, name = sys.argv[1:]
    log = open_log(StreamSettings(log=url))
    for i in range(60):
        for place in log.append(topic, [NewRecord(b"%d" % (i + j), f"{name} {i} {j}".encode()) for j in range(5)]):
            print(place.partition, place.offset, flush=False)
    log.close()
"""


@contextlib.contextmanager
def reading(log: Log, topic: str, *positions: int) -> Iterator[Reader]:
    """Give a reader of a topic's partitions from these positions on."""
    reader = log.reader({TopicPartition(topic, p): position for p, position in enumerate(positions)})
    with contextlib.closing(reader):
        yield reader
