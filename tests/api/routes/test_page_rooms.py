"""Has each room of the page its address, and does it hold 500 labels and long texts? In the system's Chromium."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from scipy.stats import binomtest

from driftline.stream.wire.records import Feedback, decode_feedback
from tests.often import TORTURE
from tests.page import Site, Tab, at_work
from tests.place import read_all
from tests.waiting import wait_until

ROOMS = {
    "now": "Now",
    "label": "Label",
    "messages": "Messages",
    "labels": "Labels",
    "models": "Models",
    "alarms": "Alarms",
    "try": "Try",
    "settings": "Settings",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(10)
        for number in range(30):
            site.message(f"open-{number}", f"{number} please see the winner of the meeting")
        wait_until(lambda: site.ask("/label-requests")["open"] > 5, what="there is something to label")
        yield site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


class TestAddresses:
    def test_each_room_has_one(self, tab: Tab) -> None:
        page = tab.open()
        for name, said in ROOMS.items():
            page.get_by_label("Rooms").get_by_role("link", name=said, exact=True).click()
            expect(page).to_have_url(f"{tab.url}/#{name}")
            expect(page.locator(".room:visible")).to_have_count(1)
            expect(page.locator(f"#room-{name}")).to_be_visible()
            expect(page.locator("[aria-current=page]")).to_have_text(said)
            heading = page.locator(f"#room-{name} h1")
            expect(page).to_have_title(re.compile(f"^{heading.inner_text()} · Driftline$"))
            if name != "now":  # it was there
                expect(heading).to_be_focused()
        for name in reversed(list(ROOMS)[:-1]):
            page.go_back()
            expect(page.locator(f"#room-{name}")).to_be_visible()

    @pytest.mark.parametrize(
        ("old", "room"),
        [("queue", "label"), ("try", "try"), ("recent", "messages"), ("", "now"), ("nothing", "now"), ("?", "now")],
    )
    def test_old_and_wrong_ones_lead_somewhere(self, tab: Tab, old: str, room: str) -> None:
        page = tab.page
        page.goto(f"{tab.url}/#{old}")
        expect(page.locator(f"#room-{room}")).to_be_visible()
        expect(page.locator(".room:visible")).to_have_count(1)

    def test_only_the_room_that_is_seen_asks(self, tab: Tab) -> None:
        page = tab.open()
        for name, asks in (("models", "snapshots"), ("alarms", "drift"), ("labels", "labels"), ("settings", None)):
            page.goto(f"{tab.url}/#{name}")
            for _ in range(2):  # what was on its way before
                with page.expect_response("**/model"):
                    pass
            before = len(tab.requests)
            for _ in range(4):
                with page.expect_response("**/model"):
                    pass
            found = {urlsplit(url).path.strip("/") for url in tab.requests[before:]}
            assert found == {"model"} | ({asks} if asks else set())

    def test_the_skip_link_goes_to_the_room(self, tab: Tab) -> None:
        page = tab.open("labels")
        page.keyboard.press("Tab")
        expect(page.locator("#skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#title-labels")).to_be_focused()
        expect(page).to_have_url(f"{tab.url}/#labels")

    def test_colours_can_be_chosen_and_stay(self, tab: Tab) -> None:
        page = tab.open("settings")
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.locator("#theme").get_by_role("radio", name="dark").click()
        dark = page.evaluate(colour)
        assert dark != light
        page.reload()
        expect(page.locator("#state-text")).not_to_have_text("Connecting …")
        assert page.evaluate(colour) == dark
        page.locator("#theme").get_by_role("radio", name="as the machine").click()
        assert page.evaluate(colour) == light


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 4), (5, 5), (900, 1000), (0, 77), (12_345, 12_346)])
def test_an_interval_is_that_of_scipy(tab: Tab, right: int, n: int) -> None:
    page = tab.open("settings")
    found = page.evaluate(
        "async ([right, n]) => (await import('./dashboard/rooms/labels.js')).wilson(right, n)", [right, n]
    )
    assert found == pytest.approx(list(binomtest(right, n).proportion_ci(0.95, "wilson")), abs=1e-6)


class Index:
    """An index of messages as the API has it, before a page: what was asked of it, and its answers."""

    def __init__(self, page: Page, texts: dict[str, str], **one: Any) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.labels: dict[str, str] = {}
        self.texts, self.one = texts, one
        page.route(re.compile(r"/messages(\?.*)?$"), self._list)
        page.route(re.compile(r"/messages/.+$"), self._whole)

    def _found(self, asked: dict[str, list[str]]) -> list[str]:
        words = (asked.get("query") or [""])[0].lower().split()
        state = (asked.get("state") or ["all"])[0]
        found = [key for key, text in self.texts.items() if all(word in text.lower() for word in words)]
        return [key for key in found if state != "unlabelled" or key not in self.labels]

    def _list(self, route: Route) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        self.asked.append(asked)
        found = self._found(asked)
        keys, n = list(self.texts), int((asked.get("n") or ["50"])[0])
        begin = keys.index(asked["after"][0]) if "after" in asked else -1  # what is gone meanwhile shifts nothing
        left = [key for key in found if keys.index(key) > begin]
        shown = [self._message(key) for key in left[:n]]
        index = {"ready": True, "indexed": len(self.texts), "behind": 0, "oldest_ms": 0, "limit": 100_000}
        following = left[n - 1] if len(left) > n else None
        answer = {"messages": shown, "next": following, "count": len(found), "count_is_exact": True, "index": index}
        route.fulfill(body=json.dumps(answer), content_type="application/json")

    def _message(self, key: str) -> dict[str, Any]:
        text, label = self.texts[key], self.labels.get(key)
        found = {"id": key, "text": text[:500], "truncated": len(text) > 500, "timestamp_ms": 1_700_000_000_000}
        found |= {"fields": {}, "predicted": "spam", "score": 0.7, "model_version": "v1", "label": label}
        found |= {"label_source": label and "open/ann", "label_ms": label and 1_700_000_100_000, "retracted": False}
        return found | {"n_labels": int(label is not None), "note": None} | self.one

    def _whole(self, route: Route) -> None:
        key = route.request.url.rpartition("/")[2]
        if route.request.method == "DELETE":
            self.texts.pop(key)
            route.fulfill(status=202, body=json.dumps({"id": key, "request": "r1"}))
            return
        labels = [("ham", "upsert", "open/bob"), ("ham", "retract", "open/bob"), ("spam", "upsert", "open/ann")]
        answer = {"id": key, "text": self.texts[key], "timestamp_ms": 1_700_000_000_000, "fields": {"sender": "a@b"}}
        answer |= {"metadata": {"thread": 7}}
        answer |= {"predictions": [{"label": "spam", "score": 0.7, "scores": {}, "model_version": "v1", "ts": 1.7e12}]}
        answer |= {
            "labels": [
                {
                    "label": label,
                    "op": op,
                    "source": by,
                    "ts_ms": 1_700_000_100_000,
                    "weight": 1,
                    "id": "x",
                    "note": note,
                }
                for (label, op, by), note in zip(labels, ("a guess", None, None), strict=True)
            ]
        }
        route.fulfill(body=json.dumps(answer), content_type="application/json")


def texts(n: int) -> dict[str, str]:
    return {f"b{number}": f"{number} of the backlog: claim your prize" for number in range(n)}


def labels_of(site: Site, *keys: str) -> list[Feedback]:
    found = [decode_feedback(record.value or b"") for record in read_all(site.stream, "feedback")]
    return [each for each in found if each.message_id in keys]


class TestMessages:
    def test_search_filters_and_paging(self, tab: Tab) -> None:
        index = Index(tab.page, texts(120))
        page = tab.open("messages")
        expect(page.locator(".seen > li")).to_have_count(50)
        expect(page.locator("#messages-count")).to_have_text("120 found")
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(100)
        page.get_by_role("button", name="More").click()
        expect(page.locator(".seen > li")).to_have_count(120)
        expect(page.locator("#messages-more")).to_be_hidden()
        page.get_by_label("Words").fill("7 prize")
        page.locator("#messages-label").fill("spam")
        page.get_by_label("Predicted").fill("ham")
        page.locator("#messages-since").fill("2026-11-22T10:00")
        page.keyboard.press("Enter")
        expect(page.locator("#messages-count")).to_have_text("21 found")
        asked = index.asked[-1]
        since = page.evaluate("new Date('2026-11-22T10:00').getTime() / 1000")
        assert asked == {
            "query": ["7 prize"], "label": ["spam"], "predicted": ["ham"], "since": [str(int(since))],
        }  # fmt: skip
        address = page.url
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#messages-count")).to_have_text("120 found")
        page.goto(address)
        expect(page.get_by_label("Words")).to_have_value("7 prize")
        expect(page.locator("#messages-since")).to_have_value("2026-11-22T10:00")
        expect(page.locator("#messages-count")).to_have_text("21 found")
        page.get_by_label("Words").fill("nothing at all")
        page.keyboard.press("Enter")
        expect(page.locator("#messages-list")).to_contain_text("Nothing was found")

    def test_one_in_full(self, site: Site, tab: Tab) -> None:
        long = "word " * 200 + "the end of a long text"
        Index(tab.page, texts(60) | {"long": long})
        page = tab.open("messages?query=long")
        page.locator(".seen .text").click()
        expect(page).to_have_url(f"{tab.url}/#messages?query=long&id=long")
        one = page.locator("#message-one")
        expect(one.locator(".message")).to_contain_text("the end of a long text")
        expect(one).to_contain_text("sender: a@b")
        expect(page.locator("#message-predictions")).to_contain_text("spam 0.70 by version v1")
        expect(page.locator("#message-labels li")).to_contain_text(
            ["ham by open/bob. Note: a guess", "taken back: ham by open/bob", "spam by open/ann"]
        )
        expect(page.locator("#message-now")).to_contain_text("What the model says now, and why")
        expect(one.locator("mark").first).to_be_visible()
        page.get_by_role("button", name="Label it").click()
        page.keyboard.type("ham")
        page.keyboard.press("Enter")
        wait_until(lambda: [each.label for each in labels_of(site, "long")] == ["ham"])
        page.get_by_role("button", name="Undo").click()
        wait_until(lambda: [each.label for each in labels_of(site, "long")] == ["ham", "spam"], what="as it was before")
        page.get_by_role("button", name="Erase it").click()
        expect(page.get_by_role("button", name="Sure?")).to_be_visible()
        page.get_by_role("button", name="Sure?").click()
        expect(one).to_contain_text("It will be erased")
        page.go_back()
        expect(page.locator("#messages-form")).to_be_visible()
        expect(page.get_by_label("Words")).to_have_value("long")

    def test_all_that_is_found_is_labelled_after_a_second_look(self, site: Site, tab: Tab) -> None:
        index = Index(tab.page, {f"bulk-{n}": text for n, text in enumerate(texts(230).values())})
        index.labels = {"bulk-3": "ham", "bulk-4": "spam"}
        page = tab.open("messages?query=backlog")
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
        found = labels_of(site, *keys)
        assert {each.message_id for each in found} == set(keys) - {"bulk-4"}
        assert {(each.label, each.op) for each in found} == {("spam", "upsert")}
        assert len({each.id for each in found}) == 229
        sure.get_by_role("button", name="Undo").click()
        expect(sure).to_contain_text("Taken back: spam, 229 messages. The model keeps what it learned")
        again = labels_of(site, *keys)[229:]
        ops = {each.message_id: (each.op, each.label) for each in again}
        assert len(again) == len(ops) == 229
        assert ops.pop("bulk-3") == ("upsert", "ham")
        assert set(ops.values()) == {("retract", "spam")}


class TestBacklog:
    def test_nobody_is_told_that_all_is_done_while_messages_wait(self, site: Site, tab: Tab) -> None:
        index = Index(tab.page, {f"wait-{n}": text for n, text in enumerate(texts(130).values())})
        none = site.ask("/label-requests") | {"requests": [], "open": 0}
        tab.page.route("**/label-requests?*", lambda route: route.fulfill(body=json.dumps(none)))
        page = tab.open("label")
        expect(page.locator("#queue-empty")).to_contain_text("You are asked about nothing now. 130 messages wait")
        page.get_by_role("link", name="Label the backlog").click()
        expect(page).to_have_url(f"{tab.url}/#label?from=new")
        expect(page.locator("#queue-count")).to_contain_text("130 waiting")
        message = page.locator("#queue-body .message")
        for number in range(60):  # over the first page
            expect(message).to_have_text(index.texts[f"wait-{number}"])
            page.keyboard.press("s" if number == 5 else "Enter")
            index.labels[f"wait-{number}"] = "spam"
        expect(message).to_have_text(index.texts["wait-60"])
        keys = [f"wait-{number}" for number in range(60)]
        wait_until(lambda: len(labels_of(site, *keys)) == 59)
        assert [each.message_id for each in labels_of(site, *keys)] == [key for key in keys if key != "wait-5"]
        expect(page.locator("#queue-today")).to_have_text("59 labelled today in this tab.")
        page.keyboard.press("u")
        expect(message).to_have_text(index.texts["wait-59"])
        expect(page.locator("#queue-warning")).to_contain_text("The model has learned it, and keeps it until")
        expect(page.locator("#queue-today")).to_have_text("58 labelled today in this tab.")

    def test_two_people_have_different_messages_of_it(self, browser: Browser, site: Site) -> None:
        tabs = [Tab(browser, site.url) for _ in range(2)]
        seen: list[list[str]] = []
        for tab in tabs:
            Index(tab.page, {f"two-{n}": text for n, text in enumerate(texts(30).values())})
            page = tab.open("label?from=new")
            expect(page.locator("#next li")).to_have_count(4)
            seen.append([page.locator("#queue-text").inner_text(), *page.locator("#next li").all_inner_texts()])
        assert seen == [list(texts(30).values())[:5], list(texts(30).values())[5:10]]
        for tab in tabs:
            tab.close()

    def test_a_search_is_a_queue(self, tab: Tab) -> None:
        index = Index(tab.page, texts(40))
        page = tab.open(f"label?{urlencode({'query': '7', 'state': 'all'})}")
        expect(page.locator("#queue-count")).to_contain_text("4 found")
        assert {"query": ["7"], "state": ["all"], "order": ["new"], "n": ["50"]} in index.asked
        expect(page.locator("#queue-search")).to_have_attribute("href", "#messages?state=all&order=new&query=7")
        for _ in range(4):
            page.keyboard.press("s")
        expect(page.locator("#queue-empty")).to_have_text("Nothing more was found.")

    def test_a_long_text_is_there_in_full(self, tab: Tab) -> None:
        long = "\u202b" + "مرحبا word " * 27_000 + "the end"  # 300,000 characters, from right to left
        assert len(long) > 297_000
        Index(tab.page, {"long": long})
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
        expect(message).to_be_hidden()

    def test_a_note_goes_with_the_label(self, tab: Tab) -> None:
        sent: list[dict[str, Any]] = []

        def take(route: Route) -> None:
            sent.append(json.loads(route.request.post_data or ""))
            place = {"topic": "feedback", "partition": 0, "offset": 0}
            route.fulfill(status=202, body=json.dumps({"id": sent[-1]["id"], "message_id": "b0"} | place))

        Index(tab.page, texts(5))
        tab.page.route("**/feedback", take)
        page = tab.open("label?from=new")
        expect(page.locator("#queue-text")).not_to_have_text("")
        page.keyboard.press("n")
        page.keyboard.type("1 is sure, s too")
        page.keyboard.press("Enter")
        page.keyboard.press("2")
        expect(page.locator("#queue-noting")).to_be_hidden()
        page.keyboard.press("2")
        wait_until(lambda: page.evaluate("1") and len(sent) == 2)
        assert [each.get("note") for each in sent] == ["1 is sure, s too", None]
        assert "note" not in sent[1]


def name_of(number: int, long: bool) -> str:
    """Return a generated name; long ones share a beginning, up to 256 characters."""
    name = f"top_up_{number:03d} of the branch"
    return f"top_up_failed_because_the_card_was_declined/{'very_' * 38}{number:03d}"[:256] if long else name


# How many labels, and how many of them have long names.
MANY = [(2, 1), (6, 0), (77, 7), (500, 50)]
LOOKS = (
    [(width, scheme) for width in (390, 820, 1440) for scheme in ("light", "dark")]
    if TORTURE
    else [(390, "light"), (820, "dark"), (1440, "light")]
)


@pytest.fixture(scope="module", params=MANY, ids=lambda many: f"{many[0]} labels")
def labelled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, list[str]]]:
    """A learner that knows so many labels, each seen twice, some of them confused."""
    n, n_long = request.param
    names = [name_of(number, number < n_long) for number in range(n)]
    with at_work(tmp_path_factory.mktemp("many") / "data") as site:
        for turn in range(2):
            for number in range(n):
                site.message(f"{turn}-{number}", f"subject{number} about a thing {turn}")
                site.label(f"{turn}-{number}", names[(number + turn * (number % 3 == 0)) % n])
        wait_until(lambda: site.ask("/model")["labels_learned"] == 2 * n, 240, "they are learned")
        asked = itertools.count()
        while site.ask("/label-requests")["open"] < 20:  # enough for each tab
            for number in itertools.islice(asked, 20):
                site.message(f"open-{number}", f"subject{number} about a thing: please see")
            site.seen()
        yield site, names


@pytest.mark.long
class TestManyLabels:
    @pytest.mark.parametrize(("width", "scheme"), LOOKS)
    def test_nothing_is_cut(self, browser: Browser, labelled: tuple[Site, list[str]], width: int, scheme: str) -> None:
        site, names = labelled
        tab = Tab(browser, site.url, width, scheme, bypass_csp=True)  # axe's code is put into the page
        page = tab.open("label")
        expect(page.locator(".pick").first).to_be_visible()
        page.keyboard.press("/")
        expect(page.locator("#queue-find [role=option]")).to_have_count(len(names))
        _check(page, width)
        longest = max(names, key=len)
        page.keyboard.type(longest[-12:])
        option = page.locator("#queue-find [role=option]").filter(has_text=longest).first
        expect(option).to_be_visible()
        assert page.evaluate("(e) => e.scrollWidth <= e.clientWidth", option.element_handle())
        page.keyboard.press("Escape")
        page.goto(f"{site.url}/#labels")
        rows = page.locator("#labels-table tbody tr")
        expect(rows).to_have_count(len(names))
        expect(page.locator("#labels-pairs li").first).to_be_visible()
        expect(page.locator("#confusion td.right").first).to_be_visible()
        cut = page.evaluate(
            """[...document.querySelectorAll('#labels-table th, #labels-table td, .pairs b, #confusion th[scope=row]')]
               .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
               .map((e) => e.textContent)"""
        )
        assert not cut
        _check(page, width)
        page.get_by_label("Find a label").fill("top_up_failed")
        expect(rows).to_have_count(sum("top_up_failed" in name for name in names) or 0)
        page.get_by_role("radio", name="those looked for").click()
        _check(page, width)
        for room, shown in (("messages", ".seen > li"), ("models", "#served dd"), ("now", "#quality-chart canvas")):
            page.goto(f"{site.url}/#{room}")
            expect(page.locator(shown).first).to_be_visible()
            _check(page, width)
        tab.close()

    def test_labels_are_sorted_and_pairs_are_links(self, browser: Browser, labelled: tuple[Site, list[str]]) -> None:
        site, names = labelled
        answer = site.ask("/labels")
        assert {each["label"] for each in answer["labels"]} == set(names)
        tab = Tab(browser, site.url)
        page = tab.open("labels")
        first = page.locator("#labels-table tbody th").first
        page.get_by_role("button", name="Label", exact=True).click()
        expect(first).to_have_text(sorted(names)[0])
        page.get_by_role("button", name="Recall").click()
        expect(page.locator("[aria-sort=descending]")).to_have_text(re.compile("Recall"))
        best = max(each["recall"] for each in answer["labels"])
        expect(page.locator("#labels-table tbody tr").first).to_contain_text(f"{best:.3f}")
        names, pairs = answer["confused"]["labels"], answer["confused"]["pairs"]
        label, predicted = names[pairs[0][0]], names[pairs[0][1]]
        page.locator(".pairs a").first.click()
        expect(page.locator("#room-messages")).to_be_visible()
        expect(page.locator("#messages-label")).to_have_value(label)
        expect(page.get_by_label("Predicted")).to_have_value(predicted)
        expect(page.get_by_label("Which")).to_have_value("mistakes")
        tab.close()


def _check(page: Page, width: int) -> None:
    found = Axe().run(page)
    wrong = [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
    assert not wrong
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
