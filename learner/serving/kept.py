"""How is a model served that never changes again?

A checkpoint's model file, mapped for reading: all processes on a machine share its memory, as with a model that is
published (double_buffer.py), and it looks the same to whoever asks it. It is read whole once, for its SHA-256, before
anything of it is believed.
"""

import hashlib
import mmap
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.learner.disk.checkpoint import TYPES
from driftline.learner.models.classifier import State
from driftline.learner.serving.double_buffer import Reader
from driftline.learner.serving.mapped import Mapped
from driftline.stream.errors import StateError


class FixedReader(Reader):
    """A model file as a pair with one half, active for ever. Any thread.

    Parameters
    ----------
    path : a safetensors file, as checkpoint.py lays it out; it must not be changed, only renamed and removed
    sha256 : of all of it
    info : what stands beside the model

    Raises
    ------
    StateError : the file is missing, or not what it was.
    """

    def __init__(self, path: Path, sha256: str, info: bytes) -> None:
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            self._mapped = Mapped(mapped)
            if hashlib.sha256(np.asarray(self._mapped).data).hexdigest() != sha256 or self.cut:
                raise ValueError("it does not have the SHA-256 that stands beside it")
            self._arrays = _arrays(np.asarray(self._mapped))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"snapshot {path} is damaged: {error}") from error
        self._info = info

    def active(self) -> tuple[int, int]:
        """Return the one half there is."""
        return 0, 0

    def unchanged(self, half: int, sequence: int) -> bool:
        """Tell that it is unchanged, unless a part of it is gone."""
        del half, sequence
        return not self._mapped.cut

    def info(self, half: int) -> bytes:
        """Return the info."""
        del half
        return self._info

    def arrays(self, half: int) -> State:
        """Return the arrays, not copied; to write to one is a segmentation fault."""
        del half
        return self._arrays


def _arrays(content: NDArray[np.uint8]) -> State:
    length = int.from_bytes(content[:8].tobytes(), "little")
    places = msgspec.json.decode(content[8 : 8 + length].tobytes())
    content = content[8 + length :]
    codes = {name: code for code, name in TYPES.items()}
    found: State = {}
    for name, place in places.items():
        start, end = place["data_offsets"]
        found[name] = content[start:end].view(codes[place["dtype"]]).reshape(place["shape"])
    return found
