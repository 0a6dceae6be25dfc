"""How does a checkpoint get into an object store, and out of it again, whole or not at all?

To put one:

    1. see that it is not there already, nor any of a later learner
    2. put its files as they lie on the disk, below a name that nobody else puts anything; each is compared with its sum
       while it is read
    3. see that they are still there, and put the object that names them where there is none: from here on it counts
       (stored.py)

Broken off before 3 nothing counts, and who tries again begins anew; the files that are left go with the next `prune`.
To fetch one, each file is compared with its sum while it comes in, and the directory appears when all are durable. No
file is held in memory whole that is larger than PIECE_BYTES.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import Manifest
from driftline.learner.store import address, stored
from driftline.learner.store.address import explained
from driftline.learner.store.stored import SUMS, Name, Stored, StoredFile
from driftline.stream.errors import StateError, StoreDamaged, StoreTaken
from driftline.stream.words import counted

PIECE_BYTES: Final = 8 << 20  # sent or fetched with one request
READ_BYTES: Final = 1 << 20
AT_ONCE: Final = 2  # pieces of a file that are on their way
TRIES: Final = 3
MODEL: Final = "model.safetensors"
_LOG: Final = logging.getLogger(__name__)
_MANIFEST: Final = msgspec.json.Decoder(Manifest)


class CheckpointStore:
    """The checkpoints of one model, in an object store. Any number of processes.

    One thread at a time for `put` and `prune`, any for the rest.

    Parameters
    ----------
    url : `address.FORMS` has what it may be

    Attributes
    ----------
    where : the URL, as anybody may see it

    Raises
    ------
    ConfigError : the URL cannot be meant, or what opens it is not installed.
    StoreUnavailable : from any method: it does not answer, or (StoreDenied) refuses.
    """

    def __init__(self, url: str) -> None:
        self.where = address.shown(url).rstrip("/")
        self._store = address.open_store(url)
        self._root = address.local_root(self._store)
        self._attempt = uuid4().hex  # of all that is put from here

    # What there is.

    def names(self) -> list[Name]:
        """Return which checkpoints count, newest first, without a look at any of them."""
        names = map(stored.name_of, self.keys(stored.CHECKPOINTS))
        return sorted((name for name in names if name is not None), reverse=True)

    def keys(self, prefix: str) -> list[str]:
        """Return the objects below a prefix that ends with a /."""
        with explained(self.where, f"listing {prefix}"):
            return [each["path"] for page in self._store.list(prefix) for each in page]

    def copy(self, key: str, to: str) -> None:
        """Copy an object inside of the store. Raises FileNotFoundError."""
        with explained(self.where, f"copying {key}"):
            self._store.copy(key, to)

    def read(self, name: Name) -> Stored | None:
        """Return a checkpoint by its name; None where there is none that can be read."""
        return next(self._readable([name]), None)

    def checkpoints(self) -> list[Stored]:
        """Return the checkpoints that count, newest first; one that cannot be read is told of, and left out."""
        return list(self._readable(self.names()))

    def newest(self) -> Stored | None:
        """Return the newest; None where there is none that can be read."""
        return next(self._readable(self.names()), None)

    def manifest(self, checkpoint: Stored) -> Manifest:
        """Return a checkpoint's own manifest. Raises StoreDamaged."""
        content = b"".join(self._pieces(checkpoint, "manifest.json"))
        try:
            return _MANIFEST.decode(content)
        except (ValueError, RecursionError) as error:
            raise StoreDamaged(f"{self._said(checkpoint)}: its manifest cannot be read: {error!r}") from None

    def newest_manifest(self) -> tuple[Stored, Manifest] | None:
        """Return the newest whose manifest is whole; None where there is none."""
        return self._first(self._readable(self.names()))

    # In.

    def put(self, path: Path, check: Callable[[], None] = lambda: None) -> Stored:
        """Put a checkpoint of the disk there, and return it once it counts; one that is there already is fine.

        Parameters
        ----------
        check : called between pieces and before it counts; what it raises breaks it off

        Raises
        ------
        StateError, OSError : it is damaged, or gone.
        StoreTaken : the newest one there is of a later epoch, or of another learner of this one.
        """
        try:
            sums = checkpoints.read_sums(path)
        except OSError as error:
            raise StateError(f"checkpoint {path} is damaged or gone: {error!r}") from None
        manifest = checkpoints.load_manifest(path)
        name = Name(manifest.epoch, manifest.batch)
        if (there := self._same(name, sums)) is not None:  # 1
            return there
        self._check_others(name, manifest)
        directory, files = stored.directory_of(name, self._attempt), {}
        for file in stored.names_of(path, sums):  # 2
            check()
            files[file.name] = self.put_file(file, directory + file.name, sums.get(file.name), check)
        made = stored.describe(manifest, self._attempt, files)
        check()
        try:
            self._settle(directory)
            self._check_there(directory)
        except FileNotFoundError:  # others have pruned what was just put
            if (there := self._same(name, sums)) is not None:  # another attempt of the same one was faster
                return there
            raise StoreTaken(f"{self.where} has newer checkpoints by now: this one was deleted as it came in") from None
        if not self._put_new(name.key, msgspec.json.format(msgspec.json.encode(made), indent=1)):  # 3
            there = self._same(name, sums)
            if there is not None and there.attempt != self._attempt:  # else the first of two tries had come through
                self._drop(directory)
            return there or made
        self._settle(stored.CHECKPOINTS)
        return made

    def _same(self, name: Name, sums: dict[str, str]) -> Stored | None:
        """Return the checkpoint of this name, None where there is none. Raises StoreTaken where it is another one."""
        try:
            there = self._read(name)
        except FileNotFoundError:
            return None
        if {file: there.files[file].sha256 for file in there.files if file != SUMS} != sums:
            raise self._taken(there)
        return there

    def _check_others(self, name: Name, manifest: Manifest) -> None:
        """Raise StoreTaken where the newest checkpoint is a later learner's, or one's that began as this one did.

        Of those that share a journal each has an epoch of its own, and in that its first label begins a new lineage.
        """
        newest = next(iter(self.names()), name)
        if newest.epoch > name.epoch:
            raise StoreTaken(
                f"{self.where} has checkpoints of a later learner (epoch {newest.epoch}, batch {newest.batch}); this "
                f"one is of epoch {name.epoch}: nothing is put there. Go on from that one (`driftline restore`, or an "
                "empty --data directory), or name another place with --checkpoints"
            )
        alike = newest.epoch == name.epoch and manifest.journal is None
        for there in self._readable([newest] if alike else []):
            if there.lineage != manifest.lineage and there.attempt != self._attempt:
                raise self._taken(there)

    def _taken(self, there: Stored) -> StoreTaken:
        return StoreTaken(
            f"{self._said(there)} is of another learner: two that went on from one checkpoint need a place each; "
            "name another one with --checkpoints"
        )

    def _check_there(self, directory: str) -> None:
        """Raise FileNotFoundError where others have pruned what was just put."""
        with explained(self.where, "looking at what was put"):
            self._store.head(directory + SUMS)

    def put_file(self, path: Path, key: str, expected: str | None, check: Callable[[], None]) -> StoredFile:
        """Put a file there while its sum is made; it is there whole, or not. Raises StateError: the sum is another."""
        digest, size = hashlib.sha256(), 0

        def pieces() -> Iterator[bytes]:
            nonlocal size
            with path.open("rb") as file:
                while piece := file.read(READ_BYTES):
                    check()
                    digest.update(piece)
                    size += len(piece)
                    yield piece
            if expected is not None and digest.hexdigest() != expected:  # before it is whole there
                raise StateError(f"checkpoint {path.parent} is damaged: {path.name} does not have its SHA-256")

        small = path.stat().st_size <= PIECE_BYTES
        with explained(self.where, f"putting {path.name}"):
            self._store.put(
                key,
                b"".join(pieces()) if small else pieces(),
                use_multipart=not small,
                chunk_size=PIECE_BYTES,
                max_concurrency=AT_ONCE,
            )
        return StoredFile(size, digest.hexdigest())

    def _put_new(self, key: str, content: bytes) -> bool:
        """Put an object where there is none; tell whether it was put."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        try:
            with explained(self.where, f"putting {key}"):
                self._store.put(key, content, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def _settle(self, directory: str) -> None:
        """Return once what was put is on the disk, where the store is one: others do so themselves.

        Raises FileNotFoundError: it is gone.
        """
        if self._root is not None:
            for path in (self._root / directory).iterdir():
                with suppress(FileNotFoundError):  # of another attempt at the same moment
                    durable.settle(path)
            for path in (self._root / directory, (self._root / directory).parent, self._root):
                durable.sync_directory(path)

    # Out.

    def fetch(self, checkpoint: Stored, into: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Path:
        """Have a checkpoint in a directory of checkpoints, and return where, once it is durable.

        Parameters
        ----------
        into : nobody else may be fetching into it
        on_bytes : called with how many came in since the last call

        Raises
        ------
        StoreDamaged : a file is missing, or not what it was; nothing is there.
        StateError : another checkpoint of this batch is there; DiskFull: there is no room.
        """
        return self._fetch(checkpoint, into, list(checkpoint.files), on_bytes)

    def fetch_newest(
        self, into: Path, on_bytes: Callable[[Stored, int], None] = lambda *_: None
    ) -> tuple[Stored, Path] | None:
        """Fetch the newest that is whole, and return it and where it is: one that is not is told of and passed over.

        None where there is none at all.

        Raises
        ------
        StoreDamaged : there are some, and none can be read. Else as `fetch`.
        """
        names: list[Name] = []
        for _ in range(TRIES):
            before, names = names, self.names()
            if names == before:
                break
            for each in self._readable(names):  # while the older ones are tried, others may come and go
                try:
                    return each, self.fetch(each, into, partial(on_bytes, each))
                except StoreDamaged as error:
                    _LOG.error("%s; taking the one before", error)
        if names:
            raise StoreDamaged(f"none of {counted(len(names), 'checkpoint')} in {self.where} can be read")
        return None

    def fetch_model(self, checkpoint: Stored, into: Path) -> tuple[Manifest, Path]:
        """Have no more than a checkpoint's model and its manifest in a directory; return that and where the model is.

        Raises as `fetch`.
        """
        path = self._fetch(checkpoint, into, [MODEL, "manifest.json", SUMS])
        return checkpoints.load_manifest(path), path / MODEL

    def _fetch(
        self, checkpoint: Stored, into: Path, names: list[str], on_bytes: Callable[[int], None] = lambda _: None
    ) -> Path:
        path = checkpoints.path_of(into, checkpoint.batch)
        files = {name: self._pieces(checkpoint, name, on_bytes) for name in names}
        try:
            durable.write_directory(path, files, mark="-fetched")
        except FileExistsError:
            sums = (path / SUMS).read_bytes() if (path / SUMS).exists() else b""
            if hashlib.sha256(sums).hexdigest() != checkpoint.files[SUMS].sha256:
                raise StateError(f"{path} is there already, and is not {self._said(checkpoint)}") from None
        return path

    def _pieces(
        self, checkpoint: Stored, name: str, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Iterator[bytes]:
        """Give a file of a checkpoint, piece by piece. Raises StoreDamaged, at the end at the latest."""
        said = f"{self._said(checkpoint)}: its {name}"
        if name not in checkpoint.files:
            raise StoreDamaged(f"{said} is not there")
        yield from self.pieces(checkpoint.directory + name, checkpoint.files[name], said, on_bytes)

    def pieces(
        self, key: str, expected: StoredFile, said: str, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Iterator[bytes]:
        """Give a file, piece by piece; `said` is what people call it. Raises StoreDamaged, at the end at the latest."""
        digest, at = hashlib.sha256(), 0
        try:
            with explained(self.where, f"reading {key}"):
                size = self._store.head(key)["size"]
            while at < min(size, expected.bytes):
                end = min(at + PIECE_BYTES, size, expected.bytes)
                with explained(self.where, f"reading {key}"):
                    piece = bytes(self._store.get_range(key, start=at, end=end))
                digest.update(piece)
                at += len(piece)
                on_bytes(len(piece))
                yield piece
        except FileNotFoundError:
            raise StoreDamaged(f"{said} is not there") from None
        if (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
            raise StoreDamaged(f"{said} is not what was put there")

    def _read(self, name: Name) -> Stored:
        """Return what is said of a checkpoint. Raises StoreDamaged, FileNotFoundError."""
        with explained(self.where, f"reading {name.key}"):
            content = bytes(self._store.get(name.key).bytes())
        return stored.decode(content, name, self.where)

    def _readable(self, names: list[Name]) -> Iterator[Stored]:
        for name in names:
            try:
                yield self._read(name)
            except StoreDamaged as error:
                _LOG.error("%s; it is passed over", error)
            except FileNotFoundError:
                continue  # it was pruned just now

    def _first(self, found: Iterator[Stored]) -> tuple[Stored, Manifest] | None:
        """Return the first whose manifest is whole, with it."""
        for each in found:
            try:
                return each, self.manifest(each)
            except StoreDamaged as error:
                _LOG.error("%s; it is passed over", error)
        return None

    # Away.

    def prune(self, keep: int) -> tuple[Stored, Manifest] | None:
        """Delete all but the newest checkpoints, and what was left of attempts; return the oldest that stays.

        Where something was erased before the newest one, those from before that go too: they have it.
        """
        names = self.names()
        found = list(self._readable(names[:keep]))
        erased = max((each.erased for each in found), default=0)
        kept = [each for each in found if each.erased == erased]
        unread = set(names[:keep]) - {each.name for each in found}
        staying = {each.name for each in kept} | unread
        for name in names:
            if name not in staying:
                self.delete(name.key)  # first: without it the files count for nobody
        self._drop_attempts({each.name: each.directory for each in kept}, staying)
        return self._first(reversed(kept))

    def _drop_attempts(self, directories: dict[Name, str], staying: set[Name]) -> None:
        """Delete the files of attempts that count no more, or never will: older ones, of overtaken learners, our own.

        One that another process of the same epoch may be at stays: a backup beside a learner.
        """
        oldest, newest = min(staying, default=Name(0, 0)), max(staying, default=Name(0, 0))
        with explained(self.where, "listing files"):
            found = self._store.list_with_delimiter(stored.FILES)["common_prefixes"]
        for directory in (each.rstrip("/") + "/" for each in found):
            name = stored.name_of(directory)
            if name is None or name in staying - directories.keys() or directory in directories.values():
                continue
            own = directory == stored.directory_of(name, self._attempt)
            if own or name < oldest or name.epoch < newest.epoch or name in directories:
                self._drop(directory)

    def _drop(self, directory: str) -> None:
        """Delete an attempt's files."""
        with explained(self.where, "listing files"):
            paths = [each["path"] for page in self._store.list(directory) for each in page]
        for path in sorted(paths):  # the sums first: whoever puts it sees that it is gone (`put`, 3)
            self.delete(path)
        if self._root is not None:  # what a process that was killed was just writing is not listed
            durable.remove(self._root / directory)

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is fine."""
        with suppress(FileNotFoundError), explained(self.where, f"deleting {key}"):
            self._store.delete(key)

    def _said(self, checkpoint: Stored) -> str:
        return f"checkpoint {checkpoint.batch} of epoch {checkpoint.epoch} in {self.where}"
