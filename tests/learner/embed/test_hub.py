"""A model by its hub's name: pinned, fetched once and only what is needed, and what to do where there is no network."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from driftline.learner.embed import files, hub
from driftline.learner.embed.hub import HubName, hub_name
from driftline.learner.embed.opened import open_embedder, settled_name
from driftline.learner.registry import make_classifier
from driftline.stream.errors import ConfigError
from tests.sentence_models import graph, made_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = f"some-org/some.model@{REVISION}"


class Hub:
    """What a hub answers that has one model at one revision."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(handler) -> None:  # noqa: N805
                self.answer(handler, body=False)

            def do_GET(handler) -> None:  # noqa: N805
                self.answer(handler, body=True)

            def log_message(handler, *_: object) -> None:  # noqa: N805
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.asked.append(f"{handler.command} {handler.path}")
        begin = f"/some-org/some.model/resolve/{REVISION}/"
        path = self.root / handler.path.removeprefix(begin).partition("?")[0]
        if not handler.path.startswith(begin):
            handler.send_response(404)
            handler.send_header("X-Error-Code", "RepoNotFound")
        elif not path.is_file():
            handler.send_response(404)
            handler.send_header("X-Error-Code", "EntryNotFound")
            handler.send_header("X-Repo-Commit", REVISION)
        else:
            content = path.read_bytes()
            handler.send_response(200)
            handler.send_header("X-Repo-Commit", REVISION)
            handler.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            if body:
                handler.wfile.write(content)
            return
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, and an empty cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "cache"), raising=False)
    for module in ("huggingface_hub.file_download",):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "cache"), raising=False)
    found = Hub(made_model(tmp_path / "model", pooling={"pooling_mode": "cls"}))
    (found.root / "onnx").mkdir()
    (found.root / "onnx" / "model_quantized.onnx").write_bytes(graph(seed=9))
    (found.root / "README.md").write_text("nobody needs it")
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join(60)
    found.server.server_close()


def test_it_is_fetched_once_and_only_what_is_needed(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, local = open_embedder(NAME), open_embedder(str(here.root))
    assert embedder is not None
    assert local is not None
    assert (embedder.sha256, embedder.probe) == (local.sha256, local.probe)
    got = {path.rpartition(REVISION + "/")[2] for path in here.asked if path.startswith("GET")}
    assert {"model.onnx", "tokenizer.json", files.POOLING, files.LENGTH} <= got
    assert not got & {"README.md", "onnx/model_quantized.onnx"}
    here.asked.clear()
    other = open_embedder(f"{NAME}/onnx/model_quantized.onnx")
    assert other is not None
    assert other.probe != embedder.probe
    assert {path.rpartition(REVISION + "/")[2] for path in here.asked} == {"onnx/model_quantized.onnx"}
    here.asked.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # all is here, and what is not is known
    assert open_embedder(NAME) is embedder
    assert not here.asked


def test_a_model_by_its_hubs_name_is_that_of_its_files(here: Hub) -> None:
    classifier = make_classifier(f"blend?bits=12&max_labels=6&embed={NAME}")
    assert classifier.config()["embed"] == NAME
    assert make_classifier(classifier.spec).config() == classifier.config()
    sha256 = str(classifier.config()["embed_sha256"])
    with pytest.raises(ConfigError, match="is not the model that was learned with"):
        make_classifier(f"blend?bits=12&max_labels=6&embed={NAME}/onnx/model_quantized.onnx&embed_sha256={sha256}")
    del here


def test_what_the_hub_has_not_is_said(here: Hub) -> None:
    for name, message in [
        (f"some-org/other@{REVISION}", "tokenizer.json of some-org/other@01234567 cannot be fetched"),
        (f"{NAME}/onnx/none.onnx", "has no onnx/none.onnx"),
    ]:
        with pytest.raises(ConfigError, match=message):
            open_embedder(name)
    (here.root / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"has neither model.onnx nor onnx/model.onnx.*name that"):
        open_embedder(NAME)


def test_a_model_without_a_tokenizer_is_refused(here: Hub) -> None:
    (here.root / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        open_embedder(NAME)


def test_what_is_too_large_is_not_fetched(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"model.onnx of some-org/some.model has [\d,]+ bytes, at most 1,000"):
        open_embedder(NAME)
    assert not [path for path in here.asked if path.startswith("GET") and path.endswith("model.onnx")]


def test_without_a_network_it_says_what_to_do(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"cannot be fetched: .*copy the model's directory here and name that"):
        open_embedder(NAME)
    assert not here.asked


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (NAME, HubName("some-org/some.model", REVISION, None)),
        (f"{NAME}/onnx/a.onnx", HubName("some-org/some.model", REVISION, "onnx/a.onnx")),
        ("/a/b", None),
        ("./a/b", None),
        ("a", None),
        ("a/b/c", None),
        ("models/a.onnx", None),
    ],
)
def test_which_names_are_a_hubs(name: str, found: HubName | None) -> None:
    assert hub_name(name) == found
    assert settled_name(name) == (name if found else str(Path(name).absolute()))


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a/b@main",
        f"a/b@{REVISION[:-1]}",
        f"a/b@{REVISION.upper()}",
        f"a/b@{REVISION}/x",
        f"a/b@{REVISION}/../x.onnx",
    ],
)
def test_a_hubs_name_without_one_revision_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="ORGANISATION/NAME@REVISION"):
        hub_name(name)
