"""One peer over one stream: `python -m bench.peers PEER ROWS ANSWERS SECONDS DELAY PATIENCE` (see protocol.py).

A peer that can be set is named with its settings, `vw-rich?grams=inside&rate=2`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Any, Callable

from bench.peers.protocol import Peer, read_rows, run


def find(name: str) -> Callable[[int], Peer]:
    """Return what makes a peer: by its name, or any model of our own by its specification.

    Raises
    ------
    ImportError : the peer's library is missing
    """
    if name.startswith("river-"):
        from bench.peers.river_peers import PEERS
    elif name.startswith("vw-"):
        from bench.peers.vw_peers import PEERS
    elif name.startswith("sklearn-"):
        from bench.peers.sklearn_peers import PEERS
    elif name.startswith("capymoa-"):
        from bench.peers.capymoa_peers import PEERS
    elif name.startswith("multiflow-"):
        from bench.peers.multiflow_peers import PEERS
    else:
        from bench.peers.ours import Ours

        return lambda n_labels: Ours(n_labels, name)
    base, _, query = name.partition("?")
    settings = dict(part.split("=", 1) for part in query.split("&")) if query else {}
    return lambda n_labels: PEERS[base](n_labels, **settings)


def main(name: str, rows: str, answers: str, seconds: str, delay: str, patience: str) -> None:
    """Run a peer and write its answers; what went wrong is an answer too."""
    found: dict[str, Any]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, whoever starts threads, and from now on
    try:
        make = find(name)
    except ImportError as error:
        found = {"missing": str(error)}
    else:
        stream = read_rows(rows)
        peer = make(stream.n_labels)
        found = run(peer, stream, int(delay), float(seconds), float(patience))
        found["versions"] = {**peer.versions(), "Python": platform.python_version()}
    with open(answers + ".part", "w") as file:
        json.dump(found, file)
    os.replace(answers + ".part", answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
