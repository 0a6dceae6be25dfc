"""Which of the environment's variables are options of Driftline?

Those that begin with DRIFTLINE_, hold something, and were not made by somebody else: Kubernetes gives each container
variables for each Service (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), and
Docker for each link (https://docs.docker.com/engine/network/links/). For a Service called `driftline`, or
`driftline-api`, they begin as ours do. Where the name alone does not tell, as with DRIFTLINE_PORT, the value does.
"""

import os
import re
from collections.abc import Mapping
from typing import Final

PREFIX: Final = "DRIFTLINE_"
# Read by something else than options: commands, docker-compose.yml, tests.
OTHERS: Final = frozenset({"DRIFTLINE_KEY", "DRIFTLINE_METRICS_KEY_FILE"})
_TESTS: Final = re.compile(r"(TEST|TORTURE|SOAK)(_.*)?|TALLY|WRITE_DOCS")
_SERVICE: Final = re.compile(r"([A-Z0-9_]+_)?SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)")
_ONE_PORT: Final = re.compile(r"([A-Z0-9_]+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|PORT|PORT_START|PORT_END))?")
_PORT: Final = re.compile(r"([A-Z0-9_]+_)?PORT")
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*", re.IGNORECASE | re.DOTALL)
_LINK_NAME: Final = re.compile(r"([A-Z0-9_]+_)?NAME")
_LINK_PATH: Final = re.compile(r"/[^/]+/[^/]+")
_LINK_ENVIRONMENT: Final = re.compile(r"([A-Z0-9_]+_)?ENV_.+")


def options(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that are meant for us, by their names in capitals, with what they hold.

    An empty one, as `${X:-}` makes it, is none. Case does not matter.
    """
    named = {name.upper(): value for name, value in (os.environ if environment is None else environment).items()}
    return {
        name: value
        for name, value in named.items()
        if name.startswith(PREFIX) and value.strip() and not is_of_a_link(name, value)
    }


def is_of_a_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes or Docker made a variable, whose name is in capitals, for a Service or a link."""
    rest = name.removeprefix(PREFIX)
    return bool(
        _SERVICE.fullmatch(rest)
        or _ONE_PORT.fullmatch(rest)
        or _LINK_ENVIRONMENT.fullmatch(rest)
        or (_PORT.fullmatch(rest) and _ADDRESS.fullmatch(value))
        or (_LINK_NAME.fullmatch(rest) and _LINK_PATH.fullmatch(value))
    )


def is_read_elsewhere(name: str) -> bool:
    """Tell whether something of this repository reads a variable that is no option."""
    return name in OTHERS or _TESTS.fullmatch(name.removeprefix(PREFIX)) is not None
