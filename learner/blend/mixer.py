"""How do several experts become one prediction?

Logistic mixing, as in PAQ (Mattern 2012): the probability of a label is proportional to the product of the experts'
probabilities, each to the power of its weight, and a factor of the label's own. An expert's weight is the sum of a
shared one and of one for each context, so that a context that was seldom seen stays with what is good everywhere.
Contexts: the length of the text; and the label that the experts of one kind are for, and whether those of the other
kind agree: who is right where they do not is what there is to be learned.

Weights are learned online by a Kalman filter, factors by the gradient of the log loss. The filter knows how uncertain
the weights are, and together, not one by one: experts are much alike, so that their differences are what is to be
weighed. So it learns fast while little is known, and steadily later; by the gradient alone the log loss was 5 % more.

What it knows is for the world as it is. Its probabilities are right on the whole, so labels that are less likely, again
and again, than the probabilities themselves allow say that the world is another one: then it begins to doubt all that
it knows of who is right. Experts that are wrong by then, and would be for long, it soon weighs against what they say.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.rows import LEAST
from driftline.learner.kernels import kernel

N_LENGTHS: Final = 12  # log2 of a text's words, the last one for all that are longer
FIRST_VARIANCE: Final = 0.03  # of an expert's shared weight ...
CONTEXT_VARIANCE: Final = 0.005  # ... and of what a context adds to it
WIDENING: Final = 1e-3  # of what is known at a step, up to the first variances, so that the mixer never stops following
FACTOR_RATE: Final = 0.001  # of a label's own factor
LEAST_SURPRISE: Final = np.float32(1e-4)  # 1 - p of a label: under it there is nothing to be learned
LEAST_SLOPE: Final = np.float32(0.3)  # for p in p(1 - p): a surprise that shows no curve would undo everything
MAX_INPUT: Final = 6.0  # of an expert's certainty: a single surprise must not undo what many texts taught
SURPRISES_KEPT: Final = 0.97  # at a label: some thirty of them count
MOST_SURPRISED: Final = 4.0  # standard deviations: nine real streams of 172,000 labels had one alarm, at once or late
LEAST_DEVIATION: Final = 0.25  # a variance: where all is nearly certain, one wrong label in its place is no other world
LEAST_LOG: Final = np.float32(-15)  # an expert's certainty has a limit, or a single error could undo its weight


def first_weights(max_labels: int, weights: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and covariances of a mixer that has learned nothing: shared, of lengths, of who is for what."""
    n_rows, n_experts = 1 + N_LENGTHS + 2 * max_labels, len(weights)
    first = np.zeros((n_rows, n_experts))
    first[0] = weights
    variances = np.full(n_rows, CONTEXT_VARIANCE)
    variances[0] = FIRST_VARIANCE
    return first, variances[:, np.newaxis, np.newaxis] * np.eye(n_experts)


def no_surprises() -> NDArray[np.float64]:
    """Return what `is_another_world` goes by, before any label: by how much more than expected, and the variance."""
    return np.zeros(2)


def rows_of(label: int) -> slice:
    """Return the rows of the weights whose context is that experts are for a label."""
    return slice(1 + N_LENGTHS + 2 * label, 1 + N_LENGTHS + 2 * label + 2)


def with_rows(state: dict[str, NDArray[Any]], max_labels: int) -> dict[str, NDArray[Any]]:
    """Return a state as it is today: once one row a label was for both, agreement and none, and nothing surprised."""
    rows = 1 + N_LENGTHS
    return (
        {"surprises": no_surprises()}
        | state
        | {
            name: np.concatenate([array[:rows], np.repeat(array[rows:], 2, axis=0)])
            for name in ("weights", "covariances")
            if (array := state.get(name)) is not None and len(array) == rows + max_labels
        }
    )


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
def favourite(logs, known, n_labels):  # type: ignore[no-untyped-def]
    """Return the label that experts are for on the whole."""
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
    return favoured


@kernel
def choose_contexts(logs, n_first, n_words, known, n_labels):  # type: ignore[no-untyped-def]
    """Return the rows of the weights that a text's contexts have: of its length, and of who is for what.

    The latter: which label the first n_first experts are for, and whether the others, which are of another kind, agree.
    """
    length = 0
    while n_words > 0 and length < N_LENGTHS - 1:
        n_words >>= 1
        length += 1
    first = favourite(logs[:n_first], known, n_labels)
    agree = favourite(logs[n_first:], known, n_labels) == first
    return 1 + length, 1 + N_LENGTHS + 2 * first + int(agree)


