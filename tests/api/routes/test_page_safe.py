"""Is a text ever run as code, and does the page keep to its policy? In the system's Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, expect

from driftline.api.routes import page
from driftline.api.routes.page import HEADERS, UPLOT
from tests.page import Tab, at_work
from tests.place import Api
from tests.waiting import wait_until

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


@pytest.fixture
def tab(browser: Browser, api: Api) -> Iterator[Tab]:
    tab = Tab(browser, api.url)
    yield tab
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
            page = tab.open("labels")
            expect(page.locator("#labels-table tbody tr").first).to_be_visible()
            page.get_by_label("Find a label").fill("<")
            expect(page.locator("#labels-table tbody tr").first).to_be_visible()
            page.goto(f"{tab.url}/#messages")
            for which in ("labelled", "all"):
                page.get_by_label("Which").select_option(which)
                expect(page.locator(".seen li").first).to_be_visible()
            for text in XSS[:5]:
                page.goto(f"{tab.url}/#messages?{urlencode({'id': f'open {text}'})}")
                expect(page.locator("#message-text .message")).to_contain_text(text)
                asked = dict.fromkeys(("query", "label", "predicted", "source"), text)
                page.goto(f"{tab.url}/#messages?{urlencode(asked)}")
                expect(page.locator("#messages-query")).to_have_value(text)
                page.goto(f"{tab.url}/#{text}")
                expect(page.locator("#room-now")).to_be_visible()
            page.goto(f"{tab.url}/#try")
            for text in XSS:
                page.locator("#try-text").fill(text)
                expect(page.locator(".marked")).to_contain_text(text.strip()[:20])
            page.locator("#teach-label").fill(XSS[1])
            page.locator("#teach").click()
            expect(page.locator("#teach-note")).to_contain_text("The model now says")
            page.goto(f"{tab.url}/#label")
            expect(page.locator(".pick").first).to_be_visible()
            page.keyboard.press("/")
            page.keyboard.type(XSS[1])
            page.keyboard.press("Escape")
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

    def test_the_reference_works_under_its_policy(self, tab: Tab) -> None:
        page = tab.page
        page.goto(f"{tab.url}/docs")
        operation = page.locator(".opblock").first
        expect(operation).to_be_visible()
        expect(page.locator(".info .title")).to_contain_text("Driftline")
        health = page.locator(".opblock", has=page.locator("[data-path='/healthz']"))
        health.locator(".opblock-summary").click()
        health.get_by_role("button", name="Try it out").click()
        health.get_by_role("button", name="Execute").click()
        answer = health.locator(".live-responses-table td.response-col_status:not(.col_header)")
        expect(answer.first).to_contain_text("200")
        page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
        )
        assert page.evaluate("window.ran === undefined")
        assert any("policy" in trouble for trouble in tab.troubles), "violations are noticed by this test"
        tab.troubles.clear()

    def test_headers(self, api: Api) -> None:
        for path in (
            "/",
            "/dashboard/main.js",
            "/dashboard/rooms/label.js",
            "/dashboard/style.css",
            "/dashboard/uplot.js",
            "/dashboard/icon.svg",
        ):
            answer = httpx.get(api.url + path, timeout=30)
            assert answer.status_code == 200, path
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            again = httpx.get(api.url + path, headers={"If-None-Match": answer.headers["etag"]}, timeout=30)
            assert (again.status_code, again.content) == (304, b"")
            assert httpx.head(api.url + path, timeout=30).status_code == 200
        assert httpx.get(f"{api.url}/dashboard/../app.py", timeout=30).status_code == 404
        assert httpx.get(f"{api.url}/dashboard/index.html", timeout=30).status_code == 404

    def test_the_page_names_all_its_modules(self, api: Api) -> None:
        index = httpx.get(api.url, timeout=30).text
        named = re.findall(r'<link rel="modulepreload" href="dashboard/([\w/]+\.js)">', index)
        folder = Path(page.__file__).with_name("dashboard")
        assert sorted(named) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.js"))
        for name in named:
            answer = httpx.get(f"{api.url}/dashboard/{name}", timeout=30)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")

    def test_the_charts_are_those_of_the_release(self, api: Api) -> None:
        assert "uPlot (v1.6.31)" in httpx.get(f"{api.url}/dashboard/uplot.js", timeout=30).text[:200]
        assert len(UPLOT) == 2
