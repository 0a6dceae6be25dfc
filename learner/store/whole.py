"""How is all that a learner has put into one file, and taken out again?

`driftline backup FILE` and `driftline restore FILE`. A tar of the data directory and of the embedded log, as they would
be had the machine lost power at one moment. A learner may be at work:

    1. with the log's lock on writing held, open the journals, then the newest checkpoint, then the rest: whatever the
       log says by then was in a journal before, and a checkpoint that came meanwhile has what its journal would have
    2. copy the log as it was at that moment, and see that the copy is whole
    3. write all of it into a file beside FILE, with each member's SHA-256 in the last one; read it again, and give it
       its name

So a learner that starts on what was restored goes on as after a crash: to the same model, with nothing lost or learned
twice. Kafka's topics are not in it. Nor is what a learner makes anew, or what is only for the moment.
"""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable, journal
from driftline.learner.disk.lock import Lock, alone, last_epoch
from driftline.learner.store.backup import LOCK, STATE, TRIES
from driftline.stream.errors import ConfigError, StateError, StoreDamaged
from driftline.stream.log.sqlite.copied import Frozen, frozen
from driftline.stream.log.sqlite.file import sqlite_path, wal_of
from driftline.stream.process.settings import StreamSettings

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
LOG: Final = "log.db"
# Beside checkpoint and journals: what people gave, or look at, and no learner makes anew.
OTHERS: Final = (
    "api-keys",
    "history",
    "review.json",
    "erased.jsonl",
    "erase/*",
    "snapshots/active-*",
    "snapshots/kept/**/*",
    "bases/**/*",
)
BLOCK: Final = 1 << 20
MODE: Final = 0o600

OnBytes = Callable[[int, int], None]


class Member(msgspec.Struct, frozen=True):
    """One file in it."""

    name: str
    bytes: int
    sha256: str


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is: its last member."""

    format: int = FORMAT
    created_at: str  # of the checkpoint
    batch: int
    epoch: int  # the last one that was announced
    model: str
    labels_learned: int
    batches_after: int  # applied after the checkpoint, in the journals
    log: str | None  # the embedded log is in it as this; null: it is Kafka's, and is not
    files: list[Member] = []

    @property
    def bytes(self) -> int:
        """How many all files have."""
        return sum(each.bytes for each in self.files)


_MANIFEST: Final = msgspec.json.Decoder(Whole)


class _Found(NamedTuple):
    """All that is to be in it, but for the log."""

    whole: Whole
    sources: "list[_Source]"
    sums: dict[str, str]  # SHA-256 of the checkpoint's files, as it says itself


class _Source(NamedTuple):
    """A file that was opened: it stays as it is until then, whoever deletes it meanwhile."""

    name: str
    file: IO[bytes]
    size: int


class _Hashing(io.RawIOBase):
    """A file that is read once, no further than it was, and hashed meanwhile."""

    def __init__(self, source: _Source, on_bytes: Callable[[int], None]) -> None:
        self._source, self._left, self._on_bytes = source.file, source.size, on_bytes
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        found = self._source.read(wanted)
        self._left -= len(found)
        self.hash.update(found)
        self._on_bytes(len(found))
        return found


def back_up_whole(stream: StreamSettings, target: Path, on_bytes: OnBytes = lambda *_: None) -> Whole:
    """Put a data directory and its embedded log into a file; a learner may be at work.

    Parameters
    ----------
    target : the file; one that ends with `.gz` is compressed
    on_bytes : called with how many were written, of how many

    Raises
    ------
    ConfigError : the file is there already.
    StateError : no learner has run there, or what it wrote is damaged; another backup is under way.
    DiskFull, LogUnavailable : it cannot be written, or the log not be read.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already: name another file, or move it away")
    if not stream.data.is_dir():
        raise StateError(f"{stream.data} is not there: name the learner's directory with --data")
    durable.make_directory(target.absolute().parent)
    partial = target.with_name(f"{durable.TEMPORARY}{target.name}")
    log_copy = target.with_name(f"{durable.TEMPORARY}{target.name}.log")
    with alone(stream.data / LOCK, f"another backup of {stream.data} is under way; wait for it"), ExitStack() as opened:
        for each in (partial, log_copy):
            opened.callback(durable.remove, each)
            durable.remove(each)  # one was killed
        with _as_it_is(stream, opened) as (found, log):
            if log is not None:
                log.copy(log_copy)
                found.sources.append(_source(LOG, log_copy, opened))
        with durable.explained(target):
            whole = _write(partial, found, on_bytes, is_packed=target.suffix == ".gz")
            durable.settle(partial)
        _read(partial, lambda _: None, expected=whole)
        partial.rename(target)
        durable.sync_directory(target.absolute().parent)
        return whole


