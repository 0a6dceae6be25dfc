"""Has each room of the page its address, and does it hold 500 labels and long texts? In the system's Chromium."""

import itertools
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from scipy.stats import binomtest

from tests.often import TORTURE
from tests.page import Site, Tab, at_work
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
