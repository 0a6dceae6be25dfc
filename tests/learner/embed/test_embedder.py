"""A text's vector is a function of the text and the model's files; what is no sentence model is refused, and why."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from tokenizers import Tokenizer

from driftline.learner.embed import files
from driftline.learner.embed.embedder import SENTENCES, Embedder
from driftline.learner.embed.files import find_files
from driftline.learner.embed.opened import made_by, open_embedder
from driftline.stream.errors import ConfigError
from driftline.stream.wire.vector import vector_of
from tests.sentence_models import DIMENSION, MAX_TOKENS, graph, made_model, of_text, with_numbers_elsewhere

TEXTS = [
    *(
        "",
        "free money now",
        "FREE money, now!",
        "lunch at noon",
        "字 👍",
        "own3x1 own3x2 word5",
        "not one word is known",
    ),
    *("a\ud800b", "\udfff", "\U0010ffff", "word1 " * 500, "a" * 100_000, "own1x1 " * 20_000, "\n", "e\u0301"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return made_model(tmp_path / "model")


def opened(path: Path) -> Embedder:
    embedder = open_embedder(str(path))
    assert embedder is not None
    return embedder


def plain(path: Path, text: str, pooling: str = "mean") -> np.ndarray[Any, Any]:
    """Return a text's vector as the libraries' own pages have it."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    ids = tokenizer.encode(text).ids
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), providers=["CPUExecutionProvider"])
    feed = {each.name: np.array([ids if each.name == "input_ids" else [1] * len(ids)]) for each in session.get_inputs()}
    rows = session.run(None, feed)[0][0]
    return of_text({"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1], "max": rows.max(axis=0)}[pooling])


def test_it_is_what_the_libraries_give(model: Path) -> None:
    embedder = opened(model)
    assert embedder.dimension == DIMENSION
    for text in ("free money now", "own3x1 WORD5 nobody knows", "", "word1 " * 500):
        found = vector_of(f"{text}\0{embedder.vectors([text])[0].decode()}")
        assert found is not None
        np.testing.assert_allclose(found.astype(float), plain(model, text), atol=1e-3)


@pytest.mark.parametrize(
    ("pooling", "said"),
    [
        ("cls", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 24}),
        ("cls", {"pooling_mode": "cls"}),
        ("mean", {"pooling_mode_mean_tokens": True}),
        ("mean", {"pooling_mode_mean_sqrt_len_tokens": True}),
        ("mean", {}),
        ("max", {"pooling_mode_max_tokens": True}),
        ("last", {"pooling_mode": "lasttoken"}),
    ],
)
def test_tokens_become_one_as_the_model_says(tmp_path: Path, pooling: str, said: dict[str, Any]) -> None:
    path = made_model(tmp_path / "model", pooling=said)
    text = "own3x1 word5 free"
    found = vector_of(f"{text}\0{opened(path).vectors([text])[0].decode()}")
    assert found is not None
    np.testing.assert_allclose(found.astype(float), plain(path, text, pooling), atol=1e-3)


def test_a_model_may_give_the_texts_own_vector_and_ask_for_less(tmp_path: Path) -> None:
    tokens = made_model(tmp_path / "tokens")
    whole = made_model(
        tmp_path / "whole", sentence=True, output="sentence_embedding", inputs=("input_ids",), kind=TensorProto.INT32
    )
    text = ["own3x1 word5 free"]
    one, other = (vector_of(f"\0{opened(path).vectors(text)[0].decode()}") for path in (tokens, whole))
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.astype(float), other.astype(float), atol=2e-3)


def test_a_vector_depends_on_no_company_order_or_thread(model: Path) -> None:
    embedder = opened(model)
    alone = [embedder.vectors([text])[0] for text in TEXTS]
    assert len({*alone}) > len(TEXTS) // 2
    assert embedder.vectors(TEXTS) == embedder.vectors(TEXTS, threads=1) == alone
    assert embedder.vectors(TEXTS[::-1], threads=3) == alone[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(embedder.vectors, [TEXTS] * 8))
    again = Embedder("again", find_files(model))
    assert again.vectors(TEXTS) == alone
    assert (again.probe, again.sha256) == (embedder.probe, embedder.sha256)


