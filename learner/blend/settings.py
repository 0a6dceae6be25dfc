"""Which options has `blend`?"""

from dataclasses import dataclass

from driftline.learner.embed.opened import check_embed
from driftline.learner.models.bayes import check_half_life, check_slots
from driftline.learner.models.rehearsal import check_rehearse
from driftline.learner.text.features import TextSettings
from driftline.learner.vectors.opened import check_vectors
from driftline.learner.vectors.sent import check_dimension
from driftline.stream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BlendSettings(TextSettings):
    """Options of `blend`."""

    bits: int = 22  # 2**bits slots of 12 bytes, and half as many of 16
    max_chars: int = 4096
    tail_chars: int = 2048
    chars_min: int = 2
    chars_max: int = 4
    chars_step: int = 2  # n-grams of 2 and 4 characters
    half_life: float = 5_000.0  # of what naive Bayes counts, in labels learned; 0: never forget
    rehearse: int = 4096  # texts that are kept, for when labels come in runs
    vectors: str = ""  # a file of word vectors
    vectors_sha256: str = ""  # which file that has to be
    dimension: int = 0  # how many numbers a vector has that comes with a message
    embed: str = ""  # a sentence model: a directory, an .onnx file, or what a hub has
    embed_sha256: str = ""  # which model that has to be
    embed_made_by: str = ""  # the runtime, and the proof of the vectors that it has to give
    embed_rate: int = 100  # texts that get a vector in a second of the log's time; 0: all
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        check_slots(self.bits, self.max_labels)
        check_half_life(self.half_life)
        check_rehearse(self.rehearse)
        check_vectors(self.vectors, self.vectors_sha256)
        check_dimension(self.dimension, self.vectors)
        check_embed(self.embed, self.embed_sha256, self.embed_made_by, self.embed_rate)
        if self.embed and self.vectors:
            raise ConfigError("embed and vectors: the one or the other; a text has one vector, of one of them")
        if not 1 <= self.chars_step <= 16:
            raise ConfigError(f"chars_step={self.chars_step}: it must be 1 to 16")

    @property
    def lengths(self) -> range:
        """The lengths of n-grams."""
        return range(self.chars_min, self.chars_max + 1, self.chars_step)
