"""Does labelling on the page lose nothing, is it undone, and is each message one person's? In the system's Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from driftline.api.access.keys import FILE, Role, new_key, save
from driftline.stream.wire.records import Feedback, decode_feedback
from tests.api.shared.test_claims import ask
from tests.page import Site, Tab, at_work
from tests.place import Place, read_all, running
from tests.proxy import behind
from tests.waiting import wait_until

STARTS = [0]  # how many labels there were before this test


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(10)
        more(site, 30)
        yield site


@pytest.fixture(autouse=True)
def start(site: Site) -> None:
    """Note where the log ends: what was taken back in one test may come to another."""
    STARTS[0] = len(read_all(site.stream, "feedback"))


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


def more(site: Site, count: int) -> None:
    """Send messages until so many wait for a label that nobody has claimed."""
    while sum(each["claim"] is None for each in requests(site)) < count:
        first = site.ask("/model")["messages_seen"]
        names = [f"open-{number}" for number in range(first, first + 20)]
        for name in names:
            site.message(name, f"{name.removeprefix('open-')} please see the winner of the meeting")
        wait_until(lambda names=names: site.ask("/recent?n=1")["messages"][0]["id"] == names[-1], what="they are seen")


def requests(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.ask("/label-requests?n=200")["requests"]
    return found


def claim_of(site: Site, text: str) -> dict[str, Any] | None:
    """Return whose a message is."""
    return next(each["claim"] for each in requests(site) if each["text"] == text)


def labels_of(site: Site, *texts: str) -> list[Feedback]:
    """Return the labels that this test has put into the log, of messages with these texts."""
    keys = {f"open-{text.partition(' ')[0]}" for text in texts}
    found = [decode_feedback(record.value or b"") for record in read_all(site.stream, "feedback")]
    return [each for each in found[STARTS[0] :] if each.message_id in keys]


class Queue:
    """The queue of a page."""

    def __init__(self, page: Page, *, shows_next: bool = True) -> None:
        self.page, self.box = page, page.locator("#queue-box")
        self.message = page.locator("#queue-body .message")
        expect(self.message).not_to_have_text("")
        if shows_next:  # a phone has no room for them
            expect(page.locator("#next li")).to_have_count(4)

    def press(self, key: str) -> str:
        """Press a key; return the text that was there, once another one is."""
        text = self.message.inner_text()
        self.box.focus()
        self.page.keyboard.press(key)
        expect(self.message).not_to_have_text(text)
        return text

    def texts(self) -> list[str]:
        """Return the texts that this page has."""
        return [self.message.inner_text(), *self.page.locator("#next li").all_inner_texts()]

    def settled(self, site: Site, *texts: str) -> None:
        """Wait until the learner no longer asks for messages, and the page has looked since."""
        ids = {f"open-{text.partition(' ')[0]}" for text in texts}
        wait_until(lambda: not ids & {each["id"] for each in requests(site)})
        for _ in range(2):
            with self.page.expect_response(lambda answer: "label-requests?" in answer.url):
                pass


class TestUndo:
    def test_four_labels_come_back_in_their_order(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        queue = Queue(tab.open("label"))
        before = site.settled()
        given = [queue.press("1") for _ in range(4)]
        expect(tab.page.locator("#effects")).to_contain_text("4 labelled here")
        wait_until(lambda: site.ask("/model")["labels_learned"] == before.counts.labels_learned + 4)
        queue.settled(site, *given)
        for text in reversed(given):
            queue.press("u")
            expect(queue.message).to_have_text(text)
            expect(tab.page.locator("#queue-body .worse")).to_contain_text(
                "The model has learned it, and keeps it until"
            )
        wait_until(lambda: site.ask("/model")["retracted"] == before.join.retracted + 4)
        wait_until(lambda: set(given) <= {each["text"] for each in requests(site)}, what="they are asked for again")
        wait_until(lambda: all(claim_of(site, text) for text in given), what="of this page")
        assert queue.texts()[:4] == given
        shown = {each["text"]: each["retracted"] for each in site.ask("/recent")["messages"]}
        assert all(shown[text] for text in given)
        expect(tab.page.locator("#effects")).to_contain_text("4 labels taken back: the model keeps what it learned")
        tab.page.reload()
        queue = Queue(tab.page)
        assert queue.texts()[:4] == given, "over a reload, too"
        for text in given:
            assert queue.press("2") == text
        wait_until(lambda: site.ask("/model")["corrected"] == before.join.corrected + 4)
        expect(tab.page.locator("#effects")).not_to_contain_text("taken back")
        for text in given:
            first, back, second = labels_of(site, text)
            assert [first.op, back.op, second.op] == ["upsert", "retract", "upsert"]
            assert first.label == back.label != second.label

    def test_whatever_was_done_last(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        queue = Queue(tab.open("label"))
        skipped, labelled, last = queue.press("s"), queue.press("1"), queue.press("s")
        wait_until(lambda: len(labels_of(site, labelled)) == 1)
        queue.press("u")
        expect(queue.message).to_have_text(last)
        assert len(labels_of(site, labelled)) == 1, "a skip was undone, not the label before it"
        queue.press("u")
        expect(queue.message).to_have_text(labelled)
        wait_until(lambda: [each.op for each in labels_of(site, labelled)] == ["upsert", "retract"])
        queue.press("u")
        assert queue.texts()[:3] == [skipped, labelled, last]
        tab.page.keyboard.press("u")
        expect(tab.page.locator("#queue-note")).to_have_text("Nothing is left to take back.")
        assert not labels_of(site, skipped, last)

    def test_after_a_reload(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        queue = Queue(tab.open("label"))
        labelled, skipped = queue.press("1"), queue.press("s")
        wait_until(lambda: len(labels_of(site, labelled)) == 1)
        there = queue.message.inner_text()
        tab.page.reload()
        queue = Queue(tab.page)
        assert queue.message.inner_text() == there
        expect(tab.page.locator("#effects")).to_contain_text("1 labelled here")
        queue.press("u")
        expect(queue.message).to_have_text(skipped)
        queue.press("u")
        expect(queue.message).to_have_text(labelled)
        wait_until(lambda: len(labels_of(site, labelled)) == 2)
        assert queue.texts()[:3] == [labelled, skipped, there]

    @pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
    def test_it_is_accessible_and_fits(self, browser: Browser, site: Site, width: int, scheme: str) -> None:
        more(site, 12)
        tab = Tab(browser, site.url, width, scheme, bypass_csp=True)  # axe's code is put into the page
        queue = Queue(tab.open("label"), shows_next=width > 560)
        for key in ("1", "2", "s"):
            queue.press(key)
        labelled = queue.press("1")
        wait_until(lambda: labels_of(site, labelled), what="it was sent: else there is nothing to take back")
        queue.press("u")
        expect(tab.page.locator("#effects")).to_contain_text("2 labelled here")
        expect(tab.page.locator("#effects")).to_contain_text("1 label taken back")
        expect(tab.page.locator("#queue-body .worse")).to_be_visible()
        found = Axe().run(tab.page)
        wrong = [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
        assert not wrong
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
        tab.close()

    def test_a_change(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        queue = Queue(tab.open("label"))
        text = queue.press("1")
        there = queue.message.inner_text()
        tab.page.get_by_role("button", name="Change").first.click()
        expect(queue.message).to_have_text(text)
        expect(tab.page.locator("#queue-body .worse")).to_contain_text("Another label takes its place")
        queue.press("2")
        expect(queue.message).to_have_text(there)
        wait_until(lambda: len(labels_of(site, text)) == 2)
        tab.page.keyboard.press("Control+z")
        expect(tab.page.locator("#queue-note")).to_contain_text("again, not")
        expect(queue.message).to_have_text(there)
        wait_until(lambda: len(labels_of(site, text)) == 3)
        first, second, third = labels_of(site, text)
        assert first.label == third.label != second.label
        assert {each.op for each in labels_of(site, text)} == {"upsert"}
        queue.press("u")
        expect(queue.message).to_have_text(text)

    def test_a_text_that_was_taught(self, site: Site, tab: Tab) -> None:
        page = tab.open("try")

        def taught(text: str) -> list[tuple[str, str]]:
            found = [decode_feedback(record.value or b"") for record in read_all(site.stream, "feedback")]
            assert len({each.message_id for each in found if each.text == text}) <= 1, (
                "one message, whose label changes"
            )
            return [(each.op, each.label) for each in found if each.text == text]

        page.locator("#try-text").fill("a quokka on the roof")
        for label in ("spam", "ham"):
            page.locator("#teach-label").fill(label)
            page.locator("#teach").click()
            expect(page.locator("#teach-note")).to_contain_text("Learned. The model now says")
        expect(page.locator("#teach-undo")).to_have_attribute("aria-label", "Undo: ham")
        page.locator("#teach-undo").click()
        expect(page.locator("#teach-note")).to_contain_text("It is spam again")
        page.reload()
        page.locator("#teach-undo").click()
        expect(page.locator("#teach-note")).to_contain_text("keeps it until you teach another label")
        expect(page.locator("#try-text")).to_have_value("a quokka on the roof")
        wait_until(lambda: len(taught("a quokka on the roof")) == 4)
        assert taught("a quokka on the roof") == [
            ("upsert", "spam"), ("upsert", "ham"), ("upsert", "spam"), ("retract", "spam"),
        ]  # fmt: skip


class TestSeveralPeople:
    def test_each_has_messages_of_his_own(self, browser: Browser, site: Site) -> None:
        more(site, 25)
        tabs = [Tab(browser, site.url) for _ in range(3)]
        queues = [Queue(tab.open("label")) for tab in tabs]
        seen: list[set[str]] = [set() for _ in queues]
        for _ in range(3):
            for queue, own in zip(queues, seen, strict=True):
                own |= set(queue.texts())
                queue.press("1")
        for queue, own in zip(queues, seen, strict=True):
            own |= set(queue.texts())
        assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
        claims = [[claim_of(site, text) or {} for text in queue.texts()] for queue in queues]
        assert all(0 < each["seconds"] <= 300 for own in claims for each in own)
        holders = [{each["by"] for each in own} for own in claims]
        assert [len(own) for own in holders] == [1, 1, 1]
        assert len(set.union(*holders)) == 3

        skipped = queues[0].press("s")
        wait_until(lambda: claim_of(site, skipped) is None, what="what was skipped is free")
        queues[0].press("u")
        wait_until(lambda: claim_of(site, skipped) is not None, what="what came back is claimed again")
        before = queues[1].texts()
        tabs[1].page.reload()
        assert Queue(tabs[1].page).texts() == before, "a reload keeps what was claimed"
        left = queues[2].texts()
        tabs.pop().close()
        assert all(claim["seconds"] <= 20 for text in left if (claim := claim_of(site, text)))
        wait_until(lambda: all(claim_of(site, text) is None for text in left), what="who leaves lets go, soon")
        for tab in tabs:
            tab.close()

    def test_where_nobody_is_they_are_let_go(self, browser: Browser, site: Site) -> None:
        more(site, 12)
        tab = Tab(browser, site.url)
        tab.page.clock.install()
        queue = Queue(tab.open("label"))
        queue.press("s")
        texts = queue.texts()
        tab.page.clock.fast_forward("05:10")
        expect(tab.page.locator("#queue-empty")).to_contain_text("Nobody did anything here for five minutes")
        wait_until(lambda: all(claim_of(site, text) is None for text in texts), what="others may have them")
        queue.box.focus()
        tab.page.keyboard.press("1")  # labels nothing: nobody saw what it would have labelled
        expect(queue.message).to_have_text(texts[0])
        wait_until(lambda: claim_of(site, texts[0]) is not None)
        assert not labels_of(site, *texts)
        queue.press("u")
        tab.close()

    def test_what_somebody_else_took_is_not_taken_back(self, browser: Browser, site: Site) -> None:
        more(site, 12)
        tabs = [Tab(browser, site.url) for _ in range(2)]
        first = Queue(tabs[0].open("label"))
        skipped = first.press("s")
        wait_until(lambda: claim_of(site, skipped) is None)
        key = f"open-{skipped.partition(' ')[0]}"
        taken = tabs[0].page.request.post(
            f"{site.url}/label-requests/claim", data=json.dumps({"labeller": "eve", "ids": [key]})
        )
        assert [each["id"] for each in taken.json()["requests"]] == [key]
        tabs[0].page.keyboard.press("u")
        expect(tabs[0].page.locator("#queue-note")).to_contain_text("Somebody else has it now")
        expect(first.message).not_to_have_text(skipped)
        assert skipped not in first.texts()
        for tab in tabs:
            tab.page.request.post(f"{site.url}/label-requests/claim", data=json.dumps({"labeller": "eve"}))
            tab.close()

    def test_a_label_names_the_key(self, browser: Browser, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.publish()
        place.report()
        ask(place, [f"m{n}" for n in range(30)])
        made = {name: new_key(name, Role.LABEL) for name in ("alice", "bob")}
        with running(place.stream, max_wait_s=0.2) as url:
            tab = Tab(browser, url)
            tab.expected = "40"
            queue = Queue(tab.open("label"))
            queue.press("1")  # nobody needs a key yet
            wait_until(lambda: len(read_all(place.stream, "feedback")) == 1)
            save(place.stream.data / FILE, [key for _, key in made.values()])
            for name in ("alice", "bob"):
                if name == "bob":  # for alice the field has opened by itself
                    tab.page.locator("#key-open").click()
                tab.page.get_by_label("API key", exact=True).fill(made[name][0])
                tab.page.keyboard.press("Enter")
                expect(tab.page.locator("#queue-count")).to_contain_text(f"you label as {name}")
                expect(tab.page.locator("#effects")).not_to_contain_text("labelled here")  # another person's
                Queue(tab.page).press("2")
            wait_until(lambda: len(read_all(place.stream, "feedback")) == 3)
            tab.close()
        sources = [decode_feedback(record.value or b"").source for record in read_all(place.stream, "feedback")]
        assert sources == ["open/page", "alice", "bob"]


class TestAway:
    def test_labels_are_kept_and_sent_again(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        tab.expected = "ERR_FAILED"
        page = tab.open("label")
        queue = Queue(page)
        page.route("**/feedback", lambda route: route.abort())
        given = [queue.press("1"), queue.press("2")]
        expect(page.locator("#away")).to_contain_text("2 labels are sent once it does. Keep this tab open.")
        expect(page.locator("#effects")).to_contain_text("sending …")
        page.reload()
        queue = Queue(page)
        expect(page.locator("#away")).to_contain_text("2 labels are sent once it does")
        dropped = queue.press("1")
        queue.press("u")  # never sent, so there is nothing to take back
        expect(queue.message).to_have_text(dropped)
        page.unroute("**/feedback")
        wait_until(lambda: len(labels_of(site, *given)) == 2, what="they are sent")
        expect(page.locator("#away")).to_be_hidden()
        assert len({each.id for each in labels_of(site, *given)}) == 2
        assert not labels_of(site, dropped)

    def test_one_that_came_through_without_an_answer_counts_once(self, site: Site, tab: Tab) -> None:
        more(site, 12)
        tab.expected = "ERR_FAILED"
        page = tab.open("label")
        queue = Queue(page)
        tries: list[str] = []

        def half(route: Route) -> None:
            tries.append(route.request.post_data or "")
            if len(tries) > 1:
                route.continue_()
            else:
                route.fetch()
                route.abort()

        taken_back = {decode_feedback(record.value or b"").message_id for record in read_all(site.stream, "feedback")}
        while f"open-{queue.message.inner_text().partition(' ')[0]}" in taken_back:
            queue.press("s")  # its label would be no news
        before = site.settled()
        page.route("**/feedback", half)
        text = queue.press("1")
        wait_until(lambda: page.evaluate("1") and len(labels_of(site, text)) == 2, what="it is sent twice")
        after = site.settled()
        assert after.join.repeated == before.join.repeated + 1
        assert after.counts.labels_learned == before.counts.labels_learned + 1
        assert tries[0] == tries[1]

    def test_who_is_away_is_told_so_where_a_text_is_taught(self, tab: Tab) -> None:
        tab.expected = "ERR_FAILED"
        page = tab.open("try")
        page.route("**/feedback", lambda route: route.abort())
        page.locator("#try-text").fill("a text")
        page.locator("#teach-label").fill("spam")
        page.locator("#teach").click()
        expect(page.locator("#teach-note")).to_contain_text("Not taken: the API does not answer")
        expect(page.locator("#try-text")).to_have_value("a text")


# What GET /model says of the learner, what the page makes of it, and the colour of its dot.
STATES: list[tuple[dict[str, Any] | None, str, str]] = [
    ({"state": "compiling", "detail": "40 %, up to a minute"}, "compiling: 40 %, up to a minute", "busy"),
    ({"state": "starting"}, "starting", "busy"),
    ({"state": "starting", "detail": "compiling, 40 %"}, "starting: compiling, 40 %", "busy"),
    ({"state": "starting", "start": {"doing": "compiling", "share": 0.4}}, "starting: compiling, 40 %", "busy"),
    ({"state": "starting", "start": {"doing": "reading", "share": None}}, "starting: reading", "busy"),
    ({"state": "starting", "alive": False}, "the learner is gone (it was starting)", "bad"),
    ({"state": "tidying-up", "detail": "a while"}, "tidying up: a while", "busy"),
    ({"state": "tidying-up", "alive": False}, "tidying up, said 20 s ago", "busy"),
    ({"state": "constructor"}, "constructor", "busy"),
    ({"state": "failed", "alive": False, "detail": "no disk"}, "failed: no disk", "bad"),
    ({"state": "running", "alive": False}, "the learner is gone", "bad"),
    ({"state": "recovering", "alive": False}, "the learner is gone (it was recovering)", "bad"),
    (None, "no learner has run yet", "bad"),
]


def test_each_state_of_the_learner_is_said(site: Site, tab: Tab) -> None:
    told = {"alive": True, "detail": "", "epoch": 1, "pid": 1, "status_age_seconds": 20.0}
    model = site.ask("/model") | {"pending": 1}
    none = site.ask("/label-requests") | {"requests": [], "open": 0, "per_hour": 0}
    tab.page.route("**/model", lambda route: route.fulfill(body=json.dumps(model)))
    tab.page.route("**/label-requests?*", lambda route: route.fulfill(body=json.dumps(none)))
    page = tab.open("label")
    for learner, text, mood in STATES:
        model["learner"] = told | learner if learner else None
        expect(page.locator("#state-text")).to_have_text(f"{text} · {model['model']}")
        expect(page.locator(f"#state-dot.{mood}")).to_have_count(1)
        expect(page.locator("#queue-empty")).to_contain_text(text if learner else "No learner has run yet")
        expect(page.locator("#queue-empty")).not_to_contain_text("are off")
        if mood != "good" and learner:
            expect(page.locator("#todo")).to_contain_text(f"The learner: {text}.")


class TestBehindAPrefix:
    @pytest.mark.parametrize("prefix", ["/ml", "/a/b.c/d"])
    def test_the_page_and_the_reference(self, browser: Browser, site: Site, prefix: str) -> None:
        more(site, 12)
        with behind(site.url, prefix) as proxy:
            tab = Tab(browser, proxy.url)
            tab.page.goto(f"{proxy.url}/")
            page = tab.page
            expect(page.locator("#tiles .tile")).to_have_count(7)
            expect(page.locator("#quality-chart canvas")).to_be_visible()
            expect(page.locator("#welcome-send")).to_contain_text(f"curl {proxy.url}/feedback", use_inner_text=False)
            page.get_by_role("link", name="Label", exact=True).click()
            expect(page).to_have_url(f"{proxy.url}/#label")
            text = Queue(page).press("1")
            wait_until(lambda: len(labels_of(site, text)) == 1)
            page.get_by_role("link", name="Try", exact=True).click()
            page.locator("#try-text").fill("claim your prize")
            expect(page.locator(".marked mark").first).to_be_visible()
            page.get_by_role("link", name="API reference").click()
            expect(page).to_have_url(f"{proxy.url}/docs")
            operation = page.locator(".opblock", has=page.locator("[data-path='/healthz']"))
            operation.locator(".opblock-summary").click()
            operation.get_by_role("button", name="Try it out").click()
            operation.get_by_role("button", name="Execute").click()
            expect(operation.locator(".request-url")).to_contain_text(f"{proxy.url}/healthz")
            expect(operation.locator(".live-responses-table")).to_contain_text("alive")
            assert proxy.strays == []
            tab.close()
