"""Everything that is installed, under one name; what programs of others are meant to use, at its top.

`from driftline import Client` asks a running API, and needs no more than `pip install driftline-client` brings;
`make_classifier` and `RiverClassifier` learn in the program itself, and need `pip install driftline`. Each name is
loaded where it is asked for.

The four folders stand beside this one, and links lead to them; so nothing that Driftline brings is called `api` or
`cli`, as folders of its users' own are. In an installed package they are folders here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftline.api.calls import Label, Message, Prediction, Refused, Sent
    from driftline.api.client import AsyncClient, Client
    from driftline.learner.models.classifier import Classifier
    from driftline.learner.registry import make_classifier
    from driftline.learner.river import RiverClassifier
    from driftline.stream.errors import ConfigError, DriftlineError, NotInstalled

    __version__: str

__all__ = [
    "AsyncClient",
    "Classifier",
    "Client",
    "ConfigError",
    "DriftlineError",
    "Label",
    "Message",
    "NotInstalled",
    "Prediction",
    "Refused",
    "RiverClassifier",
    "Sent",
    "__version__",
    "make_classifier",
]

# Type checkers are not to see this: to them any name whatever, a misspelt one too, would be there.
if not TYPE_CHECKING:
    _NAMES = __all__
    del __all__  # `import *` asks below, and gets what is there
    _OF_CLIENT = {
        **dict.fromkeys(("AsyncClient", "Client"), "driftline.api.client"),
        **dict.fromkeys(("Label", "Message", "Prediction", "Refused", "Sent"), "driftline.api.calls"),
        **dict.fromkeys(("ConfigError", "DriftlineError", "NotInstalled"), "driftline.stream.errors"),
    }
    _OF_SERVER = {
        "Classifier": "driftline.learner.models.classifier",
        "RiverClassifier": "driftline.learner.river",
        "make_classifier": "driftline.learner.registry",
    }

    def __getattr__(name):
        """Load what is asked for, once. Raises NotInstalled where the client is installed alone and does without it."""
        if name == "__all__":
            return _there()
        if name == "__version__":
            from driftline.stream.version import version

            return version()
        module = _OF_CLIENT.get(name) or _OF_SERVER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            found = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            from driftline.light import not_installed

            raise not_installed(f"driftline.{name}", error) from None
        return globals().setdefault(name, found)

    def __dir__():
        """Name what can be loaded here, for who looks through it all."""
        return sorted({*globals(), *_there()})

    def _there():
        """Return the names of what is there: with the client alone, those that need no more."""
        from driftline.light import is_alone

        left_out = _OF_SERVER.keys() if is_alone() else ()
        return [name for name in _NAMES if name not in left_out]
