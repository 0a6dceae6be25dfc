"""Which models of the past can be served again, and which one is?

With each checkpoint its model is kept as a snapshot that never changes: a hard link to the checkpoint's file, which
takes no room while that is there, and what is known of it beside. Their number and bytes are bounded: the further back,
the further apart are those that stay. One that is pinned, or served, is never dropped.

    snapshots/
        active-00000002                           what is served in the latest's place, or that nothing is; the highest
                                                  number counts, and a name is never used again
        kept/5f0c2a91-5574/model.safetensors      named by its version
                           manifest.json          Kept, with the model's SHA-256
        kept/5f0c2a91-5574.pinned                 Pin
        kept/5f0c2a91-5574.leaving                is dropped, once all machines know of it (shared/)
        kept/lock                                 held by whoever changes something here

Rolling back changes what is served, not what is learned: the learner goes on from its own state.

    1. the kept model is read whole: its SHA-256, and that it answers
    2. `active-N` is written and synced, renamed, and the directory synced: the stroke
    3. older ones go

Before 2 what was served is served on, behind it the other, in every process on every look (chooser.py).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.disk.durable import Parts
from driftline.learner.disk.lock import alone
from driftline.learner.quality.figures import Offsets
from driftline.learner.serving.choices import DAMAGES, Active, Choices
from driftline.learner.serving.kept import FixedReader
from driftline.learner.serving.snapshot import Snapshot, SnapshotInfo, seal
from driftline.stream.errors import StateError

FORMAT: Final = 1
KEPT: Final = "kept"
PINNED: Final = ".pinned"
LEAVING: Final = ".leaving"
COMING: Final = "coming-"  # a model that is being fetched
LOCK_S: Final = 2.0
MODEL: Final = "model.safetensors"


class Recent(msgspec.Struct, frozen=True):
    """How good the predictions were that were served lately: over the last 1,000 labels."""

    labels: int
    accuracy: float
    log_loss: float


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """What stands beside a model that is kept."""

    format: int = FORMAT
    version: str
    created_at: str
    checkpoint: int  # the batch
    epoch: int
    lineage: str
    model: str
    config: dict[str, Any]
    labels: list[str]
    labels_learned: int
    positions: Offsets
    feedback_offsets: dict[str, int]
    recent: Recent
    n_bytes: int
    sha256: str  # of model.safetensors

    def info(self) -> SnapshotInfo:
        """Return what stands beside a version that is served."""
        return SnapshotInfo(
            version=self.version,
            epoch=self.epoch,
            model=self.model,
            config=self.config,
            labels=self.labels,
            labels_learned=self.labels_learned,
            feedback_offsets=self.feedback_offsets,
            published_at=datetime.fromisoformat(self.created_at).timestamp(),
        )


_KEPT: Final = msgspec.json.Decoder(Kept)


class Pin(msgspec.Struct, frozen=True):
    """That a version is not to be dropped, and why."""

    name: str
    at: str


_PIN: Final = msgspec.json.Decoder(Pin)


class UnknownVersion(StateError):
    """No such version is kept."""


class Versions:
    """The kept models of a data directory. Any process, any thread; what changes something waits for the lock.

    Parameters
    ----------
    shared : other machines have the same ones: what `keep` drops is only marked, for who tells them (shared/)
    """

    def __init__(self, data: Path, *, shared: bool = False) -> None:
        self._choices, self._shared = Choices(data), shared
        self._kept = data / "snapshots" / KEPT

    def kept(self) -> list[Kept]:
        """Return those that are kept, newest first; damaged ones are left out."""
        found = []
        for path in self._kept.glob("*/manifest.json"):
            if not path.parent.name.startswith(durable.TEMPORARY):
                try:
                    found.append(self.get(path.parent.name))
                except StateError:
                    continue
        return sorted(found, key=lambda kept: (kept.checkpoint, kept.created_at), reverse=True)

    def get(self, version: str) -> Kept:
        """Return what is known of a version.

        Raises
        ------
        UnknownVersion : it is not kept.
        StateError : what is known of it cannot be read.
        """
        path = self._path(version) / "manifest.json"
        try:
            return decode_kept(path.read_bytes(), version)
        except FileNotFoundError:
            raise UnknownVersion(
                f"no snapshot of version {version!r} is kept; `driftline snapshots` lists those that are"
            ) from None
        except DAMAGES as error:
            raise StateError(f"snapshot {path} is damaged: {error!r}") from error

    def open(self, version: str, *, allow_pickle: bool = False) -> Snapshot:
        """Return a version as a model that answers, read whole and found to be what it was.

        Raises
        ------
        UnknownVersion : it is not kept.
        StateError : it is damaged.
        ConfigError : the model is of another library, and that was not allowed.
        """
        kept, path = self.get(version), self._path(version) / MODEL
        reader = FixedReader(path, kept.sha256, seal(msgspec.json.encode(kept.info())))
        return Snapshot(path, allow_pickle=allow_pickle, reader=reader)

    # What the learner does.

    def keep(
        self,
        checkpoint: Path,
        manifest: Manifest,
        recent: Recent,
        number: int,
        n_bytes: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep a checkpoint's model, and drop what is too much then.

        Parameters
        ----------
        number, n_bytes : of those that are neither pinned nor served, at most
        check : called before each change; what it raises prevents that

        Raises
        ------
        DiskFull, StateError : nothing was kept; another process has the lock.
        """
        version = f"{manifest.lineage}-{manifest.counts.updates}"
        with self._alone():
            check()
            durable.remove_partial(self._kept)
            if number and manifest.counts.updates and not self._path(version).exists():
                model = checkpoint / MODEL
                kept = Kept(
                    version=version,
                    created_at=manifest.created_at,
                    checkpoint=manifest.batch,
                    epoch=manifest.epoch,
                    lineage=manifest.lineage,
                    model=manifest.model,
                    config=manifest.config,
                    labels=manifest.labels,
                    labels_learned=manifest.counts.labels_learned,
                    positions=manifest.positions,
                    feedback_offsets=manifest.positions.get(manifest.rules.topics.feedback, {}),
                    recent=recent,
                    n_bytes=model.stat().st_size,
                    sha256=checkpoints.read_sums(checkpoint)[MODEL],
                )
                described = msgspec.json.format(msgspec.json.encode(kept), indent=1)
                durable.write_directory(
                    self._path(version), {"manifest.json": [described]}, {MODEL: model}, check=check
                )
            self._drop(number, n_bytes, check)

    def _drop(self, number: int, n_bytes: int, check: Callable[[], None]) -> None:
        held = self.pins().keys() | {self.active().version} | self.leaving()
        free = [kept for kept in self.kept() if kept.version not in held]
        while free and (len(free) > number or sum(kept.n_bytes for kept in free) > n_bytes):
            dropped = free.pop(least_needed([datetime.fromisoformat(kept.created_at).timestamp() for kept in free]))
            check()
            if self._shared:
                durable.replace(self._kept / (dropped.version + LEAVING), b"")
            else:
                durable.remove(self._path(dropped.version))

    # What several machines do, whose list is one: shared/.

    def leaving(self) -> set[str]:
        """Return which versions are to be dropped."""
        return {path.name.removesuffix(LEAVING) for path in self._kept.glob("*" + LEAVING)}

    def stay(self, version: str) -> None:
        """Have a version that was to be dropped stay."""
        durable.remove(self._kept / (version + LEAVING))

    def drop(self, version: str) -> None:
        """Keep a version no longer. Raises StateError."""
        with self._alone():
            durable.remove(self._path(version))
            self.stay(version)

    def list_one(self, kept: Kept) -> None:
        """Have a version in the list whose model lies elsewhere. Raises DiskFull, StateError."""
        with self._alone():
            self.stay(kept.version)
            if not self._path(kept.version).exists():
                described = msgspec.json.format(msgspec.json.encode(kept), indent=1)
                durable.write_directory(self._path(kept.version), {"manifest.json": [described]})

    def model_of(self, version: str) -> Path:
        """Return where a version's model lies on this disk, if it does."""
        return self._path(version) / MODEL

    def has_model(self, version: str) -> bool:
        """Tell whether it does."""
        return self.model_of(version).exists()

    def bring(self, kept: Kept, content: Parts) -> None:
        """Put a model beside what is known of it. Any number at once.

        Parameters
        ----------
        content : the file's; what it raises leaves nothing behind

        Raises
        ------
        UnknownVersion : it is not kept any more; DiskFull.
        """
        coming = self._kept / f"{COMING}{uuid4().hex}"
        try:
            durable.write_directory(coming, {MODEL: content})
            (coming / MODEL).replace(self._path(kept.version) / MODEL)
            durable.sync_directory(self._path(kept.version))
        except FileNotFoundError:
            self.get(kept.version)  # raises UnknownVersion
            raise
        finally:
            durable.remove(coming)

    def tidy(self) -> None:
        """Remove what processes that were killed were just bringing."""
        for path in self._kept.glob(COMING + "*"):
            durable.remove(path)

    def set_pin(self, version: str, pin: Pin | None) -> None:
        """Have a version pinned, or not. Raises DiskFull, StateError."""
        with self._alone():
            path = self._kept / (version + PINNED)
            if pin is None:
                durable.remove(path)
                durable.sync_directory(self._kept)
            elif self.pins().get(version) != pin:
                durable.remove(path)
                durable.AppendFile(path, msgspec.json.encode(pin)).close()

    def choose(self, active: Active) -> None:
        """Have a version served in the latest's place, or with None the latest. Raises DiskFull, StateError."""
        with self._alone():
            if self.active() != active:
                self._choices.choose(active)

    # What people do.

    def pins(self) -> dict[str, Pin]:
        """Return which versions are pinned."""
        found = {}
        for path in self._kept.glob("*" + PINNED):
            try:
                found[path.name.removesuffix(PINNED)] = _PIN.decode(path.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError:
                found[path.name.removesuffix(PINNED)] = Pin("", "")
        return found

    def pin(self, version: str, name: str = "") -> None:
        """Never drop a version. Raises UnknownVersion, and StateError where it is pinned already."""
        with self._alone():
            self.check_pin(version)
            durable.AppendFile(self._kept / (version + PINNED), msgspec.json.encode(Pin(name, _now()))).close()

    def check_pin(self, version: str) -> None:
        """Raise what `pin` would."""
        self.get(version)
        if version in self.pins():
            raise StateError(f"version {version} is pinned already; unpin it first to give it another name")

    def check_pinned(self, version: str) -> None:
        """Raise what `unpin` would."""
        if version not in self.pins():
            raise UnknownVersion(f"version {version!r} is not pinned")

    def unpin(self, version: str) -> None:
        """Let a version be dropped again. Raises UnknownVersion where it is not pinned."""
        with self._alone():
            self.check_pinned(version)
            durable.remove(self._kept / (version + PINNED))
            durable.sync_directory(self._kept)

    def activate(self, version: str, *, allow_pickle: bool = False) -> Kept:
        """Have a version served in the latest's place. Raises what `open` does; then nothing has changed."""
        with self._alone():
            self.open(version, allow_pickle=allow_pickle)  # 1
            self._choices.choose(Active(version, _now()))
        return self.get(version)

    def deactivate(self) -> None:
        """Have the latest served again."""
        with self._alone():
            if self.active().version is not None:
                self._choices.choose(Active(None, _now()))

    def active(self) -> Active:
        """Return which version is served."""
        return self._choices.active()

    def choice(self) -> str:
        """Return the name of the newest choice, another one for each; "" where there was never one."""
        return self._choices.newest()

    def _path(self, version: str) -> Path:
        if "/" in version or version.startswith(".") or not version or len(version) > 100 or "\0" in version:
            raise UnknownVersion(f"{version[:100]!r} is no version; one looks like 5f0c2a91-5574")
        return self._kept / version

    def _alone(self) -> AbstractContextManager[None]:
        durable.make_directory(self._kept)
        refusal = f"another process has held {self._kept / 'lock'} for {LOCK_S:g} s: see which it is"
        return alone(self._kept / "lock", refusal, LOCK_S)


def decode_kept(content: bytes, version: str) -> Kept:
    """Read what is known of a version. Raises StateError; ValueError: it is damaged."""
    kept = _KEPT.decode(content)
    if kept.version != version or kept.format != FORMAT:
        raise StateError(f"a snapshot of version {version!r} is of {kept.version!r} and format {kept.format}")
    return kept


def least_needed(times: list[float]) -> int:
    """Return which of some snapshots to drop, given when each was made, newest first.

    The one whose neighbours would lie closest together, measured by how long ago the older one was made: so those that
    stay lie the further apart the further back. The newest and the oldest stay longest.
    """
    if len(times) < 3:
        return len(times) - 1
    gaps = [(times[i - 1] - times[i + 1]) / max(times[0] - times[i + 1], 1.0) for i in range(1, len(times) - 1)]
    return 1 + gaps.index(min(gaps))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
