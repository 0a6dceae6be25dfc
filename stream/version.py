"""Which version of Driftline is this?

pyproject.toml says so: an installed package's metadata are made of it; in a source tree that was not installed it is
read there. The client, which is always there, is of the same version.
"""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def version() -> str:
    """Return the version, as `driftline --version`, the API's description and the image's label have it."""
    try:
        return metadata.version("driftline-client")
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parent.with_name("pyproject.toml")
        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])
