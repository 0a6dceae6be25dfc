"""What do the keys do, how many does a label cost where there are 77, and how soon is the next message there?

A person is imitated: Enter where the prediction is right, a number where the label is on a key, else `/`, letters of
the name until it stands first, and Enter. Figures are printed, what the page does is tested.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from driftline.stream.wire.records import decode_feedback
from tests.api.routes.test_page_labels import Queue, labels_of, more
from tests.page import Site, Tab, at_work
from tests.place import read_all
from tests.waiting import wait_until

WHAT = ["card", "cash", "transfer", "top_up", "pin", "refund", "exchange", "account", "fee", "identity", "limit"]
WHY = ["arrival", "declined", "not_working", "wrong_amount", "pending", "how_to", "cancelled"]
NAMES = [f"{what}_{why}" for what, why in itertools.product(WHAT, WHY)]  # 77; each shares its beginning with six others
N = 100
# Times from the last key to the next message on the screen.
WATCH = """
window.took = [];
let pressed = 0;
const box = document.getElementById("queue-text");
let shown = box.textContent;
addEventListener("keydown", () => { pressed = performance.now(); }, true);
new MutationObserver(() => {
  if (box.textContent === shown) return;  // its words were marked
  shown = box.textContent;
  requestAnimationFrame(() => window.took.push(performance.now() - pressed));
}).observe(box, {childList: true, characterData: true, subtree: true});
"""


def text_of(name: str, number: int) -> str:
    """Return a message of that label: one in three says it, one half of it, one nothing that a model could know."""
    what, _, why = name.partition("_")
    said = [
        f"about my {what}: {why.replace('_', ' ')}",
        f"it is {why.replace('_', ' ')}",
        f"please read letter {number}",
    ]
    return f"{number} hello, {said[number // len(NAMES) % 3]}"


@pytest.mark.long
def test_a_hundred_messages_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    with at_work(tmp_path / "data") as site:
        for number, name in enumerate(NAMES):
            site.message(f"known-{number}", text_of(name, number))
            site.label(f"known-{number}", name)
        wait_until(lambda: site.ask("/model")["labels_learned"] == len(NAMES), 240, "they are learned")
        truth = _fill_queue(site)
        tab = Tab(browser, site.url)
        page = tab.open("label")
        message = page.locator("#queue-text")
        expect(page.locator("#next li")).to_have_count(4)
        page.evaluate(WATCH)
        keys: list[int] = []
        typed: list[int] = []
        ways = {"Enter": 0, "number": 0, "/": 0}
        given: dict[str, str] = {}
        for _ in range(N):
            text = message.inner_text()
            name = truth[text]
            way, pressed = _label(page, name)
            expect(message).not_to_have_text(text)
            keys.append(pressed)
            typed += [pressed] if way == "/" else []
            ways[way] += 1
            given[text] = name
        took = np.array(page.evaluate("window.took"))
        print(
            f"\n{N} messages, {len(NAMES)} labels: {np.mean(keys):.2f} keys a label (most {max(keys)}), "
            f"{np.mean(typed):.1f} by type-ahead; {ways}; "
            f"next message after {np.median(took):.0f} ms, p95 {np.quantile(took, 0.95):.0f} ms"
        )
        assert len(given) == N, "no message came twice"
        assert len(took) >= N, "each was shown; on a busy machine some a moment after an empty box"
        assert ways["/"] > 10
        ids = {text.partition(" ")[0]: name for text, name in given.items()}

        def found() -> list[tuple[str, str]]:
            read = [decode_feedback(record.value or b"") for record in read_all(site.stream, "feedback")]
            return [(each.message_id, each.label) for each in read if each.message_id.startswith("open-")]

        wait_until(lambda: len(found()) == N, what="all are sent")
        assert dict(found()) == {f"open-{key}": name for key, name in ids.items()}
        assert max(keys) <= 2 + max(map(len, NAMES))
        expect(page.locator("#queue-today")).to_have_text("100 labelled today in this tab.")
        tab.close()


def _fill_queue(site: Site) -> dict[str, str]:
    """Send messages until more than N are asked about; return what each text really is."""
    truth: dict[str, str] = {}
    numbers = itertools.count()
    while site.ask("/label-requests")["open"] < N + 10:
        for _ in range(100):
            number = next(numbers)
            name = NAMES[number % len(NAMES)]
            truth[text_of(name, number)] = name
            site.message(f"open-{number}", text_of(name, number))
        wait_until(lambda: site.ask("/model")["lag"]["messages"] == {"0": 0}, what="they are seen")
        assert len(truth) < 5000
    return truth


def _label(page: Page, name: str) -> tuple[str, int]:
    """Label the message that is shown; return how, and how many keys that took."""
    shown: Any = page.evaluate(
        """[document.querySelector('#queue-said b')?.textContent,
            [...document.querySelectorAll('.pick .name')].map((e) => e.textContent)]"""
    )
    predicted, picks = shown
    if predicted == name:
        page.keyboard.press("Enter")
        return "Enter", 1
    if name in picks:
        page.keyboard.press(str(1 + picks.index(name)))
        return "number", 1
    page.keyboard.press("/")
    marked = page.locator("#queue-find [aria-selected=true]")
    word = name[name.index("_") + 1 :]  # what tells it from its neighbours comes last
    typed = ""
    for letter in word + " ":
        if typed and marked.count() and marked.inner_text() == name:
            break
        if letter == " ":  # others have that word, too: go on to it
            while marked.inner_text() != name:
                page.keyboard.press("ArrowDown")
                typed += "v"
            break
        page.keyboard.press(letter)
        typed += letter
    page.keyboard.press("Enter")
    return "/", len(typed) + 2


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(10)
        yield site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


class TestKeys:
    def test_without_the_focus_they_label(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        page = tab.open("label")
        queue = Queue(page)
        text = queue.message.inner_text()
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("1")
        expect(queue.message).not_to_have_text(text)
        wait_until(lambda: len(labels_of(site, text)) == 1)
        there = queue.message.inner_text()
        page.locator("#key-open").focus()
        page.keyboard.press("2")
        expect(queue.message).not_to_have_text(there)
        wait_until(lambda: len(labels_of(site, there)) == 1)

    def test_enter_takes_the_prediction_unless_it_presses_a_button(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        page = tab.open("label")
        queue = Queue(page)
        predicted = page.locator("#queue-said b").inner_text()
        text = queue.press("Enter")
        wait_until(lambda: [each.label for each in labels_of(site, text)] == [predicted])
        expect(page.locator("#effects")).to_contain_text("1 labelled here, 1 as predicted")
        there = queue.message.inner_text()
        page.locator("#queue-skip").focus()
        page.keyboard.press("Enter")
        expect(queue.message).not_to_have_text(there)
        assert not labels_of(site, there), "it was skipped"

    def test_the_keys_are_shown(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        page = tab.open("label")
        Queue(page)
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("find any label by a part of its name")
        page.keyboard.press("1")  # labels nothing while they are read
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert not [url for url in tab.requests if url.endswith("/feedback")]

    def test_a_label_that_is_written_survives_what_comes_in(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        page = tab.open("label")
        Queue(page)
        page.keyboard.press("/")
        field = page.get_by_label("Another label", exact=True)
        page.keyboard.type("half a lab")
        site.labelled(1)
        for _ in range(2):
            with page.expect_response(lambda answer: "label-requests?" in answer.url):
                pass
        expect(field).to_have_value("half a lab")
        expect(field).to_be_focused()
