"""How do several experts share one pass over a text, and mix?

Five experts read the same hashed features, each once, and mixer.py makes one prediction of theirs:

    0  grams    softmax regression on all features, AdaGrad
    1  plain    the same without n-grams
    2  wary     the same, a Gaussian for each weight
    3  terms    naive Bayes on words and pairs
    4  all      naive Bayes on all features
    5  ridge    with vectors only: least squares on what words mean, or on what is sent with texts (ridge.py)
    6  means    with vectors of texts only: whose texts are nearest (means.py)

    grams: a weight of expert 0, a count of 3 and 4        gram_squares: the weight's sum of squares
    terms: a weight of expert 1, one of 2                  term_states: a sum of squares, a variance

Features: words and pairs, the text's shape (shape.py), and n-grams of two lengths: short ones tell languages, long ones
the parts of words, and those between add little. What steps go by lies apart from the weights: with many labels all are
scored, but few are changed. Only n-grams are many, so the tables of terms have half of the slots. Memory is fixed,
whatever the number of labels.
One thread at a time may use an object; its kernel holds no GIL.

Variances: the diagonal Kalman filter on the softmax (as AdPredictor, Graepel et al. 2010, section 3.3, with
Laplace's approximation): a weight moves by its variance, and evidence shrinks that; it slowly widens again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.blend.means import learn_means, score_means
from driftline.learner.blend.mixer import (
    LEAST_LOG,
    choose_contexts,
    doubt,
    first_weights,
    is_another_world,
    learn_weights,
    mix,
    no_surprises,
    rows_of,
    with_rows,
)
from driftline.learner.blend.parts import parts_of
from driftline.learner.blend.ridge import RIDGE_STEPS, RIDGE_TABLES, SURE, Meaning, learn_ridge, score_ridge
from driftline.learner.blend.rows import (
    CHARS_VALUE,
    COUNT,
    EXPERT,
    FIRST_VARIANCE,
    MIN_GRADIENT,
    N_LINEAR,
    ROWS_APART,
    WIDTH,
    ask_for_third,
    calm_down,
    calmness,
    learn_counts,
    learn_linear,
    learn_totals,
    place_all,
    score_bayes,
    score_linear,
    to_large_gradients,
)
from driftline.learner.blend.settings import BlendSettings
from driftline.learner.blend.two_labels import (
    N_PLANES,
    ask_for_steps,
    learn_grams_two,
    learn_terms_two,
    score_bayes_two,
    score_linear_two,
)
from driftline.learner.embed.opened import check_same_dimension, made_by, open_embedder, settled_name
from driftline.learner.explain.parts import VECTOR, Hashed, Part, limited_part, weighted
from driftline.learner.explain.rows import (
    COUNTER,
    LANES,
    MAX_REPEATS,
    MOST_CLEARED,
    OVERALL,
    SURE_ALONE,
    ask_for,
    is_alone,
    slots_of,
)
from driftline.learner.explain.sketch import Sketch, is_due, new_sketch, note, sketch_of, sketch_state
from driftline.learner.explain.trace import trace, trace_shape
from driftline.learner.explain.traced import Feature
from driftline.learner.kernels import kernel
from driftline.learner.models.bayes import growth
from driftline.learner.models.classifier import Call, Compiled, Scores, State, options_set, spec_of
from driftline.learner.models.rehearsal import (
    NAMES,
    Rehearsal,
    Rows,
    forget,
    keep,
    new_rehearsal,
    recall,
    rehearsal_of,
    rehearsal_state,
)
from driftline.learner.text.features import character_table, hash_text, kernel_inputs, read, text_buffers
from driftline.learner.text.shape import MAX_SHAPE, N_AMOUNTS, hash_shape
from driftline.learner.vectors.lookup import ask_for_words, find_rows
from driftline.learner.vectors.opened import open_table
from driftline.learner.vectors.sent import take_sent, write_vector
from driftline.stream.wire.vector import size_of

N_EXPERTS: Final = len(EXPERT)
PAIR: Final = 2  # labels: then two_labels.py has the kernels
FIRST_WEIGHTS: Final = (0.4, 0.4, 0.4, 0.2, 0.2)  # more than 1 in all: experts that agree are more than one's evidence
RIDGE_WEIGHT: Final = 0.2  # where vectors are those of words ...
SENT_WEIGHT: Final = 0.4  # ... and where they are the texts' own
MEANS_WEIGHT: Final = 0.2
TERM_SHARE: Final = 1  # the tables of terms have 2**(bits - TERM_SHARE) slots


class Blend(Compiled):
    """Five experts on hashed words, pairs, shape and character n-grams, mixed in the logistic domain."""

    tables = frozenset({"grams", "terms", "sketch"}) | RIDGE_TABLES
    gives_places = True
    steps = frozenset({"gram_squares", "term_states", "covariances", "surprises"}) | NAMES | RIDGE_STEPS

    settings: BlendSettings
    _sketch: Sketch
    _rehearsal: Rehearsal

    def __init__(self, settings: BlendSettings | None = None) -> None:
        self.settings = settings or BlendSettings()
        table = open_table(self.settings.vectors, self.settings.vectors_sha256)
        if table is not None:  # wherever it is built again, it is by this file
            path = str(Path(self.settings.vectors).absolute())
            self.settings = replace(self.settings, vectors=path, vectors_sha256=table.sha256)
        named = self.settings
        self.embedder = open_embedder(named.embed, named.embed_sha256, named.embed_made_by)
        if self.embedder is not None:  # likewise
            check_same_dimension(named.dimension, self.embedder)
            self.settings = replace(
                named,
                dimension=self.embedder.dimension,
                embed=settled_name(named.embed),
                embed_sha256=self.embedder.sha256,
                embed_made_by=named.embed_made_by or made_by(self.embedder),
            )
            self.embed_rate = named.embed_rate
        self.dimension = sent = self.settings.dimension
        self.spec = spec_of("blend", options_set(self.settings))
        self._set_labels([], self.settings.max_labels)
        slots = 1 << self.settings.bits
        term_states = np.zeros((slots >> TERM_SHARE, WIDTH), np.float32)
        term_states[:, 1] = FIRST_VARIANCE
        self._meaning = Meaning(table, self.max_labels, sent)
        of_meaning = (SENT_WEIGHT, MEANS_WEIGHT) if sent else (RIDGE_WEIGHT,) if table is not None else ()
        self._first_weights = (*FIRST_WEIGHTS, *of_meaning)
        weights, covariances = first_weights(self.max_labels, self._first_weights)
        self._state: State = {
            "grams": np.zeros((slots, WIDTH), np.float32),
            "gram_squares": np.zeros(slots, np.float32),
            "terms": np.zeros((slots >> TERM_SHARE, WIDTH), np.float32),
            "term_states": term_states,
            "totals": np.zeros((self.max_labels, 3)),
            "overall": np.array([1.0, 0, 0]),
            "weights": weights,
            "covariances": covariances,
            "factors": np.zeros(self.max_labels),
            "surprises": no_surprises(),
            "known": np.zeros(self.max_labels, np.uint8),
            "counters": np.zeros(2, np.int64),
        }
        self._sketch = new_sketch(slots - 2 * self.max_labels)
        self._rehearsal = new_rehearsal(self.settings.rehearse, self.settings.bits, self.max_labels, MAX_SHAPE, sent)
        self._buffers = text_buffers(self.settings)
        n_experts = len(self._first_weights)
        places = self.settings.max_features + MAX_SHAPE + 1
        rows = np.empty((4, self.max_labels + 2 * LANES))
        self._work = (
            np.empty(MAX_SHAPE, np.uint32),  # features of the shape
            np.empty((2, places), np.int64),  # first slots among the grams and counts, of this text and the next
            np.empty((2, places), np.int64),  # ... and among the terms
            *np.zeros((2, self.max_labels * WIDTH + LANES), np.float32),  # sums over features
            rows,
            rows[:2].view(np.int64),
            np.empty((n_experts, self.max_labels), np.float32),  # log probabilities
            np.empty((n_experts, self.max_labels), np.float32),  # probabilities, then gradients
            np.zeros((N_PLANES, places + LANES), np.float32),  # values of features, and what stands in their rows
            np.empty((4, n_experts)),  # of the mixer
        )

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged slots)."""
        return int(self._state["counters"][COUNTER.REFUSED])

    def call_rows(self, texts: Sequence[str], rows: Rows, scores: Scores) -> Call:
        """Return the kernel and its arguments; see `Compiled`."""
        state = self._state
        return blend_and_learn, (
            *kernel_inputs(texts, rows.targets, rows.weights, self.settings, self._buffers),
            (rows.slots, rows.steps, self._rehearsal),
            growth(self.settings.half_life),
            (state["grams"].reshape(-1), state["terms"].reshape(-1)),
            (state["gram_squares"], state["term_states"].reshape(-1)),
            state["grams"][:, COUNT],
            (state["totals"], state["overall"]),
            (state["weights"], state["covariances"], state["factors"], state["surprises"]),
            self._meaning.arguments,
            state["known"],
            state["counters"],
            self._sketch,
            self._work,
            scores,
        )

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "blend", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        own = self._state | sketch_state(self._sketch) | rehearsal_state(self._rehearsal)
        return own | self._meaning.state()

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        taken = self._checked(with_rows(state, self.max_labels), labels)
        self._sketch, self._rehearsal = sketch_of(taken), rehearsal_of(taken, self._rehearsal)
        self._meaning.load_state(taken)
        self._state = {name: taken[name] for name in self._state}
        self._set_labels(labels, self.max_labels)

    def imprint(self, text: str) -> NDArray[np.uint32]:
        """Return what `clear` has to know of a text; see `Classifier`. Its shape's features are before its n-grams."""
        ready, buffers = read([text], self.settings), text_buffers(self.settings)
        start, stop = ready.starts
        table, shape = character_table(), np.empty(MAX_SHAPE, np.uint32)
        n_words, n_plain, n = hash_text(ready.codes, start, stop, table, self.settings.kernel_arguments, buffers)
        found = buffers[0][:n].copy()  # the next call may overwrite them
        shape = shape[: hash_shape(ready.codes, start, stop, table, buffers, n_words, shape)]
        features = np.concatenate([found[:n_plain], shape, found[n_plain:]])[:MOST_CLEARED]
        return np.concatenate([np.array([min(n_plain + len(shape), len(features))], np.uint32), features])

    def clear(self, column: int, imprints: Sequence[NDArray[np.uint32]]) -> None:
        """Make a label unknown; see `Classifier`."""
        state = self._state
        for each in imprints:
            of_grams = column + (slots_of(each[1:], len(state["grams"]), self.max_labels) & -ROWS_APART)
            of_terms = column + (
                slots_of(each[1 : 1 + int(each[0])], len(state["terms"]), self.max_labels) & -ROWS_APART
            )
            state["grams"][of_grams] = 0
            state["gram_squares"][of_grams] = 0
            state["terms"][of_terms] = 0
            state["term_states"][of_terms] = 0, FIRST_VARIANCE
        weights, covariances = first_weights(self.max_labels, self._first_weights)
        rows = rows_of(column)
        state["weights"][rows], state["covariances"][rows] = weights[rows], covariances[rows]
        state["totals"][column] = state["factors"][column] = 0
        state["known"][column] = 0
        self._meaning.clear(column)
        forget(self._rehearsal, column)

    def part(self, hashed: Hashed) -> Part:
        """Return the log scores of labels: experts' log probabilities, weighted, and the labels' factors."""
        self.predict_proba_many([hashed.text])  # leaves the log probabilities that the weights are chosen by
        logs, state = self._work[7], self._state
        known = state["known"]
        n_labels = int(state["counters"][COUNTER.N_LABELS])
        contexts = choose_contexts(logs[:N_EXPERTS], N_LINEAR, hashed.n_words, known, n_labels)
        weights = state["weights"][[0, *contexts]].sum(axis=0)
        weights[N_LINEAR:N_EXPERTS] *= calmness(hashed.n_words)
        found = [*parts_of(state, hashed, self.max_labels, n_labels), *self._meaning.parts(hashed, n_labels)]
        parts = [limited_part(part, len(hashed.features), known[:n_labels] > 0, float(LEAST_LOG)) for part in found]
        factors = Part(state["factors"][:n_labels], lambda at: np.zeros((at.stop - at.start, n_labels)))
        return weighted([*zip(weights.tolist(), parts, strict=True), (1.0, factors)])

    def trace(self, text: str) -> list[Feature]:
        """Return the features of a text: those of its shape come before its n-grams, and its vector is the last."""
        features = trace(text, self.settings)
        n_plain = sum(feature.kind != "chars" for feature in features)
        told = f"vector of {self.dimension} numbers"
        sent = [Feature(0, VECTOR, told, [])] if self.dimension and size_of(text) == self.dimension else []
        return [*features[:n_plain], *trace_shape(text, self.settings, features), *features[n_plain:], *sent]

    def _reach(self, feature: Feature) -> int:
        """Return as `Classifier` says; rows begin at even slots, and the table of terms has half of the places."""
        return (len(self.labels) + ROWS_APART - 1) << (TERM_SHARE if feature.kind != "chars" else 0)


