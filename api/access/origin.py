"""Did a page in somebody's browser send this, that nobody here made?

A page of any site can post to this machine's loopback address: what it sends would be learned. Browsers say which
origin sent a request, so one of another origin is refused unless it is allowed (CORS). Where no key is asked for,
the Host is looked at, too: a site can let its own name mean 127.0.0.1 (DNS rebinding) and be of the same origin. An
address, or a name without a dot, cannot be such a name.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import Response

from driftline.api.errors import ApiError

MAX_KNOWN: Final = 1000
PREFLIGHT_S: Final = 600
Head = Mapping[bytes, bytes]
Headers = list[tuple[bytes, bytes]]


class Origins:
    """Which origins and hosts are taken. On the event loop only."""

    def __init__(self, allowed: Sequence[str], hosts: Sequence[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower().encode("latin-1", "replace") for origin in allowed)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._known: set[bytes] = set()

    def check_origin(self, head: Head) -> None:
        """Raise ApiError (403) for a request that a page of another origin sent."""
        origin = head.get(b"origin")
        if origin is None or origin.lower() in self._allowed or origin.partition(b"://")[2] == head.get(b"host"):
            return
        raise ApiError(
            403,
            "cross-origin",
            f"a page of {_shown(origin)} sent this, which is another origin",
            "Ask from a page that this API serves, from a program, or allow the origin with --cors-origin.",
        )

    def check_host(self, head: Head) -> None:
        """Raise ApiError (421) for a name that a site could have given this machine."""
        host = head.get(b"host", b"")
        if host in self._known:
            return
        if not self._is_ours(host.decode("latin-1").lower()):
            raise ApiError(
                421,
                "unknown-host",
                f"this API does not know itself as {_shown(host)}",
                "Ask by address or as localhost, or name the host with --allowed-host; with API keys any name will do.",
            )
        if len(self._known) < MAX_KNOWN:
            self._known.add(host)

    def _is_ours(self, host: str) -> bool:
        name = host[: host.rfind(":")] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").rstrip(".")
        if "." not in name and ":" not in name:
            return True
        if name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def preflight(self, head: Head) -> Response | None:
        """Return the answer to a browser that asks with OPTIONS whether it may ask; None to every other one."""
        if b"access-control-request-method" not in head or b"origin" not in head:
            return None
        answer = Response(status_code=204)
        answer.raw_headers += self.shared(head)
        answer.raw_headers += [
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", b"authorization, content-type, x-api-key"),
            (b"access-control-max-age", b"%d" % PREFLIGHT_S),
        ]
        return answer

    def shared(self, head: Head) -> Headers:
        """Return the headers that let a page of an allowed origin read an answer."""
        origin = head.get(b"origin")
        if origin is None or origin.lower() not in self._allowed:
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


def _shown(value: bytes) -> str:
    return repr(value[:200].decode("latin-1"))
