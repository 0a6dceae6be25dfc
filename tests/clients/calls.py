"""Which calls do the examples of a description make? Each operation with each of its bodies, for any client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

Document = dict[str, Any]


class Call(NamedTuple):
    """One operation, with the examples of what it takes."""

    operation: str
    tag: str
    method: str
    path: str  # as described
    parameters: list[Document]  # name, in, value; those of the path first
    body: Any  # None: it has none
    statuses: frozenset[str]  # that are described

    @property
    def url(self) -> str:
        """The path with its parameters put in."""
        named = {each["name"]: each["value"] for each in self.parameters if each["in"] == "path"}
        return self.path.format(**named)


def of(document: Document) -> list[Call]:
    """Return the calls of a description, those that change something last."""
    calls = [
        Call(details["operationId"], details["tags"][0], method.upper(), path, _parameters(details), body,
             frozenset(details["responses"]))
        for path, operations in document["paths"].items()
        for method, details in operations.items()
        for body in _bodies(details)
    ]  # fmt: skip
    return sorted(calls, key=lambda call: call.method == "DELETE")


def write(calls: list[Call], path: Path) -> Path:
    """Write calls down for a client that is no Python."""
    said = [
        {"operation": call.operation, "tag": call.tag, "parameters": call.parameters}
        | ({"body": call.body} if call.body is not None else {})
        for call in calls
    ]
    path.write_text(json.dumps(said))
    return path


def _parameters(details: Document) -> list[Document]:
    found = [
        {"name": each["name"], "in": each["in"], "value": each["example"]} for each in details.get("parameters", ())
    ]
    return sorted(found, key=lambda each: each["in"] != "path")


def _bodies(details: Document) -> Iterator[Any]:
    if "requestBody" not in details:
        yield None
        return
    for example in details["requestBody"]["content"]["application/json"]["examples"].values():
        yield example["value"]
