"""Who labels which message now?

A labeller claims messages; nobody else is given them until he has labelled them, lets them go, or his time is over. The
claims of all workers stand in one table (board.py), each change of which one worker makes alone; without workers it is
this process's own. It has at most MAX_CLAIMS entries, each for MAX_SECONDS at most, and nothing that must last: once it
is lost, two people may be given one message, and both labels are taken as ever.

A message whose label is on its way to the learner is nobody's, and given to nobody, until the learner no longer asks
for it, its label is taken back, or MAX_SECONDS are over (the label may have been refused).

Where several machines answer, claims go through the topic that they share (learner/shared/claims.py): who claims reads
his own record back, and has what the order gave him. Each machine's own table has only the labels that came by it; a
labeller's next record tells the others of them.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import msgspec

from driftline.api.errors import ApiError
from driftline.api.shared.board import Board
from driftline.api.shared.together import Together
from driftline.learner.report.label_requests import MAX_OPEN
from driftline.learner.shared import asking
from driftline.learner.shared.claims import LABELLED as _LABELLED
from driftline.learner.shared.claims import MAX_CLAIMS, MAX_HELD, Wanted, name_of

SECONDS: Final = 300.0
MAX_SECONDS: Final = 3600.0
MAX_OF_KEY: Final = MAX_OPEN // 2  # by all who label with one key
TRIES: Final = 3  # where another machine's labeller was faster
PATIENCE_S: Final = 2.0  # a worker that stands still with the table in its hands holds up no other for longer
RETRY_S: Final = 0.005
_T = TypeVar("_T")


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Whose a message is; `by` is empty where its label is on its way."""

    by: str
    until: float  # of the machine's monotonic clock, which all workers share


class _Table(msgspec.Struct):
    """All claims, by a digest of the message's id."""

    claims: dict[bytes, Claim] = {}


_TABLE: Final = msgspec.msgpack.Decoder(_Table)


class Taken(NamedTuple):
    """What a labeller has now, and which of the messages that he named another one has, or has labelled."""

    held: list[str]
    taken: list[str]


