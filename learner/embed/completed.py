"""How do texts get the vectors that they have by a sentence model?

As if their sender had sent them (stream/wire/vector.py): so what scores, learns, rehearses and follows knows nothing
of sentence models. A text that brings its own vector keeps that.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.embed.embedder import Embedder, Vector
from driftline.stream.texts import END, PADDING, Texts
from driftline.stream.wire.fielded import text_of
from driftline.stream.wire.vector import BEHIND

MOST_REMEMBERED: Final = 32_768  # texts
MOST_BYTES: Final = 48 << 20  # of their vectors
_END, _BEHIND = END.encode(), BEHIND.encode()

VectorsOf = Callable[[Sequence[str]], list[Vector]]


class Remembered:
    """The vectors of the last texts, so that a message and its label cost one. One thread.

    They are found by a hash of the text; no text is kept.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()
        self._bytes = 0

    def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of texts, as the model gives them."""
        keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        found.update(zip(new, self._embedder.vectors(list(new.values())), strict=True))
        for key in keys:
            self._keep(key, found[key])
        while len(self._kept) > MOST_REMEMBERED or self._bytes > MOST_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return [found[key] for key in keys]

    def forget(self) -> None:
        """Keep none."""
        self._kept.clear()
        self._bytes = 0

    def _keep(self, key: bytes, vector: Vector) -> None:
        if key not in self._kept:
            self._kept[key] = vector
            self._bytes += len(vector)
        self._kept.move_to_end(key)


def bring_their_own(texts: Texts) -> NDArray[np.bool_]:
    """Return which texts have a vector already."""
    ends, sizes = texts.starts[1:], np.diff(texts.starts)
    enough = sizes >= len(_BEHIND)
    ends = np.where(enough, ends, len(_BEHIND))
    found: NDArray[np.bool_] = enough & (texts.codes[ends - 2] == _BEHIND[0]) & (texts.codes[ends - 1] == _BEHIND[1])
    return found


def completed(texts: Sequence[str], vectors_of: VectorsOf) -> list[str]:
    """Return texts with their vectors."""
    bare = list(dict.fromkeys(text_of(text) for text in texts if not text.endswith(BEHIND)))
    vectors = dict(zip(bare, (each.decode() for each in vectors_of(bare)), strict=True))
    return [text if text.endswith(BEHIND) else _with(text, vectors[text_of(text)]) for text in texts]


def _with(text: str, vector: str) -> str:
    return text + ("" if text.endswith(END) or not vector else END) + vector


def completed_some(texts: Texts, which: NDArray[np.bool_], vectors_of: VectorsOf) -> Texts:
    """Return texts of which some, that have no vector, have theirs."""
    codes, starts = texts.codes[: texts.starts[-1]].tobytes(), texts.starts.tolist()
    parts = [codes[start:stop] for start, stop in pairwise(starts)]
    chosen = np.flatnonzero(which).tolist()
    bare = [parts[at].partition(_END)[0] if parts[at].endswith(_END) else parts[at] for at in chosen]
    found = list(dict.fromkeys(bare))
    vectors = dict(zip(found, vectors_of([each.decode("utf-8", "surrogatepass") for each in found]), strict=True))
    for at, text in zip(chosen, bare, strict=True):
        if vector := vectors[text]:
            parts[at] += (b"" if parts[at].endswith(_END) else _END) + vector
    ends = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    made = Texts(np.frombuffer(b"".join((*parts, bytes(PADDING))), np.uint8), ends)
    made.is_ascii = texts.is_ascii
    return made
