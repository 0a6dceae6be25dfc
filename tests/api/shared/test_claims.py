"""Does each message to label go to one labeller at a time, and does each label say who gave it? Over a real server."""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from driftline.api.access.keys import Key, Role, named
from driftline.api.errors import ApiError
from driftline.api.shared.board import Board, make_board
from driftline.api.shared.claims import MAX_CLAIMS, MAX_HELD, MAX_OF_KEY, Claims
from driftline.learner.report.label_requests import MAX_OPEN, LabelRequest
from driftline.learner.report.review import FILE, Review
from driftline.stream.errors import ConfigError
from driftline.stream.wire.records import decode_feedback
from tests.clock import Clock
from tests.place import Place, add_key, post, read_all, refusal, running
from tests.waiting import wait_until

IDS = [f"m{number}" for number in range(10)]


class Said(msgspec.Struct):
    """What a worker may show the others."""

    name: str = ""
    number: int = 0


def ask(place: Place, ids: list[str]) -> None:
    """Write what a learner would that asks for these messages."""
    requests = [
        LabelRequest(
            id=each, text=f"text {each}", truncated=False, timestamp_ms=0, label="spam", score=0.6,
            scores={"spam": 0.6, "ham": 0.4}, chance=0.5,
        )
        for each in ids
    ]  # fmt: skip
    path = place.stream.data / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_bytes(msgspec.json.encode(Review(requests=requests, requests_per_hour=60)))
    path.with_suffix(".new").replace(path)


@pytest.fixture
def http(place: Place) -> Iterator[httpx.Client]:
    ask(place, IDS)
    with running(place.stream) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield http


