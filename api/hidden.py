"""What does a text say of this machine's disk? To whoever asks over HTTP: names, not where they lie.

Some answers need no key (whether it is ready, and why not), and many errors name a file with its whole path, which is
for the log and for the command line. A directory that is known goes first, since its name may hold anything; then what
looks like a path.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_STEPS: Final = r"(?:[^\s/'\"()<>]+/)"
_PATH: Final = re.compile(rf"sqlite:////?{_STEPS}*|(?:file://|(?<![\w.~/-]))(?:~|\.{{1,2}})?/{_STEPS}+")


class Hidden:
    """Texts without the directories that lie in them. Any thread.

    Parameters
    ----------
    directories : those that are known, of which a text may speak as they were given
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        forms = {str(form) for each in directories for form in (each, each.absolute(), each.resolve())}
        self._forms = sorted((form for form in forms if form.strip("./")), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return a text that names files by their last part only."""
        for form in self._forms:
            text = text.replace(form + "/", "").replace(form, Path(form).name)
        return without_paths(text)


def without_paths(text: str) -> str:
    """Return a text whose whole paths are their last parts."""
    return _PATH.sub("", text)
