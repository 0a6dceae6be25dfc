"""What does a person see at `/`?

The page's own files, from `dashboard/`, and uPlot's, which a Python package carries (its code is never imported, and
their hashes are pinned). All are read once, at the start. The headers let the page load and reach nothing but its own
origin, run nothing that is not one of these files, and make no markup of a text. Beside it, at `/docs`, the reference.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Coroutine
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

_SWAGGER: Final = "static-offline-docs"  # where fastapi-offline has its files
_ROOT: Final = Path(__file__).with_name("dashboard")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# uPlot 1.6.31, the files that its author released (MIT).
UPLOT_PACKAGE: Final = "youplot"
UPLOT: Final = {
    "uplot.js": (
        "youplot/vendor/uplot.iife.min.js",
        "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    ),
    "uplot.css": (
        "youplot/vendor/uplot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    headers: dict[str, str]


def router(admin_port: int | None) -> APIRouter:
    """Return GET /, GET /dashboard/... and GET /docs, which are not part of the API's description.

    All that they load or ask lies beside them, by relative URLs: a proxy may put them behind any prefix.
    Where there is an admin port, the page says that the reference is there, and changes nothing that is asked there.
    """
    routes = APIRouter(include_in_schema=False)
    for path, file in _files(admin_port).items():
        routes.add_api_route(path, _answer(file), methods=["GET"])

    reference = _reference()

    @routes.get("/docs")
    async def docs() -> Response:
        return Response(reference.content, headers=reference.headers)

    return routes


def _reference() -> _File:
    """Return the page that shows the API's description; its own script is let run by its hash."""
    content = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Driftline: API reference",
        swagger_js_url=f"{_SWAGGER}/swagger-ui-bundle.js",
        swagger_css_url=f"{_SWAGGER}/swagger-ui.css",
        swagger_favicon_url="dashboard/icon.svg",
    ).body
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(content), re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each).digest()).decode()}'" for each in scripts)
    policy = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    file = _file("docs.html", bytes(content))
    return _File(file.content, file.headers | {"Content-Security-Policy": policy})


def _answer(file: _File) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.headers["ETag"]:
            return Response(status_code=304, headers=file.headers)
        return Response(file.content, headers=file.headers)

    return answer


def _files(admin_port: int | None) -> dict[str, _File]:
    found = {
        f"/dashboard/{path.relative_to(_ROOT).as_posix()}": _file(path.name, path.read_bytes())
        for path in sorted(_ROOT.rglob("*"))
        if path.suffix in _TYPES
    }
    del found["/dashboard/index.html"]
    # A module is known to be needed only once the one before it was read: so the page names all of them at once.
    modules = b"".join(
        b'  <link rel="modulepreload" href="%b">\n' % path[1:].encode() for path in found if path.endswith(".js")
    )
    index = (_ROOT / "index.html").read_bytes().replace(b"</head>", modules + b"</head>")
    found["/"] = _file(
        "index.html", index.replace(b'data-port=""', b'data-port="%d"' % admin_port) if admin_port else index
    )
    # Without the package, or with another version of it, the page has no charts; all else works.
    for name, (place, digest) in UPLOT.items():
        path = _installed(place)
        if path is not None and hashlib.sha256(content := path.read_bytes()).hexdigest() == digest:
            found[f"/dashboard/{name}"] = _file(name, content)
    return found


def _installed(place: str) -> Path | None:
    """Return where a file of uPlot's package lies."""
    try:
        path = Path(str(distribution(UPLOT_PACKAGE).locate_file(place)))
    except ModuleNotFoundError:
        return None
    return path if path.is_file() else None


def _file(name: str, content: bytes) -> _File:
    etag = '"' + hashlib.sha256(content).hexdigest()[:32] + '"'
    return _File(content, HEADERS | {"Content-Type": _TYPES[Path(name).suffix], "ETag": etag})
