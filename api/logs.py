"""What does a line of the log look like?

JSON in ASCII: one line an event whatever is in it. What a client sent is cut, and a key never stands there, wherever it
came from.
"""

import json
import logging
import re
import sys
import time
from typing import Any, Final

from api.keys import PREFIX

MAX_CHARS: Final = 2_000
MAX_TRACEBACK: Final = 10_000
_KEY: Final = re.compile(PREFIX + r"[\w-]+")


class JsonLines(logging.Formatter):
    """Makes a line of an event. `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "at": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "from": record.name,
            "message": _cut(record.getMessage(), MAX_CHARS),
        }
        event |= getattr(record, "fields", {})
        if record.exc_info:
            event["traceback"] = _cut(self.formatException(record.exc_info), MAX_TRACEBACK)
        return json.dumps(_without_keys(event))


def to_stderr(level: int = logging.WARNING) -> None:
    """Write the events of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("driftline.access").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it would tell of every request that is none
    logging.getLogger("uvicorn.access").disabled = True  # gate.py does that
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # a line at each attempt; what matters is said once


def _cut(text: str, most: int) -> str:
    """Return a text, or its ends: what was raised stands last in a traceback."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _without_keys(event: dict[str, Any]) -> dict[str, Any]:
    return {name: _KEY.sub(PREFIX + "...", value) if isinstance(value, str) else value for name, value in event.items()}
