"""How does a peer answer?

A peer runs in a process of its own, perhaps under another Python: this folder needs Python 3.8 and nothing but the
peer's own library. It is given a file of rows and writes one answer a row: which label it predicted and what
probability it gave to the true one. Scores are computed elsewhere, by one scorer for all.

Order (delayed progressive validation): row i is predicted, then the labels up to row i - delay are learned. A peer that
learns in batches predicts a whole batch first. Labels are numbers, in the order in which they first occur; how many
there will be is known from the start, because some peers must be told.

The time is the peer's own: from a text in memory to its scores, as its library gives them, and learning. What is left
out, for all alike: reading and writing files, and making the answers that are compared here out of those scores.
It is processor time of all threads, on one core, which other programs on the machine disturb least; so is the limit,
but where they leave a peer too little the clock ends it.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, NamedTuple, Sequence

TIMES = 100  # places at which the time is kept
PATIENCE = 3.0  # times the limit, by the clock; more on a machine that has much else to do


class Answers(NamedTuple):
    """Of each row the predicted label, and the probabilities that the true one and the predicted one were given.

    They are no numbers (nan) where a peer has no probabilities.
    """

    predicted: list[int]
    p_truth: list[float]
    p_predicted: list[float]

    def extend(self, more: Answers) -> None:
        """Add the answers of the next rows."""
        for own, its in zip(self, more):
            own.extend(its)  # type: ignore[attr-defined]

    def to_json(self, clock: Clock) -> dict[str, Any]:
        """Return everything, with the time that it took, as JSON types."""
        return {**self._asdict(), "seconds": clock.seconds, "times": clock.times}


class Rows:
    """A stream in memory: texts, their labels' numbers, and how many labels there are."""

    def __init__(self, texts: list[str], labels: list[int], n_labels: int) -> None:
        self.texts, self.labels, self.n_labels = texts, labels, n_labels


def write_rows(path: str, rows: Rows) -> None:
    """Write a stream as JSON lines: the number of labels, then a text and its label a line."""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{rows.n_labels}\n")
        for text, label in zip(rows.texts, rows.labels):
            file.write(json.dumps([text, label]) + "\n")


def read_rows(path: str) -> Rows:
    """Read what `write_rows` wrote."""
    with open(path, encoding="ascii") as file:
        n_labels = int(file.readline())
        rows = [json.loads(line) for line in file]
    return Rows([text for text, _ in rows], [label for _, label in rows], n_labels)


class Peer:
    """A system under measurement. `predict` and `learn` take what `prepare` made of the texts."""

    batch = 1
    at_once = False  # it takes the whole stream, by `run_all`

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that are measured."""
        return {}

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Return one example a text; the truth is for peers whose examples carry their label."""
        return texts

    def predict(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """Return the scores, in whatever form the library gives them; changes nothing."""
        raise NotImplementedError

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """Return the answers that such scores are. This is not measured."""
        raise NotImplementedError

    def learn(self, examples: Sequence[Any], truths: Sequence[int]) -> None:
        """Learn examples, in order."""
        raise NotImplementedError

    def predict_and_learn(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """Return the scores, then learn: what a delay of 0 asks for."""
        scores = self.predict(examples, truths)
        self.learn(examples, truths)
        return scores

    def run_all(self, rows: Rows, delay: int, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
        """Do what `run` does, for a peer that does it by itself."""
        raise NotImplementedError

    def nothing_known(self, n: int) -> Answers:
        """Return the answers of a model that has learned nothing yet."""
        p = [1.0 / max(self.n_labels, 1)] * n
        return Answers([0] * n, p, list(p))

    def labels_only(self, predicted: list[int]) -> Answers:
        """Return the answers of a model without probabilities."""
        p = [math.nan] * len(predicted)
        return Answers(predicted, p, list(p))

    def from_scores(self, scores: Sequence[dict[Any, float]], truths: Sequence[int]) -> Answers:
        """Return the answers for a dict of label to probability a row; an empty one, or all 0, knows nothing."""
        predicted, p_truth, p_predicted = [], [], []
        for row, truth in zip(scores, truths):
            if any(row.values()):
                predicted.append(int(max(row, key=row.__getitem__)))
                p_truth.append(float(row.get(truth, 0.0)))
                p_predicted.append(float(max(row.values())))
            else:
                predicted.append(0)
                p_truth.append(1.0 / max(self.n_labels, 1))
                p_predicted.append(p_truth[-1])
        return Answers(predicted, p_truth, p_predicted)


class Clock:
    """The peer's own processor time, kept at TIMES places, and when to stop."""

    def __init__(self, n_rows: int, limit: float, patience: float = PATIENCE) -> None:
        self.limit, self.longest, self.seconds, self.elapsed = limit, patience * limit, 0.0, 0.0
        self.step = max(n_rows // TIMES, 1)
        self.times: list[tuple[int, float]] = []

    def start(self) -> None:
        """Begin to count."""
        self._started = time.process_time(), time.perf_counter()

    def stop(self, rows: int) -> bool:
        """Count the time since `start`, after which so many rows are done. Tell whether to go on."""
        self.seconds += time.process_time() - self._started[0]
        self.elapsed += time.perf_counter() - self._started[1]
        if not self.times or rows - self.times[-1][0] >= self.step:
            self.times.append((rows, self.seconds))
        return self.seconds < self.limit and self.elapsed < self.longest


def run(peer: Peer, rows: Rows, delay: int, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
    """Give a stream to a peer for at most so many seconds and return its answers and times, as JSON types."""
    if peer.at_once:
        return peer.run_all(rows, delay, seconds, patience)
    clock = Clock(len(rows.texts), seconds, patience)
    found = Answers([], [], [])
    waiting: list[Any] = []  # examples of rows that are predicted and not yet learned
    learned = 0  # rows
    for begin in range(0, len(rows.texts), peer.batch):
        texts = rows.texts[begin : begin + peer.batch]
        truths = rows.labels[begin : begin + peer.batch]
        clock.start()
        examples = peer.prepare(texts, truths)
        if delay == 0:
            scores = peer.predict_and_learn(examples, truths)
        else:
            scores = peer.predict(examples, truths)
            waiting.extend(examples)
            due = max(begin + len(texts) - delay - learned, 0)
            if due:
                peer.learn(waiting[:due], rows.labels[learned : learned + due])
                del waiting[:due]
                learned += due
        go_on = clock.stop(begin + len(texts))
        found.extend(peer.answers(scores, truths))
        if not go_on:
            break
    return found.to_json(clock)
