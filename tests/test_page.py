"""Does the page at `/` do what a person wants of it? In the system's Chromium, over a real learner, log and server."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from api import keys
from api.page import HEADERS, UPLOT
from learner.loop import Learner
from learner.settings import LearnerSettings
from stream.log import Log, NewRecord, open_log
from stream.records import Feedback, Message, encode
from stream.settings import StreamSettings
from tests import chromium
from tests.faults.stage import SqliteStage
from tests.place import Place, running
from tests.test_snapshots_api import learn
from tests.waiting import wait_until

expect.set_options(timeout=30_000)
SCHEMES = ["light", "dark"]
WIDTHS = [390, 820, 1440]
MODEL = "linear?bits=16"
DATA = {
    "spam": ["win a prize now", "claim your cash prize", "you are a winner, claim now"],
    "ham": ["see you at lunch", "running late, home by nine", "the meeting moved to noon"],
}
# Each is run as code somewhere, where a text is taken for something else than a text.
XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<a href=javascript:alert(1)>click</a>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<input autofocus onfocus=alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<style>@import 'http://example.org/x.css';*{color:red}</style>",
    "<link rel=stylesheet href=http://example.org/x.css>",
    "<meta http-equiv=refresh content='0;url=http://example.org/'>",
    "<base href=http://example.org/>",
    "<form action=http://example.org/><button>x</button></form>",
    "<object data=http://example.org/></object>",
    '"><script>alert(1)</script>',
    "'-alert(1)-'",
    "`${alert(1)}`",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "-->\u003cscript>alert(1)</script>",
    "\u2028alert(1)\u2029",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
    "\u202e<img src=x onerror=alert(1)>",
    "expression(alert(1)); background:url(http://example.org/x.png)",
    "__proto__",
    "constructor",
    "toString",
    "javascript:alert(1)//",
    "data:text/html,<script>alert(1)</script>",
]


class Site(NamedTuple):
    """A learner at work, its log, and a server."""

    stream: StreamSettings
    log: Log
    url: str

    def message(self, key: str, text: str) -> None:
        self.log.append("messages", [NewRecord(key.encode(), encode(Message(key, text)))])

    def label(self, key: str, label: str, text: str | None = None) -> None:
        self.log.append("feedback", [NewRecord(key.encode(), encode(Feedback(key, label, text=text)))])

    def ask(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=30).json()

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
        wait_until(lambda: self.ask("/model")["labels_learned"] == before + 6 * rounds, what="they are learned")


@contextmanager
def at_work(data: Path, **options: Any) -> Iterator[Site]:
    """Run a learner in a thread, and a server."""
    stream = StreamSettings(data=data)
    stop = threading.Event()
    settings = LearnerSettings(model=MODEL, label_requests_per_hour=3600, **options)
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with at_work(tmp_path_factory.mktemp("page") / "data") as site:
        site.labelled(20)
        for number in range(30):
            site.message(f"open-{number}", f"{number} please see the winner of the meeting")
        wait_until(lambda: site.ask("/label-requests")["open"] > 5, what="there is something to label")
        wait_until(lambda: site.ask("/history?since=-3600")["accuracy"]["weight"], what="there is history")
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.started() as browser:
        yield browser


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

    def open(self) -> Page:
        self.page.goto(self.url)
        expect(self.page.locator("#tiles .tile")).to_have_count(7)
        return self.page

    def _heard(self, message: ConsoleMessage) -> None:
        optional = "/snapshots" in message.location.get("url", "")  # not every API has them
        if message.type in ("error", "warning") and not optional and self.expected not in message.text:
            self.troubles.append(message.text)

    def close(self) -> None:
        self.page.context.close()
        assert not self.troubles
        away = [url for url in self.requests if not url.startswith((self.url + "/", "data:"))]
        assert not away, "nothing is asked of anyone else"


@pytest.fixture
def tab(browser: Browser, site: Site) -> Iterator[Tab]:
    tab = Tab(browser, site.url)
    yield tab
    tab.close()


class TestQueue:
    def test_a_label_by_keyboard_changes_the_prediction(self, site: Site, tab: Tab) -> None:
        site.message("zebra", "zebra crossing ahead")
        wait_until(lambda: any(each["id"] == "zebra" for each in site.ask("/label-requests?n=100")["requests"]))
        page = tab.open()
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
        page = tab.open()
        expect(page.locator("#queue-body .message")).to_be_visible()
        text = page.locator("#queue-body .message").inner_text()
        page.get_by_label("Another label").fill("a new one")
        page.keyboard.press("Enter")
        wait_until(lambda: "a new one" in site.ask("/model")["labels"], what="it is learned")
        expect(page.locator("#queue-body .message")).not_to_have_text(text)
        expect(page.locator(".pick .name", has_text="a new one")).to_be_visible()

    def test_keys_do_nothing_where_the_focus_is_elsewhere(self, tab: Tab) -> None:
        page = tab.open()
        expect(page.locator("#queue-body .message")).to_be_visible()
        page.locator("#try-text").focus()
        page.keyboard.type("1 2 s u")
        page.locator("#key-open").focus()
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        assert not [url for url in tab.requests if url.endswith("/feedback")]
        assert page.locator("#try-text").input_value() == "1 2 s u"

    def test_a_label_that_the_api_refuses_is_told(self, tab: Tab) -> None:
        error = {"error": "the log is away", "code": "log-unavailable", "action": "Try again."}
        tab.expected = "503"
        tab.page.route("**/feedback", lambda route: route.fulfill(status=503, body=json.dumps(error)))
        page = tab.open()
        page.locator(".pick").first.click()
        expect(page.locator("#effects")).to_contain_text("not taken: the log is away")


class TestTry:
    def test_the_words_that_spoke_are_marked(self, tab: Tab) -> None:
        page = tab.open()
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
        page = tab.open()
        page.locator("#try-text").fill("quokka on the roof")
        page.locator("#teach-label").fill("animals")
        page.locator("#teach").click()
        expect(page.locator("#teach-note")).to_contain_text("The model now says")
        assert "animals" in site.ask("/model")["labels"]

    def test_an_odd_text_is_no_error(self, tab: Tab) -> None:
        page = tab.open()
        for text in ("\u202e right to left", "a\u0301\u200d\u0627\u0644", "x" * 4000):
            page.locator("#try-text").fill(text)
            expect(page.locator(".marked")).to_have_text(text.strip(), use_inner_text=False)
        page.evaluate("document.getElementById('try-text').value = 'half \\ud83d pair'")
        page.locator("#try-text").dispatch_event("input")
        expect(page.locator(".marked")).to_contain_text("half \ufffd pair")


class TestLive:
    def test_everything_is_shown(self, site: Site, tab: Tab) -> None:
        page = tab.open()
        expect(page.locator("#state-text")).to_contain_text("learning")
        expect(page.locator("#quality-chart canvas")).to_be_visible()
        expect(page.locator("#flow canvas")).to_have_count(3)
        assert "now" in (page.locator("#quality-chart").get_attribute("aria-label") or "")
        expect(page.locator("#labels-table tbody tr").first).to_be_visible()
        expect(page.locator("#confusion td.right").first).to_be_visible()
        expect(page.locator(".seen li").first).to_be_visible()
        expect(page.locator("#welcome")).to_be_hidden()
        seen = site.seen()
        site.message("one-more", "one more message comes in")
        expect(page.locator(".seen .text").first).to_have_text("one more message comes in")
        expect(page.locator("#tiles")).to_contain_text(f"{seen + 1} seen")

    def test_which_of_the_recent_messages(self, tab: Tab) -> None:
        page = tab.open()
        page.get_by_role("radio", name="Labelled").click()
        expect(page.locator(".seen .open")).to_have_count(0)
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("radio", name="Mistakes")).to_be_focused()
        expect(page.get_by_role("radio", name="Mistakes")).to_have_attribute("aria-checked", "true")
        expect(page.locator(".seen .better")).to_have_count(0)

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


class TestEmpty:
    def test_before_anything_was_learned_it_says_what_to_do(self, browser: Browser, tmp_path: Path) -> None:
        with at_work(tmp_path / "data") as site:
            tab = Tab(browser, site.url)
            tab.expected = "503"  # of /explain, before there is a model
            page = tab.open()
            expect(page.locator("#welcome")).to_be_visible()
            expect(page.locator("#welcome-send")).to_contain_text(f"curl {site.url}/feedback")
            expect(page.locator("#queue-body")).to_contain_text("Nothing to label now")
            expect(page.locator("#recent-list")).to_contain_text("No message yet")
            expect(page.locator("#quality-chart")).to_contain_text("Send messages")
            for text, label in (("win a prize", "spam"), ("see you at lunch", "ham")):
                page.locator("#try-text").fill(text)
                page.locator("#teach-label").fill(label)
                page.locator("#teach").click()
                expect(page.locator("#teach-note")).to_contain_text("The model now says")
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
        page = tab.open()
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
        page = tab.open()
        expect(page.locator("#snapshots")).to_be_hidden()


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

    def test_an_answer_from_before_it_was_given_asks_for_none(self, browser: Browser, guarded: "Guarded") -> None:
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
    def test_each_role_may_do_what_it_may(self, browser: Browser, guarded: "Guarded", role: keys.Role) -> None:
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

        page.locator("#try-text").fill("claim your cash prize")
        expect(page.locator(".verdict button").first).to_be_visible()
        page.locator("#teach-label").fill("spam")
        page.locator("#teach").click()
        if role < keys.Role.LABEL:
            expect(page.locator("#teach-note")).to_contain_text("Not taken: the key 'predict' may predict")
            expect(page.locator("#queue-body")).to_contain_text("may predict, and this needs label")
            expect(page.locator("#recent-list")).to_contain_text("may predict, and this needs label")
        else:
            expect(page.locator("#teach-note")).to_contain_text("Sent; not learned yet")
            expect(page.locator("#queue-body")).not_to_contain_text("this needs")

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

        page.reload()
        expect(page.locator("#tiles .tile")).to_have_count(7)  # the tab has the key still
        tab.close()
        other = Tab(browser, guarded.url)
        other.expected = "401"
        other.page.goto(other.url)
        expect(other.page.locator("#key")).to_be_visible()  # and no other one has it
        other.close()

    def test_one_that_is_wrong_is_told_of(self, browser: Browser, guarded: "Guarded") -> None:
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


class TestSafe:
    def test_no_text_is_ever_run(self, browser: Browser, tmp_path: Path) -> None:
        with at_work(tmp_path / "data") as site:
            for number, text in enumerate(XSS):
                site.message(f"{text}-{number}", text)
                site.label(f"{text}-{number}", text[:256])
                site.message(f"open {text}", f"{text} {number}")
            wait_until(lambda: site.ask("/model")["labels_learned"] == len(XSS))
            wait_until(lambda: site.ask("/recent")["labelled"], what="they are shown")
            tab = Tab(browser, site.url)
            page = tab.open()
            expect(page.locator("#labels-table tbody tr").first).to_be_visible()
            expect(page.locator(".pick").first).to_be_visible()
            for name in ("Labelled", "All"):
                page.get_by_role("radio", name=name).click()
                expect(page.locator(".seen li").first).to_be_visible()
            for text in XSS:
                page.locator("#try-text").fill(text)
                expect(page.locator(".marked")).to_contain_text(text.strip()[:20])
            page.locator("#teach-label").fill(XSS[1])
            page.locator("#teach").click()
            expect(page.locator("#teach-note")).to_contain_text("The model now says")
            page.locator("#queue-box").focus()
            for key in "123su":
                page.keyboard.press(key)
            expect(page.locator("#effects")).to_contain_text("labelled here")
            assert page.evaluate("document.scripts.length") == 2
            assert (
                page.evaluate("document.querySelectorAll('main img, main svg, main iframe, main a[href^=j]').length")
                == 0
            )
            tab.close()

    def test_the_policy_forbids_what_the_page_does_not_do(self, tab: Tab) -> None:
        page = tab.open()
        attempts = {
            "inline script": "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; "
            "document.body.append(s)",
            "markup": "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')",
            "another origin": "await fetch('http://127.0.0.1:9/')",
            "code of a text": "setTimeout('window.ran = 1')",
            "inline style": "const p = document.createElement('p'); p.setAttribute('style', 'color: red'); "
            "document.body.append(p); if (p.style.color) window.ran = 1; else throw 1",
        }
        for name, code in attempts.items():
            outcome = page.evaluate(
                f"(async () => {{ try {{ {code}; return 'done' }} catch {{ return 'refused' }} }})()"
            )
            assert outcome == "refused" or page.evaluate("window.ran === undefined"), name
        assert page.evaluate("window.ran === undefined")
        assert any("policy" in trouble for trouble in tab.troubles), "violations are noticed by these tests"
        tab.troubles.clear()
        tab.requests = [url for url in tab.requests if not url.startswith("http://127.0.0.1:9/")]

    def test_headers(self, site: Site) -> None:
        for path in ("/", "/dashboard/main.js", "/dashboard/style.css", "/dashboard/uplot.js", "/dashboard/icon.svg"):
            answer = httpx.get(site.url + path, timeout=30)
            assert answer.status_code == 200, path
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            again = httpx.get(site.url + path, headers={"If-None-Match": answer.headers["etag"]}, timeout=30)
            assert (again.status_code, again.content) == (304, b"")
            assert httpx.head(site.url + path, timeout=30).status_code == 200
        assert httpx.get(f"{site.url}/dashboard/../app.py", timeout=30).status_code == 404
        assert httpx.get(f"{site.url}/dashboard/index.html", timeout=30).status_code == 404

    def test_the_charts_are_those_of_the_release(self, site: Site) -> None:
        assert "uPlot (v1.6.31)" in httpx.get(f"{site.url}/dashboard/uplot.js", timeout=30).text[:200]
        assert len(UPLOT) == 2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
class TestForEveryone:
    def test_accessible(self, browser: Browser, site: Site, width: int, scheme: str) -> None:
        tab = Tab(browser, site.url, width, scheme, bypass_csp=True)  # axe's code is put into the page
        page = tab.open()
        page.locator("#try-text").fill("claim your prize at lunch")
        expect(page.locator(".marked mark").first).to_be_visible()
        expect(page.locator("#confusion td").first).to_be_visible()
        page.locator("#key-open").click()
        found = Axe().run(page)
        wrong = [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
        assert not wrong
        tab.close()

    def test_it_fits(self, browser: Browser, site: Site, width: int, scheme: str) -> None:
        tab = Tab(browser, site.url, width, scheme)
        page = tab.open()
        expect(page.locator("#quality-chart canvas")).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        small = page.evaluate(
            """[...document.querySelectorAll('button, input, textarea')].filter((e) => e.offsetParent)
               .filter((e) => e.offsetHeight < 24 || e.offsetWidth < 24).map((e) => e.outerHTML)"""
        )
        assert not small, "a finger has to find it"
        tab.close()


def test_everything_can_be_reached_by_keyboard(tab: Tab) -> None:
    page = tab.open()
    expect(page.locator(".pick").first).to_be_visible()
    page.locator("#try-text").fill("claim your prize")
    expect(page.locator(".verdict button").first).to_be_visible()
    wanted = set(
        page.evaluate(
            """[...document.querySelectorAll('a, button, input, textarea, [tabindex="0"]')]
               .filter((e) => e.tabIndex === 0 && (e.offsetParent || e.className === 'skip'))
               .map((e, i) => (e.dataset.walk = String(i)))"""
        )
    )
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    hidden: list[str] = []
    for _ in range(3 * len(wanted)):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
               return [e.dataset.walk ?? '', e.outerHTML, s.outlineStyle !== 'none' && r.width > 1] })()"""
        )
        if found[0] and found[0] in reached:
            break
        if found[0]:
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
        page = tab.open()
        expect(page.locator(".bar").first).to_be_visible()
        durations = page.evaluate(
            """[...document.querySelectorAll('*')].flatMap((e) => ['', '::before', '::after']
               .map((part) => getComputedStyle(e, part).transitionDuration)).filter((d) => d !== '0s').length"""
        )
        assert bool(durations) == moves
        tab.close()


def test_the_page_works_without_its_chart_package(place_without_charts: str, browser: Browser) -> None:
    tab = Tab(browser, place_without_charts)
    page = tab.open()
    expect(page.locator("#queue-title")).to_be_visible()
    tab.troubles = [each for each in tab.troubles if "404" not in each and "MIME" not in each]
    tab.close()


@pytest.fixture
def place_without_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("api.page.UPLOT_PACKAGE", "no-such-package")
    place = Place(tmp_path)
    place.publish()
    place.report()
    with running(place.stream) as url:
        assert httpx.get(f"{url}/dashboard/uplot.js", timeout=30).status_code == 404
        yield url


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
