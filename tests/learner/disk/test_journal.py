"""What was written down comes back; a torn tail is left out, whatever is in it."""

import threading
from pathlib import Path

import pytest

from driftline.learner.disk import journal
from driftline.learner.disk.journal import MAGIC, Applied, Head, Journal, Journals, read_journal, read_since
from driftline.learner.disk.settings import LearnerSettings, Rules
from driftline.stream.errors import DiskFull, StateError, SyncFailed
from driftline.stream.log.base import TopicPartition
from driftline.stream.log.merge import Span
from driftline.stream.process.settings import StreamSettings
from tests.waiting import wait_until

LANES = [TopicPartition("messages", 0), TopicPartition("feedback", 0)]
RULES = LearnerSettings().rules(StreamSettings(), 1)


def write(root: Path, checkpoint: int, epoch: int, batches: range, rules: Rules = RULES) -> Path:
    path = journal.path_of(root, checkpoint, epoch)
    written = Journal(path, Head(checkpoint, epoch, rules, LANES))
    for batch in batches:
        written.append(batch, batch - 1, spans(batch))
    written.close()
    return path


def spans(batch: int) -> list[Span]:
    return [Span(LANES[0], batch * 10, batch * 10 + 10), Span(LANES[1], batch, batch + 1)]


def applied(batch: int) -> Applied:
    return Applied(batch, batch - 1, spans(batch), RULES)


def test_batches_come_back(tmp_path: Path) -> None:
    assert read_journal(write(tmp_path, 3, 1, range(4, 9))) == [applied(batch) for batch in range(4, 9)]


def test_an_entry_takes_a_few_bytes(tmp_path: Path) -> None:
    sizes = [write(tmp_path, 0, epoch, range(1, n)).stat().st_size for epoch, n in ((1, 2), (2, 102))]
    assert (sizes[1] - sizes[0]) / 100 < 40


def test_every_torn_tail_leaves_the_whole_entries(tmp_path: Path) -> None:
    path = write(tmp_path, 0, 1, range(1, 4))
    content = path.read_bytes()
    whole = [len(write(tmp_path, 0, 2 + n, range(1, n + 1)).read_bytes()) for n in range(4)]
    for length in range(whole[0], len(content)):
        path.write_bytes(content[:length])
        assert len(read_journal(path)) == sum(length >= end for end in whole[1:])


def test_a_flipped_byte_is_refused_or_ends_the_journal(tmp_path: Path) -> None:
    path = write(tmp_path, 0, 1, range(1, 4))
    content = path.read_bytes()
    expected = read_journal(path)
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            found = read_journal(path)
        except StateError:
            continue
        assert found == expected[: len(found)]
        assert len(found) < len(expected)


def test_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "000000000000-00000001.journal"
    for content in (b"", b"something else", MAGIC):
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"journal|damaged"):
            read_journal(path)


def test_journals_follow_each_other_from_a_checkpoint_on(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, range(1, 3))
    write(tmp_path, 2, 1, range(3, 4))
    write(tmp_path, 3, 2, range(0))  # a start after which nothing came
    write(tmp_path, 3, 3, range(4, 6))
    assert [each.batch for each in read_since(tmp_path, 0)] == [1, 2, 3, 4, 5]
    assert [each.batch for each in read_since(tmp_path, 3)] == [4, 5]
    journal.prune(tmp_path, 3)
    assert [each.batch for each in read_since(tmp_path, 3)] == [4, 5]
    with pytest.raises(StateError, match="batch 1 is missing"):
        read_since(tmp_path, 0)


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    path = write(tmp_path, 0, 1, range(1, 3))
    with pytest.raises(FileExistsError):
        write(tmp_path, 0, 1, range(1, 2))
    assert len(read_journal(path)) == 2


def test_a_batch_keeps_the_rules_it_was_applied_by(tmp_path: Path) -> None:
    others = LearnerSettings(expire_as="ham", window_messages=5).rules(StreamSettings(), 2)
    assert read_journal(write(tmp_path, 0, 1, range(1, 2), others))[0].rules == others


def test_one_journal_follows_another(tmp_path: Path) -> None:
    journals = Journals(tmp_path)
    for checkpoint in (0, 3, 6):
        journals.begin(Head(checkpoint, 1, RULES, LANES))
        for batch in range(checkpoint + 1, checkpoint + 4):
            journals.append(batch, batch - 1, spans(batch))
    journals.begin(Head(9, 1, RULES, LANES))
    journals.close()
    assert len(list(tmp_path.iterdir())) == 4
    assert read_since(tmp_path, 0) == [applied(batch) for batch in range(1, 10)]


