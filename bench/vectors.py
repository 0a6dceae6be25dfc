"""What do word vectors add to `blend`, and what do they cost?

    python -m bench.vectors FILE.vec DATA [--rows 10000]

DATA is a directory of labelled streams, *.jsonl.gz with `text` and `label`. Of each: accuracy so far, each text scored
before it is learned, with and without, where a label comes at once and where it comes 1,000 texts later; and how many
texts a second are scored and learned with them for each one without, in processor time, both in turns.
"""

import argparse
import gzip
import json
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.models.classifier import Classifier
from driftline.learner.registry import make_classifier

AFTER: Final = (500, 1_000, 2_000, 5_000, 10_000)
DELAYS: Final = (0, 1_000)
BATCH: Final = 4096
TURNS: Final = 7

Stream = list[tuple[str, str]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    specs = ("blend", f"blend?vectors={options.vectors}")
    print("| stream | label after |", " | ".join(f"{n:,}" for n in AFTER), "| errors | speed |")
    print("|---" * (len(AFTER) + 4) + "|")
    for path in sorted(options.data.glob("*.jsonl.gz")):
        stream = read(path, options.rows)
        speed = relative_speed(specs, stream)
        for delay in DELAYS:
            without, with_ = (right(make_classifier(spec), stream, delay) for spec in specs)
            cells = [f"{without[:n].mean():.4f} {with_[:n].mean():.4f}" if n <= len(stream) else "" for n in AFTER]
            errors = (~with_).sum() / max((~without).sum(), 1) - 1
            print(f"| {path.name[:-9]} | {delay:,} | {' | '.join(cells)} | {errors:+.1%} | {speed:.2f} |", flush=True)


def read(path: Path, most: int) -> Stream:
    """Return a stream's first rows."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = map(json.loads, islice(file, most))
        return [(row["text"], row["label"]) for row in rows]


def right(classifier: Classifier, stream: Stream, delay: int) -> NDArray[np.bool_]:
    """Return whether each text's label was predicted, before it was learned `delay` texts later."""
    targets = np.array([classifier.label_index(label) for _, label in stream], np.int32)
    texts = [text for text, _ in stream]
    if delay == 0:
        scores = classifier.score_and_learn(texts, targets, np.ones(len(texts), np.float32))
        return scores.argmax(axis=1) == targets  # type: ignore[no-any-return]
    rows = [(text, -1) for text in range(delay)]
    for text in range(delay, len(texts)):
        rows += [(text, -1), (text - delay, 1)]
    asked = np.array([text for text, learned in rows])
    is_learned = np.array([learned for _, learned in rows]) > 0
    found = np.where(is_learned, targets[asked], -1).astype(np.int32)
    scores = classifier.score_and_learn([texts[at] for at in asked], found, np.ones(len(rows), np.float32))
    return scores[~is_learned].argmax(axis=1) == targets  # type: ignore[no-any-return]


def relative_speed(specs: tuple[str, str], stream: Stream) -> float:
    """Return the texts a second of the second model for one of the first."""
    taken: dict[str, list[float]] = {spec: [] for spec in specs}
    for _ in range(TURNS):
        for spec in specs:
            classifier = make_classifier(spec)
            targets = np.array([classifier.label_index(label) for _, label in stream], np.int32)
            for array in classifier.state().values():
                np.add(array, 0, out=array, casting="unsafe")  # memory that nobody has touched has to be found first
            start = time.process_time()
            for begin in range(0, len(stream), BATCH):
                texts = [text for text, _ in stream[begin : begin + BATCH]]
                classifier.score_and_learn(texts, targets[begin : begin + BATCH], np.ones(len(texts), np.float32))
            taken[spec].append(time.process_time() - start)
    return float(median(without / with_ for without, with_ in zip(*taken.values(), strict=True)))


if __name__ == "__main__":
    main()
