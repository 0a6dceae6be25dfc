"""Which vector does a text have by a sentence model?

A function of the text and the model's files, and of nothing else: each text is run alone, since what is quantised as it
comes has other numbers in other company; by one thread, several texts in several threads at once (no GIL is held); on
the CPU. The tokens' vectors become one, which is written as such are that come with a message (stream/wire/vector.py).
Fields are no part of it.

The same files give other last digits with another processor or another version of onnxruntime; so what some fixed
sentences came to is a model's proof (`probe`) that what it learned with is what it goes on with.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.embed.files import MOST_BYTES, MOST_TOKENIZER_BYTES, Files, longest, read_file, read_layout
from driftline.stream.errors import BadRecord, ConfigError
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.vector import MAX_NUMBERS, MIN_NUMBERS, suffix

MOST_THREADS: Final = 16
STEP: Final = 64  # texts
CHARS_A_TOKEN: Final = 16  # of a text, at most, so that a long one is not taken apart for nothing
INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
SENTENCE, TOKENS = "sentence_embedding", ("last_hidden_state", "token_embeddings")
PROBED: Final = 128  # repetitions: more tokens than a text may have
SENTENCES: Final = (
    "",
    "a",
    "The parcel has not arrived, and nobody answers the telephone.",
    "WIN A PRIZE NOW!!! call 0800 123 456",
    "¿Dónde está mi tarjeta? La perdí ayer por la noche.",
    "Ich möchte mein Geld zurück, sonst gehe ich zu einer anderen Bank.",
    "Где мой заказ? Прошло уже две недели.",
    "我的卡被偷了，怎么办？",
    "أين أجد رقم حسابي؟",
    "मेरा भुगतान असफल क्यों हुआ?",
    "I have asked for a refund " * 6 + "and I am still waiting for an answer.",
    "Two days ago I paid with my card, twice. " * PROBED,
)

Vector = bytes  # what stands behind a text that has it; empty: it has none


class Embedder:
    """A sentence model that is loaded. Any thread.

    Attributes
    ----------
    name : as it was named, or where it lies
    sha256 : of all that decides which vectors there are: the model, the tokenizer, how tokens become one
    runtime : which onnxruntime it is run by
    dimension : numbers of a vector
    max_tokens : of a text; what is behind is not looked at
    probe : what the fixed sentences came to, hexadecimal

    Raises
    ------
    ConfigError : the files cannot be read, are no sentence model, or do not belong together.
    OSError : a file cannot be read.
    """

    def __init__(self, name: str, files: Files) -> None:
        runtime, tokenizers = _libraries()
        self.name, self.runtime = name, str(runtime.__version__)
        layout = read_layout(files.root)
        onnx, tokenizer = read_file(files.onnx, MOST_BYTES), read_file(files.tokenizer, MOST_TOKENIZER_BYTES)
        self._tokenizer = _tokenizer(files, tokenizers, tokenizer)
        self.max_tokens = longest(layout, self._tokenizer.truncation, files.root)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._session = _session(files, runtime, onnx)
        self._inputs = _inputs(files, self._session)
        self._output, self._pooling, self.dimension = self._try_out(files, layout.pooling, layout.more)
        decides = [
            hashlib.sha256(onnx).hexdigest(),
            hashlib.sha256(tokenizer).hexdigest(),
            self._output,
            self._pooling,
            self.max_tokens,
        ]
        self.sha256 = hashlib.sha256(msgspec.json.encode(decides)).hexdigest()
        self.probe = hashlib.sha256(b"\0".join(self.vectors(SENTENCES))).hexdigest()[:16]

    def vectors(self, texts: Sequence[str], threads: int | None = None) -> list[Vector]:
        """Return the vectors of texts; fields are no part of them.

        Parameters
        ----------
        threads : how many texts are run at once; None: as many as there are processors
        """
        n = min(len(texts), self._n_threads if threads is None else threads)
        if n <= 1:
            return self._some(texts)
        found: list[Vector] = [b""] * len(texts)
        for first, part in enumerate(self._pool.map(self._some, [texts[first::n] for first in range(n)])):
            found[first::n] = part
        return found

    @cached_property
    def _n_threads(self) -> int:
        return min(len(os.sched_getaffinity(0)), MOST_THREADS)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._n_threads, "embed")

    def _some(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of texts, one after another.

        Each is run alone, but what comes before and behind that is done for STEP of them at once: a run of the model
        leaves nothing else in the processor's caches.
        """
        found: list[Vector] = []
        for begin in range(0, len(texts), STEP):
            encodings = [self._encode(text) for text in texts[begin : begin + STEP]]
            found += [_written(numbers) for numbers in [self._numbers(each) for each in encodings]]
        return found

    def _encode(self, text: str) -> Any:
        return self._tokenizer.encode(whole_characters(text[: CHARS_A_TOKEN * self.max_tokens]))

    def _numbers(self, encoding: Any) -> NDArray[np.float32] | None:
        """Return a text's vector of any length; None of a text without a token."""
        ids = encoding.ids
        if not ids:
            return None
        found = self._run(ids, encoding.type_ids)[0]
        return found if self._pooling == "ready" else _pooled(found, self._pooling)

    def _run(self, ids: list[int], types: list[int]) -> NDArray[np.float32]:
        values = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        feed = {name: np.array([values[name]], kind) for name, kind in self._inputs}
        found: NDArray[np.float32] = self._session.run([self._output], feed)[0]
        return found

    def _try_out(self, files: Files, pooling: str, more: str) -> tuple[str, str, int]:
        """Return which output counts, how its rows become one, and how many numbers that has.

        Run with every kind of input that there will be, so that no text fails later.
        """
        outputs = {each.name: each for each in self._session.get_outputs()}
        self._output = next((name for name in (SENTENCE, *TOKENS, *outputs) if name in outputs), "")
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ConfigError(f"embed: {files.tokenizer} knows no token")
        largest = max(vocabulary.values())
        try:
            found = self._run([largest] * self.max_tokens, [0] * self.max_tokens)
        except Exception as error:  # noqa: BLE001, RUF100  (each of the runtime's is of a class of its own)
            raise ConfigError(
                f"embed: {files.onnx} cannot be run with {self.max_tokens} tokens of {files.tokenizer.name}, of which "
                f"the last is number {largest}: {_said(error)}. The two have to be of one model"
            ) from None
        shape = found.shape
        if not (len(shape) in {2, 3} and shape[0] == 1 and (len(shape) == 2 or shape[1] == self.max_tokens)):
            raise ConfigError(
                f"embed: {files.onnx} gives {self._output} of shape {list(shape)} for {self.max_tokens} tokens: no "
                f"vector for each token ({' or '.join(TOKENS)}), and none for the text ({SENTENCE}). It is no "
                "sentence model"
            )
        if found.dtype not in (np.float32, np.float16, np.float64):
            raise ConfigError(f"embed: {files.onnx} gives {found.dtype} numbers; it is no sentence model")
        if not MIN_NUMBERS <= shape[-1] <= MAX_NUMBERS:
            raise ConfigError(f"embed: {files.onnx} gives {shape[-1]} numbers, it must be 2 to {MAX_NUMBERS}")
        if len(shape) == 3 and more:
            raise ConfigError(
                f"embed: behind what {files.onnx} gives, {files.root} asks for {more}, which is not known here. Take "
                f"an .onnx file that gives the text's own vector ({SENTENCE})"
            )
        return self._output, "ready" if len(shape) == 2 else pooling, shape[-1]


