"""Which classifiers are there, and how is one named?

A classifier is named by a specification, `linear?bits=20&chars=0`: its name, then settings that differ from the
defaults. `build` takes what `Classifier.config` gave, so that a checkpoint can be read without knowing who wrote it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from learner.bayes import Bayes, BayesSettings
from learner.blend import Blend, BlendSettings
from learner.classifier import Classifier
from learner.linear import Linear, LinearSettings
from learner.tree import Tree, TreeSettings
from stream.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Entry:
    """A classifier that can be named: its settings, a frozen dataclass, and what makes it of them."""

    settings: type[Any]
    make: Callable[[Any], Classifier]


REGISTRY: Final[dict[str, Entry]] = {
    "linear": Entry(LinearSettings, Linear),
    "tree": Entry(TreeSettings, Tree),
    "bayes": Entry(BayesSettings, Bayes),
    "blend": Entry(BlendSettings, Blend),
}

_TRUTHS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def make_classifier(spec: str) -> Classifier:
    """Return a new classifier.

    Raises
    ------
    ConfigError : unknown name or setting, or a value out of range
    """
    name, _, query = spec.partition("?")
    given: dict[str, str] = {}
    for part in query.split("&") if query else []:
        setting, equals, value = part.partition("=")
        if not equals or not setting:
            raise ConfigError(f"classifier {spec!r}: {part!r} must be setting=value, joined by &")
        if setting in given:
            raise ConfigError(f"classifier {spec!r}: {setting} stands twice")
        given[setting] = value
    return build(name, given)


def build(name: str, settings: Mapping[str, Any]) -> Classifier:
    """Return a new classifier with settings that are strings, or as `Classifier.config` gives them."""
    entry = REGISTRY.get(name)
    if entry is None:
        raise ConfigError(f"there is no classifier {name!r}; there are {', '.join(sorted(REGISTRY))}")
    fields = {field.name: field for field in dataclasses.fields(entry.settings)}
    values = {}
    for setting, value in settings.items():
        if setting == "classifier":  # a config carries its own name
            continue
        if setting not in fields:
            raise ConfigError(f"{name} has no setting {setting!r}; it has {', '.join(fields)}")
        values[setting] = _converted(name, setting, value, type(fields[setting].default))
    return entry.make(entry.settings(**values))


def _converted(name: str, setting: str, value: Any, kind: type) -> Any:
    """Return a value as the type that the setting's default has."""
    if kind is bool:
        truth = value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())
        if truth is None:
            raise ConfigError(f"{name}: {setting}={value} must be 1 or 0")
        return truth
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ConfigError(f"{name}: {setting}={value} must be {'a whole number' if kind is int else 'a number'}")
    try:
        converted = kind(value)
    except (TypeError, ValueError, OverflowError):
        converted = math.nan
    if kind in (int, float) and not math.isfinite(converted):
        raise ConfigError(f"{name}: {setting}={value} must be {'a whole number' if kind is int else 'a number'}")
    return converted


def warm_up(name: str) -> None:
    """Compile a classifier's kernels, or load them compiled, so that no message waits for that."""
    entry = REGISTRY[name]
    entry.make(entry.settings(max_labels=2, bits=8)).learn_one("", "")


if __name__ == "__main__":
    for each in REGISTRY:
        warm_up(each)
