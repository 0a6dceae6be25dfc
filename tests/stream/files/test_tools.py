"""What do the exports of other labelling tools give? Files as those tools write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import BadRow, Format, LabelledTexts, Row
from driftline.stream.wire.fielded import split


def choice(label: str | list[str], name: str = "sentiment") -> dict[str, Any]:
    choices = [label] if isinstance(label, str) else label
    return {
        "value": {"choices": choices},
        "id": "zLSY-XLk64",
        "from_name": name,
        "to_name": "text",
        "type": "choices",
        "origin": "manual",
    }


def annotation(by: object, *results: dict[str, Any], at: str = "2024-05-01T10:00:00.000000Z", **more: Any) -> Any:
    return {
        "id": 77,
        "completed_by": by,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": at,
        "updated_at": at,
        "lead_time": 4.288,
        "task": 1,
        **more,
    }


def task(number: int, text: str, *annotations: Any, **data: Any) -> Any:
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": "f4c5-texts.csv",
        "drafts": [],
        "predictions": [],
        "data": {"text": text, **data},
        "meta": {},
        "created_at": "2024-05-01T09:00:00.000000Z",
        "updated_at": "2024-05-01T10:00:00.000000Z",
        "project": 83,
    }


def read(path: Path, content: object, *, lines: bool = False, **form: Any) -> tuple[list[Row], list[BadRow]]:
    """Write a file, and return what is read of it."""
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content, indent=2))  # type: ignore[call-overload]
    bad: list[BadRow] = []
    with LabelledTexts(path, on_bad_row=bad.append, form=Format(**form)) as rows:
        return list(rows), bad


def brief(rows: list[Row]) -> list[tuple[object, ...]]:
    return [(row.id, split(row.text)[0], row.label, row.said.source) for row in rows]


class TestLabelStudio:
    def test_json(self, tmp_path: Path) -> None:
        mail = {"id": 10, "email": "ann@example.org", "first_name": "", "last_name": ""}
        content = [
            task(1, "good", annotation(10, choice("Positive")), sender="x@y"),
            task(2, "bad", annotation(mail, choice("Negative"))),
            task(3, "nobody has", sender="z"),
            task(4, "skipped", annotation(10, choice("Positive"), was_cancelled=True)),
            task(5, "empty", annotation(10)),
            task(6, "two labels", annotation(10, choice(["Positive", "Negative"]))),
        ]
        rows, bad = read(tmp_path / "project-1.json", content, field_columns=("sender",))
        assert brief(rows) == [
            ("1", "good", "Positive", "10"),
            ("2", "bad", "Negative", "ann@example.org"),
            ("3", "nobody has", None, None),
            ("4", "skipped", None, None),
            ("5", "empty", None, None),
        ]
        assert split(rows[0].text)[1] == {"sender": "x@y"}
        assert [(each.line, each.kind) for each in bad] == [(6, "with several labels")]

    def test_most_of_several_people_and_of_as_many_the_last(self, tmp_path: Path) -> None:
        early, late = "2024-05-01T10:00:00Z", "2024-05-02T10:00:00Z"
        content = [
            task(1, "a", *(annotation(by, choice(label)) for by, label in ((1, "x"), (2, "y"), (3, "x")))),
            task(2, "b", annotation(1, choice("x"), at=late), annotation(2, choice("y"), at=early)),
            task(3, "c", annotation(1, choice("x"), at=early), annotation(2, choice("y"), at=late)),
        ]
        rows, _ = read(tmp_path / "p.json", content)
        assert brief(rows) == [("1", "a", "x", "3"), ("2", "b", "x", "1"), ("3", "c", "y", "2")]

    def test_the_question_can_be_named(self, tmp_path: Path) -> None:
        content = [task(1, "a", annotation(1, choice("yes", "urgent"), choice("spam", "kind")))]
        assert brief(read(tmp_path / "p.json", content)[0])[0][2] == "yes"
        assert brief(read(tmp_path / "p.json", content, label_column="kind")[0])[0][2] == "spam"

    def test_the_text_can_be_named(self, tmp_path: Path) -> None:
        content = [task(1, "no", annotation(1, choice("x")), review="this one")]
        assert brief(read(tmp_path / "p.json", content, text_column="review")[0]) == [("1", "this one", "x", "1")]
        other = [{**content[0], "data": {"reviewText": "the only text", "stars": 5}}]
        assert brief(read(tmp_path / "p.json", other)[0]) == [("1", "the only text", "x", "1")]

    def test_json_min(self, tmp_path: Path) -> None:
        end = {"created_at": "2024-05-01T10:00:00Z", "updated_at": "2024-05-01T10:00:01Z", "lead_time": 3.2}
        content = [
            {"text": "good", "id": 1, "sentiment": "Positive", "annotator": 10, "annotation_id": 7, **end},
            {"text": "bad", "id": 2, "sentiment": "Negative", "annotator": 11, "annotation_id": 8, **end},
            {"text": "none", "id": 3, "annotator": 11, "annotation_id": 9, **end},
            {"text": "two", "id": 4, "sentiment": {"choices": ["a", "b"]}, "annotator": 1, "annotation_id": 1, **end},
        ]
        rows, bad = read(tmp_path / "min.json", content)
        assert brief(rows) == [
            ("1", "good", "Positive", "10"),
            ("2", "bad", "Negative", "11"),
            ("3", "none", None, "11"),
        ]
        assert [each.kind for each in bad] == ["with several labels"]


class TestProdigy:
    def test_binary(self, tmp_path: Path) -> None:
        own = {"_input_hash": -1530009927, "_task_hash": -340967702, "_view_id": "classification"}
        content = [
            {"text": "A", "label": "economy", "score": 0.06, "answer": "accept", "_annotator_id": "db-ann", **own},
            {"text": "B", "label": "economy", "answer": "reject", "_session_id": "db-bob", **own, "_input_hash": 5},
            {"text": "C", "label": "economy", "answer": "ignore", "meta": {"id": "c1"}, **own},
        ]
        rows, bad = read(tmp_path / "db.jsonl", content, lines=True)
        assert bad == []
        assert brief(rows) == [
            ("-1530009927", "A", "economy", "db-ann"),
            ("5", "B", None, "db-bob"),
            ("c1", "C", None, None),
        ]

    def test_choice(self, tmp_path: Path) -> None:
        options = [{"id": "S", "text": "spam"}, {"id": "H", "text": "ham"}]
        content = [
            {
                "text": "A",
                "options": options,
                "accept": ["S"],
                "config": {"choice_style": "single"},
                "answer": "accept",
            },
            {"text": "B", "options": options, "accept": [], "answer": "accept"},
            {"text": "C", "options": options, "accept": ["S", "H"], "answer": "accept"},
            {"text": "D", "options": options, "accept": ["H"], "answer": "ignore"},
        ]
        rows, bad = read(tmp_path / "db.jsonl", content, lines=True)
        assert [(row.text, row.label) for row in rows] == [("A", "S"), ("B", None), ("D", None)]
        assert [each.kind for each in bad] == ["with several labels"]


class TestArgilla:
    def record(self, number: int, text: str, *answers: tuple[str, str], **more: Any) -> Any:
        return {
            "id": f"r{number}",
            "fields": {"text": text},
            "metadata": {"sender": "x@y"},
            "suggestions": {"label": {"value": "guess", "score": 0.4, "agent": "model"}},
            "responses": {"label": [{"value": label, "user_id": by} for by, label in answers]} if answers else {},
            "vectors": {},
            "status": "completed" if answers else "pending",
            "_server_id": "5cb0ab8d",
            **more,
        }

    def test_nested(self, tmp_path: Path) -> None:
        content = [
            self.record(1, "good", ("u1", "pos")),
            self.record(2, "most", ("u1", "neg"), ("u2", "pos"), ("u3", "neg")),
            self.record(3, "nobody has"),
        ]
        draft = {"label": [{"value": "x", "user_id": "u", "status": "draft"}]}
        content.append(self.record(4, "not sent", responses=draft))
        rows, bad = read(tmp_path / "records.json", content, field_columns=("sender",))
        assert bad == []
        assert brief(rows) == [
            ("r1", "good", "pos", "u1"),
            ("r2", "most", "neg", "u3"),
            ("r3", "nobody has", None, None),
            ("r4", "not sent", None, None),
        ]
        assert split(rows[0].text)[1] == {"sender": "x@y"}

    def test_flattened(self, tmp_path: Path) -> None:
        one = {
            "id": "r1",
            "status": "completed",
            "_server_id": "5cb0ab8d",
            "text": "good",
            "label.responses": ["pos", "neg", "pos"],
            "label.responses.users": ["u1", "u2", "u3"],
            "label.responses.status": ["submitted", "submitted", "draft"],
            "label.suggestion": "guess",
            "label.suggestion.score": 0.4,
            "label.suggestion.agent": "model",
        }
        two = {**dict.fromkeys(one), "id": "r2", "text": "nobody has", "status": "pending"}
        rows, bad = read(tmp_path / "records.json", [one, two])
        assert bad == []
        assert brief(rows) == [("r1", "good", "neg", "u2"), ("r2", "nobody has", None, None)]

    def test_of_several_questions_one_has_to_be_named(self, tmp_path: Path) -> None:
        answers = {name: [{"value": name, "user_id": "u"}] for name in ("tone", "topic")}
        content = [self.record(1, "text", responses=answers)]
        _, bad = read(tmp_path / "records.json", content)
        assert [each.kind for each in bad] == ["of several questions"]
        assert "--label-column" in str(bad[0])
        rows, _ = read(tmp_path / "records.json", content, label_column="topic")
        assert brief(rows) == [("r1", "text", "topic", "u")]


@pytest.mark.parametrize(
    "odd",
    [
        {
            "data": {"text": "t"},
            "annotations": [None, 3, {"result": None}, {"result": [None, {"type": "choices"}]}],
        },
        {"fields": {"text": "t"}, "responses": None, "id": 1},
        {"fields": {"text": "t"}, "responses": {"label": [None, {}, {"value": {}}]}},
        {"text": "t", "label.responses": None, "label.responses.users": None},
        {"text": "t", "answer": "accept", "meta": None},
        {"annotator": None, "annotation_id": 1, "text": "t"},
    ],
)
def test_odd_objects_are_texts_without_a_label(tmp_path: Path, odd: Any) -> None:
    rows, bad = read(tmp_path / "odd.json", [odd])
    assert bad == []
    assert [(row.text, row.label) for row in rows] == [("t", None)]


def test_what_has_no_text_is_said(tmp_path: Path) -> None:
    _, bad = read(tmp_path / "images.json", [{"id": 1, "data": {"image": 3}, "annotations": []}])
    assert [each.kind for each in bad] == ["without a text"]
    with pytest.raises(ConfigError, match="no text column"):
        read(tmp_path / "none.json", [{"data": 3, "annotations": []}])
