"""What does a file give, whatever its format: rows, and what of it is none?"""

from collections.abc import Iterator
from typing import Any


class Unusable(Exception):
    """Why a row cannot be used. `kind` is the same for all such rows, so that they can be counted together."""

    def __init__(self, kind: str, why: str | None = None) -> None:
        super().__init__(why or kind)
        self.kind = kind


# Where it begins (a line, or the item's or row's number), and its values by the columns' names.
Found = tuple[int, dict[str, Any] | Unusable]
Rows = Iterator[Found]
