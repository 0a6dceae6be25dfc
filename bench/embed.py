"""What does a sentence model add to `blend`, and what does it cost?

    python -m bench.embed MODEL DATA [--only banking77,sms_spam] [--rows 15000]

MODEL is what `blend?embed=` takes, DATA a directory of labelled streams, *.jsonl.gz with `text` and `label`.

1. Texts a second, beside the bare tokenizer and ONNX session on the same texts, both in turns in one process, by one
   thread: the median of the turns' ratios, in processor time. What is made of each stream's first texts.
2. Of each stream: accuracy and log loss so far, each text scored before it is learned, without a sentence model and
   with it, every text having its vector; and the errors of the 500 texts behind the first 1,000 labels.
3. What POST /predict takes, p50 and p99, one text at a time, of a model without and with it, while nothing else
   happens, and while another client asks for many texts at once.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from driftline.learner.embed.embedder import Embedder
from driftline.learner.embed.files import find_files
from driftline.learner.embed.hub import fetch, hub_name
from driftline.learner.embed.opened import open_embedder
from driftline.learner.registry import make_classifier
from driftline.learner.serving.snapshot import Publisher, SnapshotInfo

AFTER: Final = (500, 1_000, 2_000, 5_000, 10_000)
BEHIND: Final = slice(1_000, 1_500)
BATCH: Final = 500
SPEED_TEXTS: Final = 500
TURNS: Final = 7
ASKED: Final = 1_000  # texts, one by one
MANY: Final = 200  # at once, by another client
START_S: Final = 120.0

Stream = list[tuple[str, str]]


class Scored(NamedTuple):
    """What came of each text of a stream."""

    right: NDArray[np.bool_]
    loss: NDArray[np.float64]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="", help="streams, by their names, with commas between")
    parser.add_argument("--rows", type=int, default=15_000)
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else None
    paths = [path for path in sorted(options.data.glob("*.jsonl.gz")) if not wanted or path.name[:-9] in wanted]
    streams = {path.name[:-9]: read(path, options.rows) for path in paths}
    _print_speed(options.model, streams)
    _print_accuracy(options.model, streams)
    _print_requests(options.model, next(iter(streams.values())))


def read(path: Path, most: int) -> Stream:
    """Return a stream's first rows."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = map(json.loads, islice(file, most))
        return [(row["text"], row["label"]) for row in rows]


# 1


