"""What does the first line of a request ask for?

RFC 9112, section 3.2: a path (origin-form), a whole URL (absolute-form, as a proxy is asked), or `*` (OPTIONS alone). A
whole URL says the host itself, and the Host header then does not count. CONNECT, which has only a host, is for proxies.
"""

from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

import httptools

MAX_KEPT: Final = 512
MAX_KEPT_BYTES: Final = 256
VERSIONS: Final = ("1.0", "1.1")


class NotAsked(ValueError):
    """What a first line says that no request here can say."""


class Target(NamedTuple):
    """What is asked for."""

    path: str
    raw_path: bytes
    query: bytes
    authority: bytes | None  # of a whole URL


def read_target(method: str, target: bytes) -> Target:
    """Return what is asked for. Raises NotAsked."""
    if len(target) <= MAX_KEPT_BYTES:
        return _read_again(method, target)
    return _read(method, target)


def _read(method: str, target: bytes) -> Target:
    if target == b"*" and method == "OPTIONS":
        return Target("*", b"*", b"", None)
    if method == "CONNECT":
        raise NotAsked("this is no proxy: CONNECT leads nowhere")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise NotAsked(f"{method} cannot ask for {_shown(target)}") from None
    if url.fragment is not None or url.userinfo is not None:
        raise NotAsked(f"{_shown(target)} has a part that is the client's own: # or @")
    authority = None
    if url.schema is not None:
        if url.schema.lower() not in (b"http", b"https"):
            raise NotAsked(f"{_shown(target)} is not asked over HTTP")
        authority = target[len(url.schema) + 3 :].partition(b"/")[0].partition(b"?")[0]
    elif not target.startswith(b"/"):
        raise NotAsked(f"{method} cannot ask for {_shown(target)}")
    raw = url.path or b"/"
    return Target(unquote(raw.decode("ascii")), raw, url.query or b"", authority)


_read_again: Final = lru_cache(MAX_KEPT)(_read)


def _shown(target: bytes) -> str:
    return repr(target[:200].decode("latin-1"))
