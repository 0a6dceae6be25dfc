"""Which streams are measured? Files of labelled texts, and streams made here whose drift is known.

A made stream is a function of its name, length and seed alone: Python's own generator, whose numbers are the same in
every version. Words follow Zipf's law. What tells a label is a mixture of topic words, of pairs of common words that
tell nothing one by one, and of noise: typing errors, and labels that are wrong.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.protocol import Rows
from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import LabelledTexts

VOCABULARY: Final = 12_000
COMMON: Final = 40  # the commonest words: what stands between the others; pairs are made of them
TOPIC_WORDS: Final = 150
PAIR_KINDS: Final = 6
TOPIC_SHARE: Final = 0.16  # of the words
PAIR_SHARE: Final = 0.6  # of the texts
TYPO_SHARE: Final = 0.02  # of the words
WRONG_SHARE: Final = 0.03  # of the labels
_SYLLABLES: Final = [c + v for c in ("b", "d", "f", "gr", "k", "l", "m", "n", "p", "st", "t", "v") for v in "aeiou"]


class Stream(NamedTuple):
    """What is measured: rows, their labels' names by number, and by how many rows the labels are late."""

    name: str
    rows: Rows
    labels: list[str]
    delay: int = 0


@dataclass(frozen=True)
class Drift:
    """How a made stream changes. `at` is the part of the stream that has passed, 0 to 1.

    Attributes
    ----------
    n_labels : how many labels there are in the end
    concept : the probability that a text is of the second concept, in which the labels have other words
    n_known : how many labels there are by then
    first_share : how often the first label occurs; None: as often as the others
    delay : by how many rows the labels are late
    """

    what: str
    n_labels: int = 4
    concept: Callable[[float], float] = lambda _: 0.0
    n_known: Callable[[float], int] | None = None
    first_share: Callable[[float], float] | None = None
    delay: int = 0


DRIFTS: Final[dict[str, Drift]] = {
    "steady": Drift("nothing changes"),
    "sudden": Drift("half-way labels exchange half of their words", concept=lambda at: float(at >= 0.5)),
    "gradual": Drift(
        "from 0.3 to 0.7 the one concept gives way to the other",
        concept=lambda at: min(max((at - 0.3) / 0.4, 0.0), 1.0),
    ),
    "recurring": Drift("two concepts take turns, six times", concept=lambda at: float(int(at * 6) % 2)),
    "new-labels": Drift(
        "3 labels become 12",
        n_labels=12,
        n_known=lambda at: min(3 + int(at * 12), 12),
    ),
    "shares": Drift(
        "the first label falls from 90 % to 10 %", n_labels=3, first_share=lambda at: 0.9 - 0.8 * min(at / 0.8, 1.0)
    ),
    "late": Drift("sudden, and every label comes 500 rows late", concept=lambda at: float(at >= 0.5), delay=500),
}


def make_stream(name: str, n_rows: int, seed: int = 1) -> Stream:
    """Make a stream.

    Raises
    ------
    ConfigError : there is no such stream
    """
    if name not in DRIFTS:
        raise ConfigError(f"there is no stream {name!r}; there are {', '.join(DRIFTS)}")
    drift = DRIFTS[name]
    texts, labels = [], []
    for text, label in islice(_Writer(drift, random.Random(f"{name} {seed}")).rows(n_rows), n_rows):
        texts.append(text)
        labels.append(label)
    return _numbered(name, texts, [f"label{label}" for label in labels], drift.delay)


def read_stream(path: Path, n_rows: int) -> Stream:
    """Read the first labelled rows of a file."""
    with LabelledTexts(path) as file:
        rows = [(row.text, row.label) for row in islice((row for row in file if row.label is not None), n_rows)]
    if not rows:
        raise ConfigError(f"{path}: no row has a label")
    name = path.name.partition(".")[0] or str(path)
    return _numbered(name, [text for text, _ in rows], [str(label) for _, label in rows])