class Bare:
    """The two libraries alone: a text's tokens, and what the session makes of them."""

    def __init__(self, model: str, embedder: Embedder) -> None:
        import onnxruntime  # noqa: PLC0415  (the extra)
        from tokenizers import Tokenizer  # noqa: PLC0415  (likewise)

        name = hub_name(model)
        files = find_files(Path(model) if name is None else fetch(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(embedder.max_tokens)
        self._session = onnxruntime.InferenceSession(str(files.onnx), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, texts: Sequence[str]) -> None:
        for text in texts:
            encoding = self._tokenizer.encode(text)
            found = {
                "input_ids": encoding.ids,
                "attention_mask": encoding.attention_mask,
                "token_type_ids": encoding.type_ids,
            }
            self._session.run(None, {name: np.array([found[name]], np.int64) for name in self._inputs})


def _print_speed(model: str, streams: dict[str, Stream]) -> None:
    embedder = open_embedder(model)
    assert embedder is not None
    bare = Bare(model, embedder)
    print(f"{model}: {embedder.dimension} numbers, onnxruntime {embedder.runtime}, probe {embedder.probe}\n")
    print("| stream | characters a text | bare, texts/s | embed, texts/s | ratio |\n|---|---|---|---|---|")
    for name, stream in streams.items():
        texts = [text for text, _ in stream[:SPEED_TEXTS]]
        taken = []
        for _ in range(TURNS):
            begin = time.process_time()
            bare(texts)
            middle = time.process_time()
            embedder.vectors(texts, threads=1)
            taken.append((middle - begin, time.process_time() - middle))
        n_bare, n_ours = (len(texts) / median(each) for each in zip(*taken, strict=True))
        ratio = median(of_bare / ours for of_bare, ours in taken)
        chars = sum(map(len, texts)) / len(texts)
        print(f"| {name} | {chars:.0f} | {n_bare:,.0f} | {n_ours:,.0f} | {ratio:.2f} |", flush=True)


# 2


def score(model: str, stream: Stream) -> Scored:
    """Score each text, then learn it."""
    classifier = make_classifier(model)
    right, loss = np.zeros(len(stream), np.bool_), np.zeros(len(stream))
    for begin in range(0, len(stream), BATCH):
        part = stream[begin : begin + BATCH]
        targets = np.array([classifier.label_index(label) for _, label in part], np.int32)
        texts = classifier.complete([text for text, _ in part])
        scores = classifier.score_and_learn(texts, targets, np.ones(len(part), np.float32))
        own = scores[np.arange(len(part)), targets]
        right[begin : begin + len(part)] = (scores.argmax(axis=1) == targets) & (own > 0)
        loss[begin : begin + len(part)] = -np.log(np.maximum(own, 1e-6))
    return Scored(right, loss)


def _print_accuracy(model: str, streams: dict[str, Stream]) -> None:
    of_parts = " | ".join(f"after {n:,}" for n in AFTER)
    print(f"\n| stream | {of_parts} | whole | errors | errors, 1,000 to 1,500 | log loss |")
    print("|---" * (len(AFTER) + 5) + "|")
    for name, stream in streams.items():
        without, with_ = score("blend", stream), score(f"blend?embed={model}", stream)
        cells = [
            f"{without.right[:n].mean():.4f} {with_.right[:n].mean():.4f}" if n <= len(stream) else ""
            for n in (*AFTER, len(stream))
        ]
        whole, behind = ((~with_.right[at]).sum() / max((~without.right[at]).sum(), 1) for at in (slice(None), BEHIND))
        loss = f"{without.loss.mean():.4f} {with_.loss.mean():.4f}"
        print(f"| {name} | {' | '.join(cells)} | {whole:.3f} | {behind:.3f} | {loss} |", flush=True)


# 3


def _print_requests(model: str, stream: Stream) -> None:
    texts = [text for text, _ in stream]
    print("\n| model | alone, ms p50 / p99 | beside a client that asks for many, ms p50 / p99 |\n|---|---|---|")
    for spec, shown in (("blend", "`blend`"), (f"blend?embed={model}", "`blend?embed=`")):
        with tempfile.TemporaryDirectory() as directory, _serving(spec, stream, Path(directory)) as url:
            alone = _ask(url, texts)
            with _asked_for_many(url, texts):
                beside = _ask(url, texts)
        print(f"| {shown} | {_shares(alone)} | {_shares(beside)} |", flush=True)


@contextmanager
def _serving(spec: str, stream: Stream, directory: Path) -> Iterator[str]:
    """Serve a model that has learned a stream's first texts."""
    classifier = make_classifier(spec)
    texts, labels = zip(*stream[:2_000], strict=True)
    classifier.learn_many(texts, labels)
    info = SnapshotInfo(
        version="bench-1",
        epoch=1,
        model=classifier.spec,
        config=classifier.config(),
        labels=classifier.labels,
        labels_learned=len(texts),
        feedback_offsets={"0": len(texts)},
        published_at=time.time(),
    )
    with closing(Publisher(directory / "snapshots", 1)) as publisher:
        publisher.publish(classifier, info)
    with closing(_free_socket()) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "driftline", "serve", "--data", str(directory), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: {' '.join(command)} does not answer")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _free_socket() -> Any:
    import socket  # noqa: PLC0415  (for a port)

    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found


def _answers(url: str) -> bool:
    try:
        return httpx.post(f"{url}/predict", json={"text": "a"}, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _ask(url: str, texts: Sequence[str]) -> list[float]:
    """Ask for one text after another; return what each took, in milliseconds."""
    taken = []
    with httpx.Client(timeout=60) as client:
        for text in texts[:ASKED]:
            begin = time.perf_counter()
            answer = client.post(f"{url}/predict", json={"text": text})
            taken.append(1_000 * (time.perf_counter() - begin))
            answer.raise_for_status()
    return taken


@contextmanager
def _asked_for_many(url: str, texts: Sequence[str]) -> Iterator[None]:
    """Have another client ask for many texts, again and again."""
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                client.post(f"{url}/predict", json={"texts": list(texts[-MANY:])}).raise_for_status()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _shares(taken: list[float]) -> str:
    half, most = np.percentile(taken, [50, 99])
    return f"{half:.1f} / {most:.1f}"


if __name__ == "__main__":
    main()
