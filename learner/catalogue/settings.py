"""How much may the catalogue hold?"""

from pydantic import Field

from driftline.stream.process.settings import Settings


class CatalogueSettings(Settings):
    """Options of the catalogue."""

    catalogue_messages: int = Field(
        1_000_000,
        ge=1,
        le=1_000_000_000,
        description="Messages that can be looked for and exported, at most: the newest. Of what the log has.",
    )
