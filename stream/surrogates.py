"""What becomes of half a character?

JSON and UTF-16 have characters beyond the first 65,536 as two halves, and a producer may cut between them. Two that
belong together are one character; one alone is U+FFFD, which every encoding can write.
"""


def whole_characters(text: str) -> str:
    """Return a text in which halves of surrogate pairs that belong together are one character, and others U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
