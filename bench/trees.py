"""How fast is `tree` beside the Hoeffding trees of River and MOA, and does its memory stay within its limit?

The same rows of each stream, predicted and learned, on one core and in the same run, taking turns. River's tree has
words, as its documentation has them for text, and once more words and pairs; MOA's, by way of CapyMOA, words in 1,024
categories, as it looks at all of them for every text. Ours has the same words, or pairs, and what it has by default:
character n-grams too. Rows are those that the peer gets through in its time, some hundreds or thousands a second; a
stream of fewer is gone through again, so that what is measured is how fast a tree learns, not how it begins.
"""

import resource
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from bench.peers.protocol import Rows
from bench.quality import Launcher
from bench.speed import first_rows
from bench.streams import Stream, make_stream
from driftline.learner.tree.tree import MIB, Tree

BESIDE: Final = {  # a peer, and those of ours that are compared with it
    "river-tree": ("tree?chars=0&pairs=0", "tree"),
    "river-tree-pairs": ("tree?chars=0",),
    "capymoa-tree?values=once": ("tree?chars=0&pairs=0", "tree"),
}
MADE_TEXTS: Final = 20_000  # learned again and again, each time with words that are new
BATCH: Final = 1000


class Beside(NamedTuple):
    """What was measured of a peer and of ours on the same rows: texts a second by system, one a repetition."""

    peer: str
    rows: int
    rates: dict[str, list[float]]
    why_not: str

    def rate(self, system: str) -> float:
        """The median of the repetitions; 0 where there are none."""
        return median(self.rates[system]) if self.rates[system] else 0.0

    def times(self, ours: str) -> float:
        """How many times as fast as the peer one of ours is."""
        return self.rate(ours) / self.rate(self.peer) if self.rate(self.peer) else 0.0


class Trees(NamedTuple):
    """What was measured on one stream, with each peer."""

    stream: str
    mean_length: float
    beside: list[Beside]


class TreeMemory(NamedTuple):
    """What a tree takes after so many texts: bytes of its arrays, their limit, and how much the process has grown."""

    texts: int
    taken: int
    limit: int
    grown: int


def measure_trees(
    launcher: Launcher,
    streams: Sequence[Stream],
    n_rows: int,
    repetitions: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Trees]:
    """Measure the trees on so many rows of each stream, or on those that each peer gets through in its time."""
    return [_measure(launcher, _long_enough(stream, n_rows), repetitions, say) for stream in streams]


def _long_enough(stream: Stream, n_rows: int) -> Stream:
    texts, labels, n_labels = stream.rows.texts, stream.rows.labels, stream.rows.n_labels
    times = -(-n_rows // max(len(texts), 1))
    return first_rows(stream._replace(rows=Rows(texts * times, labels * times, n_labels)), n_rows)


def _measure(launcher: Launcher, stream: Stream, repetitions: int, say: Callable[[str], None]) -> Trees:
    texts = stream.rows.texts
    beside = [_beside(launcher, stream, peer, repetitions, say) for peer in BESIDE]
    return Trees(stream.name, sum(map(len, texts)) / max(len(texts), 1), beside)


def _beside(launcher: Launcher, stream: Stream, peer: str, repetitions: int, say: Callable[[str], None]) -> Beside:
    rates: dict[str, list[float]] = {system: [] for system in (peer, *BESIDE[peer])}
    part = stream
    for repetition in range(repetitions):
        for system, its in rates.items():
            run = launcher.run(system, part, 0, is_ours=system != peer)
            if not run.done:
                return Beside(peer, 0, {name: [] for name in rates}, run.why_not)
            its.append(run.rows_per_second)
            part = first_rows(part, run.done)
            say(f"{stream.name:>16} {repetition + 1}/{repetitions} {system:<24} {run.rows_per_second:>10,.0f} /s")
    return Beside(peer, len(part.rows.texts), rates, "")


def measure_tree_memory(n_texts: int) -> TreeMemory:
    """Let a tree learn so many made texts, whose words never cease to be new, and look what it takes."""
    rows = make_stream("sudden", min(n_texts, MADE_TEXTS)).rows
    tree = Tree()
    targets = np.array([tree.label_index(str(label)) for label in rows.labels], np.int32)
    weights = np.ones(BATCH, np.float32)
    before = learned = 0
    while learned < n_texts:
        begin = learned % len(rows.texts)
        texts = [f"{text} word{learned}" for text in rows.texts[begin : begin + min(BATCH, n_texts - learned)]]
        tree.score_and_learn(texts, targets[begin : begin + len(texts)], weights[: len(texts)])
        learned += len(texts)
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return TreeMemory(learned, tree.n_bytes, int(tree.settings.memory_mb * MIB), 1024 * (after - before))
