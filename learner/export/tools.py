"""How is a message written for other labelling tools? As their own imports take it, and `driftline send` reads it back.

Label Studio: a task with its data, its label as an annotation (`choices`, of `label` to `text`) and what was predicted
as a prediction. Argilla: a record with a field `text`, a question `label`, the prediction as its suggestion; people are
UUIDs there, so a label's is made of its source, which itself stands in the metadata. Prodigy: a task with its label
accepted; one without a label has no answer, and is to be annotated.
"""

import uuid
from collections.abc import Callable
from typing import Any, Final

from driftline.learner.catalogue.search import Listed
from driftline.learner.export.times import iso
from driftline.stream.files.exported import SOURCE

PEOPLE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://driftline.invalid/sources")


def label_studio(message: Listed) -> dict[str, Any]:
    """Return a task."""
    data = {**message.fields, "id": message.id, "text": message.text}
    task: dict[str, Any] = {"data": data, "annotations": [], "predictions": []}
    if message.label is not None:
        if message.label_source is not None:
            data[SOURCE] = message.label_source
        annotation: dict[str, Any] = {"result": [_choice(message.label)], "created_at": iso(message.label_ms or 0)}
        if "@" in (message.label_source or ""):
            annotation["completed_by"] = {"email": message.label_source}
        task["annotations"].append(annotation)
    if message.predicted is not None:
        told = {"model_version": message.model_version, "score": message.score, "result": [_choice(message.predicted)]}
        task["predictions"].append(told)
    return task


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def argilla(message: Listed) -> dict[str, Any]:
    """Return a record."""
    suggestions, responses, metadata = {}, {}, dict[str, Any](message.fields)
    if message.predicted is not None:
        told = {"value": message.predicted, "score": message.score, "agent": message.model_version}
        suggestions["label"] = told
    if message.label is not None:
        by = message.label_source
        if by is not None:
            metadata[SOURCE] = by
        responses["label"] = [{"value": message.label, "user_id": str(uuid.uuid5(PEOPLE, by or ""))}]
    return {
        "id": message.id,
        "status": "completed" if responses else "pending",
        "fields": {"text": message.text},
        "metadata": metadata,
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
    }


def prodigy(message: Listed) -> dict[str, Any]:
    """Return a task."""
    meta = {**message.fields, "id": message.id}
    if message.predicted is not None:
        meta |= {"predicted": message.predicted, "score": message.score}
    task: dict[str, Any] = {"text": message.text, "meta": meta}
    if message.label is not None:
        task |= {"label": message.label, "answer": "accept"}
        if message.label_source is not None:
            task["_annotator_id"] = message.label_source
        if message.label_ms is not None:
            task["_timestamp"] = message.label_ms // 1000
    return task


TOOLS: Final[dict[str, Callable[[Listed], dict[str, Any]]]] = {
    "label-studio": label_studio,
    "argilla": argilla,
    "prodigy": prodigy,
}
