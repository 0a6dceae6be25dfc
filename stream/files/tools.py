"""What do the exports of other labelling tools say: which text, which label, and who gave it?

Told apart by what an object has, whatever the file is called; each becomes a row as any other file has it. What else
it brings (Label Studio's data, Argilla's fields and metadata) are columns of that row.

- Label Studio: JSON (a task with its `annotations`, of which the `choices` count) and JSON-MIN (one annotation each).
- Argilla: records, nested (`fields`, `responses`) or flattened (`label.responses`). Suggestions are no labels.
- Prodigy: JSON lines with an `answer`. What was rejected or ignored has no label; an `accept` of a choice has its one.

Where several people have labelled one task (Label Studio JSON, Argilla), the label is what most of them said, of as
many the one said last; its source is who said it last. Here the last word on a message counts: all of their labels in
a row would make whoever comes last right, and the model would learn each change of mind. Prodigy and JSON-MIN have one
line an annotation; those are sent as they stand, and there the last one counts.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from driftline.stream.files.exported import SOURCE
from driftline.stream.files.rows import Rows, Unusable

_TEXTS: Final = ("text", "message", "body", "title")
_LABELS: Final = ("label", "category", "class", "target")
_ANSWERS: Final = ("accept", "reject", "ignore")
_SEVERAL: Final = "with several labels"
Object = dict[str, Any]


class Wanted(NamedTuple):
    """What was said about the file: the names of the text and of the label, in the tool's own words."""

    text: str | None = None
    label: str | None = None


class _Vote(NamedTuple):
    label: str
    by: str | None
    at: str


def plain(rows: Rows, wanted: Wanted) -> Rows:
    """Give rows; what is of a tool as a row of its own columns."""
    for line, found in rows:
        if isinstance(found, Unusable):
            yield line, found
            continue
        read = _kind(found)
        if read is None:
            yield line, found
            continue
        try:
            yield line, read(found, wanted)
        except Unusable as why:
            yield line, why


def _kind(found: Object) -> Any:
    if isinstance(found.get("data"), dict) and isinstance(found.get("annotations"), list):
        return _label_studio
    if "annotator" in found and "annotation_id" in found:
        return _label_studio_min
    if isinstance(found.get("text"), str) and (found.get("answer") in _ANSWERS or _has_meta_id(found)):
        return _prodigy
    if isinstance(found.get("fields"), dict) and ("responses" in found or "suggestions" in found):
        return _argilla
    if any(name.endswith((".responses", ".suggestion")) for name in found):
        return _argilla_flat
    return None


def _has_meta_id(found: Object) -> bool:
    """Whether it is a task that is yet to be annotated: what it is called stands in `meta`."""
    meta = found.get("meta")
    return isinstance(meta, dict) and "id" in meta and "id" not in found and "label" not in found


def _row(beside: Mapping[str, Any], wanted: Wanted, **own: Any) -> Object:
    """Return a row whose text and label stand where they are looked for."""
    text, label = own.pop("text"), own.pop("label")
    return {**beside, **own, wanted.text or "text": text, wanted.label or "label": label}


def _text_of(values: Mapping[str, Any], wanted: Wanted) -> str | None:
    """Return the text among some values: the one that was named, one of the usual names, or the only one."""
    for name in (wanted.text,) if wanted.text is not None else _TEXTS:
        if isinstance(values.get(name or ""), str):
            return str(values[name or ""])
    texts = [value for value in values.values() if isinstance(value, str)]
    return texts[0] if wanted.text is None and len(texts) == 1 else None


def _most(votes: list[_Vote]) -> _Vote | None:
    """Return the label that most have given, as it was given last."""
    if not votes:
        return None
    votes = sorted(votes, key=lambda vote: vote.at)  # stable: without times the order of the file
    counts = Counter(vote.label for vote in votes)
    return max(enumerate(votes), key=lambda item: (counts[item[1].label], item[0]))[1]


def _one(values: Any) -> str | None:
    """Return the one label among some. Raises Unusable where there are several."""
    if isinstance(values, dict):
        values = values.get("choices")
    if isinstance(values, str | int | float):
        return str(values)
    if not isinstance(values, list) or not values:
        return None
    if len(values) > 1:
        raise Unusable(_SEVERAL, f"it has {len(values)} labels, and a message has one")
    return _one(values[0])


