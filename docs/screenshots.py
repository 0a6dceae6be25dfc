"""What does the page look like?

`python -m docs.screenshots` starts `driftline up --demo` on a directory of its own, lets it run until its stream has
drifted, and takes rooms of the page in the system's Chromium at three widths, light and dark, into docs/. The colours
of each picture are reduced to a palette, so that it stays small.
"""

import argparse
import io
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests import chromium

DOCS: Final = Path(__file__).parent
SIZES: Final = {390: 1100, 820: 1100, 1440: 1000}  # height of each width; what lies below is cut off
ROOMS: Final = {  # each room that is taken, and what is there once it has been filled
    "now": "#quality-chart canvas",
    "label": "#queue-text mark",
    "messages": ".seen > li",
    "labels": "#confusion td.right",
}
COLOURS: Final = 128
SCHEMES: Final = ("light", "dark")
DRIFT_S: Final = 300.0  # two changes of the wording, and the learner over both
START_S: Final = 120.0


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=DRIFT_S, help="how long the demo runs first")
    parser.add_argument("--url", help="a page that is there already, in place of a demo")
    parser.add_argument("--into", type=Path, default=DOCS, help="where the pictures go")
    options = parser.parse_args()
    if options.url:
        take(options.url, options.into)
        return
    with tempfile.TemporaryDirectory() as data:
        port = _free_port()
        command = [sys.executable, "-m", "driftline", "up", "--demo", "--data", data, "--port", str(port)]
        with subprocess.Popen(command) as demo:
            try:
                _wait(f"http://127.0.0.1:{port}")
                time.sleep(options.seconds)
                take(f"http://127.0.0.1:{port}", options.into)
            finally:
                demo.send_signal(signal.SIGTERM)


def take(url: str, into: Path) -> None:
    """Take each room at all widths and in both schemes."""
    with chromium.started() as browser:
        for width, height in SIZES.items():
            for scheme in SCHEMES:
                for room, picture in _shoot(browser, url, width, height, scheme):
                    path = into / f"page-{room}-{width}-{scheme}.png"
                    path.write_bytes(picture)
                    print(f"{path}: {len(picture) / 1000:.0f} kB")


def _shoot(browser: Browser, url: str, width: int, height: int, scheme: Any) -> Iterator[tuple[str, bytes]]:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    for room, shown in ROOMS.items():
        page.goto(f"{url}/#{room}")
        expect(page.locator(shown).first).to_be_visible()
        if room == "label":
            _label_one(page)
        page.wait_for_timeout(1500)  # so that every part was drawn with what is there now
        picture = Image.open(io.BytesIO(page.screenshot()))
        out = io.BytesIO()
        picture.convert("RGB").quantize(COLOURS).save(out, "PNG", optimize=True)
        yield room, out.getvalue()
    context.close()


def _label_one(page: Page) -> None:
    """Label a message as it is predicted, so that the picture shows what comes of it."""
    page.keyboard.press("Enter")
    expect(page.locator("#effects")).to_contain_text(re.compile(r"\bnow "), timeout=10_000)
    for _ in range(10):  # what the demo itself has labelled meanwhile is passed over, as anybody would
        if "no longer in the queue" not in page.locator("#queue-warning").inner_text():
            break
        page.keyboard.press("s")
        page.wait_for_timeout(500)
    expect(page.locator("#queue-text mark").first).to_be_visible()


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/model").json()["labels_learned"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the demo was not up within {START_S:g} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
