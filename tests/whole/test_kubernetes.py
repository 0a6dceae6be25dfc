"""Does a cluster take what deploy/ has for it, does Driftline take its options, and do the probes tell the truth?

All of this needs no Helm: the plain manifests are committed. test_helm.py demands that they are what the chart gives.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import typer
import yaml

from driftline.api.access import keys
from driftline.api.run.workers import END_S
from driftline.api.settings import ApiSettings
from driftline.cli.main import app
from driftline.learner.disk.settings import LearnerSettings
from driftline.stream.process import variables
from driftline.stream.process.settings import StreamSettings
from tests.api.run.test_client import learning
from tests.data import ROOT
from tests.faults.nursery import Nursery
from tests.manifests import (
    AGREED,
    CHART,
    DEFAULTS,
    KUSTOMIZE,
    Object,
    check,
    committed,
    is_bounded,
    is_restricted,
    is_valid,
    merged,
    overlay,
    pods,
    schema,
)
from tests.place import get, post, running
from tests.prometheus import FOLDER
from tests.waiting import wait_until

OVERLAYS = ["one-node", "cluster"]
KSERVE = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy" / "kserve").glob("*.yaml"))]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
KNOWN = AGREED | {name for cls in (StreamSettings, LearnerSettings, ApiSettings) for name in cls.model_fields}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_cluster_takes_the_plain_manifests(name: str) -> None:
    check(overlay(name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.template.spec.enableServiceLink", False),
        ("spec.minReadySeconds", "5"),
        ("spec.template.spec.enableServiceLinks", True),
        ("spec.template.spec.securityContext.runAsNonRoot", False),
        ("spec.selector.matchLabels", {"app.kubernetes.io/component": "learner"}),
        ("spec.template.spec.containers.0.resources", {"requests": {"cpu": "1", "memory": "1Gi"}}),
        ("spec.template.spec.containers.0.image", "driftline:latest"),
        ("spec.template.spec.containers.0.ports.0.name", "web"),
        ("spec.template.spec.volumes", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_manifest_is_found(path: str, value: Any) -> None:
    """Of each kind of mistake one: else the test above could not fail."""
    objects = json.loads(json.dumps(overlay("cluster")))
    inside: Any = next(each for each in objects if each["kind"] == "Deployment")
    *names, last = path.split(".")
    for name in names:
        inside = inside[int(name) if name.isdigit() else name]
    assert inside.get(last) != value
    inside[last] = value
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        check(objects)


@pytest.mark.parametrize("folder", sorted({path.parent for path in committed()}), ids=str)
def test_a_kustomization_names_what_lies_beside_it(folder: Path) -> None:
    kustomization = committed()[folder / "kustomization.yaml"]
    beside = sorted(path.name for path in committed() if path.parent == folder and path.name != "kustomization.yaml")
    assert [each for each in kustomization["resources"] if not each.startswith("..")] == beside
    above = [each for each in kustomization["resources"] if each.startswith("..")]
    assert all((KUSTOMIZE / folder / each / "kustomization.yaml").exists() for each in above)
    assert set(kustomization) == {"apiVersion", "kind", "resources"}


def containers(objects: list[Object]) -> Iterator[Object]:
    """Give those of Driftline."""
    for _, pod in pods(objects):
        yield from (each for each in pod["containers"] if each["image"].startswith("driftline:"))


@pytest.mark.parametrize("name", [*OVERLAYS, "kserve"])
def test_driftline_takes_what_it_is_told(name: str) -> None:
    """Each argument is a flag of the command, each DRIFTLINE_ variable an option."""
    group: Any = typer.main.get_command(app)
    objects = overlay(name) if name != "kserve" else []
    found = list(containers(objects)) if objects else KSERVE[0]["spec"]["containers"]
    assert found
    for container in found:
        command, *words = container["args"]
        params = group.get_command(group.make_context("driftline", [command], resilient_parsing=True), command).params
        flags = {flag for param in params for flag in param.opts} | {f"--{each.replace('_', '-')}" for each in AGREED}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= flags
        variables_ = [each["name"] for each in container.get("env", [])]
        assert {each.removeprefix("DRIFTLINE_").lower() for each in variables_ if each[:10] == "DRIFTLINE_"} <= KNOWN
    for each in objects:
        if each["kind"] == "ConfigMap" and "DRIFTLINE_LOG" in each["data"]:
            named = {key.removeprefix("DRIFTLINE_").lower() for key in each["data"] if key.startswith("DRIFTLINE_")}
            assert named <= KNOWN
            assert all(isinstance(value, str) for value in each["data"].values())


def links(objects: list[Object]) -> dict[str, str]:
    """Return what Kubernetes would tell each pod of the Services, were it asked to."""
    environment = {}
    for service in (each for each in objects if each["kind"] == "Service"):
        begin = service["metadata"]["name"].upper().replace("-", "_")
        for port in service["spec"]["ports"]:
            number, address = port["port"], f"tcp://10.43.7.62:{port['port']}"
            environment |= {
                f"{begin}_SERVICE_HOST": "10.43.7.62",
                f"{begin}_SERVICE_PORT": str(number),
                f"{begin}_SERVICE_PORT_{port['name'].upper()}": str(number),
                f"{begin}_PORT": address,
                f"{begin}_PORT_{number}_TCP": address,
                f"{begin}_PORT_{number}_TCP_PROTO": "tcp",
                f"{begin}_PORT_{number}_TCP_PORT": str(number),
                f"{begin}_PORT_{number}_TCP_ADDR": "10.43.7.62",
            }
    return environment


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_service_sets_an_option(name: str) -> None:
    """Also where somebody takes `enableServiceLinks: false` away, what Kubernetes makes of our Services is not read."""
    environment = links(overlay(name))
    assert {"DRIFTLINE_PORT", "DRIFTLINE_SERVICE_HOST"} <= environment.keys()
    assert variables.options(environment) == {}


def test_a_learner_among_services_says_nothing_of_them(nursery: Nursery, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], **links(overlay("cluster")), **links(overlay("one-node"))}
    done = nursery.run("learn", "--stop-at-end", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "DRIFTLINE_" not in done.stdout + done.stderr


def test_what_was_begun_is_finished() -> None:
    """Who is told to stop has the time that the program takes, behind the pause in which others learn of it."""
    text = (CHART / "values.yaml").read_text()
    for _, pod in pods(overlay("cluster")):
        pause_s = 0
        for container in pod["containers"]:
            if (hook := container.get("lifecycle")) is not None:
                assert hook["preStop"]["exec"]["command"][0] == "sleep", "the image has that"
                pause_s = int(hook["preStop"]["exec"]["command"][1])
                assert pause_s >= 5
        assert pod["terminationGracePeriodSeconds"] >= pause_s + END_S + 5
    assert f"finishes what was begun, for {END_S:g} seconds" in " ".join(text.replace("#", "").split())


@pytest.mark.parametrize("workload", ["learner", "api"])
def test_one_that_is_slow_is_not_killed(workload: str) -> None:
    """A start may take minutes, and liveness and readiness ask different questions."""
    kept = [each for name in OVERLAYS for each in containers(overlay(name)) if each["name"] == workload]
    assert len(kept) == 2
    for container in kept:
        startup, live, ready = (container[f"{each}Probe"] for each in ("startup", "liveness", "readiness"))
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 300
        assert live["periodSeconds"] * live["failureThreshold"] >= 60
        assert [each["httpGet"]["path"] for each in (startup, live, ready)] == ["/healthz", "/healthz", "/readyz"]
        assert ready["httpGet"]["port"] in {port["name"] for port in container["ports"]}


def test_a_fresh_install_behind_a_service_takes_its_first_label_and_answers(tmp_path: Path) -> None:
    """A Service leads to ready pods only, so one that is not ready without a label would never get one."""
    (api,) = [each for each in containers(overlay("one-node")) if each["name"] == "api"]
    probes = {kind: api[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    stream = StreamSettings(data=tmp_path / "data")
    with running(stream) as url:

        def service(path: str, body: Any) -> httpx.Response:
            assert get(f"{url}{probes['readiness']}").status_code == 200, "no pod is ready: nothing comes in"
            return post(f"{url}{path}", body)

        wait_until(lambda: all(get(f"{url}{path}").status_code == 200 for path in probes.values()))
        assert get(f"{url}/v2/models/driftline/ready").status_code != 200, "there is no model yet"
        label = {"message_id": "m1", "label": "spam", "text": "win a prize"}
        assert service("/feedback", label).status_code == 202
        with learning(stream):
            wait_until(lambda: service("/predict", {"text": "win a prize"}).status_code == 200, what="it answers")
            assert '"label":"spam"' in service("/predict", {"text": "win a prize"}).text


def test_keys_that_change_in_their_secret_count_without_a_restart(tmp_path: Path) -> None:
    """A kubelet lays a Secret's files into a folder, and turns a link to it over."""
    secret, key = keys.new_key("alice", keys.Role.ADMIN)
    for number, text in enumerate(("", f"{key}\n")):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "api-keys").write_text(text)
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "api-keys").symlink_to("..data/api-keys")
    known = keys.Keys(tmp_path / "api-keys")
    assert not known.needed()
    (tmp_path / "..next").symlink_to("..1")
    (tmp_path / "..next").rename(tmp_path / "..data")
    wait_until(known.needed)
    assert known.find(secret.encode()) == key


