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

from api import errors, feedback, metrics, mlflow, model, open_inference, openapi, predict
from api.body import Bodies
from api.connection import Connection
from api.feedback import Appender
from api.freshness import Freshness
from api.metrics import CountRequests, Metrics
from api.open_inference import OpenInference
from api.predict import Predictor
from api.settings import ApiSettings
from api.traces import make_traces
from api.watcher import Watcher
from stream.settings import StreamSettings

_DESCRIPTION = """
A text classifier that never stops learning. Post messages and, whenever they are known, their labels; predictions
reflect a label within a second. Every error has one shape: what was wrong, and what to do.
"""


def make_app(stream: StreamSettings, settings: ApiSettings) -> FastAPI:
    """Return the API over one log and one data directory. It connects once its lifespan begins.

    Raises ConfigError for traces without their library. The lifespan raises ConfigError where options cannot be meant,
    or the model's pickle may not be opened; a log that is away is waited for.
    """
    watcher, connection = Watcher(stream.data, allow_pickle=stream.allow_pickle), Connection(stream, settings)
    counters, bodies = Metrics(watcher, connection), Bodies(settings)
    freshness = Freshness(watcher, counters, settings)
    predictor = Predictor(watcher, freshness, counters, settings)
    inference = OpenInference(predictor, watcher, bodies, settings)
    traces = make_traces(settings)
    appender = Appender(connection, freshness, traces, stream, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.gather(*map(asyncio.to_thread, (watcher.start, connection.start)))
            freshness.start()
            yield
        finally:
            await freshness.close()
            closing = (predictor.close, watcher.close, connection.close, traces.close)
            await asyncio.gather(*map(asyncio.to_thread, closing))

    app: FastAPI = FastAPIOffline(
        title="Driftline",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.add_handlers(app)
    app.include_router(predict.router(predictor, bodies, settings))
    app.include_router(feedback.router(appender, bodies, settings))
    app.include_router(model.router(watcher, connection))
    app.include_router(open_inference.router(inference, _version()))
    app.include_router(mlflow.router(predictor, watcher, bodies, settings, _version()))
    app.include_router(metrics.router(counters))
    types = [each for part in (predict, feedback, model, open_inference, mlflow) for each in part.TYPES]
    openapi.describe(app, types, settings)
    routes = frozenset([*app.openapi()["paths"], "/docs", "/openapi.json"])
    app.add_middleware(CountRequests, metrics=counters, routes=routes)
    return app


def _version() -> str:
    try:
        return version("driftline")
    except PackageNotFoundError:  # run from a source tree that was not installed
        return "0"
