"""Up to where is this data directory as the shared topic says?

Who reads the topic into a data directory writes a small file there: so the API's processes know that what they ask for
has to go through the topic, and when it has come back. The file goes when a learner alone takes the directory.
"""

from pathlib import Path
from typing import Final

import msgspec

from driftline.learner.disk import durable
from driftline.stream.errors import StateError

FILE: Final = "shared.json"


class Applied(msgspec.Struct, frozen=True):
    """How far it is."""

    topic: str
    offset: int  # everything before this one is here, but for a choice
    choice: int = -1  # the offset of the last choice that is served here
    why_not: str = ""  # the newest choice is not


_APPLIED: Final = msgspec.json.Decoder(Applied)


def read(data: Path) -> Applied | None:
    """Return how far it is; None where the directory is one machine's own.

    Raises
    ------
    StateError : nobody can tell; OSError.
    """
    try:
        return _APPLIED.decode((data / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise StateError(
            f"{data / FILE} is damaged ({error}); who reads the shared topic into this directory makes it anew"
        ) from None


def write(data: Path, applied: Applied) -> None:
    """Say how far it is. Raises DiskFull."""
    durable.replace(data / FILE, msgspec.json.encode(applied))


def leave(data: Path) -> None:
    """Have the directory be one machine's own again."""
    durable.remove(data / FILE)
