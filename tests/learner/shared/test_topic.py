"""What of the shared topic counts is decided by its order and the leaders' epochs, also after compaction."""

from driftline.learner.shared import topic
from driftline.learner.shared.claims import LABELLED, LABELLED_MS, MAX_CLAIMS, MAX_HELD, Table, Wanted
from driftline.learner.shared.topic import Order
from driftline.stream.log.base import NewRecord, Record, TopicPartition

PARTITION = TopicPartition("state", 0)


def placed(records: list[NewRecord], first: int = 0) -> list[Record]:
    return [
        Record(PARTITION, first + at, 1000 + first + at, each.key, each.value, each.headers)
        for at, each in enumerate(records)
    ]


def read(*records: Record) -> Order:
    order = Order()
    for each in records:
        order.take(each)
    return order


def compacted(records: list[Record]) -> list[Record]:
    """Return what compaction leaves: the last record of each key, at its offset."""
    last = {each.key: each for each in records}
    return sorted(last.values(), key=lambda each: each.offset)


def contents(order: Order) -> dict[str, bytes]:
    return {key: value.content for key, value in order.values.items()}


class TestOrder:
    def test_what_an_overtaken_leader_says_late_does_not_count_and_is_said_again(self) -> None:
        said = placed(
            [
                *topic.records("leader", b"1", 1),
                *topic.records("status", b"one", 1),
                *topic.records("leader", b"2", 2),
                *topic.records("status", b"two", 2),
                *topic.records("status", b"late", 1),
                *topic.records("kept/a", None, 1),
            ]
        )
        order = read(*said)
        assert contents(order) == {"leader": b"2", "status": b"two"}
        assert order.overlaid == {"status", "kept/a"}
        again = placed(topic.records("status", b"two", 2), first=len(said))
        assert order.take(again[0]) == "status"
        assert order.overlaid == {"kept/a"}
        assert contents(read(*compacted(said + again))) == contents(order)

    def test_where_the_right_one_was_compacted_away_the_late_one_shows_no_more_than_it(self) -> None:
        said = placed(
            [*topic.records("leader", b"2", 2), *topic.records("status", b"two", 2), *topic.records("status", b"l", 1)]
        )
        assert contents(read(*compacted(said))) == {"leader": b"2"}

    def test_the_journal_may_know_of_a_leader_sooner(self) -> None:
        order = Order()
        order.see_epoch(2)
        assert [order.take(each) for each in placed(topic.records("status", b"one", 1))] == [None]

    def test_only_a_leader_says_what_is_the_leaders(self) -> None:
        forged = placed([NewRecord(b"status", b"{}"), NewRecord(b"kept/a", None), NewRecord(b"history/1", b"x")])
        assert contents(read(*forged)) == {}

    def test_a_value_that_is_too_large_comes_in_pieces_and_counts_with_the_last(self) -> None:
        large = bytes(range(256)) * 5000
        pieces = placed(topic.records("review", large, 3))
        assert len(pieces) == 3
        assert all(len(each.value or b"") <= topic.PIECE_BYTES for each in pieces)
        order = Order()
        assert [order.take(each) for each in pieces] == [None, None, "review"]
        assert order.values["review"].content == large
        half = placed(topic.records("review", large[::-1], 3), first=10)[:2]
        assert [order.take(each) for each in half] == [None, None]
        assert order.values["review"].content == large, "its leader was killed between two pieces"
        small = placed(topic.records("review", b"small", 3), first=20)
        assert contents(read(*compacted([*pieces, *small]))) == {"review": b"small"}
        assert contents(read(pieces[0], pieces[2])) == {}, "one is missing"
        assert contents(read(pieces[1], pieces[2])) == {}

    def test_a_claim_is_taken_away_only_where_it_is_still_that_one(self) -> None:
        order = read(*placed([NewRecord(b"claim/a", b"1"), NewRecord(b"claim/a", b"2")]))
        old, new = (placed([topic.removal("claim/a", of)], first=5)[0] for of in (0, 1))
        assert order.take(old) is None
        assert contents(order) == {"claim/a": b"2"}
        assert order.take(new) == "claim/a"
        assert contents(order) == {}

    def test_what_nobody_can_read_is_stepped_over(self) -> None:
        odd = [
            Record(PARTITION, 0, 0, None, b"x"),
            Record(PARTITION, 1, 0, b"\xff", b"x"),
            Record(PARTITION, 2, 0, b"review#0", b"x", [("epoch", b"1"), ("piece", b"a/b")]),
            Record(PARTITION, 3, 0, b"review#0", b"x", [("epoch", b"-1"), ("piece", b"a/0/99999999")]),
            Record(PARTITION, 4, 0, b"review#0", None, [("epoch", b"1"), ("piece", b"a/0/1")]),
        ]
        order = read(*odd)
        assert "review" not in order.values
        assert order.offset == 5


class TestTable:
    def test_who_came_first_in_the_order_has_it(self) -> None:
        table = Table()
        table.take(Wanted("ann", [b"1", b"2"], [], 5000), 1000)
        table.take(Wanted("bob", [b"2", b"3"], [], 5000), 1001)
        assert {name: held.by for name, held in table.claims.items()} == {b"1": "ann", b"2": "ann", b"3": "bob"}
        table.take(Wanted("ann", [b"1"], [], 5000), 1002)
        table.take(Wanted("bob", [b"2"], [], 5000), 1003)
        assert {name: held.by for name, held in table.claims.items()} == {b"1": "ann", b"2": "bob"}

    def test_time_is_the_records_own(self) -> None:
        table = Table()
        table.take(Wanted("ann", [b"1"], [], 5000), 1000)
        table.take(Wanted("bob", [b"1"], [], 9000), 4999)
        assert table.claims[b"1"].by == "ann"
        table.take(Wanted("bob", [b"1"], [], 9000), 5000)
        assert table.claims[b"1"].by == "bob"

    def test_whose_label_is_on_its_way_is_nobodys_for_a_while(self) -> None:
        table = Table()
        table.take(Wanted("ann", [b"1"], [], 5000), 1000)
        table.take(Wanted("ann", [b"2"], [b"1"], 6000), 2000)
        table.take(Wanted("bob", [b"1"], [], 9000), 2001)
        assert table.claims[b"1"].by == LABELLED
        table.take(Wanted("bob", [b"1"], [], 99_000), 2000 + LABELLED_MS)
        assert table.claims[b"1"].by == "bob"

    def test_it_is_bounded_whatever_is_wanted(self) -> None:
        table = Table()
        for number in range(100):
            names = [b"%d-%d" % (number, each) for each in range(MAX_HELD + 5)]
            table.take(Wanted(f"l{number}", names, [], 5000), 1000)
            assert sum(held.by == f"l{number}" for held in table.claims.values()) <= MAX_HELD
        assert len(table.claims) == MAX_CLAIMS
