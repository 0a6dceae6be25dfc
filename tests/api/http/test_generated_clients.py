"""Do clients that are generated from the description work? Each calls every operation, with the examples given there.

They need Java, Go, Node or what a network brings; where something is missing the test is skipped, and says what.
"""

import importlib
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from driftline.api.http import openapi
from tests.clients import calls, tools
from tests.clients.calls import Call
from tests.clients.tools import Answer
from tests.often import only_long
from tests.place import Place, running

# Which model of the past is kept, no example can know; what it gets is described.
MAY_BE_ABSENT = {"get_snapshot", "activate_snapshot"}


class Described(NamedTuple):
    """A running API, and its description."""

    url: str
    document: Path
    calls: list[Call]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    place = Place(tmp_path_factory.mktemp("described"))
    place.publish(version=openapi.VERSION)
    place.report()
    with running(place.stream, max_wait_s=0.05) as url:
        content = httpx.get(f"{url}/openapi.json", timeout=30).json()
        document = tmp_path_factory.mktemp("document") / "openapi.json"
        document.write_text(json.dumps(content))
        yield Described(url, document, calls.of(content))


def check(described: Described, answers: Iterable[Answer]) -> None:
    """Demand that every call was made, read, and answered as is described."""
    answers = list(answers)
    assert [each.operation for each in answers] == [each.operation for each in described.calls]
    for call, answer in zip(described.calls, answers, strict=True):
        assert str(answer.status) in call.statuses, (call, answer)
        if answer.status == 409:  # a label that is not there was to be waited for
            assert "min_feedback_offset" in call.body, (call, answer)
        elif answer.status == 404:
            assert call.operation in MAY_BE_ABSENT, (call, answer)
        else:
            assert (answer.status // 100, answer.error) == (2, ""), (call, answer)


def test_the_examples_themselves(described: Described) -> None:
    with httpx.Client(base_url=described.url, timeout=30) as http:
        answers = []
        for call in described.calls:
            query = {each["name"]: each["value"] for each in call.parameters if each["in"] == "query"}
            answer = http.request(call.method, call.url, params=query, json=call.body)
            answers.append(Answer(call.operation, answer.status_code, ""))
    check(described, answers)


def test_the_description_is_in_plain_words(described: Described) -> None:
    """What the one or other generator stumbles over is not there."""
    document = json.loads(described.document.read_text())
    assert document["openapi"] == openapi.OPENAPI
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name == name.lower() and len(name) < 30 for name in names)
    assert all("example" in part for each in operations for part in each.get("parameters", ()))

    def look(part: Any, where: str) -> None:
        if isinstance(part, list):
            for place, each in enumerate(part):
                look(each, f"{where}[{place}]")
        if isinstance(part, dict):
            assert not {"prefixItems", "const", "$defs"} & part.keys(), where
            assert not isinstance(part.get("items"), bool), where
            assert not isinstance(part.get("type"), list), where
            assert part.get("type") != "null", where
            assert part.get("type") != "array" or "items" in part, where
            assert "$ref" not in part or len(part) == 1, where
            for key, each in part.items():
                look(each, f"{where}.{key}")

    look(document["components"], "components")
    look([each.get("requestBody") for each in operations], "requestBody")
    look([each["responses"] for each in operations], "responses")


def test_openapi_python_client(described: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its models say all that is answered."""
    had(partial(tools.openapi_python_client, described.document, tmp_path))
    with imported(tmp_path, "made", monkeypatch) as load:
        client = load("made").Client(base_url=described.url)
        answers = []
        for call in described.calls:
            function = load(f"made.api.{call.tag.replace(' ', '_')}.{call.operation}").sync_detailed
            own = inspect.signature(function).parameters  # what Python itself has is called `format_`
            names = {each["name"]: each["value"] for each in call.parameters}
            given: dict[str, Any] = {name if name in own else f"{name}_": value for name, value in names.items()}
            if call.body is not None:
                given["body"] = read(typing.get_type_hints(function)["body"], call.body)
            answer = function(client=client, **given)
            said = ""
            if answer.status_code < 300 and hasattr(answer.parsed, "to_dict"):
                said = differing(answer.parsed.to_dict(), json.loads(answer.content))
            elif answer.parsed is None:
                said = "nothing was read of the answer"
            answers.append(Answer(call.operation, int(answer.status_code), said))
        client.get_httpx_client().close()
    check(described, answers)


def test_openapi_generator_python(described: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = had(partial(tools.python, described.document, tmp_path))
    with imported(source, "generated_python", monkeypatch) as load:
        package = load("generated_python")
        client = package.ApiClient(package.Configuration(host=described.url))
        answers = []
        for call in described.calls:
            part = "".join(map(str.capitalize, call.tag.split()))
            method = getattr(getattr(package, f"{part}Api")(client), f"{call.operation}_with_http_info")
            given: dict[str, Any] = {each["name"]: each["value"] for each in call.parameters}
            if call.body is not None:
                hints = typing.get_type_hints(inspect.unwrap(method), include_extras=False)
                (name,) = (each for each in hints if each not in given and each[0] != "_" and each != "return")
                given[name] = read(hints[name], call.body)
            try:
                answer = method(**given)
                said = "" if answer.data is not None else "nothing was read of the answer"
                answers.append(Answer(call.operation, answer.status_code, said))
            except package.ApiException as refused:
                answers.append(Answer(call.operation, refused.status, str(refused.reason)))
    check(described, answers)


@pytest.mark.parametrize("language", [pytest.param(each, marks=only_long) for each in ("java", "go", "typescript")])
def test_openapi_generator(described: Described, tmp_path: Path, language: str) -> None:
    """They are compiled, too."""
    file = calls.write(described.calls, tmp_path / "calls.json")
    check(described, had(partial(getattr(tools, language), described.url, described.document, file, tmp_path)))


def test_newman(described: Described, tmp_path: Path) -> None:
    """It sends a collection of the first example each."""
    answers = had(partial(tools.newman, described.url, described.document, tmp_path / "none", tmp_path))
    names = {
        f"{call.method} {call.path.replace('{', ':').replace('}', '')}": call for call in reversed(described.calls)
    }
    made = {each.operation: each._replace(operation=names[each.operation].operation) for each in answers}
    assert len(answers) == len(names)
    check(described._replace(calls=list(names.values())), [made[name] for name in names])


def had(make: Callable[[], Any]) -> Any:
    """Return what is made, or skip where a tool for it is missing."""
    try:
        return make()
    except tools.Missing as missing:
        pytest.skip(str(missing))


class imported:  # noqa: N801  (a with statement's word)
    """Lets a package be imported from a directory, and forgets it afterwards."""

    def __init__(self, directory: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._package = package
        monkeypatch.syspath_prepend(str(directory))

    def __enter__(self) -> Callable[[str], Any]:
        return importlib.import_module

    def __exit__(self, *_: object) -> None:
        for name in [each for each in sys.modules if each.split(".")[0] == self._package]:
            del sys.modules[name]


def read(hint: Any, value: Any) -> Any:
    """Return a body as a client's own type, of those that an operation takes."""
    forms = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else [hint]
    )
    for form in forms:
        if typing.get_origin(form) is list and isinstance(value, list):
            (kind,) = typing.get_args(form)
            return [kind.from_dict(each) for each in value]
        if hasattr(form, "from_dict") and isinstance(value, dict):
            try:
                return form.from_dict(value)
            except KeyError:
                continue
    raise AssertionError(f"{value} is none of {forms}")


def differing(read: Any, sent: Any) -> str:
    return "" if read == sent else f"read {read} of {sent}"
