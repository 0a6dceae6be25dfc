"""Which labels can be learned, and who gives them?

A label is refused here, before it is in the log, where it is known that the learner would not learn it: it is none of
those that the operator names (`--labels`), or it is new and the model has no place left, as the learner said last. What
comes in between, or by the log alone, the learner sends to the dead-letter topic.
"""

from collections.abc import Sequence

from driftline.api.access.keys import Key, named
from driftline.api.errors import ApiError
from driftline.api.shared.watcher import Watcher
from driftline.learner.report.status import Status
from driftline.stream.join.quota import OPEN
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.label_scheme import nearest
from driftline.stream.wire.records import Feedback
from driftline.stream.words import counted


def source_of(key: Key | None, source: str | None) -> str | None:
    """Return who gave a label: with a key as it says, else what a client calls itself behind OPEN (join/quota.py)."""
    if key is not None or not source or source == OPEN or source.startswith(f"{OPEN}/"):
        return named(key, source)
    return f"{OPEN}/{source}"


class Labels:
    """Refuses labels. On the event loop only.

    Raises
    ------
    ConfigError : the file of labels cannot be read, or is none.
    """

    def __init__(self, stream: StreamSettings, watcher: Watcher) -> None:
        self._scheme, self._watcher = stream.scheme, watcher
        self._named = frozenset(self._scheme or ())
        self._seen: Status | None = None
        self._known: frozenset[str] = frozenset()

    def check(self, items: Sequence[Feedback]) -> None:
        """Raise ApiError (422) where one of a request's labels would not be learned."""
        given = {item.label: at for at, item in reversed(list(enumerate(items))) if item.op == "upsert"}
        if self._scheme is not None:
            for label, at in given.items():
                if label not in self._named:
                    raise _refuse(
                        "unknown-label",
                        f"label {label!r}{_where(at, items)} is none of the {counted(len(self._scheme), 'label')} that "
                        f"there are; the nearest is {nearest(label, self._scheme)!r}",
                        "Correct it, or have the operator add it to the file that --labels names.",
                    )
        status = self._watcher.status
        if status is None or not status.places:
            return
        if status is not self._seen:
            self._seen, self._known = status, frozenset(status.labels)
        new = sorted((at, label) for label, at in given.items() if label not in self._known)
        if len(new) > status.places_left:
            at, label = new[status.places_left]
            raise _refuse(
                "too-many-labels",
                f"label {label!r}{_where(at, items)} is new, and the model has no place for it: all "
                f"{counted(status.places, 'place')} are taken",
                "Correct it if it was not meant. Else the operator can make room: `driftline rebuild --exclude "
                "label=NAME` takes labels out, `--model` with a larger max_labels has more places, and --labels names "
                "the only ones that are taken. Labels that were seen seldom give their place after a while "
                "(--free-labels-hours).",
            )


def _where(at: int, items: Sequence[Feedback]) -> str:
    return f" at `$[{at}]`" if len(items) > 1 else ""


def _refuse(code: str, message: str, action: str) -> ApiError:
    return ApiError(422, code, message, f"Nothing was appended. {action}")