def test_the_operator_s_rules_are_the_alerts_of_this_repository() -> None:
    (rule,) = [each for each in committed().values() if each["kind"] == "PrometheusRule"]
    assert rule["spec"] == yaml.safe_load((FOLDER / "alerts.yml").read_text())
    assert (CHART / "files" / "alerts.yml").resolve() == FOLDER / "alerts.yml", "there is one file"
    assert (CHART / "files" / "dashboard.json").resolve().parent == FOLDER / "grafana" / "dashboards"


def test_the_operator_s_monitor_gives_the_job_that_the_alerts_ask_for() -> None:
    (monitor,) = [each for each in committed().values() if each["kind"] == "ServiceMonitor"]
    label = monitor["spec"]["jobLabel"]
    labels = monitor["spec"]["selector"]["matchLabels"]
    services = [each["metadata"]["labels"] for each in overlay("cluster") if each["kind"] == "Service"]
    (found,) = [each for each in services if labels.items() <= each.items()]
    assert set(re.findall(r'job="(\w+)"', (FOLDER / "alerts.yml").read_text())) == {found[label]}


def test_there_is_one_version_of_chart_and_image() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION
    named = {each["image"] for name in OVERLAYS for each in containers(overlay(name))}
    assert named == {f"driftline:{VERSION}"} == {KSERVE[0]["spec"]["containers"][0]["image"]}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["kafka"]["image"]
    assert yaml.safe_load((CHART / "values.yaml").read_text())["trial"]["kafka"]["image"] in compose


