"""Checks the files under clusters/ by the schemas of Ray, AWS, GCP and KubeRay, without a cloud.

:func:`problems` finds out what kind of file it is and asks the schemas that its readers publish; an
unknown kind is itself a problem.
"""

from __future__ import annotations

import copy
import importlib.resources
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import click
import jsonschema
import pydantic
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from qcrd_ray.recipe import ServingRecipe

KUBERAY = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}
# Google's JSON writes the long ones as text, and takes numbers too.
INTEGERS = {"int64", "uint64", "int32", "uint32"}
GCP_MACHINE = re.compile(r"[a-z]\d[a-z]?-[a-z]+-\d+g?")
PYTHON_TYPES = {
    "object": Mapping,
    "array": list,
    "boolean": bool,
    "string": str,
    "integer": int,
    "number": (int, float),
}


def problems(config: Mapping[str, Any]) -> list[str]:
    """All that is wrong with a file under clusters/, naming the field; [] where nothing is."""
    if "provider" in config:
        return [*ray_up_problems(config), *node_problems(config)]
    if config.get("kind") in KUBERAY:
        return list(kuberay_problems(config))
    if "applications" in config:
        return list(serve_problems(config))
    return ["nothing here knows what kind of file this is"]


def ray_up_problems(config: Mapping[str, Any]) -> list[str]:
    """What `ray up` itself refuses. It does not look into node_config."""
    try:
        validate_config(prepare_config(copy.deepcopy(dict(config))))
    except (
        ValueError,
        KeyError,
        AssertionError,
        click.ClickException,
        jsonschema.ValidationError,
    ) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def node_problems(config: Mapping[str, Any]) -> list[str]:
    """What the cloud would refuse of each group's node_config."""
    check = {"aws": aws_problems, "gcp": gcp_problems, "local": lambda node: []}[
        config["provider"]["type"]
    ]
    groups = config.get("available_node_types", {})
    return [
        f"{name}.node_config{problem}"
        for name, group in groups.items()
        for problem in check(group.get("node_config", {}))
    ]


# --- AWS ---


def aws_problems(node: Mapping[str, Any]) -> list[str]:
    """Unknown fields, wrong types and values outside a list, by botocore's RunInstances."""
    shape = _run_instances()
    report = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, shape)
    return [
        *([f": {report.generate_report()}"] if report.has_errors() else []),
        *_outside_enums(node, shape),
    ]


@cache
def _run_instances() -> Any:
    return (
        botocore.session.get_session()
        .get_service_model("ec2")
        .operation_model("RunInstances")
        .input_shape
    )


def _outside_enums(value: Any, shape: Any, where: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and shape.type_name == "structure":
        for name in value.keys() & shape.members.keys():
            yield from _outside_enums(value[name], shape.members[name], f"{where}.{name}")
    elif isinstance(value, list) and shape.type_name == "list":
        for item in value:
            yield from _outside_enums(item, shape.member, where)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{where}: {value!r} is none of the {len(shape.enum)} that AWS knows"


# --- GCP ---


def gcp_problems(node: Mapping[str, Any]) -> list[str]:
    """Unknown fields, wrong types and values, by the Compute API's discovery document.

    It lists no machine types, so of those only the pattern is checked.
    """
    found = list(_outside_discovery(node, {"$ref": "Instance"}))
    if not GCP_MACHINE.fullmatch(node.get("machineType", "")):
        found.append(f".machineType: {node.get('machineType')!r} is not like g2-standard-8")
    if (
        not found
        and node.get("guestAccelerators")
        and node.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE"
    ):
        found.append(
            ".scheduling.onHostMaintenance: must be TERMINATE, since a machine with a GPU cannot be"
            " moved"
        )
    return found


@cache
def _discovery() -> dict[str, Any]:
    documents = importlib.resources.files("googleapiclient.discovery_cache.documents")
    return json.loads((documents / "compute.v1.json").read_text(encoding="utf-8"))["schemas"]


def _outside_discovery(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    schema = _discovery()[schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    if schema.get("format") in INTEGERS and re.fullmatch(r"-?\d+", str(value)):
        return
    if (
        schema.get("format") in INTEGERS
        or not isinstance(value, PYTHON_TYPES[kind])
        or (kind != "boolean" and isinstance(value, bool))
    ):
        yield f"{where}: {value!r} is no {schema.get('format', kind)}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    elif kind == "array":
        for item in value:
            yield from _outside_discovery(item, schema["items"], where)
    elif kind == "object":
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if known:
                yield from _outside_discovery(inner, known, f"{where}.{name}")
            else:
                yield f"{where}.{name}: the Compute API knows no such field"


# --- KubeRay ---


def crd_folder() -> Path | None:
    """The folder of KubeRay's definitions beside the test data, or None where there is none."""
    datasets = os.environ.get("QCRD_DATASETS")
    folder = Path(datasets).parent / "kuberay-crds" if datasets else None
    return folder if folder is not None and folder.is_dir() else None


def kuberay_problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What KubeRay's definition of the kind refuses, and Ray Serve of a RayService's config.

    Needs :func:`crd_folder`.
    """
    for error in _validator(
        manifest["kind"], manifest["apiVersion"].rpartition("/")[2]
    ).iter_errors(manifest):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    if manifest["kind"] == "RayService":
        yield from (
            f"spec.serveConfigV2: {problem}"
            for problem in serve_problems(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
        )


@cache
def _validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    text = (crd_folder() / f"{KUBERAY[kind]}.yaml").read_bytes()
    definition = yaml.load(text, Loader=yaml.CSafeLoader)
    schemas = {
        each["name"]: each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"]
    }
    return jsonschema.Draft202012Validator(_as_json_schema(schemas[version]))


def _as_json_schema(schema: Any) -> Any:
    """Kubernetes' own additions as JSON Schema.

    An unknown field is refused; the API server would drop it silently.
    """
    if isinstance(schema, list):
        return [_as_json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _as_json_schema(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault(
            "additionalProperties", schema.get("x-kubernetes-preserve-unknown-fields") is True
        )
    return made


# --- Serve ---


def serve_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What Ray Serve's schema refuses, and args that are no keys of the recipe's `serve`."""
    try:
        deployed = ServeDeploySchema.model_validate(config)
    except pydantic.ValidationError as error:
        yield str(error)
        return
    parts = [(config, ServeDeploySchema), (config.get("http_options", {}), HTTPOptionsSchema)]
    parts += [(application, ServeApplicationSchema) for application in config["applications"]]
    for part, schema in parts:  # Serve itself drops an unknown key without a word
        yield from (
            f"{key}: Serve knows no such key" for key in part.keys() - schema.model_fields.keys()
        )
    for application in deployed.applications:
        keys = {name: value for name, value in application.args.items() if name != "student"}
        if "student" not in application.args:
            yield "args.student: is missing"
        try:
            serving = ServingRecipe.model_validate(keys)
        except pydantic.ValidationError as error:
            yield f"args: {error}"
            continue
        if (
            not ipaddress.ip_address(deployed.http_options.host).is_loopback
            and serving.api_key_file is None
        ):
            yield (
                f"http_options.host: {deployed.http_options.host} can be reached by others, and"
                " args.api_key_file names no key"
            )
