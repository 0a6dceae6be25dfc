"""Does the page at `/` do what a person wants of it? In the system's Chromium, over a real learner, log and server."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from driftline.stream.process.settings import StreamSettings
from tests.often import TORTURE
from tests.page import Site, Tab, at_work
from tests.place import Place, running
from tests.waiting import wait_until

ALL = [(width, scheme) for width in (390, 820, 1440) for scheme in ("light", "dark")]
# Each room, and what is there once it has been filled.
SHOWN = {
    "now": "#quality-chart canvas",
    "label": ".pick",
    "messages": ".seen li",
    "labels": "#confusion td.right",
    "models": "#served dd",
    "alarms": "#alarms .card",
    "try": ".marked mark",
    "settings": "#settings-keys kbd",
}
LOOKS = ALL if TORTURE else [(390, "dark"), (820, "light"), (1440, "dark")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(20)
        for number in range(30):
            site.message(f"open-{number}", f"{number} please see the winner of the meeting")
        wait_until(lambda: site.ask("/label-requests")["open"] > 5, what="there is something to label")
        wait_until(lambda: site.ask("/history?since=-3600")["accuracy"]["weight"], what="there is history")
        yield site


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


class TestQueue:
    def test_a_label_by_keyboard_changes_the_prediction(self, site: Site, tab: Tab) -> None:
        site.message("zebra", "zebra crossing ahead")
        wait_until(lambda: any(each["id"] == "zebra" for each in site.ask("/label-requests?n=100")["requests"]))
        page = tab.open("label")
        message = page.locator("#queue-body .message")
        page.locator("#queue-box").focus()
        for _ in range(50):  # skip to it
            expect(message).not_to_have_text("")
            if message.inner_text() == "zebra crossing ahead":
                break
            page.keyboard.press("s")
        expect(message).to_have_text("zebra crossing ahead")
        picks = page.locator(".pick .name").all_inner_texts()
        before = _scores(site, "zebra crossing ahead")
        label = min(before, key=lambda name: before[name])  # what it does not say
        page.keyboard.press(str(1 + picks.index(label)))
        effect = page.locator("#effects li", has_text="zebra crossing ahead").last
        expect(effect).to_contain_text(re.compile(f"now {label} "))
        after = _scores(site, "zebra crossing ahead")
        assert after[label] > 0.5 > before[label]
        expect(page.locator("#announcer")).to_contain_text(re.compile("The model now says"))
        wait_until(lambda: _label_of(site, "zebra") == label, what="the label is shown beside its message")

        page.keyboard.press("u")
        expect(message).to_have_text("zebra crossing ahead")
        other = next(name for name in picks if name != label)
        page.keyboard.press(str(1 + picks.index(other)))
        wait_until(lambda: _label_of(site, "zebra") == other, what="it is corrected")
        counts = ("retracted", "corrected")
        wait_until(lambda: [site.ask("/model")[name] for name in counts] == [1, 1], what="both are counted")

    def test_a_label_that_was_not_known(self, site: Site, tab: Tab) -> None:
        page = tab.open("label")
        expect(page.locator("#queue-body .message")).to_be_visible()
        text = page.locator("#queue-body .message").inner_text()
        page.keyboard.press("/")
        field = page.get_by_label("Another label", exact=True)
        expect(field).to_be_focused()
        page.keyboard.type("a new one")
        page.keyboard.press("Enter")
        expect(page.locator("#queue-find .note")).to_contain_text("No such label yet")
        page.keyboard.press("Enter")  # makes nothing: no line is marked
        expect(page.locator("#queue-body .message")).to_have_text(text)
        page.keyboard.press("ArrowUp")
        expect(page.locator("#queue-find [aria-selected=true]")).to_have_text("Make new label “a new one”")
        page.keyboard.press("Enter")
        wait_until(lambda: "a new one" in site.ask("/model")["labels"], what="it is learned")
        expect(page.locator("#queue-body .message")).not_to_have_text(text)
        expect(page.locator(".pick .name", has_text="a new one")).to_be_visible()

    def test_keys_label_in_this_room_and_nowhere_else(self, tab: Tab) -> None:
        page = tab.open("label")
        expect(page.locator("#queue-body .message")).to_be_visible()
        page.keyboard.press("/")
        page.keyboard.type("1 2 s u")
        expect(page.get_by_label("Another label", exact=True)).to_have_value("1 2 s u")
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        page.keyboard.type("1 2 s u")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Note", exact=True)).to_have_value("1 2 s u")
        page.get_by_role("link", name="Now", exact=True).click()
        page.keyboard.press("1")
        page.get_by_role("link", name="Try", exact=True).click()
        page.locator("#try-text").focus()
        page.keyboard.type("1 2 s u")
        expect(page.locator("#try-text")).to_have_value("1 2 s u")
        expect(page.locator(".verdict button").first).to_be_visible()
        page.goto(f"{tab.url}/#settings")
        page.locator("#single").get_by_role("radio", name="off").click()
        page.goto(f"{tab.url}/#label")
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        assert not [url for url in tab.requests if url.endswith("/feedback")]

    def test_a_label_that_the_api_refuses_is_asked_for_again(self, tab: Tab) -> None:
        error = {"error": "the log is away", "code": "log-unavailable", "action": "Try again."}
        tab.expected = "503"
        tab.page.route("**/feedback", lambda route: route.fulfill(status=503, body=json.dumps(error)))
        page = tab.open("label")
        message = page.locator("#queue-body .message")
        expect(message).not_to_have_text("")
        refused = message.inner_text()
        page.locator(".pick").first.click()
        expect(page.locator("#queue-note")).to_contain_text("Not taken: the log is away. Try again.")
        expect(page.locator("#effects li")).to_have_count(0)  # it does not count as labelled
        expect(page.locator("#next li, #queue-body .message").filter(has_text=refused)).not_to_have_count(0)
        page.unroute("**/feedback")
        page.locator(".pick").first.click()
        expect(page.locator("#queue-note")).to_have_text("")
        expect(page.locator("#effects")).to_contain_text("1 labelled here")

    def test_labels_of_any_name_stand_by_their_scores(self, browser: Browser, site: Site) -> None:
        """An object has those that are numbers in their own order, and knows some words by itself."""
        labels = ["constructor", *map(str, range(11)), "__proto__"]
        scores = dict.fromkeys(labels, 0.01) | {"7": 0.6, "constructor": 0.28}
        request = {"id": "n", "timestamp_ms": 0, "text": "a number", "truncated": False, "label": "7", "score": 0.6}
        request |= {"scores": dict(sorted(scores.items(), key=lambda item: -item[1])), "chance": 0.5}
        model = site.ask("/model") | {"labels": labels}
        requests = site.ask("/label-requests?n=1") | {"requests": [request]}
        explained = {"label": "7", "score": 0.6, "scores": request["scores"], "features": []}
        tab = Tab(browser, site.url)
        page = tab.page
        page.route("**/model", lambda route: route.fulfill(body=json.dumps(model)))
        page.route("**/label-requests*", lambda route: route.fulfill(body=json.dumps(requests)))
        page.route("**/explain", lambda route: route.fulfill(body=json.dumps(explained)))
        tab.open("label")
        expect(page.locator(".pick .name").first).to_have_text("7")
        assert page.locator(".pick .name").all_inner_texts()[1] == "constructor"
        few = model | {"labels": ["constructor", "toString"]}
        requests["requests"][0] = request | {"scores": {"toString": 1.0}}
        page.unroute("**/model")
        page.route("**/model", lambda route: route.fulfill(body=json.dumps(few)))
        expect(page.locator(".pick .name")).to_have_text(["constructor", "toString"])
        tab.open("try")
        page.locator("#try-text").fill("a number")
        expect(page.locator(".verdict button").first).to_have_text("7 0.60")
        expect(page.locator(".verdict button").first).to_have_attribute("aria-pressed", "true")
        tab.close()


class TestTry:
    def test_the_words_that_spoke_are_marked(self, tab: Tab) -> None:
        page = tab.open("try")
        text = "\U0001f600 claim your prize at lunch \U0001f381"
        page.locator("#try-text").fill(text)
        marked = page.locator(".marked")
        expect(marked).to_have_text(text)
        expect(page.locator(".verdict button").first).to_contain_text("spam")
        marks = page.locator(".marked mark.for").all_inner_texts()
        assert {"claim", "prize"} <= set(marks)
        assert "lunch" in page.locator(".marked mark.against").all_inner_texts()
        page.locator(".verdict button", has_text="ham").click()
        expect(page.locator(".marked mark.for", has_text="lunch")).to_be_visible()

    def test_a_text_can_be_taught(self, site: Site, tab: Tab) -> None:
        page = tab.open("try")
        page.locator("#try-text").fill("quokka on the roof")
        page.locator("#teach-label").fill("animals")
        page.locator("#teach").click()
        expect(page.locator("#teach-note")).to_contain_text("The model now says")
        assert "animals" in site.ask("/model")["labels"]

    def test_fields_can_be_tried_and_taught(self, site: Site, tab: Tab) -> None:
        page = tab.open("try")
        page.locator("#try-text").fill("please confirm")
        page.locator("#try-fields").fill("country=BE; amount=900")
        page.locator("#teach-label").fill("check")
        page.locator("#teach").click()
        expect(page.locator("#teach-note")).to_contain_text("The model now says check")
        expect(page.locator("#try-result .fields li")).to_have_text(["country: BE", "amount: 900"])
        expect(page.locator("#try-result .words li", has_text=re.compile(r"^(amount|country) \+"))).to_have_count(2)
        asked = {"text": "please confirm", "fields": {"country": "BE", "amount": 900}}
        (with_fields,) = httpx.post(f"{site.url}/predict", json=asked, timeout=30).json()["predictions"]
        (without,) = httpx.post(f"{site.url}/predict", json={"text": "please confirm"}, timeout=30).json()[
            "predictions"
        ]
        assert with_fields["scores"]["check"] > without["scores"]["check"]
        page.locator("#try-fields").fill("country")
        expect(page.locator("#try-result")).to_contain_text("Fields are written as")

    def test_an_odd_text_is_no_error(self, tab: Tab) -> None:
        page = tab.open("try")
        for text in ("\u202e right to left", "a\u0301\u200d\u0627\u0644", "x" * 4000):
            page.locator("#try-text").fill(text)
            expect(page.locator(".marked")).to_have_text(text.strip(), use_inner_text=False)
        page.evaluate("document.getElementById('try-text').value = 'half \\ud83d pair'")
        page.locator("#try-text").dispatch_event("input")
        expect(page.locator(".marked")).to_contain_text("half \ufffd pair")


class TestLive:
    def test_now_says_how_it_goes(self, site: Site, tab: Tab) -> None:
        page = tab.open()
        expect(page.locator("#state-text")).to_contain_text("learning")
        expect(page.locator("#quality-chart canvas")).to_be_visible()
        expect(page.locator("#flow canvas")).to_have_count(3)
        assert "now" in (page.locator("#quality-chart").get_attribute("aria-label") or "")
        expect(page.locator("#welcome")).to_be_hidden()
        expect(page.locator("#todo")).to_contain_text("you are asked about wait for a label")
        scored = site.ask("/model")["progressive"]["labels"]
        expect(page.locator(".tile", has_text="Accuracy of late")).to_contain_text(f"over all {scored:,}")
        seen = site.seen()
        site.message("one-more", "one more message comes in")
        expect(page.locator("#tiles")).to_contain_text(f"{seen + 1} seen")
        page.goto(f"{tab.url}/#messages")
        expect(page.locator(".seen .text").first).to_have_text("one more message comes in")

    def test_fields_stand_under_their_text(self, site: Site, tab: Tab) -> None:
        page = tab.open("messages")
        site.message("fielded", "a message with fields", sender="<b>a@b.example</b>", amount=12.5, tags=["x", "y"])
        row = page.locator(".seen li", has_text="a message with fields").first
        expect(row.locator(".fields li")).to_have_text(["amount: 12.5", "sender: <b>a@b.example</b>", "tags: x, y"])
        expect(row.locator(".text")).to_have_text("a message with fields")
        expect(row.locator(".fields li").first).to_have_css("border-top-width", "0px")  # it is no row of its own

    def test_which_messages(self, tab: Tab) -> None:
        page = tab.open("messages")
        page.get_by_label("Which").select_option("labelled")
        expect(page).to_have_url(re.compile(r"#messages\?state=labelled$"))
        expect(page.locator(".seen .given").first).to_be_visible()
        expect(page.locator(".seen .open", has_text="no label yet")).to_have_count(0)
        page.get_by_label("Which").select_option("mistakes")
        expect(page.locator(".seen .better")).to_have_count(0)
        page.go_back()
        expect(page.get_by_label("Which")).to_have_value("labelled")
        expect(page.locator(".seen .given").first).to_be_visible()

    def test_by_number_of_labels(self, site: Site, tab: Tab) -> None:
        page = tab.open()
        expect(page.locator("#quality-chart canvas")).to_be_visible()
        page.get_by_role("radio", name="by labels").click()
        page.locator("#quality-chart .u-over").hover()
        expect(page.locator("#quality-legend")).to_contain_text(re.compile(r"label [\d,]+"))
        shown = re.search(r"label ([\d,]+)", page.locator("#quality-legend").inner_text())
        assert shown
        assert 0 < int(shown[1].replace(",", "")) <= site.ask("/model")["progressive"]["labels"]
        page.get_by_role("radio", name="by time").click()
        page.locator("#quality-chart .u-over").hover(position={"x": 200, "y": 20})
        expect(page.locator("#quality-legend")).not_to_contain_text(re.compile(r"label [\d,]+"))

    def test_all_ranges(self, tab: Tab) -> None:
        page = tab.open()
        for name in ("24 h", "60 d", "15 min"):
            page.get_by_role("radio", name=name).click()
            expect(page.locator("#quality-chart canvas")).to_be_visible()

    def test_an_api_that_goes_away_and_comes_back(self, tab: Tab) -> None:
        tab.expected = "ERR_FAILED"
        page = tab.open()
        page.route("**/model", lambda route: route.abort())
        expect(page.locator("#state-text")).to_contain_text("no answer")
        page.unroute("**/model")
        expect(page.locator("#state-text")).to_contain_text("learning")


EMPTY = {
    "label": "Nothing to label now",
    "messages": "No message yet",
    "labels": "No label was learned yet",
    "alarms": "No drift alarm so far",
}


class TestEmpty:
    def test_before_anything_was_learned_it_says_what_to_do(self, browser: Browser, tmp_path: Path) -> None:
        with at_work(tmp_path / "data") as site:
            tab = Tab(browser, site.url)
            tab.expected = "503"  # of /explain, before there is a model
            page = tab.open()
            expect(page.locator("#welcome")).to_be_visible()
            expect(page.locator("#welcome-send")).to_contain_text(f"curl {site.url}/feedback")
            expect(page.locator("#quality-chart")).to_contain_text("Send messages")
            for room, says in EMPTY.items():
                page.goto(f"{site.url}/#{room}")
                expect(page.locator(f"#room-{room}")).to_contain_text(says)
                expect(page.locator(f"#room-{room} a:visible").first).to_be_visible()  # what can be done next
            page.goto(f"{site.url}/#try")
            for text, label in (("win a prize", "spam"), ("see you at lunch", "ham")):
                page.locator("#try-text").fill(text)
                page.locator("#teach-label").fill(label)
                page.locator("#teach").click()
                expect(page.locator("#teach-note")).to_contain_text("The model now says")
            page.goto(f"{site.url}/#now")
            expect(page.locator("#tiles .tile")).to_have_count(7)
            expect(page.locator("#welcome")).to_be_hidden()
            tab.close()

    def test_without_a_learner(self, browser: Browser, tmp_path: Path) -> None:
        with running(StreamSettings(data=tmp_path)) as url:
            tab = Tab(browser, url)
            page = tab.open()
            expect(page.locator("#state-text")).to_contain_text("no learner has run yet")
            tab.close()


class TestSnapshots:
    """Over answers as the API gives them where it keeps snapshots."""

    ANSWER: Any = {
        "active": None,
        "snapshots": [
            {"version": f"abc-{n}", "created": "2026-11-22T12:00:00Z", "labels_learned": n, "pinned": n == 200}
            | {"accuracy": 0.9, "log_loss": 0.3}
            for n in (200, 100)
        ],
    }

    def test_activate_and_roll_back(self, tab: Tab) -> None:
        asked: list[str] = []
        active: list[str | None] = [None]

        def answer(route: Route) -> None:
            request = route.request
            asked.append(f"{request.method} {request.url.removeprefix(tab.url)}")
            if request.method != "GET":
                active[0] = "abc-100" if request.method == "POST" else None
            route.fulfill(status=200, body=json.dumps({**self.ANSWER, "active": active[0]}))

        tab.page.route(re.compile(r"/snapshots(/.*)?$"), answer)
        page = tab.open("models")
        row = page.locator("#snapshots tr", has_text="abc-100")
        row.get_by_role("button", name="Serve").click()
        assert "POST /snapshots/abc-100/activate" not in asked, "it asks whether that is meant"
        row.get_by_role("button", name="Sure?").click()
        expect(row).to_contain_text("answers now")
        expect(row).to_contain_text("0.900")
        expect(page.locator("#latest")).to_be_focused()
        page.get_by_role("button", name="Back to the latest").click()
        expect(row.get_by_role("button", name="Serve")).to_be_visible()
        changes = [each for each in asked if not each.startswith("GET")]
        assert changes == ["POST /snapshots/abc-100/activate", "DELETE /snapshots/active"]

    def test_nothing_is_shown_where_there_are_none(self, tab: Tab) -> None:
        tab.page.route("**/snapshots", lambda route: route.fulfill(status=404, body="{}"))
        page = tab.open("models")
        expect(page.locator("#snapshots")).to_be_hidden()


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
class TestForEveryone:
    def test_each_room_is_accessible_and_fits(self, browser: Browser, site: Site, width: int, scheme: str) -> None:
        tab = Tab(browser, site.url, width, scheme, bypass_csp=True)  # axe's code is put into the page
        for room, shown in SHOWN.items():
            page = tab.open(room)
            if room == "try":
                page.locator("#try-text").fill("claim your prize at lunch")
            if room == "settings":
                page.locator("#key-open").click()
            expect(page.locator(shown).first).to_be_visible()
            found = Axe().run(page)
            wrong = [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
            assert not wrong, room
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width, room
            small = page.evaluate(
                """[...document.querySelectorAll('button, input, textarea, select')].filter((e) => e.offsetParent)
                   .filter((e) => e.offsetHeight < 24 || e.offsetWidth < 24).map((e) => e.outerHTML)"""
            )
            assert not small, f"a finger has to find it: {room}"
        tab.close()


@pytest.mark.parametrize("room", SHOWN)
def test_everything_can_be_reached_by_keyboard(tab: Tab, room: str) -> None:
    page = tab.open(room)
    if room == "try":
        page.locator("#try-text").fill("claim your prize")
    expect(page.locator(SHOWN[room]).first).to_be_visible()
    page.route(
        re.compile(r"/(model|history|drift|recent|labels|label-requests|snapshots|messages)(\?.*)?$"), lambda _: None
    )
    wanted = set(
        page.evaluate(
            """[...document.querySelectorAll('a, button, input, textarea, select, summary, [tabindex="0"]')]
               .filter((e) => e.tabIndex === 0 && (e.offsetParent || e.className === 'skip'))
               .map((e, i) => (e.dataset.walk = String(i)))"""
        )
    )
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    hidden: list[str] = []
    for _ in range(12 * len(wanted)):  # a field for a date has many parts
        page.keyboard.press("Tab")
        found = page.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
               return [e.dataset.walk ?? '', e.outerHTML, s.outlineStyle !== 'none' && r.width > 1] })()"""
        )
        if found[0] and found[0] in reached[:-1]:
            break
        if found[0] and found[0] not in reached:
            reached.append(found[0])
            hidden += [] if found[2] else [found[1]]
    assert wanted - set(reached) <= set(map(str, _renewed(page, reached))), "a part that was drawn anew meanwhile"
    assert not hidden, "where the focus is can be seen"
    numbers = [int(each) for each in reached]
    first = numbers.index(min(numbers))
    assert numbers[first:] + numbers[:first] == sorted(numbers), "in the order in which it is read"


