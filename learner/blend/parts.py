"""What does each feature of a text add to what an expert of `blend` says?

The same sums as in rows.py, in 64 bits, feature by feature: for explanations.
"""

import math

import numpy as np
from numpy.typing import NDArray

from driftline.learner.blend.rows import (
    ALPHA,
    CHARS_VALUE,
    COUNT,
    DISTINCT_TERMS,
    FLATTEN_ALL,
    FLATTEN_TERMS,
    ROWS_APART,
    SHAPE_VALUE,
    TERMS,
)
from driftline.learner.explain.parts import VECTOR, Counted, Hashed, Part, Row, bayes_part, linear_part
from driftline.learner.explain.rows import OVERALL, TOTAL
from driftline.learner.models.classifier import State


def parts_of(state: State, hashed: Hashed, max_labels: int, n_labels: int) -> list[Part]:
    """Return the log scores of labels by each expert, taken apart, in the experts' order; the ridge's are its own."""
    kinds = hashed.kinds
    amounts, chars, terms, sent = kinds == "amount", kinds == "chars", hashed.plain, kinds == VECTOR
    n_first = 1 + len(kinds) - int((amounts | chars | sent).sum())
    gram_value = 1 / math.sqrt(n_first + int(chars.sum()) * float(CHARS_VALUE) ** 2)
    term_value = 1 / math.sqrt(n_first)

    def linear(weights: NDArray[np.float32], bias: float, value: float, chars_value: float) -> Part:
        values: Row = np.select([chars, amounts, sent], [chars_value, float(SHAPE_VALUE), 0.0], value)
        return linear_part(weights, max_labels, hashed, bias, values, n_labels, ROWS_APART)

    counts = (state["grams"][:, COUNT], state["totals"], state["overall"])
    on_terms = Counted(*counts, TERMS, DISTINCT_TERMS, ALPHA, FLATTEN_TERMS, False)
    on_all = Counted(*counts, TOTAL.FEATURES, OVERALL.DISTINCT_FEATURES, ALPHA, FLATTEN_ALL, False)
    return [
        linear(state["grams"][:, 0], gram_value, gram_value, gram_value * float(CHARS_VALUE)),
        linear(state["terms"][:, 0], term_value, term_value, 0.0),
        linear(state["terms"][:, 1], term_value, term_value, 0.0),
        bayes_part(on_terms, max_labels, hashed, terms, False, n_labels, ROWS_APART),
        bayes_part(on_all, max_labels, hashed, ~amounts & ~sent, True, n_labels, ROWS_APART),
    ]
