"""Does the chart give what it says, and are the plain manifests what it gives? Needs Helm, which Go builds."""

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data import ROOT
from tests.helm import objects, template, tool
from tests.manifests import CHART, KUBERNETES, KUSTOMIZE, Object, check, committed, overlay, pods

pytestmark = pytest.mark.long
VALUES = sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*.yaml"), *KUSTOMIZE.glob("values/*.yaml")])
LEAST = ("--values", CHART / "ci" / "minimal-values.yaml")


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path.name if path else "none")
def test_helm_finds_nothing_wrong(values: Path | None) -> None:
    command = [tool("helm"), "lint", CHART, "--strict", *(["--values", values] if values else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.name)
def test_a_cluster_takes_what_the_chart_gives(values: Path) -> None:
    for version in KUBERNETES:
        found = [each for each in objects("--values", values, version=f"{version}.0") if each["kind"] != "Pod"]
        check(found)
    tests = [each for each in objects("--values", values) if each["kind"] == "Pod"]
    assert len(tests) == 1
    for _, pod in pods(tests):
        assert pod["enableServiceLinks"] is False


def test_the_plain_manifests_are_what_the_chart_gives(tmp_path: Path) -> None:
    command = [sys.executable, KUSTOMIZE / "make.py", "--helm", tool("helm"), "--into", tmp_path]
    subprocess.run(command, check=True, timeout=120)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.yaml"))
    assert made == sorted(committed()), "`make manifests` writes them anew"
    _, differ, failed = filecmp.cmpfiles(tmp_path, KUSTOMIZE, made, shallow=False)
    assert (differ, failed) == ([], []), "`make manifests` writes them anew"


@pytest.mark.parametrize("name", ["one-node", "cluster"])
def test_kustomize_collects_an_overlay(name: str, tmp_path: Path) -> None:
    def built(folder: Path) -> list[Object]:
        command = [tool("kustomize"), "build", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(yaml.safe_load_all(done.stdout))

    def by_name(found: list[Object]) -> dict[tuple[str, str], Object]:
        return {(each["kind"], each["metadata"]["name"]): each for each in found}

    bare = [each for each in overlay(name) if not each["apiVersion"].startswith("monitoring")]
    assert by_name(built(KUSTOMIZE / "overlays" / name)) == by_name(bare)
    # An overlay of somebody's own, as docs/kubernetes.md has it.
    own = yaml.safe_load(OWN)
    shutil.copytree(KUSTOMIZE, tmp_path / "driftline")
    own["resources"] = [f"../driftline/overlays/{name}"]
    own["components"] = ["../driftline/components/monitoring"] if name == "cluster" else []
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    found = by_name(built(tmp_path / "own"))
    assert found["ConfigMap", "driftline"]["data"]["DRIFTLINE_LOG"] == "kafka://b1:9092"
    assert ("PrometheusRule", "driftline") in found or name != "cluster"
    image = found["Deployment", "driftline-api"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example.com/driftline:1.2.3"


OWN = """
namespace: driftline
images: [{ name: driftline, newName: registry.example.com/driftline, newTag: 1.2.3 }]
patches:
  - target: { kind: ConfigMap, name: driftline }
    patch: |
      - { op: replace, path: /data/DRIFTLINE_LOG, value: "kafka://b1:9092" }
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "kafka.brokers: name the brokers"),
        (("--set", "kafka.brokers=b1:9092"), "checkpoints.url: name the store"),
        ((*LEAST, "--set", "api.keys.existingSecret="), "api.keys: name a Secret"),
        ((*LEAST, "--set", "api.open=true"), "api.open: there are keys"),
        ((*LEAST, "--set", "checkpoints.url=file:///checkpoints"), "needs a volume that all pods mount"),
        ((*LEAST, "--set", "api.preStopSeconds=60"), "api.terminationGracePeriodSeconds: it has to be 15 more"),
        ((*LEAST, "--set", "learner.replica=3"), "replica"),
        ((*LEAST, "--set", "api.options.rate-limit=3"), "rate-limit"),
    ],
    ids=str,
)
def test_what_could_not_run_is_refused_with_a_reason(arguments: tuple[str, ...], said: str) -> None:
    done = template(*arguments)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    done = template(*LEAST, version="1.28.0")
    assert done.returncode != 0
    assert "incompatible with Kubernetes v1.28.0" in done.stderr


def test_what_is_given_comes_out() -> None:
    """Numbers as they were written, lists with commas, a digest, keys and secrets as files."""
    found = objects("--values", CHART / "ci" / "full-values.yaml")
    options = next(each for each in found if each["kind"] == "ConfigMap" and "DRIFTLINE_LOG" in each["data"])["data"]
    assert options["DRIFTLINE_MAX_TEXT_CHARS"] == "2000000"
    by_name: dict[str, Any] = {name: pod["containers"][0] for name, pod in pods(found)}
    learner, api = by_name["spam-learner"], by_name["spam-api"]
    given = {each["name"]: each["value"] for each in learner["env"]}
    assert given == {
        "DRIFTLINE_PREDICTIONS": "false",
        "DRIFTLINE_SOURCES": "news,mail",
        "DRIFTLINE_SOURCE_QUOTA": "1000/min",
        "DRIFTLINE_WINDOW_MESSAGES": "2000000",
        "TZ": "UTC",
    }
    assert learner["image"].startswith("registry.example.com/driftline:1.2.3@sha256:")
    assert {"--host=::", "--max-follower-lag-s=2.5", "--workers=2"} <= set(api["args"])
    files = {each["mountPath"] for each in api["volumeMounts"]}
    assert {"/etc/driftline/keys", "/etc/driftline/kafka", "/etc/driftline/store"} <= files
    secrets = {each["metadata"]["name"]: each["stringData"] for each in found if each["kind"] == "Secret"}
    assert secrets["spam-kafka-config"]["client.properties"].startswith("security.protocol=SASL_SSL\n")
    assert secrets["spam-store"].keys() == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    text = yaml.safe_dump([each for each in found if each["kind"] != "Secret"])
    assert "sasl.password" not in text
    changed = objects("--values", CHART / "ci" / "full-values.yaml", "--set", "kafka.partitions=8")
    assert learner_annotations(changed) != learner_annotations(found), "who changes an option has the pods replaced"


def learner_annotations(found: list[Object]) -> Any:
    return next(each["spec"]["template"]["metadata"]["annotations"] for each in found if each["kind"] == "StatefulSet")


def test_a_package_has_the_alerts(tmp_path: Path) -> None:
    """They are links in the repository, and files in what is handed on."""
    subprocess.run([tool("helm"), "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    (package,) = tmp_path.glob("driftline-*.tgz")
    values = ["--values", ROOT / "deploy" / "kustomize" / "values" / "cluster.yaml", "--kube-version", "1.33.0"]
    command = [tool("helm"), "template", "driftline", package, *values]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (rule,) = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "PrometheusRule"]
    assert rule["spec"] == next(each for each in committed().values() if each["kind"] == "PrometheusRule")["spec"]
