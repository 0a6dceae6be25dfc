"""What of a text may reach a terminal, or a log that people read in one?

A label, an id, a source or a path is somebody else's text. A terminal takes some characters for orders (it clears the
screen, renames the window, answers as if something had been typed), others for the end of a line, and some turn the
order round in which all behind them is shown. They are shown as escapes, as Python writes them: all that the commands
print (cli/terminal.py) and all that a process says (log_lines.py) goes through here.
"""

import re
from typing import Final

# Controls (C0, DEL, C1), line and paragraph separators, what directs the order of writing, halves of characters, tags
# that nobody sees.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e001f]"
)


def harmless(text: str) -> str:
    """Return a text in one line, with every character that is none to be seen as an escape."""
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_python, text)


def harmless_lines(text: str) -> str:
    """Return a text of our own that has several lines, each as `harmless` has it, with tabs."""
    return "\n".join("\t".join(map(harmless, line.split("\t"))) for line in text.split("\n"))


def harmless_json(text: str) -> str:
    """Return JSON of one line that says the same, with such characters as JSON's own escapes."""
    return _UNSAFE.sub(_json, text)


def _python(found: "re.Match[str]") -> str:
    return ascii(found[0])[1:-1]


def _json(found: "re.Match[str]") -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
