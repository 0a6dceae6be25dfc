"""The oracle: a process of its own that sends labels and writes down each one that was acknowledged.

`python -m tests.faults.teller ACKNOWLEDGED COUNT append OPTIONS-AS-JSON` appends messages and, LATE messages later,
their labels to a log; `... post URL` posts labels with their texts to an API, each until it is acknowledged, whatever
dies meanwhile. A line of the file is written once its label was acknowledged.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.data import ROOT

LATE: Final = 15
RETRY_S: Final = 0.01
Note = Callable[[str, str], None]


def text(number: int) -> str:
    """Return a message's text."""
    return f"word{number % 7} and word{number % 11} of text {number}"


def label(number: int) -> str:
    """Return its label."""
    return "abc"[number % 3]


def command(acknowledged: Path, count: int, how: str, where: str) -> list[str]:
    """Return the command line of a teller."""
    return [sys.executable, "-m", "tests.faults.teller", str(acknowledged), str(count), how, where]


def fill(stream: StreamSettings, acknowledged: Path, count: int) -> dict[str, str]:
    """Let a teller fill a log; return the labels that were acknowledged, by message."""
    options = json.dumps(stream.model_dump(mode="json"))
    subprocess.run(command(acknowledged, count, "append", options), cwd=ROOT, check=True, timeout=240)
    return read(acknowledged)


def read(acknowledged: Path) -> dict[str, str]:
    """Return the labels that were acknowledged, by message."""
    found: dict[str, str] = {}
    for line in acknowledged.read_text().splitlines():
        message, given = line.split()
        assert message not in found, "acknowledged twice: then the oracle cannot tell"
        found[message] = given
    return found


def append(stream: StreamSettings, count: int, note: Note) -> None:
    """Append messages and their labels to a log."""
    now_ms = time.time_ns() // 1_000_000  # Kafka's retention goes by the records' own times
    with contextlib.closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        for number in range(count + LATE):
            at_ms = now_ms + 10 * number
            if number < count:
                message = Message(f"m{number}", text(number))
                log.append(stream.topics.messages, [NewRecord(message.id.encode(), encode(message), at_ms + 1)])
            if number >= LATE:
                known = number - LATE
                feedback = Feedback(f"m{known}", label(known))
                log.append(
                    stream.topics.feedback, [NewRecord(feedback.message_id.encode(), encode(feedback), at_ms + 5)]
                )
                note(f"m{known}", label(known))


def post(url: str, count: int, note: Note) -> None:
    """Post labels, each until it is acknowledged with 202; for some a message first."""
    address, connection = urlsplit(url).netloc, None
    for number in range(count):
        feedback = {"id": f"f{number}", "message_id": f"m{number}", "label": label(number), "text": text(number)}
        wanted = [("/feedback", feedback)]
        if number % 3 == 0:
            wanted.insert(0, ("/messages", {"id": f"m{number}", "text": text(number)}))
        for path, body in wanted:
            while True:
                connection = connection or http.client.HTTPConnection(address, timeout=30)
                try:
                    connection.request("POST", path, json.dumps(body))
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 202:
                        break
                    assert answer.status == 503, answer.status
                except (OSError, http.client.HTTPException):
                    connection.close()
                    connection = None
                time.sleep(RETRY_S)
        note(f"m{number}", label(number))


def main() -> None:
    """Tell what was acknowledged."""
    path, count, how, where = sys.argv[1:]
    with Path(path).open("w", buffering=1) as file:

        def note(message: str, given: str) -> None:
            print(message, given, file=file)

        if how == "append":
            append(StreamSettings(**json.loads(where)), int(count), note)
        else:
            post(where, int(count), note)


if __name__ == "__main__":
    main()