@kernel
def blend_and_learn(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    codes, starts, targets, weights, table, text_arguments, buffers, rehearsing, grows,
    tables, states, counts, bayes_totals, mixing, meaning, known, counters, sketch, work, scores,
):  # fmt: skip
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts, targets, weights, table, text_arguments, buffers : as in linear.py
    rehearsing : as in linear.py; changed. What is rehearsed only the linear experts learn, and the ridge.
    grows : float64, growth of naive Bayes's scale at a label
    tables : grams, terms, flat; changed
    states : gram_squares, term_states, flat; changed
    counts : float32 [slots], those among the grams; changed
    bayes_totals : as in bayes.py; changed
    mixing : weights, covariances, factors and surprises, as in mixer.py; changed
    meaning : word vectors; the dimension of these, or of such as are sent, 0 if there are none; what the ridge has
        learned, changed; its space
    known, counters : as in linear.py; changed
    sketch : changed: the features of texts to be learned
    work : arrays that are overwritten
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash the next text, and ask the memory for its slots; what follows is about the text before. N-grams' slots are
       asked for in thirds, one now, one after the scores, one after the step: more at once would be waited for. Slots
       are those of bias, words, pairs, words as written; amounts; n-grams: `ends` says where each of the three ends.
       Values: 1, and less an n-gram, divided by the Euclidean norm of both; SHAPE_VALUE an amount.
    2. Score: each expert, then the mixer, with the labels known by now. Of long texts naive Bayes is less certain.
    3. Learn. The mixer learns from what was predicted, so only labels that were known; then every expert on its own.
       A weight of 2.5 is two steps and a half one, as in linear.py; naive Bayes counts it at once. A label that is the
       only one is told from one that is its opposite, until it is SURE_ALONE, and the second label begins as that.

    O(features * labels). Bit-exact on one machine.
    """
    shape, all_gram_bases, all_term_bases, gram_sums, term_sums, rows, bits, logs, p, planes, mixer_work = work
    kept_slots, steps, rehearsal = rehearsing
    grams, terms = tables
    totals, overall = bayes_totals
    mixer_weights, covariances, factors, surprises = mixing
    words, dimension, ridge, space, means = meaning
    is_sent = space.halves.shape[1] > 0
    max_labels = known.shape[0]
    one = np.float32(1)
    sums = (gram_sums, term_sums, rows[3])
    n_texts = targets.shape[0]
    next_words, next_plain, next_n, next_shape, next_rows = 0, 0, 0, 0, 0
    for turn in range(n_texts + 1):
        # 1
        if turn > 0:
            ask_for_third(grams, all_gram_bases[(turn - 1) & 1], 1 + next_n + next_shape, 2, counters[COUNTER.N_LABELS])
        n_words, n_plain, n, n_shape, n_rows = next_words, next_plain, next_n, next_shape, next_rows
        if turn < n_texts:
            start, stop = starts[turn], starts[turn + 1]
            kept_slot = kept_slots[turn]
            if targets[turn] < -1:
                next_words, next_plain, next_n, next_shape = recall(rehearsal, kept_slot, buffers[0], shape)
            else:
                next_words, next_plain, next_n = hash_text(codes, start, stop, table, text_arguments, buffers)
                next_shape = hash_shape(codes, start, stop, table, buffers, next_words, shape)
                if kept_slot >= 0:
                    keep(rehearsal, kept_slot, buffers[0], next_words, next_plain, next_n, shape, next_shape)
            if dimension > 0 and not is_sent:
                ask_for_words(buffers[0], next_words, words)
            bases = (all_gram_bases[turn & 1], all_term_bases[turn & 1])
            place_all(buffers[0], next_plain, next_n, shape, next_shape, tables, max_labels, bases)
            ask_for(terms, bases[1], 1 + next_plain + next_shape, WIDTH, counters[COUNTER.N_LABELS])
            ask_for_third(grams, bases[0], 1 + next_n + next_shape, 0, counters[COUNTER.N_LABELS])
            if is_sent:
                is_kept, halves = targets[turn] < -1, space.halves[turn & 1]
                next_rows = take_sent(codes, start, stop, is_kept, kept_slot, rehearsal.vectors, halves)
            elif dimension > 0:
                next_rows = find_rows(buffers[0], next_words, words, space.vector.shape[0], space.rows[turn & 1])
            if targets[turn] >= 0 and 0 < weights[turn] < np.inf and is_due(sketch):
                note(buffers[0], next_n, sketch)
                note(shape, next_shape, sketch)
        if turn == 0:
            continue
        text = turn - 1
        gram_bases, term_bases = all_gram_bases[text & 1], all_term_bases[text & 1]
        bases = (gram_bases, term_bases)
        n_first = 1 + n_plain + n_shape - N_AMOUNTS
        ends = (n_first, n_first + N_AMOUNTS, 1 + n + n_shape)
        gram_value = np.float32(1 / math.sqrt(n_first + (n - n_plain) * CHARS_VALUE * CHARS_VALUE))
        values = (gram_value, gram_value * CHARS_VALUE, np.float32(1 / math.sqrt(n_first)))

        # 2
        again = targets[text] < -1
        target = np.int32(-2 - targets[text]) if again else targets[text]
        n_labels = counters[COUNTER.N_LABELS]
        contexts = (0, 0)
        new_terms, new_features = n_plain, n + n_shape - N_AMOUNTS
        finite = True
        has_vector = dimension > 0 and write_vector(space, text & 1, n_rows, words, dimension)
        if n_labels > 0:
            if n_labels == 2:
                finite = score_linear_two(tables, bases, ends, values, known, planes, rows[3], logs, p)
                if target >= 0:
                    ask_for_steps(states, bases, ends, p, target)
                bayes_finite, new_terms, new_features = score_bayes_two(
                    planes, n_plain, ends, totals, overall, known, rows, bits, logs, p
                )
            else:
                finite = score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p)
                bayes_finite, new_terms, new_features = score_bayes(
                    grams, gram_bases, n_plain, ends, totals, overall, known, n_labels, rows, bits, logs, p
                )
            finite = finite and bayes_finite
            if dimension > 0:
                finite = (
                    score_ridge(ridge, space, has_vector, known, n_labels, logs[N_EXPERTS], p[N_EXPERTS]) and finite
                )
            if is_sent:
                last = N_EXPERTS + 1
                finite = score_means(means, space, has_vector, known, n_labels, logs[last], p[last]) and finite
            if turn < n_texts:
                ask_for_third(grams, all_gram_bases[turn & 1], 1 + next_n + next_shape, 1, n_labels)
            if finite:
                calm_down(logs, n_words, n_labels)
                contexts = choose_contexts(logs[:N_EXPERTS], N_LINEAR, n_words, known, n_labels)
                mix(logs, known, n_labels, mixer_weights, factors, contexts, scores[text])
            else:
                for label in range(n_labels):
                    scores[text, label] = known[label] / np.float32(known[:n_labels].sum())

        # 3
        if target < 0:
            continue
        weight_left = min(weights[text], np.float32(MAX_REPEATS))
        if not finite or not 0 < weights[text] < np.inf:
            counters[COUNTER.REFUSED] += 1
            continue
        if target < n_labels and known[target]:
            part = min(weight_left, one)
            if not again:
                if is_another_world(scores[text], known, target, part * steps[text], n_labels, surprises):
                    doubt(covariances)
                learn_weights(
                    logs, known, scores[text], target, part * steps[text], n_labels,
                    mixer_weights, covariances, factors, contexts, mixer_work,
                )  # fmt: skip
            fresh = False
        else:
            known[target] = 1
            n_labels = counters[COUNTER.N_LABELS] = max(n_labels, target + 1)
            fresh = True
        amount = np.float32(min(weight_left, np.float32(MAX_REPEATS)) * overall[OVERALL.SCALE])
        is_counted = again
        alone = target < PAIR <= max_labels and is_alone(known, n_labels)
        n_learned = PAIR if alone else n_labels
        least = one - SURE_ALONE if alone else MIN_GRADIENT
        for repeat in range(MAX_REPEATS + 1):
            if fresh or alone or repeat > 0:
                if alone:
                    known[1 - target] = 1
                if n_learned == PAIR:
                    finite = score_linear_two(tables, bases, ends, values, known, planes, rows[3], logs, p)
                else:
                    finite = score_linear(tables, bases, ends, values, known, n_labels, sums, logs, p)
                if alone:
                    known[1 - target] = 0
                if not finite:
                    counters[COUNTER.REFUSED] += 1
                    break
            some = False
            for expert in range(N_LINEAR):
                some = to_large_gradients(p[expert], target, n_learned, least) or some
            if not some:
                break
            part = min(weight_left, one)
            if n_learned != PAIR:
                learn_linear(tables, states, bases, ends, values, p, part, n_labels, planes)
            else:
                if p[EXPERT.GRAMS, 0] != 0:
                    counted = np.float32(0) if is_counted else amount
                    learn_grams_two(tables, states, bases, ends, p[EXPERT.GRAMS, 0], part, target, counted, planes)
                    is_counted = True
                if p[EXPERT.PLAIN, 0] != 0 or p[EXPERT.WARY, 0] != 0:
                    learn_terms_two(tables, states, bases, ends, p[EXPERT.PLAIN, 0], p[EXPERT.WARY, 0], part, planes)
            weight_left -= part
            if weight_left <= 0:
                break
        if is_sent and has_vector and not again:
            learn_means(means, space, dimension, target, min(weights[text], np.float32(MAX_REPEATS)))
        if has_vector and (fresh or scores[text, target] < SURE):
            part = min(weights[text], np.float32(MAX_REPEATS))
            finite = learn_ridge(ridge, space, dimension, known, target, n_labels, part)
            counters[COUNTER.REFUSED] += int(not finite)
        if again:
            continue
        if not is_counted:
            learn_counts(counts, gram_bases, ends, target, amount)
        learn_totals(counts, n_plain, ends, new_terms, new_features, totals, overall, target, amount, grows)
