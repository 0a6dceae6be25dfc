"""How does a file of Python become a model?

`file:model.py:build` is a function that returns a model, whatever it is made of: lists, pipelines, classes of its own
(named.py can name single classes only). The file's text goes with the model, in its configuration: a checkpoint, a
snapshot or an older version is opened by what it was made with, wherever the file is by then and whatever stands in it.
Its SHA-256 is part of what the model is: with another text `--model` means another model. A file is one module; what
it imports has to be installed. Running it runs whatever it says: nothing here may be called with a file, or a
configuration, that was not trusted (see `models.build`).
"""

import copy
import hashlib
import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from driftline.learner.foreign.named import FILE, Argument, explained
from driftline.stream.errors import ConfigError

FUNCTION: Final = "build"  # where none is named
MAX_BYTES: Final = 1 << 16  # a file's text is part of every snapshot
SOURCE, DIGEST = "file.source", "file.sha256"  # in a configuration
_PREFIX: Final = "driftline_model_"  # of the modules' names, by which a pickle finds a file's own classes
_LOCK: Final = threading.Lock()  # two threads may open two snapshots of one model


@dataclass(frozen=True)
class ModelFile:
    """A function in a file, and its arguments.

    Attributes
    ----------
    name : as in a configuration: file:, the file's name without its directory, the function's
    source : the file's text
    """

    name: str
    source: str
    arguments: Mapping[str, Argument]

    @classmethod
    def read(cls, spec: str, arguments: Mapping[str, Argument]) -> "ModelFile":
        """Read the file that is named as `file:path` or `file:path:function`. Raises ConfigError."""
        named = spec.partition(":")[2]
        path_name, colon, function = named.rpartition(":")
        if not colon or not function.isidentifier():
            path_name, function = named, FUNCTION
        path = Path(path_name)
        if not path_name:
            raise ConfigError(f"model {spec}: a file is named as {FILE}:model.py:{FUNCTION}")
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            source = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise ConfigError(f"model {spec}: the file {path} cannot be read: {why} (from {Path.cwd()})") from error
        if len(content) > MAX_BYTES:
            raise ConfigError(
                f"model {spec}: the file {path} is longer than {MAX_BYTES:,} bytes, and every snapshot has it; "
                "put what is long into a package, and import it"
            )
        return cls(f"{FILE}:{path.name}:{function}", source, arguments)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file's text."""
        return _digest(self.source)

    @property
    def package(self) -> str:
        """What a pickle's version is that of: nothing but the file's own text."""
        return self._module_name

    def config(self) -> dict[str, Any]:
        """Return what is kept of it, arguments apart."""
        return {"classifier": self.name, DIGEST: self.digest, SOURCE: self.source}

    def new(self) -> Any:
        """Return a new model, which shares nothing with others. Raises ConfigError."""
        module, (_, path, function) = self._module(), self.name.split(":")
        build = getattr(module, function, None)
        if not callable(build):
            there = [name for name, found in vars(module).items() if self._is_own(found)]
            raise ConfigError(
                f"model {self.name}: {path} has no function {function!r}; it has {', '.join(there) or 'none'}"
            )
        try:
            inspect.signature(build).bind(**self.arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"model {self.name}: {function}() cannot be called so: {error}") from error
        try:
            # A copy: what the file keeps for itself, and puts into each model, would be one for all of them.
            return copy.deepcopy(build(**self.arguments))
        except (Exception, SystemExit) as error:  # a script's sys.exit() would end the learner without a word
            raise ConfigError(f"model {self.name}: {function}() failed: {explained(error, path)}") from error

    @property
    def _module_name(self) -> str:
        return _PREFIX + self.digest[:16]

    def _is_own(self, found: Any) -> bool:
        return isinstance(found, Callable) and getattr(found, "__module__", "") == self._module_name  # type: ignore[arg-type]

    def _module(self) -> ModuleType:
        """Return the file's module, run once a process: its classes stay the same."""
        name, path = self._module_name, self.name.split(":")[1]
        with _LOCK:
            module = sys.modules.get(name)
            if module is not None:
                return module
            module = sys.modules[name] = ModuleType(name)
            module.__file__ = path
            try:
                exec(compile(self.source, path, "exec", dont_inherit=True), vars(module))
            except (Exception, SystemExit) as error:
                del sys.modules[name]
                raise ConfigError(f"model {self.name}: {path} cannot be run: {explained(error, path)}") from error
            return module


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()
