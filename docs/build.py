"""How do the pages become a site? `make docs` asks: dist/docs/site, to be read from the disk or from any web server.

1. The pages are laid out in dist/docs/pages, in the folders that they have here, so that their links hold. Links to
   code lose their link: the site has pages, not the code.
2. Zensical builds them, and refuses a link to a page or a heading that is not there.
3. The site is looked at: every link and picture leads somewhere, and nothing is loaded from another host.

Needs nothing but Python and Zensical.
"""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "dist" / "docs"
PAGES: Final = ("*.md", "docs/*.md", "docs/*.png", "docs/site.css", "bench/report/**/*.md", "bench/report/**/*.png")
LINK: Final = re.compile(r"\[([^][]*)\]\((?![a-z]+:)([^()\s#]+)(#[^()\s]*)?\)")
LOADED: Final = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "src"), ("iframe", "src")}
IN_STYLE: Final = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)")
# What the theme's script loads from another host, where a page has what asks for it; so no page may.
LAZY: Final = ('class="mermaid', 'class="glightbox', 'class="pyodide', "data-md-source")


def main() -> None:
    """Build the site; end with what is wrong with it."""
    shutil.rmtree(OUT, ignore_errors=True)
    lay(ROOT, OUT / "pages")
    shutil.copy(ROOT / "docs" / "zensical.toml", OUT)
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--clean", "--strict"]
    if subprocess.run(command, cwd=OUT, check=False).returncode:
        sys.exit("the site was not built: see above")
    wrong = check(OUT / "site")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"The site is in {OUT.relative_to(ROOT)}/site: open its index.html; or, with its search,")
    print(f"    python3 -m http.server --bind 127.0.0.1 --directory {OUT.relative_to(ROOT)}/site")


def lay(root: Path, into: Path) -> None:
    """Lay the pages and pictures out."""
    laid = {path for pattern in PAGES for path in root.glob(pattern)}
    for path in laid:
        target = into / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(without_code(path, laid))
        else:
            shutil.copy(path, target)


def without_code(path: Path, laid: set[Path]) -> str:
    """Return a page's text; where a link leads to what is not laid out, its words alone."""

    def words(found: re.Match[str]) -> str:
        leads_to = (path.parent / unquote(found[2])).resolve()
        return found[0] if leads_to in laid or leads_to.suffix == ".md" else found[1]

    return LINK.sub(words, path.read_text())


class Page(HTMLParser):
    """What a page has: its anchors, its links, what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if name == "style" and value:
                self.loads += IN_STYLE.findall(value)
            if value and (tag, name) in LOADED:
                self.loads.append(value)
            elif value and (tag, name) == ("a", "href"):
                self.links.append(value)


def check(site: Path) -> list[str]:
    """Return what is wrong with a site: links that lead nowhere, and what comes from another host."""
    texts = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    if not texts:
        return [f"there is no page in {site}"]
    pages = {path: Page(text) for path, text in texts.items()}
    wrong = []
    for path, page in pages.items():
        where = path.relative_to(site)
        wrong += [f"{where}: {mark} would load from another host" for mark in LAZY if mark in texts[path]]
        wrong += [f"{where}: loads {each}" for each in page.loads if is_foreign(each)]
        for link in {each for each in [*page.links, *page.loads] if not urlsplit(each).scheme and not is_foreign(each)}:
            parts = urlsplit(link)
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file():
                wrong.append(f"{where}: {link} is not there")
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors:
                wrong.append(f"{where}: {link}: no such place on that page")
    for style in site.rglob("*.css"):
        loads = IN_STYLE.findall(style.read_text())
        wrong += [f"{style.relative_to(site)}: loads {each}" for each in loads if is_foreign(each)]
    return wrong


def is_foreign(address: str) -> bool:
    """Tell whether an address is another host's."""
    return address.startswith("//") or urlsplit(address).scheme in ("http", "https", "ftp", "ws", "wss")


if __name__ == "__main__":
    main()
