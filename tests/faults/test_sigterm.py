"""SIGTERM: the batch is finished, a checkpoint written, exit code 0; at full speed, by default. In `make torture`, on a
machine with nothing else to do, all within ten seconds.

While the broker is away: test_kafka.py. While the disk is full: test_disk_faults.py.
"""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.learner.report.status import read_status
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, encode
from tests.data import ROOT
from tests.faults.tally import tally
from tests.often import TORTURE, times
from tests.waiting import wait_until

TIMES = times(20, 1)
N_LABELS = 400_000 if TORTURE else 60_000
CHUNK = 10_000
WITHIN_S = 10 if TORTURE else 60
TRIES = 5  # to find it at work: who looks may be held up until it is at the end


def label(number: int) -> NewRecord:
    """Return a label with its text."""
    feedback = Feedback(f"m{number}", "ab"[number % 2], text=f"text {number} of words {number % 97}")
    return NewRecord(feedback.message_id.encode(), encode(feedback))


def append(stream: StreamSettings, numbers: range) -> None:
    """Append labels."""
    with contextlib.closing(open_log(stream)) as log:
        log.create_topics(stream.topics)
        for first in numbers[::CHUNK]:
            log.append(stream.topics.feedback, list(map(label, range(first, first + CHUNK))))


@pytest.mark.parametrize("then", ["goes on", "fails"])
def test_a_signal_that_comes_while_a_library_calls_back_is_heard_all_the_same(then: str) -> None:
    """What is raised inside a callback goes no further: a long start went on then, or failed of what was lost there."""
    program = f"""
        import contextlib, os, signal, sys, tempfile, time
        from pathlib import Path
        from driftline.learner.loop import service
        from driftline.learner.disk.settings import LearnerSettings
        from driftline.stream.process.settings import StreamSettings

        def open_log(_):
            with contextlib.suppress(BaseException):  # as librdkafka's and ctypes' callbacks do
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            if {then!r} == "fails":
                raise RuntimeError("no compiled object yet")
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                time.sleep(0.01)
            raise SystemExit("the signal was lost")

        service.open_log = open_log
        status = service.learn(StreamSettings(data=Path(tempfile.mkdtemp())), LearnerSettings())
        assert status.state == "stopped", status
        """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env=environment, check=True, timeout=300)


def test_at_full_speed(tmp_path: Path) -> None:
    stream = StreamSettings(data=tmp_path / "data")
    learned, slowest, appended, found_at_work = 0, 0.0, 0, 0
    while found_at_work < TIMES:
        if learned == appended:
            assert appended < TRIES * N_LABELS, "it was at the end already, each time"
            append(stream, range(appended, appended + N_LABELS))
            appended += N_LABELS
        command = [sys.executable, "-m", "driftline", "learn", "--data", str(stream.data)]
        with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:

            def goes_on(process: subprocess.Popen[bytes] = process, before: int = learned) -> bool:
                status = read_status(stream.data)
                return bool(status and status.pid == process.pid and status.counts.labels_learned > before)

            wait_until(goes_on, 60, "it is at full speed")
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0
            slowest = max(slowest, time.monotonic() - started)
        status = read_status(stream.data)
        assert status is not None
        assert status.state == "stopped"
        manifest = load_checkpoint(list_checkpoints(stream.data / "checkpoints")[0]).manifest
        assert manifest.batch == status.batch
        learned = manifest.counts.labels_learned
        found_at_work += learned < appended
    tally(
        "SIGTERM at full speed, `blend`: a checkpoint and exit code 0 within 10 s",
        "make torture ONLY=test_sigterm",
        TIMES,
        slowest_s=round(slowest, 1),
    )
