"""A learner at work with its log and server, and the page of it open in a browser, for the tests of the page."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.report.status import Status, read_status
from driftline.stream.log.base import Log, NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import NONE, Feedback, Message, encode
from tests.place import running
from tests.waiting import wait_until

expect.set_options(timeout=30_000)
MODEL = "linear?bits=16"
DATA = {
    "spam": ["win a prize now", "claim your cash prize", "you are a winner, claim now"],
    "ham": ["see you at lunch", "running late, home by nine", "the meeting moved to noon"],
}


class Site(NamedTuple):
    """A learner at work, its log, and a server."""

    stream: StreamSettings
    log: Log
    url: str

    def message(self, key: str, text: str, **fields: Any) -> None:
        made = Message(key, text, fields=msgspec.Raw(encode(fields)) if fields else NONE)
        self.log.append("messages", [NewRecord(key.encode(), encode(made))])

    def label(self, key: str, label: str, text: str | None = None) -> None:
        self.log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, label, text=text)))])

    def ask(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=30).json()

    def settled(self) -> Status:
        """Return the learner's status once it is of everything that is in the log now."""
        ends = {str(part.partition): mark.high for part, mark in self.log.watermarks(["feedback"]).items()}
        found: dict[str, Status] = {}

        def has_all() -> bool:
            if (status := read_status(self.stream.data)) is None:
                return False
            found["now"], at = status, status.positions["feedback"]
            return all(at.get(partition, 0) >= end for partition, end in ends.items())

        wait_until(has_all, what="the status has all labels")
        return found["now"]

    def seen(self) -> int:
        """Return how many messages were seen, once that is all."""
        wait_until(lambda: self.ask("/model")["lag"]["messages"] == {"0": 0}, what="the status has all messages")
        return int(self.ask("/model")["messages_seen"])

    def labelled(self, rounds: int) -> None:
        """Send messages and their labels, and wait until they are learned."""
        before = self.ask("/model")["labels_learned"]
        number = itertools.count(before)
        for _, (label, texts) in itertools.product(range(rounds), DATA.items()):
            for text in texts:
                key = f"known-{next(number)}"
                self.message(key, text)
                self.label(key, label)
        wait_until(lambda: self.ask("/model")["labels_learned"] == before + 6 * rounds, 240, "they are learned")


@contextmanager
def at_work(data: Path, **options: Any) -> Iterator[Site]:
    """Run a learner in a thread, and a server."""
    stream = StreamSettings(data=data)
    stop = threading.Event()
    settings = LearnerSettings(**({"model": MODEL, "label_requests_per_hour": 3600} | options))
    with closing(open_log(stream)) as log:
        learner = Learner(stream, settings, log)

        def learn() -> None:
            with closing(learner):
                learner.start()
                learner.run(stop.is_set)

        thread = threading.Thread(target=learn)
        thread.start()
        try:
            with running(stream, max_wait_s=60.0) as url:
                yield Site(stream, log, url)
        finally:
            stop.set()
            thread.join(60)


class Tab:
    """A page that is open, and everything that went wrong in it."""

    def __init__(self, browser: Browser, url: str, width: int = 1440, scheme: Any = "light", **options: Any) -> None:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        self.page: Page = context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.url = url
        self.expected = "nothing"  # what the browser may say of an answer
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective, e.sample))"
        )

    def open(self, room: str = "now") -> Page:
        """Open a room, or the address of something in it; wait until the page knows the model."""
        self.page.goto(f"{self.url}/#{room}")
        expect(self.page.locator("#state-text")).not_to_have_text("Connecting …")
        expect(self.page.locator(f"#room-{room.partition('?')[0]}")).to_be_visible()
        if room == "now":
            expect(self.page.locator("#tiles .tile")).to_have_count(7)
        return self.page

    def _heard(self, message: ConsoleMessage) -> None:
        asked = message.location.get("url", "")
        optional = "/snapshots" in asked  # not every API has them
        if "ERR_NETWORK_CHANGED" in message.text:  # the machine got or lost an interface; the page asks again
            return
        if message.type in ("error", "warning") and not optional and self.expected not in message.text:
            self.troubles.append(message.text)

    def close(self) -> None:
        self.page.goto("about:blank")  # so that it lets go of what it claimed
        self.page.context.close()
        assert not self.troubles
        away = [url for url in self.requests if not url.startswith((self.url + "/", "data:"))]
        assert not away, "nothing is asked of anyone else"
