"""Which words and numbers are in a static embedding model?

As model2vec writes it: model.safetensors with a row for each token (`embeddings`, or the one table that there is),
perhaps a token's weight (`weights`), perhaps which row it has (`mapping`); and tokenizer.json, whose vocabulary says
which token that is. Only tokens that are whole words count, in the vocabulary's order: a text's words are looked up as
they are, and never put together from parts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from driftline.learner.vectors.blocks import LEAST_DIMENSION, LINES, MOST_DIMENSION, Block
from driftline.stream.errors import ConfigError

SUFFIX: Final = ".safetensors"
MODEL, TOKENIZER = f"model{SUFFIX}", "tokenizer.json"
MOST_BYTES: Final = 1 << 27  # of a tokenizer
TYPES: Final = ("F64", "F32", "F16", "I8")
BEGIN: Final = "\u2581"  # of a word, in SentencePiece's vocabularies


def blocks(model: Path, tokenizer: Path) -> Iterator[Block]:
    """Give the words and their vectors.

    Raises
    ------
    ConfigError : it is no such model; what is wrong where.
    OSError : a file cannot be read.
    """
    words = _words(tokenizer)
    try:
        with safe_open(str(model), framework="numpy") as file:
            table = file.get_slice(name := _table_of(model, file))
            n_rows, dimension = table.get_shape()
            if not LEAST_DIMENSION <= dimension <= MOST_DIMENSION:
                raise _bad(
                    model, f"{name} has {dimension} numbers a row: it must be {LEAST_DIMENSION} to {MOST_DIMENSION}"
                )
            rows, weights = _rows(model, file, n_rows)
            if words and words[-1][0] >= len(rows):
                raise _bad(tokenizer, f"it has token {words[-1][0]}, but {model.name} only {len(rows)}")
            for start in range(0, len(words), LINES):
                part = words[start : start + LINES]
                at = np.array([number for number, _ in part])
                found = _read(table, rows[at]).astype(np.float32) * weights[at, np.newaxis]
                if not np.isfinite(found).all():
                    raise _bad(model, f"{name} has a number that is none")
                yield Block([word for _, word in part], found.astype(np.float32))
    except SafetensorError as error:
        raise _bad(model, f"it is no safetensors file: {error}") from error


def _read(table: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return some rows: of a long run of them no more is read than lies between the first and the last."""
    first, last = int(rows.min()), int(rows.max())
    if last - first < 4 * len(rows):
        return np.asarray(table[first : last + 1])[rows - first]
    return np.stack([np.asarray(table[row : row + 1])[0] for row in rows.tolist()])


def _table_of(model: Path, file: Any) -> str:
    """Return the name of the table of rows."""
    shapes = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    tables = {name: each for name, each in shapes.items() if len(each.get_shape()) == 2}
    name = "embeddings" if "embeddings" in tables else next(iter(tables), "")
    if not name or (name != "embeddings" and len(tables) > 1):
        raise _bad(model, f"it has no table 'embeddings', but {', '.join(sorted(shapes)[:10]) or 'nothing'}")
    if tables[name].get_dtype() not in TYPES:
        raise _bad(model, f"{name} is {tables[name].get_dtype()}: it must be one of {', '.join(TYPES)}")
    return name


def _rows(model: Path, file: Any, n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which row each token has, and its weight."""
    names = file.keys()
    rows = file.get_tensor("mapping").astype(np.int64) if "mapping" in names else np.arange(n_rows)
    weights = file.get_tensor("weights").astype(np.float32) if "weights" in names else np.ones(len(rows), np.float32)
    if rows.ndim != 1 or weights.shape != rows.shape or (rows < 0).any() or (rows >= n_rows).any():
        raise _bad(model, "its embeddings, weights and mapping do not fit each other")
    return rows, weights


def _words(tokenizer: Path) -> list[tuple[int, str]]:
    """Return the tokens that are words, and their numbers, in order."""
    with tokenizer.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    try:
        if len(content) > MOST_BYTES:
            raise _bad(tokenizer, f"it is longer than {MOST_BYTES:,} bytes")
        model = msgspec.json.decode(content)["model"]
        kind = model.get("type")
        if kind not in ("WordPiece", "WordLevel", "Unigram"):
            raise _bad(tokenizer, f"its tokens are of the type {kind}: they must be WordPiece, WordLevel or Unigram")
        if kind == "Unigram":
            tokens = [(number, token) for number, (token, _) in enumerate(model["vocab"])]
            words = [(number, token[1:]) for number, token in tokens if token.startswith(BEGIN)]
        else:
            part = (model.get("continuing_subword_prefix") or "##") if kind == "WordPiece" else "\0"
            words = sorted((number, token) for token, number in model["vocab"].items() if not token.startswith(part))
        if any(type(number) is not int or number < 0 for number, _ in words):
            raise ValueError("a token's number is none")
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(tokenizer, f"it is no tokenizer's file: {error!r}") from error
    return words


def _bad(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"vectors: {path}: {what}. A model is a directory with {MODEL} and {TOKENIZER}, as model2vec has it"
    )
