"""Are messages found, read in full, labelled one by one and as a whole on the page? In the system's Chromium.

Over the real routes: what is sent is in the log, and the page shows it once the index of messages has followed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from msgspec import Raw
from playwright.sync_api import Browser, Page, Route, expect

from driftline.learner.catalogue import file
from driftline.learner.rebuild import erase
from driftline.stream.log.base import NewRecord
from driftline.stream.wire.records import Feedback, Message, decode_feedback, encode
from tests.page import Site, Tab, at_work
from tests.place import read_all
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(10)
        yield site


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Site]:
    """A learner that asks about a message an hour."""
    with at_work(tmp_path / "data", label_requests_per_hour=1) as site:
        site.labelled(5)
        yield site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


def backlog(n: int, word: str) -> dict[str, str]:
    """Return texts by ids that only one test has, as `word` has been."""
    return {f"{word}-{number}": f"{number} of the {word}: claim your prize" for number in range(n)}


def put(site: Site, texts: dict[str, str]) -> None:
    """Send messages, and wait until each can be found with what was predicted of it."""
    for key, text in texts.items():
        site.message(key, text)
    told = lambda key: (  # noqa: E731
        httpx.get(f"{site.url}/messages/{key}", timeout=30).json().get("predictions")
    )
    wait_until(lambda: told(list(texts)[-1]), 240, "the last one is found, and predicted")
    assert all(told(key) for key in texts)


def say(site: Site, key: str, label: str, **more: str) -> None:
    """Send a label as a client does."""
    answer = httpx.post(f"{site.url}/feedback", json={"message_id": key, "label": label} | more, timeout=30)
    assert answer.status_code == 202, answer.text


def count_of(site: Site, **asked: str) -> int:
    return int(site.ask(f"/messages?{urlencode(asked | {'n': '1'})}")["count"])


def labels_of(site: Site, *keys: str) -> list[Feedback]:
    found = [decode_feedback(record.value or b"") for record in read_all(site.stream, "feedback")]
    return [each for each in found if each.message_id in keys]


def pretend(page: Page, **index: Any) -> None:
    """Have the real answers say something else of how far the index is: a log that takes minutes, a full disk."""

    def answer(route: Route) -> None:
        response = route.fetch()
        told = response.json()
        told["index"] |= index
        route.fulfill(response=response, json=told)

    page.route(re.compile(r"/messages\?"), answer)


class TestMessages:
    def test_search_filters_and_paging(self, site: Site, tab: Tab) -> None:
        put(site, backlog(120, "ledger"))
        for number in range(7, 120, 10):
            say(site, f"ledger-{number}", "ham", source="ann")
        wait_until(lambda: count_of(site, query="ledger", source="open/ann") == 12)
        page = tab.open("messages?query=ledger")
        expect(page.locator(".seen > li")).to_have_count(50)
        expect(page.locator("#messages-count")).to_have_text("120 found")
        expect(page.locator("#messages-note")).to_contain_text("can be searched, at most 1,000,000")
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(100)
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(120)
        expect(page.locator("#messages-more")).to_be_hidden()
        shown = page.locator(".seen .text").all_inner_texts()
        assert shown == list(backlog(120, "ledger").values())[::-1], "each once, the newest first"
        page.get_by_label("Words").fill('"of the ledger" priz*')
        page.locator("#messages-label").fill("ham")
        page.get_by_label("Predicted").fill("spam")
        page.locator("#messages-source").fill("open/ann")
        page.locator("#messages-since").fill("2020-11-22T10:00")
        page.keyboard.press("Enter")
        n = count_of(site, query="ledger", label="ham", predicted="spam")
        assert n > 0
        expect(page.locator("#messages-count")).to_have_text(f"{n} found")
        expect(page.locator(".seen .worse")).to_have_text(["✗ is ham by open/ann"] * n)
        address = page.url
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#messages-count")).to_have_text(f"{count_of(site):,} found")
        page.goto(address)
        expect(page.get_by_label("Words")).to_have_value('"of the ledger" priz*')
        expect(page.locator("#messages-since")).to_have_value("2020-11-22T10:00")
        expect(page.locator("#messages-count")).to_have_text(f"{n} found")
        page.get_by_label("Which").select_option("unlabelled")
        expect(page.locator("#messages-list")).to_contain_text("Nothing was found")
        page.goto(f"{tab.url}/#messages?query=ledger")
        expect(page.locator("#messages-count")).to_have_text("120 found")
        page.locator("#messages-until").fill("2020-11-22T10:00")
        page.keyboard.press("Enter")
        expect(page.locator("#messages-list")).to_contain_text("Nothing was found")

    def test_what_comes_in_shows_by_itself(self, site: Site, tab: Tab) -> None:
        page = tab.open("messages?query=arrival")
        expect(page.locator("#messages-list")).to_contain_text("Nothing was found")
        site.message("arrival", "an arrival")
        expect(page.locator(".seen > li")).to_contain_text("no label yet")
        say(site, "arrival", "ham", note="seen twice")
        expect(page.locator(".seen > li")).to_contain_text("Note: seen twice")
        say(site, "arrival", "ham", op="retract")
        expect(page.locator(".seen > li")).to_contain_text("its label was taken back, 2 labels")

    def test_a_list_that_was_made_anew_begins_again(self, site: Site, tab: Tab) -> None:
        put(site, backlog(110, "anew"))
        page = tab.open("messages?query=anew")
        expect(page.locator(".seen > li")).to_have_count(50)
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(100)
        before = file.newest(site.stream.data)
        assert before is not None
        file.remove(before)  # as somebody may at any time; likewise where a message was erased
        wait_until(lambda: count_of(site, query="anew") == 110)
        tab.expected = "422"
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(50)
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(100)
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(110)

    def test_one_in_full(self, site: Site, tab: Tab) -> None:
        text = "word " * 200 + "the end of a long text"
        fields, metadata = Raw(b'{"sender":"ann@example.org"}'), Raw(b'{"thread":7}')
        site.log.append("messages", [NewRecord(b"long", encode(Message("long", text, None, metadata, fields)))])
        say(site, "long", "ham", source="bob", note="a guess")
        say(site, "long", "ham", source="bob", op="retract")
        say(site, "long", "spam", source="ann")
        wait_until(lambda: site.ask("/messages/long").get("predictions"))
        wait_until(lambda: len(site.ask("/messages/long")["labels"]) == 3)
        page = tab.open('messages?query="the end of a long text"')
        page.locator(".seen .text").click()
        expect(page).to_have_url(re.compile("id=long"))
        one = page.locator("#message-one")
        expect(one.locator(".message")).to_contain_text("the end of a long text")
        expect(one).to_contain_text("sender: ann@example.org")
        expect(one).to_contain_text('"thread": 7')
        said = site.ask("/messages/long")["predictions"][0]
        expect(page.locator("#message-predictions")).to_contain_text(
            re.compile(f"{said['label']} [0-9.+]+ by version {re.escape(said['model_version'])}")
        )
        expect(page.locator("#message-labels li")).to_contain_text(
            ["ham by open/bob. Note: a guess", "taken back: ham by open/bob", "spam by open/ann"]
        )
        expect(page.locator("#message-now")).to_contain_text("What the model says now, and why")
        expect(one.locator("mark").first).to_be_visible()
        page.get_by_role("button", name="Label it").click()
        page.keyboard.type("ham")
        page.keyboard.press("Enter")
        wait_until(lambda: [each.label for each in labels_of(site, "long")][3:] == ["ham"])
        expect(page.locator("#message-labels li")).to_have_count(4)
        page.get_by_role("button", name="Undo").click()
        wait_until(lambda: [each.label for each in labels_of(site, "long")][3:] == ["ham", "spam"], what="as before")
        expect(page.locator("#message-labels li").last).to_contain_text("spam by open/page")
        page.get_by_role("button", name="Erase it").click()
        expect(page.get_by_role("button", name="Sure?")).to_be_visible()
        page.get_by_role("button", name="Sure?").click()
        expect(one).to_contain_text("It will be erased")
        assert [b'"long"' in path.read_bytes() for path in erase.pending(site.stream.data)] == [True]
        page.go_back()
        expect(page.locator("#messages-form")).to_be_visible()
        expect(page.get_by_label("Words")).to_have_value('"the end of a long text"')

    def test_one_that_is_not_there_is_said(self, tab: Tab) -> None:
        tab.expected = "404"
        page = tab.open("messages?id=no/such?one")
        expect(page.locator("#message-text")).to_contain_text("There is no message no/such?one among those")
        expect(page.locator("#message-acts")).to_be_hidden()

    def test_it_is_said_how_far_the_index_is(self, tab: Tab) -> None:
        pretend(tab.page, ready=False, indexed=12_000, behind=88_000)
        page = tab.open("messages")
        note = page.locator("#messages-note")
        expect(note).to_contain_text("12,000 messages of the log are read so far; 88,000 records")
        tab.page.unroute_all()
        pretend(tab.page, behind=5000)
        expect(note).to_contain_text("The newest may not be found yet: 5,000 records are to be read.")
        tab.page.unroute_all()
        pretend(tab.page, ready=False, indexed=1, behind=0, problem="the disk is full")
        expect(note).to_contain_text("1 message of the log is read so far. It gets no further: the disk is full")
        page.goto(f"{tab.url}/#messages?query=nothingatall")
        expect(page.locator("#messages-list")).to_contain_text("Nothing was found yet. 1 message of the log")
        page.goto(f"{tab.url}/#label?query=nothingatall")
        expect(page.locator("#queue-empty")).to_contain_text("Nothing more was found yet. 1 message of the log")
        tab.page.unroute_all()
        expect(page.locator("#queue-empty")).to_have_text("Nothing more was found.")

    def test_it_is_said_where_nothing_can_be_found_now(self, tab: Tab) -> None:
        """Over an answer made up: a catalogue that cannot be read is not to be had for as long as it takes to look."""
        why = {"code": "catalogue-unavailable", "error": "it takes too long", "action": "Ask for less."}
        page = tab.open("messages?query=prize")
        expect(page.locator(".seen > li").first).to_be_visible()
        tab.expected = "503"
        page.route(re.compile(r"/messages\?"), lambda route: route.fulfill(status=503, json=why))
        expect(page.locator("#messages-note")).to_contain_text("Not looked up anew just now: it takes too long.")
        expect(page.locator(".seen > li").first).to_be_visible()
        page.goto(f"{tab.url}/#label?query=prize")
        expect(page.locator("#queue-empty")).to_have_text("it takes too long. Ask for less.")
        page.unroute_all()
        page.locator("#queue-from").select_option("new")
        expect(page.locator("#queue-empty:visible", has_text="it takes too long")).to_have_count(0)

    def test_all_that_is_found_is_labelled_after_a_second_look(self, site: Site, tab: Tab) -> None:
        put(site, backlog(230, "bulk"))
        say(site, "bulk-3", "ham")
        say(site, "bulk-4", "spam")
        wait_until(lambda: count_of(site, query="bulk", state="labelled") == 2)
        page = tab.open("messages?query=bulk")
        page.get_by_role("button", name="Label all 230 found as").click()
        page.keyboard.type("spam")
        page.keyboard.press("Enter")
        sure = page.locator(".sure")
        expect(sure).to_contain_text("Label 229 messages as spam? 1 of them has another label, which is corrected.")
        assert not labels_of(site, "bulk-0")
        sure.get_by_role("button", name="Do not").click()
        expect(sure).to_be_hidden()
        page.get_by_role("button", name="Label all 230 found as").click()
        page.keyboard.type("spam")
        page.keyboard.press("Enter")
        with page.expect_response("**/feedback"):
            sure.get_by_role("button", name="Label 229 as spam").click()
        expect(sure).to_contain_text("Labelled 229 messages as spam")
        keys = [f"bulk-{n}" for n in range(230)]
        found = labels_of(site, *keys)[2:]
        assert {each.message_id for each in found} == set(keys) - {"bulk-4"}
        assert {(each.label, each.op) for each in found} == {("spam", "upsert")}
        assert len({each.id for each in found}) == 229
        wait_until(lambda: count_of(site, query="bulk", label="spam") == 230)
        sure.get_by_role("button", name="Undo").click()
        expect(sure).to_contain_text("Taken back: spam, 229 messages. The model keeps what it learned")
        again = labels_of(site, *keys)[231:]
        ops = {each.message_id: (each.op, each.label) for each in again}
        assert len(again) == len(ops) == 229
        assert ops.pop("bulk-3") == ("upsert", "ham")
        assert set(ops.values()) == {("retract", "spam")}
        wait_until(lambda: count_of(site, query="bulk", state="unlabelled") == 228, what="as it was before")


class TestBacklog:
    def test_nobody_is_told_that_all_is_done_while_messages_wait(self, browser: Browser, quiet: Site) -> None:
        site, tab = quiet, Tab(browser, quiet.url)
        put(site, backlog(130, "wait"))
        said: set[str] = set()

        def answered() -> bool:
            asked = [each["id"] for each in site.ask("/label-requests?n=100")["requests"]]
            for key in asked:
                if key not in said:
                    say(site, key, "spam", source="ann")
                    said.add(key)
            return not asked

        wait_until(answered, what="all that is asked about has a label")
        wait_until(lambda: all(site.ask(f"/messages/{key}")["labels"] for key in said))
        waiting = site.ask("/messages?state=unlabelled&n=100")
        keys, n = [each["id"] for each in waiting["messages"]], waiting["count"]
        assert len(keys) > 60
        page = tab.open("label")
        expect(page.locator("#queue-empty")).to_contain_text(re.compile(r"asked about nothing now\. \d+ messages wait"))
        page.get_by_role("link", name="Label the backlog").click()
        expect(page).to_have_url(f"{tab.url}/#label?from=new")
        expect(page.locator("#queue-count")).to_contain_text(f"{n} waiting")
        message = page.locator("#queue-body .message")
        for number in range(55):  # over the first page
            expect(message).to_have_text(waiting["messages"][number]["text"])
            page.keyboard.press("s" if number == 5 else "Enter")
        expect(message).to_have_text(waiting["messages"][55]["text"])
        wait_until(lambda: len(labels_of(site, *keys[:55])) == 54)
        given = [each.message_id for each in labels_of(site, *keys[:55])]
        assert given == [key for key in keys[:55] if key != keys[5]]
        expect(page.locator("#queue-today")).to_have_text("54 labelled today in this tab.")
        page.keyboard.press("u")
        expect(message).to_have_text(waiting["messages"][54]["text"])
        expect(page.locator("#queue-warning")).to_contain_text("The model has learned it, and keeps it until")
        expect(page.locator("#queue-today")).to_have_text("53 labelled today in this tab.")
        tab.close()

    def test_two_people_have_different_messages_of_it(self, browser: Browser, site: Site) -> None:
        texts = backlog(30, "two")
        put(site, texts)
        tabs = [Tab(browser, site.url) for _ in range(2)]
        seen: list[list[str]] = []
        for tab in tabs:
            page = tab.open("label?from=new")
            expect(page.locator("#next li")).to_have_count(4)
            seen.append([page.locator("#queue-text").inner_text(), *page.locator("#next li").all_inner_texts()])
        newest = list(texts.values())[::-1]
        assert seen == [newest[:5], newest[5:10]]
        for tab in tabs:
            tab.close()

    def test_a_search_is_a_queue(self, site: Site, tab: Tab) -> None:
        put(site, {f"harvest-{n}": f"{n % 10} sheaves of the harvest" for n in range(40)})
        say(site, "harvest-7", "ham")
        wait_until(lambda: count_of(site, query="harvest", state="labelled") == 1)
        page = tab.open(f"label?{urlencode({'query': '7 harvest', 'state': 'all', 'order': 'old'})}")
        expect(page.locator("#queue-count")).to_contain_text("4 found")
        asked = {urlsplit(url).query for url in tab.requests if urlsplit(url).path == "/messages"}
        assert asked == {"query=7+harvest&state=all&order=old&n=50"}
        expect(page.locator("#queue-search")).to_have_attribute(
            "href", re.compile("^#messages[?]state=all&order=old&query=7.*harvest$")
        )
        expect(page.locator("#queue-warning")).to_contain_text("It is ham already")
        for _ in range(4):
            page.keyboard.press("s")
        expect(page.locator("#queue-empty")).to_have_text("Nothing more was found.")

    def test_a_queue_goes_on_where_the_index_was_made_anew(self, site: Site, tab: Tab) -> None:
        texts = list(backlog(70, "again").values())[::-1]
        put(site, backlog(70, "again"))
        page = tab.open("label?query=again")
        expect(page.locator("#queue-count")).to_contain_text("70 found")
        message = page.locator("#queue-text")
        for number in range(50):
            expect(message).to_have_text(texts[number])
            page.keyboard.press("s")
        expect(message).to_have_text(texts[50])  # of the second page
        tab.expected = "422"
        before = file.newest(site.stream.data)
        assert before is not None
        file.remove(before)
        for number in range(50, 70):
            expect(message).to_have_text(texts[number])
            page.keyboard.press("s")
        expect(page.locator("#queue-empty")).to_contain_text("Nothing more was found.")

    def test_a_long_text_is_there_in_full(self, site: Site, tab: Tab) -> None:
        long = "\u202b" + "مرحبا word " * 27_000 + "the end"  # 300,000 characters, from right to left
        assert len(long) > 297_000
        put(site, {"rtl": long})
        page = tab.open("label?from=new")
        message = page.locator("#queue-text")
        expect(message).to_contain_text("the end")
        expect(message).to_have_css("direction", "rtl")
        box = message.bounding_box() or {}
        assert box["height"] < 500, "it scrolls in its box"
        message.focus()
        page.keyboard.press("End")
        wait_until(lambda: page.evaluate("document.getElementById('queue-text').scrollTop > 1000"))
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 1440
        page.keyboard.press("1")
        expect(message).not_to_contain_text("the end")

    def test_a_note_goes_with_the_label(self, site: Site, tab: Tab) -> None:
        put(site, backlog(5, "noted"))
        page = tab.open("label?query=noted")
        expect(page.locator("#queue-text")).to_contain_text("4 of the noted")
        page.keyboard.press("n")
        page.keyboard.type("1 is sure, s too")
        page.keyboard.press("Enter")
        page.keyboard.press("2")
        expect(page.locator("#queue-noting")).to_be_hidden()
        page.keyboard.press("2")
        notes = lambda: [  # noqa: E731
            [each["note"] for each in site.ask(f"/messages/noted-{n}")["labels"]] for n in (4, 3)
        ]
        wait_until(lambda: all(notes()), what="both labels are known")
        assert notes() == [["1 is sure, s too"], [None]]
