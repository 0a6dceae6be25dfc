"""How does a sentence model get here that a hub has?

By `ORGANISATION/NAME@REVISION`, the revision being the 40 digits of a commit: what a branch's name stands for changes.
Behind it may stand which .onnx file: `/onnx/model_quantized.onnx`. Only the files that are needed are fetched, once,
into the cache that all of the hub's tools share (HF_HOME); a revision never changes, so one that is there is not asked
for again. HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 keeps it from asking any.
"""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from driftline.learner.embed.files import BESIDE, MOST_BYTES, MOST_JSON_BYTES, MOST_TOKENIZER_BYTES, ONNX, TOKENIZER
from driftline.stream.errors import ConfigError

_NAME: Final = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)@([0-9a-f]{40})(?:/([\w./-]+\.onnx))?")
_ALMOST: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?:@([^/]*)(/.*)?)?")
_MOST: Final = {TOKENIZER: MOST_TOKENIZER_BYTES} | dict.fromkeys(BESIDE, MOST_JSON_BYTES)


class HubName(NamedTuple):
    """A model that a hub has."""

    repository: str
    revision: str
    file: str | None  # None: the first of ONNX


def hub_name(name: str) -> HubName | None:
    """Return what a name stands for at a hub; None where it is a path.

    Raises
    ------
    ConfigError : it is a hub's name, but not of one revision.
    """
    found = _NAME.fullmatch(name)
    if found is not None and ".." not in name:
        return HubName(found[1], found[2], found[3])
    almost = _ALMOST.fullmatch(name)
    if almost is None or Path(name).exists() or (almost[1] is None and name.endswith(".onnx")):
        return None
    said = f"there is no directory {name} (from {Path.cwd()}). " if almost[1] is None else ""
    raise ConfigError(
        f"embed={name}: {said}A model of a hub needs its revision, as ORGANISATION/NAME@REVISION with the 40 "
        "hexadecimal digits of a commit (the hub's page `Files`, `History`): what a branch's name stands for changes, "
        "and a model scores and learns with its vectors for good. Which of several files may stand behind it: "
        "ORGANISATION/NAME@REVISION/onnx/model_quantized.onnx"
    )


def fetch(name: HubName) -> Path:
    """Return where a model's .onnx file lies on this machine, once it and what belongs to it are there.

    Raises
    ------
    ConfigError : the hub has no such model, or cannot be asked; what to do.
    """
    try:
        return _fetch(name)
    except ImportError as error:
        raise ConfigError(
            f"embed: {error}; `pip install 'driftline[embed]'` has what talks to hubs. Or name a directory"
        ) from None


def _fetch(name: HubName) -> Path:
    if not _get(name, TOKENIZER):
        raise ConfigError(f"embed: {name.repository}@{name.revision[:8]} has no {TOKENIZER}: take a model that has one")
    for beside in BESIDE:
        _get(name, beside)
    for file in ONNX if name.file is None else (name.file,):
        path = _get(name, file)
        if path is not None:
            return path
    if name.file is None:
        raise ConfigError(
            f"embed: {name.repository}@{name.revision[:8]} has neither {' nor '.join(ONNX)}. Where it has another "
            ".onnx file, name that: ORGANISATION/NAME@REVISION/onnx/model_quantized.onnx"
        )
    raise ConfigError(f"embed: {name.repository}@{name.revision[:8]} has no {name.file}")


def _get(name: HubName, file: str) -> Path | None:
    """Return where a file lies now; None where the hub has none of that name at this revision."""
    import huggingface_hub as hub  # noqa: PLC0415  (only where it is used)
    from huggingface_hub.errors import RemoteEntryNotFoundError  # noqa: PLC0415  (likewise)

    cached: Any = hub.try_to_load_from_cache(name.repository, file, revision=name.revision)
    if cached is not None:  # else the hub was asked before, and has none
        return Path(cached) if isinstance(cached, str) else None
    most = _MOST.get(file, MOST_BYTES)
    get: Any = partial(
        hub.hf_hub_download, name.repository, file, revision=name.revision, endpoint=os.environ.get("HF_ENDPOINT")
    )
    try:
        size = get(dry_run=True).file_size
        if size > most:
            raise ConfigError(f"embed: {file} of {name.repository} has {size:,} bytes, at most {most:,} are fetched")
        return Path(get())
    except RemoteEntryNotFoundError:
        return None
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001, RUF100  (no network, no such repository, no right to it, a full disk)
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConfigError(
            f"embed: {file} of {name.repository}@{name.revision[:8]} cannot be fetched: {said}. Where there is no "
            "network, copy the model's directory here and name that, or have HF_HOME name a cache that has it. "
            "HF_ENDPOINT names another hub, HF_TOKEN is for models that are not public"
        ) from None
