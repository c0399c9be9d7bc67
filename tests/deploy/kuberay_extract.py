"""Makes `kuberay-VERSION.json` of KubeRay's two CRDs: what of their schemas concerns the manifests in cluster/kuberay.

In:  python tests/deploy/kuberay_extract.py VERSION FOLDER   (ray-operator/config/crd/bases of KubeRay's repository)
Out: the file beside this one. Each object names the fields that a manifest uses, with their types, enumerations and
     required fields, and refuses others: a manifest that takes up a new field wants a new extract.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MANIFESTS = HERE.parents[1] / "cluster" / "kuberay"
KINDS = {"RayCluster": ("raycluster.yaml", "ray.io_rayclusters.yaml"), "RayJob": ("rayjob.yaml", "ray.io_rayjobs.yaml")}
KEPT = ("type", "enum", "required", "pattern", "minimum", "maximum", "minItems")


def extract(schema: dict[str, Any], values: list[Any]) -> dict[str, Any]:
    """The part of `schema` that `values` touch. An empty answer allows anything, as the CRD does there."""
    kept = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        used = sorted({key for value in values for key in value} & set(schema["properties"]))
        kept["properties"] = {
            key: extract(schema["properties"][key], [value[key] for value in values if key in value]) for key in used
        }
        kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        inner = [entry for value in values for entry in value.values()]
        kept["additionalProperties"] = extract(schema["additionalProperties"], inner)
    elif "items" in schema:
        kept["items"] = extract(schema["items"], [entry for value in values for entry in value])
    return kept


def main(version: str, folder: Path) -> None:
    kinds = {}
    for kind, (manifest, crd) in KINDS.items():
        versions = yaml.safe_load((folder / crd).read_text(encoding="utf-8"))["spec"]["versions"]
        (schema,) = [entry["schema"]["openAPIV3Schema"] for entry in versions if entry["name"] == "v1"]
        document = yaml.safe_load((MANIFESTS / manifest).read_text(encoding="utf-8"))
        kinds[kind] = extract(schema, [document]) | {"required": ["apiVersion", "kind", "metadata", "spec"]}
        kinds[kind]["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    comment = f"Extract of the CRDs of KubeRay {version} (Apache License 2.0), made by kuberay_extract.py"
    text = json.dumps({"$comment": comment, "version": version, "kinds": kinds}, separators=(",", ":"), sort_keys=True)
    (HERE / f"kuberay-{version}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
