"""Which of several APIs is asked next, where they are replicas of one another?

The first one, and then whichever answered last, for as long as it does. One that cannot be reached, or says that it
cannot serve, is left alone for a while that grows each time, and the next one is asked at once. A call goes round all
that are not left alone, or round all of them where every one is; between two rounds it waits.

Nothing is sent here: client.py does that, by its own clock.
"""

import random
import threading
import time
from collections.abc import Iterable
from typing import Final

import httpx
import msgspec

from driftline.stream.errors import ConfigError

FIRST_WAIT_S: Final = 0.1  # between two rounds
MAX_WAIT_S: Final = 10.0
FIRST_REST_S: Final = 1.0
MAX_REST_S: Final = 60.0
CONNECT_S: Final = 5.0  # where there is another one to turn to
MAX_SAID: Final = 200  # characters, of each
TRIED_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
AWAY: Final = frozenset({502, 503, 504})  # that one; another one may well answer
BEHIND: Final = frozenset({"not-learned-yet", "not-learning"})  # codes
Outcome = httpx.Response | httpx.HTTPError


class Refusal(msgspec.Struct, frozen=True):
    """What an answer that is not a success has, as errors.py makes it."""

    code: str
    error: str
    action: str = ""


_REFUSAL: Final = msgspec.json.Decoder(Refusal)


class Address:
    """One API. Changed by Addresses only.

    Attributes
    ----------
    url : httpx.URL
    failed : how often in a row
    rests_until : time.monotonic()
    """

    def __init__(self, url: httpx.URL) -> None:
        self.url, self.failed, self.rests_until = url, 0, 0.0

    def at(self, path: str) -> httpx.URL:
        """Return the URL of a path of this API."""
        relative = httpx.URL(path)
        if not relative.is_relative_url:
            return relative
        return self.url.copy_with(raw_path=self.url.raw_path.rstrip(b"/") + b"/" + relative.raw_path.lstrip(b"/"))


class Addresses:
    """The APIs, and which one answered last. Any thread.

    Raises
    ------
    ConfigError : there is none, or one is no URL.
    """

    def __init__(self, urls: str | Iterable[str]) -> None:
        self.all = [Address(checked_url(url)) for url in ([urls] if isinstance(urls, str) else urls)]
        if not self.all:
            raise ConfigError("url: give one at least, like http://127.0.0.1:8000")
        self._current = 0
        self._lock = threading.Lock()

    def round(self) -> list[Address]:
        """Return which are to be asked, one after the other: those that answered last first."""
        with self._lock:
            now = time.monotonic()
            turned = self.all[self._current :] + self.all[: self._current]
            awake = [each for each in turned if each.rests_until <= now]
            return awake or sorted(turned, key=lambda each: each.rests_until)

    def answered(self, address: Address) -> None:
        """Note that one serves: it stays the one that is asked."""
        with self._lock:
            address.failed, address.rests_until = 0, 0.0
            self._current = self.all.index(address)

    def is_away(self, address: Address, asked_s: float) -> None:
        """Note that one does not: it is left alone, for `asked_s` at least."""
        with self._lock:
            rest_s = min(FIRST_REST_S * 2.0**address.failed, MAX_REST_S) * random.uniform(0.5, 1)
            address.failed = min(address.failed + 1, 16)
            address.rests_until = time.monotonic() + max(rest_s, asked_s)


class Attempts:
    """The way of one call: whom it asks, and how long it waits before.

    Parameters
    ----------
    tries : how many rounds at most

    Attributes
    ----------
    address : whom to ask now
    """

    def __init__(self, addresses: Addresses, tries: int) -> None:
        self._addresses, self._tries, self._tried = addresses, tries, 0
        self._said: dict[Address, str] = {}
        self._waits_s = 0.0  # as long as one that was asked in this round said
        self._left = addresses.round()
        self.address = self._left.pop(0)

    def wait_after(self, outcome: Outcome) -> float | None:
        """Return how long to wait before `address` is asked, or None: this was the last outcome.

        Between half of a time that doubles and the whole of it, so that many clients do not come back at once.
        """
        status = outcome.status_code if isinstance(outcome, httpx.Response) else 0
        if status and status not in TRIED_AGAIN and not is_behind(outcome):
            self._addresses.answered(self.address)
            return None
        asked_s = _retry_after(outcome)
        if not status or status in AWAY:
            self._addresses.is_away(self.address, asked_s)
        self._said.pop(self.address, None)  # what was said last stands last
        self._said[self.address] = _words(outcome)
        self._waits_s = max(self._waits_s, asked_s)
        if self._left and status not in (408, 429):  # those are about who asks, not about who was asked
            self.address = self._left.pop(0)
            return 0.0
        self._tried += 1
        if self._tried >= self._tries:
            self._tell(outcome)
            return None
        wait_s = min(FIRST_WAIT_S * 2.0**self._tried, MAX_WAIT_S) * random.uniform(0.5, 1)
        wait_s, self._waits_s = max(wait_s, self._waits_s), 0.0
        self._left = self._addresses.round()
        self.address = self._left.pop(0)
        return wait_s

    def _tell(self, outcome: Outcome) -> None:
        """Have the last outcome say what each API said, where there are several."""
        if len(self._addresses.all) > 1:
            told = "; ".join(f"{address.url}: {said}" for address, said in self._said.items())
            if isinstance(outcome, httpx.Response):
                outcome.extensions["driftline"] = told
            else:
                outcome.add_note(told)


def all_said(outcome: Outcome) -> str:
    """Return what each of several APIs said before this last outcome of a call; "" where there is one."""
    if isinstance(outcome, httpx.Response):
        return str(outcome.extensions.get("driftline", ""))
    return "".join(getattr(outcome, "__notes__", []))


def checked_url(url: str) -> httpx.URL:
    """Return a URL that can be asked. Raises ConfigError."""
    try:
        checked = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"url: {url!r} is none: {error}") from None
    if checked.scheme not in {"http", "https"} or not checked.host:
        raise ConfigError(f"url: {url!r} must be like http://127.0.0.1:8000")
    return checked


def is_behind(outcome: Outcome) -> bool:
    """Tell whether the served model has not learned a label yet: in its time, or since no learner is at work now."""
    if not isinstance(outcome, httpx.Response) or outcome.status_code != 409:
        return False
    refusal = refusal_in(outcome)
    return refusal is not None and refusal.code in BEHIND


def refusal_in(answer: httpx.Response) -> Refusal | None:
    """Return what an answer says of a refusal; None where Driftline did not make it, but something before it."""
    try:
        return _REFUSAL.decode(answer.content)
    except ValueError:
        return None


def _words(outcome: Outcome) -> str:
    if not isinstance(outcome, httpx.Response):
        return repr(outcome)[:MAX_SAID]
    refusal = refusal_in(outcome)
    return f"{outcome.status_code}{f' {refusal.code}: {refusal.error}' if refusal else ''}"[:MAX_SAID]


def _retry_after(outcome: Outcome) -> float:
    asked = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return min(float(asked), MAX_WAIT_S) if asked.isascii() and asked.isdigit() else 0.0