def claim(http: httpx.Client, labeller: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/label-requests/claim", json={"labeller": labeller} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [each["id"] for each in answer["requests"]]


def holders(http: httpx.Client) -> dict[str, str | None]:
    requests = http.get("/label-requests").json()["requests"]
    return {each["id"]: each["claim"] and each["claim"]["by"] for each in requests}


class TestClaims:
    def test_two_labellers_get_different_messages(self, http: httpx.Client) -> None:
        first, second = claim(http, "ann", n=3), claim(http, "bob", n=3)
        assert ids(first) == IDS[:3]
        assert ids(second) == IDS[3:6]
        assert first["requests"][0]["text"] == "text m0"
        assert 0 < first["requests"][0]["claim"]["seconds"] <= first["seconds"] == 300
        assert holders(http) == dict.fromkeys(IDS[:3], "ann") | dict.fromkeys(IDS[3:6], "bob") | dict.fromkeys(IDS[6:])
        assert ids(claim(http, "ann", n=3)) == IDS[:3], "who asks again has the same"
        assert ids(claim(http, "eve", n=20)) == IDS[6:]
        assert ids(claim(http, "dan", n=5)) == [], "none is left"

    def test_what_is_named_comes_first_and_the_rest_goes(self, http: httpx.Client) -> None:
        claim(http, "ann", n=3)
        answer = claim(http, "bob", ids=["m7", "m1", "nothing"], n=2)
        assert ids(answer) == ["m7", "m3"]
        assert answer["taken"] == ["m1"]
        assert ids(claim(http, "bob", ids=["m9"])) == ["m9"]
        assert holders(http)["m7"] is None
        assert ids(claim(http, "ann", n=3, without=["m0", "m3"])) == ["m1", "m2", "m4"], "a skip lets it go"
        assert holders(http)["m0"] is None
        assert ids(claim(http, "ann")) == []
        assert set(holders(http).values()) == {None, "bob"}

    def test_what_somebody_found_is_his_too(self, http: httpx.Client) -> None:
        answer = claim(http, "ann", ids=["m1"], found=["f1", "f2", 3])
        assert (ids(answer), answer["taken"]) == (["m1"], [])
        answer = claim(http, "bob", ids=["m1", "m2"], found=["f2", "f3"])
        assert (ids(answer), answer["taken"]) == (["m2"], ["m1", "f2"])
        assert claim(http, "eve", found=["3"])["taken"] == ["3"]
        assert holders(http) == dict.fromkeys(IDS) | {"m1": "ann", "m2": "bob"}
        claim(http, "ann")  # lets all go
        assert claim(http, "bob", found=["f1", "f2"])["taken"] == []
        assert len(claim(http, "dan", ids=IDS, found=[f"g{n}" for n in range(500)])["requests"]) <= MAX_HELD
        answer = claim(http, "eve", found=[f"g{n}" for n in range(500)])
        assert 0 < len(answer["taken"]) <= MAX_HELD, "a claim is bounded"

    def test_time_ends_it(self, http: httpx.Client) -> None:
        assert ids(claim(http, "ann", n=10, seconds=1)) == IDS
        wait_until(lambda: ids(claim(http, "bob", n=10)) == IDS, what="a second is over")
        assert claim(http, "ann", ids=IDS)["taken"] == IDS

    def test_a_label_ends_it_and_a_retraction_gives_it_back(self, http: httpx.Client) -> None:
        assert ids(claim(http, "ann", n=2)) == ["m0", "m1"]
        label = {"message_id": "m0", "label": "spam"}
        assert http.post("/feedback", json=label).status_code == 202
        assert "m0" not in holders(http), "its label is on its way"
        assert http.get("/label-requests").json()["open"] == len(IDS) - 1
        assert ids(claim(http, "bob", n=1)) == ["m2"]
        assert claim(http, "bob", ids=["m0"])["taken"] == ["m0"]
        assert http.post("/feedback", json=label | {"op": "retract"}).status_code == 202
        assert holders(http)["m0"] is None
        assert ids(claim(http, "bob", ids=["m0"])) == ["m0"]

    def test_a_retraction_without_a_label_gives_it_back_too(self, http: httpx.Client) -> None:
        holders(http)  # the API has looked what is open
        assert http.post("/feedback", json={"message_id": "m0", "label": "spam"}).status_code == 202
        assert http.post("/feedback", json={"message_id": "m0", "op": "retract"}).status_code == 202
        assert ids(claim(http, "bob", ids=["m0"])) == ["m0"]

    def test_a_number_is_an_id(self, place: Place, http: httpx.Client) -> None:
        ask(place, ["7", "2.5", "true", "m"])
        assert ids(claim(http, "ann", ids=[7.0, 2.5])) == ["7", "2.5"]
        assert ids(claim(http, "bob", n=2, without=[True])) == ["m"]

    def test_a_label_of_one_who_claimed_nothing_ends_it_too(self, http: httpx.Client) -> None:
        holders(http)  # the API has looked what is open
        labels = [{"message_id": each, "label": "ham"} for each in ("m0", "m1", "unasked")]
        assert http.post("/feedback", json=labels).status_code == 202
        assert ids(claim(http, "ann", n=1)) == ["m2"]

    def test_what_the_learner_asks_for_no_more_is_given_to_nobody(self, place: Place, http: httpx.Client) -> None:
        assert ids(claim(http, "ann", n=2)) == ["m0", "m1"]
        ask(place, IDS[1:])
        answer = claim(http, "ann", ids=["m0", "m1"])
        assert (ids(answer), answer["taken"]) == (["m1"], [])

    def test_odd_ids(self, place: Place, http: httpx.Client) -> None:
        odd = ["a/b", "\u202e", "__proto__", "\U0001f600" * 100, " ", "%2F?#"]
        ask(place, odd)
        assert ids(claim(http, "ann", n=3, ids=odd)) == odd
        assert claim(http, "bob", ids=odd)["taken"] == odd

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "no-labeller"),
            ({"labeller": ""}, "wrong-type"),
            ({"labeller": "a/b"}, "wrong-type"),
            ({"labeller": "a b"}, "wrong-type"),
            ({"labeller": "a\n"}, "wrong-type"),
            ({"labeller": "a" * 65}, "wrong-type"),
            ({"labeller": "a", "n": MAX_HELD + 1}, "wrong-type"),
            ({"labeller": "a", "n": -1}, "wrong-type"),
            ({"labeller": "a", "seconds": 0}, "wrong-type"),
            ({"labeller": "a", "seconds": 3601}, "wrong-type"),
            ({"labeller": "a", "ids": ["m"] * 1001}, "wrong-type"),
            ({"labeller": "a", "ids": ["m" * 513]}, "wrong-type"),
        ],
    )
    def test_refused(self, http: httpx.Client, body: object, code: str) -> None:
        assert refusal(http.post("/label-requests/claim", json=body), 422)["code"] == code

    def test_who_comes_later_says_that_another_api_shares_no_claims(
        self, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with running(place.stream), running(Place(tmp_path / "another").stream):
            assert "another API" not in caplog.text
            for n_said in (1, 2):
                with running(place.stream):
                    assert caplog.text.count(f"another API answers from {place.stream.data}, too") == n_said
        with running(place.stream):
            assert caplog.text.count("another API") == 2

    def test_before_a_learner_ran(self, tmp_path: Path) -> None:
        with running(Place(tmp_path).stream) as url, httpx.Client(base_url=url, timeout=30) as http:
            assert claim(http, "ann", n=5)["requests"] == []


@pytest.fixture
def boards() -> Iterator[list[Board]]:
    with closing(make_board(2)) as memory:
        boards = [Board(memory, worker, 2) for worker in range(2)]
    yield boards
    for board in boards:
        board.close()


class TestBetweenWorkers:
    async def _all(self, claims: Claims, who: str, asked: list[str], n: int) -> list[str]:
        return (await claims.take(who, asked, n=n)).held

    def test_each_sees_what_the_others_gave_out(self, boards: list[Board], monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr("driftline.api.shared.claims.time", clock)
        one, other = map(Claims, boards)

        async def run() -> None:
            assert await self._all(one, "ann", IDS, 3) == IDS[:3]
            assert await self._all(other, "bob", IDS, 3) == IDS[3:6]
            assert await self._all(other, "ann", IDS, 3) == IDS[:3], "whichever worker answers"
            await one.note({"m3": "upsert"})
            assert await self._all(other, "eve", IDS, 1) == ["m6"]
            clock.now += 301
            assert await self._all(other, "eve", IDS, 20) == [each for each in IDS if each != "m3"]
            clock.now += 3600
            assert await self._all(one, "bob", IDS, 20) == IDS, "whose label came to nothing is asked for again"

        asyncio.run(run())

    def test_one_that_stands_still_with_the_table_is_no_hindrance(
        self, boards: list[Board], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("driftline.api.shared.claims.PATIENCE_S", 0.05)
        one, other = boards
        assert one.lock()
        claims = Claims(other)
        with pytest.raises(ApiError, match="table of claims"):
            asyncio.run(claims.take("ann", IDS, n=1))
        asyncio.run(claims.note({"m0": "upsert"}))  # a label was taken, whatever happens here
        assert claims.of(IDS) == {}
        one.unlock()
        assert asyncio.run(claims.take("ann", IDS, n=1)).held == ["m0"]

    def test_a_table_that_was_half_written_is_the_last_one_read(self, boards: list[Board]) -> None:
        one, other = map(Claims, boards)
        asyncio.run(one.take("ann", IDS, n=1))
        assert set(other.of(IDS)) == {"m0"}
        boards[0]._places[2][8] ^= 0xFF
        assert set(other.of(IDS)) == {"m0"}

    def test_what_is_torn_but_can_be_decoded_counts_as_little(self, boards: list[Board]) -> None:
        """Each byte of it, and of what stands before it, whatever it says instead."""
        one, other = boards
        decoder = msgspec.msgpack.Decoder(Said)
        one.write(Said("before", 1))
        assert [each.name for each in other.read_others(decoder)] == ["before"]
        one.write(Said("behind", 2))
        place = one._places[0]
        length = 8 + len(msgspec.msgpack.encode(Said("behind", 2)))
        for at in range(length):
            for bit in range(8):
                place[at] ^= 1 << bit
                assert other.read_others(decoder) == [Said("before", 1)], f"byte {at}, bit {bit}"
                assert Board.read_own(one, decoder) in (Said(), Said("before", 1), Said("behind", 2))
                place[at] ^= 1 << bit
        assert other.read_others(decoder) == [Said("behind", 2)]

    def test_nobody_can_take_a_part_of_it_away(self, boards: list[Board]) -> None:
        size = os.fstat(boards[0]._file).st_size
        for length in (0, size - 1, size + 1):
            with pytest.raises(PermissionError):
                os.truncate(boards[0]._file, length)
        assert os.fstat(boards[0]._file).st_blocks * 512 >= size, "all of it is there from the start"

    def test_without_memory_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(ConfigError, match=r"workers: [\d,]+ bytes of memory .* No space left .* one worker"):
            make_board(2)

    def test_everything_is_bounded(self, boards: list[Board]) -> None:
        one, other = map(Claims, boards)
        asked = [f"{number}-{'x' * 500}" for number in range(MAX_OPEN)]

        async def run() -> None:
            held = [await self._all(one, f"key/{'n' * 60}{n}", asked, MAX_HELD) for n in range(20)]
            assert sum(map(len, held)) == MAX_OF_KEY, "one key has not all of them"
            assert all(len(each) <= MAX_HELD for each in held)
            for round_ in range(10):
                for n in range(20):
                    more = [f"{round_}-{number}" for number in range(MAX_OPEN)]
                    await self._all(other, f"{'k' * 64}{n}/{'n' * 64}{round_}", more, MAX_HELD)
            assert 0 < len(one._read()) <= MAX_CLAIMS
            for n in range(10):
                one.see(f"{each}-{n}" for each in range(MAX_OPEN))
                await one.note({f"{each}-{n}": "upsert" for each in range(2 * MAX_OPEN)})
            assert len(other._read()) <= MAX_CLAIMS

        asyncio.run(run())


class TestWho:
    def test_names(self) -> None:
        alice = Key(b"", Role.LABEL, "alice")
        given = [None, "", "alice", "alice/app", "bob", "alicex", "bob/alice"]
        meant = ["alice", "alice", "alice", "alice/app", "alice/bob", "alice/alicex", "alice/bob/alice"]
        assert [named(alice, each) for each in given] == meant
        assert [named(None, each) for each in given] == given

    def test_a_label_says_who_gave_it(self, place: Place) -> None:
        with running(place.stream) as url:
            post(f"{url}/feedback", {"message_id": "1", "label": "a"})
            post(f"{url}/feedback", {"message_id": "2", "label": "a", "source": "bob"})
            headers = {name: add_key(place, Role.LABEL, name) for name in ("alice", "bob")}
            wait_until(lambda: post(f"{url}/feedback", {"message_id": "", "label": "a"}).status_code == 401)
            sent = [
                ("alice", {}),
                ("alice", {"source": "bob"}),
                ("alice", {"source": "alice/app"}),
                ("bob", {"source": None}),
                ("bob", {"op": "retract"}),
            ]
            for name, more in sent:
                body = {"message_id": "m", "label": "a"} | more
                answer = httpx.post(f"{url}/feedback", json=[body], headers=headers[name], timeout=30)
                assert answer.status_code == 202, answer.text
        found = [decode_feedback(record.value or b"").source for record in read_all(place.stream, "feedback")]
        assert found == [None, "open/bob", "alice", "alice/bob", "alice/app", "bob", "bob"]

    def test_a_claim_says_whose_it_is(self, place: Place) -> None:
        ask(place, IDS)
        headers = {name: add_key(place, Role.LABEL, name) for name in ("alice", "bob")}
        asks = add_key(place, Role.PREDICT, "asks")
        with running(place.stream) as url, closing(httpx.Client(base_url=url, timeout=30)) as http:
            for name, labeller, whose in (
                ("alice", None, "alice"),
                ("alice", "tab", "alice/tab"),
                ("bob", "alice", "bob/alice"),
            ):
                body = {"n": 1} | ({"labeller": labeller} if labeller else {})
                answer = http.post("/label-requests/claim", json=body, headers=headers[name]).json()
                assert (answer["labeller"], answer["key"]) == (whose, name)
                assert answer["requests"][0]["claim"]["by"] == whose
            shown = http.get("/label-requests", headers=headers["bob"]).json()["requests"]
            assert [each["claim"] and each["claim"]["by"] for each in shown[:4]] == [
                "alice", "alice/tab", "bob/alice", None,
            ]  # fmt: skip
            assert http.post("/label-requests/claim", json={"n": 1}, headers=asks).status_code == 403
            assert http.post("/label-requests/claim", json={"n": 1}).status_code == 401
