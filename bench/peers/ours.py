"""Driftline's own classifiers, by their specification, answering as any peer does."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from bench.peers.protocol import PATIENCE, Answers, Clock, Peer, Rows
from driftline.learner.quality.evaluate import warm_up
from driftline.learner.registry import make_classifier

BATCH_ROWS = 1000


class Ours(Peer):
    """A classifier in batches that give exactly what one text at a time gives; compiled before the clock starts."""

    at_once = True

    def __init__(self, n_labels: int, spec: str) -> None:
        super().__init__(n_labels)
        self.model = make_classifier(spec)
        warm_up(make_classifier(spec))
        self._columns = np.full(max(n_labels, 1), -1, np.int32)  # of the labels by their numbers

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {}

    def run_all(self, rows: Rows, delay: int, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
        """Score and learn in the exact order, as quality/evaluate.py does: row i, then the label of row i - delay."""
        clock = Clock(len(rows.texts), seconds, patience)
        found = Answers([], [], [])
        labels = np.array(rows.labels, np.int32)
        for begin in range(0, len(rows.texts), BATCH_ROWS):
            end = min(begin + BATCH_ROWS, len(rows.texts))
            clock.start()
            scores = self._batch(rows.texts, labels, begin, end, delay)
            go_on = clock.stop(end)
            found.extend(self.answers(scores, rows.labels[begin:end]))
            if not go_on:
                break
        return found.to_json(clock)

    def _batch(self, texts: list[str], labels: Any, begin: int, end: int, delay: int) -> Any:
        """Return the scores of rows `begin` to `end`."""
        due = labels[max(begin - delay, 0) : max(end - delay, 0)]
        for label in due[self._columns[due] < 0]:
            self._columns[label] = self.model.label_index(str(label))
        targets = self._columns[due]
        if delay == 0:
            return self._learn(texts[begin:end], targets)
        # Row i, then the label of row i - delay, from the first that is due on.
        first = min(max(delay - begin, 0), end - begin)
        both = texts[begin : begin + first]
        for row in range(begin + first, end):
            both += (texts[row], texts[row - delay])
        asked = np.full(len(both), -1, np.int32)
        asked[first + 1 :: 2] = targets
        places = np.concatenate([np.arange(first), np.arange(first, len(both), 2)])
        return self._learn(both, asked)[places]

    def _learn(self, texts: list[str], targets: Any) -> Any:
        return self.model.score_and_learn(texts, targets, np.ones(len(texts), np.float32))

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        number = np.array([int(label) for label in self.model.labels], np.int64)
        if not len(number):
            return self.nothing_known(len(truths))
        column = np.full(self.n_labels, -1)
        column[number] = np.arange(len(number))
        places = column[np.array(truths)]
        p = np.where(places >= 0, scores[np.arange(len(truths)), places], 0.0)
        return Answers(number[scores.argmax(axis=1)].tolist(), p.tolist(), scores.max(axis=1).tolist())
