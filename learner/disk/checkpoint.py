"""What does recovery need?

A directory that is never overwritten: the model, the join windows, the progressive metrics, and a manifest that says
from which offsets to go on. `sha256sum -c SHA256SUMS` accepts it. Together with the journal that follows it, it gives
the learner's state back byte for byte. No pickle: safetensors, msgpack and JSON.

    checkpoints/000000000042/     named after the last batch in it
        model.safetensors         the classifier's arrays
        progress.safetensors      the metrics' arrays
        drift.safetensors         the drift alarms' windows, and the publish gate's
        window-0.msgpack ...      one for each partition of the messages
        manifest.json             Manifest
        SHA256SUMS
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from driftline.learner.disk import durable
from driftline.learner.disk.durable import Parts
from driftline.learner.disk.losses import Erasures, Losses
from driftline.learner.disk.rebuilt import Rebuilt
from driftline.learner.disk.settings import Rules
from driftline.learner.embed.budget import Budget
from driftline.learner.models.classifier import State
from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import Counts, Offsets
from driftline.stream.errors import StateError
from driftline.stream.join.quota import Quotas
from driftline.stream.limits import JoinCounts
from driftline.stream.log.base import TopicPartition
from driftline.stream.words import counted

FORMAT: Final = 3
READABLE: Final = (FORMAT, 2)  # 2 had other windows (join/window_saved.py), and joined by ids alone, by partition
REVISION: Final = 3  # raised where a state of this format holds or counts something that it did not before
KEPT: Final = 3
_LOG: Final = logging.getLogger(__name__)
_DAMAGES: Final = (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError)
TYPES: Final = {
    np.dtype(code).str: name
    for name, code in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
    }.items()
}  # fmt: skip

_T = TypeVar("_T")


def by_topic(offsets: Mapping[TopicPartition, _T]) -> dict[str, dict[str, _T]]:
    """Return offsets, or what else each partition has, as JSON has them."""
    found: dict[str, dict[str, _T]] = {}
    for partition, offset in offsets.items():
        found.setdefault(partition.topic, {})[str(partition.partition)] = offset
    return found


def by_partition(offsets: Mapping[str, Mapping[str, _T]]) -> dict[TopicPartition, _T]:
    """Return what `by_topic` was given."""
    return {
        TopicPartition(topic, int(number)): offset
        for topic, of_topic in offsets.items()
        for number, offset in of_topic.items()
    }


class JournalMark(msgspec.Struct, array_like=True, frozen=True):
    """Up to where a journal in the log is in a checkpoint (cluster/log_journal.py)."""

    identity: str | None  # of its topic
    offset: int
    lineage: str  # of what is learned next


class Manifest(msgspec.Struct, kw_only=True):
    """What a checkpoint is, beside its arrays."""

    format: int = FORMAT
    batch: int  # the last batch applied
    epoch: int  # of the learner that wrote it
    lineage: str  # of this model's version; each process gives what it learns another (Machine.renew)
    model: str  # as it was asked for
    config: dict[str, Any]  # every setting of it
    rules: Rules
    labels: list[str]
    positions: Offsets  # the next offset of each partition
    clocks: Offsets  # of each partition behind the last record taken, ms
    counts: Counts
    join_counts: JoinCounts
    alarms: Alarms
    created_at: str
    begun: Offsets = {}  # where the model's first records were, of all that it has learned; older ones: 0
    identities: dict[str, str | None] = {}  # of the topics in `positions`, where the log gives them one
    ends: Offsets = {}  # the high watermarks seen last
    losses: Losses = msgspec.field(default_factory=Losses)
    erased: Erasures = Erasures()
    rebuilt: Rebuilt | None = None  # how the model was built anew last
    ahead: dict[str, dict[str, tuple[int, int]]] = {}  # the votes for a later clock, where there are any (Clock)
    clock: tuple[int, int, int] = (0, 0, 0)  # of all partitions (Clock)
    rhythms: dict[str, dict[str, tuple[int, ...]]] = {}  # what else a Clock has, of each partition
    rhythm: tuple[int, ...] = ()  # the same of the one of all partitions
    quotas: Quotas = msgspec.field(default_factory=Quotas)
    budget: Budget = msgspec.field(default_factory=Budget)  # of the texts that got a vector
    journal: JournalMark | None = None  # None: it lies beside the checkpoints
    revision: int = 0  # REVISION of the version that wrote it, where that wrote it down


_MANIFEST: Final = msgspec.json.Decoder(Manifest)


class Checkpoint(msgspec.Struct):
    """All that a learner consists of between two batches."""

    manifest: Manifest
    model: State
    progress: State
    drift: State
    windows: list[list[bytes]]  # each in parts


def path_of(root: Path, batch: int) -> Path:
    """Return where the checkpoint after a batch lies."""
    return root / f"{batch:012d}"


def list_checkpoints(root: Path) -> list[Path]:
    """Return the checkpoints, newest first. Half-written ones are not among them."""
    return sorted((path for path in root.glob("[0-9]*") if path.is_dir()), reverse=True)


def save_checkpoint(
    root: Path, checkpoint: Checkpoint, name: str | None = None, check: Callable[[], None] = lambda: None
) -> Path:
    """Write a checkpoint and return where it lies, once it is durable. Nothing large is copied.

    `check` is called when all is written, before it counts. One of the same batch that a learner wrote while it was
    overtaken is set aside.
    """
    files = state_files(checkpoint)
    files["manifest.json"] = [msgspec.json.format(msgspec.json.encode(checkpoint.manifest), indent=1)]
    sums = "".join(f"{sha256(parts)}  {name}\n" for name, parts in sorted(files.items()))
    path, epoch = root / name if name else path_of(root, checkpoint.manifest.batch), checkpoint.manifest.epoch
    if name is None and path.exists() and (found := load_checkpoint(path).manifest.epoch) < epoch:
        durable.set_aside(path, f"overtaken-{path.name}-{found}")
    durable.write_directory(path, files | {"SHA256SUMS": [sums.encode()]}, mark=f"-{epoch:08d}", check=check)
    return path


def state_files(checkpoint: Checkpoint) -> dict[str, Parts]:
    """Return the files of a checkpoint but for its manifest: the same state gives the same bytes."""
    return {
        "model.safetensors": lay_out(checkpoint.model),
        "progress.safetensors": lay_out(checkpoint.progress),
        "drift.safetensors": lay_out(checkpoint.drift),
        **{f"window-{number}.msgpack": window for number, window in enumerate(checkpoint.windows)},
    }


def lay_out(state: State) -> Parts:
    """Return a safetensors file in parts, the arrays uncopied: the library copies them twice and holds the GIL."""
    # The widest elements first: so each array lies where its elements may lie.
    arrays = dict(sorted(state.items(), key=lambda item: (-item[1].itemsize, item[0])))
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": TYPES[array.dtype.str], "shape": array.shape, "data_offsets": [start, end]}
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    flat = (np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values())
    return [len(encoded).to_bytes(8, "little"), encoded, *flat]


def sha256(parts: Parts) -> str:
    """Return the SHA-256 of a file's content, as SHA256SUMS has it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    StateError : a file is missing or not what SHA256SUMS says, or another version of Driftline wrote it.
    """
    try:
        sums = read_sums(path)
        manifest = _MANIFEST.decode(_read(path, "manifest.json", sums))
        if path.name.isdigit() and manifest.batch != int(path.name):
            raise ValueError(f"it is of batch {manifest.batch}")
        return Checkpoint(
            manifest,
            safetensors.numpy.load(_read(path, "model.safetensors", sums)),
            safetensors.numpy.load(_read(path, "progress.safetensors", sums)),
            safetensors.numpy.load(_read(path, "drift.safetensors", sums)),
            [[_read(path, f"window-{number}.msgpack", sums)] for number in range(manifest.rules.partitions)],
        )
    except _DAMAGES as error:
        raise StateError(f"checkpoint {path} is damaged: {error!r}") from error


def load_manifest(path: Path) -> Manifest:
    """Read what a checkpoint says of itself, not what it holds. Raises StateError."""
    try:
        return _MANIFEST.decode(_read(path, "manifest.json", read_sums(path)))
    except _DAMAGES as error:
        raise StateError(f"checkpoint {path} is damaged: {error!r}") from error


def load_model(path: Path) -> tuple[Manifest, State]:
    """Read a checkpoint's manifest and its model, which may be all of it that is there. Raises StateError."""
    _refuse_unknown_format(path)
    try:
        sums = read_sums(path)
        manifest = _MANIFEST.decode(_read(path, "manifest.json", sums))
        return manifest, safetensors.numpy.load(_read(path, "model.safetensors", sums))
    except _DAMAGES as error:
        raise StateError(f"checkpoint {path} is damaged: {error!r}") from error


