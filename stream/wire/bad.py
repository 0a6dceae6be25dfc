"""Why can a value not be read?"""

from typing import Final

import msgspec

from driftline.stream.errors import BadRecord

MAX_DETAIL_CHARS: Final = 500  # of what is wrong with a value, which may be shown whole in it


def check_utf8(value: bytes) -> None:
    """Raise BadRecord for what is no UTF-8."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord("not-utf8", f"byte {value[error.start]:#04x} at position {error.start} is not UTF-8") from None


def shortened(detail: str) -> str:
    """Return what is said of a value without most of the value, where that is long."""
    if len(detail) <= MAX_DETAIL_CHARS:
        return detail
    return f"{detail[: MAX_DETAIL_CHARS // 2]} ... {detail[-MAX_DETAIL_CHARS // 2 :]}"


def explain(error: Exception, where: str = "") -> BadRecord:
    """Return the bad record that an error of msgspec's tells of."""
    detail = shortened(str(error)) + where
    if isinstance(error, RecursionError):
        return BadRecord("too-deep", "the JSON is nested too deeply")
    if "out of range" in detail:
        return BadRecord("out-of-range", detail)
    if "missing required field" in detail:
        return BadRecord("missing-field", detail)
    if isinstance(error, msgspec.ValidationError):
        return BadRecord("wrong-type", detail)
    return BadRecord("not-json", detail)