def test_the_made_model_is_one_whose_batches_differ(model: Path) -> None:
    """Else the test before could not fail."""
    session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([[2, 600, 3], [2, 4 + 40 * 7, 3]])
    feed = {each.name: ids if each.name == "input_ids" else np.ones_like(ids) for each in session.get_inputs()}
    alone = session.run(None, {name: array[:1] for name, array in feed.items()})[0][0]
    assert not np.array_equal(session.run(None, feed)[0][0], alone)


def test_a_text_is_cut_to_the_models_tokens(tmp_path: Path) -> None:
    embedder = opened(made_model(tmp_path / "short", max_seq_length=8))
    one, two, other = embedder.vectors(["word1 " * 6, "word1 " * 60, "word1 " * 5])
    assert one == two != other


def test_the_same_files_are_open_once(model: Path) -> None:
    assert opened(model) is opened(model)
    assert opened(model / "model.onnx") is opened(model)


def test_the_files_that_decide_are_in_its_hash(tmp_path: Path) -> None:
    first = opened(made_model(tmp_path / "a"))
    assert opened(made_model(tmp_path / "b")).sha256 == first.sha256
    others = [
        opened(made_model(tmp_path / "c", seed=4)),
        opened(made_model(tmp_path / "d", max_seq_length=16)),
        opened(made_model(tmp_path / "e", pooling={"pooling_mode": "cls"})),
    ]
    assert len({first.sha256, *(each.sha256 for each in others)}) == 4
    assert len({first.probe, *(each.probe for each in others)}) == 4


def test_the_probe_has_long_texts_and_other_scripts() -> None:
    assert any(len(text.split()) > files.MOST_TOKENS for text in SENTENCES)
    assert sum(not text.isascii() for text in SENTENCES) >= 4