@kernel
def mix(logs, known, n_labels, weights, factors, contexts, out):  # type: ignore[no-untyped-def]
    """Write the mixed probabilities of known labels.

    Parameters
    ----------
    logs : float32 [experts, n_labels or more], log probabilities
    weights : float64 [1 + N_LENGTHS + 2 max_labels, experts]: shared, of lengths, of who is for what
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
def is_another_world(p, known, target, part, n_labels, surprises):  # type: ignore[no-untyped-def]
    """Note how likely a label was; return whether those of late were less so than the probabilities allow.

    By p a label is surprising by 1 - p on the average of the labels, so what is above that sums to nothing but chance
    while p is right: a sum that forgets, beside its own variance.
    """
    expected, square = 0.0, 0.0
    for label in range(n_labels):
        if known[label]:
            rest = 1.0 - p[label]
            expected += p[label] * rest
            square += p[label] * rest * rest
    surprises[0] = SURPRISES_KEPT * surprises[0] + part * (1.0 - p[target] - expected)
    surprises[1] = SURPRISES_KEPT * surprises[1] + part * (square - expected * expected)
    if surprises[0] <= MOST_SURPRISED * math.sqrt(max(surprises[1], 0.0) + LEAST_DEVIATION):
        return False
    surprises[:] = 0
    return True


@kernel
def doubt(covariances):  # type: ignore[no-untyped-def]
    """Make all weights as uncertain as at first. O(labels * experts**2)."""
    for row in range(covariances.shape[0]):
        for expert in range(covariances.shape[1]):
            for other in range(covariances.shape[1]):
                covariances[row, expert, other] = 0
            covariances[row, expert, expert] = FIRST_VARIANCE if row == 0 else CONTEXT_VARIANCE


@kernel
def learn_weights(  # type: ignore[no-untyped-def]
    logs, known, p, target, part, n_labels, weights, covariances, factors, contexts, work
):
    """Learn a label that was known: a step of the Kalman filter on the log loss of p, which `mix` had given.

    Parameters
    ----------
    logs, weights, factors : as in `mix`; weights and factors are changed
    covariances : float64 [as many as weights, experts, experts], changed
    part : of a step
    work : float64 [1 + 3, experts], overwritten

    Notes
    -----
    The odds of the label against all others change with an expert's weight by its input: by how much its log
    probability of the label is above the others', averaged by p. So the label has the likelihood of a logistic
    regression on the inputs, of precision p(1 - p) x x' (Laplace). The weight of an input is a sum of three, whose
    variances add up. O(experts * labels + experts**2).
    """
    for label in range(n_labels):
        if known[label]:
            factors[label] -= part * FACTOR_RATE * (p[label] - (label == target))
    surprise = np.float32(1) - p[target]
    if surprise < LEAST_SURPRISE:
        return
    n_experts = logs.shape[0]
    rows = (0, contexts[0], contexts[1])
    inputs = work[3]
    for expert in range(n_experts):
        others = np.float32(0)
        for label in range(n_labels):
            others += p[label] * logs[expert, label]
        others = (others - p[target] * logs[expert, target]) / surprise
        inputs[expert] = min(max(logs[expert, target] - others, -MAX_INPUT), MAX_INPUT)
    precision = part * max(p[target], LEAST_SLOPE) * surprise
    variance = 0.0
    for place in range(3):
        covariance, moves = covariances[rows[place]], work[place]
        for expert in range(n_experts):
            total = 0.0
            for other in range(n_experts):
                total += covariance[expert, other] * inputs[other]
            moves[expert] = total
            variance += total * inputs[expert]
    gain = 1 / (1 + precision * variance)
    step, shrunk = part * surprise * gain, precision * gain
    for place in range(3):
        row, covariance, moves = weights[rows[place]], covariances[rows[place]], work[place]
        spread = 0.0
        for expert in range(n_experts):
            row[expert] += step * moves[expert]
            spread += covariance[expert, expert]
        first = FIRST_VARIANCE if place == 0 else CONTEXT_VARIANCE
        grown = 1 + part * WIDENING if spread < n_experts * first else 1.0
        for expert in range(n_experts):
            for other in range(n_experts):
                covariance[expert, other] = covariance[expert, other] * grown - shrunk * (moves[expert] * moves[other])
