"""How does a classifier keep what it learned of one label while another comes again and again?

A file sorted by label, an incident, a list that is worked off: labels then come in runs. What learns by gradients
forgets in a run all others: whatever says "this label" is right, so that all words come to say it. So some of the texts
that were learned are kept. Where a label comes much more often of late than on the whole, or more often one after
another than chance would have it, each of its texts is followed by one of another label, learned once more. A stream in
mixed order has no run, and pays nothing.

What weighs models against each other (a mixer, a tree's leaf) would learn in a run whom to trust, from texts that tell
nothing of it. It takes a part of a step there (`Rows.steps`): a text counts as its label does on the whole, and less
the longer the run is.

What is kept are the hashes of features, as the model's own slots have them, and the vector that was sent, never a text.
Which: of all labels as many, as far as they have come, and of a label's texts each with the same chance
(class-balancing reservoir sampling, Chrysakis and Moens 2020). A label's turn to be rehearsed is as likely as it is on
the whole. Part of a model's state; a function of the texts learned and nothing else: chances are drawn from a hash of
how many texts were learned.
"""

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.learner.text.hashes import HALF, MULTIPLIER, finish
from driftline.stream.errors import ConfigError, StateError
from driftline.stream.texts import Texts

MOST: Final = 256  # features of a text; of one with more every second, every third ...
SLOTS_A_TEXT: Final = 1024  # a small model keeps fewer texts than it is allowed
SELDOM: Final = 1e-5  # chance that a label comes so many times one after another, under which that is a run
LATELY: Final = 50.0  # labels
FLOOR: Final = 0.03  # of a share, for what mixes models: it learns a little of what is new, too
EXCESS: Final = 0.15  # of a label's share of late above its share on the whole, from where on it comes in a run
LONG: Final = 40_000.0  # labels: where so many were counted they count half from then on
LARGE: Final = 1e200
LEAST: Final = 1e-300
CHANCES: Final = 1 << 30
TRIES: Final = 100
FADES: Final = 1 - 1 / LATELY


class CLOCK(IntEnum):
    """Places of `Rehearsal.clock`."""

    UNIT = 0  # what a label of now adds to those of late
    TOTAL = 1  # labels counted
    DRAWN = 2  # chances
    KEPT = 3  # texts
    LAST = 4  # the last label's column
    SAME = 5  # the chance that it comes as many times one after another as it has now


class Rehearsal(NamedTuple):
    """What is kept. A text's row is free where its label is -1."""

    features: NDArray[np.uint32]  # [texts, MOST]
    shapes: NDArray[np.uint32]  # [texts, features of a shape]
    sizes: NDArray[np.int32]  # [texts, 4]: where words end, words and pairs, all; and of the shape
    columns: NDArray[np.int32]  # [texts], the label's
    kept: NDArray[np.int32]  # [max_labels], how many texts of each
    is_full: NDArray[np.uint8]  # [max_labels], 1 for one that has once had the most texts: its later ones take turns
    counts: NDArray[np.float64]  # [max_labels, 2]: on the whole, and of late
    clock: NDArray[np.float64]  # [6], see CLOCK
    vectors: NDArray[np.uint16]  # [texts, numbers], the vectors that were sent with them, as vectors/sent.py has them


class Rows(NamedTuple):
    """What a kernel learns: the texts, and between them those that are rehearsed.

    Attributes
    ----------
    targets : int32 [n]; -2 - column: what `slots` says is rehearsed
    slots : int32 [n], the row of `Rehearsal` that is learned again, or that the text is kept in; -1: none
    before : int64 [n], how many of the texts come before
    steps : float32 [n], what part of a step those take that weigh models against each other: in a run the one that says
        "this label" is right whatever it knows, so that a text counts as much as its label does on the whole
    """

    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    slots: NDArray[np.int32]
    before: NDArray[np.int64]
    steps: NDArray[np.float32]


def check_rehearse(rehearse: int) -> None:
    """Refuse what cannot be meant. Raises ConfigError."""
    if not 0 <= rehearse <= 1 << 20:
        raise ConfigError(f"rehearse={rehearse}: it must be 0 to {1 << 20}")


