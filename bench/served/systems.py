"""How is each system that the serving bench asks started, and with what?

Each runs in a process of its own on one core: ours on a snapshot, the peers as their tutorials say.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from bench.streams import cut_to_length, make_stream
from driftline.learner.registry import make_classifier
from driftline.learner.serving.snapshot import Publisher, SnapshotInfo

ROOT: Final = Path(__file__).parent.parent.parent
N_TEXTS: Final = 20_000
N_ASKED: Final = 2_000  # that differ
N_CHARS: Final = 100
START_S: Final = 120.0
MODELS: Final = ("blend", "linear", "linear?bits=20&chars=0")
PEERS: Final = {
    "bare ASGI app": "uvicorn, a constant",
    "FastAPI, pydantic": "uvicorn, a constant",
    "Flask, constant": "gunicorn, one sync worker",
    "Flask, scikit-learn": "gunicorn, one sync worker; TF-IDF, logistic regression",
    "MLServer": "the same model, no parallel workers",
    "BentoML": "the same model, one worker",
    "MLflow": "the same model, `mlflow models serve`",
}


PACKAGES: Final = {
    "bare ASGI app": ("uvicorn", "uvloop", "httptools"),
    "FastAPI, pydantic": ("fastapi", "pydantic"),
    "Flask, scikit-learn": ("flask", "gunicorn", "scikit-learn"),
    "MLServer": ("mlserver",),
    "BentoML": ("bentoml",),
    "MLflow": ("mlflow",),
}


class Served(NamedTuple):
    """A system that runs, and how it is asked."""

    url: str
    pid: int
    bodies: Path  # a line each


class Setting(NamedTuple):
    """What all systems have in common."""

    directory: Path
    texts: list[str]
    cores: tuple[int, int]  # the server's, the client's
    pythons: dict[str, str]  # of peers
    seconds: float

    @property
    def model(self) -> Path:
        """The peers' model."""
        return self.directory / "model.joblib"


