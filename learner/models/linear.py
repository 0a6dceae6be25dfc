"""How does a linear model learn from one text at a time?

Softmax regression over hashed features with a rate for each weight (AdaGrad: Duchi et al. 2011, diagonal), scored and
learned in one pass over a text. Memory is fixed: a (feature, label) pair is a slot, whatever the number of labels.
One thread at a time may use an object; its kernel holds no GIL.

What departs from the paper: sums of squared gradients decay, so that rates never die out; gradients under
MIN_GRADIENT are left out; a label's weight is a number of repetitions, so that no weight can blow a model up.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.parts import Hashed, Part, linear_part
from driftline.learner.explain.rows import (
    COUNTER,
    LANES,
    MAX_REPEATS,
    MOST_CLEARED,
    MOST_LINES,
    SURE_ALONE,
    adagrad,
    beside_nothing,
    is_alone,
    learn_label,
    place,
    slots_of,
    softmax,
    to_gradients,
)
from driftline.learner.explain.sketch import Sketch, new_sketch, note_texts, sketch_of, sketch_state
from driftline.learner.kernels import copy, inlined, kernel, prefetch
from driftline.learner.models.classifier import Call, Compiled, Scores, State, options_set, spec_of
from driftline.learner.models.rehearsal import (
    NAMES,
    Rehearsal,
    Rows,
    check_rehearse,
    forget,
    keep,
    new_rehearsal,
    recall,
    rehearsal_of,
    rehearsal_state,
)
from driftline.learner.text.features import TextSettings, hash_text, imprint, kernel_inputs, text_buffers
from driftline.stream.errors import ConfigError

ONE, TWO, THREE, FOUR = map(np.uint64, (1, 2, 3, 4))  # indices without sign are not looked at for < 0
LINE: Final = 16  # numbers in a line of the cache
FIRST_SUM: Final = np.float32(1e-5)  # keeps the first step of a weight finite when its gradient is tiny


@dataclass(frozen=True, kw_only=True)
class LinearSettings(TextSettings):
    """Options of `linear`. The defaults were chosen over six streams at once, none of them tuned for alone."""

    bits: int = 22  # 2**bits slots of 8 bytes; 20 is faster, but 78 languages in it cost two points of accuracy
    rate: float = 0.5
    chars_weight: float = 0.4  # a character n-gram's value beside a word's: a word has many of them, all much alike
    decay: float = 1e-4  # of a sum of squared gradients, at each of its weight's steps
    rehearse: int = 4096  # texts that are kept, for when labels come in runs
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 8 <= self.bits <= 30:
            raise ConfigError(f"bits={self.bits}: it must be 8 to 30")
        if not 1 <= self.max_labels <= 1 << (self.bits - 2):
            limit = 1 << (self.bits - 2)
            raise ConfigError(f"max_labels={self.max_labels}: with bits={self.bits} it must be 1 to {limit}")
        if not 0 < self.rate <= 10:
            raise ConfigError(f"rate={self.rate}: it must be above 0 and at most 10")
        if not 0 < self.chars_weight <= 10:
            raise ConfigError(f"chars_weight={self.chars_weight}: it must be above 0 and at most 10")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay={self.decay}: it must be 0 or more and under 1")
        check_rehearse(self.rehearse)


class Linear(Compiled):
    """Softmax regression on hashed words, pairs and character n-grams."""

    tables = frozenset({"slots", "sketch"})
    steps = NAMES
    gives_places = True

    settings: LinearSettings
    _sketch: Sketch
    _rehearsal: Rehearsal

    def __init__(self, settings: LinearSettings | None = None) -> None:
        self.settings = settings or LinearSettings()
        self.spec = spec_of("linear", options_set(self.settings))
        self._set_labels([], self.settings.max_labels)
        self._slots: NDArray[np.float32] = np.zeros((1 << self.settings.bits, 2), np.float32)
        self._known: NDArray[np.uint8] = np.zeros(self.max_labels, np.uint8)
        self._counters: NDArray[np.int64] = np.zeros(2, np.int64)
        self._sketch = new_sketch(len(self._slots) - 2 * self.max_labels)
        self._rehearsal = new_rehearsal(self.settings.rehearse, self.settings.bits, self.max_labels)
        self._arguments = (
            np.float32(self.settings.rate),
            np.float32(self.settings.chars_weight),
            np.float32(1 - self.settings.decay),
        )
        self._buffers = text_buffers(self.settings)
        self._rows: NDArray[np.float32] = np.empty((2, self.max_labels), np.float32)
        places = self.settings.max_features + 1 + 2 * LANES
        self._bases: NDArray[np.int64] = np.empty((2, places), np.int64)
        self._planes: NDArray[np.float32] = np.zeros((9, places), np.float32)

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged slots)."""
        return int(self._counters[COUNTER.REFUSED])

    def call_rows(self, texts: Sequence[str], rows: Rows, scores: Scores) -> Call:
        """Return the kernel and its arguments; see `Compiled`."""
        return score_and_learn, (
            *kernel_inputs(texts, rows.targets, rows.weights, self.settings, self._buffers),
            (rows.slots, rows.steps, self._rehearsal),
            self._arguments,
            self._slots.reshape(-1),
            self._known,
            self._counters,
            self._rows,
            self._bases,
            self._planes,
            self._sketch,
            scores,
        )

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "linear", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        own: State = {"slots": self._slots, "known": self._known, "counters": self._counters}
        return {**own, **sketch_state(self._sketch), **rehearsal_state(self._rehearsal)}

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        taken = self._checked(state, labels)
        self._slots, self._known, self._counters = taken["slots"], taken["known"], taken["counters"]
        self._sketch, self._rehearsal = sketch_of(taken), rehearsal_of(taken, self._rehearsal)
        self._set_labels(labels, self.max_labels)

    def imprint(self, text: str) -> NDArray[np.uint32]:
        """Return what `clear` has to know of a text; see `Classifier`."""
        return imprint(text, self.settings, MOST_CLEARED)

    def clear(self, column: int, imprints: Sequence[NDArray[np.uint32]]) -> None:
        """Make a label unknown; see `Classifier`."""
        for each in imprints:
            self._slots[column + slots_of(each[1:], len(self._slots), self.max_labels)] = 0
        self._known[column] = 0
        forget(self._rehearsal, column)

    def part(self, hashed: Hashed) -> Part:
        """Return the log scores of labels, a sum of weights times values."""
        chars_value = self.settings.chars_weight
        n = len(hashed.features)
        scale = 1 / math.sqrt(1 + hashed.n_plain + (n - hashed.n_plain) * chars_value**2)
        values = hashed.values(scale, scale * chars_value)
        return linear_part(
            self._slots[:, 0], self.max_labels, hashed, scale, values, int(self._counters[COUNTER.N_LABELS])
        )


