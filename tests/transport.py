"""A connection without a network, so that a test can cut what comes where it likes: TCP promises no such thing."""

import asyncio
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from driftline.api.gate import Gate
from driftline.api.http.protocol import Protocol, limited


class Transport(asyncio.Transport):
    """Takes down what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8000)})
        self.written = bytearray()
        self.protocol: Protocol
        self.is_paused = self._is_closing = False

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Wires:
    """Makes connections to an app, as its server would. On the event loop."""

    def __init__(self, gate: Gate, **limits: Any) -> None:
        made = limited(**{"max_connections": 100, "receive_timeout_s": 10.0, "keep_alive_s": 75.0} | limits)
        self.config = Config(
            gate, http=made, ws="none", lifespan="off", interface="asgi3", log_config=None, proxy_headers=False
        )
        self.config.load()
        self.state, self._made = ServerState(), made

    def connect(self) -> Transport:
        """Return the server's side of a new connection; its protocol takes what a client sends."""
        transport = Transport()
        transport.protocol = self._made(self.config, self.state, {})
        transport.protocol.connection_made(transport)
        return transport

    async def settle(self, transport: Transport) -> None:
        """Wait until nothing more happens before something comes."""
        for _ in range(20):
            await asyncio.sleep(0)
        protocol = transport.protocol
        while self.state.tasks and not protocol.is_waited_for() and not transport.is_closing():  # in a thread
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)
