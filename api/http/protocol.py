"""What does a connection let a client do?

httptools parses (it refuses a request that could be read as two; h11 took a smuggled one), uvicorn's cycle speaks ASGI;
what stands between is here, and differs from uvicorn's own in this:

- A head has a limit, and so has each line behind it; the parser takes any.
- A client that owes something (a head, the rest of a body) or does not read its answer is closed in time. One look a
  second over all connections does that: a timer for each request would cost as much as its prediction.
- Connections have a limit. Beyond it, that client goes that has kept the API waiting longest; a request that is being
  answered is never given up for another one.
- What is refused here has the API's shape, too.
- Each request has one answer, and the same wherever the network cuts what a client sends. What is no HTTP is refused
  once what came before it is answered; behind a last request nothing is read any more; what stands in a trailer says
  nothing. (tests/api/http/test_cuts.py)
- An offer to speak another protocol (Java's client makes one at its first request) is passed over, as RFC 9110, 7.8
  has it. The parser would take the body for that other protocol.
- A small request whose answer has to wait for nothing is answered as soon as its last byte is there, without a task
  and without ASGI's messages (gate.py).
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sized
from itertools import islice
from typing import Any, Final

import httptools
from fastapi import Response
from starlette.types import Scope
from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.flow_control import CLOSE_HEADER, HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from driftline.api.errors import SAFE_HEADERS, ApiError, encode, internal, no_http
from driftline.api.http.target import VERSIONS, NotAsked, Target, read_target
from driftline.api.load.holding import STEP_BYTES

MAX_HEAD_BYTES: Final = 64 << 10
MAX_LINE_BYTES: Final = 256 << 10  # that the parser holds of a line which goes on; more than one read brings
MAX_AT_ONCE: Final = 100  # requests that one client sent together; then others have their turn
MAX_LOOKS: Final = 16  # at connections, for one that may be closed
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_LOG: Final = logging.getLogger(__name__)
_SAFE: Final = b"".join(b"%s: %s\r\n" % header for header in SAFE_HEADERS)


class Protocol(HttpToolsProtocol):
    """One connection. The limits are set by `limited`."""

    max_connections = 1000
    receive_timeout_s = 10.0
    keep_alive_s = 75.0
    waiting: "OrderedDict[Protocol, None]"  # those whose clients are waited for, the longest first

    _begun = False  # something of a request is there that has no answer yet
    _in_head = False
    _head_bytes = 0  # of names, values and the target, in a head and in a trailer
    _body_bytes = 0  # since the client was last seen to get on
    _n_at_once = 0  # requests answered at once of what came last
    _line_bytes = 0  # that came since the parser last had something to say
    _owes_since = 0.0  # from when on the client is waited for, if it is
    _was_answered = False  # before: it may ask again
    _full_since: float | None = None  # from when on it has not read what was sent

    _is_over = False  # nothing that still comes is looked at
    _refusal: ApiError | None = None  # what it is told once all that came before is answered

    _running: RequestResponseCycle | None = None  # the request that the last task is about
    _short: Scope | None = None  # a request that needs no task, perhaps, once its body is there
    _short_body = b""
    _target: Target
    _short_keeps = True  # the connection goes on behind it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of another one where there are too many."""
        if len(self.connections) >= self.max_connections and not self._make_room():
            self.transport = transport
            self._refuse(ApiError(503, "busy", "too many requests are being answered", "Try again shortly."))
            return
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        if self.flow is None:  # it was not taken
            return
        self.waiting.pop(self, None)
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Finish what was begun, and close."""
        self._short_keeps = False
        if self._short is None:
            super().shutdown()

    def _make_room(self) -> bool:
        for longest in list(islice(self.waiting, MAX_LOOKS)):
            if longest.is_waited_for():
                longest.transport.abort()
                self.connections.discard(longest)
                del self.waiting[longest]
                return True
        return False

    def _wait_for_client(self) -> None:
        """Note that from now on it is the client's turn."""
        self._owes_since = time.monotonic()
        self.waiting[self] = None
        self.waiting.move_to_end(self)

    def is_waited_for(self) -> bool:
        """Tell whether the client has to send something before anything more can happen."""
        return not self._is_over and not self.flow.read_paused and self._is_clients_turn()

    def _is_clients_turn(self) -> bool:
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def look(self, now: float) -> None:
        """Close the connection where the client has taken too long. About once a second."""
        if self._full_since is not None and now - self._full_since > self.receive_timeout_s:
            self.transport.abort()
            return
        if not self.is_waited_for():
            return
        waited_s = now - self._owes_since
        if not self._begun:
            if waited_s > (self.keep_alive_s if self._was_answered else self.receive_timeout_s):
                self.transport.close()
        elif waited_s > self.receive_timeout_s:
            if self.cycle is not None and self.cycle.response_started and self.cycle.more_body:
                self.transport.close()
            else:
                text = (
                    f"the request, or {STEP_BYTES} more bytes of it, did not come within {self.receive_timeout_s:g} s"
                )
                self._refuse(ApiError(408, "too-slow", text, "Send it again, in smaller requests."))

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._full_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read on."""
        self._full_since = None
        super().resume_writing()

    # What comes.

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._is_over or self.transport.is_closing():
            return
        was_begun, self._n_at_once = self._begun, 0
        self._line_bytes += len(data)  # until the parser has something to say
        rest: bytes | memoryview = data
        while rest:
            try:
                self.parser.feed_data(rest)
                if self._line_bytes > MAX_LINE_BYTES:
                    raise _too_large(MAX_LINE_BYTES)
                break
            except httptools.HttpParserUpgrade as offer:
                rest = memoryview(rest)[offer.args[0] :]
                self._pass_over()
            except (httptools.HttpParserError, ApiError) as error:
                self._break(error)
                break
        if self._begun and not was_begun and self._is_clients_turn():
            self._wait_for_client()

    def _pass_over(self) -> None:
        """Go on behind a head that offers another protocol: with a parser that did not hear the offer."""
        again = _Again(self)
        self.parser = httptools.HttpRequestParser(again)
        framing = b"".join(b"%s: %s\r\n" % each for each in self.headers if each[0] in _FRAMING)
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        except httptools.HttpParserError as error:
            self._break(error)
        again.is_again = False

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._is_over:
            raise no_http("there is something behind the last request")
        self._begun = self._in_head = True
        self._head_bytes = self._body_bytes = 0
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """A part of the target is there."""
        self.url += url
        self._line_bytes = 0
        self._head_bytes += len(url)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _too_large(MAX_HEAD_BYTES)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there, or a line of a trailer, which never says what a head has to say (RFC 9110, 6.5.1)."""
        self._line_bytes = 0
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _too_large(MAX_HEAD_BYTES)
        if self._in_head:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        parser = self.parser
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        if version not in VERSIONS:
            raise no_http(f"HTTP/{version} is not spoken here")
        try:
            target = read_target(method, self.url)
        except NotAsked as error:
            raise no_http(str(error)) from None
        if target.authority is not None:
            self.headers = [(name, target.authority if name == b"host" else value) for name, value in self.headers]
        scope: Scope = {
            "type": "http",
            "http_version": version,
            "method": method,
            "path": target.path,
            "root_path": self.root_path,
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
        }
        keeps = version == "1.1" and parser.should_keep_alive()
        last = self.cycle
        if (
            (last is None or last.response_complete)
            and not self.flow.write_paused
            and self.app.may_answer_at_once(scope)
        ):
            self._short, self._short_body, self._short_keeps, self._target = scope, b"", keeps, target
        else:
            self._begin(self._make_cycle(scope, target, keeps))

    def on_body(self, body: bytes) -> None:
        """A part of a body is there. The longer it is, the longer it may take: STEP_BYTES in `receive_timeout_s`."""
        self._line_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes >= STEP_BYTES:
            self._body_bytes = 0
            self._wait_for_client()
        if self._short is not None:
            self._short_body += body
            return
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self.parser.should_upgrade():  # its body is still to come: see `_feed`
            return
        scope, self._short = self._short, None
        if scope is None:
            self._end(self.cycle)
            return
        self._n_at_once += 1
        response = self.app.at_once(scope, self._short_body) if self._n_at_once <= MAX_AT_ONCE else None
        if response is not None:
            self._write(response, self._short_keeps)
            return
        cycle = self._make_cycle(scope, self._target, self._short_keeps)
        cycle.body += self._short_body
        self._begin(cycle)
        self._end(cycle)

    def _end(self, cycle: RequestResponseCycle) -> None:
        """Note that all of a request has come."""
        self._is_over = not cycle.keep_alive
        cycle.more_body = False
        cycle.message_event.set()
        if cycle.response_complete:  # it was refused before
            self._begun = False
        else:
            self.waiting.pop(self, None)

    # What is answered.

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_cycle(self, scope: Scope, target: Target, keeps: bool) -> "_Cycle":
        scope.update(raw_path=target.raw_path, query_string=target.query, scheme=self.scheme)
        scope.update(asgi={"version": self.asgi_version, "spec_version": "2.3"}, state=self.app_state.copy())
        expects = (value.lower() == b"100-continue" for name, value in scope["headers"] if name == b"expect")
        return _Cycle(
            scope=scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=scope["http_version"] != "1.0" and any(expects),
            keep_alive=keeps,
            on_response=self.on_response_complete,
        )

    def _begin(self, cycle: RequestResponseCycle) -> None:
        """Have a task answer a request, once those before it are answered."""
        waits, self.cycle = self._is_answering(), cycle
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _write(self, response: Response, keeps: bool) -> None:
        """Do what ASGI's two messages of an answer do."""
        lines = [STATUS_LINE[response.status_code]]
        for name, value in self.server_state.default_headers + response.raw_headers:
            lines += name, b": ", value, b"\r\n"
        if CLOSE_HEADER in response.raw_headers:
            keeps = False
        elif not keeps:
            lines.append(b"connection: close\r\n")
        lines += b"\r\n", bytes(response.body)
        self.transport.write(b"".join(lines))
        if not keeps:
            self._is_over = True
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """An answer is on its way: go on with the next request, which is there already or waited for.

        uvicorn's own sets a timer here and takes it back at the next request; `look` does without.
        """
        self._was_answered = True
        self._begun = self._in_head or (self.cycle is not None and self.cycle.more_body)
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._refuse(self._refusal)
            return
        elif self._is_over:
            self.transport.close()
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._is_clients_turn():
            self._wait_for_client()

    # What is refused.

    def _break(self, error: Exception) -> None:
        """Take nothing more, since it cannot be read; say so once what came before is answered.

        The request in whose body that is has one answer, this one or what its head alone had it get.
        """
        if self._is_over:
            return
        self._is_over = True
        refusal, cycle = _refusal(error), self.cycle
        if cycle is not None and cycle.more_body:
            if cycle.response_complete:
                self.transport.close()
            else:
                cycle.fault = refusal  # type: ignore[attr-defined]
                cycle.message_event.set()
        elif self._is_answering():
            self._refusal = refusal
            self.flow.pause_reading()
        else:
            self._refuse(refusal)

    def _refuse(self, error: ApiError) -> None:
        self._is_over = True
        content = encode(error.error)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(content)
        self.transport.write(STATUS_LINE[error.status] + _SAFE + head + b"\r\n" + content)
        self.transport.close()
        self.app.count_refused(error.status, self.client)


