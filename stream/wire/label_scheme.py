"""Which labels are there, where an operator says so?

A file, `--labels`, with a label on each line or as a JSON list. With it no other label is taken: the API refuses it,
and what comes by the log goes to the dead-letter topic. So a flood of labels that mean nothing takes no places.
"""

import difflib
import heapq
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from driftline.stream.errors import ConfigError
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import MAX_LABEL_CHARS

MAX_BYTES: Final = 16 << 20
MAX_LABELS: Final = 100_000
LOOKED_AT: Final = 2_000  # labels that may be the nearest one, by so many of their first characters
LOOKED_AT_CHARS: Final = 64
_TRIED: Final = 8


def read_scheme(path: Path) -> tuple[str, ...]:
    """Return the labels of a file, each in its one form, in their order.

    Raises
    ------
    ConfigError : it cannot be read; it has no label, one twice, or one that no record could have.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"labels: {path} has more than {MAX_BYTES >> 20} MiB; name a file of labels")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"labels: {path} cannot be read: {error}") from None
    written = _json_list(path, text) if text.lstrip().startswith("[") else text.splitlines()
    found: dict[str, str] = {}
    for number, each in enumerate(written, 1):
        label = same_name(each)
        if not label:
            continue
        if len(label) > MAX_LABEL_CHARS or "\0" in label:
            raise ConfigError(
                f"labels: {path}, label {number}: it may have at most {MAX_LABEL_CHARS} characters, none may be NUL"
            )
        if label in found:
            raise ConfigError(f"labels: {path}, label {number}: {each!r} is {found[label]!r} again; leave one out")
        found[label] = each
    if not found:
        raise ConfigError(f"labels: {path} has no label; write one on each line, or a JSON list")
    if len(found) > MAX_LABELS:
        raise ConfigError(f"labels: {path} has {len(found):,} labels, at most {MAX_LABELS:,} are taken")
    return tuple(found)


def _json_list(path: Path, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"labels: {path} begins as a JSON list and is none: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f'labels: {path} must be a JSON list of texts, as ["spam", "ham"]')
    return found


@lru_cache(1024)
def nearest(label: str, labels: Sequence[str]) -> str:
    """Return which of some labels is written most like one that is none of them; a tuple of them, not empty."""
    wanted = label[:LOOKED_AT_CHARS].casefold()
    match = difflib.SequenceMatcher(b=wanted, autojunk=False)

    def alike(name: str, *, quick: bool) -> float:
        match.set_seq1(name[:LOOKED_AT_CHARS].casefold())
        return match.quick_ratio() if quick else match.ratio()

    tried = heapq.nlargest(_TRIED, labels[:LOOKED_AT], key=lambda name: alike(name, quick=True))
    return max(tried, key=lambda name: alike(name, quick=False))