GIVEN = sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*.yaml"), *KUSTOMIZE.glob("values/*.yaml")])


@pytest.mark.parametrize("values", GIVEN, ids=lambda path: path.name)
def test_the_schema_takes_the_values_that_are_here(values: Path) -> None:
    schema().validate(DEFAULTS)
    given = yaml.safe_load(values.read_text())
    schema().validate(merged(DEFAULTS, given))
    for part in (given, given.get("learner", {}), given.get("api", {})):
        assert part.get("options", {}).keys() <= KNOWN


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 2},
        {"learner": {"replica": 3}},
        {"learner": {"replicas": "3"}},
        {"api": {"keys": {"secret": "a"}}},
        {"api": {"options": {"rate-limit": 1}}},
        {"kafka": {"brokers": "kafka://b1:9092"}},
        {"kafka": {"brokers": "alice:secret@b1:9092"}},
        {"checkpoints": {"url": "/checkpoints"}},
        {"image": {"digest": "abc"}},
        {"learner": {"resources": {"limit": {}}}},
        {"learner": {"resources": {"limits": {"memory": "2 GB"}}}},
        {"serviceMonitor": {"authorization": {"name": "a"}}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_misspelt(wrong: Object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schema().validate(merged(DEFAULTS, wrong))


def test_each_value_has_its_place_in_the_schema() -> None:
    """What the schema knows the defaults have, so that values.yaml shows all there is."""
    text = schema().schema

    def compare(values: Object, part: Object, where: str) -> None:
        part = text["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if "properties" not in part:
            return
        there = set(part["properties"]) - {"global", "topologySpreadConstraints"}
        if where.endswith(("Probe", "resources", "authorization")):
            assert values.keys() <= there
        else:
            assert values.keys() == there, where
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, part["properties"][name], f"{where}.{name}")

    compare(DEFAULTS, text, "")


def test_kserve_s_pods_are_those_of_the_chart() -> None:
    """No schema of KServe's own kinds is to be had; what is Kubernetes' in them is held against that."""
    runtime, service = KSERVE
    assert (runtime["kind"], service["kind"]) == ("ClusterServingRuntime", "InferenceService")
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in formats
    assert service["spec"]["predictor"]["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert "namespace" not in runtime["metadata"]
    predictor = dict(service["spec"]["predictor"])
    model = predictor.pop("model")
    for name in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"):
        assert predictor.pop(name)
    (container,) = json.loads(json.dumps(runtime["spec"]["containers"]))
    container["envFrom"] = model["envFrom"]
    container["volumeMounts"] += model["volumeMounts"]
    pod = {**predictor, "containers": [container], "volumes": runtime["spec"]["volumes"] + predictor["volumes"]}
    pod["securityContext"] = {**container["securityContext"], **pod["securityContext"]}
    for name in ("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"):
        del pod["securityContext"][name]
    is_valid({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod})
    is_restricted("kserve", pod)
    is_bounded("kserve", {**pod, "volumes": [each for each in pod["volumes"] if "emptyDir" in each]})
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    (api,) = [each for each in containers(overlay("cluster")) if each["name"] == "api"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        ours, theirs = api[probe], container[probe]
        assert ours["httpGet"]["path"] == theirs["httpGet"]["path"]
        assert {k: v for k, v in ours.items() if k != "httpGet"} == {k: v for k, v in theirs.items() if k != "httpGet"}
    assert api["lifecycle"] == container["lifecycle"]
    made = {each["metadata"]["name"] for each in overlay("cluster")} | secrets(overlay("cluster"))
    named = {one["name"] for each in model["envFrom"] for one in each.values()} | secrets_of(pod)
    assert named <= made


def secrets(objects: list[Object]) -> set[str]:
    """Return those that the pods ask for."""
    return {name for _, pod in pods(objects) for name in secrets_of(pod)}


def secrets_of(pod: Object) -> set[str]:
    mounted = {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    sources = [source for container in pod["containers"] for source in container.get("envFrom", [])]
    return mounted | {each["secretRef"]["name"] for each in sources if "secretRef" in each}
