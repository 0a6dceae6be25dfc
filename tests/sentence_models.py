"""A made sentence model, for who needs one: a tiny transformer's shape, in the files that a real one has.

A token's vector depends on those of all others and on its place, and is quantised as it comes, as in int8 models: so
what a text has depends on its company where texts are run in batches. Words of `generated`
(tests/learner/models/test_classifiers.py) that are of one label lie together.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

DIMENSION: Final = 24
MAX_TOKENS: Final = 32
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS: Final = (
    *(f"own{label}x{n}" for label in range(12) for n in range(40)),
    *(f"word{n}" for n in range(300)),
    *("free", "money", "now", "meeting", "at", "noon", "please", "call", "win", "prize", "lunch", "report", "字", "👍"),
)


def made_model(directory: Path, seed: int = 3, **changes: Any) -> Path:
    """Write a model and return its directory.

    Parameters
    ----------
    changes : `max_seq_length`, `pooling` (what stands in 1_Pooling/config.json); `onnx_at`, `tokenizer_at` (other
        names); the rest goes to `graph`
    """
    directory.mkdir(parents=True, exist_ok=True)
    onnx_at = directory / changes.pop("onnx_at", "model.onnx")
    tokenizer_at = directory / changes.pop("tokenizer_at", "tokenizer.json")
    length = {"max_seq_length": changes.pop("max_seq_length", MAX_TOKENS)}
    (directory / "sentence_bert_config.json").write_text(json.dumps(length))
    if (pooling := changes.pop("pooling", None)) is not None:
        (directory / "1_Pooling").mkdir(exist_ok=True)
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    onnx_at.parent.mkdir(exist_ok=True)
    tokenizer_at.write_text(tokenizer())
    onnx_at.write_bytes(graph(seed, **changes))
    return directory


def tokenizer() -> str:
    """Return a tokenizer.json."""
    words = [*SPECIAL, *WORDS]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return str(made.to_str())


def graph(
    seed: int = 3,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    output: str = "last_hidden_state",
    n_words: int = len(SPECIAL) + len(WORDS),
    dimension: int = DIMENSION,
    sentence: bool = False,
    kind: int = TensorProto.INT64,
    shape: tuple[Any, ...] = ("batch", "tokens"),
) -> bytes:
    """Return an ONNX model.

    Parameters
    ----------
    sentence : whether it gives the text's own vector, not one for each token
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dimension))
    rows = rng.normal(0, 0.6, size=(n_words, dimension))
    for number, word in enumerate([*SPECIAL, *WORDS][:n_words]):
        if word.startswith("own"):
            rows[number] += 2 * centres[int(word[3:].partition("x")[0])]
    scale = {"words": rows, "turn": rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)}
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["rows"])]
    nodes += [
        helper.make_node("DynamicQuantizeLinear", ["rows"], ["q", "q_scale", "q_zero"]),  # of the whole batch
        helper.make_node("DequantizeLinear", ["q", "q_scale", "q_zero"], ["rounded"]),
        helper.make_node("MatMul", ["rounded", "turn"], ["turned"]),
        helper.make_node("Tanh", ["turned"], ["tokens_out"]),
    ]
    last = ["ReduceMean", ["tokens_out"]] if sentence else ["Identity", ["tokens_out"]]
    nodes.append(helper.make_node(*last, [output], **({"axes": [1], "keepdims": 0} if sentence else {})))
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [
            helper.make_tensor_value_info(
                output, TensorProto.FLOAT, ["batch", dimension] if sentence else ["batch", "tokens", dimension]
            )
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in scale.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def with_numbers_elsewhere(content: bytes, location: str) -> bytes:
    """Return a model whose words' numbers are in another file."""
    model = onnx.load_from_string(content)
    tensor = model.graph.initializer[0]
    assert tensor.name == "words"
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def of_text(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return a vector, scaled to length 1."""
    wide = numbers.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide))
