"""How does a text go through a Hoeffding tree?

Down to its leaf by the words that it has, which scores it and then learns it; and through the alternates that challenge
the branches on its way. The kernel of tree.py.
"""

import math
from typing import Final

import numpy as np

from driftline.learner.explain.rows import MAX_REPEATS, softmax
from driftline.learner.explain.sketch import is_due, note
from driftline.learner.kernels import copy, inlined, kernel, prefetch
from driftline.learner.models.linear import fill_values, score
from driftline.learner.models.rehearsal import keep, recall
from driftline.learner.text.features import hash_text
from driftline.learner.text.hashes import HALF
from driftline.learner.tree.growth import (
    drop_alternate,
    hoeffding_bound,
    replace,
    watch,
)
from driftline.learner.tree.layout import COUNTER, LINK, PREDICTOR, SCORE, SHARED_INPUTS, VALUE
from driftline.learner.tree.leaf import (
    MAX_LOSS,
    at_once,
    choose_predictor,
    learn_bayes,
    learn_leaf,
    learn_linear,
    learn_mix,
    score_leaf,
    score_rows,
    score_shared,
)

LOCAL_WORDS: Final = 512  # of a text, that leaves look at: of whole e-mails the headers and the first page
MIN_DUELS: Final = 100.0
MAX_DUELS: Final = 3000.0  # undecided until then: no better
DUEL_DELTA: Final = 0.01
ASKED_FOR: Final = 2048  # features


@inlined
def next_node(memory, words, n_local, node):  # type: ignore[no-untyped-def]
    """Return the child of an inner node that a text goes to."""
    feature = memory.features[node]
    for i in range(n_local):
        if words[i] == feature:
            return memory.links[node, LINK.PRESENT]
    return memory.links[node, LINK.ABSENT]


@inlined
def leaf_of(memory, words, n_local, node):  # type: ignore[no-untyped-def]
    """Return the leaf under a node that a text belongs to."""
    while memory.links[node, LINK.PRESENT] > 0:
        node = next_node(memory, words, n_local, node)
    return node


@inlined
def challenged(memory, words, n_local):  # type: ignore[no-untyped-def]
    """Return the first node on a text's way that has an alternate, or -1."""
    node = 0
    while memory.links[node, LINK.ALTERNATE] == 0:
        if memory.links[node, LINK.PRESENT] == 0:
            return -1
        node = next_node(memory, words, n_local, node)
    return node


@kernel
def ask_for_next(memory, sketch, features, n_tokens, n):  # type: ignore[no-untyped-def]
    """Let what a text's features are scored and learned by come from the memory while something else is done."""
    flat = memory.slots.reshape(-1)
    max_labels = memory.known.shape[0]
    span = np.uint64(memory.slots.shape[0] - 2 * max_labels)
    token_span = np.uint64(memory.frequencies.shape[0] - max_labels)
    n_places = np.uint64(sketch.places.shape[0])
    last = 2 * max(memory.counters[COUNTER.N_LABELS], 1) - 1
    for i in range(min(n, ASKED_FOR)):
        feature = np.uint64(features[i])
        at = np.int64(feature * span >> HALF) * 2
        prefetch(flat, at)
        prefetch(flat, at + last)
        prefetch(sketch.places, np.int64(feature * n_places >> HALF))
    for i in range(min(n_tokens, ASKED_FOR)):
        prefetch(memory.frequencies, np.int64(np.uint64(features[i]) * token_span >> HALF))


@kernel
def duel(memory, work, options, words, n_local, n_tokens, n_labels, target, weight, loss, node):  # type: ignore[no-untyped-def]
    """Let the alternate of a node score and learn a text too; keep the better."""
    links, values = memory.links, memory.values
    leaf = leaf_of(memory, words, n_local, links[node, LINK.ALTERNATE])
    score_leaf(memory, work, words, n_local, n_tokens, n_labels, leaf)
    other = min(-math.log(work.rows[choose_predictor(memory, leaf, options.leaf), target]), MAX_LOSS)
    learn_leaf(memory, work, options, words, n_local, n_tokens, n_labels, leaf, target, weight, np.float32(1))
    values[node, VALUE.DUELS] += 1
    values[node, VALUE.AHEAD] += min(max(loss - other, -1.0), 1.0)
    n = values[node, VALUE.DUELS]
    if n >= MIN_DUELS:
        bound = hoeffding_bound(2.0, DUEL_DELTA, n)
        if values[node, VALUE.AHEAD] / n > bound:
            replace(memory, node)
        elif values[node, VALUE.AHEAD] / n < -bound or n >= MAX_DUELS:
            drop_alternate(memory, node)


