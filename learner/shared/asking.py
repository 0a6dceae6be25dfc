"""How does anybody ask for something that is to hold on all machines?

He appends a record to the shared topic (topic.py); each machine carries it out, his own, too, in the topic's order.
"""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.rebuild.erase import Request
from driftline.learner.serving.choices import Active
from driftline.learner.serving.versions import Pin
from driftline.learner.shared import applied, topic
from driftline.learner.shared.claims import Wanted, name_of
from driftline.stream.errors import StateError
from driftline.stream.log.base import Log, NewRecord

POLL_S: Final = 0.02


def choose(version: str | None) -> NewRecord:
    """Have a version served in the latest's place, or with None the latest."""
    return NewRecord(topic.CHOICE.encode(), msgspec.json.encode(Active(version, _now())))


def pin(version: str, name: str) -> NewRecord:
    """Never drop a version."""
    return NewRecord(f"{topic.PIN}{version}".encode(), msgspec.json.encode(Pin(name, _now())))


def unpin(version: str) -> NewRecord:
    """Let a version be dropped again."""
    return NewRecord(f"{topic.PIN}{version}".encode(), None)


def erasure(ids: Sequence[str] = (), sources: Sequence[str] = ()) -> Request:
    """Return the request for something to be erased."""
    return Request(at=_now(), ids=sorted(set(ids)), sources=sorted(set(sources)))


def erase(request: Request) -> NewRecord:
    """Have something erased."""
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"  # two may ask at once
    return NewRecord(f"{topic.ERASE}{name}".encode(), msgspec.json.encode(request))


def claim(wanted: Wanted) -> NewRecord:
    """Have messages to label that nobody else is given meanwhile."""
    return NewRecord(f"{topic.CLAIM}{name_of(wanted.labeller).hex()}".encode(), msgspec.msgpack.encode(wanted))


def append(log: Log, data: Path, record: NewRecord) -> int:
    """Append a record to the topic that is read into a data directory; return its offset.

    Raises
    ------
    LogUnavailable : nobody knows whether it was appended.
    StateError : the data directory is one machine's own, or nobody can tell.
    """
    there = applied.read(data)
    if there is None:
        raise StateError(f"{data} is one machine's own: nobody reads the shared topic into it")
    (place,) = log.append(there.topic, [record])
    return place.offset


def ask(log: Log, data: Path, record: NewRecord, timeout_s: float) -> bool:
    """Append a record and wait until it is carried out in a data directory; tell whether it was. Raises as `append`."""
    offset, deadline = append(log, data, record), time.monotonic() + timeout_s
    while not (there := is_carried_out(data, record, offset)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return there


def is_carried_out(data: Path, record: NewRecord, offset: int) -> bool:
    """Tell whether a record that got this offset is carried out in a data directory. Raises StateError, OSError."""
    now = applied.read(data)
    if now is None:
        return False
    return (now.choice if record.key == topic.CHOICE.encode() else now.offset - 1) >= offset


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