class Claims:
    """The claims on the messages that wait for a label. On the event loop only.

    Parameters
    ----------
    board : what the workers of this API share
    together : what several machines do; None: there are none
    """

    def __init__(self, board: Board | None = None, together: Together | None = None) -> None:
        self._board, self._together, self._own = board, together, _Table()
        self._others: dict[bytes, Claim] | None = None  # of all machines, at the last look; None: there are none
        self._open: frozenset[bytes] = frozenset()  # the messages that the learner asked for at the last look

    async def look(self) -> str | None:
        """Take note of what other machines' labellers have; return the topic, None where there are none."""
        there = await self._together.there() if self._together is not None else None
        if there is None or self._together is None:
            self._others = None
            return None
        now, now_ms = time.monotonic(), time.time() * 1000
        table = await self._together.claims()
        self._others = {
            name: Claim(held.by, now + (held.until_ms - now_ms) / 1000) for name, held in table.claims.items()
        }
        return there.topic

    def see(self, open_ids: Iterable[str]) -> None:
        """Take note of which messages wait for a label: only theirs are followed."""
        self._open = frozenset(map(name_of, open_ids))

    async def take(
        self,
        labeller: str,
        open_ids: Sequence[str],
        *,
        named: Sequence[str] = (),
        n: int = 0,
        without: Iterable[str] = (),
        seconds: float = SECONDS,
    ) -> Taken:
        """Claim messages for a labeller, who then has these and no others.

        Parameters
        ----------
        labeller : `key/name`, `key` or `name`
        open_ids : of the messages that wait for a label, in the order in which they are given out
        named : those that he wants, as far as they are to be had
        n : besides, those that he has already and then others, until there are so many
        without : those that he does not want
        seconds : how long; 1 to MAX_SECONDS

        Raises
        ------
        ApiError : 503, the table is not to be had.
        """
        self.see(open_ids)
        by_name = {name_of(each): each for each in open_ids}
        wanted, unwanted = [name_of(each) for each in named], {name_of(each) for each in without}

        def change(claims: dict[bytes, Claim]) -> list[bytes]:
            for digest in [each for each, claim in claims.items() if claim.by == _LABELLED and each not in by_name]:
                del claims[digest]
            his = {digest for digest, claim in claims.items() if claim.by == labeller}
            for digest in his:
                del claims[digest]
            kept = [digest for digest in by_name if digest in his]
            room = min(MAX_HELD, MAX_CLAIMS - len(claims), _room_of_key(labeller, claims))
            chosen = dict.fromkeys(digest for digest in wanted if digest in by_name and digest not in claims)
            for digest in (*kept, *by_name):
                if len(chosen) >= n:
                    break
                if digest not in claims and digest not in unwanted:
                    chosen[digest] = None
            held = list(chosen)[: max(0, room)]
            until = time.monotonic() + seconds
            claims.update((digest, Claim(labeller, until)) for digest in held)
            return held

        topic = await self.look()
        held = (
            await self._change(change)
            if topic is None
            else await self._take_together(topic, labeller, change, by_name.keys(), seconds)
        )
        claims = self._read()
        taken = [digest for digest in wanted if digest not in held and digest in claims]
        names = by_name | dict(zip(wanted, named, strict=True))
        return Taken([names[digest] for digest in held], [names[digest] for digest in taken])

    async def _take_together(
        self,
        topic: str,
        labeller: str,
        change: Callable[[dict[bytes, Claim]], list[bytes]],
        open_names: Collection[bytes],
        seconds: float,
    ) -> list[bytes]:
        """Claim among all machines: what was chosen goes through their topic, and what comes back counts."""
        assert self._together is not None, "there are several"
        held: list[bytes] = []
        for _ in range(TRIES):
            now, claims = time.monotonic(), self._read()
            claims = {digest: claim for digest, claim in claims.items() if claim.until > now}
            had = any(claim.by == labeller for claim in claims.values())
            wanted = change(claims)
            if not wanted and not had:
                return []
            labelled = [each for each, claim in self._labelled().items() if claim.until > now and each in open_names]
            record = asking.claim(Wanted(labeller, wanted, labelled, int((time.time() + seconds) * 1000)))
            if not await self._together.ask(topic, record):
                raise ApiError(
                    503, "busy", "what was claimed has not come back in time", "Try again.", {"Retry-After": "1"}
                )
            await self.look()
            claims = self._read()
            held = [digest for digest in wanted if digest in claims and claims[digest].by == labeller]
            if held == wanted:
                break
        return held

    async def note(self, operations: Mapping[str, str]) -> None:
        """See labels that were appended: `upsert` or `retract` by message. Where the table is not to be had, time ends
        the claims.
        """
        known = self._open.union(self._read())
        noted = {digest: operation for each, operation in operations.items() if (digest := name_of(each)) in known}
        if not noted:
            return

        def change(claims: dict[bytes, Claim]) -> None:
            until = time.monotonic() + MAX_SECONDS
            for digest, operation in noted.items():
                if operation == "upsert" and (digest in claims or len(claims) < MAX_CLAIMS):
                    claims[digest] = Claim(_LABELLED, until)
                elif operation == "retract" and digest in claims and claims[digest].by == _LABELLED:
                    del claims[digest]

        with suppress(ApiError):
            await self._change(change)

    def of(self, message_ids: Iterable[str]) -> dict[str, Claim]:
        """Return the claims on those messages that have one."""
        claims, now = self._read(), time.monotonic()
        found = ((each, claims.get(name_of(each))) for each in message_ids)
        return {each: claim for each, claim in found if claim is not None and claim.until > now}

    def _read(self) -> dict[bytes, Claim]:
        """Return all claims."""
        return self._table().claims if self._others is None else self._others | self._labelled()

    def _labelled(self) -> dict[bytes, Claim]:
        """Return the messages whose labels came by this machine."""
        return {digest: claim for digest, claim in self._table().claims.items() if claim.by == _LABELLED}

    def _table(self) -> _Table:
        return self._own if self._board is None else self._board.read_shared(_TABLE)

    async def _change(self, change: Callable[[dict[bytes, Claim]], _T]) -> _T:
        """Change the table while no other worker does. What is over goes first."""
        deadline = time.monotonic() + PATIENCE_S
        while self._board is not None and not self._board.lock():
            if time.monotonic() > deadline:
                raise ApiError(503, "busy", "the table of claims is not to be had", "Try again.", {"Retry-After": "1"})
            await asyncio.sleep(RETRY_S)
        try:
            now = time.monotonic()
            claims = {digest: claim for digest, claim in self._table().claims.items() if claim.until > now}
            result = change(claims)
            self._own = _Table(claims)
            if self._board is not None:
                self._board.write_shared(self._own)
            return result
        finally:
            if self._board is not None:
                self._board.unlock()


def _room_of_key(labeller: str, claims: Mapping[bytes, Claim]) -> int:
    """Return how many more messages those who label with a labeller's key may have."""
    key, slash, _ = labeller.partition("/")
    if not slash:
        return MAX_OF_KEY
    return MAX_OF_KEY - sum(claim.by.startswith(key + slash) for claim in claims.values())
