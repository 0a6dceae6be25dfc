"""Which model is served?

The newest file in `snapshots/`: one immutable safetensors file, a model's arrays and what stands about them in its
header. The learner makes it appear whole, by a rename; readers map it copy-on-write, so that all processes on a machine
share one copy in memory and a reader can never change what others see. A snapshot is not needed to recover: it is made
from the state that recovery gives.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from learner import durable
from learner.classifier import Classifier, State
from learner.models import build
from stream.errors import StateError

FORMAT: Final = 2
KEPT: Final = 3
_LOG: Final = logging.getLogger(__name__)
_KEY: Final = "driftline"
_DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
_NAMES: Final = {np.dtype(code).str: name for name, code in _DTYPES.items()}


class SnapshotInfo(msgspec.Struct, kw_only=True, frozen=True):
    """What stands in a snapshot's header."""

    format: int = FORMAT
    version: str  # lineage and number of labels learned: equal versions are equal models
    epoch: int
    model: str
    config: dict[str, Any]
    labels: list[str]
    labels_learned: int
    feedback_offsets: dict[str, int]  # partition, the next offset to be learned
    published_at: float  # seconds since 1970, this machine's clock


class Snapshot(msgspec.Struct, frozen=True):
    """A model to be asked; nobody learns on it."""

    info: SnapshotInfo
    classifier: Classifier
    path: Path


class Publisher:
    """Writes snapshots. One thread.

    Parameters
    ----------
    root : the directory
    epoch : of the learner; its snapshots sort behind those of every learner before
    """

    def __init__(self, root: Path, epoch: int) -> None:
        durable.make_directory(root)
        durable.remove_partial(root)
        self._root, self._epoch, self._number = root, epoch, 0

    def publish(self, classifier: Classifier, info: SnapshotInfo) -> Path:
        """Make a snapshot appear, and drop those that nobody should still need."""
        self._number += 1
        path = self._root / f"{self._epoch:08d}-{self._number:010d}.safetensors"
        durable.replace(path, *_lay_out(classifier.state(), info))
        for old in list_snapshots(self._root)[KEPT:]:
            durable.remove(old)
        return path


def list_snapshots(root: Path) -> list[Path]:
    """Return the snapshots, newest first."""
    try:
        names = sorted((name for name in os.listdir(root) if name[0].isdigit()), reverse=True)  # noqa: PTH208  (20 times a second)
    except FileNotFoundError:
        return []
    return [root / name for name in names]


class Follower:
    """The newest snapshot of a directory that can be read, as they come. One thread."""

    def __init__(self, root: Path, *, allow_pickle: bool = False) -> None:
        self._root, self._allow_pickle = root, allow_pickle
        self._current: Snapshot | None = None
        self._refused: set[Path] = set()

    def look(self) -> Snapshot | None:
        """Return the newest snapshot, the same object while there is no newer one; None while there is none.

        A damaged one is reported once and passed over. Where the directory was replaced by another, that one counts.
        Raises ConfigError for a pickle that may not be opened.
        """
        paths = list_snapshots(self._root)
        self._refused.intersection_update(paths)
        for path in paths:
            if self._current is not None and path == self._current.path:
                break
            if path in self._refused:
                continue
            try:
                self._current = load_snapshot(path, allow_pickle=self._allow_pickle)
                break
            except FileNotFoundError:
                continue  # the learner dropped it just now: there are newer ones
            except StateError as error:
                _LOG.error("%s; it is passed over", error)
                self._refused.add(path)
        return self._current


def load_snapshot(path: Path, *, allow_pickle: bool = False) -> Snapshot:
    """Map a snapshot.

    Raises
    ------
    ConfigError : the model's state is a pickle, and that was not allowed; nothing of it was opened.
    StateError : the file is damaged or of another format.
    """
    try:
        header, state = _map(path)
        info = msgspec.json.decode(header["__metadata__"][_KEY], type=SnapshotInfo)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"snapshot {path} cannot be read: {error!r}") from error
    if info.format != FORMAT:
        raise StateError(f"snapshot {path} has format {info.format}; this version of Driftline reads format {FORMAT}")
    classifier = build(info.config["classifier"], info.config, allow_pickle=allow_pickle)
    classifier.load_state(state, info.labels)
    return Snapshot(info, classifier, path)


def age_s(snapshot: Snapshot) -> float:
    """Return how long ago the snapshot was published."""
    return max(0.0, time.time() - snapshot.info.published_at)


def _lay_out(state: State, info: SnapshotInfo) -> list[bytes | memoryview]:
    """Return a safetensors file in parts, the arrays uncopied (the library copies them twice)."""
    # The widest elements first: so each array lies where its elements may lie.
    arrays = dict(sorted(state.items(), key=lambda item: (-item[1].itemsize, item[0])))
    header: dict[str, Any] = {"__metadata__": {_KEY: msgspec.json.encode(info).decode()}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype.str], "shape": array.shape, "data_offsets": [start, end]}
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    return [
        len(encoded).to_bytes(8, "little"),
        encoded,
        *(np.ascontiguousarray(array).data for array in arrays.values()),
    ]


def _map(path: Path) -> tuple[dict[str, Any], State]:
    """Map a safetensors file copy-on-write (the library's own loader copies): a length, a JSON header, the arrays."""
    whole = np.memmap(path, np.uint8, mode="c")
    length = int(whole[:8].view("<u8")[0])
    if not 2 <= length <= whole.size - 8:
        raise ValueError(f"its header would have {length} bytes, the file has {whole.size}")
    header = msgspec.json.decode(whole[8 : 8 + length].tobytes())
    body = np.asarray(whole[8 + length :])
    state = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            state[name] = body[start:end].view(_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return header, state
