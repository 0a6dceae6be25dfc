"""What several tests share: labelled files, a drift alarm, and a classifier simple enough to be believed."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.learner.models.classifier import Classifier, Scores, State
from driftline.learner.quality.alarms import Alarm
from driftline.stream.log.base import Chunk, Record, TopicPartition
from driftline.stream.log.merge import Batch

ROOT = Path(__file__).resolve().parent.parent


def labelled_file(name: str) -> Path:
    """Return a labelled file that is too large for the repository, or skip the test."""
    named = os.environ.get("DRIFTLINE_TEST_DATA")
    places = [Path(named)] if named else sorted(ROOT.parent.glob("*/data"))
    for place in places:
        if (place / name).is_file():
            return place / name
    pytest.skip(f"{name} is not there; point DRIFTLINE_TEST_DATA to the directory that has it")


@pytest.fixture
def sms_spam() -> Path:
    """The SMS Spam Collection as JSON lines: 5,574 texts, two labels."""
    return labelled_file("sms_spam.jsonl.gz")


def alarm(number: int, **fields: Any) -> Alarm:
    """Return a drift alarm."""
    known: dict[str, Any] = {"label": None, "change": "worse", "at_label": number, "timestamp_ms": 5}
    known |= {"loss_before": 0.1, "loss_after": 0.5, "labels_before": 1000, "labels_after": 32}
    known |= {"topic": "feedback", "partition": 1, "offset": number}
    return Alarm(**(known | fields))


def batch(records: Sequence[Record]) -> Batch:
    """Return records as a batch of them in this order."""
    partitions = sorted({record.partition for record in records})
    chunks = [_chunk(partition, [each for each in records if each.partition == partition]) for partition in partitions]
    places = [place for partition in partitions for place, each in enumerate(records) if each.partition == partition]
    return Batch(chunks, np.argsort(places), [])


def _chunk(partition: TopicPartition, records: Sequence[Record]) -> Chunk:
    columns = zip(
        *[(each.offset, each.timestamp_ms, each.key, each.value, each.headers) for each in records], strict=True
    )
    offsets, times, keys, values, headers = map(list, columns)
    return Chunk(partition, np.array(offsets, np.int64), np.array(times, np.int64), keys, values, headers)


def chunks_of(records: Sequence[Record]) -> list[Chunk]:
    """Return records as a reader gives them, partition by partition."""
    return batch(records).chunks


class CountingClassifier(Classifier):
    """Scores a label by how often it came with the text's words; one dictionary, no batches, no kernels."""

    def __init__(self, max_labels: int = 100) -> None:
        self._set_labels([], max_labels)
        self.counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.learned: list[tuple[str, str]] = []

    def score_and_learn(self, texts: Sequence[str], targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Scores:
        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        for row, (text, target, weight) in enumerate(zip(texts, targets.tolist(), weights.tolist(), strict=True)):
            for word in ("", *text.split()):
                for label, count in self.counts[word].items():
                    scores[row, label] += count
            scores[row] /= max(scores[row].sum(), 1)
            if target >= 0:
                self.learned.append((text, self.labels[target]))
                for word in ("", *text.split()):
                    self.counts[word][target] += weight
        return scores

    def config(self) -> dict[str, Any]:
        return {}

    def state(self) -> State:
        return {}

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        raise NotImplementedError
