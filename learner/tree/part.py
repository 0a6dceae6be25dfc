"""What does each feature add to a label's score in a tree?

Every predictor of a leaf is a weighted sum of six scores, three that all leaves share and three of the leaf's own
(leaf.py), and each of these is a sum over features. So the predictor that a leaf has chosen is taken apart as
exactly as a linear model. What the way to the leaf did is no sum: it is named beside it, question by question.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.explain import Step
from driftline.learner.explain.parts import WORDS, Hashed, Part, linear_part, weighted
from driftline.learner.explain.traced import Feature
from driftline.learner.kernels import copy, kernel
from driftline.learner.text.hashes import HALF
from driftline.learner.tree.kernel import LOCAL_WORDS
from driftline.learner.tree.layout import COUNTER, ENTRY, LINK, PREDICTOR, TOTAL, VALUE, Memory, Options, find, key_of
from driftline.learner.tree.leaf import (
    ALPHA,
    FLATTENED_FROM,
    LEAST_SHARE,
    PRIOR_EXAMPLES,
    PRIOR_TOKENS,
    choose_predictor,
)

PRIOR_PART, BAYES_PART, LINEAR_PART, SHARE_PART, GAIN_PART, CORRECTION_PART = range(6)


def leaf_of(memory: Memory, words: Sequence[int]) -> tuple[int, list[tuple[int, bool]]]:
    """Return the leaf of a text, and what was asked on the way: the word's hash, and whether the text has it."""
    node, way = 0, []
    has = set(words[:LOCAL_WORDS])
    while memory.links[node, LINK.PRESENT] > 0:
        word = int(memory.features[node])
        way.append((word, word in has))
        node = int(memory.links[node, LINK.PRESENT if word in has else LINK.ABSENT])
    return node, way


def path(memory: Memory, features: Sequence[Feature]) -> list[Step]:
    """Return the questions on a text's way to its leaf. Of a word that it does not have, a tree has only the hash."""
    words = {
        each.hash: f"{each.field}: {each.text}" if each.field else each.text for each in features if each.kind in WORDS
    }
    _, way = leaf_of(memory, list(words))
    return [Step(word=words[word] if present else None, present=present) for word, present in way]


def tree_part(memory: Memory, options: Options, max_labels: int, hashed: Hashed) -> Part:
    """Return the scores of labels by the predictor that a text's leaf uses."""
    n = int(memory.counters[COUNTER.N_LABELS])
    leaf, _ = leaf_of(memory, hashed.features[: hashed.n_words].tolist())
    weights = _weights(memory, leaf, int(choose_predictor(memory, leaf, options.leaf)))
    known = memory.known[:n] > 0
    shared = _shared_parts(memory, float(options.chars_value), max_labels, hashed, known)
    own = _own_parts(memory, leaf, hashed, known, shared[PRIOR_PART].constant) if memory.links[leaf, LINK.BLOCK] else []
    return weighted([(weight, part) for weight, part in zip(weights, [*shared, *own], strict=False) if weight != 0])


def _weights(memory: Memory, leaf: int, predictor: int) -> list[float]:
    """Return what a predictor weighs the six parts with."""
    weights = [0.0] * 6
    mix = memory.values[leaf, VALUE.MIX : VALUE.MIX + 4].tolist()
    shared = memory.values[0, VALUE.MIX : VALUE.MIX + 3].tolist()
    if predictor == PREDICTOR.MAJORITY:
        weights[PRIOR_PART] = weights[SHARE_PART] = 1.0
    elif predictor in (PREDICTOR.BAYES, PREDICTOR.LEAF_BAYES):
        weights[BAYES_PART] = 1.0
        weights[GAIN_PART] = float(predictor == PREDICTOR.LEAF_BAYES)
    elif predictor == PREDICTOR.LINEAR:
        weights[LINEAR_PART] = 1.0
    elif predictor == PREDICTOR.LEAF_MIX:
        weights[:3] = [mix[0] * weight for weight in shared]
        weights[GAIN_PART], weights[CORRECTION_PART], weights[SHARE_PART] = mix[1:]
    else:
        weights[:3] = shared
        weights[CORRECTION_PART] = float(predictor == PREDICTOR.LEAF_LINEAR)
    return weights


def _constant(constant: NDArray[np.float64]) -> Part:
    return Part(constant, lambda at: np.zeros((at.stop - at.start, len(constant))))