def test_no_motion_for_those_who_want_none(browser: Browser, site: Site) -> None:
    for motion, moves in (("reduce", False), ("no-preference", True)):
        tab = Tab(browser, site.url, reduced_motion=motion)
        page = tab.open("labels")
        expect(page.locator(".bar").first).to_be_visible()
        durations = page.evaluate(
            """[...document.querySelectorAll('*')].flatMap((e) => ['', '::before', '::after']
               .map((part) => getComputedStyle(e, part).transitionDuration)).filter((d) => d !== '0s').length"""
        )
        assert bool(durations) == moves
        tab.close()


def test_the_page_works_without_its_chart_package(place_without_charts: str, browser: Browser) -> None:
    tab = Tab(browser, place_without_charts)
    page = tab.open("label")
    expect(page.locator("#title-label")).to_be_visible()
    page = tab.open()
    tab.troubles = [each for each in tab.troubles if "404" not in each and "MIME" not in each]
    tab.close()


@pytest.fixture
def place_without_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("driftline.api.routes.page.UPLOT_PACKAGE", "no-such-package")
    place = Place(tmp_path)
    place.publish()
    place.report()
    with running(place.stream) as url:
        assert httpx.get(f"{url}/dashboard/uplot.js", timeout=30).status_code == 404
        yield url


def _renewed(page: Page, reached: list[str]) -> list[int]:
    """Return the numbers of elements that are no longer in the page: it was drawn anew while it was walked through."""
    present = page.evaluate("[...document.querySelectorAll('[data-walk]')].map((e) => Number(e.dataset.walk))")
    return [number for number in range(1000) if number not in present and str(number) not in reached]


def _scores(site: Site, text: str) -> dict[str, float]:
    answer = httpx.post(f"{site.url}/predict", json={"text": text}, timeout=30).json()
    scores: dict[str, float] = answer["predictions"][0]["scores"]
    return scores


def _label_of(site: Site, key: str) -> str | None:
    found: Callable[[], Any] = lambda: [each for each in site.ask("/recent")["messages"] if each["id"] == key]  # noqa: E731
    return next((each["label"] for each in found()), None)
