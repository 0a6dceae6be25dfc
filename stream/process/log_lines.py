"""What does a process say while it runs, and how: as text for people, or as JSON for machines?

All that the processes of Driftline say on standard error goes through `logging` and out here, one event after another:
their own lines, those of the libraries, warnings, and what nobody caught. As JSON an event is one line, in ASCII, of at
most MAX_BYTES, whatever a text in it holds: so the lines of processes that share a pipe never mix, and no collector
cuts one in two. Control characters never reach a terminal, and a key never stands in a line, wherever it came from.
"""

import json
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal

from driftline.stream.process.harmless import harmless, harmless_lines

SECRET_PREFIX: Final = "dlk_"  # what an API key begins with
MAX_BYTES: Final = 4096  # what a pipe takes as one (PIPE_BUF, pipe(7)), with the line's end
_SECRET: Final = re.compile(SECRET_PREFIX + r"[\w-]+")
_BARE: Final = re.compile(r"[^\s\"=\\]+")  # what a field's value is without quotes
_LOG: Final = logging.getLogger("driftline")
FOLDERS: Final = ("stream", "learner", "api", "cli")  # whose modules say only what matters

LineFormat = Literal["json", "text"]
_Caught = tuple[type[BaseException], BaseException, TracebackType | None]


class JsonLines(logging.Formatter):
    """Makes a line of an event. `extra={"fields": {...}}` adds fields; what is no number or truth is shown as text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "from": record.name,
            "message": _message(record),
        }
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return _fitted({name: _plain(value) for name, value in event.items()})


class TextLines(logging.Formatter):
    """Makes of an event what a person reads; only a traceback takes several lines, and what was said so.

    Lines behind the first are indented: whatever a text in them holds, none passes for an event of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the text, without its end."""
        fields = getattr(record, "fields", {})
        message = _message(record)
        said = harmless_lines(message) if "\n" in str(record.msg) else harmless(message)
        text = " ".join([f"driftline: {said}", *(f"{name}={_field(value)}" for name, value in fields.items())])
        if record.exc_info:
            text += "\n" + harmless_lines(self.formatException(record.exc_info))
        return _without_secrets(text).replace("\n", "\n  ")


def _field(value: object) -> str:
    """Return a value so that nothing in it looks like another field."""
    text = str(value)
    return text if _BARE.fullmatch(text) and harmless(text) == text else harmless(json.dumps(text, ensure_ascii=False))


def begin(line_format: LineFormat | None, level: int = logging.WARNING) -> None:
    """Say from now on what this process has to say, on standard error; without a format, as text on a terminal only.

    The logger `driftline` is that of the commands: what it says from INFO on is said at any level.
    """
    as_json = line_format == "json" or (line_format is None and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    _LOG.setLevel(logging.INFO)
    for folder in FOLDERS:
        logging.getLogger(f"driftline.{folder}").setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it would tell of every request that is none
    logging.getLogger("uvicorn.access").disabled = True  # api/gate.py does that
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # a line at each attempt; what matters is said once
    if as_json:
        logging.captureWarnings(True)
        sys.excepthook = lambda *caught: _say_uncaught("this process", caught)
        threading.excepthook = _say_uncaught_in_thread
        sys.unraisablehook = _say_unraisable


def as_json() -> bool:
    """Tell whether this process says what it has to say as JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


@contextmanager
def ending_said() -> Iterator[None]:
    """Say what ends a process of multiprocessing, which would print it past all hooks; end it with exit code 1."""
    try:
        yield
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def _say_uncaught(who: str, caught: _Caught) -> None:
    if issubclass(caught[0], KeyboardInterrupt):
        return
    _LOG.critical("%s: %s, caught by nobody, ends it", who, caught[0].__name__, exc_info=caught)


def _say_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_type is SystemExit or caught.exc_value is None:
        return
    who = f"thread {caught.thread.name if caught.thread else '?'}"
    _say_uncaught(who, (caught.exc_type, caught.exc_value, caught.exc_traceback))


def _say_unraisable(caught: "sys.UnraisableHookArgs") -> None:
    what = caught.err_msg or "an exception where none can be raised"
    error = caught.exc_value or caught.exc_type()
    _LOG.error("%s: %r", what, caught.object, exc_info=(caught.exc_type, error, caught.exc_traceback))


def _message(record: logging.LogRecord) -> str:
    """Return what an event says, also where its arguments do not fit it."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args!r}"


def _plain(value: object) -> object:
    """Return what JSON has a form of, without keys."""
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _without_secrets(str(value))


def _without_secrets(text: str) -> str:
    return _SECRET.sub(SECRET_PREFIX + "...", text)


def _fitted(event: dict[str, object]) -> str:
    """Return an event as JSON, with the middle of its longest texts left out until it fits."""
    while len(line := json.dumps(event)) >= MAX_BYTES:
        sizes = {name: len(json.dumps(value)) for name, value in event.items() if isinstance(value, str) and value}
        if not sizes:
            break  # numbers alone
        longest = max(sizes, key=sizes.__getitem__)
        text, spare = str(event[longest]), len(line) - MAX_BYTES + len(" ... ") + 1
        event[longest] = _cut(text, int(len(text) * max(0.0, 1 - spare / sizes[longest])))
    return line


def _cut(text: str, most: int) -> str:
    """Return a text's ends: what was raised stands last in a traceback."""
    half = min(most, len(text) - len(" ... ") - 1) // 2
    return f"{text[:half]} ... {text[len(text) - half :]}" if half > 0 else ""
