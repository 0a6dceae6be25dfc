"""How do the plain manifests come from the chart? `make manifests` asks.

The chart is rendered once for each overlay, with the values of the same name in values/. What comes out the same in all
is the base; what needs the Prometheus operator is a component, which an overlay may take in; all else is whole in its
overlay. So nothing is patched, and each file can be read and checked by itself. Labels that say that Helm manages an
object are left out, since it does not.

Needs Helm (`make .tools/helm`) and PyYAML.
"""

import argparse
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
CHART: Final = HERE.parent / "helm" / "driftline"
KUBERNETES: Final = "1.33.0"  # nothing in the chart depends on it, but for what it refuses
MADE: Final = "# Made from deploy/helm/driftline by `make manifests`: what is changed here is changed back.\n"
OPERATOR: Final = "monitoring.coreos.com/"
HELMS: Final = ("helm.sh/chart", "app.kubernetes.io/managed-by")
Objects = dict[str, Any]  # by the name of their file


def main() -> None:
    """Write all of it anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--helm", default="helm")
    parser.add_argument("--into", type=Path, default=HERE)
    asked = parser.parse_args()
    overlays = {values.stem: render(asked.helm, values) for values in sorted((HERE / "values").glob("*.yaml"))}
    first, *others = overlays.values()
    shared = {name: each for name, each in first.items() if all(other.get(name) == each for other in others)}
    write(asked.into / "base", shared)
    for name, objects in overlays.items():
        own = {file: each for file, each in objects.items() if file not in shared}
        watched = {file: each for file, each in own.items() if each["apiVersion"].startswith(OPERATOR)}
        write(asked.into / "overlays" / name, {file: own[file] for file in own.keys() - watched.keys()}, ["../../base"])
        if watched:
            write(asked.into / "components" / "monitoring", watched, kind="Component")


def render(helm: str, values: Path) -> Objects:
    """Return what the chart makes of some values, without Helm's own: its tests and its labels."""
    command = [helm, "template", "driftline", CHART, "--kube-version", KUBERNETES, "--skip-tests", "--values", values]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    objects = {}
    for each in filter(None, yaml.safe_load_all(said)):
        without_helm(each)
        objects[f"{each['kind'].lower()}-{each['metadata']['name']}.yaml"] = each
    return objects


def without_helm(value: Any) -> None:
    """Take Helm's labels out, wherever there are labels."""
    if isinstance(value, dict):
        if isinstance(labels := value.get("labels"), dict):
            for name in HELMS:
                labels.pop(name, None)
        for each in value.values():
            without_helm(each)
    elif isinstance(value, list):
        for each in value:
            without_helm(each)


def write(folder: Path, objects: Objects, more: list[str] | None = None, kind: str = "Kustomization") -> None:
    """Write a folder's objects, and the kustomization that names them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, each in objects.items():
        (folder / name).write_text(MADE + text(each))
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    resources = [*(more or []), *sorted(objects)]
    kustomization = {"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind, "resources": resources}
    (folder / "kustomization.yaml").write_text(MADE + text(kustomization))


def text(value: Any) -> str:
    """Return an object as YAML, in the order that it has."""
    return str(yaml.safe_dump(value, sort_keys=False, width=120, allow_unicode=True))


if __name__ == "__main__":
    main()
