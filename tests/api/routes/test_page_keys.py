"""Does the page ask for the key that the API wants, and keep it to itself? In the system's Chromium."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Route, expect

from driftline.api.access import keys
from driftline.stream.process.settings import StreamSettings
from tests.api.routes.test_snapshots_api import learn
from tests.faults.stage import SqliteStage
from tests.page import Tab
from tests.place import Api, running


@pytest.fixture
def tab(browser: Browser, api: Api) -> Iterator[Tab]:
    tab = Tab(browser, api.url)
    yield tab
    tab.close()


class Guarded(NamedTuple):
    """An API that asks for keys, and one key of each role."""

    url: str
    secrets: dict[keys.Role, str]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    made = {role: keys.new_key(role.name.lower(), role) for role in keys.Role if role}
    with closing(SqliteStage(StreamSettings(data=tmp_path / "data"))) as stage:
        learn(stage, 10)  # and there is a snapshot; no learner is at work any more
        keys.save(stage.stream.data / keys.FILE, [key for _, key in made.values()])
        with running(stage.stream, max_wait_s=0.2) as url:
            yield Guarded(url, {role: secret for role, (secret, _) in made.items()})


class TestKey:
    def test_it_is_asked_for_and_sent(self, tab: Tab) -> None:
        sent: list[str | None] = []
        tab.expected = "401"
        error = {"error": "this needs an API key", "code": "no-key", "action": "Send one."}

        def guard(route: Route) -> None:
            sent.append(route.request.headers.get("authorization"))
            if sent[-1] == "Bearer secret":
                route.continue_()
            else:
                route.fulfill(status=401, body=json.dumps(error))

        tab.page.route(re.compile(r"/(model|history|drift|recent|labels|label-requests)(\?.*)?$"), guard)
        page = tab.page
        page.goto(tab.url)
        expect(page.locator("#key-note")).to_contain_text("this needs an API key")
        expect(page.get_by_label("API key", exact=True)).to_be_focused()
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#tiles .tile")).to_have_count(7)
        expect(page.locator("#key")).to_be_hidden()
        assert set(sent) == {None, "Bearer secret"}
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.locator("#key-open").click()
        page.get_by_role("button", name="Forget").click()
        expect(page.locator("#key-note")).to_contain_text("this needs an API key")

    def test_an_answer_from_before_it_was_given_asks_for_none(self, browser: Browser, guarded: Guarded) -> None:
        tab = Tab(browser, guarded.url)
        tab.expected = "40"  # 401 before the key was given, 403 for what its role may not
        held: list[Route] = []

        def hold(route: Route) -> None:
            if "authorization" in route.request.headers:
                route.continue_()
            else:
                held.append(route)

        page = tab.page
        page.route("**/drift", hold)
        page.goto(tab.url)
        expect(page.locator("#key-note")).to_contain_text("this needs an API key")
        page.keyboard.type(guarded.secrets[keys.Role.PREDICT])
        page.keyboard.press("Enter")
        expect(page.locator("#tiles .tile")).to_have_count(7)
        expect(page.locator("#key")).to_be_hidden()
        with page.expect_response(lambda answer: answer.url.endswith("/drift") and answer.status == 401) as late:
            held[0].continue_()
        late.value.finished()
        page.wait_for_timeout(100)  # for the page to make nothing of it
        expect(page.locator("#key")).to_be_hidden()
        tab.close()

    @pytest.mark.parametrize("role", [keys.Role.PREDICT, keys.Role.LABEL, keys.Role.ADMIN])
    def test_each_role_may_do_what_it_may(self, browser: Browser, guarded: Guarded, role: keys.Role) -> None:
        tab = Tab(browser, guarded.url)
        tab.expected = "40"  # 401 before the key was given, 403 for what the role may not
        page = tab.page
        page.goto(tab.url)
        expect(page.locator("#key-note")).to_contain_text("this needs an API key")
        expect(page.locator("#tiles .tile")).to_have_count(0)
        page.keyboard.type(guarded.secrets[role])
        page.keyboard.press("Enter")
        expect(page.locator("#tiles .tile")).to_have_count(7)
        expect(page.locator("#key")).to_be_hidden()
        assert page.evaluate("[localStorage.length, document.cookie, location.search]") == [0, "", ""]
        assert not [url for url in tab.requests if guarded.secrets[role] in url]

        page.goto(f"{tab.url}/#try")
        page.locator("#try-text").fill("claim your cash prize")
        expect(page.locator(".verdict button").first).to_be_visible()
        page.locator("#teach-label").fill("spam")
        page.locator("#teach").click()
        if role < keys.Role.LABEL:
            expect(page.locator("#teach-note")).to_contain_text("Not taken: the key 'predict' may predict")
            for room, place in (("label", "queue-empty"), ("labels", "labels-table"), ("messages", "messages-list")):
                page.goto(f"{tab.url}/#{room}")
                expect(page.locator(f"#{place}")).to_contain_text("may predict, and this needs label")
        else:
            expect(page.locator("#teach-note")).to_contain_text("Sent, not shown yet: that label is not learned yet")
            expect(page.locator("#teach-note")).to_contain_text("The learner: stopped")
            page.goto(f"{tab.url}/#label")
            expect(page.locator("#queue-empty")).to_contain_text("stopped")
            expect(page.locator("#room-label")).not_to_contain_text("this needs")

        page.goto(f"{tab.url}/#models")
        expect(page.locator("#snapshots-table tbody tr")).to_have_count(1)
        if role < keys.Role.ADMIN:
            page.locator("#snapshots-table button").click()
            page.locator("#snapshots-table button").click()
            expect(page.locator("#snapshots-note")).to_contain_text("and this needs admin")
        else:
            page.locator("#snapshots-table button").click()
            page.locator("#snapshots-table button").click()
            expect(page.locator("#snapshots-note")).to_contain_text("answers now")
            page.locator("#latest").click()
            expect(page.locator("#snapshots-note")).to_contain_text("The latest model answers again")

        page.goto(f"{tab.url}/#now")
        page.reload()
        expect(page.locator("#tiles .tile")).to_have_count(7)  # the tab has the key still
        tab.close()
        other = Tab(browser, guarded.url)
        other.expected = "401"
        other.page.goto(other.url)
        expect(other.page.locator("#key")).to_be_visible()  # and no other one has it
        other.close()

    def test_one_that_is_wrong_is_told_of(self, browser: Browser, guarded: Guarded) -> None:
        tab = Tab(browser, guarded.url)
        tab.expected = "401"
        page = tab.page
        page.goto(tab.url)
        expect(page.locator("#key-note")).to_contain_text("this needs an API key")
        page.keyboard.type("dlk_none")
        page.keyboard.press("Enter")
        expect(page.locator("#key-note")).to_contain_text("there is no such API key")
        expect(page.locator("#key")).to_be_visible()
        tab.close()
