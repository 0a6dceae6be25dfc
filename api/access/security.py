"""Which role does each part of the API need?

Every route has a role: the least that a caller must be. A part of the API is a router and its role, put together where
the app is made; a route without one is refused at the start, so that none can be open by mistake. What is not of the
API, the page's files, needs no role: they hold no data.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from driftline.api.access.keys import Role

__all__ = ["SCHEMES", "Access", "Role", "Rule"]

SCHEMES: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


_REFUSALS: Final = {
    "401": "This needs an API key, or another one.",
    "403": "The key's role is not enough, or a page of another origin asks.",
    "421": "The Host header names another machine.",
    "429": "Too many requests of this key or address.",
}


class Rule(NamedTuple):
    """What holds for one operation."""

    method: str
    route: APIRoute
    role: Role
    private: bool  # answered on the admin port only, where there is one


class Access:
    """The rules of an app's operations."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.rules: list[Rule] = []
        self.routes: list[BaseRoute] = []  # of all parts

    def include(
        self, role: Role, router: APIRouter, *, open_paths: Collection[str] = (), private: bool = False
    ) -> None:
        """Add a part of the API; all of it needs `role`, but for some paths. What needs ADMIN is private."""
        private = private or role == Role.ADMIN
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{route!r} of a part is no route with a role")
            needed = Role.OPEN if route.path in open_paths else role
            route.openapi_extra = {**(route.openapi_extra or {}), **_described(needed)}
            self.rules += [Rule(method, route, needed, private) for method in route.methods or ()]
        self.include_open(router)

    def include_open(self, router: APIRouter) -> None:
        """Add what is no part of the API and holds no data."""
        self.routes += router.routes
        self._app.include_router(router)

    def check(self) -> None:
        """Raise TypeError where an operation that is described has no rule."""
        known = {(rule.method.lower(), rule.route.path_format) for rule in self.rules}
        for path, operations in self._app.openapi()["paths"].items():
            for method in operations:
                if (method, path) not in known:
                    raise TypeError(f"{method.upper()} {path} has no role: include its router with Access.include")


def _described(role: Role) -> dict[str, Any]:
    if role == Role.OPEN:
        return {}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        # The empty one: on loopback no key is asked for until there is one.
        "security": [{}, *({name: []} for name in SCHEMES)],
        "x-driftline-role": role.name.lower(),
        "responses": {status: {"description": text, "content": error} for status, text in _REFUSALS.items()},
    }
