"""How does a foreign model become bytes, and a model again? As a pickle, the same one for the same model."""

import io
import pickle
import random
import sys
from typing import Any

import numpy as np


class _Pickler(pickle.Pickler):
    """The same bytes for the same model, as far as that can be had: whatever was loaded before, and whatever was not.

    - Equal text may be one object or two, and an array's dtype another object once it was loaded: both go by value.
    - River gives each of a tree's many distributions a random generator of its own, 2.5 kB, which nobody seeded or
      uses. They are saved as one, which makes the pickle of a tree thirty times smaller.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self._unseeded = random.Random(0)

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is str:
            return sys.intern(obj)
        if isinstance(obj, np.dtype) and obj.isbuiltin == 1:
            return ("dtype", obj.str)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if type(getattr(obj, "_rng", None)) is random.Random and getattr(obj, "seed", 0) is None:
            new, arguments, state, *rest = obj.__reduce_ex__(5)
            if isinstance(state, dict):
                return (new, arguments, state | {"_rng": self._unseeded}, *rest)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return sys.intern(pid) if isinstance(pid, str) else np.dtype(pid[1])


def dumps(content: Any) -> bytes:
    """Return a pickle."""
    file = io.BytesIO()
    _Pickler(file).dump(content)
    return file.getvalue()


def loads(content: bytes) -> Any:
    """Return what a pickle holds. It runs any code: the operator must have allowed it."""
    return _Unpickler(io.BytesIO(content)).load()