def _label_studio(task: Object, wanted: Wanted) -> Object:
    votes, data = [], task["data"]
    for each in task["annotations"]:
        if not isinstance(each, dict) or each.get("was_cancelled"):
            continue
        for result in each.get("result") or ():
            if not isinstance(result, dict) or result.get("type") != "choices":
                continue
            if wanted.label not in (None, result.get("from_name")):
                continue
            if (label := _one(result.get("value"))) is not None:
                at = each.get("updated_at") or each.get("created_at") or ""
                votes.append(_Vote(label, _person(each.get("completed_by")), str(at)))
                break
    won = _most(votes)
    return _row(
        data,
        wanted,
        id=data.get("id", task.get("id")),
        text=_text_of(data, wanted),
        label=won and won.label,
        **{SOURCE: (won.by or data.get(SOURCE)) if won else None},
    )


def _person(by: Any) -> str | None:
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id")
    return None if by is None else str(by)


def _label_studio_min(found: Object, wanted: Wanted) -> Object:
    """Read one annotation: what people chose stands between the task's id and who chose it."""
    names = list(found)
    chosen = names[names.index("id") + 1 : names.index("annotator")] if "id" in found else []
    name = wanted.label or next((name for name in (*_LABELS, *chosen) if name in found), None)
    texts = {key: value for key, value in found.items() if key not in chosen}
    return _row(
        texts,
        wanted,
        text=_text_of({key: value for key, value in texts.items() if not key.endswith("_at")}, wanted),
        label=None if name is None else _one(found.get(name)),
        **{SOURCE: _person(found["annotator"])},
    )


def _prodigy(task: Object, wanted: Wanted) -> Object:
    label = None
    if task.get("answer") == "accept":
        label = _one(task["accept"]) if "accept" in task else _one(task.get(wanted.label or "label"))
    meta = task.get("meta") if isinstance(task.get("meta"), dict) else {}
    by = task.get("_annotator_id") or task.get("_session_id")
    return _row(
        {key: value for key, value in task.items() if not key.startswith("_")},
        wanted,
        id=(meta or {}).get("id", task.get("id", task.get("_input_hash"))),
        text=task["text"],
        label=label,
        **{SOURCE: _person(by)},
    )


def _argilla(record: Object, wanted: Wanted) -> Object:
    responses = record.get("responses") or {}
    name = _question(responses, wanted)
    votes = []
    for each in responses.get(name) or () if name is not None else ():
        if isinstance(each, dict) and each.get("status") in (None, "submitted"):
            label = _one(each.get("value"))
            if label is not None:
                votes.append(_Vote(label, _person(each.get("user_id")), ""))
    return _argilla_row(record, record["fields"], votes, wanted)


def _argilla_flat(record: Object, wanted: Wanted) -> Object:
    end = ".responses"
    asked = {name.removesuffix(end): value for name, value in record.items() if name.endswith(end)}
    name, votes = _question(asked, wanted), []
    if name is not None:
        values = record.get(name + end) or []
        users = record.get(f"{name}{end}.users") or [None] * len(values)
        states = record.get(f"{name}{end}.status") or [None] * len(values)
        for value, by, status in zip(values, users, states, strict=False):
            if status in (None, "submitted") and (label := _one(value)) is not None:
                votes.append(_Vote(label, _person(by), ""))
    fields = {name: value for name, value in record.items() if "." not in name and name not in ("id", "status")}
    return _argilla_row(record, {key: value for key, value in fields.items() if key[:1] != "_"}, votes, wanted)


def _argilla_row(record: Object, fields: Object, votes: list[_Vote], wanted: Wanted) -> Object:
    won, metadata = _most(votes), record.get("metadata")
    beside = {**(metadata if isinstance(metadata, dict) else {}), **fields}
    return _row(
        beside,
        wanted,
        id=record.get("id"),
        text=_text_of(fields, wanted),
        label=won and won.label,
        **{SOURCE: (beside.get(SOURCE) or won.by) if won else None},
    )


def _question(asked: Any, wanted: Wanted) -> str | None:
    """Return which question's answers are the labels. Raises Unusable where that is not known."""
    if not isinstance(asked, dict):
        return None
    if wanted.label is not None:
        return wanted.label if wanted.label in asked else None
    for name in _LABELS:
        if name in asked:
            return name
    if len(asked) > 1:
        names = ", ".join(map(repr, list(asked)[:9]))
        raise Unusable("of several questions", f"it answers {names}; --label-column says which one is the label")
    return next(iter(asked), None)
