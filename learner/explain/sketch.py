"""Which features were learned at a place: none, one, or several?

A byte for each place that a feature's slots can begin at: 0 while none was noted there, the one feature's fingerprint,
or SEVERAL. So a reader can tell a feature that was learned from one that never was, and one that has its slots to
itself from one whose slots others move as well. A place is h * places / 2**32, as in rows.py: a sketch as long as
there are such places has the same ones. Part of a model's state; a function of the texts learned and nothing else.

To note each text would make the fastest classifier a sixth slower, nearly all of it the wait for memory; in its kernel
the mere loop costs a twentieth. So the first ALL texts are noted, then one in ONE_IN, spread so that no period of a
stream can hide, and by a kernel of its own that hashes those few again (`blend`, which does more with a text, notes in
its own kernel). What the flags miss: two features of one place with one fingerprint pass for one, a chance of 1 in 250;
a feature that was learned m times, and only after the first ALL texts, was never noted: (1 - 1 / ONE_IN)**m.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import kernel
from driftline.learner.text.features import hash_text
from driftline.learner.text.hashes import HALF

SEVERAL: Final = 255
ALL: Final = 1 << 14
ONE_IN: Final = 64
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: its multiples are spread as evenly as can be
NOTED_BELOW: Final = np.uint64(2**64 // ONE_IN)


class Sketch(NamedTuple):
    """What is kept."""

    places: NDArray[np.uint8]  # [places]
    texts: NDArray[np.int64]  # [1] that were learned


class Mark(NamedTuple):
    """What a sketch says of a feature."""

    known: bool  # it was learned; where several were, it may have been
    shared: bool  # another feature was learned in its slots


def new_sketch(places: int) -> Sketch:
    """Return the sketch of a model that has learned nothing."""
    return Sketch(np.zeros(places, np.uint8), np.zeros(1, np.int64))


def sketch_state(sketch: Sketch) -> dict[str, NDArray[Any]]:
    """Return the sketch's arrays as part of a model's state."""
    return {"sketch": sketch.places, "sketch_texts": sketch.texts}


def sketch_of(state: Mapping[str, NDArray[Any]]) -> Sketch:
    """Return the sketch that is part of a model's state."""
    return Sketch(state["sketch"], state["sketch_texts"])


@kernel
def fingerprint(feature):  # type: ignore[no-untyped-def]
    """Return 1 to 254, from the bits of a feature that its place hardly depends on."""
    return np.uint8(min(max(feature & np.uint32(255), np.uint32(1)), np.uint32(254)))


@kernel
def is_due(sketch):  # type: ignore[no-untyped-def]
    """Count a text that was learned, and return whether it is to be noted."""
    sketch.texts[0] += 1
    return sketch.texts[0] <= ALL or np.uint64(sketch.texts[0]) * GOLDEN < NOTED_BELOW


@kernel
def note(features, n, sketch):  # type: ignore[no-untyped-def]
    """Note that the first n of some features, uint32, were learned; O(n). Choices, no branches: none is foreseeable."""
    places = sketch.places
    size = np.uint64(places.shape[0])
    for i in range(n):
        feature = features[i]
        place = (np.uint64(feature) * size) >> HALF
        own = fingerprint(feature)
        held = places[place]
        new = own if held == np.uint8(0) else np.uint8(SEVERAL)
        places[place] = held if held == own else new


@kernel
def note_texts(codes, starts, targets, weights, table, text_arguments, buffers, sketch):  # type: ignore[no-untyped-def]
    """Note the texts that a classifier has learned, from the inputs of its kernel (`kernel_inputs`); `sketch` changes.

    Those that it refused for a weight that is none are left out.
    """
    for text in range(targets.shape[0]):
        if targets[text] >= 0 and 0 < weights[text] < np.inf and is_due(sketch):
            _, _, n = hash_text(codes, starts[text], starts[text + 1], table, text_arguments, buffers)
            note(buffers[0], n, sketch)


def look_up(sketch: Sketch, feature: int, reach: int) -> Mark:
    """Return what is known of a feature whose slots meet those of the places that are nearer than `reach`."""
    places = sketch.places
    place = feature * len(places) >> 32
    held = places[place]
    known = bool(held in (SEVERAL, fingerprint(np.uint32(feature))))
    beside = places[max(place - reach + 1, 0) : place].any() or places[place + 1 : place + reach].any()
    return Mark(known, bool(beside or held == SEVERAL or (held != 0 and not known)))
