"""What is a checkpoint in the store?

    checkpoints/00000007-000000000042.json           one object that says which files it has: Stored. Put last
    files/00000007-000000000042-<attempt>/<name>     the files, as they lie on the disk

It counts once its object below checkpoints/ is there, which is put where none is, and never changed. That names its
attempt: what another attempt has left in files/ is none of its own, so no checkpoint is mixed of two. Names are the
epoch, then the batch: of two learners the later one's are the newer, also where it goes on from an older checkpoint.
"""

import re
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from driftline.learner.disk.checkpoint import Manifest
from driftline.stream.errors import StoreDamaged

FORMAT: Final = 1
CHECKPOINTS: Final = "checkpoints/"
FILES: Final = "files/"
SUMS: Final = "SHA256SUMS"
_KEY: Final = re.compile(r"checkpoints/(\d{8,})-(\d{12,})\.json")
_DIRECTORY: Final = re.compile(r"files/(\d{8,})-(\d{12,})-[0-9a-f]{32}/")
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Attempt = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Name(NamedTuple):
    """What a checkpoint in the store is called; the larger is the newer."""

    epoch: int
    batch: int

    def __str__(self) -> str:
        """Say it as it stands in keys."""
        return f"{self.epoch:08d}-{self.batch:012d}"

    @property
    def key(self) -> str:
        """Of the object that makes it count."""
        return f"{CHECKPOINTS}{self}.json"


def name_of(path: str) -> Name | None:
    """Return whose a key below `checkpoints/`, or a directory below `files/`, is; None: nobody's of ours."""
    found = _KEY.fullmatch(path) or _DIRECTORY.fullmatch(path)
    return Name(int(found[1]), int(found[2])) if found else None


class StoredFile(msgspec.Struct, frozen=True):
    """One file of it."""

    bytes: _Natural
    sha256: _Sha256


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint in the store: what it is, and its files by their names."""

    format: int = FORMAT
    batch: _Natural
    epoch: _Natural
    lineage: str
    model: str  # as it was asked for
    created_at: str
    labels_learned: _Natural
    erased: _Natural = 0  # how often something was erased before it
    attempt: _Attempt  # of those to put it, the one that did
    files: dict[str, StoredFile]

    @property
    def name(self) -> Name:
        """Its name."""
        return Name(self.epoch, self.batch)

    @property
    def bytes(self) -> int:
        """How many all its files have."""
        return sum(file.bytes for file in self.files.values())

    @property
    def directory(self) -> str:
        """Where its files are, with a / at the end."""
        return directory_of(self.name, self.attempt)


_STORED: Final = msgspec.json.Decoder(Stored)


def directory_of(name: Name, attempt: str) -> str:
    """Return where an attempt's files are, with a / at the end."""
    return f"{FILES}{name}-{attempt}/"


def describe(manifest: Manifest, attempt: str, files: dict[str, StoredFile]) -> Stored:
    """Return what is to be said of a checkpoint whose files were put."""
    return Stored(
        batch=manifest.batch,
        epoch=manifest.epoch,
        lineage=manifest.lineage,
        model=manifest.model,
        created_at=manifest.created_at,
        labels_learned=manifest.counts.labels_learned,
        erased=manifest.erased.times,
        attempt=attempt,
        files=files,
    )


def decode(content: bytes, name: Name, where: str) -> Stored:
    """Read what is said of a checkpoint. Raises StoreDamaged."""
    try:
        if (found := _FORMAT.decode(content).format) != FORMAT:
            raise StoreDamaged(f"{where}/{name.key} has format {found}; this version of Driftline reads {FORMAT}")
        stored = _STORED.decode(content)
        if stored.name != name or SUMS not in stored.files or not all(map(_PLAIN.fullmatch, stored.files)):
            raise ValueError("it is another one's, or names files that no checkpoint has")
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{where}/{name.key} is damaged: {error!r}") from None
    return stored


class _Format(msgspec.Struct):
    format: int


_FORMAT: Final = msgspec.json.Decoder(_Format)


def names_of(path: Path, sums: dict[str, str]) -> list[Path]:
    """Return the files of a checkpoint on the disk, the one with their sums last."""
    return [*(path / name for name in sums), path / SUMS]
