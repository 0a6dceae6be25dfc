"""What a text looks like: the kernel beside a plain version, and what a classifier can tell by it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.blend.settings import BlendSettings
from driftline.learner.registry import make_classifier
from driftline.learner.text.features import character_table, hash_text, read, text_buffers
from driftline.learner.text.shape import MAX_SHAPE, N_AMOUNTS, hash_shape, step_of
from tests import oracles

SETTINGS = BlendSettings()


def shape(text: str, settings: BlendSettings = SETTINGS) -> tuple[list[int], list[int], list[int]]:
    """Return the features of words with capitals, of the text's ends, and of amounts."""
    ready = read([text], settings)
    buffers = text_buffers(settings)
    arguments = (ready.codes, ready.starts[0], ready.starts[1], character_table())
    n_words, _, _ = hash_text(*arguments, settings.kernel_arguments, buffers)
    out = np.zeros(MAX_SHAPE, np.uint32)
    features = out[: hash_shape(*arguments, buffers, n_words, out)].tolist()
    own_words = buffers[-1][0] if text.endswith("\0") else n_words  # where it has fields
    n_ends = 2 if own_words else 0
    n_cased = len(features) - N_AMOUNTS - n_ends
    return features[:n_cased], features[n_cased : n_cased + n_ends], features[n_cased + n_ends :]


@given(
    st.text(st.characters(exclude_characters="\0").filter(oracles.assigned), max_size=60)  # no text has END
    | st.text("aBCé1_ !'\n字", max_size=2000)
)
def test_the_shape_equals_the_plain_version(text: str) -> None:
    cased, _, amounts = shape(text)
    assert (cased, [max(amount, 1) for amount in amounts]) == oracles.shape(oracles.read(text, SETTINGS))


@pytest.mark.parametrize("amount", [0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 8191, 8192, 10**6])
def test_an_amount_is_on_the_step_of_its_logarithm(amount: int) -> None:
    assert step_of(amount) == math.floor(2 * math.log2(1 + amount))


def test_the_ends_of_a_text_are_told_apart() -> None:
    """The same words and pairs but for the order of the whole."""
    ours = make_classifier("blend?bits=16&max_labels=4&chars=0&pairs=0")
    texts = ["yes we go to the sea no", "no we go to the sea yes"]
    ours.learn_many(texts * 30, ["first", "second"] * 30)
    assert ours.predict_many(texts) == ["first", "second"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("The House On The Hill", "the house on the hill"), ("come here", "COME HERE"), ("a b c", "a\n\nb\n\nc")],
)
def test_what_words_leave_out_is_seen(one: str, other: str) -> None:
    ours = make_classifier("blend?bits=16&max_labels=4")
    ours.learn_many([one, other] * 30, ["one", "other"] * 30)
    assert ours.predict_many([one, other]) == ["one", "other"]
