"""Does every panel of Grafana's dashboard show something while the demo runs? Asked of a real Prometheus."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.data import ROOT
from tests.ports import reserved
from tests.prometheus import FOLDER, Prometheus, prometheus, tool
from tests.waiting import wait_until

DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "driftline.json").read_text())
(INSTANCE,) = DASHBOARD["templating"]["list"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Give a Prometheus that asks `driftline up --demo`, which gets requests, a label and a record that is none."""
    tool("prometheus")
    directory = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with reserved() as port:
        url, options = f"http://127.0.0.1:{port}", ["--port", str(port), "--data", str(directory / "data")]
        command = [sys.executable, "-m", "driftline", "up", "--demo", "--checkpoint-interval-s", "1", *options]
        with subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                with prometheus(url, directory) as asked:
                    wait_until(lambda: learned(url) > 5, 120, "it learns")
                    wait_until(asked.scraped, 60, "Prometheus scrapes")
                    label = {"message_id": "by hand", "label": "spam", "text": "call now"}
                    assert httpx.post(f"{url}/feedback", json=label, timeout=30).is_success
                    with closing(open_log(StreamSettings(data=directory / "data"))) as log:
                        log.append("messages", [NewRecord(b"odd", b"no JSON")])
                    yield asked
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def learned(url: str) -> int:
    """Return how many labels were learned, and ask for a prediction on the way."""
    try:
        httpx.post(f"{url}/predict", json={"text": "call now"}, timeout=30)
        return int(httpx.get(f"{url}/model", timeout=30).json()["labels_learned"])
    except httpx.TransportError:
        return 0


def filled_in(expression: str, asked: Prometheus) -> str:
    """Put in the variable's values as Grafana does where all are chosen: escaped, joined, in brackets."""
    query = re.fullmatch(r"label_values\((\w+), (\w+)\)", INSTANCE["query"]["query"])
    assert query is not None
    assert INSTANCE["current"]["value"] == "$__all"
    values = asked.values(query[1], query[2])
    assert values, "Grafana would offer no value"
    escaped = [re.sub(r"([.+*?^$(){}|\[\]\\])", r"\\\\\1", value) for value in values]
    return expression.replace("$instance", f"({'|'.join(escaped)})")


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_every_panel_has_something_to_draw(panel: dict[str, Any], demo: Prometheus) -> None:
    assert panel["datasource"] == INSTANCE["datasource"]
    for target in panel["targets"]:
        expression = filled_in(target["expr"], demo)
        assert "$" not in expression
        wait_until(lambda asked=expression: demo.draw(asked), 60, expression)
        named = set(re.findall(r"{{(\w+)}}", target.get("legendFormat") or ""))
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", expression))))  # "" shows as no label
        assert all(named <= series.keys() | grouped for series in demo.draw(expression)), "what the legend names"


def test_where_the_dashboard_asks_is_provisioned() -> None:
    sources = (FOLDER / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert f"uid: {INSTANCE['datasource']['uid']}" in sources
    assert Path(ROOT / "docker-compose.yml").read_text().count("driftline.json") == 1
