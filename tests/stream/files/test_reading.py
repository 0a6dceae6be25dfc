"""Files as people have them: every row of each is learned, or counted with the reason. In process, but for a few."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import sys
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.errors import ConfigError, DriftlineError
from driftline.stream.files.encoding import guess_encoding
from driftline.stream.files.ids import Ids, first_repeated, with_sound_ids
from driftline.stream.files.reader import BadRow, Format, LabelledTexts, Row
from driftline.stream.files.shuffle import shuffled

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Read:
    """What a file gave."""

    def __init__(self, path: Path, **form: Any) -> None:
        self.bad: list[BadRow] = []
        self.guesses: list[str] = []
        with LabelledTexts(path, on_bad_row=self.bad.append, form=Format(**form), on_guess=self.guesses.append) as file:
            self.rows: list[Row] = list(file)
        self.pairs = [(row.text, row.label) for row in self.rows]
        self.kinds = Counter(bad.kind for bad in self.bad)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Read]:
    def read(content: bytes | str, **form: Any) -> Read:
        path = tmp_path / "rows"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Read(path, **form)

    return read


SMS = [("Go until jurong point, crazy..", "ham"), ('"Hello" she said', "ham"), ("WINNER!! 900 prize", "spam")] * 20


class TestQuotes:
    """A quote that never closes is no quote."""

    @pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|", "^"])
    def test_a_quote_that_never_closes_costs_nothing(self, read: Callable[..., Read], delimiter: str) -> None:
        lines = [f"ham{delimiter}text {n}" for n in range(1000)]
        lines[1] = f'ham{delimiter}"text that never ends'
        found = read(f"label{delimiter}text\n" + "\n".join(lines) + "\n")
        assert (len(found.rows), found.bad) == (1000, [])
        assert found.rows[1].text == '"text that never ends'
        assert [row.line for row in found.rows] == list(range(2, 1002))

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_two_that_could_close_each_other(self, read: Callable[..., Read], end: str) -> None:
        lines = [f"{'spam' if n % 3 else 'ham'}\ttext {n}" for n in range(300)]
        lines[10], lines[200] = 'ham\t"begins', 'ham\tends"'
        lines[250] = 'spam\t"begins again'
        found = read("label\ttext" + end + end.join(lines))
        assert (len(found.rows), found.bad) == (300, [])
        assert (found.rows[10].text, found.rows[200].text) == ('"begins', 'ends"')

    def test_what_is_quoted_well_is_one_cell(self, read: Callable[..., Read]) -> None:
        text = 'Dear all,\nthis is "it",\n\nyours,\r\nme'
        file = io.StringIO(newline="")
        csv.writer(file).writerows([["text", "label"], [text, "ham"], ["b", "spam"], [text, "spam"], ["c", "ham"]])
        assert read(file.getvalue()).pairs == [(text, "ham"), ("b", "spam"), (text, "spam"), ("c", "ham")]

    def test_two_lines_of_a_letter_are_one_text(self, read: Callable[..., Read]) -> None:
        found = read('text,label\n"Hello John, how are you\nbye",ham\n"a, b",spam\n')
        assert found.pairs == [("Hello John, how are you\nbye", "ham"), ("a, b", "spam")]

    def test_quotes_within(self, read: Callable[..., Read]) -> None:
        found = read('text,label\n"a"b,x\n"""quoted""",x\n"say \\"hi\\", ok",x\n5" wide,x\n"",x\n')
        assert [text for text, _ in found.pairs] == ['"a"b', '"quoted"', 'say "hi", ok', '5" wide']
        assert read('text, label\n"a, b", "x, y"\n').pairs == [("a, b", "x, y")]
        assert found.kinds == {"without a text": 1}

    @given(
        rows=st.lists(
            st.tuples(
                st.text(st.sampled_from("ab\"\t '\\,"), min_size=1, max_size=8), st.sampled_from(["ham", "spam"])
            ),
            min_size=1,
        )
    )
    def test_lines_are_rows_or_counted(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
    ) -> None:
        path = tmp_path_factory.mktemp("rows") / "rows"
        lines = [f"{label}\t{text}" for text, label in rows]
        path.write_text("\n".join(["label\ttext", *lines]))
        found = Read(path)
        assert len(found.rows) + len(found.bad) == len(rows)


class TestWithoutHeader:
    def test_the_sms_file(self, read: Callable[..., Read]) -> None:
        found = read("".join(f"{label}\t{text}\n" for text, label in SMS))
        assert found.pairs == SMS
        assert found.bad == []
        assert "has no header: column 1 is taken for the label, column 2 for the text" in found.guesses[0]

    def test_the_text_first(self, read: Callable[..., Read]) -> None:
        assert read("".join(f"{text} {n};{label}\n" for n, (text, label) in enumerate(SMS))).pairs == [
            (f"{text} {n}", label) for n, (text, label) in enumerate(SMS)
        ]

    def test_columns_by_their_numbers(self, read: Callable[..., Read]) -> None:
        content = '"3","Title","A text"\n"1","Other","More, of it"\n'
        assert read(content, has_header=False, text_column="3", label_column="1").pairs == [
            ("A text", "3"),
            ("More, of it", "1"),
        ]
        with pytest.raises(ConfigError, match="3 columns have no names"):
            read(content, has_header=False)
        assert read("a\tb\n", has_header=False, text_column="2").pairs == [("b", "a")]
        assert read("a text\nand one\n", has_header=False).pairs == [("a text", None), ("and one", None)]

    def test_a_header_that_is_not_known_is_none_of_the_rows(self, read: Callable[..., Read]) -> None:
        with pytest.raises(ConfigError, match=r"no text column; the columns are 'kind', 'words'"):
            read("kind\twords\n" + "".join(f"{label}\t{text}\n" for text, label in SMS))
        with pytest.raises(ConfigError, match="no text column"):
            read("".join(f"{label}\t{text}\n" for text, label in SMS), has_header=True)

    def test_one_column(self, read: Callable[..., Read]) -> None:
        assert read('text\nhello, world; a|b\n"quoted, too"\n').pairs == [
            ("hello, world; a|b", None),
            ("quoted, too", None),
        ]


class TestDelimiters:
    @pytest.mark.parametrize("delimiter", [",", ";", "|", "^", "\t"])
    def test_each_is_seen(self, read: Callable[..., Read], delimiter: str) -> None:
        assert read(f"label{delimiter}text\nx{delimiter}a b\n").pairs == [("a b", "x")]

    @pytest.mark.parametrize(
        ("name", "delimiter"), [(":", ":"), ("tab", "\t"), ("\\t", "\t"), ("~", "~"), ("pipe", "|")]
    )
    def test_one_can_be_named(self, read: Callable[..., Read], name: str, delimiter: str) -> None:
        assert read(f"label{delimiter}text\nx{delimiter}a,b\n", delimiter=name).pairs == [("a,b", "x")]
        with pytest.raises(ConfigError, match="delimiter"):
            read("text\na\n", delimiter="::")

    @pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"'])
    def test_a_first_line_that_names_it(self, read: Callable[..., Read], first: str) -> None:
        assert read(f"{first}\ntext;label\na,b;x\n").pairs == [("a,b", "x")]

    def test_delimiters_at_the_end(self, read: Callable[..., Read]) -> None:
        found = read("label,text\nx,a,,,\ny,b\nz,c,,d\n")
        assert found.pairs == [("a", "x"), ("b", "y")]
        assert str(found.bad[0]).endswith("line 4: 4 columns, not 2")

    def test_lines_that_end_with_a_carriage_return(self, read: Callable[..., Read]) -> None:
        assert read("text,label\ra,x\rb,y").pairs == [("a", "x"), ("b", "y")]


RUSSIAN = "Привет, как дела? Ты придёшь сегодня вечером?"
LETTER = {
    "latin-1": "Viele Grüße aus München, schöne Ferien und bis später",
    "cp1252": "It’s “great” – don’t miss £100",
    "cp1250": "Gratulacje! Wygrałeś nagrodę, zadzwoń już dziś. Proszę",
    "cp1251": RUSSIAN,
    "koi8-r": RUSSIAN,
    "shift-jis": "おめでとうございます。賞金が当たりました",
    "gbk": "恭喜您获得大奖，请立即致电",
    "euc-kr": "안녕하세요 오늘 저녁에 만나요",
}


class TestEncodings:
    @pytest.mark.parametrize(
        "text",
        [
            "ação não é possível",
            "hôtel à côté de la forêt",
            "Näen sinut kotona, äiti odottaa meitä",
            "Café déjà vu à Noël, £5",
        ],
    )
    @pytest.mark.parametrize("n", [1, 2, 20])
    def test_accents_that_look_like_noise(self, text: str, n: int) -> None:
        raw = "".join(f"{text} {i}\ta\n" for i in range(n)).encode("latin-1")
        assert raw.decode(guess_encoding(raw)).startswith(text)

    @pytest.mark.parametrize("encoding", LETTER)
    def test_one_that_is_guessed_and_one_that_is_named(self, read: Callable[..., Read], encoding: str) -> None:
        rows = [(LETTER[encoding], "a"), ("plain", "b"), (LETTER[encoding] + "!", "a")]
        content = ("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)).encode(encoding)
        guessed = read(content)
        assert guessed.pairs == rows
        assert "which is a guess (--encoding says otherwise)" in guessed.guesses[0]
        named = read(content, encoding=encoding)
        assert (named.pairs, named.guesses) == (rows, [])

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037"])
    def test_unicode(self, read: Callable[..., Read], encoding: str) -> None:
        text = "x" if encoding == "cp037" else "\u0422 \u2028 \U0001f600 \u010a\u0a0d"
        content = f'text,label\r\n"{text}, a",x\r\nb,y\r\n'.encode(encoding)
        assert read(content, encoding=encoding).pairs == [(f"{text}, a", "x"), ("b", "y")]
        if encoding != "cp037":
            assert read(content).pairs == [(f"{text}, a", "x"), ("b", "y")]

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
    def test_json_in_another_encoding(self, read: Callable[..., Read], encoding: str) -> None:
        assert read('{"text": "Gr\u00fc\u00dfe aus K\u00f6ln", "label": "a"}\n'.encode(encoding)).pairs == [
            ("Gr\u00fc\u00dfe aus K\u00f6ln", "a")
        ]
        array = '[{"text": "Gr\u00fc\u00dfe aus K\u00f6ln"}, {"text": "b"}]'.encode(encoding)
        assert read(array).pairs == [("Gr\u00fc\u00dfe aus K\u00f6ln", None), ("b", None)]

    def test_it_is_guessed_late(self, read: Callable[..., Read]) -> None:
        content = b"text,label\n" + b"plain,a\n" * 100_000 + "caf\u00e9,b\n".encode("latin-1")
        found = read(content)
        assert (len(found.rows), found.pairs[-1], found.bad) == (100_001, ("caf\u00e9", "b"), [])

    def test_broken_bytes_cost_their_row(self, read: Callable[..., Read]) -> None:
        good = "Gr\u00fc\u00dfe,a\n".encode()
        found = read(b"text,label\n" + good + b"\xe9t\xe9,a\n" + good)
        assert (len(found.rows), found.kinds) == (2, {"not UTF-8": 1})
        assert "line 3: column 'text' contains bytes that are not UTF-8; --encoding says another" in str(found.bad[0])
        odd = "text,label\na,x\n".encode("utf-16-le") + b"\x00\xd8" + "b,y\nc,z\n".encode("utf-16-le")
        found = read(odd, encoding="utf-16-le")
        assert ([row.text for row in found.rows], len(found.bad)) == (["a", "c"], 1)

    def test_names_that_are_none(self, read: Callable[..., Read]) -> None:
        for name in ("utf-9", "rot13", "base64", ""):
            if name:
                with pytest.raises(ConfigError, match="encoding"):
                    read("text\na\n", encoding=name)

    @given(st.text(min_size=1))
    def test_utf_8_is_never_guessed_away(self, text: str) -> None:
        raw = text.encode()
        if not raw.isascii():
            assert guess_encoding(raw) == "utf-8"


class TestJson:
    @pytest.mark.parametrize("dump", [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
    @given(rows=st.lists(st.tuples(st.text(min_size=1).filter(lambda text: "\0" not in text), st.integers(0, 3))))
    def test_an_array(self, tmp_path_factory: pytest.TempPathFactory, dump: dict[str, Any], rows: Any) -> None:
        path = tmp_path_factory.mktemp("rows") / "rows"
        items = [{"label": label, "text": text, "more": [{"a": "]}"}, {}]} for text, label in rows]
        path.write_text("\ufeff" * bool(len(rows) % 2) + json.dumps(items, **dump), "utf-8", newline="")
        found = Read(path)
        assert found.pairs == [(text, str(label)) for text, label in rows]
        assert found.bad == []

    def test_an_item_that_is_none_costs_itself(self, read: Callable[..., Read]) -> None:
        items = ['{"text": "a"}', '{"text": nope}', "[1]", "5", '{"text": "b"}', '{"text": "c}', '{"text": "d"}']
        found = read("[" + ",\n".join(items) + "]")
        assert [row.text for row in found.rows] == ["a", "b", "d"]
        assert sum(found.kinds.values()) == 4
        assert str(found.bad[0]).split(": ")[0].endswith("item 2")
        found = read('[{"text": "a", "x": {"y": 1}, {"text": "b"}, {"text": "c"}]')
        assert [row.text for row in found.rows] == ["b", "c"]

    def test_objects_over_several_lines(self, read: Callable[..., Read]) -> None:
        rows = [{"text": "a\n}", "label": "x", "more": {"b": [1]}}, {"text": "b"}, {"text": None}]
        blocks = [json.dumps(row, indent=2) for row in rows]
        found = read("\n".join([blocks[0], "", blocks[1], "{\n", blocks[2]]) + "\n" + blocks[1])
        assert found.pairs == [("a\n}", "x"), ("b", None), ("b", None)]
        assert [(bad.line, bad.kind) for bad in found.bad] == [(14, "not JSON")]

    def test_an_array_without_an_end(self, read: Callable[..., Read]) -> None:
        found = read('[{"text": "a"}, {"text": "b"}, {"text"')
        assert [row.text for row in found.rows] == ["a", "b"]
        assert "the file ends before its array does" in found.bad[-1].why
        assert "more behind the end" in read('[{"text": "a"}] {"text": "b"}').bad[-1].why
        assert read('[{"text": "a"},]').pairs == [("a", None)]
        assert read('[null, {"text": "a"}]').pairs == [("a", None)]
        assert read('{"text": "a", "label": NaN}\n{"text": "NaN", "label": "b"}\n').pairs == [("a", None), ("NaN", "b")]

    def test_a_row_that_begins_with_a_bracket_is_no_array(self, read: Callable[..., Read]) -> None:
        rows = [("[URGENT] call " + str(n), "spam" if n % 2 else "ham") for n in range(9)]
        assert read("".join(f"{text}\t{label}\n" for text, label in rows)).pairs == rows

    def test_memory_holds_no_array(self, tmp_path: Path) -> None:
        path = tmp_path / "rows"
        with path.open("w") as file:
            file.write("[" + ",".join(json.dumps({"text": "word " * 200, "label": "a"}) for _ in range(20_000)) + "]")
        with LabelledTexts(path) as rows:
            tracemalloc.start()
            try:
                assert sum(1 for _ in rows) == 20_000
                assert tracemalloc.get_traced_memory()[1] < 8_000_000
            finally:
                tracemalloc.stop()


class TestPacked:
    PACK: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
        "zstd": zstd.compress,
    }

    @pytest.mark.parametrize("how", PACK)
    def test_it_is_unpacked(self, read: Callable[..., Read], how: str) -> None:
        raw = b"text,label\n" + b"".join(b"%d a,x\n" % n for n in range(5000))
        packed = self.PACK[how](raw)
        assert len(read(packed).rows) == 5000
        assert len(read(packed + self.PACK[how](b"b,y\n")).rows) in (5000, 5001)
        with pytest.raises(DriftlineError, match=f"the {how} stream is damaged after line"):
            read(packed[:-20])

    def test_it_may_be_packed_twice(self, read: Callable[..., Read]) -> None:
        for pack in self.PACK.values():
            with pytest.raises(ConfigError, match="is packed more than once, inside with gzip; unpack it"):
                read(pack(gzip.compress(b"text,label\na,b\n")))

    def test_what_is_in_it_may_be_none(self, read: Callable[..., Read]) -> None:
        for pack in self.PACK.values():
            with pytest.raises(ConfigError, match="is a PDF"):
                read(pack(b"%PDF-1.7 and so on"))

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["[Content_Types].xml", "xl/workbook.xml"], "an Excel workbook; save it as CSV"),
            (["mimetype"], "an OpenDocument file, as .ods is; save it as CSV"),
            (["word/document.xml"], "a Word document"),
            (["rows.csv"], "a zip archive of rows.csv; unpack it"),
            (["a.csv", "b.csv"], "a zip archive of 2 files; unpack it"),
        ],
    )
    def test_zipped_files_are_told_apart(self, tmp_path: Path, names: list[str], message: str) -> None:
        path = tmp_path / "rows.csv"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
        with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
            Read(path)


class TestParquet:
    def test_rows(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "rows"
        columns = {
            "id": pa.array([1, 2, 3, None, 5]),
            "text": pa.array(["a", "\u00fc", None, "", "e"]),
            "label": pa.array([1.0, float("nan"), 0.0, 2.5, None]),
            "time": pa.array([0, None, 1, 2, 3], pa.timestamp("ms")),
            "other": pa.array([[1]] * 5),
        }
        pq.write_table(pa.table(columns), path, row_group_size=2)
        found = Read(path)
        assert [row[:4] for row in found.rows] == [("1", "a", "1", 1), ("2", "\u00fc", None, 2), ("5", "e", None, 5)]
        assert found.rows[0].time is not None
        assert found.kinds == {"without a text": 2}
        assert str(found.bad[0]).split(": ")[0].endswith("row 3")
        pq.write_table(
            pa.table({"body": pa.array([b"x", b"\xff"]), "n": pa.array(["a", "b"]).dictionary_encode()}), path
        )
        found = Read(path, label_column="n")
        assert (found.pairs, found.kinds) == ([("x", "a")], {"not UTF-8": 1})
        with pytest.raises(ConfigError, match="no column 'x'; the columns are 'body', 'n'"):
            Read(path, text_column="x")
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ConfigError, match="begins as a Parquet file, and is none"):
            Read(path)

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (tmp_path / "rows").write_bytes(b"PAR1....PAR1")
        with pytest.raises(ConfigError, match=r"pip install 'driftline\[parquet\]'"):
            Read(tmp_path / "rows")


class TestIds:
    def test_a_number_that_repeats_is_no_id(self) -> None:
        rows = [Row(f"c{n % 10}", f"text {n}", None, n) for n in range(100)]
        found = first_repeated(rows)
        assert found is not None
        assert found.line == 10
        renamed = list(with_sound_ids(rows, lambda row: row._replace(id=None)))
        assert [row.id for row in renamed] == [f"c{n}" for n in range(10)] + [None] * 90
        assert [row.text for row in renamed] == [f"text {n}" for n in range(100)]
        assert len(list(with_sound_ids(rows, lambda _: None))) == 10

    def test_the_same_again_is_the_same(self) -> None:
        rows = [Row("a", "x", "ham", 1), Row("a", "x", "spam", 2), Row(None, "y", None, 3), Row(None, "z", None, 4)]
        assert first_repeated(rows) is None
        assert list(with_sound_ids(rows, lambda _: None)) == rows

    def test_memory_is_bounded_and_a_million_are_known(self) -> None:
        ids = Ids()
        size = ids._known.nbytes
        n = 300_000
        assert not any(ids.is_other(f"id {number}", "a") for number in range(n))
        assert sum(ids.is_other(f"id {number}", "b") for number in range(n)) > 0.97 * n
        assert ids._known.nbytes == size <= 1 << 24


class TestShuffle:
    def test_the_seed_decides_the_order(self) -> None:
        rows = [Row(str(n), f"text {n}", "a", n) for n in range(5000)]
        one, again, other = (list(shuffled(rows, seed)) for seed in (1, 1, 2))
        assert one == again != other
        assert one != rows
        assert sorted(one, key=lambda row: row.line) == rows

    def test_every_order_is_as_likely(self) -> None:
        rows = [Row(None, str(n), None, n) for n in range(3)]
        orders = Counter(tuple(row.line for row in shuffled(rows, seed)) for seed in range(600))
        assert len(orders) == 6
        assert min(orders.values()) > 60

    def test_memory_holds_a_part(self) -> None:
        rows = (Row(None, f"{n} " * 2000, None, n) for n in range(40_000))  # some 400 MB
        chance = random.Random(0)
        tracemalloc.start()
        try:
            assert sum(1 for _ in shuffled(rows, chance.randrange(9))) == 40_000
            assert tracemalloc.get_traced_memory()[1] < 100_000_000
        finally:
            tracemalloc.stop()


class TestNoText:
    @pytest.mark.parametrize("raw", [b"\0" * 99, b"\x04\x22\x4d\x18abc", "text,label\na,b\n".encode("utf-32-le")])
    def test_it_is_said_and_not_shown(self, read: Callable[..., Read], raw: bytes) -> None:
        with pytest.raises(ConfigError, match=r"holds no text that can be read here: .*--encoding says"):
            read(raw)

    def test_a_table_that_only_begins_as_something_else(self, read: Callable[..., Read]) -> None:
        assert read("ORCID,text,label\n1,a,x\n").pairs == [("a", "x")]
        table = read("SQLite is small\tdb\nruff is fast\tlint\nSQLite again\tdb\n")
        assert table.pairs[0] == ("SQLite is small", "db")
        with pytest.raises(ConfigError, match="an ORC file"):
            read(b"ORC\x0a\x05\x00abc")

    def test_one_column_may_have_another_delimiter(self, read: Callable[..., Read]) -> None:
        with pytest.raises(ConfigError, match="or --delimiter, if something else"):
            read("body text:label\na:b\n")
