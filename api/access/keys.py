"""Whose request is this?

A key is 256 random bits behind a prefix that scanners for secrets can look for. It is shown once; kept is its SHA-256,
one line a key, which is no secret: in the data directory (`driftline keys`), in a file, or in a variable.

    sha256:<64 hexadecimal digits> <role> <name>

The file is looked at again at most once a second, so a key counts, or no longer does, within a second and without a
restart. Once there was a key there is always one needed, until a restart: a file that is damaged or gone opens nothing.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from driftline.api.settings import ApiSettings
from driftline.learner.disk import durable
from driftline.learner.disk.lock import alone
from driftline.stream.errors import ConfigError
from driftline.stream.join.quota import OPEN
from driftline.stream.process.log_lines import SECRET_PREFIX
from driftline.stream.process.settings import StreamSettings

SECRET_BYTES: Final = 32
MAX_KEYS: Final = 10_000
MAX_SENT_BYTES: Final = 256  # what is longer is no key, and not hashed
LOOK_S: Final = 1.0
LOCK_S: Final = 10.0
FILE: Final = "api-keys"
_NAME: Final = re.compile(r"[\w.@:+-]{1,64}", re.ASCII)
_LOG: Final = logging.getLogger(__name__)


class Role(IntEnum):
    """What a caller may do; each may do what those before it may."""

    OPEN = 0  # no key is asked for: whether the process is alive
    PREDICT = 1  # ask: predictions, explanations, what the model is
    LABEL = 2  # change what will be learned: messages, labels
    ADMIN = 3  # change what is served


class Key(NamedTuple):
    """A key as it is kept."""

    digest: bytes
    role: Role
    name: str

    def __str__(self) -> str:
        return f"sha256:{self.digest.hex()} {self.role.name.lower()} {self.name}"


def path_of(stream: StreamSettings, settings: ApiSettings) -> Path:
    """Return where the keys are kept."""
    return settings.keys_file or stream.data / FILE


def new_key(name: str, role: Role) -> tuple[str, Key]:
    """Return a secret, and what is kept of it. Raises ConfigError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r}: it must be 1 to 64 letters, digits or any of . _ - @ : +")
    if name == OPEN:
        raise ConfigError(f"key name {name!r}: so sources are called where no key is asked for; take another one")
    secret = SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return secret, Key(digest(secret.encode()), role, name)


def digest(sent: bytes) -> bytes:
    """Return what is kept of a secret. It has 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(sent).digest()


def named(key: Key | None, name: str | None) -> str | None:
    """Return who somebody is that calls himself a name: with a key that key's name, and his own behind it.

    So nobody passes for another key's owner; a name that is the key's already, or stands behind it, stays as it is.
    """
    if key is None:
        return name
    if not name or name == key.name or name.startswith(f"{key.name}/"):
        return name or key.name
    return f"{key.name}/{name}"


def parse(lines: Iterable[str], where: str) -> list[Key]:
    """Return the keys of some lines; empty ones and those that begin with # say nothing. Raises ConfigError."""
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        method, _, hexadecimal = words[0].partition(":")
        role = next((role for role in Role if role and len(words) == 3 and role.name.lower() == words[1]), None)
        if method != "sha256" or not re.fullmatch("[0-9a-f]{64}", hexadecimal) or role is None:
            raise ConfigError(
                f"{where}, line {number}: a key is `sha256:<64 hexadecimal digits> predict|label|admin <name>`, "
                "as `driftline keys add` writes it"
            )
        keys.append(Key(bytes.fromhex(hexadecimal), role, words[2]))
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"{where}: {len(keys)} keys, at most {MAX_KEYS} are taken")
    return keys


def read(path: Path) -> list[Key]:
    """Return the keys of a file; none where there is no file. Raises ConfigError."""
    try:
        return parse(path.read_text("utf-8").splitlines(), str(path))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the keys cannot be read: {error}") from None


class Keys:
    """The keys that count. On the event loop only.

    Parameters
    ----------
    path : the file, which need not be there
    given : lines, as in the file, that count whatever is in it

    Raises
    ------
    ConfigError : the file, or a line, is none of keys.
    """

    def __init__(self, path: Path, given: Sequence[str] = ()) -> None:
        self._path, self._given = path, parse(given, "api_keys")
        self._problem: str | None = None
        self._seen, self._next_look = self._stamp(), time.monotonic() + LOOK_S
        self._set(read(path))

    def needed(self) -> bool:
        """Tell whether a key is asked for. Looks at the file where that is due."""
        if time.monotonic() >= self._next_look:
            self._look()
        return self._needed

    def find(self, sent: bytes) -> Key | None:
        """Return the key that was sent, if it is one.

        What is looked up is a digest of what was sent: no one can choose that byte by byte, so the time that the
        lookup takes tells nothing. What it found is compared in constant time.
        """
        if len(sent) > MAX_SENT_BYTES:
            return None
        found = digest(sent)
        key = self._by_digest.get(found)
        return key if key is not None and hmac.compare_digest(key.digest, found) else None

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_S
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            if stamp is None:
                raise ConfigError(f"{self._path} is gone")
            self._set(read(self._path))
        except ConfigError as error:
            if str(error) != self._problem:
                _LOG.error("%s; the keys known before go on to count", error)
            self._problem = str(error)
            return
        self._seen, self._problem = stamp, None

    def _set(self, keys: list[Key]) -> None:
        self._by_digest = {key.digest: key for key in (*self._given, *keys)}
        self._needed = bool(self._by_digest) or getattr(self, "_needed", False)

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file does."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


@contextmanager
def changing(path: Path) -> Iterator[list[Key]]:
    """Give the keys of a file, to be changed; at the end of the block they are put in their place.

    Who comes meanwhile to change them waits, so that nobody takes back what another one did.

    Raises
    ------
    ConfigError : what is in the file is no keys; nothing was changed.
    StateError : another process has been changing them for LOCK_S.
    """
    durable.make_directory(path.parent)
    lock = path.with_name(path.name + ".lock")
    with alone(lock, f"{lock} has been held by another process for {LOCK_S:g} s: see which it is", LOCK_S):
        keys = read(path)
        yield keys
        save(path, keys)


def save(path: Path, keys: Sequence[Key]) -> None:
    """Put keys into a file, durably, in place of those in it; who may read it stays as it was. See `changing`."""
    durable.make_directory(path.parent)
    partial = path.with_name(durable.TEMPORARY + path.name)
    with durable.explained(path), partial.open("w", encoding="utf-8") as file:
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.write("".join(f"{key}\n" for key in keys))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    durable.sync_directory(path.parent)
