"""Which sentence model does a classifier score with?

That which its settings name: a directory, an .onnx file, or what a hub has (hub.py). The same object for all who have
it open in a process. It has to be the one that was learned with, by its files' SHA-256, and it has to give the same
vectors here: with another processor or another onnxruntime the same files may give others, and a replay other bytes.
"""

import logging
import re
import threading
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from driftline.learner.embed.embedder import Embedder
from driftline.learner.embed.files import find_files
from driftline.learner.embed.hub import fetch, hub_name
from driftline.stream.errors import ConfigError

MOST_RATE: Final = 1_000_000
_LOG: Final = logging.getLogger(__name__)
_LOCK: Final = threading.Lock()
_OPEN: Final[WeakValueDictionary[tuple[tuple[int, ...], ...], Embedder]] = WeakValueDictionary()
_SAID: Final[set[tuple[str, str]]] = set()


def check_embed(name: str, sha256: str, made_by: str, rate: int) -> None:
    """Refuse what cannot be meant. Raises ConfigError."""
    if "&" in name or "\n" in name:
        raise ConfigError(f"embed={name!r}: no & and no end of a line can stand there; give the directory another name")
    for setting, value in (("embed_sha256", sha256), ("embed_made_by", made_by)):
        if value and not name:
            raise ConfigError(f"{setting}: it says what `embed` has to be, and there is none")
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ConfigError(f"embed_sha256={sha256}: it must be 64 hexadecimal digits, as a model's settings have them")
    if made_by and not re.fullmatch(r"[\w.+-]{1,60}:[0-9a-f]{16}", made_by):
        raise ConfigError(f"embed_made_by={made_by}: it is filled in by itself; leave it out")
    if not 0 <= rate <= MOST_RATE:
        raise ConfigError(f"embed_rate={rate}: it must be 0 to {MOST_RATE:,} texts a second")


def open_embedder(name: str, sha256: str = "", made_by: str = "") -> Embedder | None:
    """Return a sentence model, the same object for the same files while somebody has it; None for no name.

    Parameters
    ----------
    name : a directory, an .onnx file, or ORGANISATION/NAME@REVISION
    sha256 : of the model that was learned with; "": any
    made_by : what it was run by then, and what its proof was, `runtime:probe`; "": anything

    Raises
    ------
    ConfigError : there is no such model, it is another one, or gives other vectors here.
    """
    if not name:
        return None
    known = hub_name(name)
    try:
        files = find_files(Path(name) if known is None else fetch(known))
        with _LOCK:
            embedder = _OPEN.get(files.key)
            if embedder is None:
                embedder = _OPEN[files.key] = Embedder(name, files)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        where = (isinstance(error, OSError) and error.filename) or name
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"embed: {where} cannot be read: {why}") from error
    if sha256 not in ("", embedder.sha256):
        raise ConfigError(
            f"embed: {name} is not the model that was learned with: that has the SHA-256 {sha256[:16]}, this one "
            f"{embedder.sha256[:16]} (of the .onnx file, {files.tokenizer.name} and how tokens become one vector). Put "
            "that one there, or build the model anew with this one: `driftline rebuild --model`"
        )
    _check_same(name, embedder, made_by)
    return embedder


def check_same_dimension(dimension: int, embedder: Embedder) -> None:
    """Refuse messages' vectors of another length than a sentence model's; 0: none are named. Raises ConfigError."""
    if dimension not in (0, embedder.dimension):
        raise ConfigError(
            f"dimension={dimension} and embed={embedder.name}: a text has one vector, and the model's has "
            f"{embedder.dimension} numbers. Leave `dimension` out: a message may bring its own vector of as many"
        )


def settled_name(name: str) -> str:
    """Return a name that is the same wherever it is read: of a path that from the root."""
    return name if hub_name(name) else str(Path(name).absolute())


def made_by(embedder: Embedder) -> str:
    """Return what a model's settings have of what it is run by."""
    return f"{embedder.runtime}:{embedder.probe}"


def _check_same(name: str, embedder: Embedder, made_by: str) -> None:
    runtime, _, probe = made_by.partition(":")
    if probe not in ("", embedder.probe):
        why = f"onnxruntime {runtime}, here {embedder.runtime}" if runtime != embedder.runtime else "another processor"
        raise ConfigError(
            f"embed: {name} gives other vectors here than those that were learned with ({why}; the probe is "
            f"{embedder.probe}, and was {probe}). What follows would not be the same model. Go on with what it was "
            f"learned with (`pip install onnxruntime=={runtime}`, a processor of that kind), or build it anew here: "
            "`driftline rebuild --into`, a new data directory"
        )
    if made_by and runtime != embedder.runtime and (runtime, embedder.runtime) not in _SAID:
        _SAID.add((runtime, embedder.runtime))
        _LOG.warning(
            "embed: the model was learned with onnxruntime %s, and this is %s: it gives the same vectors by its probe, "
            "so all goes on", runtime, embedder.runtime,
        )  # fmt: skip
