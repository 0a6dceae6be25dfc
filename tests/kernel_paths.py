"""Which kernels are compiled, or loaded compiled, only where they are used? A program, in a process of its own.

It warms up as the image and `make kernels` do, goes the main ways of learner, API and commands with each classifier, in
a process that is forked for it, and prints it with each kernel's signature that came only then.
`python -m tests.kernel_paths DIRECTORY KAFKA MODEL...`, where KAFKA may be "".
"""

import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from msgspec import Raw
from numba.core.registry import CPUDispatcher

from driftline.learner.disk import checkpoint
from driftline.learner.disk.rebuilt import LeftOut
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.service import learn, take_over
from driftline.learner.loop.warm import warm_up_all
from driftline.learner.quality.evaluate import Evaluation
from driftline.learner.rebuild import rebuild, verify
from driftline.learner.registry import build_saved, make_classifier
from driftline.stream.files.reader import Row
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode
from tests.place import running

TEXTS = [
    "You won a prize, call 0906",
    "Running late, see you",
    "Ça va où? \U0001f600 très",
    "",
    "e\u0301te\u0301 sp\u200bam",
    "CALL now " * 600,
]
BEGAN_MS = time.time_ns() // 1_000_000  # the order of the records is the same each time
LABELS = ["spam", "ham", "drôle"]


def signatures() -> set[tuple[str, str]]:
    """Return each kernel of ours with the types that this process has machine code of it for."""
    ours = [
        module for name, module in sys.modules.items() if name.startswith(("driftline.stream.", "driftline.learner."))
    ]
    return {
        (f"{kernel.__module__}.{kernel.__name__}", str(types))
        for module in ours
        for kernel in vars(module).values()
        if isinstance(kernel, CPUDispatcher)
        for types in kernel.overloads
    }


def records(start: int) -> Iterator[tuple[str, NewRecord]]:
    """Give ordinary records and odd ones: to either the scan in columns or msgspec's way is open, or none."""
    for number in range(start, start + 60):
        key, text = b"m%d" % number, TEXTS[number % len(TEXTS)]
        yield (
            "messages",
            NewRecord(
                key, encode(Message(key.decode(), text, metadata=Raw(b'{"a":%d}' % number if number % 7 else b"{}")))
            ),
        )
        if number % 5:
            label = LABELS[number % (2 if number < 40 else 3)]
            late = text if number % 11 == 0 else None
            feedback = Feedback(key.decode(), label, id=f"f{number}", source="user:1", weight=0.5, text=late)
            yield "feedback", NewRecord(key, encode(feedback))
    for value in (b"no JSON", b"", b'{"id": "a\\u00e9\\n", "text": "\\ud83d\\ude00 esc\\"aped"}', b'{"id":1}'):
        yield "messages", NewRecord(b"odd", value)
        yield "feedback", NewRecord(b"odd", value)
    known = b"m%d" % start
    yield "feedback", NewRecord(known, encode(Feedback(known.decode(), "ham", id="other")))  # a correction
    yield "feedback", NewRecord(known, encode(Feedback(known.decode(), "ham", op="retract")))
    yield "feedback", NewRecord(b"early", encode(Feedback("early", "spam")))
    head = [("content-type", b"application/json"), ("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_id", b"c")]
    head.append(("ce_source", b"s"))
    yield "messages", NewRecord(b"early", encode(Message("early", TEXTS[0])), headers=head)


def learn_some(stream: StreamSettings, settings: LearnerSettings, start: int) -> None:
    log = open_log(stream)
    log.create_topics(stream.topics)
    for turn, (topic, record) in enumerate(records(start)):
        log.append(getattr(stream.topics, topic), [record._replace(timestamp_ms=BEGAN_MS + start + turn)])
    log.close()
    learn(stream, settings, stop_at_end=True)


def prove(stream: StreamSettings) -> None:
    """Verify, and build the model anew."""
    log = open_log(stream)
    try:
        (*_, pair) = verify.pairs(stream.data / "checkpoints")
        verdict = verify.verify(stream.data, log, *pair, allow_pickle=stream.allow_pickle)
        assert verdict.outcome == "same", verdict
        rebuild.stage(stream.data, log, LeftOut(ids=["m3"]), None, allow_pickle=stream.allow_pickle)
        take_over(stream, log)
    finally:
        log.close()


def ask(stream: StreamSettings) -> None:
    with running(stream) as url, httpx.Client(base_url=url, timeout=60) as http:
        for text in TEXTS:
            assert http.post("/predict", json={"text": text}).is_success
            assert http.post("/explain", json={"text": text}).is_success
        assert http.post("/predict", json={"texts": TEXTS * 20}).is_success
        assert http.post("/messages", json={"text": TEXTS[0]}).is_success
        sent = http.post("/feedback", json={"message_id": "new", "label": "spam", "text": "call"})
        assert sent.is_success
        for shown in ("/model", "/history", "/drift", "/label-requests", "/recent", "/labels", "/metrics"):
            assert http.get(shown).is_success


def call(model: str) -> None:
    """Call a classifier as the commands and a library's user do."""
    classifier = make_classifier(model, allow_pickle=True)
    for text, label in zip(TEXTS, LABELS * 2, strict=False):
        classifier.learn_one(text, label)
        classifier.predict_one(text)
        classifier.predict_proba_one(text)
    classifier.learn_many(TEXTS * 5, (LABELS * 10)[: 5 * len(TEXTS)])
    classifier.predict_proba_many(TEXTS * 5)
    again = build_saved(classifier.config(), allow_pickle=True)
    state = {name: np.array(array) for name, array in classifier.state().items()}
    again.load_state(state, classifier.labels)
    again.learn_many(TEXTS, ["spam"] * len(TEXTS))
    again.explain_one(TEXTS[0])
    evaluation = Evaluation(make_classifier(model, allow_pickle=True), 3, model)
    pairs = zip(TEXTS * 8, LABELS * 14, strict=False)
    evaluation.add([Row(None, text, label, line) for line, (text, label) in enumerate(pairs, 1)])
    evaluation.finish()


def main(directory: Path, kafka: str, *models: str) -> None:
    """Go all of the ways with each model, and print what came late."""
    warm_up_all()
    warmed = signatures()
    for number, model in enumerate(models):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                go(directory / str(number), model, kafka)
                for name, types in sorted(signatures() - warmed):
                    print(model, name, types, sep="\t", flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, model
    print(f"{len(warmed)} were there before", file=sys.stderr)


def go(directory: Path, model: str, kafka: str) -> None:
    """Go all of the ways."""
    where = {"log": f"kafka://{kafka}", "prefix": f"k{time.time_ns()}."} if kafka else {}
    stream = StreamSettings(data=directory, partitions=2, allow_pickle=":" in model, **where)
    settings: dict[str, Any] = {"model": model, "source_quota": "50/min", "expire_as": "ham", "window_messages": 40}
    learn_some(stream, LearnerSettings(**settings), 0)
    learn_some(stream, LearnerSettings(**settings), 100)
    assert len(checkpoint.list_checkpoints(directory / "checkpoints")) > 1
    ask(stream)
    prove(stream)
    call(model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
