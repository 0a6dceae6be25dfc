"""How do the parts of the API fit together?

Here they are made and given to each other; nothing is decided. The API never learns and changes nothing in the data
directory: it appends to the log, and reads what the learner puts there.

    requests ─> predict.py  ─> watcher.py    <─ snapshots/, status.json    (the learner's)
             └> feedback.py ─> connection.py ─> the log
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import errors, feedback, metrics, model, openapi, predict
from api.body import Bodies
from api.connection import Connection
from api.feedback import Appender
from api.metrics import CountRequests, Metrics
from api.predict import Predictor
from api.security import Access, Role
from api.settings import ApiSettings
from api.watcher import Watcher
from stream.settings import StreamSettings

_DESCRIPTION = """
A text classifier that never stops learning. Post messages and, whenever they are known, their labels; predictions
reflect a label within a second. Every error has one shape: what was wrong, and what to do.
"""


def make_app(stream: StreamSettings, settings: ApiSettings) -> FastAPI:
    """Return the API over one log and one data directory. It connects once its lifespan begins.

    The lifespan raises ConfigError where options cannot be meant, or the model's pickle may not be opened; a log that
    is away is waited for.
    """
    watcher, connection = Watcher(stream.data, allow_pickle=stream.allow_pickle), Connection(stream, settings)
    counters, bodies = Metrics(watcher, connection), Bodies(settings)
    predictor, appender = Predictor(watcher, counters, settings), Appender(connection, stream, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.gather(*map(asyncio.to_thread, (watcher.start, connection.start)))
            yield
        finally:
            await asyncio.gather(*map(asyncio.to_thread, (predictor.close, watcher.close, connection.close)))

    app: FastAPI = FastAPIOffline(
        title="Driftline",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.add_handlers(app)
    access = Access(app)
    access.include(Role.PREDICT, predict.router(predictor, bodies, settings))
    access.include(Role.LABEL, feedback.router(appender, bodies, settings))
    access.include(Role.PREDICT, model.router(watcher, connection))
    access.include(Role.OPEN, model.health(watcher, connection))
    access.include(Role.PREDICT, metrics.router(counters), private=True)
    openapi.describe(app, [*predict.TYPES, *feedback.TYPES, *model.TYPES], settings)
    access.check()
    routes = frozenset([*app.openapi()["paths"], "/docs", "/openapi.json"])
    app.add_middleware(CountRequests, metrics=counters, routes=routes)
    return app


def _version() -> str:
    try:
        return version("driftline")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "0"