@inlined
def ask_for_slots(slots, bases, n, n_labels):  # type: ignore[no-untyped-def]
    """Let the slots of features come from the memory while something else is done.

    Slots that begin near the end of a cache line lie in one line more than their size tells, so the last is asked for.
    """
    size = 2 * max(n_labels, 1)
    n_lines = (size + LINE - 1) // LINE
    for i in range(min(n, MOST_LINES // n_lines)):
        at = 2 * bases[i]
        for begin in range(at, at + size, LINE):
            prefetch(slots, begin)
        prefetch(slots, at + size - 1)


@kernel
def fill_values(n_plain, n, chars_value, values):  # type: ignore[no-untyped-def]
    """Write the value of each feature: 1 a word, pair and the bias, less an n-gram, divided by the Euclidean norm."""
    scale = np.float32(1 / math.sqrt(n_plain + (n - n_plain) * chars_value * chars_value))
    values[:n_plain] = scale
    values[n_plain:n] = scale * chars_value


@kernel
def score(slots, bases, values, n, n_labels, out):  # type: ignore[no-untyped-def]
    """Write the score of each label: the sum, in the order of features, of weight times value."""
    if n_labels == 2:  # the same sums in registers: twice as fast
        first, second = np.float32(0), np.float32(0)
        for i in range(n):
            row = slots[2 * bases[i] : 2 * bases[i] + 4]
            first += row[0] * values[i]
            second += row[2] * values[i]
        out[0], out[1] = first, second
        return
    out[:n_labels] = 0
    for i in range(n):
        row = slots[2 * bases[i] : 2 * (bases[i] + n_labels)]
        x = values[i]
        for label in range(n_labels):
            out[label] += row[2 * label] * x


@inlined
def take_rows(slots, bases, n, rows):  # type: ignore[no-untyped-def]
    """Write the row of two labels of each feature, and zeros, to `rows`: [4 * n + LANES]."""
    for i in range(n):
        at, to = TWO * np.uint64(bases[i]), FOUR * np.uint64(i)
        w, s, other_w, other_s = slots[at], slots[at + ONE], slots[at + TWO], slots[at + THREE]
        rows[to], rows[to + ONE], rows[to + TWO], rows[to + THREE] = w, s, other_w, other_s
    for lane in range(LANES):
        rows[np.uint64(4 * n + lane)] = 0


@inlined
def score_two(slots, bases, values, n, rows):  # type: ignore[no-untyped-def]
    """Return the scores of two labels, and leave the features' rows in `rows`, as `take_rows` does.

    Four sums each take every fourth feature, and are added up at last: one alone has to wait for each step.
    """
    take_rows(slots, bases, n, rows)
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    e, f, g, h = a, b, c, d
    for i in range(0, n, 4):
        four, x = rows[4 * i : 4 * i + 16], values[i : i + 4]
        a, b, c, d = a + four[0] * x[0], b + four[4] * x[1], c + four[8] * x[2], d + four[12] * x[3]
        e, f, g, h = e + four[2] * x[0], f + four[6] * x[1], g + four[10] * x[2], h + four[14] * x[3]
    return (a + b) + (c + d), (e + f) + (g + h)


@inlined
def learn_two(slots, bases, values, n, p, rate, part, kept, rows, gradients):  # type: ignore[no-untyped-def]
    """Take an AdaGrad step of both labels' weights of every feature, whose rows `score_two` has left in `rows`.

    All steps are from what stood there before; where the rows of two features meet the later one's values count.
    """
    first, second = p[0], p[1]
    for i in range(n):
        to = TWO * np.uint64(i)
        gradients[to], gradients[to + ONE] = first * values[i], second * values[i]
    step = rate * part
    for i in range((2 * n + LANES - 1) // LANES * LANES):
        at = TWO * np.uint64(i)
        rows[at], rows[at + ONE] = adagrad(rows[at], rows[at + ONE] * kept, gradients[i], step, part, FIRST_SUM)
    for i in range(n):
        to, at = TWO * np.uint64(bases[i]), FOUR * np.uint64(i)
        w, s, other_w, other_s = rows[at], rows[at + ONE], rows[at + TWO], rows[at + THREE]
        slots[to], slots[to + ONE], slots[to + TWO], slots[to + THREE] = w, s, other_w, other_s


@kernel
def score_and_learn(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0915
    codes, starts, targets, weights, table, text_arguments, buffers, rehearsing, arguments,
    slots, known, counters, rows, bases, planes, sketch, scores,
):  # fmt: skip
    """Score each text, then learn it: test-then-train in one pass.

    Parameters
    ----------
    codes, starts : from `codepoints`
    targets : int32 [n_texts], label or -1; -2 - label: it is rehearsed
    weights : float32 [n_texts], above 0
    rehearsing : (int32 [n_texts], float32 [n_texts], Rehearsal), changed: the row that a text is kept in, or rehearsed
        from; what part of a step is taken by what mixes models
    arguments : (float32, float32, float32), rate, value of a character n-gram, what is left of a sum after a step
    slots : float32 [2 * 2**bits], weight and decayed sum of squared gradients; changed
    known : uint8 [max_labels], 1 for a label that was learned; changed
    counters : int64 [2], one past the last known label; texts refused; changed
    rows, bases, planes : float32 [2, max_labels], int64 [2, features], float32 [9, features], overwritten
    sketch : Sketch, changed
    scores : float32 [n_texts, labels], changed: the probabilities

    Notes
    -----
    1. Hash the next text, and ask the memory for its slots (rows.py); what follows is about the text before.
    2. Values: 1 a word, pair and the bias, less an n-gram; the whole divided by its Euclidean norm.
    3. Score with the labels known by now.
    4. Learn. p - y is the gradient of the log loss in a score. Weight 2.5 is two steps and a half one; it ends early
       when the text is learned. A half step moves half as far and adds half to the sum. A label that is the only one is
       told from nothing, a score of 0, until it is SURE_ALONE: else there would be nothing to set against the first
       text of another one.

    O(features * labels). Bit-exact on one machine: sums run in the order of features.
    """
    kept_slots, _, rehearsal = rehearsing
    rate, chars_value, kept = arguments
    z, p = rows[0], rows[1]
    values, work = planes[0], (planes[1], planes[2])
    two, gradients = planes[3:7].reshape(-1), planes[7:].reshape(-1)  # of two labels
    max_labels = known.shape[0]
    one = np.float32(1)
    n_texts = targets.shape[0]
    next_plain, next_n = 0, 0
    for turn in range(n_texts + 1):
        # 1
        n_plain, n = next_plain, next_n
        if turn < n_texts:
            next_bases = bases[turn & 1]
            if targets[turn] < -1:
                _, next_plain, next_n, _ = recall(rehearsal, kept_slots[turn], buffers[0], buffers[0])
            else:
                next_words, next_plain, next_n = hash_text(
                    codes, starts[turn], starts[turn + 1], table, text_arguments, buffers
                )
                if kept_slots[turn] >= 0:
                    keep(rehearsal, kept_slots[turn], buffers[0], next_words, next_plain, next_n, buffers[0], 0)
            place(buffers[0], next_n, slots.shape[0] // 2, max_labels, next_bases)
            next_plain += 1
            next_n += 1
            ask_for_slots(slots, next_bases, next_n, counters[COUNTER.N_LABELS])
        if turn == 0:
            continue
        text = turn - 1
        places = bases[text & 1]

        # 2
        fill_values(n_plain, n, chars_value, values)

        # 3
        target = targets[text] if targets[text] >= -1 else np.int32(-2 - targets[text])
        n_labels = counters[COUNTER.N_LABELS]
        n_scored = max(n_labels, target + 1)
        weight_left = min(weights[text], np.float32(MAX_REPEATS))
        if target >= 0 and not 0 < weights[text] < np.inf:
            counters[COUNTER.REFUSED] += 1
            target = np.int32(-1)
            n_scored = n_labels
        for repeat in range(MAX_REPEATS + 1):
            if n_scored == 2:
                z[0], z[1] = score_two(slots, places, values, n, two)
            else:
                score(slots, places, values, n, n_scored, z)
                if n_labels == 2 and repeat == 0:  # a third one comes: as predictions had it, in another order of sums
                    z[0], z[1] = score_two(slots, places, values, n, two)
            finite = True
            is_new = target >= 0 and known[target] == 0
            if repeat == 0:
                if n_labels > 0:
                    finite = softmax(z, known, n_labels, scores[text])
                if target >= 0 and finite:
                    known[target] = 1
                    counters[COUNTER.N_LABELS] = n_scored
            # 4
            if target < 0:
                break
            if repeat == 0 and not is_new:
                copy(scores[text, :n_scored], p)
            else:
                finite = finite and softmax(z, known, n_scored, p)
            if is_alone(known, n_scored):
                p[target] = beside_nothing(z[target])
                finite = finite and np.isfinite(z[target])
                if finite and p[target] > SURE_ALONE:
                    break
            if not finite:
                counters[COUNTER.REFUSED] += 1
                break
            if not to_gradients(p, target, n_scored):
                break
            part = min(weight_left, one)
            if n_scored == 2:
                learn_two(slots, places, values, n, p, rate, part, kept, two, gradients)
            else:
                for label in range(n_scored):
                    if p[label] != 0:
                        offsets = (2 * label, 2 * label + 1)
                        learn_label(
                            (slots, slots), 2, offsets, places, values, n, p[label], rate, part, kept, FIRST_SUM, work
                        )
            weight_left -= part
            if weight_left <= 0:
                break
    note_texts(codes, starts, targets, weights, table, text_arguments, buffers, sketch)