@contextmanager
def serve(name: str, setting: Setting, *options: str) -> Iterator[Served]:
    """Run a system on the server's core until it answers. Raises RuntimeError where it does not."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command, path = _command(name, setting, port, *options)
    environment = os.environ | {"MODEL": str(setting.model), "PYTHONPATH": str(ROOT)}
    beside = Path(setting.pythons.get(name, sys.executable)).parent  # MLflow starts uvicorn by name
    environment["PATH"] = f"{beside}{os.pathsep}{environment.get('PATH', '')}"
    log = setting.directory / "server.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=setting.directory / "mlserver" if name == "MLServer" else ROOT,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: pin(setting.cores[0]),
        )
    try:
        served = Served(f"http://127.0.0.1:{port}{path}", process.pid, setting.directory / _bodies(name))
        _wait_until_it_answers(served, process, log)
        yield served
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(name: str, setting: Setting, port: int, *options: str) -> tuple[list[str], str]:
    """Return how a system is started, and the path that it is asked at."""
    at, python = ["--port", str(port)], setting.pythons.get(name, sys.executable)
    if name in MODELS:
        data = setting.directory / f"data-{MODELS.index(name)}"
        return [python, "-m", "driftline", "serve", "--data", str(data), *at, *options], "/predict"
    uvicorn = ["uvicorn", *at, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    gunicorn = ["gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
    mlflow = ["mlflow", "models", "serve", "--model-uri", str(setting.directory / "mlflow"), *at]
    commands = {
        "bare ASGI app": ([*uvicorn, "bench.served.bare:app"], "/predict"),
        "FastAPI, pydantic": ([*uvicorn, "bench.served.fastapi_pydantic:app"], "/predict"),
        "Flask, constant": ([*gunicorn, "bench.served.flask_apps:constant()"], "/predict"),
        "Flask, scikit-learn": ([*gunicorn, f'bench.served.flask_apps:sklearn("{setting.model}")'], "/predict"),
        "MLServer": (["mlserver.cli.main", "start", "."], "/v2/models/spam/infer"),
        "BentoML": (["bentoml", "serve", "bench.served.bento_service:Spam", *at], "/predict"),
        "MLflow": ([*mlflow, "--env-manager", "local"], "/invocations"),
    }
    if name == "MLServer":
        _write_mlserver(setting.directory / "mlserver", setting.model, port)
    command, path = commands[name]
    return [python, "-m", *command], path


def _bodies(name: str) -> str:
    return {"MLServer": "v2.txt", "MLflow": "mlflow.txt"}.get(name, "texts.txt")


def _write_mlserver(directory: Path, model: Path, port: int) -> None:
    directory.mkdir(exist_ok=True)
    settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0}
    (directory / "settings.json").write_text(json.dumps(settings | {"debug": False}))
    described = {"name": "spam", "implementation": "bench.served.mlserver_runtime.Spam"}
    (directory / "model-settings.json").write_text(json.dumps(described | {"parameters": {"uri": str(model)}}))


def prepare(setting: Setting) -> None:
    """Write what the systems serve, and what they are asked."""
    if shutil.which("wrk") is None:
        raise SystemExit("bench: wrk is not there; it asks the questions (apt-get install wrk)")
    texts, labels = labelled()
    for number, model in enumerate(MODELS):
        classifier = make_classifier(model)
        classifier.learn_many(texts, labels)
        info = SnapshotInfo(
            version=f"bench-{N_TEXTS}",
            epoch=1,
            model=classifier.spec,
            config=classifier.config(),
            labels=classifier.labels,
            labels_learned=N_TEXTS,
            feedback_offsets={"0": N_TEXTS},
            published_at=time.time(),
        )
        Publisher(setting.directory / f"data-{number}" / "snapshots", 1).publish(classifier, info)
    learned = setting.directory / "learned.tsv"
    learned.write_text("".join(f"{label}\t{text}\n" for label, text in zip(labels, texts, strict=True)), "utf-8")
    for name in ("Flask, scikit-learn", "MLflow"):
        python = setting.pythons.get(name, sys.executable)
        made = [str(learned), str(setting.model)]
        made += [str(setting.directory / "mlflow")] if name == "MLflow" else []
        subprocess.run([python, "-m", "bench.served.make_model", *made], cwd=ROOT, check=False, capture_output=True)
    forms: dict[str, Callable[[str], Any]] = {
        "texts.txt": lambda text: {"text": text},
        "v2.txt": lambda text: {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]},
        "mlflow.txt": lambda text: {"inputs": [text]},
    }
    for file, form in forms.items():
        lines = [json.dumps(form(text)) + "\n" for text in setting.texts]
        (setting.directory / file).write_text("".join(lines), "utf-8")
    (setting.directory / "post.lua").write_text(_LUA)


_LUA: Final = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies, i, n = {}, 0, 0
local headers
function init(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
  if args[2] == "changing" then
    headers = {}
    for name, value in pairs(wrk.headers) do headers[name] = value end
    headers["X-Forwarded-Proto"] = "https"
  end
end
function request()
  i, n = i % #bodies + 1, n + 1
  if headers then
    headers["X-Forwarded-For"] = string.format("203.0.%d.%d", n / 251 % 251, n % 251)
    headers["X-Request-Id"] = string.format("5f0c2a91-7d3e-4b1a-9c55-%012x", n)
    headers["traceparent"] = string.format("00-4bf92f3577b34da6%016x-%016x-01", n, n * 7)
  end
  return wrk.format(nil, nil, headers, bodies[i])
end
"""


def labelled() -> tuple[list[str], list[str]]:
    """Return texts and their labels."""
    rows = cut_to_length(make_stream("steady", N_TEXTS), N_CHARS).rows
    return [" ".join(text.split()) for text in rows.texts], ["ham" if label % 2 else "spam" for label in rows.labels]


def ask_texts() -> list[str]:
    """Return texts to be asked for."""
    rows = cut_to_length(make_stream("steady", N_ASKED), N_CHARS).rows
    return [" ".join(text.split()) for text in rows.texts]


def pin(core: int) -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {core})


def _wait_until_it_answers(served: Served, process: "subprocess.Popen[bytes]", log: Path) -> None:
    body = served.bodies.read_bytes().splitlines()[0]
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.post(served.url, content=body, headers={"Content-Type": "application/json"}).is_success:
                return
        time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise RuntimeError(lines[-1][:200] if lines else "it did not answer")
