"""May this request come in, and which way does it go?

What stands before everything else, at every request, in this order:

    1. find the operation, by method and path, as the router would
    2. refuse what a page of another origin sent (origin.py)
    3. who asks: a key, or none (keys.py)? Is its role enough, and has it asked too often (rate.py)?
    4. answer: a `BareRoute` at once, everything else through FastAPI
    5. count; write a line, where that was asked for

FastAPI's own way (middleware, router, dependencies) costs several times what a prediction does. So a route that takes
the request as it is (`openapi.BareRoute`) is called from here: the same function that /docs describes.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from driftline.api import errors
from driftline.api.access.keys import Key, Keys, Role
from driftline.api.access.origin import Head, Origins
from driftline.api.access.rate import Rate, address_of
from driftline.api.access.security import Access, Rule
from driftline.api.errors import SAFE_HEADERS, ApiError, fault, no_http, refusal
from driftline.api.http.methods import allowed
from driftline.api.http.openapi import BareRoute
from driftline.api.proxies import Proxies, networks
from driftline.api.settings import ApiSettings
from driftline.api.shared.metrics import OTHER, Metrics

DOCS: Final = ("/docs", "/openapi.json", "/static-offline-docs")
GONE: Final = 499  # counted for a client that left before it was answered
ONCE: Final = (
    *(b"host", b"authorization", b"x-api-key", b"origin", b"content-length", b"content-encoding"),
    b"transfer-encoding",
)
AT_ONCE_DIGITS: Final = 4  # of a body's length: what is longer may have to wait for a thread
MAX_REMEMBERED: Final = 4096  # callers whose place in the table of rates is
MAX_SHOWN: Final = 200  # characters of a path
HOST: Final = re.compile(rb"[\w.~%!$&'()*+,;=-]{0,255}(?::\d{0,5})?|\[[\da-fA-F:.]{2,45}\](?::\d{0,5})?", re.ASCII)
CACHE: Final[bytes] = b"cache-control"
UNFRAMED: Final = [(b"content-security-policy", b"frame-ancestors 'none'"), (b"x-frame-options", b"DENY")]
_ACCESS: Final = logging.getLogger("driftline.access")


class _Operation(NamedTuple):
    """What is asked for: an operation of the API, or something else (a file, a page, nothing)."""

    name: str
    role: Role
    private: bool
    direct: Callable[[Request], Awaitable[Response]] | None
    at_once: Callable[[Head, bytes], Response | None] | None


class Gate:
    """The app that the server runs, around FastAPI's. On the event loop only.

    Parameters
    ----------
    admin_port : what is private is answered there only; None where there is no such port
    """

    def __init__(
        self,
        app: FastAPI,
        access: Access,
        keys: Keys,
        rate: Rate,
        metrics: Metrics,
        settings: ApiSettings,
        admin_port: int | None,
    ) -> None:
        self._app, self._keys, self._rate, self._metrics = app, keys, rate, metrics
        self._routes = [*app.routes, *access.routes]
        self._settings, self._admin_port = settings, admin_port
        self._proxies = Proxies(networks(settings.trusted_proxies))
        self._origins = Origins(settings.cors_origin, settings.allowed_host)
        self._exact = {(rule.method, rule.route.path): _operation(rule) for rule in access.rules}
        self._patterns = [(rule, _operation(rule)) for rule in access.rules if "{" in rule.route.path]
        self._names = {rule.route.path for rule in access.rules} | set(DOCS)
        self._private = {rule.route.path for rule in access.rules if rule.private}
        self._place_of_address = lru_cache(MAX_REMEMBERED)(lambda host: rate.place(address_of(host)))
        self._place_of_key = lru_cache(MAX_REMEMBERED)(lambda key: rate.place(key.digest))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._enter(scope)
        started, status = time.perf_counter(), GONE
        if scope["method"] == "HEAD":  # what GET gets, but for the body: the server leaves it out
            scope = {**scope, "method": "GET", "asked": "HEAD"}
        operation = self._find(scope)  # 1
        head = scope["head"] = dict(scope["headers"])
        try:
            try:
                if "admitted" not in scope:
                    self._admit(scope, head, operation)  # 2, 3
                scope["caller"] = self._caller(scope)
                if self._settings.root_path and scope["path"] == self._settings.root_path:
                    response = Response(status_code=308, headers={"location": f"{self._settings.root_path}/"})
                    response.raw_headers += SAFE_HEADERS
                elif operation.direct is None:  # 4
                    status = await self._through_fastapi(scope, receive, send, head)
                    return
                else:
                    response = await operation.direct(Request(scope, receive))
            except ApiError as error:
                response = refusal(error)
            except ClientDisconnect:
                return
            except asyncio.CancelledError:  # likewise
                response = refusal(errors.stopping())
            except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it has an answer)
                response = fault(scope, error)
            status = response.status_code
            if b"origin" in head:
                response.raw_headers += self._origins.shared(head)
            await response(scope, receive, send)
        finally:
            self._count(scope, operation, status, time.perf_counter() - started)  # 5

    def may_answer_at_once(self, scope: Scope) -> bool:
        """Tell whether a request, of which only the head is there, is worth asking `at_once` about."""
        self._enter(scope)
        operation = self._exact.get((scope["method"], scope["path"]))
        if operation is None or operation.at_once is None:
            return False
        head = scope["head"] = dict(scope["headers"])
        length = head.get(b"content-length")
        return length is not None and len(length) <= AT_ONCE_DIGITS and b"expect" not in head

    def at_once(self, scope: Scope, body: bytes) -> Response | None:
        """Answer a request whose body is there and small, if nothing has to be waited for.

        A task, and ASGI's messages to and from it, cost as much again as all that is done here. Where this returns
        None, nothing was done that `__call__` would do again.
        """
        operation = self._exact[scope["method"], scope["path"]]
        started, head = time.perf_counter(), scope["head"]
        try:
            self._admit(scope, head, operation)
            response = operation.at_once(head, body) if operation.at_once else None
            if response is None:
                scope["admitted"] = True
                return None
        except ApiError as error:
            response = refusal(error)
        except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it has an answer)
            response = fault(scope, error)
        if b"origin" in head:
            response.raw_headers += self._origins.shared(head)
        self._count(scope, operation, response.status_code, time.perf_counter() - started)
        return response

    def _enter(self, scope: Scope) -> None:
        """Take away the path at which a proxy has the API, where it left that to us; once."""
        root, path = self._settings.root_path, scope["path"]
        if root and scope["root_path"] != root:
            scope["root_path"] = root
            if path.startswith(root + "/"):
                scope["path"] = path[len(root) :]

    def _client(self, scope: Scope) -> str:
        """Return the address of who asks."""
        peer = str(scope["client"][0]) if scope["client"] else ""
        return self._proxies.client(peer, scope["headers"])

    def _caller(self, scope: Scope) -> bytes:
        """Return who asks, for what only so many may have: a key, or an address without one."""
        key: Key | None = scope.get("key")
        return key.digest if key is not None else address_of(self._client(scope))

    def _find(self, scope: Scope) -> _Operation:
        method, path = scope["method"], scope["path"]
        found = self._exact.get((method, path))
        if found is not None:
            return found
        name, private = path if path in self._names else OTHER, path in self._private or path.startswith(DOCS)
        for rule, operation in self._patterns:
            if rule.route.path_regex.match(path):
                if method == rule.method:
                    return operation
                name, private = operation.name, operation.private  # it does not answer this method
        return _Operation(name, Role.OPEN, private, None, None)

    def _admit(self, scope: Scope, head: Head, operation: _Operation) -> None:
        """Raise ApiError for a request that may not come in; note whose it is."""
        _check_head(scope, head)
        if operation.private and self._admin_port not in (None, scope["server"][1]):
            raise errors.not_found(scope["path"])
        self._origins.check_origin(head)
        if not self._keys.needed():
            self._origins.check_host(head)
            if operation.role > Role.OPEN and self._settings.rate_limit is not None:
                self._take_token(self._place_of_address(self._client(scope)))
        elif operation.role > Role.OPEN:
            key = scope["key"] = self._identify(scope, head)
            self._take_token(self._place_of_key(key))
            if key.role < operation.role:
                raise ApiError(
                    403,
                    "role",
                    f"the key {key.name!r} may {key.role.name.lower()}, and this needs {operation.role.name.lower()}",
                    "Use a key of that role; `driftline keys add NAME --role ...` makes one.",
                )

    def _identify(self, scope: Scope, head: Head) -> Key:
        """Return the key of a request. One without costs its address a token, so that trying is no use."""
        scheme, _, sent = head.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            sent = head.get(b"x-api-key", b"")
        sent = sent.strip()
        key = self._keys.find(sent)
        if key is not None:
            return key
        self._take_token(self._place_of_address(self._client(scope)))
        raise ApiError(
            401,
            "unknown-key" if sent else "no-key",
            "there is no such API key" if sent else "this needs an API key",
            "Send `Authorization: Bearer KEY` or `X-API-Key: KEY`; `driftline keys add NAME --role ROLE` makes one.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _take_token(self, place: int) -> None:
        wait_s = self._rate.wait_s(place)
        if wait_s:
            raise ApiError(
                429,
                "too-many-requests",
                "more requests came than --rate-limit lets one key, or one address without a key, make",
                f"Wait {wait_s:.3g} s, and send several items in one request.",
                {"Retry-After": str(math.ceil(wait_s))},
            )

    async def _through_fastapi(self, scope: Scope, receive: Receive, send: Send, head: Head) -> int:
        """Let FastAPI answer; return the status. Raises ApiError where it does not in time."""
        methods = allowed(self._routes, scope["path"])
        if scope["method"] == "OPTIONS" and methods:
            answer = self._origins.preflight(head) or Response(status_code=204, headers={"Allow": ", ".join(methods)})
            answer.raw_headers += SAFE_HEADERS
            await answer(scope, receive, send)
            return answer.status_code
        if methods and scope["method"] not in methods:
            raise errors.not_allowed(scope["path"], scope.get("asked", scope["method"]), ", ".join(methods))
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _made_safe(message.get("headers", ())) + self._origins.shared(head)
            await send(message)

        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                await self._app(scope, receive, watch)
        except TimeoutError:
            if status == 0:
                raise errors.too_long(self._settings.request_timeout_s) from None
        except asyncio.CancelledError:  # it took longer than a stop waits for (server.py, 4)
            if status == 0:
                raise errors.stopping() from None
        except Exception:  # FastAPI has told of it and answered before it let it go on
            if status == 0:
                raise
        return status or GONE

    def count_refused(self, status: int, client: tuple[str, int] | None) -> None:
        """Note what was refused before anybody knew what it was (protocol.py)."""
        self._metrics.count_request(OTHER, status, 0.0)
        if self._settings.access_log:
            fields = {"method": None, "path": None, "status": status, "client": client[0] if client else ""}
            _ACCESS.info("request", extra={"fields": fields})

    def _count(self, scope: Scope, operation: _Operation, status: int, seconds: float) -> None:
        self._metrics.count_request(operation.name, status, seconds)
        if self._settings.access_log:
            key: Key | None = scope.get("key")
            fields = {"method": scope["method"], "path": scope["path"][:MAX_SHOWN], "status": status}
            fields |= {"seconds": round(seconds, 6), "client": self._client(scope), "key": key.name if key else None}
            _ACCESS.info("request", extra={"fields": fields})


def _operation(rule: Rule) -> _Operation:
    direct = rule.route.endpoint if isinstance(rule.route, BareRoute) and "{" not in rule.route.path else None
    return _Operation(rule.route.path, rule.role, rule.private, direct, getattr(direct, "at_once", None))


def _made_safe(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers, and those that it lacks. A file that has a tag to be asked by may be kept."""
    made = list(headers)
    found = dict(made)
    made += [
        header for header in SAFE_HEADERS if header[0] not in found and (header[0] != CACHE or b"etag" not in found)
    ]
    if found.get(b"content-type", b"").startswith(b"text/html") and b"content-security-policy" not in found:
        made += UNFRAMED
    return made


def _check_head(scope: Scope, head: Head) -> None:
    """Refuse a head that could mean two things, or asks for what is not there (RFC 9112, sections 3.2, 6.1)."""
    what = None
    if len(head) < len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        twice = [name.decode() for name in ONCE if names.count(name) > 1]
        what = f"the header {twice[0]} stands there twice" if twice else None
    host = head.get(b"host")
    if host is None and scope["http_version"] != "1.0":
        what = "there is no Host header"
    elif host is not None and not HOST.fullmatch(host):
        what = "the Host header is no host"
    coding = head.get(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked":
            what = "the only transfer coding that is taken is chunked"
        elif scope["http_version"] == "1.0":
            what = "HTTP/1.0 has no transfer codings"
    if what is not None:
        raise no_http(what)
