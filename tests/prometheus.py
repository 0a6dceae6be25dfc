"""A real Prometheus with the configuration that ships, but for the address that it asks and how often."""

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.data import ROOT
from tests.ports import reserved

FOLDER = ROOT / "deploy" / "monitoring"


def tool(name: str) -> str:
    """Return where one of Prometheus' own programs is; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Prometheus:
    """One that runs; `key` is the file of the key that it asks with."""

    def __init__(self, http: httpx.Client, key: Path) -> None:
        self.http, self.key = http, key

    def ask(self, expression: str) -> list[Any]:
        """Return the series of an expression as it is now."""
        answer = self.http.get("/query", params={"query": expression})
        assert answer.is_success, (expression, answer.text)
        return list(answer.json()["data"]["result"])

    def draw(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of the series that a panel has a point of at the end: as Grafana asks, over a range."""
        now = time.time()
        span = {"start": now - 60, "end": now, "step": 1}
        answer = self.http.get("/query_range", params={"query": expression, **span})
        assert answer.is_success, (expression, answer.text)
        series = answer.json()["data"]["result"]
        return [
            each["metric"]
            for each in series
            if (last := each["values"][-1])[0] > now - 10 and math.isfinite(float(last[1]))
        ]

    def values(self, metric: str, label: str) -> list[str]:
        """Return what Grafana's label_values() gives."""
        answer = self.http.get(f"/label/{label}/values", params={"match[]": metric})
        return list(answer.json()["data"])

    def scraped(self, up: int = 1) -> bool:
        """Tell whether it was answered (or, 0, was not) when it last asked."""
        try:  # it answers 503 while it starts
            answer = self.http.get("/query", params={"query": f'up{{job="driftline"}} == {up}'})
        except httpx.TransportError:
            return False
        return answer.is_success and bool(answer.json()["data"]["result"])


@contextmanager
def prometheus(url: str, directory: Path) -> Iterator[Prometheus]:
    """Run one that asks this address each second."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["scrape_configs"][0]["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(FOLDER / "alerts.yml", directory)
    shutil.copy(FOLDER / "no-key", directory / "key")
    command = [
        tool("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'db'}",
        "--log.level=error",
    ]
    with (
        reserved() as port,
        subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=directory) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as http,
    ):
        try:
            yield Prometheus(http, directory / "key")
        finally:
            process.terminate()
