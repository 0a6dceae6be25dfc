"""Does the demo's stream move: does it drift, are its labels late, and does it end when it is told to?"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import pytest

from driftline.learner.quality.evaluate import Evaluation
from driftline.learner.registry import make_classifier
from driftline.stream.files.demo import ERA_S, LABELLED_SHARE, RATE, TICK_S, inbox, send_demo
from driftline.stream.files.reader import Row
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import decode_feedback, decode_message
from tests.clock import Clock
from tests.data import ROOT
from tests.place import read_all
from tests.waiting import wait_until


def test_the_texts_are_those_of_the_seed() -> None:
    def texts(seed: int) -> list[tuple[str, str | None]]:
        return [(item.message.text, item.label) for item in islice(inbox(seed), 500)]

    assert texts(1) == texts(1) != texts(2)
    first, again = next(inbox(1)), next(inbox(1))
    assert first.message.id != again.message.id, "two runs send two messages"


def test_people_could_have_written_it() -> None:
    texts = [item.message.text for item in islice(inbox(1), 3000)]
    assert not [text for text in texts if re.search(r"[{}]|\s\s", text)], "every gap is filled"
    assert len(set(texts)) > 2000
    assert all(10 < len(text) < 200 for text in texts)


def test_most_messages_get_a_label_some_seconds_late() -> None:
    items = list(islice(inbox(1), 3000))
    labelled = [item for item in items if item.label is not None]
    assert len(labelled) / len(items) == pytest.approx(LABELLED_SHARE, abs=0.05)
    assert 3 < np.median([item.delay_s for item in labelled]) < 8
    kinds = Counter(item.label for item in labelled)
    assert set(kinds) == {"billing", "delivery", "account", "praise", "spam", "outage"}


def test_what_is_said_changes_and_a_model_notices() -> None:
    """Alarms that predictions got worse come when the wording changes, and at no other time."""
    rows, era = [], []
    for number, item in enumerate(islice(inbox(5), int(4 * ERA_S * RATE))):
        if item.label is not None:
            rows.append(Row(None, item.message.text, item.label, number))
            era.append(number / RATE / ERA_S)
    evaluation = Evaluation(make_classifier("blend"), 40, "blend")
    for start in range(0, len(rows), 200):
        evaluation.add(rows[start : start + 200])
    result = evaluation.finish()
    worse = [era[shift.at_label - 1] for shift in result.shifts if shift.column is None and shift.change == "worse"]
    assert worse
    assert all(abs(at - round(at)) < 0.1 and round(at) > 0 for at in worse), worse
    assert 0.75 < result.accuracy < 0.97


def test_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = StreamSettings(data=tmp_path), Clock()
    monkeypatch.setattr("driftline.stream.files.demo.time", clock)
    waits = iter([False] * 25 + [True])
    with closing(open_log(stream)) as log:

        def stopped(seconds: float) -> bool:
            clock.now += seconds
            return next(waits)

        sent = send_demo(log, stream.topics, stopped, rate=200.0)
    messages = [decode_message(record.value or b"") for record in read_all(stream, "messages")]
    labels = [decode_feedback(record.value or b"") for record in read_all(stream, "feedback")]
    assert len(messages) == sent
    assert sent == pytest.approx(25 * TICK_S * 200, abs=1)
    assert len({message.id for message in messages}) == sent
    assert 0 < len(labels) < sent * 0.7, "they come later"
    assert {label.message_id for label in labels} <= {message.id for message in messages}


def test_the_command(tmp_path: Path) -> None:
    """`driftline up --demo` has a directory of its own, moves, and ends with Ctrl-C."""
    command = [sys.executable, "-m", "driftline", "up", "--demo", "--port", "0", "--model", "linear?bits=16"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            url = next(found[0] for line in lines if (found := re.findall(r"http://[0-9.:]+", line)))
            wait_until(lambda: httpx.get(f"{url}/model", timeout=30).json()["labels_learned"] > 5, 180, "it learns")
            wait_until(
                lambda: httpx.get(f"{url}/label-requests", timeout=30).json()["open"] > 0,
                180,
                "there is something to label",
            )
            assert httpx.get(url, timeout=30).status_code == 200
            assert (tmp_path / "driftline-demo" / "log.db").exists()
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(60) == 0, rest
        finally:
            process.kill()
    assert "Stopped. Everything is in driftline-demo" in rest


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