def test_a_journal_for_which_there_is_no_room_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals, room = Journals(tmp_path), []
    make = Journal.__init__

    def full(self: Journal, path: Path, head: Head) -> None:
        if not room:
            raise DiskFull("no room")
        make(self, path, head)

    journals.begin(Head(0, 1, RULES, LANES))
    journals.append(1, 0, spans(1))
    monkeypatch.setattr(Journal, "__init__", full)
    journals.begin(Head(1, 1, RULES, LANES))
    for _ in range(3):
        with pytest.raises(DiskFull):
            journals.append(2, 1, spans(2))
    room.append(True)
    wait_until(lambda: journals.look() is None)
    journals.append(2, 1, spans(2))
    journals.close()
    assert read_since(tmp_path, 0) == [applied(1), applied(2)]


def test_a_journal_that_fails_says_so_without_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SyncFailed("the disk is failing")

    monkeypatch.setattr(Journal, "__init__", fail)
    journals = Journals(tmp_path)
    journals.begin(Head(0, 1, RULES, LANES))

    def failed() -> bool:
        try:
            journals.look()
        except SyncFailed:
            return True
        return False

    wait_until(failed)
    journals.close()


def test_to_settle_is_to_wait_for_the_one_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals, make = Journals(tmp_path), Journal.__init__
    asked = threading.Event()

    def slow(self: Journal, path: Path, head: Head) -> None:
        asked.wait(60)
        make(self, path, head)

    monkeypatch.setattr(Journal, "__init__", slow)
    journals.settle()  # there is none
    journals.begin(Head(0, 1, RULES, LANES))
    threading.Timer(0.1, asked.set).start()
    journals.settle()
    assert journal.path_of(tmp_path, 0, 1).is_file()
    journals.close()


@pytest.mark.parametrize(
    ("error", "is_told"), [(DiskFull("no room"), False), (SyncFailed("the disk is failing"), True)]
)
def test_to_settle_tells_of_a_disk_that_fails_and_not_of_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_told: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Journal, "__init__", fail)
    journals = Journals(tmp_path)
    journals.begin(Head(0, 1, RULES, LANES))
    try:
        journals.settle()
        told = False
    except SyncFailed:
        told = True
    assert told == is_told
    journals.close()


def test_what_one_that_was_overtaken_wrote_since_is_left_out(tmp_path: Path) -> None:
    """Its entries up to where the next learner took over count; those of later journals of its own do not."""
    write(tmp_path, 0, 1, range(1, 7))
    write(tmp_path, 3, 2, range(4, 6))
    write(tmp_path, 5, 1, range(6, 9))
    assert [(each.batch, each.rules) for each in read_since(tmp_path, 0)] == [(batch, RULES) for batch in range(1, 6)]
    assert [each.batch for each in read_since(tmp_path, 3)] == [4, 5]
    assert journal.last_epoch(tmp_path) == 2


def test_a_whole_entry_behind_a_damaged_one_is_looked_for_far_away(tmp_path: Path) -> None:
    """Not only at the next byte: an entry of thousands of partitions is long."""
    lanes = [TopicPartition("messages", number) for number in range(2000)]
    path = journal.path_of(tmp_path, 0, 1)
    written = Journal(path, Head(0, 1, RULES, lanes))
    begins = []
    for batch in (1, 2):
        begins.append(path.stat().st_size)
        written.append(batch, 0, [Span(lane, 10 * batch, 10 * batch + 10, 10) for lane in lanes])
    written.close()
    content = bytearray(path.read_bytes())
    content[begins[0] + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(StateError, match=f"the entry at byte {begins[0]} does not hold, and others follow"):
        read_journal(path)
    path.write_bytes(content[: begins[1]])
    assert read_journal(path) == [], "nothing follows: it may have been torn"


@pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 5000])
def test_a_torn_tail_may_be_zeros(tmp_path: Path, n: int) -> None:
    """An entry of no bytes would have the checksum of zeros."""
    path = write(tmp_path, 0, 1, range(1, 4))
    path.write_bytes(path.read_bytes() + bytes(n))
    assert read_journal(path) == [applied(batch) for batch in range(1, 4)]


def test_one_that_could_not_be_made_is_told_of_where_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SyncFailed("the disk is failing")

    journals = Journals(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__init__", fail)
        journals.begin(Head(0, 1, RULES, LANES))
        with pytest.raises(SyncFailed):
            journals.begin(Head(1, 1, RULES, LANES))
    journals.close()
