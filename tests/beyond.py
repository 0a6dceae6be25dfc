"""Does a test need more than the process that it runs in: a Kafka, a browser, a server, another process?

`make check` leaves those out. No list says which they are: a test is one of them if it, a fixture that it asks for, or
anything of tests/ that these call by name starts a process or a server, or if it asks for one of the fixtures below.
"""

import inspect
import multiprocessing
import subprocess
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import pytest

from tests.place import running

FIXTURES: Final = {"kafka", "kafka_broker", "own_kafka", "browser", "nursery", "s3"}
STARTERS: Final = (subprocess, multiprocessing, inspect.unwrap(running))
OURS: Final = ("tests.", "test_", "conftest", "broker")  # modules


def needs_more_than_this_process(item: pytest.Item) -> bool:
    """Tell, of a test."""
    if not isinstance(item, pytest.Function):
        return False
    if FIXTURES & set(item.fixturenames) or "kafka" in map(str, getattr(item, "callspec", _NONE).params.values()):
        return True
    fixtures = item._fixtureinfo.name2fixturedefs  # pytest has no other way to ask for them
    functions = [item.obj, *(each.func for name in item.fixturenames for each in fixtures.get(name, ()))]
    functions = [inspect.unwrap(getattr(each, "__func__", each)) for each in functions]
    if item.cls is not None:  # what a test calls of its own class
        functions += [getattr(item.cls, name) for name in _names(functions[0].__code__) if hasattr(item.cls, name)]
    return any(starts_a_process(inspect.unwrap(each)) for each in functions if inspect.isfunction(each))


class _NONE:
    params: Final[dict[str, Any]] = {}


@cache
def starts_a_process(function: FunctionType) -> bool:
    """Tell, as far as names lead: of a function, those that it calls, and the methods of classes that it names."""
    found: set[int] = set()
    left: list[Any] = [function]
    while left:
        one = left.pop()
        if id(one) in found:
            continue
        found.add(id(one))
        if _is_starter(one) or (inspect.isfunction(one) and "fork" in _names(one.__code__)):
            return True
        if inspect.isclass(one):
            left += [inspect.unwrap(each) for each in vars(one).values() if inspect.isfunction(each)]
        elif inspect.isfunction(one):
            left += [each for each in _named(one) if _is_looked_into(each)]
    return False


def _named(function: FunctionType) -> Iterator[Any]:
    """Return what a function's code names: globals, and the attributes of modules among them."""
    names = set(_names(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        yield inspect.unwrap(value) if callable(value) else value
        if isinstance(value, ModuleType) and value.__name__.startswith("tests"):
            yield from (vars(value)[each] for each in names & vars(value).keys())


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _is_looked_into(value: Any) -> bool:
    if inspect.isfunction(value) or inspect.isclass(value):
        return _is_starter(value) or value.__module__.startswith(OURS)
    return _is_starter(value)


def _is_starter(value: Any) -> bool:
    return any(value is each for each in STARTERS)
