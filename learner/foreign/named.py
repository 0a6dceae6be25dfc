"""How is a model of another library found by its name, and made with its arguments?

`river:tree.HoeffdingTreeClassifier?grace_period=50` is a class beneath the package `river`, and an argument of it.
Arguments are numbers, truths, None, text, or again the name of a class of the same library, whose own arguments stand
behind a dot: `ensemble.BaggingClassifier?model=tree.HoeffdingTreeClassifier&model.grace_period=50`. What is made of
more than that is built by a file (model_file.py). Whatever is wrong with a name or an argument is a ConfigError that
says what there is. Making one runs code of that library: nothing here
may be called with a name from a file that was not trusted (see `models.build`).
"""

import importlib
import importlib.util
import inspect
import math
import pkgutil
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from driftline.stream.errors import ConfigError

Argument = str | int | float | bool | None

_CLASS_NAME: Final = re.compile(r"([a-z_][a-z0-9_]*\.)+[A-Za-z_]\w*")
FILE: Final = "file"  # the prefix of a model that a file builds
_WORDS: Final[dict[str, Argument]] = {"true": True, "false": False, "none": None}
_SEEDS: Final = ("seed", "random_state")  # what River and scikit-learn call it


@dataclass(frozen=True)
class Library:
    """A library whose classes can be named behind `prefix:`."""

    prefix: str
    package: str  # its classes' names begin here; "" where a name is a full one
    install: str  # how to get it
    usable: Callable[[type], bool]  # whether a class can be a classifier here
    need: str  # what that takes, in words


def is_foreign(name: str) -> bool:
    """Tell whether a classifier's name, or its whole specification, means one of another library."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and (prefix in LIBRARIES or prefix == FILE)


def check_allowed(name: str, allow_pickle: bool) -> None:
    """Raise ConfigError for a foreign model where none is allowed."""
    if is_foreign(name) and not allow_pickle:
        raise ConfigError(
            f"model {name}: its state is a Python pickle, and opening one runs whatever code is in it. "
            "If nobody else can write to the data directory, allow it with --allow-pickle; nothing was opened"
        )


def _is_river_classifier(cls: type) -> bool:
    from river.base import Classifier, MultiLabelClassifier  # noqa: PLC0415  (slow, and only where it is used)

    return issubclass(cls, Classifier) and not issubclass(cls, MultiLabelClassifier)


def _learns_in_parts(cls: type) -> bool:
    return hasattr(cls, "partial_fit") and hasattr(cls, "predict_proba")


_PARTS: Final = "have partial_fit and predict_proba"
LIBRARIES: Final = {
    library.prefix: library
    for library in (
        Library("river", "river", "pip install river", _is_river_classifier, "be a classifier of River"),
        Library("sklearn", "sklearn", "pip install 'driftline[sklearn]'", _learns_in_parts, _PARTS),
        Library("class", "", "install the package that has it", _learns_in_parts, _PARTS),
    )
}


GONE: Final = {
    "multiflow": "scikit-multiflow became River, and its last version does not install beside this Python; "
    "river:tree.HoeffdingTreeClassifier, river:forest.ARFClassifier and the others of River stand in its place",
}


@dataclass(frozen=True)
class Named:
    """A class of a library, and its arguments."""

    library: Library
    path: str
    arguments: Mapping[str, Argument]

    @property
    def name(self) -> str:
        """As in a specification."""
        return f"{self.library.prefix}:{self.path}"

    @property
    def package(self) -> str:
        """What a pickle's version is that of."""
        return self.library.package or self.path.partition(".")[0]

    def config(self) -> dict[str, Any]:
        """Return what is kept of it, arguments apart."""
        return {"classifier": self.name}

    def new(self) -> Any:
        """Return a new model. Raises ConfigError."""
        return make(self.library, self.path, self.arguments)


