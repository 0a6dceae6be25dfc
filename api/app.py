"""How do the parts of the API fit together?

Here they are made and given to each other; nothing is decided. The API never learns: it appends to the log, and reads
what the learner puts into the data directory, where it changes only which model is served (snapshots.py). Where several
machines answer, that too goes through a topic that they share (together.py).

    requests ─> gate.py ─┬─> predict.py, explain.py ─> watcher.py    <─ snapshots/, status.json     (the learner's)
                         ├─> history.py, review.py  <────────────────── history, review.json      (likewise)
                         ├─> messages.py            ─> catalogue.py  <─ catalogue/                 (read from the log)
                         ├─> feedback.py            ─> connection.py ─> the log
                         └─> FastAPI ──> page.py and everything else
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import itemgetter
from secrets import token_bytes
from typing import NamedTuple

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from driftline.api import errors
from driftline.api.access.keys import Keys, path_of
from driftline.api.access.rate import PER_S, TABLE_BYTES, Rate
from driftline.api.access.security import Access, Role
from driftline.api.gate import Gate
from driftline.api.http import openapi
from driftline.api.http.traces import make_traces
from driftline.api.load.body import Bodies
from driftline.api.load.holding import Holding
from driftline.api.protocols import mlflow, open_inference
from driftline.api.protocols.open_inference import OpenInference
from driftline.api.routes import (
    erase,
    explain,
    export,
    feedback,
    history,
    messages,
    model,
    page,
    predict,
    review,
    snapshots,
)
from driftline.api.routes.explain import Explainer
from driftline.api.routes.feedback import Appender
from driftline.api.routes.predict import Predictor
from driftline.api.settings import ApiSettings
from driftline.api.shared import health, metrics
from driftline.api.shared.board import Board
from driftline.api.shared.catalogue import Catalogue
from driftline.api.shared.claims import Claims
from driftline.api.shared.connection import Connection
from driftline.api.shared.freshness import Freshness
from driftline.api.shared.labels import Labels
from driftline.api.shared.metrics import Metrics
from driftline.api.shared.together import Together
from driftline.api.shared.watcher import Watcher
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings
from driftline.stream.version import version
from driftline.stream.wire import outline

_DESCRIPTION = """
A text classifier that never stops learning. Post messages and, whenever they are known, their labels; predictions
reflect a label within a second. Every error has one shape: what was wrong, and what to do.
"""

_PARTS = (predict, explain, feedback, model, health, history, review, messages, snapshots, erase)
_TYPES = [each for part in (*_PARTS, open_inference, mlflow) for each in part.TYPES]


class Api(NamedTuple):
    """The API, ready to be served inside of its lifespan."""

    app: FastAPI
    gate: Gate
    metrics: Metrics
    stop: Callable[[], None]  # what only waits is told to come again; on the event loop


def make_app(
    stream: StreamSettings, settings: ApiSettings, *, board: Board | None = None, admin_port: int | None = None
) -> Api:
    """Return the API over one log and one data directory. It connects once its lifespan begins.

    Parameters
    ----------
    board : what it shares with other workers; None where there are none
    admin_port : the port that `settings.admin_port` became

    Raises
    ------
    ConfigError : a key is none. The lifespan raises it, too: options cannot be meant, or the model's pickle may not be
        opened. A log that is away is waited for.
    """
    keys = Keys(path_of(stream, settings), settings.api_keys)
    watcher, connection = Watcher(stream.data, allow_pickle=stream.allow_pickle), Connection(stream, settings)
    readiness = health.Health(watcher, connection, settings.most_behind_s)
    counters, bodies = (
        Metrics(watcher, connection, readiness, board),
        Bodies(settings, Holding(settings, itemgetter("caller"))),
    )
    freshness = Freshness(watcher, connection, stream.topics.feedback, counters, settings)
    predictor = Predictor(watcher, freshness, counters, settings)
    explainer = Explainer(watcher, settings)
    inference = OpenInference(predictor, watcher, bodies, settings)
    traces = make_traces(settings)
    together = Together(stream.data, connection)
    claims, labels = Claims(board, together), Labels(stream, watcher)
    catalogue = Catalogue(stream, settings)
    appender = Appender(connection, freshness, traces, claims, labels, stream, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.gather(*map(asyncio.to_thread, (watcher.start, connection.start)))
            freshness.start()
            threads.start("kernels-of-bodies", outline.warm_up)
            yield
        finally:
            await freshness.close()
            parts = (bodies, predictor, explainer, watcher, catalogue, connection, traces)
            await asyncio.gather(*(asyncio.to_thread(part.close) for part in parts))

    app: FastAPI = FastAPIOffline(
        title="Driftline",
        version=version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # page.py has one that works behind a proxy's prefix
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls its functions
        servers=[{"url": "."}],  # beside this document
    )
    errors.add_handlers(app)
    access = Access(app)
    access.include(Role.PREDICT, predict.router(predictor, bodies, settings))
    access.include(Role.LABEL, feedback.router(appender, bodies, settings))
    access.include(Role.PREDICT, explain.router(explainer, bodies))
    access.include(Role.PREDICT, model.router(watcher, connection))
    access.include(Role.PREDICT, history.router(stream.data, watcher))
    access.include(Role.LABEL, review.router(stream.data, watcher, claims, bodies))  # it shows texts
    access.include(Role.LABEL, messages.router(catalogue))  # likewise
    access.include(Role.LABEL, export.router(catalogue))
    access.include(Role.PREDICT, snapshots.router(stream.data, watcher))
    access.include(Role.ADMIN, snapshots.admin_router(stream, together))
    access.include(Role.ADMIN, erase.router(stream.data, together))
    access.include(Role.OPEN, readiness.router())
    access.include(
        Role.PREDICT, open_inference.router(inference, readiness, version()), open_paths=open_inference.OPEN_PATHS
    )
    access.include(
        Role.PREDICT, mlflow.router(predictor, readiness, bodies, settings, version()), open_paths=mlflow.OPEN_PATHS
    )
    access.include(Role.PREDICT, metrics.router(counters), private=True)
    access.include_open(page.router(admin_port))
    openapi.describe(app, _TYPES, settings)
    access.check()

    def stop() -> None:
        freshness.stop()
        explainer.stop()

    gate = Gate(app, access, keys, _rate(settings, board), counters, settings, admin_port)
    return Api(app, gate, counters, stop)


def _rate(settings: ApiSettings, board: Board | None) -> Rate:
    table, secret = (board.rates, board.secret) if board else (memoryview(bytearray(TABLE_BYTES)), token_bytes(32))
    return Rate(settings.rate_limit or PER_S, table, secret)
