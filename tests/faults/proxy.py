"""A TCP proxy that stands between a client and a broker: it can delay what passes, slow it down, and hold it."""

import asyncio
import threading
from typing import Final

CHUNK: Final = 16 << 10


class Proxy:
    """Listens on one loopback port and passes everything on to another. Runs in a thread of its own.

    Attributes
    ----------
    delay_s : how long each piece waits before it is passed on, at most CHUNK bytes
    held : while true nothing passes
    """

    def __init__(self, port: int, target: int) -> None:
        self.delay_s = 0.0
        self.held = False
        self.passed_bytes = 0
        self._port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(10), "the proxy listens"

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self._port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, ours), (theirs, writer)):
            task = self._loop.create_task(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(CHUNK):
                await asyncio.sleep(self.delay_s)
                while self.held:
                    await asyncio.sleep(0.01)
                sink.write(piece)
                await sink.drain()
                self.passed_bytes += len(piece)
        except OSError:
            pass
        finally:
            sink.close()
