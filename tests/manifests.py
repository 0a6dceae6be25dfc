"""The objects of deploy/: where they are, and what is asked of each, whoever made it."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

from tests.data import ROOT

CHART: Final = ROOT / "deploy" / "helm" / "driftline"
KUSTOMIZE: Final = ROOT / "deploy" / "kustomize"
KUBERNETES: Final = ("1.29", "1.33", "1.37")  # the oldest that the chart takes, the newest that is known, one between
# Of the Prometheus operator and of KServe: no schema of them is to be had as a package.
ELSEWHERE: Final = ("monitoring.coreos.com/", "serving.kserve.io/", "kustomize.config.k8s.io/")
# Options that are agreed, and come with learners and replicas on several machines.
AGREED: Final[frozenset[str]] = frozenset()
Object = dict[str, Any]
DEFAULTS: Final[Object] = yaml.safe_load((CHART / "values.yaml").read_text())


def schema() -> jsonschema.Draft202012Validator:
    """Return what the chart's values have to be."""
    found = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def merged(*values: Object) -> Object:
    """Return values as Helm puts them over each other."""
    whole: Object = {}
    for each in values:
        for name, value in each.items():
            inside = isinstance(value, dict) and isinstance(whole.get(name), dict)
            whole[name] = merged(whole[name], value) if inside else value
    return whole


@cache
def committed() -> dict[Path, Object]:
    """Return the plain manifests by their files; a file has one."""
    files = sorted(path for path in KUSTOMIZE.rglob("*.yaml") if "values" not in path.parts)
    return {path.relative_to(KUSTOMIZE): yaml.safe_load(path.read_text()) for path in files}


def overlay(name: str) -> list[Object]:
    """Return what an overlay has, as kustomize collects it, with all its components beside it."""
    return [
        each
        for path, each in committed().items()
        if path.parts[0] in ("base", "components") or path.parts[:2] == ("overlays", name)
        if path.name != "kustomization.yaml" and (path.parts[0] != "components" or name == "cluster")
    ]


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Give each pod's spec, and whose it is."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def check(objects: Iterable[Object]) -> None:
    """Demand of objects that go together what a cluster that takes no chances would."""
    objects = list(objects)
    for each in objects:
        is_valid(each)
    for name, pod in pods(objects):
        is_restricted(name, pod)
        is_bounded(name, pod)
    are_selected(objects)
    are_all_mounted(objects)


def is_valid(each: Object) -> None:
    """Each version of Kubernetes takes it, with no field that it does not know."""
    if not each["apiVersion"].startswith(ELSEWHERE):
        _is_taken(json.dumps(each, sort_keys=True))


@cache
def _is_taken(text: str) -> None:
    for version in KUBERNETES:
        kubernetes_validate.validate(json.loads(text), version, strict=True)


def is_restricted(name: str, pod: Object) -> None:
    """The Pod Security Standard `restricted`, and what it does not ask for."""
    whole = pod["securityContext"]
    assert whole["runAsNonRoot"] is True, name
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "a Service called `driftline` would set options"
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not own.get("privileged")
        assert own.get("readOnlyRootFilesystem") or container["name"] == "kafka"
        assert "@sha256:" in container["image"] or container["image"].rpartition(":")[2] not in ("", "latest")
    for volume in pod.get("volumes", []):
        kinds = volume.keys() - {"name"}
        assert kinds <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}, volume


def is_bounded(name: str, pod: Object) -> None:
    """Nothing takes more than was said, and nothing is cut off before it has ended by itself."""
    for container in pod["containers"]:
        for kind in ("requests", "limits"):
            assert container["resources"].get(kind, {}).keys() >= {"cpu", "memory"}, name
    for volume in pod.get("volumes", []):
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"], volume


def are_selected(objects: list[Object]) -> None:
    """What selects pods selects some, and the ports that it names are theirs."""
    workloads = [each for each in objects if each["kind"] in ("Deployment", "StatefulSet")]

    def chosen(labels: dict[str, str]) -> list[Object]:
        found = [each for each in workloads if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()]
        assert len(found) == 1, labels
        return found

    def ports(workload: Object) -> set[str]:
        containers = workload["spec"]["template"]["spec"]["containers"]
        return {port["name"] for each in containers for port in each["ports"]}

    services = [each for each in objects if each["kind"] == "Service"]
    for each in workloads:
        assert chosen(each["spec"]["selector"]["matchLabels"]) == [each]
        for constraint in each["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert chosen(constraint["labelSelector"]["matchLabels"]) == [each]
        if each["kind"] == "StatefulSet":
            assert each["spec"]["serviceName"] in [service["metadata"]["name"] for service in services]
    for service in services:
        (workload,) = chosen(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports(workload)
    for each in objects:
        if each["kind"] == "PodDisruptionBudget":
            chosen(each["spec"]["selector"]["matchLabels"])
        elif each["kind"] == "NetworkPolicy":
            (workload,) = chosen(each["spec"]["podSelector"]["matchLabels"])
            named = {port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]}
            assert named == ports(workload), "it can be reached where it listens"
        elif each["kind"] == "HorizontalPodAutoscaler":
            target = each["spec"]["scaleTargetRef"]
            (workload,) = [one for one in workloads if one["metadata"]["name"] == target["name"]]
            assert workload["kind"] == target["kind"]
            assert "replicas" not in workload["spec"], "else each upgrade would set them back"
        elif each["kind"] == "ServiceMonitor":
            labels = each["spec"]["selector"]["matchLabels"]
            found = [one for one in services if labels.items() <= one["metadata"]["labels"].items()]
            assert len(found) == 1
            named = {endpoint["port"] for endpoint in each["spec"]["endpoints"]}
            assert named <= {port["name"] for port in found[0]["spec"]["ports"]}


def are_all_mounted(objects: list[Object]) -> None:
    """Each mount has its volume, each volume is mounted, and the claims that are named are made."""
    claims = {each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"}
    for each in objects:
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        pod = each["spec"]["template"]["spec"]
        volumes = [volume["name"] for volume in pod.get("volumes", [])]
        volumes += [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])]
        assert len(volumes) == len(set(volumes)), "each once"
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == set(volumes)
        named = {one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
        assert named <= claims
