"""Where are the word vectors that a model scores with?

In what its settings name (source.py), and from then on in a file of our own (table.py): beside that, or in
~/.cache/driftline where that cannot be. One that is of another source, or damaged, is made again; where several
processes need one, the first makes it and the others wait. So nothing of it has to last, and it is not durable.py's
business. A file of our own may be named itself, where there is no room for both, or no text file.
"""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import BinaryIO, Final
from weakref import WeakValueDictionary

from driftline.learner.vectors.source import Source, opened_source
from driftline.learner.vectors.table import MAGIC, Table, map_file, read_head, write
from driftline.stream.errors import ConfigError, StateError

SUFFIX: Final = ".driftline"
PARTIAL: Final = ".writing-"
_LOG: Final = logging.getLogger(__name__)
_LOCK: Final = threading.Lock()
_OPEN: Final[WeakValueDictionary[tuple[int, ...], Table]] = WeakValueDictionary()


def check_vectors(name: str, sha256: str) -> None:
    """Refuse what cannot be meant. Raises ConfigError."""
    if "&" in name or "\n" in name:
        raise ConfigError(f"vectors={name!r}: no & and no end of a line can stand there; give the file another name")
    if sha256 and not name:
        raise ConfigError("vectors_sha256: it says which file `vectors` has to be, and there is none")
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ConfigError(f"vectors_sha256={sha256}: it must be 64 hexadecimal digits, as sha256sum gives them")


def open_table(name: str, sha256: str = "") -> Table | None:
    """Return the vectors in a file, the same object for the same file while somebody has it; None for no name.

    Parameters
    ----------
    name : of a source, or of a file of our own
    sha256 : of the source that a model has learned with; "": any

    Raises
    ------
    ConfigError : there is no such file, it is another one, or it cannot be read.
    """
    if not name:
        return None
    path = Path(name)
    with _LOCK:
        try:
            with opened_source(path) as source:
                table = _OPEN.get(source.key)
                if table is None:
                    table = _OPEN[source.key] = _open(path, source)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            why = f"{error.strerror} (from {Path.cwd()})" if isinstance(error, OSError) else error
            where = (isinstance(error, OSError) and error.filename) or path
            raise ConfigError(
                f"vectors: the file {where} cannot be read: {why}. A model scores and learns with its vectors for "
                "good: put it there, or begin another model without it"
            ) from error
    if sha256 not in ("", table.sha256):
        raise ConfigError(
            f"vectors: {path} is not the file that the model has learned with: that has the SHA-256 {sha256[:16]}, "
            f"this one {table.sha256[:16]}. Put that one there, or build the model anew with this one: "
            "`driftline rebuild --model`"
        )
    return table


def _open(path: Path, source: Source) -> Table:
    if source.files[0].read(len(MAGIC)) == MAGIC:
        try:
            return map_file(path)
        except StateError as error:
            raise ConfigError(f"vectors: {error}; copy it again, or name the text file that it was made of") from error
    own = _places(path)
    for place in own:
        if (table := _look(place, source)) is not None:
            return table
    failed = []
    for place in own:
        try:
            return _make(source, place)
        except OSError as error:
            failed.append(f"{place}: {error.strerror}")
    raise ConfigError(
        f"vectors: {path} has to be read into a file of our own, which cannot be written ({'; '.join(failed)}). Let "
        f"one of the two be written, or have {path.name}{SUFFIX} made elsewhere, and name that"
    )


def _places(path: Path) -> list[Path]:
    """Return where a file's own one may lie."""
    places = [path.with_name(path.name + SUFFIX)]
    name = hashlib.blake2b(os.fsencode(path.absolute()), digest_size=12).hexdigest()
    with suppress(RuntimeError):  # a user without a home
        places.append(Path.home() / ".cache" / "driftline" / f"vectors-{name}{SUFFIX}")
    return places


def _look(place: Path, source: Source) -> Table | None:
    """Return the vectors of a source from a file of our own; None where it is not there, not of it, or not whole."""
    try:
        with place.open("rb") as file:
            head = read_head(place, file)
        size, mtime_ns = source.stamp
        if head.size != size or (head.mtime_ns != mtime_ns and head.sha256 != source.sha256()):
            return None
        return map_file(place)
    except OSError:
        return None
    except StateError as error:
        _LOG.warning("%s; it is made again", error)
        return None


def _make(source: Source, place: Path) -> Table:
    """Read a source into a file of our own."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(PARTIAL + place.name)
    with _alone(partial) as out:
        table = _look(place, source)
        if table is None:  # no other process has made it meanwhile
            _LOG.warning("reading the word vectors in %s, once: up to a minute for a million words", source.name)
            out.truncate()
            write(source, out)
            partial.replace(place)
            return map_file(place)
    partial.unlink(missing_ok=True)
    return table


@contextmanager
def _alone(partial: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, once no other process is writing it; what fails leaves none."""
    while True:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as out:
            flock(out, LOCK_EX)
            if not _has_name(out, partial):  # that process has given it its final one
                continue
            try:
                yield out
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            return


def _has_name(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
