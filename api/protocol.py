"""What does a connection let a client do?

uvicorn's protocol over httptools (which refuses a request that could be read as two; h11 took a smuggled one), with
what it leaves out:

- A head has a limit; its parser takes any.
- A client that owes something (a head, the rest of a body) or does not read its answer is closed in time. One look a
  second over all connections does that: a timer for each request would cost as much as its prediction.
- Connections have a limit. Beyond it, that client goes that has kept the API waiting longest; a request that is being
  answered is never given up for another one.
- What is refused here has the API's shape, too.
- A request whose head came before (heads.py) is answered without the parser, if it came whole and nothing has to be
  waited for.
"""

import asyncio
import time
from typing import Any, Final

from fastapi import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from driftline.api.errors import Error, encode
from driftline.api.heads import Heads
from driftline.api.holding import STEP_BYTES

MAX_HEAD_BYTES: Final = 64 << 10
MAX_AT_ONCE: Final = 100  # requests that one client sent together; then others have their turn


class Protocol(HttpToolsProtocol):
    """One connection. The limits are set by `limited`."""

    max_connections = 1000
    receive_timeout_s = 10.0
    keep_alive_s = 75.0
    heads = Heads()

    _n_at_once = 0  # requests answered at once of what came last
    _is_between = True  # all that came was parsed, and is whole requests

    _in_head = False
    _head_bytes = 0
    _body_bytes = 0  # since the client was last seen to get on
    _owes_since = 0.0  # from when on the client is waited for, if it is
    _was_answered = False  # before: it may ask again
    _is_broken = False  # what came last is no HTTP
    _full_since: float | None = None  # from when on it has not read what was sent

    _running: RequestResponseCycle | None = None  # the request that the last task is about
    _at_once: RequestResponseCycle | None = None  # a request whose body is still to come, and that no task has
    _answered: RequestResponseCycle | None = None  # the last one that was answered so
    _admitted: Scope | None = None  # what the gate has noted of the next one, which it let in, and which has to wait

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of another one where there are too many."""
        if len(self.connections) >= self.max_connections and not self._make_room():
            self.transport = transport
            self._refuse(503, "busy", "too many requests are being answered", "Try again shortly.")
            return
        super().connection_made(transport)
        self._owes_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        if self.flow is None:  # it was not taken
            return
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _make_room(self) -> bool:
        waited_for = [each for each in self.connections if isinstance(each, Protocol) and each.is_waited_for()]
        if not waited_for:
            return False
        longest = min(waited_for, key=lambda each: each._owes_since)
        longest.transport.abort()
        self.connections.discard(longest)
        return True

    def is_waited_for(self) -> bool:
        """Tell whether the client has to send something before anything more can happen."""
        cycle = self.cycle
        return not self.flow.read_paused and (cycle is None or cycle.response_complete or cycle.more_body)

    def look(self, now: float) -> None:
        """Close the connection where the client has taken too long. About once a second."""
        if self._full_since is not None and now - self._full_since > self.receive_timeout_s:
            self.transport.abort()
            return
        if not self.is_waited_for():
            return
        waited_s = now - self._owes_since
        if self._head_bytes == 0:
            if waited_s > (self.keep_alive_s if self._was_answered else self.receive_timeout_s):
                self.transport.close()
        elif waited_s > self.receive_timeout_s:
            if self.cycle is not None and self.cycle.response_started and self.cycle.more_body:
                self.transport.close()
            else:
                text = (
                    f"the request, or {STEP_BYTES} more bytes of it, did not come within {self.receive_timeout_s:g} s"
                )
                self._refuse(408, "too-slow", text, "Send it again, in smaller requests.")

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._full_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read on."""
        self._full_since = None
        super().resume_writing()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_between, self._in_head, self._head_bytes, self._body_bytes = False, True, 1, 0
        self._owes_since = time.monotonic()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """More of a body is there. The longer it is, the longer it may take: STEP_BYTES in `receive_timeout_s`."""
        super().on_body(body)
        self._body_bytes += len(body)
        if self._body_bytes >= STEP_BYTES:
            self._body_bytes, self._owes_since = 0, time.monotonic()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer a request; what can be answered at once needs no task, and waits for its body."""
        if self._admitted is not None:
            cycle.scope.update(self._admitted)  # type: ignore[typeddict-item]
            self._admitted = None
            self._start_task(cycle, app)
            return
        waits = cycle.more_body and not cycle.waiting_for_100_continue and not self.flow.write_paused
        if waits and app is self.app and app.may_answer_at_once(cycle.scope):
            self._at_once = cycle
        else:
            self._start_task(cycle, app)

    def _start_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """A body is whole."""
        super().on_message_complete()
        self._is_between = not self.parser.should_upgrade()
        cycle, self._at_once = self._at_once, None
        if cycle is None:
            return
        self._n_at_once += 1
        response = self.app.at_once(cycle.scope, bytes(cycle.body)) if self._n_at_once <= MAX_AT_ONCE else None
        if response is None:
            self._start_task(cycle, self.app)
        else:
            self._answered = cycle
            cycle.response_started = cycle.response_complete = True
            self._write(response, cycle.keep_alive)

    def _answer_known(self, data: bytes) -> bool:
        """Answer a request whose head came before; return whether that was done."""
        cycle = self.cycle
        if self.flow.write_paused or not (cycle is None or cycle.response_complete):
            return False
        found = self.heads.find(data)
        if found is None:
            return False
        known, body = found
        scope = {**known.scope, "client": self.client, "server": self.server}
        response = self.app.at_once(scope, body)
        if response is None:
            self._admitted = {name: scope[name] for name in ("admitted", "key") if name in scope}
            return False
        self._write(response, keep_alive=True)
        return True

    def _write(self, response: Response, keep_alive: bool) -> None:
        """Do what ASGI's two messages of an answer do."""
        lines = [STATUS_LINE[response.status_code]]
        for name, value in self.server_state.default_headers + response.raw_headers:
            lines += name, b": ", value, b"\r\n"
        lines += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", bytes(response.body))
        self.transport.write(b"".join(lines))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """An answer is on its way: go on with the next request, which is there already or waited for.

        uvicorn's own sets a timer here and takes it back at the next request; `look` does without.
        """
        self._owes_since = time.monotonic()
        self._was_answered = True
        if not self._in_head:
            self._head_bytes = 0
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._is_broken:
            self.transport.close()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        was_between, went_on, self._n_at_once = self._is_between, self._in_head, 0
        if was_between and self._answer_known(data):
            return
        super().data_received(data)
        if self._answered is not None:
            answered, self._answered = self._answered, None
            if was_between and self._is_between and answered.keep_alive:
                self.heads.note(data, len(answered.body), answered.scope)
        if went_on and self._in_head:  # what a head begins with may come behind a body, so it does not count
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                text = f"the request's head is longer than {MAX_HEAD_BYTES} bytes"
                self._refuse(431, "head-too-large", text, "Send fewer and shorter headers, and a shorter path.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, once what came before it is answered: a client must not take this for that answer."""
        self._is_between = False
        cycle = self.cycle
        if self.pipeline or (cycle is not None and not cycle.response_complete and not cycle.more_body):
            self._is_broken = True
            self.flow.pause_reading()
            return
        self._refuse(400, "bad-request", msg, "Send a request as HTTP/1.1 has it (RFC 9112).")

    def _refuse(self, status: int, code: str, message: str, action: str) -> None:
        content = encode(Error(code, message, action))
        head = f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + content)
        self.transport.close()


def limited(max_connections: int, receive_timeout_s: float, keep_alive_s: float) -> type[Protocol]:
    """Return the protocol with these limits; uvicorn makes an object of it for each connection."""
    limits: dict[str, Any] = {"max_connections": max_connections, "receive_timeout_s": receive_timeout_s}
    limits["keep_alive_s"] = keep_alive_s
    return type("LimitedProtocol", (Protocol,), limits | {"heads": Heads()})
