"""Where are a sentence model's files, and what do they say of it?

In a directory, as sentence-transformers lays one out: `model.onnx` or `onnx/model.onnx`, `tokenizer.json`, and beside
them how tokens become one vector (`1_Pooling/config.json`) and how many there may be (`sentence_bert_config.json`). One
of several .onnx files is named itself. Strangers write these files: what is read of them is bounded, and what is not
understood is refused, since a guess would give other vectors than its authors meant.
"""

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from driftline.stream.errors import ConfigError

SUFFIX: Final = ".onnx"
ONNX: Final = ("model.onnx", "onnx/model.onnx")  # the first that is there
TOKENIZER: Final = "tokenizer.json"
POOLING: Final = "1_Pooling/config.json"
LENGTH: Final = "sentence_bert_config.json"
MODULES: Final = "modules.json"
OF_TOKENIZER: Final = "tokenizer_config.json"
CONFIG: Final = "config.json"
BESIDE: Final = (POOLING, LENGTH, MODULES, OF_TOKENIZER, CONFIG)  # each may be missing
MOST_BYTES: Final = 2 << 30  # of a model: more no file of its kind can have
MOST_TOKENIZER_BYTES: Final = 128 << 20
MOST_JSON_BYTES: Final = 1 << 20
MOST_TOKENS: Final = 512  # of a text, whatever the model would take: time rises with their square
MOST_LISTED: Final = 5
POOLINGS: Final = {"mean_tokens": "mean", "cls_token": "cls", "mean_sqrt_len_tokens": "mean", "max_tokens": "max",
                   "lasttoken": "last"}  # fmt: skip
UNDERSTOOD: Final = {"Transformer", "Pooling", "Normalize"}


class Files(NamedTuple):
    """A model's files, by their paths."""

    onnx: Path
    tokenizer: Path
    root: Path  # where what stands beside them is looked for

    @property
    def key(self) -> tuple[tuple[int, ...], ...]:
        """What changes where another file is put there, or something is written. Raises OSError."""
        found: list[tuple[int, ...]] = []
        for path in (self.onnx, self.tokenizer, *(self.root / name for name in BESIDE)):
            try:
                each = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                found.append((0,))
            else:
                found.append((each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns))
        return tuple(found)


class Layout(NamedTuple):
    """What stands beside a model."""

    pooling: str = "mean"  # mean, cls, max, last: how the tokens' vectors become one
    max_tokens: int | None = None
    more: str = ""  # a further step that its authors take behind that, and nobody here knows


def find_files(path: Path) -> Files:
    """Return the files of a model that a directory or one .onnx file is named for. Raises ConfigError."""
    if path.suffix == SUFFIX:
        if not path.is_file():
            raise _none(path)
        for root in (path.parent, path.parent.parent):
            if (root / TOKENIZER).is_file():
                return Files(path, root / TOKENIZER, root)
        own = path.with_name(f"{path.stem}-{TOKENIZER}")
        if own.is_file():
            return Files(path, own, path.parent)
        raise ConfigError(
            f"embed: there is no {TOKENIZER} beside {path}, nor one folder above, nor {own.name}. It comes with the "
            "model: put it there"
        )
    if not path.is_dir():
        raise _none(path)
    if not (path / TOKENIZER).is_file():
        raise ConfigError(f"embed: {path} has no {TOKENIZER}. It comes with the model: put it there")
    return Files(_one_of(path), path / TOKENIZER, path)


def _none(path: Path) -> ConfigError:
    return ConfigError(
        f"embed: there is no sentence model in {path} (from {Path.cwd()}). Name a directory with model{SUFFIX} and "
        f"{TOKENIZER}, one {SUFFIX} file, or what a hub has as ORGANISATION/NAME@REVISION, the revision's 40 "
        "hexadecimal digits. A model scores and learns with its vectors for good: put it there again, or begin another "
        "model without it"
    )


def _one_of(root: Path) -> Path:
    """Return the model in a directory."""
    for name in ONNX:
        if (root / name).is_file():
            return root / name
    found = sorted(path for folder in (root, root / "onnx") for path in folder.glob(f"*{SUFFIX}"))
    if len(found) == 1:
        return found[0]
    if not found:
        has = " It has model.safetensors, which only PyTorch reads:" if (root / "model.safetensors").exists() else ""
        raise ConfigError(
            f"embed: {root} has no {SUFFIX} file.{has} take a model that has one, or have it exported "
            "(`optimum-cli export onnx`)"
        )
    names = ", ".join(str(path.relative_to(root)) for path in found[:MOST_LISTED])
    raise ConfigError(f"embed: {root} has {len(found)} {SUFFIX} files ({names}): name the one that is meant")


def read_file(path: Path, most: int) -> bytes:
    """Return what is in a file. Raises ConfigError where it is none, or larger than it may be; OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"embed: {path} is no file")
        content = file.read(most + 1) if found.st_size <= most else b" " * io.DEFAULT_BUFFER_SIZE
    if found.st_size > most or len(content) > most:
        raise ConfigError(f"embed: {path} has {found.st_size:,} bytes, and {most:,} is the most that is read of such")
    return content


def read_layout(root: Path) -> Layout:
    """Return what stands beside a model. Raises ConfigError, OSError."""
    modules = _json(root / MODULES, list)
    types = [str(each.get("type", "")) for each in modules if isinstance(each, dict)]
    more = [name for name in (each.rpartition(".")[2] for each in types) if name not in UNDERSTOOD]
    found: Any = _json(root / LENGTH, dict).get("max_seq_length")
    return Layout(_pooling(root / POOLING), _length(found), ", ".join(more))


def longest(layout: Layout, truncation: Any, root: Path) -> int:
    """Return how many tokens a text may have at most: what is said first counts.

    Parameters
    ----------
    truncation : what the tokenizer says of itself, or None
    """
    said = [
        layout.max_tokens,
        _length(truncation.get("max_length")) if isinstance(truncation, dict) else None,
        _length(_json(root / OF_TOKENIZER, dict).get("model_max_length")),
        _length(_json(root / CONFIG, dict).get("max_position_embeddings")),
    ]
    return min(next((each for each in said if each is not None), MOST_TOKENS), MOST_TOKENS)


def _length(value: Any) -> int | None:
    """Return a length; some files have 10**30 where there is none."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 2 <= value <= 1 << 30
    return int(value) if known else None


def _pooling(path: Path) -> str:
    said = _json(path, dict)
    chosen = said.get("pooling_mode")  # as newer versions write it
    names: Iterable[str] = (
        [chosen]
        if isinstance(chosen, str)
        else [key.removeprefix("pooling_mode_") for key, value in said.items() if value is True and "_mode_" in key]
    )
    found = {POOLINGS.get(name, name if name in POOLINGS.values() else f"?{name}") for name in names}
    if len(found) > 1 or any(name[0] == "?" for name in found):
        ways = ", ".join(sorted(name.lstrip("?") for name in found))
        raise ConfigError(f"embed: {path} asks for {ways}: one of {', '.join(sorted(set(POOLINGS.values())))} is known")
    return found.pop() if found else Layout._field_defaults["pooling"]


def _json(path: Path, kind: type) -> Any:
    """Return what is in a file that may be missing."""
    try:
        content = read_file(path, MOST_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return kind()
    try:
        found = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"embed: {path} cannot be read: {error}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"embed: {path} must hold a JSON {'object' if kind is dict else 'list'}")
    return found
