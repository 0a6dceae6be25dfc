"""What does the page look like?

`python -m docs.screenshots` starts `driftline up --demo` on a directory of its own, lets it run until its stream has
drifted, and takes the page in the system's Chromium at three widths, light and dark, into docs/. The colours of each
picture are reduced to a palette, so that it stays small.
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
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Browser, expect

from tests import chromium

DOCS: Final = Path(__file__).parent
SIZES: Final = {390: 1800, 820: 1600, 1440: 1270}  # height of each width; what lies below is cut off
SCHEMES: Final = ("light", "dark")
DRIFT_S: Final = 300.0  # two changes of the wording, and the learner over both
START_S: Final = 120.0
TEXT: Final = "Hello Ana, your parcel 12345 is held at customs in Oslo. Pay 30 euros to release it."


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
    """Take the page at all widths and in both schemes."""
    with chromium.started() as browser:
        for width, height in SIZES.items():
            for scheme in SCHEMES:
                picture = _shoot(browser, url, width, height, scheme)
                path = into / f"page-{width}-{scheme}.png"
                path.write_bytes(picture)
                print(f"{path}: {len(picture) / 1000:.0f} kB")


def _shoot(browser: Browser, url: str, width: int, height: int, scheme: Any) -> bytes:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    page.locator("#try-text").fill(TEXT)
    expect(page.locator(".marked mark").first).to_be_visible()
    _label_one(page)
    page.locator("#try-text").blur()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)  # so that every part was drawn with what is there now
    picture = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    out = io.BytesIO()
    picture.convert("RGB").quantize(192).save(out, "PNG", optimize=True)
    return out.getvalue()


def _label_one(page: Any) -> None:
    """Label a message as it is predicted, so that the picture shows what comes of it."""
    first = page.locator(".pick").first
    expect(first).to_be_visible()
    shares = [float(share.rstrip("+")) for share in page.locator(".pick .share").all_inner_texts()]
    page.locator("#queue-box").focus()
    page.keyboard.press(str(1 + shares.index(max(shares))))
    expect(page.locator("#effects")).to_contain_text(re.compile(r"\bnow "), timeout=10_000)
    for _ in range(10):  # what the demo itself has labelled meanwhile is passed over, as anybody would
        if not page.locator("#queue-body").get_by_text("no longer in the queue").count():
            return
        page.keyboard.press("s")
        page.wait_for_timeout(500)


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