def explained(error: BaseException, path: str) -> str:
    """Return an error with the line of a file where it arose, or by which."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    at = f"line {lines[-1]}: " if lines else ""
    return f"{at}{type(error).__name__}: {error}"


def parse(name: str, value: Any) -> Argument:
    """Return an argument as the command line means it: a number, a truth, None or text."""
    if isinstance(value, str):
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
        for kind in (int, float):
            try:
                value = kind(value)
                break
            except ValueError:
                continue
    if not isinstance(value, Argument):
        raise ConfigError(f"{name}={value!r}: an argument is a number, true, false, none or text")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value}: a number must be finite")
    return value


def make(library: Library, path: str, arguments: Mapping[str, Argument], *, what: str = "") -> Any:
    """Return a new object of a class, with arguments as `parse` gives them.

    Parameters
    ----------
    path : the class, as behind the prefix
    arguments : by name; `name.of_it` is an argument of the class that `name` names
    what : how messages call the object; a nested one need not be a classifier

    Raises
    ------
    ConfigError : no such library, class or argument, or the class does not take the value.
    """
    module, cls = find_class(library, path)
    if not what and not library.usable(cls):
        raise ConfigError(
            f"{library.prefix}:{path} cannot be used: it must {library.need}; "
            f"{_listed(_usable_in(library, module), 'no class beside it does')}"
        )
    what = what or f"{library.prefix}:{path}"
    parameters = inspect.signature(cls).parameters
    values: dict[str, Any] = {name: value for name, value in arguments.items() if "." not in name}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in {name.partition(".")[0]: None for name in arguments}:
        if name not in parameters and not takes_any:
            raise ConfigError(f"{what} has no argument {name!r}; it has {', '.join(parameters) or 'none'}")
        own = {inner[len(name) + 1 :]: value for inner, value in arguments.items() if inner.startswith(f"{name}.")}
        inner_path = values.get(name)
        if isinstance(inner_path, str) and (own or _CLASS_NAME.fullmatch(inner_path)):
            values[name] = make(library, inner_path, own, what=f"{what}: {name}={inner_path}")
        elif own:
            raise ConfigError(f"{what}: {name}.{next(iter(own))} needs {name}=module.Class, whose argument it is")
    for name in _SEEDS:  # without one, a replay would not give the same model
        if name in parameters:
            values.setdefault(name, 0)
    try:
        return cls(**values)
    except Exception as error:
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise ConfigError(
            f"{what} cannot be made with {given or 'no arguments'}: {error}; what needs a list, a dict, a metric or a "
            "pipeline is built in a file, file:model.py:build"
        ) from error


def find_class(library: Library, path: str) -> tuple[ModuleType, type]:
    """Import a class by its name; return it and the module that the name says. Raises ConfigError."""
    if library.package and importlib.util.find_spec(library.package) is None:
        raise ConfigError(f"{library.prefix}:{path} needs {library.package}, which is not installed: {library.install}")
    if not _CLASS_NAME.fullmatch(path):
        raise ConfigError(f"{library.prefix}:{path}: a class is named as {library.prefix}:module.Class")
    module_path, _, name = path.rpartition(".")
    full = f"{library.package}.{module_path}" if library.package else module_path
    try:
        module = importlib.import_module(full)
    except ImportError as error:
        raise ConfigError(f"{library.prefix}:{path}: {error}; {_near(library, full)}") from error
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        usable = _listed(_usable_in(library, module), "no class in it can be used")
        raise ConfigError(f"{library.prefix}:{path}: {full} has no class {name!r}; {usable}")
    return module, cls


def _near(library: Library, full: str) -> str:
    """Say what there is where a module was not found."""
    if not library.package:
        return library.install
    package = importlib.import_module(library.package)
    modules = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    return f"the modules of {library.package} are {', '.join(modules)}" if full.count(".") == 1 else library.install


def _usable_in(library: Library, module: ModuleType) -> list[str]:
    return [
        name
        for name, found in sorted(vars(module).items())
        if isinstance(found, type)
        and not name.startswith("_")
        and not inspect.isabstract(found)
        and library.usable(found)
    ]


def _listed(names: list[str], otherwise: str) -> str:
    return f"there are {', '.join(names)}" if names else otherwise
