"""How soon does a search answer? `python -m bench.search [MESSAGES]`

Messages with made words (their shares fall as those of a language do), labels for half of them and predictions for all
go into an embedded log; a server of its own answers. What is measured is whole requests on one connection, on
loopback, of each kind many, each time with another word or label: GET /messages as the page asks it.
"""

import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from driftline.learner.catalogue.keeping import Keeper
from driftline.learner.rebuild.erase import CATALOGUE
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.flags import build_settings
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, Prediction, encode

ROOT: Final = Path(__file__).resolve().parent.parent
MESSAGES: Final = 100_000
WORDS: Final = 20_000
N_WORDS: Final = 30  # of a message
LABELS: Final = [f"label-{n}" for n in range(77)]
ASKED: Final = 100  # times, each kind


def fill(log: Log, stream: StreamSettings, n: int) -> None:
    """Append messages, predictions and labels."""
    rng = np.random.default_rng(1)
    shares = 1 / np.arange(1, WORDS + 1)
    for start in range(0, n, 1000):
        drawn = rng.choice(WORDS, (1000, N_WORDS), p=shares / shares.sum())
        records: dict[str, list[NewRecord]] = {name: [] for name in stream.topics[:3]}
        for number in range(start, min(n, start + 1000)):
            key = f"message-{number}"
            words = drawn[number - start].tolist()
            truth, told = LABELS[int(rng.integers(77))], LABELS[int(rng.integers(77))]
            told = truth if rng.random() < 0.9 else told
            score = float(rng.random())
            made = [
                encode(Message(key, " ".join(f"w{word}" for word in words))),
                encode(Feedback(key, truth, source=f"person-{number % 9}")),
                encode(Prediction(key, told, score, {told: score}, "v-1", "2026-01-01T00:00:00Z")),
            ]
            for topic, value in zip(stream.topics[:3], made, strict=True):
                if topic != stream.topics.feedback or number % 2:
                    records[topic].append(NewRecord(key.encode(), value))
        for topic, batch in records.items():
            log.append(topic, batch)


def kinds(rng: random.Random) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return how each kind of question is made."""

    def label() -> str:
        return rng.choice(LABELS)

    return {
        "first page": dict,
        "a common word": lambda: {"query": f"w{rng.randrange(10)}"},
        "a rare word": lambda: {"query": f"w{rng.randrange(1000, WORDS)}"},
        "two words": lambda: {"query": f"w{rng.randrange(20)} w{rng.randrange(20, 500)}"},
        "a beginning": lambda: {"query": f"w{rng.randrange(1, 10)}*"},
        "a phrase": lambda: {"query": f'"w{rng.randrange(5)} w{rng.randrange(5)}"'},
        "a label": lambda: {"label": label()},
        "mistakes": lambda: {"state": "mistakes"},
        "mistakes of a label": lambda: {"state": "mistakes", "label": label()},
        "unlabelled by doubt": lambda: {"state": "unlabelled", "order": "doubt"},
        "a common word by doubt": lambda: {"query": f"w{rng.randrange(10)}", "order": "doubt"},
        "a common word and a label": lambda: {"query": f"w{rng.randrange(10)}", "label": label()},
        "a source": lambda: {"source": f"person-{rng.randrange(9)}"},
        "what was predicted": lambda: {"predicted": label(), "state": "unlabelled"},
        "the last hour": lambda: {"since": time.time() - 3600, "order": "old"},
    }


def main() -> None:
    """Measure, and print."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    with tempfile.TemporaryDirectory() as directory:
        stream = build_settings(StreamSettings, {"data": Path(directory)})
        with closing(open_log(stream)) as log:
            log.create_topics(stream.topics)
            fill(log, stream, n)
        began = time.monotonic()
        Keeper(stream, 10**7).catch_up()
        seconds = time.monotonic() - began
        size = sum(path.stat().st_size for path in (stream.data / CATALOGUE).iterdir())
        log_size = (stream.data / "log.db").stat().st_size
        print(f"{n:,} messages read in {seconds:.1f} s, {n / seconds:,.0f} a second")
        print(f"the log {log_size / 1e6:,.0f} MB, the catalogue {size / 1e6:,.0f} MB", flush=True)
        arguments = ["serve", "--data", directory, "--port", "0", "--log-format", "json"]
        server = subprocess.Popen([sys.executable, "-m", "driftline", *arguments], cwd=ROOT, stderr=subprocess.PIPE)
        try:
            with httpx.Client(base_url=_url(server), timeout=60) as http:
                _measure(http)
        finally:
            server.terminate()
            server.wait()


def _url(server: "subprocess.Popen[bytes]") -> str:
    """Return where a server is, once it says so."""
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(rb"http://[0-9.]+:[0-9]+", line):
            return found[0].decode()
    raise SystemExit("the server has ended")


def _measure(http: httpx.Client) -> None:
    rng = random.Random(1)
    http.get("/messages")
    for name, make in kinds(rng).items():
        took = []
        for _ in range(ASKED):
            asked = make()
            start = time.perf_counter()
            answer = http.get("/messages", params=asked)
            took.append(time.perf_counter() - start)
            answer.raise_for_status()
        p50, p95 = np.percentile(np.array(took) * 1000, [50, 95])
        print(f"{name:28} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   worst {max(took) * 1000:6.1f} ms", flush=True)


if __name__ == "__main__":
    main()