@kernel
def score_and_learn(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    codes, starts, targets, weights, table, text_arguments, buffers, rehearsing, options, memory, work, sketch, scores
):
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts : from `codepoints`
    targets : int32 [n_texts], label or -1
    weights : float32 [n_texts], above 0
    rehearsing : as in blend.py. What is rehearsed only the shared linear model learns.
    memory : Memory, changed
    sketch : Sketch, changed
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash. The shared models' slots lie as in `linear`: base + label, the bias at the end.
    2. Score with the shared models.
    3. Go down to the leaf, score with its own, and take the predictor that it trusts.
    4. Learn at the leaf, against the shared scores as they were; then in the shared models.

    O(features * labels + depth * words). Only a text with a target changes anything.
    """
    kept_slots, steps, rehearsal = rehearsing
    rows, counters, known, slots = work.rows, memory.counters, memory.known, memory.slots
    flat, values = slots.reshape(-1), work.planes[0]
    max_labels = known.shape[0]
    span = np.uint64(slots.shape[0] - 2 * max_labels)
    token_span = np.uint64(memory.frequencies.shape[0] - max_labels)
    two = buffers[1].view(np.float32)  # it is free once a text is hashed
    n_texts = targets.shape[0]
    next_words, next_tokens, next_n = 0, 0, 0
    for turn in range(n_texts + 1):
        # 1
        n_words, n_tokens, n = next_words, next_tokens, next_n
        if turn < n_texts:
            if targets[turn] < -1:
                next_words, next_tokens, next_n, _ = recall(rehearsal, kept_slots[turn], buffers[0], buffers[0])
            else:
                next_words, next_tokens, next_n = hash_text(
                    codes, starts[turn], starts[turn + 1], table, text_arguments, buffers
                )
                if kept_slots[turn] >= 0:
                    keep(rehearsal, kept_slots[turn], buffers[0], next_words, next_tokens, next_n, buffers[0], 0)
            copy(buffers[0][:next_n], work.features[turn & 1])
            ask_for_next(memory, sketch, work.features[turn & 1], next_tokens, next_n)
        if turn == 0:
            continue
        text = turn - 1
        features = work.features[text & 1]
        for i in range(n):
            work.bases[i + 1] = np.uint32((np.uint64(features[i]) * span) >> HALF)
        for i in range(n_tokens):
            work.tokens[i] = np.uint32((np.uint64(features[i]) * token_span) >> HALF)
        work.bases[0] = slots.shape[0] - max_labels
        n_plain = n_tokens + 1
        n += 1
        n_local = min(n_words, LOCAL_WORDS)
        fill_values(n_plain, n, options.chars_value, values)
        again = targets[text] < -1
        target = np.int32(-2 - targets[text]) if again else targets[text]
        weight = min(weights[text], np.float32(MAX_REPEATS))
        if target >= 0 and not 0 < weights[text] < np.inf:
            counters[COUNTER.REFUSED] += 1
            target = np.int32(-1)

        # 2
        n_labels = counters[COUNTER.N_LABELS]
        n_scored = max(n_labels, target + 1)
        is_new = target >= 0 and known[target] == 0
        leaf = leaf_of(memory, features, n_local, 0)
        if n_scored == 2 and at_once(two, n):
            rows[SCORE.LINEAR, 0], rows[SCORE.LINEAR, 1] = score_rows(flat, work.bases, values, n, two)
        else:
            score(flat, work.bases, values, n, n_scored, rows[SCORE.LINEAR])
        if n_labels > 0:
            finite = softmax(rows[SCORE.LINEAR], known, n_labels, rows[PREDICTOR.LINEAR])
            if not finite:
                copy(rows[PREDICTOR.LINEAR, :n_labels], scores[text])
                if target >= 0:
                    counters[COUNTER.REFUSED] += 1
                continue
            score_shared(memory, work, n_tokens, n_labels)

            # 3
            score_leaf(memory, work, features, n_local, n_tokens, n_labels, leaf)
            copy(rows[choose_predictor(memory, leaf, options.leaf), :n_labels], scores[text])
        if target < 0:
            continue
        if again:
            learn_linear(memory, work, options, n, n_scored, target, weight, two)
            continue
        if is_due(sketch):
            note(features, n - 1, sketch)

        # 4
        counters[COUNTER.N_TEXTS] += 1
        loss = 0.0 if is_new else min(-math.log(scores[text, target]), MAX_LOSS)
        part = np.float32(0) if is_new else steps[text]
        learn_leaf(memory, work, options, features, n_local, n_tokens, n_labels, leaf, target, weight, part)
        if options.drift and part == 1:
            error = 0.0 if scores[text].argmax() == target else 1.0
            watch(memory, leaf, error)
            node = challenged(memory, features, n_local)
            if node >= 0:
                duel(memory, work, options, features, n_local, n_tokens, n_labels, target, weight, loss, node)
        if not is_new:
            step = options.mix_rate * min(weight, np.float32(1)) * part
            learn_mix(
                rows, SHARED_INPUTS, memory.values[0, VALUE.MIX :], known, n_labels, PREDICTOR.SHARED_MIX, target, step
            )
        known[target] = 1
        counters[COUNTER.N_LABELS] = n_scored
        if learn_linear(memory, work, options, n, n_scored, target, weight, two):
            learn_bayes(memory, work, options, n_tokens, target, weight)
        else:
            counters[COUNTER.REFUSED] += 1