def restore_whole(stream: StreamSettings, source: Path, on_bytes: OnBytes = lambda *_: None) -> Whole:
    """Take a backup out of its file, into a data directory and a log that are not there yet.

    Nothing counts before all of it was read and found whole.

    Raises
    ------
    ConfigError : the file is no backup, or it brings a log and another one was named.
    StateError : the directory has a learner's state, or a learner; or the log is there already.
    StoreDamaged : it is damaged.
    """
    log = sqlite_path(stream.log_url) if stream.log_url.startswith("sqlite:") else None
    data = stream.data
    with closing(Lock(data)) as lock:
        durable.remove_partial(data)
        if found := [name for name in STATE if any((data / name).glob("*"))]:
            raise StateError(
                f"{data} has a learner's state already ({', '.join(found)}): nothing was changed. Name an empty "
                "directory with --data; or stop the learner, move these away, and restore again"
            )
        if log is not None and (log.exists() or wal_of(log).exists()):
            raise StateError(
                f"{log} is there already: nothing was changed. Move it away, or name another log with --log"
            )
        staged = data / f"{durable.TEMPORARY}restored"
        try:
            with durable.explained(data):
                whole = _read(source, lambda n: on_bytes(n, source.stat().st_size), into=staged)
            if whole.log is not None and log is None:
                raise ConfigError(
                    f"{source} has the records of an embedded log, and {stream.log_shown} was named: leave --log away"
                )
            if whole.log is not None and log is not None:
                durable.make_directory(log.absolute().parent)
                _move(staged / whole.log, log)
            lock.announce(max(lock.last_epoch(), whole.epoch))
            for each in sorted(
                staged.iterdir(), key=lambda path: path.name == "checkpoints"
            ):  # what makes it count: last
                _move(each, data / each.name)
        finally:
            durable.remove(staged)
    return whole


@contextmanager
def _as_it_is(stream: StreamSettings, opened: ExitStack) -> Iterator[tuple[_Found, Frozen | None]]:
    """Open all that stands in the data directory at one moment, and give the log as it is then."""
    found: list[_Found] = []

    def look() -> None:
        found.append(_open_all(stream, opened))

    if not stream.log_url.startswith("sqlite:"):
        look()
        yield found[0], None
        return
    with frozen(sqlite_path(stream.log_url), look) as log:
        yield found[0], log


def _open_all(stream: StreamSettings, opened: ExitStack) -> _Found:
    data = stream.data
    journals = _open_those(data, ("journal/[0-9]*.journal",), opened)
    why = f"{data} holds no checkpoint: no learner has run there yet"
    for path in [path for _ in range(TRIES) for path in checkpoints.list_checkpoints(data / "checkpoints")]:
        try:
            manifest, sums = checkpoints.load_manifest(path), checkpoints.read_sums(path)
            found = [_source(f"checkpoints/{path.name}/{each.name}", each, opened) for each in sorted(path.iterdir())]
        except (StateError, FileNotFoundError) as error:  # damaged; or the learner has just let it go
            why = f"no checkpoint in {data} is whole: {error}"
            continue
        whole = Whole(
            created_at=manifest.created_at,
            batch=manifest.batch,
            epoch=max(last_epoch(data), manifest.epoch, journal.last_epoch(data / "journal")),
            model=manifest.model,
            labels_learned=manifest.counts.labels_learned,
            batches_after=len(journal.read_since(data / "journal", manifest.batch)),
            log=LOG if stream.log_url.startswith("sqlite:") else None,
        )
        sources = [*found, *journals, *_open_those(data, OTHERS, opened)]
        return _Found(whole, sources, {f"checkpoints/{path.name}/{name}": digest for name, digest in sums.items()})
    raise StateError(why)


def _open_those(data: Path, patterns: tuple[str, ...], opened: ExitStack) -> list[_Source]:
    """Open what is there of some kinds; what a learner deletes meanwhile is left out."""
    found = []
    for path in sorted({path for pattern in patterns for path in data.glob(pattern)}):
        relative = path.relative_to(data)
        if path.is_file() and not any(part.startswith(durable.TEMPORARY) for part in relative.parts):
            with suppress(FileNotFoundError):
                found.append(_source(str(PurePosixPath(relative)), path, opened))
    return found


