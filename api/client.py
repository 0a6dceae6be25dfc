"""How does a Python program ask, and tell?

`Client` and `AsyncClient` (also `driftline.Client`) over httpx; both send the same calls (calls.py), so they cannot
differ. What failed on the way, or was refused for now (408, 429, 502 to 504), is tried again: at another of several
APIs at once (addresses.py), at the same one later each time. It is safe, wherever it is sent again: a prediction
changes nothing, and a message or a label is given its id before it is sent first, and counts once.
"""

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import httpx

from driftline.api import calls
from driftline.api.addresses import Addresses, Attempts, Outcome
from driftline.api.calls import After, Fields, Label, Message, Prediction, Sent, T, Vector


def _alone(value: Any) -> list[Any] | None:
    return None if value is None else [value]


class Client:
    """Talks to a running API. Threads may share it.

    Parameters
    ----------
    url : of the API; or of several that share one log, the one to be asked first in front
    key : an API key, where they ask for one
    timeout_s : for one try; of several APIs one that does not take a connection is waited for CONNECT_S at most
    tries : how often a request is sent at most, to each of them
    """

    def __init__(
        self,
        url: str | Iterable[str] = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 6,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._addresses = Addresses(url)
        self._tries, self._capacity = tries, calls.Capacity()
        self._http = httpx.Client(
            headers=calls.headers(key),
            timeout=calls.timeout_for(self._addresses, timeout_s),
            transport=transport,
            mounts=calls.mounts_for(self._addresses),
        )

    def predict(
        self, text: str, *, after: After = None, fields: Fields | None = None, vector: Vector | None = None
    ) -> Prediction:
        """Classify a text with its fields and its vector, by a model that has learned the labels `after`.

        Raises Refused.
        """
        return self.predict_many([text], after=after, fields=_alone(fields), vectors=_alone(vector))[0]

    def predict_many(
        self,
        texts: Iterable[str],
        *,
        after: After = None,
        fields: Iterable[Fields | None] | None = None,
        vectors: Iterable[Vector | None] | None = None,
    ) -> list[Prediction]:
        """Classify texts, as many in a request as the API takes; `fields` and `vectors` have those of each.

        Raises Refused.
        """
        return self._all(calls.predict(texts, after, self._capacity, fields, vectors))

    def send(
        self,
        text: str,
        *,
        id: str | None = None,
        metadata: dict[str, Any] | None = None,
        fields: Fields | None = None,
        vector: Vector | None = None,
    ) -> Sent:
        """Append a message, and return once it is durable. Raises Refused."""
        return self.send_many([Message(text, id, metadata=metadata, fields=fields, vector=vector)])[0]

    def send_many(self, messages: Iterable[str | Message]) -> list[Sent]:
        """Append messages, as many in a request as the API takes. Raises Refused: what was sent before is durable."""
        return self._all(calls.send_messages(messages, self._capacity))

    def label(self, message_id: str, label: str, **more: Any) -> Sent:
        """Say what a message was (`more` as in `Label`), and return once that is durable. Raises Refused."""
        return self.label_many([Label(message_id, label, **more)])[0]

    def label_many(self, labels: Iterable[Label]) -> list[Sent]:
        """Append labels, as many in a request as the API takes. Raises Refused: what was sent before is durable."""
        return self._all(calls.send_labels(labels, self._capacity))

    def retract(self, message_id: str, label: str | None = None) -> Sent:
        """Take a message's labels back. Raises Refused."""
        return self.label_many([Label(message_id, label, op="retract")])[0]

    def explain(self, text: str, **more: Any) -> dict[str, Any]:
        """Return which words spoke for which label. Raises Refused."""
        return self._do(calls.ask_json("POST", "/explain", {"text": text} | more))

    def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path: /model, /history, /drift, /snapshots, /label-requests. Raises Refused."""
        return self._do(calls.ask_json("GET", path))

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        """Return the client, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def _do(self, call: calls.Call[T]) -> T:
        return calls.result_of(call, self._ask(call))

    def _all(self, talk: calls.Talk[T]) -> list[T]:
        """Have a talk: ask each of its calls, and give it the outcome."""
        try:
            call = next(talk)
            while True:
                call = talk.send(self._ask(call))
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]

    def _ask(self, call: calls.Call[Any]) -> Outcome:
        attempts = Attempts(self._addresses, self._tries)
        while True:
            outcome: Outcome
            try:
                outcome = self._http.request(call.method, attempts.address.at(call.path), content=call.body)
            except httpx.HTTPError as error:
                outcome = error
            if (wait_s := attempts.wait_after(outcome)) is None:
                return outcome
            time.sleep(wait_s)