class _Cycle(RequestResponseCycle):
    """A request that a task answers."""

    fault: ApiError | None = None  # what is wrong with the rest of its body

    async def receive(self) -> ASGIReceiveEvent:
        """Return what came of the body. Raises ApiError behind the last that could be read."""
        if self.fault is None or self.body:
            message = await super().receive()
            if self.fault is None or message["type"] != "http.request" or message["body"]:
                return message
        raise self.fault


class _Flow(FlowControl):
    """Reads on only once no request waits for another one's answer: else all that a client sends would wait here."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class _Again:
    """Hears a parser that is told a head again, to go on behind it: what it says of that head is known."""

    def __init__(self, protocol: Protocol) -> None:
        self.is_again = True
        self._protocol = protocol
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self.is_again:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_again:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_again:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_again:
            self._protocol.on_headers_complete()


def _refusal(error: Exception) -> ApiError:
    """Return what a client is told of an error that the parser, or what it calls here, has met."""
    if isinstance(error, ApiError):
        return error
    cause = error.__context__
    if isinstance(cause, ApiError):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError):
        _LOG.error("a request could not be taken", exc_info=cause or error)
        return internal()
    return no_http(f"this is no HTTP: {error}" if str(error) else "this is no HTTP")


def _too_large(most: int) -> ApiError:
    text = f"the request's head, or a line of it, is longer than {most} bytes"
    return ApiError(431, "head-too-large", text, "Send fewer and shorter headers, and a shorter path.")


def limited(max_connections: int, receive_timeout_s: float, keep_alive_s: float) -> type[Protocol]:
    """Return the protocol with these limits; uvicorn makes an object of it for each connection."""
    limits: dict[str, Any] = {"max_connections": max_connections, "receive_timeout_s": receive_timeout_s}
    limits |= {"keep_alive_s": keep_alive_s, "waiting": OrderedDict()}
    return type("LimitedProtocol", (Protocol,), limits)
