"""Does the catalogue hold what the log does, on both logs, whatever comes twice, late, goes, or breaks?"""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.catalogue import file
from driftline.learner.catalogue.file import Unusable
from driftline.learner.catalogue.keeping import LOCK, Keeper, Progress
from driftline.learner.catalogue.search import COUNTED, Filters, Listed, Search
from driftline.learner.disk.lock import alone
from driftline.learner.rebuild.erase import Erased, take_up
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import Log, NewRecord, Place, TopicPartition
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.fielded import join
from driftline.stream.wire.note import MAX_NOTE_CHARS, Noted, read_note
from driftline.stream.wire.records import Feedback, Message, Prediction, encode, encode_record
from tests.data import ROOT
from tests.grep import grep
from tests.logs import Open
from tests.waiting import wait_until


class Scene:
    """A log, and a catalogue of it."""

    def __init__(self, log: Log, stream: StreamSettings) -> None:
        self.log, self.stream = log, stream
        log.create_topics(stream.topics)
        self.search = Search(stream.data)
        self._at_ms = time.time_ns() // 1_000_000 - 100_000

    def put(self, *records: Message | Feedback | Prediction, at_ms: int | None = None) -> None:
        for each in records:
            key = each.id if isinstance(each, Message) else each.message_id
            messages, feedback, predictions, _ = self.stream.topics
            topic = {Message: messages, Prediction: predictions}.get(type(each), feedback)
            self._at_ms += 10  # what has the same time has no order
            value = encode(each) if isinstance(each, Prediction) else encode_record(each)
            self.log.append(topic, [NewRecord(key.encode(), value, at_ms or self._at_ms)])

    def catch_up(self, limit: int = 1000) -> Progress:
        Keeper(self.stream, limit).catch_up()
        return self.search.progress()

    def found(self, query: str = "", order: Any = "old", **filters: Any) -> list[str]:
        return [each.id for each in self.search.page(Filters(query, **filters), order).messages]

    def one(self, key: str) -> Listed:
        (found,) = [each for each in self.search.page(Filters(), n=500).messages if each.id == key]
        return found


def said(key: str, label: str | None, score: float = 0.5) -> Prediction:
    return Prediction(key, label, score, {} if label is None else {label: score}, "v-1", "2026-01-01T00:00:00Z")


