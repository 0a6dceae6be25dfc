"""Everything that is installed, under one name: `from driftline import Client`.

The four folders stand beside this one, and links lead to them; so nothing that Driftline brings is called `api` or
`cli`, as folders of its users' own are. In an installed package they are folders here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftline.api.client import AsyncClient, Client

    __version__: str

__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    """Give the Python client, or the version, loaded only where it is asked for."""
    if name == "__version__":
        from driftline.stream.version import version

        return version()
    if name in __all__:
        from driftline.api import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