def new_rehearsal(rehearse: int, bits: int, max_labels: int, n_shape: int = 0, dimension: int = 0) -> Rehearsal:
    """Return what a model keeps that has learned nothing: at most `rehearse` texts, and one for SLOTS_A_TEXT slots."""
    n = min(rehearse, (1 << bits) // SLOTS_A_TEXT)
    return Rehearsal(
        features=np.zeros((n, MOST), np.uint32),
        shapes=np.zeros((n, n_shape), np.uint32),
        sizes=np.zeros((n, 4), np.int32),
        columns=np.full(n, -1, np.int32),
        kept=np.zeros(max_labels, np.int32),
        is_full=np.zeros(max_labels, np.uint8),
        counts=np.zeros((max_labels, 2)),
        clock=np.array([1.0, 0.0, 0.0, 0.0, -1.0, 1.0]),
        vectors=np.zeros((n, dimension), np.uint16),
    )


NAMES: Final = frozenset(f"rehearsal_{name}" for name in Rehearsal._fields)


def rehearsal_state(rehearsal: Rehearsal) -> dict[str, NDArray[Any]]:
    """Return the arrays as part of a model's state; a model that rehearses nothing has none."""
    return {f"rehearsal_{name}": getattr(rehearsal, name) for name in _kept(rehearsal)}


def _kept(rehearsal: Rehearsal) -> list[str]:
    """Return what a state has of it: vectors only where there are such."""
    if not len(rehearsal.columns):
        return []
    return [name for name in Rehearsal._fields if name != "vectors" or rehearsal.vectors.shape[1]]


def rehearsal_of(state: Mapping[str, NDArray[Any]], own: Rehearsal) -> Rehearsal:
    """Return what is part of a model's state. Raises StateError where a kernel would read beyond it."""
    if not len(own.columns):
        return own
    found = own._replace(**{name: state[f"rehearsal_{name}"] for name in _kept(own)})
    if found.clock[CLOCK.UNIT] == 0:  # a reader's, who is given nothing that only learning looks at
        return own
    words, pairs, all_, shape = found.sizes.T
    fits = (words >= 0) & (words <= pairs) & (pairs <= all_) & (all_ <= MOST) & (shape >= 0)
    fits &= (shape <= found.shapes.shape[1]) & (found.columns >= -1) & (found.columns < len(found.kept))
    kept = np.bincount(found.columns[found.columns >= 0], minlength=len(found.kept))
    if not fits.all() or not (found.kept == kept).all() or found.clock[CLOCK.KEPT] != kept.sum():
        raise StateError("arrays 'rehearsal_...' do not fit each other; the state is damaged")
    return found


def forget(rehearsal: Rehearsal, column: int) -> None:
    """Keep nothing of a label whose column goes to another one."""
    gone = rehearsal.columns == column
    rehearsal.columns[gone], rehearsal.features[gone], rehearsal.shapes[gone], rehearsal.vectors[gone] = -1, 0, 0, 0
    rehearsal.clock[CLOCK.TOTAL] -= rehearsal.counts[column, 0]
    rehearsal.clock[CLOCK.KEPT] -= rehearsal.kept[column]
    if rehearsal.clock[CLOCK.LAST] == column:
        rehearsal.clock[CLOCK.LAST] = -1
    rehearsal.kept[column] = rehearsal.is_full[column] = 0
    rehearsal.counts[column] = 0


def as_they_are(targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Rows:
    """Return texts of which none is kept, and none rehearsed."""
    n = len(targets)
    return Rows(targets, weights, np.full(n, -1, np.int32), np.arange(n), np.ones(n, np.float32))


def plan(rehearsal: Rehearsal, targets: NDArray[np.int32], weights: NDArray[np.float32]) -> Rows:
    """Return what is to be learned, with what is rehearsed between the texts; `rehearsal` is as it is after that."""
    n = len(targets)
    if not len(rehearsal.columns) or not (targets >= 0).any():
        return as_they_are(targets, weights)
    columns, slots, before = np.empty(2 * n, np.int32), np.empty(2 * n, np.int32), np.empty(2 * n, np.int64)
    steps, used = np.ones(2 * n, np.float32), np.ones(2 * n, np.float32)
    n_rows = _plan(rehearsal, targets, weights, columns, used, slots, before, steps)
    return Rows(columns[:n_rows], used[:n_rows], slots[:n_rows], before[:n_rows], steps[:n_rows])


def interleaved(texts: Texts, rows: Rows) -> Texts:
    """Return texts with an empty one for each that is rehearsed."""
    return Texts(texts.codes, np.append(texts.starts[rows.before], texts.starts[-1]))


@kernel
def _chance(rehearsal, n):  # type: ignore[no-untyped-def]
    """Return a number below n."""
    clock = rehearsal.clock
    clock[CLOCK.DRAWN] += 1
    drawn = finish(np.uint64(np.int64(clock[CLOCK.DRAWN])) * MULTIPLIER)
    return np.int64(np.uint64(drawn) * np.uint64(n) >> HALF)


@kernel
def _slot(rehearsal, column):  # type: ignore[no-untyped-def]
    """Return one of the texts of a label that has some, each with the same chance."""
    columns = rehearsal.columns
    for _ in range(TRIES):  # most labels are met soon
        slot = _chance(rehearsal, columns.shape[0])
        if columns[slot] == column:
            return slot
    left = _chance(rehearsal, rehearsal.kept[column])
    for slot in range(columns.shape[0]):
        if columns[slot] == column:
            if left == 0:
                return slot
            left -= 1
    return -1


@kernel
def _free(rehearsal):  # type: ignore[no-untyped-def]
    """Return where a text can be kept in no other's place; that there is room is known."""
    columns = rehearsal.columns
    slot = np.int64(rehearsal.clock[CLOCK.KEPT])  # the first one, unless a label was forgotten
    while columns[slot] >= 0:
        slot = (slot + 1) % columns.shape[0]
    return slot


@kernel
def _another(rehearsal, column):  # type: ignore[no-untyped-def]
    """Return another label with texts, as often as each has come; -1: there is none."""
    kept, counts = rehearsal.kept, rehearsal.counts
    total = 0.0
    for label in range(kept.shape[0]):
        if label != column and kept[label] > 0:
            total += counts[label, 0]
    left = total * (_chance(rehearsal, CHANCES) / CHANCES)
    found = -1
    for label in range(kept.shape[0]):
        if label != column and kept[label] > 0:
            found = label
            left -= counts[label, 0]
            if left < 0:
                break
    return found


@kernel
def _place(rehearsal, column):  # type: ignore[no-untyped-def]
    """Return where a text of a label is kept from now on; -1: nowhere."""
    columns, kept, is_full = rehearsal.columns, rehearsal.kept, rehearsal.is_full
    largest = np.int64(-1)
    if rehearsal.clock[CLOCK.KEPT] < columns.shape[0]:
        slot = _free(rehearsal)
        rehearsal.clock[CLOCK.KEPT] += 1
    else:
        if not is_full[column]:
            largest = kept.argmax()
        if largest >= 0 and kept[column] < kept[largest]:
            is_full[largest] = 1
            slot = _slot(rehearsal, largest)
            kept[largest] -= 1
        else:
            is_full[column] = 1
            if _chance(rehearsal, CHANCES) >= kept[column] / rehearsal.counts[column, 0] * CHANCES:
                return -1
            slot = _slot(rehearsal, column)
            kept[column] -= 1
    columns[slot] = column
    kept[column] += 1
    return slot


@kernel
def _count(rehearsal, column):  # type: ignore[no-untyped-def]
    """Count a label that is learned. Returns what part of a step it is worth, 1 where it does not come in a run."""
    counts, clock = rehearsal.counts, rehearsal.clock
    if clock[CLOCK.LAST] != column:
        clock[CLOCK.LAST], clock[CLOCK.SAME] = column, 1.0
    clock[CLOCK.SAME] *= (counts[column, 0] + 1) / (clock[CLOCK.TOTAL] + 2)
    share = counts[column, 0] / max(clock[CLOCK.TOTAL], 1.0)
    lately = counts[column, 1] * (1 - FADES) / clock[CLOCK.UNIT]
    news = 1.0
    if clock[CLOCK.SAME] < SELDOM:
        lately = 1.0
        news = math.log(SELDOM) / math.log(max(clock[CLOCK.SAME], LEAST))
    part = min((share + FLOOR) / lately, 1.0) * news * news if lately - share >= EXCESS else 1.0
    clock[CLOCK.UNIT] /= FADES
    counts[column, 0] += 1
    counts[column, 1] += clock[CLOCK.UNIT]
    clock[CLOCK.TOTAL] += 1
    if clock[CLOCK.UNIT] > LARGE:
        for label in range(counts.shape[0]):
            counts[label, 1] /= clock[CLOCK.UNIT]
        clock[CLOCK.UNIT] = 1
    if clock[CLOCK.TOTAL] >= LONG:
        for label in range(counts.shape[0]):
            counts[label, 0] /= 2
        clock[CLOCK.TOTAL] /= 2
    return part


@kernel
def _plan(rehearsal, targets, weights, columns, used, slots, before, steps):  # type: ignore[no-untyped-def]
    """Write what `Rows` has, and return how many rows there are; see `plan`."""
    at = 0
    for text in range(targets.shape[0]):
        column = targets[text]
        columns[at], used[at], slots[at], before[at] = column, weights[text], -1, text
        at += 1
        if column < 0 or not 0 < weights[text] < np.inf:
            continue
        steps[at - 1] = _count(rehearsal, column)
        slots[at - 1] = _place(rehearsal, column)
        another = _another(rehearsal, column) if steps[at - 1] < 1 else -1
        if another >= 0:
            columns[at], slots[at], before[at] = -2 - another, _slot(rehearsal, another), text + 1
            at += 1
    return at


@kernel
def keep(rehearsal, slot, features, n_words, n_plain, n, shape, n_shape):  # type: ignore[no-untyped-def]
    """Keep a text's features."""
    row = rehearsal.features[slot]
    words, plain, kept = n_words, n_plain, min(n, MOST)
    if n <= MOST:
        for i in range(n):
            row[i] = features[i]
    else:
        words, plain = 0, 0
        for i in range(MOST):
            at = i * n // MOST
            row[i] = features[at]
            words += int(at < n_words)
            plain += int(at < n_plain)
    for i in range(n_shape):
        rehearsal.shapes[slot, i] = shape[i]
    sizes = rehearsal.sizes[slot]
    sizes[0], sizes[1], sizes[2], sizes[3] = words, plain, kept, n_shape


@kernel
def recall(rehearsal, slot, features, shape):  # type: ignore[no-untyped-def]
    """Write the features of a text that was kept; return where words end, words and pairs, all; and of the shape."""
    sizes = rehearsal.sizes[slot]
    for i in range(sizes[2]):
        features[i] = rehearsal.features[slot, i]
    for i in range(sizes[3]):
        shape[i] = rehearsal.shapes[slot, i]
    return sizes[0], sizes[1], sizes[2], sizes[3]
