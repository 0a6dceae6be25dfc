"""At full speed for an hour: memory, open files, threads and disk stay what they are once it is warm.

A learner and an API, processes of their own, on the embedded log, with small limits so that each is reached early: the
window is full, the log drops records, checkpoints and journals go. Labels are posted and predictions asked for all the
while. `make torture` takes an hour, `make test` a few seconds; DRIFTLINE_SOAK_S says otherwise. Where
DRIFTLINE_SOAK_CURVE names a file, what was seen every ten seconds goes there, line by line.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from driftline.learner.report.status import Status, read_status
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.data import ROOT
from tests.faults.curve import Sample, sample, slope, write
from tests.faults.serving import api
from tests.faults.tally import tally
from tests.often import TORTURE
from tests.waiting import wait_until

SOAK_S: Final = float(os.environ.get("DRIFTLINE_SOAK_S") or (3600 if TORTURE else 4))
CURVE: Final = os.environ.get("DRIFTLINE_SOAK_CURVE")
LONG: Final = SOAK_S >= 300  # below that the slope is mostly noise
WARM: Final = 0.25  # of the time
BACKLOG: Final = 150_000  # records that wait to be learned, so that it is never at the end
CHUNK: Final = 5000 if LONG else 1000
LEAST: Final = 8  # samples, however busy the machine is
SAMPLE_S: Final = min(10.0, SOAK_S / 240)
GROWTH_KIB: Final = 24 << 10  # of a process, and of the disk, once it is warm
FREE_BYTES: Final = 96 << 20  # in the log's file, of some 400 MB: retention frees in chunks, appending takes them
MORE: Final = 4  # open files and threads that may come and go
OPTIONS: Final = ("--window-messages", "50000", "--checkpoint-interval-s", "2", "--retention-bytes", str(96 << 20))


def records(count: Iterator[int]) -> tuple[list[NewRecord], list[NewRecord]]:
    """Return the next messages and their labels."""
    numbers = list(itertools.islice(count, CHUNK))
    texts = [f"word{n % 7919} and word{n % 104729} of text {n % 1009} about {n % 3}" for n in numbers]
    messages = [NewRecord(b"%d" % n, encode(Message(str(n), text))) for n, text in zip(numbers, texts, strict=True)]
    return messages, [NewRecord(b"%d" % n, encode(Feedback(str(n), "abc"[n % 3]))) for n in numbers]


def feed(log: Log, stream: StreamSettings, status: Status, count: Iterator[int]) -> bool:
    """Append more where little waits; tell whether that was so."""
    highs = sum(mark.high for mark in log.watermarks(stream.topics[:2]).values())
    if highs - sum(sum(each.values()) for each in status.positions.values()) > BACKLOG:
        return False
    messages, labels = records(count)
    log.append(stream.topics.messages, messages)
    log.append(stream.topics.feedback, labels)
    return True


def ask(client: httpx.Client, number: int) -> None:
    """Use the API as clients do."""
    asked = client.post("/predict", json={"text": f"word{number} of a text"})
    label = {"message_id": f"posted-{number}", "label": "a", "text": f"posted {number}"}
    told = client.post("/feedback", json=label)
    assert {asked.status_code, told.status_code} <= {200, 202, 503}  # 503: not in time, on an overloaded machine


def ready(stream: StreamSettings, log: Log, client: httpx.Client) -> None:
    """Return once a first label was learned and is served."""
    log.append(stream.topics.feedback, [NewRecord(b"first", encode(Feedback("first", "a", text="the first")))])
    wait_until(lambda: client.post("/predict", json={"text": "a"}).is_success, 60, "a first label is served")


def soak(stream: StreamSettings, log: Log, client: httpx.Client, pids: Sequence[int]) -> list[Sample]:
    """Go on for the time, and look now and then."""
    found: list[Sample] = []
    started, count = time.monotonic(), itertools.count()
    while (now := time.monotonic() - started) < SOAK_S or len(found) < LEAST or not goes_on(found):
        status = read_status(stream.data)
        assert status is not None
        assert status.state in {"running", "waiting"}, status.detail  # it waits where the machine is overloaded
        if not feed(log, stream, status, count):
            time.sleep(0.05)
        with contextlib.suppress(httpx.TransportError):  # a connection that was kept and then closed
            ask(client, next(count))
        if not found or now - found[-1].at_s > SAMPLE_S:
            found.append(sample(started, pids, stream.data, status.counts.labels_learned))
            if CURVE:
                write(Path(CURVE), found)
    return found


def split(found: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples from before it was warm, and those since."""
    cold = [each for each in found if each.at_s <= WARM * found[-1].at_s]
    return cold, found[len(cold) :]


def goes_on(found: list[Sample]) -> bool:
    """Tell whether anything was learned since it was warm."""
    cold, warm = split(found)
    return bool(cold and warm) and warm[-1].learned > cold[-1].learned


def figures(warm: list[Sample]) -> dict[str, object]:
    """Return what is to be told."""
    first, last = warm[0], warm[-1]
    return {
        "minutes_warm": round((last.at_s - first.at_s) / 60, 1),
        "labels": last.learned,
        "labels_per_s": round((last.learned - first.learned) / (last.at_s - first.at_s)),
        "learner_mb": round(last.learner_bytes / 1e6),
        "learner": str(slope(warm, "learner_bytes")),
        "api_mb": round(last.api_bytes / 1e6),
        "api": str(slope(warm, "api_bytes")),
        "open_files_most": max(each.files for each in warm),
        "threads_most": max(each.threads for each in warm),
        "disk_mb_most": round(max(each.disk_bytes for each in warm) / 1e6),
        "log_free_mb_most": round(max(each.log_free_bytes for each in warm) / 1e6),
        "disk": str(slope(warm, "disk_bytes")),
    }


@pytest.mark.timeout(SOAK_S + 900)
def test_nothing_grows(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data", retention_bytes=96 << 20)
    command = [sys.executable, "-m", "driftline", "learn", "--data", str(stream.data), *OPTIONS]
    served: list[int] = []
    with (
        contextlib.closing(open_log(stream)) as log,
        subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as learner,
        api(stream, served) as client,
    ):
        log.create_topics(stream.topics)
        wait_until(lambda: (status := read_status(stream.data)) and status.state == "running", 120, "it runs")
        try:
            ready(stream, log, client)
            found = soak(stream, log, client, (learner.pid, *served))
            learner.send_signal(signal.SIGTERM)
            assert learner.wait(60) == 0
        finally:
            learner.kill()
    cold, warm = split(found)
    told = figures(warm)
    print(told)
    assert goes_on(found)
    for each in ("files", "threads"):
        assert max(getattr(s, each) for s in warm) <= max(getattr(s, each) for s in cold) + MORE, told
    if LONG:
        minutes = (warm[-1].at_s - warm[0].at_s) / 60
        for of in ("learner_bytes", "api_bytes", "disk_bytes"):
            assert slope(warm, of).kib_per_minute * minutes < GROWTH_KIB, told
        assert max(each.log_free_bytes for each in warm) < FREE_BYTES, told
        tally("minutes at full speed, soaked", "make torture ONLY=test_soak", round(SOAK_S / 60), **told)
