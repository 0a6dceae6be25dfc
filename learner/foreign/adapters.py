"""Which adapter is for which foreign model?"""

from collections.abc import Mapping
from typing import Any

from driftline.learner.explain.sketch import is_due, new_sketch, note
from driftline.learner.foreign.adapter import Adapter
from driftline.learner.foreign.model_file import DIGEST, SOURCE, ModelFile
from driftline.learner.foreign.named import FILE, LIBRARIES, Named, parse
from driftline.learner.foreign.partial_fit import PartialFitAdapter
from driftline.learner.foreign.river_models import RiverAdapter
from driftline.learner.foreign.settings import ForeignSettings
from driftline.learner.text.features import TextSettings, features
from driftline.stream.errors import ConfigError


def make_adapter(name: str, settings: ForeignSettings, arguments: Mapping[str, Any], *, allow_pickle: bool) -> Adapter:
    """Return a new foreign classifier.

    Parameters
    ----------
    name : prefix:module.Class
    settings : ours, of the class that `settings_class` gives
    arguments : of the model's class
    allow_pickle : whether `load_state` may open a pickle

    Raises
    ------
    ConfigError : it cannot be found, made, or taught a hashed text.
    """
    prefix, _, path = name.partition(":")
    kept = {key: value for key, value in arguments.items() if key in (SOURCE, DIGEST)}
    given = {key: parse(key, value) for key, value in arguments.items() if key not in kept}
    if prefix == FILE:
        source, digest = kept.get(SOURCE), kept.get(DIGEST)
        made_by = ModelFile.read(name, given) if source is None else ModelFile(name, str(source), given)
        if digest not in (None, made_by.digest):
            raise ConfigError(f"model {name}: the file's SHA-256 is {made_by.digest}, not {digest}")
        return _kind_of(made_by)(made_by, settings, allow_pickle)
    kind = RiverAdapter if prefix == "river" else PartialFitAdapter
    return kind(Named(LIBRARIES[prefix], path, given), settings, allow_pickle)


def _kind_of(file: ModelFile) -> "type[RiverAdapter | PartialFitAdapter]":
    """Look at a model that a file builds. Raises ConfigError where it is none."""
    model = file.new()
    if callable(getattr(model, "learn_one", None)) and callable(getattr(model, "predict_one", None)):
        return RiverAdapter
    if callable(getattr(model, "partial_fit", None)) and callable(getattr(model, "predict_proba", None)):
        return PartialFitAdapter
    raise ConfigError(
        f"model {file.name}: what it returns, a {type(model).__name__}, must have learn_one and predict_one, as "
        "River's have, or partial_fit and predict_proba, as scikit-learn's"
    )


def warm_up() -> None:
    """Compile what a foreign model's texts are hashed and noted with, or load it compiled."""
    found, _ = features(["a", "e\u0301"], TextSettings())
    sketch = new_sketch(1)
    is_due(sketch)
    note(found, len(found), sketch)