def _source(name: str, path: Path, opened: ExitStack) -> _Source:
    file = opened.enter_context(path.open("rb"))
    return _Source(name, file, os.fstat(file.fileno()).st_size)


def _write(path: Path, found: _Found, on_bytes: OnBytes, *, is_packed: bool) -> Whole:
    """Write everything, and what it was; return that. Raises StateError where the checkpoint is damaged."""
    total, done = sum(each.size for each in found.sources), 0

    def note(n: int) -> None:
        nonlocal done
        done += n
        on_bytes(done, total)

    members = []
    with tarfile.open(path, "w:gz", compresslevel=1) if is_packed else tarfile.open(path, "w") as tar:
        for source in found.sources:
            reading = _Hashing(source, note)
            tar.addfile(_entry(source.name, source.size), reading)
            digest = reading.hash.hexdigest()
            if found.sums.get(source.name, digest) != digest:
                raise StateError(
                    f"{source.name} is damaged: nothing was written; `driftline verify` says what still is whole"
                )
            members.append(Member(source.name, source.size, digest))
        whole = msgspec.structs.replace(found.whole, files=members)
        content = msgspec.json.format(msgspec.json.encode(whole), indent=1)
        tar.addfile(_entry(MANIFEST, len(content)), io.BytesIO(content))
    return whole


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, MODE
    return entry


def _read(
    path: Path, on_bytes: Callable[[int], None], expected: Whole | None = None, into: Path | None = None
) -> Whole:
    """Read a backup from its beginning to its end, see that it is whole, and leave its files in a directory.

    Parameters
    ----------
    on_bytes : called with how many bytes of it were read
    expected : what it has to be; None: what it says itself
    into : a directory, made here; None: it is only read

    Raises
    ------
    ConfigError : it is no backup of Driftline's, or one of a newer version.
    StoreDamaged : it is damaged.
    """
    sums: dict[str, Member] = {}
    said: Whole | None = None
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as tar:
            for entry in tar:
                member = tar.extractfile(entry)
                if member is None or not _may_be(entry.name):
                    raise ConfigError(f"{path} is no backup of Driftline's: it has {entry.name!r}")
                if entry.name == MANIFEST:
                    said = _MANIFEST.decode(member.read())
                    continue
                sums[entry.name] = _take(entry.name, member, into)
                on_bytes(raw.tell())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, msgspec.DecodeError) as error:
        if not sums:
            raise ConfigError(f"{path} is no backup of Driftline's ({error}): name one, or an address") from None
        raise StoreDamaged(f"{path} is damaged or cut short ({error}); take another backup") from None
    if said is None:
        raise StoreDamaged(f"{path} is cut short: {MANIFEST}, its last member, is missing; take another backup")
    if said.format != FORMAT:
        raise ConfigError(f"{path} has format {said.format}, and this version reads {FORMAT}: take a newer version")
    whole = said if expected is None else expected
    if wrong := sorted({each.name for each in {*sums.values()} ^ {*whole.files}}):
        raise StoreDamaged(f"{path} is damaged: {', '.join(wrong[:3])}; take another backup")
    return whole


def _may_be(name: str) -> bool:
    """Tell whether a member lies where one of ours may: nothing leads out of the directory."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and ".." not in parts and "\0" not in name


def _take(name: str, member: IO[bytes], into: Path | None) -> Member:
    """Read a member, and write it where it is wanted; return what it is."""
    digest, size = hashlib.sha256(), 0
    with ExitStack() as stack:
        file = None
        if into is not None:
            place = into / name
            place.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(place, "xb", opener=_private))
        while block := member.read(BLOCK):
            digest.update(block)
            size += len(block)
            if file is not None:
                file.write(block)
        if file is not None:
            file.flush()
            os.fsync(file.fileno())
    return Member(name, size, digest.hexdigest())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)


def _move(source: Path, target: Path) -> None:
    """Give a file or a directory the name that it is for, durably; what is there already stays."""
    if source.is_dir() and target.is_dir():
        for each in sorted(source.iterdir()):
            _move(each, target / each.name)
    elif not target.exists():
        shutil.move(source, target)
        durable.sync_directory(target.absolute().parent)