def _libraries() -> tuple[Any, Any]:
    try:
        import onnxruntime  # noqa: PLC0415  (only where a model is named)
        import tokenizers  # noqa: PLC0415  (likewise)
    except ImportError as error:
        raise ConfigError(f"embed: {error}; `pip install 'driftline[embed]'` has what runs sentence models") from None
    return onnxruntime, tokenizers


def _tokenizer(files: Files, tokenizers: Any, content: bytes) -> Any:
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001, RUF100  (the library has no class of its own)
        raise ConfigError(f"embed: {files.tokenizer} is no tokenizer: {_said(error)}") from None


def _session(files: Files, runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Where it looks for numbers that a model has in other files: nowhere, whatever a stranger's file names.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull + "/none")
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001, RUF100  (each of the runtime's is of a class of its own)
        said = _said(error)
        if "xternal data" in said:
            raise ConfigError(
                f"embed: {files.onnx} has its numbers in another file, which is not read: take one that has them in it"
            ) from None
        raise ConfigError(f"embed: {files.onnx} is no ONNX model that can be run: {said}") from None


def _inputs(files: Files, session: Any) -> list[tuple[str, Any]]:
    """Return the names and types of a model's inputs."""
    found = []
    for each in session.get_inputs():
        if (
            each.name not in INPUTS
            or each.type not in INTEGERS
            or len(each.shape) != 2
            or isinstance(each.shape[1], int)
        ):
            raise ConfigError(
                f"embed: {files.onnx} asks for {each.name} ({each.type} {each.shape}); a sentence model asks for "
                f"{', '.join(INPUTS)}, whole numbers for a text of any length"
            )
        found.append((each.name, INTEGERS[each.type]))
    if INPUTS[0] not in {name for name, _ in found}:
        raise ConfigError(f"embed: {files.onnx} has no input {INPUTS[0]}; it is no sentence model")
    return found


def _written(numbers: NDArray[np.float32] | None) -> Vector:
    """Return a vector as it stands behind a text."""
    try:
        return b"" if numbers is None else suffix(numbers).encode()
    except BadRecord:  # all are 0, or one is not finite
        return b""


def _pooled(rows: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """Return what the tokens' vectors become."""
    ways: dict[str, Callable[[], NDArray[np.float32]]] = {
        "mean": lambda: rows.mean(axis=0, dtype=np.float32),
        "max": lambda: rows.max(axis=0),
        "cls": lambda: rows[0],
        "last": lambda: rows[-1],
    }
    return ways[pooling]()


def _said(error: Exception) -> str:
    """Return what a library said, as one line that is not long."""
    return " ".join(str(error).split())[:300] or type(error).__name__