def _shared_parts(
    memory: Memory, chars_value: float, max_labels: int, hashed: Hashed, known: NDArray[np.bool_]
) -> list[Part]:
    """Return what all leaves share: the labels' shares, naive Bayes on words and pairs, the linear model."""
    n, n_plain, n_features = len(known), hashed.n_plain, len(hashed.features)
    examples = memory.totals[:n, TOTAL.EXAMPLES]
    prior = np.log(np.where(known, np.maximum(examples / examples.sum(), LEAST_SHARE), 1))
    alpha, smoothing = _smoothing(memory)
    size = np.log(memory.totals[:n, TOTAL.TOKENS] + smoothing)
    factor = 1 / math.sqrt(1 + n_plain / FLATTENED_FROM)

    def rows(at: slice) -> NDArray[np.float64]:
        logs = np.log(_frequencies(memory, max_labels, hashed, at, n) + alpha) - size
        return np.where(np.arange(at.start, at.stop)[:, None] < n_plain, logs * factor, 0.0)

    scale = 1 / math.sqrt(1 + n_plain + (n_features - n_plain) * chars_value**2)
    values = hashed.values(scale, scale * chars_value)
    linear = linear_part(memory.slots[:, 0], max_labels, hashed, scale, values, n)
    return [_constant(prior), Part(prior * factor, rows), linear]


def _own_parts(
    memory: Memory, leaf: int, hashed: Hashed, known: NDArray[np.bool_], prior: NDArray[np.float64]
) -> list[Part]:
    """Return how far a leaf departs from what is shared: in the labels' shares, in naive Bayes, in the linear model."""
    n, n_local = len(known), min(hashed.n_words, LOCAL_WORDS)
    block = memory.links[leaf, LINK.BLOCK] - 1
    own = memory.leaf_totals[block, :n].astype(np.float64)
    examples = PRIOR_EXAMPLES + own[:, TOTAL.EXAMPLES].sum()
    share = np.where(known, np.log((own[:, TOTAL.EXAMPLES] / np.exp(prior) + PRIOR_EXAMPLES) / examples), 0.0)
    alpha, smoothing = _smoothing(memory)
    per_count = (memory.totals[:n, TOTAL.TOKENS] + smoothing) / PRIOR_TOKENS
    size = np.log1p(own[:, TOTAL.TOKENS] / PRIOR_TOKENS)
    factor = 1 / math.sqrt(1 + hashed.n_plain / FLATTENED_FROM)
    scale = 1 / math.sqrt(n_local + 1)
    keys, entries = memory.keys[block], memory.entries[block]

    def of_words(at: slice, of_row: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = np.zeros((at.stop - at.start, n))
        rows[: len(of_row)] = of_row
        return rows

    def gains(at: slice) -> NDArray[np.float64]:
        words = slice(at.start, max(at.start, min(at.stop, n_local)))
        found = look_up(keys, entries, hashed.features[words], n)[:, :, ENTRY.COUNT]
        shared = _frequencies(memory, len(memory.known), hashed, words, n) + alpha
        return of_words(at, (np.log1p(np.maximum(found, 0) * per_count / shared) - size) * factor)

    def corrections(at: slice) -> NDArray[np.float64]:
        words = slice(at.start, max(at.start, min(at.stop, n_local)))
        return of_words(at, look_up(keys, entries, hashed.features[words], n)[:, :, ENTRY.WEIGHT] * scale)

    bias = look_up(keys, entries, np.zeros(1, np.uint32), n)[0, :, ENTRY.WEIGHT] * scale
    return [_constant(share), Part(share * factor, gains), Part(bias, corrections)]


def _smoothing(memory: Memory) -> tuple[float, float]:
    alpha = ALPHA * float(memory.unit[0])
    return alpha, alpha * (int(memory.counters[COUNTER.N_SLOTS_USED]) + 1)


def _frequencies(memory: Memory, max_labels: int, hashed: Hashed, at: slice, n: int) -> NDArray[np.float64]:
    """Return how often the shared naive Bayes has seen features with n labels, [features, n]."""
    span = np.uint64(len(memory.frequencies) - max_labels)
    bases = ((hashed.features[at].astype(np.uint64) * span) >> HALF).astype(np.int64)
    found: NDArray[np.float64] = memory.frequencies[bases[:, None] + np.arange(n)].astype(np.float64)
    return found


def look_up(
    keys: NDArray[np.uint64], entries: NDArray[np.float32], words: NDArray[np.uint32], n_labels: int
) -> NDArray[np.float64]:
    """Return the entries of words and labels in a leaf's block, [words, n_labels, 3], 0 where there is none."""
    found = np.zeros((len(words), n_labels, entries.shape[1]))
    fill(keys, entries, words, found)
    return found


@kernel
def fill(keys, entries, words, found):  # type: ignore[no-untyped-def]
    """Write what `look_up` returns into an array of 0."""
    for i in range(words.shape[0]):
        for label in range(found.shape[1]):
            place = find(keys, key_of(words[i], label))
            if place >= 0:
                copy(entries[place], found[i, label])
