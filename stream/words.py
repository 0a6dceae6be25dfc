"""How is a number of things said?"""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return `1 row`, `2,000 rows`; `many` is for words that take no s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
