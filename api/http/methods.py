"""Which methods does a path answer? (RFC 9110, 9.3.7 and 10.2.1: OPTIONS and 405 say so.)"""

from collections.abc import Iterable
from typing import Final

from starlette.routing import BaseRoute, Mount, Route

ALL: Final = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


def allowed(routes: Iterable[BaseRoute], path: str) -> list[str]:
    """Return the methods that a path answers, of all routes that it matches; none where nothing is.

    Where GET is answered HEAD is (gate.py), and OPTIONS wherever something is.
    """
    if path == "*":
        return list(ALL)
    found: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.path_regex.match(path):
            found |= route.methods or set()
        elif isinstance(route, Mount) and route.path_regex.match(path):
            found.add("GET")
    if not found:
        return []
    found |= {"OPTIONS", "HEAD"} if "GET" in found else {"OPTIONS"}
    return sorted(found, key=lambda method: (ALL.index(method) if method in ALL else len(ALL), method))