@pytest.fixture(params=["sqlite", "sqlite, 3 partitions", "kafka"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, opened: Open, prefix: str) -> Iterator[Scene]:
    """Give a scene on each kind of log."""
    kind = request.param
    url = f"sqlite:///{tmp_path / 'log.db'}" if "sqlite" in kind else f"kafka://{request.getfixturevalue('kafka')}"
    n = 1 if kind == "sqlite" else 3
    scene = Scene(opened(url, partitions=n), StreamSettings(data=tmp_path / "data", log=url, prefix=prefix))
    yield scene
    scene.search.close()


@pytest.fixture
def here(tmp_path: Path, opened: Open, prefix: str) -> Iterator[Scene]:
    """Give a scene on a file."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    scene = Scene(opened(url), StreamSettings(data=tmp_path / "data", log=url, prefix=prefix))
    yield scene
    scene.search.close()


class TestBothLogs:
    def test_it_has_what_was_said_of_each_message(self, scene: Scene) -> None:
        for n in range(30):
            scene.put(Message(f"m{n}", f"hello number {n}"))
            if n % 3:
                scene.put(said(f"m{n}", "ab"[n % 2], n / 30))
            if n % 2:
                scene.put(Noted(f"m{n}", "a", source="alice", weight=2.0, note=f"of {n}"))
        progress = scene.catch_up()
        assert (progress.ready, progress.indexed, progress.behind, progress.problem) == (True, 30, 0, None)
        assert set(scene.found()) == {f"m{n}" for n in range(30)}
        assert set(scene.found(state="labelled")) == {f"m{n}" for n in range(1, 30, 2)}
        assert set(scene.found(state="unlabelled")) == {f"m{n}" for n in range(0, 30, 2)}
        mistakes = {f"m{n}" for n in range(30) if n % 3 and n % 2 and "ab"[n % 2] != "a"}
        assert set(scene.found(state="mistakes")) == mistakes
        assert set(scene.found(predicted="a")) == {f"m{n}" for n in range(0, 30, 2) if n % 3}
        assert set(scene.found(source="alice", label="a")) == {f"m{n}" for n in range(1, 30, 2)}
        assert scene.found(source="bob") == []
        doubt = scene.found(order="doubt")
        assert doubt[:20] == [f"m{n}" for n in range(30) if n % 3], "what was not predicted comes last"
        assert scene.found("number 17") == ["m17"]
        one = scene.one("m17")
        assert (one.label, one.label_source, one.label_weight, one.note) == ("a", "alice", 2.0, "of 17")
        assert (one.predicted, one.score, one.model_version, one.n_labels) == ("b", 17 / 30, "v-1", 1)
        whole = scene.search.whole("m17")
        assert whole is not None
        assert whole.text == "hello number 17"
        assert [each.note for each in whole.labels] == ["of 17"]
        assert [each.scores for each in whole.predictions] == [{"b": 17 / 30}]

    def test_it_goes_on_behind_what_it_had(self, scene: Scene) -> None:
        scene.put(Message("m1", "one"))
        scene.catch_up()
        name = file.newest(scene.stream.data)
        scene.put(Message("m2", "two"), Feedback("m1", "x"))
        assert scene.catch_up().indexed == 2
        assert file.newest(scene.stream.data) == name
        assert scene.one("m1").label == "x"

    def test_it_begins_so_many_messages_back_and_never_holds_more(self, scene: Scene) -> None:
        for n in range(60):
            scene.put(Message(f"m{n}", f"text {n}"), Feedback(f"m{n}", "x"))
        assert scene.catch_up(limit=20).indexed <= 20
        before = set(scene.found())
        assert len(before) >= 18, "shares are rounded down"
        for n in range(60, 90):
            scene.put(Message(f"m{n}", f"text {n}"))
        assert scene.catch_up(limit=20).indexed == 20
        assert set(scene.found()) <= {f"m{n}" for n in range(60, 90)}
        assert scene.found("text 0") == [], "its words went with it"
        assert scene.search.whole("m0") is None

    def test_without_predictions(self, tmp_path: Path, scene: Scene) -> None:
        prefix = scene.stream.prefix + "other."
        stream = scene.stream.model_copy(update={"prefix": prefix, "data": tmp_path / "other"})
        scene.log.create_topics(StreamSettings(prefix=prefix).topics[:2])
        scene.log.append(f"{prefix}messages", [NewRecord(b"m", encode(Message("m", "text")))])
        Keeper(stream, 10).catch_up()
        assert [each.id for each in Search(stream.data).page(Filters()).messages] == ["m"]


class TestWhatIsTheSame:
    """The rules of the join."""

    def test_a_message_that_comes_again_is_one(self, here: Scene) -> None:
        here.put(Message("m", "text"), Message("m", "text"))
        assert here.catch_up().indexed == 1

    def test_an_id_with_another_text_is_another_message(self, here: Scene) -> None:
        here.put(Message("m", "one"), Feedback("m", "a"), Message("m", "two"), Feedback("m", "b"))
        here.put(Feedback("m", "c", text="one"))
        here.catch_up()
        found = {each.text: each.label for each in here.search.page(Filters()).messages}
        assert found == {"one": "c", "two": "b"}
        whole = here.search.whole("m")
        assert whole is not None
        assert (whole.text, [each.label for each in whole.labels]) == ("two", ["b"])

    def test_a_label_may_come_first(self, here: Scene) -> None:
        here.put(Feedback("m", "early"), said("m", "p"))
        here.catch_up()
        assert here.found() == []
        here.put(Message("m", "text"))
        here.catch_up()
        assert (here.one("m").label, here.one("m").predicted, here.one("m").n_labels) == ("early", "p", 1)

    def test_a_label_may_bring_its_text(self, here: Scene) -> None:
        here.put(Feedback("m", "a", text=join("brought", {"sender": "x@y"})))
        here.catch_up()
        assert (here.one("m").text, here.one("m").fields, here.one("m").label) == ("brought", {"sender": "x@y"}, "a")
        here.put(Message("m", join("brought", {"sender": "x@y"}), metadata=_raw(b'{"k":1}')))
        assert here.catch_up().indexed == 1
        whole = here.search.whole("m")
        assert whole is not None
        assert whole.metadata == {"k": 1}
        here.put(Feedback("m", "b", text="brought"))
        assert here.catch_up().indexed == 1, "its text, without the fields"
        assert here.one("m").label == "b"

    def test_the_last_word_counts_and_all_are_kept(self, here: Scene) -> None:
        here.put(Message("m", "text"), Feedback("m", "a", id="1"), Feedback("m", "b", id="2"))
        here.put(Feedback("m", "b", id="2"), Feedback("m", "c", id="2"))
        here.catch_up()
        assert (here.one("m").label, here.one("m").n_labels) == ("c", 3)
        here.put(Feedback("m", "", op="retract", source="bob"))
        here.catch_up()
        one = here.one("m")
        assert (one.label, one.retracted, one.n_labels, one.label_source) == (None, True, 4, "bob")
        assert here.found(state="unlabelled") == ["m"]
        whole = here.search.whole("m")
        assert whole is not None
        assert [(each.label, each.op) for each in whole.labels] == [
            ("a", "upsert"),
            ("b", "upsert"),
            ("c", "upsert"),
            (None, "retract"),
        ]
        here.put(Feedback("m", "a", id="1"))
        here.catch_up()
        assert here.one("m").retracted, "what comes again says nothing new"

    def test_what_cannot_be_read_is_left_out(self, here: Scene) -> None:
        topics = here.stream.topics
        for topic in topics[:3]:
            here.log.append(topic, [NewRecord(b"k", b"{"), NewRecord(b"k", None), NewRecord(None, b"\xff\0")])
        here.put(Message("m", "text"))
        assert here.catch_up().indexed == 1
        assert here.found() == ["m"]


class TestWords:
    @pytest.fixture
    def texts(self, here: Scene) -> Scene:
        here.put(
            Message("cafe", 'Un café déjà vu, "rien" d\'autre'),
            Message("ja", "今日は東京で会議があります。"),
            Message("th", "ขอบคุณมากสำหรับความช่วยเหลือ"),
            Message("fields", join("short", {"sender": "alice@example.org", "tags": ["urgent", "vip"]})),
            Message("order", "alpha beta gamma"),
        )
        here.catch_up()
        return here

    @pytest.mark.parametrize(
        ("query", "ids"),
        [
            ("cafe", ["cafe"]),
            ("DÉJÀ vu", ["cafe"]),
            ("rien", ["cafe"]),
            ("東京", ["ja"]),
            ("京", ["ja"]),
            ("会議が", ["ja"]),
            ("京東", []),
            ("มาก", ["th"]),
            ("alice@example.org", ["fields"]),
            ("vip short", ["fields"]),
            ("gamma alpha", ["order"]),
            ('"alpha beta"', ["order"]),
            ('"beta alpha"', []),
            ('"alpha beta', ["order"]),
            ("gam*", ["order"]),
            ("gam", []),
            ("gam* bet*", ["order"]),
            ("text:alpha", []),
            ("-alpha", ["order"]),
            ("alpha AND beta", []),
            ("alpha NOT beta", []),
            ("*", []),
            ("!!!", []),
            ("alpha !!!", ["order"]),
        ],
    )
    def test_words(self, texts: Scene, query: str, ids: Sequence[str]) -> None:
        assert texts.found(query) == list(ids)

    @pytest.mark.parametrize(
        "query",
        [
            *('"', '""', "'", "(", ")", "alpha)", "NEAR(alpha beta)", "^alpha", "{text} : alpha", "a\0b", "\0", "\x01"),
            *("--", "/*", ";", "alpha;DROP TABLE messages", '"a" "', "a*b*", "**", '"*', "\ud800"),
            *("\ufffe", "\U0001f600", "🙂*", "a" * 1000, "x " * 500, "́", "+alpha", "a OR"),
        ],
    )
    def test_nothing_that_is_typed_is_an_error(self, texts: Scene, query: str) -> None:
        texts.search.page(Filters(query))
        assert len(texts.found()) == 5

    def test_too_much_is_refused(self, texts: Scene) -> None:
        with pytest.raises(ConfigError, match="query: it has"):
            texts.search.page(Filters("x" * 1001))


class TestPages:
    @pytest.mark.parametrize("order", ["new", "old", "doubt"])
    @pytest.mark.parametrize("query", ["", "text"])
    def test_all_of_them_once_whatever_comes_meanwhile(self, here: Scene, order: Any, query: str) -> None:
        for n in range(25):
            here.put(Message(f"m{n}", f"text {n}"), said(f"m{n}", "a", (n % 4) / 4))
        here.catch_up()
        seen: list[str] = []
        after = None
        while True:
            page = here.search.page(Filters(query), order, 7, after)
            seen += [each.id for each in page.messages]
            after = page.next
            if after is None:
                break
            here.put(Message(f"later{len(seen)}", "text"), said(f"later{len(seen)}", "a", 0.99))
            here.catch_up()
        ours = [key for key in seen if key.startswith("m")]
        assert sorted(ours) == sorted(f"m{n}" for n in range(25))
        if order != "doubt":
            assert ours == [f"m{n}" for n in (range(25) if order == "old" else range(24, -1, -1))]
        assert len(seen) == len(set(seen))

    def test_a_cursor_is_of_its_order_and_of_its_file(self, here: Scene) -> None:
        for n in range(3):
            here.put(Message(f"m{n}", "text"))
        here.catch_up()
        after = here.search.page(Filters(), "new", 1).next
        for wrong in ("", "x", "a.b.c", f"{after}0" * 9, "1.new.0x0p+0.-1", str(after).replace("new", "old")):
            with pytest.raises(ConfigError, match=r"no `next`|made anew"):
                here.search.page(Filters(), "new", 1, wrong)
        path = file.newest(here.stream.data)
        assert path is not None
        file.remove(path)
        here.catch_up()
        with pytest.raises(ConfigError, match="made anew since"):
            here.search.page(Filters(), "new", 1, after)

    def test_time_and_count(self, here: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        for n in range(20):
            here.put(Message(f"m{n}", "text"), at_ms=1_700_000_000_000 + n * 1000)
        here.catch_up()
        assert here.found(since_ms=1_700_000_005_000, until_ms=1_700_000_008_000) == ["m5", "m6", "m7"]
        page = here.search.page(Filters())
        assert (page.total, page.is_exact) == (20, True)
        assert page.progress.oldest_ms == 1_700_000_000_000
        monkeypatch.setattr("driftline.learner.catalogue.search.COUNTED", 10)
        assert COUNTED > 10
        page = here.search.page(Filters("text"))
        assert (page.total, page.is_exact) == (10, False)


class TestWhatGoes:
    def test_what_the_log_has_dropped(self, here: Scene) -> None:
        for n in range(10):
            here.put(Message(f"m{n}", f"old {n}"), Feedback(f"m{n}", "a"), said(f"m{n}", "a"))
        here.put(Feedback("l", "a", text="by a label"))
        assert here.catch_up().indexed == 11
        drop_all(here)
        assert here.catch_up().indexed == 0
        assert here.found() == []
        with sqlite3.connect(file.newest(here.stream.data) or "") as db:
            for table in ("messages", "texts", "labels", "predictions"):
                assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
            assert db.execute("SELECT count(*) FROM words WHERE words MATCH 'old'").fetchone() == (0,)
        db.close()

    def test_what_is_beyond_another_limit(self, here: Scene) -> None:
        for n in range(10):
            here.put(Message(f"m{n}", "text"))
        here.catch_up()
        assert here.catch_up(limit=3).indexed == 3
        assert here.found() == ["m7", "m8", "m9"]

    def test_what_was_erased_leaves_no_byte(self, here: Scene) -> None:
        here.put(Message("m1", "Erika Mustermann"), Noted("m1", "a", note="Mustermann again"), Message("m2", "kept"))
        here.catch_up()
        assert grep(here.stream.data, "Mustermann")
        topics = here.stream.topics
        for topic in topics[:2]:
            here.log.erase({TopicPartition(topic, 0): [Place(0, b"m1", 0)]})
        take_up(here.stream.data, Erased(asked_at="a", done_at="b", ids=[], sources=[], records={}, checkpoint=1))
        assert grep(here.stream.data, "Mustermann") == []
        assert here.found() == []
        assert here.catch_up().indexed == 1
        assert here.found() == ["m2"]
        assert grep(here.stream.data, "Mustermann") == []

    def test_what_was_erased_and_the_log_still_has(self, here: Scene) -> None:
        here.put(Message("m1", "Erika Mustermann"), Message("m2", "kept"))
        left = {here.stream.topics.messages: {"0": [0]}}
        erased = Erased(asked_at="a", done_at="b", ids=[], sources=[], records={}, checkpoint=1, left=left)
        here.stream.data.mkdir()
        take_up(here.stream.data, erased)
        assert here.catch_up().indexed == 1
        assert grep(here.stream.data, "Mustermann") == []


class TestWhatBreaks:
    @pytest.mark.parametrize("how", ["cut", "zeros", "text", "empty", "gone", "no tables"])
    def test_a_damaged_file_is_made_anew(self, here: Scene, how: str) -> None:
        for n in range(50):
            here.put(Message(f"m{n}", f"text {n} " * 50))
        here.catch_up()
        here.search.close()
        path = file.newest(here.stream.data)
        assert path is not None
        if how == "gone":
            file.remove(path)
        elif how == "no tables":
            with sqlite3.connect(path) as db:
                db.execute("DROP TABLE texts")
            db.close()
        else:
            size = path.stat().st_size
            contents = {
                "cut": path.read_bytes()[: size // 2],
                "zeros": bytes(size),
                "text": b"no database",
                "empty": b"",
            }
            path.write_bytes(contents[how])
        here.search.page(Filters())  # whatever it finds
        here.put(Message("more", "text"))
        assert here.catch_up().indexed == 51
        assert len(here.found("text")) == 50, "a page"

    def test_of_another_log_it_is_made_anew(self, here: Scene, opened: Open, tmp_path: Path) -> None:
        here.put(Message("m", "text"))
        here.catch_up()
        url = f"sqlite:///{tmp_path / 'another.db'}"
        other = Scene(opened(url), here.stream.model_copy(update={"log": url}))
        other.put(Message("o", "text"))
        other.catch_up()
        assert other.found() == ["o"]

    def test_one_process_reads_at_a_time(self, here: Scene) -> None:
        here.put(Message("m", "text"))
        here.catch_up()
        here.put(Message("n", "text"))
        with alone(here.stream.data / LOCK, "held"):
            keeper = Keeper(here.stream, 10)
            keeper.ask()
            wait_until(lambda: keeper._thread is not None and keeper._thread.is_alive())
            assert here.found() == ["m"]
            assert keeper.progress is None
            assert keeper.problem is None
        wait_until(lambda: here.found() == ["m", "n"])
        keeper.close()

    def test_killed_in_the_middle_it_goes_on(self, here: Scene) -> None:
        topic = here.stream.topics.messages
        for start in range(0, 6000, 1000):
            keys = [f"m{n}" for n in range(start, start + 1000)]
            here.log.append(topic, [NewRecord(key.encode(), encode(Message(key, f"text of {key}"))) for key in keys])
        script = (
            "import sys; from pathlib import Path\n"
            "from driftline.stream.process.settings import StreamSettings\n"
            "from driftline.learner.catalogue.keeping import Keeper\n"
            "stream = StreamSettings(data=Path(sys.argv[1]), log=sys.argv[2], prefix=sys.argv[3])\n"
            "Keeper(stream, 10**6).catch_up(lambda progress: print(progress.indexed, flush=True))\n"
        )
        arguments = [sys.executable, "-c", script, here.stream.data, here.stream.log_url, here.stream.prefix]
        child = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True
        )
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 1000:
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        path = file.newest(here.stream.data)
        assert here.catch_up(10**6).indexed == 6000
        assert file.newest(here.stream.data) == path, "the same file"
        page = here.search.page(Filters("text of"))
        assert page.total == 6000

    def test_a_full_disk_is_said_and_ends(self, here: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was there can be asked for meanwhile, and all is there once there is room."""
        connect, room = file.connect, [60]

        def small(path: Path, **options: Any) -> sqlite3.Connection:
            db = connect(path, **options)
            db.execute(f"PRAGMA max_page_count = {room[0]}")
            return db

        monkeypatch.setattr(file, "connect", small)
        here.put(Message("m", "first"))
        here.catch_up()
        for n in range(50):
            here.put(Message(f"m{n}", f"text {n} " * 2000))
        keeper = Keeper(here.stream, 1000)
        keeper.ask()
        wait_until(lambda: keeper.problem is not None)
        assert "the disk is full; free some space" in str(keeper.problem)
        assert "m" in here.found("first")
        room[0] = 1 << 30
        wait_until(lambda: keeper.ask() or here.search.progress().indexed == 51)  # type: ignore[func-returns-value]
        wait_until(lambda: keeper.problem is None)
        keeper.close()

    def test_large_and_odd_texts(self, here: Scene) -> None:
        """Whatever the log takes: 300 KB, half characters and NULs in what is no text."""
        topic = here.stream.topics.messages
        large = "日本 word " * 40_000
        values = [
            encode(Message("large", large)),
            b'{"id":"half","text":"half \\ud83d of one"}',
            b'{"id":"meta","text":"t","metadata":{"k":"\\u0000\\ud800","n":1e999}}',
            b'{"id":"deep","text":"t","metadata":' + b'{"a":' * 50 + b"1" + b"}" * 50 + b"}",
            b'{"id":"\\u0000","text":"no id"}',
            b'{"id":"nul","text":"no \\u0000 text"}',
        ]
        here.log.append(topic, [NewRecord(b"k", value) for value in values])
        feedback = here.stream.topics.feedback
        odd = b'{"message_id":"half","label":"a","source":"s\\u0000\\ud800","note":"\\u0000\\udfff"}'
        here.log.append(feedback, [NewRecord(b"k", odd)])
        here.catch_up()
        found = {each.id: each for each in here.search.page(Filters()).messages}
        assert found.keys() >= {"large", "half"}
        assert found.keys() <= {"large", "half", "meta", "deep"}
        assert found["half"].text == "half \ufffd of one"
        assert found["half"].label == "a"
        assert (found["large"].truncated, len(found["large"].text)) == (True, 500)
        for key in found:
            whole = here.search.whole(key)
            assert whole is not None
            encode(whole)
        assert here.found("本 word") == ["large"]

    def test_a_directory_that_cannot_be_made_is_said(self, here: Scene) -> None:
        here.stream.data.mkdir()
        (here.stream.data / "catalogue").write_text("in the way")
        with pytest.raises(Unusable, match="cannot be made"):
            here.catch_up()
        keeper = Keeper(here.stream, 10)
        keeper.ask()
        wait_until(lambda: keeper.problem is not None)
        assert "cannot be made" in str(keeper.problem)
        (here.stream.data / "catalogue").unlink()
        wait_until(lambda: keeper.problem is None and keeper.progress is not None)
        keeper.close()


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (b'{"message_id":"m","label":"a","note":"why"}', "why"),
        (b'{"message_id":"m","label":"a"}', None),
        (b'{"note":3}', None),
        (b'{"note":"', None),
        (b'{"note":""}', None),
        (b'{"specversion":"1.0","data":{"note":"inside"}}', "inside"),
        (b'{"note":"half \\ud800"}', "half \ufffd"),
        (b'{"note":"' + b"x" * 5000 + b'"}', "x" * MAX_NOTE_CHARS),
    ],
)
def test_notes(value: bytes, note: str | None) -> None:
    assert read_note(value) == note


def drop_all(scene: Scene) -> None:
    """Have the log drop what it has, as its retention does."""
    path = scene.stream.log_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as db:
        for number, high in db.execute("SELECT id, high FROM partitions").fetchall():
            db.execute(f"DELETE FROM records_{number}")
            db.execute("UPDATE partitions SET low = ? WHERE id = ?", (high, number))
    db.close()


def _raw(value: bytes) -> Any:
    import msgspec  # noqa: PLC0415

    return msgspec.Raw(value)
