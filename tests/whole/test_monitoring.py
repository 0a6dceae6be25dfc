"""Do the alerts and the dashboard ask for what there is, and does Prometheus take them?"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from driftline.api.access import keys
from driftline.api.calls import Label
from driftline.api.client import Client
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.metrics import of_learner
from driftline.learner.report.status import blank_status
from driftline.stream.process.settings import StreamSettings
from tests.api.run.test_client import learning
from tests.place import running
from tests.prometheus import FOLDER, ROOT, prometheus, tool
from tests.waiting import wait_until

DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "driftline.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monitoring") / "data"


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    """Give an API that has predicted, learned and refused something."""
    (data.parent / "store").mkdir()
    stream = StreamSettings(data=data, checkpoints=f"file://{data.parent}/store")
    with learning(stream), running(stream, max_wait_s=60.0) as url, Client(url) as client:
        client.send_many(["win a prize", "see you at lunch"])
        sent = client.label_many([Label("m1", "spam", text="win a prize"), Label("m2", "ham", text="lunch")])
        client.predict("win", after=sent)
        wait_until(
            lambda: [client.get("/model")[name] for name in ("messages_seen", "labels_learned")] == [2, 2],
            what="the status has all of it",
        )
        yield url


def named(expression: str) -> set[str]:
    return set(re.findall(r"driftline_\w+", expression))


def test_every_metric_that_is_asked_for_exists(url: str) -> None:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text)
    there = {sample.name for family in families for sample in family.samples}
    there |= {
        family.name + "_total"
        for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text)
    }
    follower = blank_status("linear")  # what only an API that follows has
    follower.following = FollowReport(store="s3://b", behind_s=1.0, behind_entries=2)
    there |= {sample.name for family in of_learner(follower) for sample in family.samples}
    asked = {name for expression in [*EXPRESSIONS, *(rule["expr"] for rule in RULES)] for name in named(expression)}
    assert asked
    assert asked <= there


def test_metrics_are_in_base_units_and_have_a_prefix(url: str) -> None:
    names = {family.name for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text)}
    assert all(name.startswith("driftline_") for name in names)
    assert not [name for name in names if re.search(r"_(ms|millis|us|kb|mb|percent)(_|$)", name)]


def test_the_delay_of_labels_is_a_histogram(url: str) -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text)
    }
    buckets = [sample.value for sample in families["driftline_label_delay_seconds"].samples]
    assert len(buckets) == 7
    assert buckets == sorted(buckets)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "action"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["alert"] in (FOLDER / "alerts.test.yml").read_text(), "it has a story"


def test_promtool_takes_the_rules_and_their_stories() -> None:
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([tool("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_it_and_knows_the_alerts(url: str, data: Path, tmp_path: Path) -> None:
    """From the middle on keys are needed."""
    with prometheus(url, tmp_path) as asked:
        wait_until(asked.scraped, 60, "Prometheus scrapes")
        assert asked.ask("sum(driftline_labels_learned_total)")[0]["value"][1] == "2"
        groups = asked.http.get("/rules").json()["data"]["groups"]
        assert len(groups[0]["rules"]) == len(RULES)
        secret, key = keys.new_key("prometheus", keys.Role.PREDICT)
        keys.save(data / keys.FILE, [key])
        wait_until(lambda: asked.scraped(0), 30, "it is refused")
        asked.key.write_text(secret + "\n")
        wait_until(asked.scraped, 30, "it has a key")


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_what_compose_mounts_is_there() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    monitoring = {name for name, service in services.items() if service.get("profiles") == ["monitoring"]}
    assert monitoring == {"prometheus", "grafana"}, "they come up only when they are asked for"
    for name in monitoring:
        mounted = [each.split(":")[0] for each in services[name]["volumes"] if each.startswith("./")]
        mounted += re.findall(r"\$\{\w+:-(\./[^}]+)\}", " ".join(services[name]["volumes"]))
        assert mounted
        assert all((ROOT / path).exists() for path in mounted)
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
