"""Which classifiers are there, and how is one named?

A classifier is named by a specification, `linear?bits=20&chars=0`: its name, then settings that differ from the
defaults. `build_saved` takes what `Classifier.config` gave, so that a checkpoint can be read without knowing who wrote
it. A name with a colon, `river:naive_bayes.MultinomialNB`, is a class of another library, or a file that builds a
model. Such a name runs code, and so does such a model's state: without `allow_pickle` it is refused before anything of
it is looked at.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import Event, Timer
from typing import Any, Final

from numba.core import event

from driftline.learner.blend.blend import Blend
from driftline.learner.blend.settings import BlendSettings
from driftline.learner.foreign.named import FILE, GONE, LIBRARIES, check_allowed, is_foreign
from driftline.learner.models.bayes import Bayes, BayesSettings
from driftline.learner.models.classifier import Classifier
from driftline.learner.models.linear import Linear, LinearSettings
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.tree.tree import Tree, TreeSettings
from driftline.stream.errors import ConfigError

SOON_S: Final = 1.5


@dataclasses.dataclass(frozen=True)
class NamedClassifier:
    """A classifier that can be named: its settings, a frozen dataclass, and what makes it of them."""

    settings: type[Any]
    make: Callable[[Any], Classifier]


REGISTRY: Final[dict[str, NamedClassifier]] = {
    "linear": NamedClassifier(LinearSettings, Linear),
    "tree": NamedClassifier(TreeSettings, Tree),
    "bayes": NamedClassifier(BayesSettings, Bayes),
    "blend": NamedClassifier(BlendSettings, Blend),
}

MADE_BY: Final = "embed_made_by"
EARLIER: Final = {  # what was before there was the setting
    "tail_chars": 0,
    "hashing": 1,
    "cross": "",
    "rehearse": 0,
    "vectors": "",
    "vectors_sha256": "",
    "dimension": 0,
    "embed": "",
    "embed_sha256": "",
    "embed_made_by": "",
    "embed_rate": 100,  # of no meaning without `embed`
}
EARLIER_FOREIGN: Final = {"text.hashing": 1, "text.raw": False, "text.fields": False, "text.cross": ""}

_LOG: Final = logging.getLogger(__name__)
_TRUTHS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def make_classifier(spec: str, *, allow_pickle: bool = False) -> Classifier:
    """Return a new classifier.

    Parameters
    ----------
    allow_pickle : take models of other libraries, too, whose state is a pickle

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
    return build(name, given, allow_pickle=allow_pickle)


def build_saved(config: Mapping[str, Any], *, allow_pickle: bool = False) -> Classifier:
    """Return a new classifier with the settings of a saved one, as `Classifier.config` gave them then."""
    settings = {setting: value for setting, value in as_of_today(config).items() if setting != "classifier"}
    return build(config["classifier"], settings, allow_pickle=allow_pickle)


def as_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved configuration with every setting of ours: what came later is as it was before.

    So a model that learned texts as they are written (`hashing` 1) goes on with that.
    """
    name = config["classifier"]
    if is_foreign(name):
        return {**EARLIER_FOREIGN, **config}
    own = REGISTRY[name].settings.__dataclass_fields__ if name in REGISTRY else {}
    return {**{setting: value for setting, value in EARLIER.items() if setting in own}, **config}


def built_anew(config: Mapping[str, Any], *, allow_pickle: bool = False) -> Classifier:
    """Return a new classifier with the settings of a saved one, that may learn on this machine whatever it learned on.

    So a sentence model may give other vectors here: nothing was learned of any.
    """
    return build_saved({**config, MADE_BY: ""} if MADE_BY in config else config, allow_pickle=allow_pickle)


def build(name: str, settings: Mapping[str, Any], *, allow_pickle: bool = False) -> Classifier:
    """Return a new classifier with settings that are strings, or of their types."""
    if is_foreign(name):
        return _build_foreign(name, settings, allow_pickle)
    entry = REGISTRY.get(name)
    if entry is None:
        foreign = ", ".join(f"{prefix}:module.Class" for prefix in LIBRARIES) + f", {FILE}:model.py:build"
        gone = GONE.get(name.partition(":")[0])
        if gone:
            raise ConfigError(f"there is no classifier {name!r} any more: {gone}")
        raise ConfigError(f"there is no classifier {name!r}; there are {', '.join(sorted(REGISTRY))}, {foreign}")
    fields = {field.name: field for field in dataclasses.fields(entry.settings)}
    values = {}
    for setting, value in settings.items():
        if setting not in fields:
            raise ConfigError(f"{name} has no setting {setting!r}; it has {', '.join(fields)}")
        values[setting] = _converted(name, setting, value, type(fields[setting].default))
    return entry.make(entry.settings(**values))


def _build_foreign(name: str, settings: Mapping[str, Any], allow_pickle: bool) -> Classifier:
    """Tell our options, max_labels and those after `text.`, from the model's arguments, and make it."""
    check_allowed(name, allow_pickle)
    from driftline.learner.foreign.adapter import ARGUMENT_NAMED  # noqa: PLC0415  (only where it is used)
    from driftline.learner.foreign.adapters import make_adapter  # noqa: PLC0415  (likewise)
    from driftline.learner.foreign.settings import TEXT, option_name, settings_class  # noqa: PLC0415  (likewise)

    kind = settings_class(name.partition(":")[0])
    ours = {option_name(field.name): field for field in dataclasses.fields(kind)}
    unknown = [setting for setting in settings if setting.startswith(TEXT) and setting not in ours]
    if unknown:
        raise ConfigError(f"{name} has no setting {unknown[0]!r}; it has {', '.join(ours)}, and the class's own")
    values = {
        field.name: _converted(name, option, settings[option], type(field.default))
        for option, field in ours.items()
        if option in settings
    }
    named = {kept: argument for argument, kept in ARGUMENT_NAMED.items()}
    arguments = {named.get(setting, setting): value for setting, value in settings.items() if setting not in ours}
    return make_adapter(name, kind(**values), arguments, allow_pickle=allow_pickle)


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


@contextmanager
def waiting_said(name: str) -> Iterator[None]:
    """Say it, once a process, where kernels are compiled in the block for SOON_S or longer, and not merely loaded."""
    compiling = _Compiling()
    notice = Timer(SOON_S, lambda: compiling.began.is_set() and _say_waiting(name))
    with event.install_listener("numba:compile", compiling):
        notice.start()
        try:
            yield
        finally:
            notice.cancel()


class _Compiling(event.Listener):
    """Notes that numba has begun to compile something, in any thread."""

    def __init__(self) -> None:
        self.began = Event()

    def on_start(self, _: event.Event) -> None:
        self.began.set()

    def on_end(self, _: event.Event) -> None:
        pass


@cache
def _say_waiting(name: str) -> None:
    _LOG.warning("compiling the kernels of %s, once: this takes up to a minute, or more on a busy machine", name)


def warm_up(name: str) -> None:
    """Compile a classifier's kernels, or load them compiled, so that no message waits for that."""
    entry = REGISTRY.get(name)
    if entry is None:  # a foreign model is tried out when it is made
        return
    with waiting_said(name):
        classifier = entry.make(entry.settings(max_labels=2, bits=10))  # so small a one rehearses a text, too
        classifier.learn_one("a" * (classifier.settings.max_chars + 1), "")  # long enough to be cut
        classifier.learn_one("e\u0301", "")  # and one that is not in its one form
        classifier.explain_one("a")
        classifier.imprint("a")  # the first labels are kept so
        OneTextScorer(classifier)("é")
