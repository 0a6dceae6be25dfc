"""A static embedding model gives its words the vectors of their tokens, or says what is wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftline.learner.registry import make_classifier
from driftline.learner.vectors.blocks import LINES
from driftline.learner.vectors.opened import SUFFIX, open_table
from driftline.stream.errors import ConfigError
from tests.learner.vectors.test_tables import vector, written

TOKENS = ["[PAD]", "[UNK]", "the", "cat", "##ing", "dog", "!", "Dog"]
WORDPIECE = {"type": "WordPiece", "vocab": {token: number for number, token in enumerate(TOKENS)}}
ROWS = np.random.default_rng(2).normal(size=(len(TOKENS), 5)).astype(np.float32)


def model(directory: Path, arrays: dict[str, NDArray[Any]] | None = None, tokens: Any = WORDPIECE) -> Path:
    """Write a model into a directory."""
    directory.mkdir(exist_ok=True)
    save_file({"embeddings": ROWS} if arrays is None else arrays, directory / "model.safetensors")
    (directory / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": tokens}))
    return directory


def unit(row: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(row / np.linalg.norm(row.astype(np.float64)))


def test_words_have_the_rows_of_their_tokens(tmp_path: Path) -> None:
    path = model(tmp_path / "potion")
    for name in (path, path / "model.safetensors"):
        found = open_table(str(name))
        assert found is not None
        assert (len(found), found.dimension) == (4, 5)
        np.testing.assert_allclose(vector(found, "Cat"), unit(ROWS[3]), atol=1e-4)
        np.testing.assert_allclose(vector(found, "the dog!"), unit(ROWS[2] + ROWS[5] + ROWS[6]), atol=1e-4)
        assert vector(found, "ing PAD UNK") is None
    assert (tmp_path / f"potion{SUFFIX}").is_file()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int8])
def test_numbers_of_other_types(tmp_path: Path, kind: type[Any]) -> None:
    rows = (ROWS * 40).astype(kind)
    found = open_table(str(model(tmp_path / "model", {"embeddings": rows})))
    assert found is not None
    np.testing.assert_allclose(vector(found, "cat dog"), unit(rows[3].astype(float) + rows[5].astype(float)), atol=1e-3)


def test_weights_and_a_mapping(tmp_path: Path) -> None:
    weights, mapping = np.linspace(0.5, 4, len(TOKENS)), np.array([0, 0, 1, 2, 2, 1, 0, 0], np.int32)
    arrays = {"embeddings": ROWS[:3], "weights": weights, "mapping": mapping}
    found = open_table(str(model(tmp_path / "model", arrays)))
    assert found is not None
    np.testing.assert_allclose(vector(found, "cat dog"), unit(weights[3] * ROWS[2] + weights[5] * ROWS[1]), atol=1e-3)


def test_other_vocabularies(tmp_path: Path) -> None:
    pieces = {"type": "Unigram", "vocab": [["<s>", 0], ["\u2581the", -1], ["cat", -2], ["\u2581dog", -3]]}
    found = open_table(str(model(tmp_path / "pieces", {"embedding.weight": ROWS}, pieces)))
    assert found is not None
    assert [vector(found, word) is not None for word in ("the", "cat", "dog")] == [True, False, True]
    np.testing.assert_allclose(vector(found, "dog"), unit(ROWS[3]), atol=1e-4)
    words = {"type": "WordLevel", "vocab": {"##": 0, "cat": 1}}
    found = open_table(str(model(tmp_path / "words", None, words)))
    assert found is not None
    np.testing.assert_allclose(vector(found, "cat"), unit(ROWS[1]), atol=1e-4)


def test_more_words_than_a_block(tmp_path: Path) -> None:
    n = 3 * LINES
    rows = np.random.default_rng(3).normal(size=(10 * n, 2)).astype(np.float32)
    numbers = np.random.default_rng(4).permutation(10 * n)[:n].tolist()
    vocabulary = {"type": "WordLevel", "vocab": {f"w{number}": number for number in numbers}}
    found = open_table(str(model(tmp_path / "model", {"embeddings": rows}, vocabulary)))
    assert found is not None
    assert len(found) == n
    for number in numbers[:20]:
        np.testing.assert_allclose(vector(found, f"W{number}"), unit(rows[number]), atol=1e-3)


@pytest.mark.parametrize(
    ("arrays", "tokens", "message"),
    [
        (None, {"type": "BPE", "vocab": {}}, "of the type BPE"),
        (None, {"type": "WordPiece"}, "no tokenizer's file"),
        (None, [], "no tokenizer's file"),
        (None, {"type": "WordLevel", "vocab": {"cat": -1}}, "no tokenizer's file"),
        (None, {"type": "WordLevel", "vocab": {"cat": 1.5}}, "no tokenizer's file"),
        (None, {"type": "WordLevel", "vocab": {"cat": 8}}, "it has token 8, but model.safetensors only 8"),
        (None, {"type": "WordLevel", "vocab": {}}, "has no word"),
        ({"a": ROWS, "b": ROWS}, WORDPIECE, "no table 'embeddings', but a, b"),
        ({"embeddings": ROWS[0]}, WORDPIECE, "no table 'embeddings'"),
        ({"embeddings": ROWS[:, :1].copy()}, WORDPIECE, "1 numbers a row: it must be 2 to 512"),
        ({"embeddings": np.zeros((8, 600), np.float32)}, WORDPIECE, "600 numbers a row"),
        ({"embeddings": np.zeros((8, 4), np.int64)}, WORDPIECE, "is I64: it must be one of"),
        ({"embeddings": ROWS * np.float32(np.nan)}, WORDPIECE, "a number that is none"),
        ({"embeddings": ROWS, "mapping": np.full(8, 8, np.int32)}, WORDPIECE, "do not fit each other"),
        ({"embeddings": ROWS, "weights": np.ones(3)}, WORDPIECE, "do not fit each other"),
    ],
)
def test_what_is_no_such_model_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[Any]] | None, tokens: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_table(str(model(tmp_path / "model", arrays, tokens)))
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_half_of_a_model_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "model")
    (path / "tokenizer.json").rename(path / "away.json")
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        open_table(str(path))
    (path / "away.json").rename(path / "tokenizer.json")
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ConfigError, match="no safetensors file"):
        open_table(str(path))
    with pytest.raises(ConfigError, match="no safetensors file"):
        open_table(str(written(path, b"cat 1 2\n", "model.safetensors")))


def test_either_file_tells_it_from_another_model(tmp_path: Path) -> None:
    path = model(tmp_path / "model")
    spec = f"blend?bits=12&max_labels=4&vectors={path}"
    classifier = make_classifier(spec)
    assert make_classifier(classifier.spec).config() == classifier.config()
    model(path, None, {**WORDPIECE, "vocab": {**WORDPIECE["vocab"], "bird": 7}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="is not the file"):
        make_classifier(classifier.spec)
    model(path, {"embeddings": ROWS + 1})
    with pytest.raises(ConfigError, match="is not the file"):
        make_classifier(classifier.spec)
    model(path)
    assert make_classifier(classifier.spec).config() == classifier.config()
