"""Driftline's own classifiers, by their specification, answering as any peer does."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers.protocol import Answers, Clock, Peer, Rows
from learner.evaluate import warm_up
from learner.models import make_classifier

BATCH_ROWS = 1000


class Ours(Peer):
    """A classifier in batches that give exactly what one text at a time gives; compiled before the clock starts."""

    at_once = True

    def __init__(self, n_labels: int, spec: str) -> None:
        super().__init__(n_labels)
        self.model = make_classifier(spec)
        warm_up(make_classifier(spec))
        self._columns: dict[int, int] = {}

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {}

    def run_all(self, rows: Rows, delay: int, seconds: float) -> dict[str, Any]:
        """Score and learn in the exact order, as `learner.evaluate` does: row i, then the label of row i - delay."""
        clock = Clock(len(rows.texts), seconds)
        found = Answers([], [], [])
        for begin in range(0, len(rows.texts), BATCH_ROWS):
            end = min(begin + BATCH_ROWS, len(rows.texts))
            clock.start()
            scores = self._batch(rows, begin, end, delay)
            answers = self._answers(scores, rows.labels[begin:end])
            go_on = clock.stop(end)
            found.extend(answers)
            if not go_on:
                break
        return found.to_json(clock)

    def _batch(self, rows: Rows, begin: int, end: int, delay: int) -> Any:
        """Return the scores of rows `begin` to `end`."""
        if delay == 0:
            columns = [self._column(label) for label in rows.labels[begin:end]]
            return self._learn(rows.texts[begin:end], columns)
        texts: list[str] = []
        targets: list[int] = []
        places: list[int] = []
        for row in range(begin, end):
            places.append(len(texts))
            texts.append(rows.texts[row])
            targets.append(-1)
            if row >= delay:
                texts.append(rows.texts[row - delay])
                targets.append(self._column(rows.labels[row - delay]))
        return self._learn(texts, targets)[places]

    def _learn(self, texts: list[str], targets: list[int]) -> Any:
        return self.model.score_and_learn(texts, np.array(targets, np.int32), np.ones(len(texts), np.float32))

    def _column(self, label: int) -> int:
        column = self._columns.get(label)
        if column is None:
            column = self._columns[label] = self.model.label_index(str(label))
        return column

    def _answers(self, scores: Any, truths: list[int]) -> Answers:
        number = np.array([int(label) for label in self.model.labels], np.int64)
        if not len(number):
            return self.nothing_known(len(truths))
        column = np.full(self.n_labels, -1)
        column[number] = np.arange(len(number))
        places = column[np.array(truths)]
        p = np.where(places >= 0, scores[np.arange(len(truths)), places], 0.0)
        return Answers(number[scores.argmax(axis=1)].tolist(), p.tolist(), scores.max(axis=1).tolist())
