"""Which features does a foreign model get, and how many labels?"""

from dataclasses import dataclass
from typing import Final

from driftline.learner.foreign.named import FILE
from driftline.learner.text.features import TextSettings
from driftline.stream.errors import ConfigError

TEXT: Final = "text."  # before our options' names, so that none hides an argument of the model


@dataclass(frozen=True, kw_only=True)
class ForeignSettings(TextSettings):
    """Which features a foreign model gets, and how many labels. On the command line all but the last after `text.`."""

    chars: bool = False  # these models take a microsecond or more for each feature
    max_features: int = 4096
    bits: int = 18  # 2**bits features
    norm: bool = False  # each value 1 / sqrt(their number), not 1
    raw: bool = False  # no features: the text itself
    fields: bool = False  # the same, as a dict: the text under "text", and each field under its name
    dense: bool = False  # zeros too, not only what occurs: a tree of River sees no other way what is absent
    max_labels: int = 64

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 1 <= self.bits <= 30:
            raise ConfigError(f"text.bits={self.bits}: it must be 1 to 30")
        if self.dense and self.bits > 16:
            raise ConfigError(f"text.bits={self.bits}: with text.dense=1 it must be 1 to 16")
        for name in ("raw", "fields"):
            if self.dense and getattr(self, name):
                raise ConfigError(
                    f"text.{name}=1: the model gets the text itself, so there is nothing for text.dense=1 to do"
                )
        if not 1 <= self.max_labels <= 100_000:
            raise ConfigError(f"max_labels={self.max_labels}: it must be 1 to 100000")


@dataclass(frozen=True, kw_only=True)
class PartialFitSettings(ForeignSettings):
    """The same for models that learn by partial_fit: scaled as scikit-learn's HashingVectorizer does."""

    norm: bool = True
    max_labels: int = 16  # each takes its room and its time from the start


def option_name(field: str) -> str:
    """Return how a field of the settings is called in a specification."""
    return field if field == "max_labels" else TEXT + field


def settings_class(prefix: str) -> type[ForeignSettings]:
    """Return the settings of a library's models."""
    return ForeignSettings if prefix in ("river", FILE) else PartialFitSettings