def test_a_model_that_gives_other_vectors_is_refused_and_another_version_only_told(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = opened(model)
    assert open_embedder(str(model), embedder.sha256, made_by(embedder)) is embedder
    assert not caplog.records
    other = f"1.2.3:{embedder.probe}"
    assert open_embedder(str(model), "", other) is embedder
    assert "with onnxruntime 1.2.3, and this is" in caplog.text
    for runtime, why in (("1.2.3", "onnxruntime 1.2.3, here"), (embedder.runtime, "another processor")):
        with pytest.raises(ConfigError, match=f"other vectors here.*{why}.*driftline rebuild --into"):
            open_embedder(str(model), "", f"{runtime}:{'0' * 16}")
    with pytest.raises(ConfigError, match="is not the model that was learned with"):
        open_embedder(str(model), "0" * 64)


def test_where_the_files_may_lie(tmp_path: Path) -> None:
    below = made_model(tmp_path / "below", onnx_at="onnx/model.onnx")
    quantised = made_model(tmp_path / "quantised", onnx_at="onnx/model_quantized.onnx")
    beside = made_model(tmp_path / "beside", onnx_at="small.onnx", tokenizer_at="small-tokenizer.json")
    places = [below, below / "onnx" / "model.onnx", quantised, beside / "small.onnx"]
    assert len({opened(path).probe for path in places}) == 1
    made_model(quantised, onnx_at="onnx/model_int8.onnx")
    with pytest.raises(ConfigError, match=r"has 2 .onnx files \(onnx/model_int8.onnx, .*name the one"):
        opened(quantised)
    assert opened(quantised / "onnx" / "model_int8.onnx").dimension == DIMENSION


def spoil(path: Path, how: str) -> None:  # noqa: PLR0912, PLR0915
    """Make a model that is none."""
    onnx, tokenizer = path / "model.onnx", path / "tokenizer.json"
    match how:
        case "no model":
            onnx.unlink()
        case "for PyTorch":
            onnx.rename(path / "model.safetensors")
        case "no tokenizer":
            tokenizer.unlink()
        case "empty model":
            onnx.write_bytes(b"")
        case "no ONNX":
            onnx.write_bytes(b"\x7fELF" + bytes(1000))
        case "cut short":
            onnx.write_bytes(onnx.read_bytes()[:-1000])
        case "no tokenizer in it":
            tokenizer.write_text('{"version": "1.0"}')
        case "tokenizer of another":
            onnx.write_bytes(graph(n_words=50))
        case "other inputs":
            onnx.write_bytes(graph(inputs=("input_ids", "pixel_values")))
        case "no ids":
            onnx.write_bytes(graph(inputs=("input_ids",)).replace(b"input_ids", b"inputsids"))
        case "one length":
            onnx.write_bytes(graph(shape=("batch", 7)))
        case "one number":
            onnx.write_bytes(graph(dimension=1))
        case "too many numbers":
            onnx.write_bytes(graph(dimension=2049))
        case "elsewhere":
            onnx.write_bytes(with_numbers_elsewhere(graph(), "numbers.bin"))
            (path / "numbers.bin").write_bytes(bytes(1 << 20))
        case "out of the directory":
            onnx.write_bytes(with_numbers_elsewhere(graph(), "../numbers.bin"))
            (path.parent / "numbers.bin").write_bytes(bytes(1 << 20))
        case "from the root":
            onnx.write_bytes(with_numbers_elsewhere(graph(), str(path / "numbers.bin")))
            (path / "numbers.bin").write_bytes(bytes(1 << 20))
        case "pooling unknown":
            (path / "1_Pooling").mkdir()
            (path / "1_Pooling" / "config.json").write_text('{"pooling_mode_weightedmean_tokens": true}')
        case "pooling of two":
            (path / "1_Pooling").mkdir()
            said = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
            (path / "1_Pooling" / "config.json").write_text(json.dumps(said))
        case "settings no JSON":
            (path / "sentence_bert_config.json").write_text("{")
        case "settings a list":
            (path / "sentence_bert_config.json").write_text("[1]")
        case "settings deep":
            (path / "sentence_bert_config.json").write_text("[" * 100_000)
        case "settings large":
            (path / "sentence_bert_config.json").write_text(" " * (files.MOST_JSON_BYTES + 1))
        case "a pipe":
            tokenizer.unlink()
            (path / "modules.json").unlink(missing_ok=True)
            os.mkfifo(path / "modules.json")
            tokenizer.write_text("{}")
        case "one more step":
            said_of = [
                {"type": "sentence_transformers.models.Transformer"},
                {"type": "sentence_transformers.models.Dense"},
            ]
            (path / "modules.json").write_text(json.dumps(said_of))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no model", r"has no .onnx file.*optimum-cli"),
        ("for PyTorch", "model.safetensors, which only PyTorch reads"),
        ("no tokenizer", "has no tokenizer.json"),
        ("empty model", "is no ONNX model that can be run"),
        ("no ONNX", "is no ONNX model that can be run"),
        ("cut short", "is no ONNX model that can be run"),
        ("no tokenizer in it", "tokenizer.json is no tokenizer"),
        ("tokenizer of another", "cannot be run with 32 tokens of tokenizer.json.*have to be of one model"),
        ("other inputs", "asks for pixel_values"),
        ("no ids", "asks for inputsids"),
        ("one length", "a text of any length"),
        ("one number", "gives 1 numbers, it must be 2 to 2048"),
        ("too many numbers", "gives 2049 numbers"),
        ("elsewhere", "has its numbers in another file, which is not read"),
        ("out of the directory", "has its numbers in another file, which is not read"),
        ("from the root", "has its numbers in another file, which is not read"),
        ("pooling unknown", "asks for weightedmean_tokens: one of cls, last, max, mean is known"),
        ("pooling of two", "asks for cls, mean"),
        ("settings no JSON", "sentence_bert_config.json cannot be read"),
        ("settings a list", "must hold a JSON object"),
        ("settings deep", "cannot be read"),
        ("settings large", "at most|is the most that is read"),
        ("a pipe", "is no file"),
        ("one more step", "asks for Dense, which is not known here"),
    ],
)
def test_what_is_no_sentence_model_is_refused(model: Path, how: str, message: str) -> None:
    spoil(model, how)
    with pytest.raises(ConfigError, match=message) as error:
        opened(model)
    assert str(model) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for name, message in [
        (tmp_path / "nowhere", "there is no sentence model in .*ORGANISATION/NAME@REVISION"),
        (tmp_path / "nowhere.onnx", "there is no sentence model in"),
        ("a\0b", "there is no sentence model in|cannot be read"),
    ]:
        with pytest.raises(ConfigError, match=message):
            open_embedder(str(name))
    (tmp_path / "alone.onnx").write_bytes(graph())
    with pytest.raises(ConfigError, match=r"there is no tokenizer\.json beside .*nor alone-tokenizer.json"):
        open_embedder(str(tmp_path / "alone.onnx"))


def test_without_the_libraries_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'driftline\[embed\]'"):
        Embedder("x", find_files(model))