def _numbered(name: str, texts: list[str], labels: list[str], delay: int = 0) -> Stream:
    """Number the labels in the order in which they first occur."""
    numbers: dict[str, int] = {}
    numbered = [numbers.setdefault(label, len(numbers)) for label in labels]
    return Stream(name, Rows(texts, numbered, len(numbers)), list(numbers), delay)


class _Writer:
    """Writes the texts of one stream."""

    def __init__(self, drift: Drift, generator: random.Random) -> None:
        self._drift, self._random = drift, generator
        words: dict[str, None] = {}
        while len(words) < VOCABULARY:
            # The commoner a word, the shorter, as in a language.
            syllables = 1 + int(math.log10(1 + len(words)) * 0.7) + generator.randrange(2)
            words["".join(generator.choice(_SYLLABLES) for _ in range(syllables))] = None
        self._words = list(words)
        self._zipf = list(accumulate(1 / (rank + 2.7) for rank in range(VOCABULARY)))
        topics = [generator.sample(self._words[COMMON:], TOPIC_WORDS) for _ in range(drift.n_labels)]
        # In the second concept every other word of a label, and its pairs, are what were the next label's.
        pairs = zip(topics, [*topics[1:], topics[0]], strict=True)
        mixed = [[both[i % 2] for i, both in enumerate(zip(own, its, strict=True))] for own, its in pairs]
        self._topics = (topics, mixed)
        self._topic_zipf = list(accumulate(1 / (rank + 5) for rank in range(TOPIC_WORDS)))

    def rows(self, n_rows: int) -> Iterator[tuple[str, int]]:
        """Yield texts with their labels."""
        for row in range(n_rows):
            at = row / n_rows
            label = self._label(at)
            second = self._random.random() < self._drift.concept(at)
            text = self._text(label, second)
            if self._random.random() < WRONG_SHARE:
                label = self._label(at)
            yield text, label

    def _label(self, at: float) -> int:
        n = self._drift.n_known(at) if self._drift.n_known else self._drift.n_labels
        if self._drift.first_share:
            return 0 if self._random.random() < self._drift.first_share(at) else 1 + self._random.randrange(n - 1)
        return self._random.randrange(n)

    def _text(self, label: int, second: bool) -> str:
        n_words = max(3, int(self._random.lognormvariate(2.4, 0.5)))
        words = self._random.choices(self._words, cum_weights=self._zipf, k=n_words)
        own = self._random.choices(self._topics[second][label], cum_weights=self._topic_zipf, k=n_words)
        words = [mine if self._random.random() < TOPIC_SHARE else word for word, mine in zip(words, own, strict=True)]
        if self._random.random() < PAIR_SHARE:
            words[n_words // 2 : n_words // 2] = self._pair((label + second) % self._drift.n_labels)
        words = [self._typo(word) if self._random.random() < TYPO_SHARE else word for word in words]
        return " ".join(words).capitalize() + self._random.choice((".", "!", "?", "", " ..."))

    def _pair(self, topic: int) -> list[str]:
        """Return two words. Each occurs with every topic equally often, but together they tell which it is."""
        kind = self._random.randrange(PAIR_KINDS * self._drift.n_labels)
        other = (kind + topic) % self._drift.n_labels
        return [self._words[kind % COMMON], self._words[COMMON - 1 - other]]

    def _typo(self, word: str) -> str:
        place = self._random.randrange(len(word))
        return word[:place] + self._random.choice("aeiounrst") + word[place + 1 :]


def cut_to_length(stream: Stream, n_chars: int) -> Stream:
    """Return a stream whose texts all have the same number of characters."""
    texts = stream.rows.texts
    cut = [(a + " " + b)[:n_chars].ljust(n_chars, ".") for a, b in pairwise([*texts, texts[0]])]
    return stream._replace(rows=Rows(cut, stream.rows.labels, stream.rows.n_labels))
