"""How long does one request keep all others waiting, whatever is in it?

`python -m tests.bodies` sends the worst bodies of each route (worst_bodies.py) to the app, one after another, and looks
all the while how long the event loop stood still. Counted is the processor time of this process between two turns of
the loop: its own, and that of a thread that did not let it go on; other programs do not count. The least of some tries
is shown, of each route for the body that was worst. `--save FILE` keeps the figures; `--beside FILE` puts those of
another version beside them.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from driftline.api.app import Api, make_app
from driftline.api.settings import ApiSettings
from driftline.learner.registry import make_classifier
from driftline.learner.serving.snapshot import Publisher, SnapshotInfo
from driftline.stream.process.settings import StreamSettings
from tests.worst_bodies import Limits, Worst, worst_bodies

PIECE: Final = 64 << 10  # of a body, as it comes from a socket
LABELS: Final = 1000


class Held(NamedTuple):
    """How long the loop stood still."""

    own_s: float  # processor time of the loop's thread between two turns
    all_s: float  # of the whole process
    status: int


def publish(data: Path, n_labels: int) -> None:
    """Put a model with so many labels where an API looks for it."""
    classifier = make_classifier("linear?bits=12&chars=0")
    labels = [f"a label with a long name, number {number}" for number in range(n_labels)]
    classifier.learn_many([f"text w{number}" for number in range(n_labels)], labels)
    info = SnapshotInfo(
        version="worst-1",
        epoch=1,
        model=classifier.spec,
        config=classifier.config(),
        labels=classifier.labels,
        labels_learned=n_labels,
        feedback_offsets={"0": 1},
        published_at=time.time(),
    )
    Publisher(data / "snapshots", epoch=1).publish(classifier, info)


@asynccontextmanager
async def app(data: Path, **options: Any) -> Any:
    """Give an app that answers."""
    api = make_app(StreamSettings(data=data), ApiSettings(**options))
    async with api.app.router.lifespan_context(api.app):
        yield api


async def send(api: Api, worst: Worst) -> Held:
    """Send a body; return how long the loop stood still meanwhile."""
    status = 0
    left: Iterator[int] = iter(range(0, len(worst.body), PIECE))

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        at = next(left, None)
        if at is None:
            await asyncio.Event().wait()
        assert at is not None
        return {"type": "http.request", "body": worst.body[at : at + PIECE], "more_body": at + PIECE < len(worst.body)}

    async def answered(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % len(worst.body)), *worst.headers]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": worst.path, "raw_path": worst.path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip
    own, everything = await _watched(api.gate(scope, receive, answered))
    return Held(own, everything, status)


async def _watched(doing: Awaitable[None]) -> tuple[float, float]:
    """Return the most processor time between two turns of the loop, of its thread and of the process."""
    task = asyncio.ensure_future(doing)
    own = everything = 0.0
    before = time.thread_time(), time.process_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time(), time.process_time()
        own, everything = max(own, now[0] - before[0]), max(everything, now[1] - before[1])
        before = now
    await task
    return own, everything


async def measure(data: Path, tries: int, only: Sequence[str]) -> dict[str, Held]:
    """Return what each of the bodies did."""
    found: dict[str, Held] = {}
    async with app(data) as api:
        await asyncio.sleep(2)  # what is compiled at a start is there
        for worst in worst_bodies(Limits()):
            if only and not any(each in str(worst) for each in only):
                continue
            held = await send(api, worst)
            for _ in range(tries - 1):
                if max(held[:2]) < 0.005 or max(held[:2]) > 0.5:
                    break
                more = await send(api, worst)
                held = Held(min(held.own_s, more.own_s), min(held.all_s, more.all_s), held.status)
            found[str(worst)] = held
            if max(held[:2]) > 0.02:
                typer.echo(f"{1000 * held.own_s:8.1f} {1000 * held.all_s:8.1f} ms  {held.status}  {worst}")
    return found


def main(
    tries: Annotated[int, typer.Option(min=1)] = 3,
    only: Annotated[list[str] | None, typer.Option(help="those whose route or name holds this")] = None,
    save: Annotated[Path | None, typer.Option(help="where to keep the figures")] = None,
    beside: Annotated[Path | None, typer.Option(help="figures of another version")] = None,
) -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory(prefix="driftline-bodies-") as name:
        publish(Path(name), LABELS)
        found = asyncio.run(measure(Path(name), tries, only or ()))
    if save is not None:
        save.write_text(json.dumps(found), "utf-8")
    other: dict[str, list[float]] = json.loads(beside.read_text("utf-8")) if beside is not None else {}
    typer.echo("\n".join(table(found, other)))


def table(found: dict[str, Held], other: dict[str, list[float]]) -> Iterator[str]:
    """Give the lines of a table: of each route the body that held most, and what it did to another version."""
    yield "| route | worst body | before, ms | now, ms |" if other else "| route | worst body | ms |"
    yield "|---|---|---|---|" if other else "|---|---|---|"
    for path in sorted({name.split(" ")[0] for name in found}):
        names = [name for name in found if name.split(" ")[0] == path]
        for figures in (other, found) if other else (found,):
            worst = max(names, key=lambda name: max(figures.get(name, (0, 0))[:2]))
            before = [f"{1000 * max(other[worst][:2]):,.0f}"] if other else []
            cells = [f"`POST {path}`", worst.partition(" ")[2], *before, f"{1000 * max(found[worst][:2]):,.0f}"]
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