def load_newest(root: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, stepping over damaged ones; None where there is none at all.

    Raises
    ------
    StateError : there are checkpoints, but none can be read; or the newest is of an unknown format.
    """
    paths = list_checkpoints(root)
    for path in paths:
        _refuse_unknown_format(path)
        try:
            return load_checkpoint(path)
        except StateError as error:
            _LOG.error("%s; taking the one before", error)
    if paths:
        raise StateError(f"none of {counted(len(paths), 'checkpoint')} in {root} can be read; restore one from a copy")
    return None


def set_aside_newer(root: Path, batch: int, epoch: int) -> None:
    """Rename the checkpoints that were stepped over: recovery makes them again, and none may count as one to keep.

    One of a later epoch was not: who has taken over meanwhile wrote it.
    """
    for path in list_checkpoints(root):
        if int(path.name) > batch and not _is_later(path, epoch):
            durable.set_aside(path, f"damaged-{path.name}-{epoch}")


def _is_later(path: Path, epoch: int) -> bool:
    try:
        return load_manifest(path).epoch > epoch
    except StateError:
        return False


def prune(root: Path, put_away: Callable[[Path], None] = durable.remove) -> int:
    """Put away all but the newest checkpoints and return the batch of the oldest kept."""
    paths = list_checkpoints(root)
    for path in reversed(paths[KEPT:]):
        put_away(path)
    return int(paths[:KEPT][-1].name)


def read_sums(path: Path) -> dict[str, str]:
    """Return the SHA-256 that each file of a checkpoint must have. Raises OSError where it cannot be read."""
    lines = [line.partition("  ") for line in (path / "SHA256SUMS").read_text().splitlines()]
    return {name: expected for expected, _, name in lines}


def _read(path: Path, name: str, sums: dict[str, str]) -> bytes:
    content = (path / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise ValueError(f"{name} does not have the SHA-256 that SHA256SUMS gives")
    return content


def _refuse_unknown_format(path: Path) -> None:
    """Raise where the checkpoint is whole and of another format: a damaged one must not look like a newer one."""
    try:
        found = msgspec.json.decode(_read(path, "manifest.json", read_sums(path)))["format"]
    except _DAMAGES:
        return  # that is said by whoever reads it whole
    if found not in READABLE:
        raise StateError(
            f"checkpoint {path} has format {found}; this version of Driftline reads format {FORMAT}. "
            "Use the version that wrote it, or another data directory; nothing was changed"
        )
