"""How do several experts become one prediction?

Logistic mixing, as in PAQ (Mattern 2012): the probability of a label is proportional to the product of the experts'
probabilities, each to the power of its weight, and a factor of the label's own; weights and factors are learned online
by the gradient of the log loss. An expert's weight is the sum of a shared one and of one for each context, so that a
context that was seldom seen stays with what is good everywhere. Contexts: the length of the text, and the label that
the experts are for on the whole.
"""

import math
from typing import Final

import numpy as np

from learner.experts import LEAST
from learner.kernels import kernel

N_LENGTHS: Final = 12  # log2 of a text's words, the last one for all that are longer
FIRST_RATE: Final = 0.05  # divided by the root of the number of steps ...
LEAST_RATE: Final = 0.006  # ... down to this one, so that the mixer never stops following
CONTEXT_RATE: Final = 0.2  # of a context's weights, beside the shared ones
FACTOR_RATE: Final = 0.001  # of a label's own factor
MAX_GRADIENT: Final = np.float32(4)  # of an expert's weight: a single surprise must not undo what many texts taught
LEAST_LOG: Final = np.float32(-15)  # an expert's certainty has a limit, or a single error could undo its weight


@kernel
def log_softmax(scores, known, n_labels, logs, p):  # type: ignore[no-untyped-def]
    """Write an expert's probabilities of known labels and their logarithms. Returns whether all scores were finite."""
    finite = True
    top = np.float32(-np.inf)
    for label in range(n_labels):
        if known[label]:
            finite = finite and np.isfinite(scores[label])
            top = max(top, np.float32(scores[label]))
    total = np.float32(0)
    for label in range(n_labels):
        p[label] = np.float32(math.exp(np.float32(scores[label]) - top)) if known[label] and finite else np.float32(0)
        total += p[label]
    if not finite:
        return False
    shift = top + np.float32(math.log(total))
    inverse = np.float32(1) / total
    for label in range(n_labels):
        p[label] *= inverse
        logs[label] = max(np.float32(scores[label]) - shift, LEAST_LOG) if known[label] else np.float32(0)
    return True


@kernel
def choose_contexts(logs, n_words, known, n_labels):  # type: ignore[no-untyped-def]
    """Return the rows of the weights that a text's contexts have: of its length, and of the label favoured."""
    length = 0
    while n_words > 0 and length < N_LENGTHS - 1:
        n_words >>= 1
        length += 1
    favoured = 0
    most = np.float32(-np.inf)
    for label in range(n_labels):
        if known[label]:
            total = np.float32(0)
            for expert in range(logs.shape[0]):
                total = np.float32(total + logs[expert, label])
            if total > most:
                most = total
                favoured = label
    return 1 + length, 1 + N_LENGTHS + favoured


@kernel
def mix(logs, known, n_labels, weights, factors, contexts, out):  # type: ignore[no-untyped-def]
    """Write the mixed probabilities of known labels.

    Parameters
    ----------
    logs : float32 [experts, n_labels or more], log probabilities
    weights : float64 [1 + N_LENGTHS + max_labels, experts + 1]: shared, of lengths, of labels favoured; the last
        column counts steps
    factors : float64 [max_labels], the logarithms
    out : float32 [n_labels]
    """
    length, favoured = contexts
    for label in range(n_labels):
        out[label] = np.float32(factors[label])
    for expert in range(logs.shape[0]):
        weight = np.float32(weights[0, expert] + weights[length, expert] + weights[favoured, expert])
        row = logs[expert]
        for label in range(n_labels):
            out[label] += weight * row[label]
    top = np.float32(-np.inf)
    for label in range(n_labels):
        if known[label]:
            top = max(top, out[label])
    total = 0.0  # in 64 bits: a thousand labels must still sum to 1
    for label in range(n_labels):
        out[label] = max(np.float32(math.exp(out[label] - top)), LEAST) if known[label] else np.float32(0)
        total += out[label]
    for label in range(n_labels):
        out[label] = np.float32(out[label] / total)


@kernel
def learn_weights(logs, known, p, target, part, n_labels, weights, factors, contexts):  # type: ignore[no-untyped-def]
    """Learn a label that was known: a step along the gradient of the log loss of p, which `mix` had given."""
    n_experts = logs.shape[0]
    rates = (1.0, CONTEXT_RATE, CONTEXT_RATE)
    rows = (0, contexts[0], contexts[1])
    for place in range(3):
        weights[rows[place], n_experts] += part
    for expert in range(n_experts):
        gradient = -np.float32(logs[expert, target])
        for label in range(n_labels):
            gradient += p[label] * logs[expert, label]
        gradient = min(max(gradient, -MAX_GRADIENT), MAX_GRADIENT)
        for place in range(3):
            row = weights[rows[place]]
            row[expert] -= part * rates[place] * max(FIRST_RATE / math.sqrt(row[n_experts] + 1), LEAST_RATE) * gradient
    for label in range(n_labels):
        if known[label]:
            factors[label] -= part * FACTOR_RATE * (p[label] - (label == target))