class AsyncClient:
    """The same for asyncio: see Client for what each method does. One event loop."""

    def __init__(
        self,
        url: str | Iterable[str] = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        tries: int = 6,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._addresses = Addresses(url)
        self._tries, self._capacity = tries, calls.Capacity()
        self._http = httpx.AsyncClient(
            headers=calls.headers(key),
            timeout=calls.timeout_for(self._addresses, timeout_s),
            transport=transport,
            mounts=calls.mounts_for(self._addresses),
        )

    async def predict(
        self, text: str, *, after: After = None, fields: Fields | None = None, vector: Vector | None = None
    ) -> Prediction:
        """Classify a text."""
        return (await self.predict_many([text], after=after, fields=_alone(fields), vectors=_alone(vector)))[0]

    async def predict_many(
        self,
        texts: Iterable[str],
        *,
        after: After = None,
        fields: Iterable[Fields | None] | None = None,
        vectors: Iterable[Vector | None] | None = None,
    ) -> list[Prediction]:
        """Classify texts."""
        return await self._all(calls.predict(texts, after, self._capacity, fields, vectors))

    async def send(
        self,
        text: str,
        *,
        id: str | None = None,
        metadata: dict[str, Any] | None = None,
        fields: Fields | None = None,
        vector: Vector | None = None,
    ) -> Sent:
        """Append a message."""
        return (await self.send_many([Message(text, id, metadata=metadata, fields=fields, vector=vector)]))[0]

    async def send_many(self, messages: Iterable[str | Message]) -> list[Sent]:
        """Append messages."""
        return await self._all(calls.send_messages(messages, self._capacity))

    async def label(self, message_id: str, label: str, **more: Any) -> Sent:
        """Say what a message was."""
        return (await self.label_many([Label(message_id, label, **more)]))[0]

    async def label_many(self, labels: Iterable[Label]) -> list[Sent]:
        """Append labels."""
        return await self._all(calls.send_labels(labels, self._capacity))

    async def retract(self, message_id: str, label: str | None = None) -> Sent:
        """Take a message's labels back."""
        return (await self.label_many([Label(message_id, label, op="retract")]))[0]

    async def explain(self, text: str, **more: Any) -> dict[str, Any]:
        """Return which words spoke for which label."""
        return await self._do(calls.ask_json("POST", "/explain", {"text": text} | more))

    async def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path."""
        return await self._do(calls.ask_json("GET", path))

    async def close(self) -> None:
        """Give back the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        """Return the client, which is closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def _do(self, call: calls.Call[T]) -> T:
        return calls.result_of(call, await self._ask(call))

    async def _all(self, talk: calls.Talk[T]) -> list[T]:
        try:
            call = next(talk)
            while True:
                call = talk.send(await self._ask(call))
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]

    async def _ask(self, call: calls.Call[Any]) -> Outcome:
        attempts = Attempts(self._addresses, self._tries)
        while True:
            outcome: Outcome
            try:
                outcome = await self._http.request(call.method, attempts.address.at(call.path), content=call.body)
            except httpx.HTTPError as error:
                outcome = error
            if (wait_s := attempts.wait_after(outcome)) is None:
                return outcome
            await asyncio.sleep(wait_s)
