"""A TCP proxy that stands between a client and a Kafka: it can delay what passes, slow it down, and hold it."""

import asyncio
import threading
from typing import Final

from tests.waiting import wait_until

CHUNK: Final = 16 << 10


class Frames:
    """Counts the frames of Kafka's protocol: four bytes with a length, and so many more."""

    def __init__(self) -> None:
        self._head, self._left = b"", 0

    def begun_in(self, piece: bytes) -> int:
        """Return how many begin in the next piece."""
        count = 0
        while piece:
            if self._left:
                taken = min(len(piece), self._left)
                self._left, piece = self._left - taken, piece[taken:]
                continue
            missing = 4 - len(self._head)
            self._head, piece = self._head + piece[:missing], piece[missing:]
            if len(self._head) == 4:
                self._left, self._head, count = int.from_bytes(self._head, "big"), b"", count + 1
        return count


class Talk:
    """One connection's requests that were passed on and that the broker has not answered yet."""

    unanswered = 0


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
        self._talks: set[Talk] = set()
        self._port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the proxy listens"

    def hold(self) -> None:
        """Let nothing pass any more, and return once nothing is at the broker that it could still answer."""

        async def begin() -> None:
            self.held = True

        asyncio.run_coroutine_threadsafe(begin(), self._loop).result(30)
        wait_until(lambda: not any(talk.unanswered for talk in list(self._talks)), what="the broker has answered all")

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
        talk = Talk()
        self._talks.add(talk)
        for source, sink, asks in ((reader, ours, True), (theirs, writer, False)):
            task = self._loop.create_task(self._pass(source, sink, talk, asks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, talk: Talk, asks: bool) -> None:
        frames = Frames()
        try:
            while piece := await source.read(CHUNK):
                count = frames.begun_in(piece)
                talk.unanswered -= 0 if asks else count
                await asyncio.sleep(self.delay_s)
                while self.held:
                    await asyncio.sleep(0.01)
                talk.unanswered += count if asks else 0
                sink.write(piece)
                await sink.drain()
        except OSError:
            pass
        finally:
            self._talks.discard(talk)
            sink.close()
