"""Each file under clusters/ passes its readers' checks, and a planted error in it is found."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from cluster_schemas import KUBERAY, crd_folder, problems

from qcrd_ray.serving.arguments import read_arguments

ROOT = Path(__file__).resolve().parents[3]
CLUSTERS = ROOT / "clusters"
FILES = sorted(str(path.relative_to(CLUSTERS)) for path in CLUSTERS.rglob("*.yaml"))
PLACEHOLDER = re.compile(r"<[^<>\n]+>")
KUBERAY_SPEC = {
    "kuberay/raycluster.yaml": "spec",
    "kuberay/rayjob.yaml": "spec.rayClusterSpec",
    "kuberay/rayservice.yaml": "spec.rayClusterConfig",
}


def read(name: str) -> dict:
    config = yaml.safe_load((CLUSTERS / name).read_text())
    if config.get("kind") in KUBERAY and crd_folder() is None:
        pytest.skip("no kuberay-crds beside QCRD_DATASETS")
    return config


def planted(config: dict, path: str, value) -> dict:
    """A copy of ``config`` with ``value`` at the dotted ``path`` ("groups.0.name").

    None removes what is there.
    """
    changed = copy.deepcopy(config)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = changed
    for part in parents:
        inner = inner[part]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return changed


def no_comments(text: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_its_readers_would_take_it(name):
    """Every YAML file under clusters/ comes here; one of a kind that nothing checks fails."""
    assert problems(read(name)) == []


AWS_NODE = "available_node_types.teacher.node_config"
GCP_NODE = "available_node_types.trainer.node_config"
PLANTED = [
    ("aws.yaml", "idle_timeout", 2, "idle_timeout"),
    ("aws.yaml", "head_node_type", "hat", "head_node_type"),
    ("aws.yaml", "available_node_types.teacher.resources", None, "resources"),
    ("aws.yaml", "docker.container_name", "", "container"),
    ("aws.yaml", f"{AWS_NODE}.InstanceType", "g6.3xlarge", "g6.3xlarge"),
    ("aws.yaml", f"{AWS_NODE}.Spot", True, "Spot"),
    ("aws.yaml", f"{AWS_NODE}.InstanceMarketOptions.MarketType", "cheap", "cheap"),
    ("aws.yaml", f"{AWS_NODE}.BlockDeviceMappings.0.Ebs.VolumeSize", "150", "VolumeSize"),
    ("gcp.yaml", "docker.imgae", "x", "imgae"),
    ("gcp.yaml", f"{GCP_NODE}.machineType", "L4", "machineType"),
    ("gcp.yaml", f"{GCP_NODE}.accelerators", [], "accelerators"),
    ("gcp.yaml", f"{GCP_NODE}.scheduling", [{"onHostMaintenance": "TERMINATE"}], "is no object"),
    ("gcp.yaml", f"{GCP_NODE}.scheduling.onHostMaintenance", "MIGRATE", "cannot be moved"),
    ("gcp.yaml", f"{GCP_NODE}.scheduling.provisioningModel", "CHEAP", "CHEAP"),
    ("gcp.yaml", f"{GCP_NODE}.disks.0.initializeParams.diskSizeGb", "large", "diskSizeGb"),
    ("local.yaml", "provider.head_ip", None, "head_ip"),
    ("local.yaml", "idle_minutes", 2, "idle_minutes"),
    ("student.yaml", "applications.0.import", "x", "import"),
    ("student.yaml", "applications.0.args.replica", 2, "replica"),
    ("student.yaml", "applications.0.args.student", None, "student"),
    ("student.yaml", "http_options.host", "0.0.0.0", "names no key"),
    ("kuberay/rayjob.yaml", "spec.shutdownAfterJobFinishes", "yes", "shutdownAfterJobFinishes"),
    ("kuberay/rayjob.yaml", "spec.entryPoint", "qcrd", "entryPoint"),
    ("kuberay/rayservice.yaml", "spec.serveConfigV2", "applications: [{name: x}]", "import_path"),
    ("kuberay/rayservice.yaml", "spec.serveConfig", "x", "serveConfig"),
] + [
    (name, f"{spec}.{path}", value, complaint)
    for name, spec in KUBERAY_SPEC.items()
    for path, value, complaint in (
        ("workerGroupSpecs.0.maxReplica", 4, "maxReplica"),
        ("workerGroupSpecs.0.resources", {"CPU": 4}, "resources"),
        (
            "workerGroupSpecs.0.template.spec.containers.0.resources.limits.memory",
            {"Gi": 16},
            "memory",
        ),
        ("headGroupSpec.template.spec.containers.0.volumeMount", [], "volumeMount"),
        ("authOptions.mode", "password", "mode"),
        ("headGroupSpec.template.spec.containers.0.name", None, "name"),
    )
]


@pytest.mark.parametrize(
    ("name", "path", "value", "complaint"),
    PLANTED,
    ids=[f"{name}:{path}" for name, path, _, _ in PLANTED],
)
def test_a_planted_error_is_found(name, path, value, complaint):
    """Bug guarded: a check that passes everything."""
    found = problems(planted(read(name), path, value))
    assert any(complaint in problem for problem in found), found


def test_errors_are_planted_in_every_file():
    assert {name for name, *_ in PLANTED} == set(FILES)


@pytest.mark.parametrize("name", ["student.yaml", "kuberay/rayservice.yaml"])
def test_the_applications_builder_takes_the_args(name, exported_student):
    """Bug guarded: a key that the recipe knows and the application refuses, such as host."""
    config = yaml.safe_load((CLUSTERS / name).read_text())
    deployed = yaml.safe_load(config["spec"]["serveConfigV2"]) if "kind" in config else config
    application = deployed["applications"][0]
    assert application["import_path"] == "qcrd_ray.serving.application:build"
    folder, recipe = read_arguments({**application["args"], "student": str(exported_student)})
    assert folder.path == exported_student and recipe.max_replicas == 4


def test_a_file_of_an_unknown_kind_is_a_problem():
    assert problems({"kind": "ConfigMap"})


def test_versions_and_image_are_those_of_the_requirements():
    """Bug guarded: nodes with another Ray than the driver's, which fail far from the cause."""
    requirements = (ROOT / "requirements.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ray = re.search(r"^ray\[.*?\]==(\S+)$", requirements, re.MULTILINE)[1]
    python = re.match(r">=(\d+\.\d+)", project["requires-python"])[1]
    dockerfile = (CLUSTERS / "Dockerfile").read_text()
    assert f"FROM python:{python}-" in dockerfile and "\nARG LOCK=requirements.lock\n" in dockerfile
    for lock in ("requirements.lock", "requirements-cpu.lock"):
        assert f"\nray=={ray}\n" in (ROOT / lock).read_text()
    image = f"<registry>/qcrd-ray:ray{ray}-py{python.replace('.', '')}"
    assert f"-t {image} ." in dockerfile and f"-t {image}-cpu " in dockerfile
    for name in FILES:
        text = no_comments((CLUSTERS / name).read_text())
        assert set(re.findall(r"\S+/qcrd-ray:\S+", re.sub(r"&\w+ ", "", text))) <= {
            image,
            f"{image}-cpu",
        }, name
        assert set(re.findall(r'rayVersion: "(.*)"', text)) == (
            {ray} if name in KUBERAY_SPEC else set()
        ), name


def test_the_image_is_made_of_what_is_there():
    copied = re.findall(r"^COPY (.+) \S+$", (CLUSTERS / "Dockerfile").read_text(), re.MULTILINE)
    assert [name for line in copied for name in line.split() if not (ROOT / name).exists()] == []


def test_the_image_can_be_made_without_cuda():
    """Bug guarded: head and data nodes waited for gigabytes of CUDA that they never use."""
    dockerfile = (CLUSTERS / "Dockerfile").read_text()
    install = re.search(r"^RUN pip install (.*) -r (\S+)$", dockerfile, re.MULTILINE)
    assert install[2] == "${LOCK}" and "--no-deps --extra-index-url ${TORCH}" in install[1]
    for name, value in re.findall(r"--build-arg (\w+)=(\S+)", dockerfile):
        assert f"\nARG {name}=" in dockerfile, "docker ignores an argument that is not declared"
        assert value.startswith("https://") or (ROOT / value).exists()
        assert dockerfile.index(f"\nARG {name}=") < dockerfile.index("RUN pip install")
    assert "nvidia" not in (ROOT / "requirements-cpu.lock").read_text()


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_a_container_of_ray_up_sees_its_nodes_gpus(name):
    """Bug guarded: Ray adds --runtime=nvidia, which shows no GPU where NVIDIA_VISIBLE_DEVICES is
    not set, and python's image does not set it.
    """
    config = yaml.safe_load((CLUSTERS / name).read_text())
    options = config["docker"]["run_options"]
    assert "-e NVIDIA_VISIBLE_DEVICES=all" in options
    assert "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility" in options
    for group, kind in config["available_node_types"].items():
        image = kind.get("docker", {}).get("worker_image", config["docker"]["image"])
        if group == config["head_node_type"]:
            image = config["docker"]["head_image"]
        assert image.endswith("-cpu") is not bool(kind["resources"].get("GPU")), group


@pytest.mark.parametrize("name", KUBERAY_SPEC)
def test_a_pod_with_a_gpu_has_cuda(name):
    config = yaml.safe_load((CLUSTERS / name).read_text())
    spec = config["spec"]
    spec = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"].endswith("-cpu") is not has_gpu


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_nodes_see_each_others_new_files_at_once(name):
    """Bug guarded: NFS remembers for up to a minute that a file is not there."""
    commands = yaml.safe_load((CLUSTERS / name).read_text())["initialization_commands"]
    (mount,) = [command for command in commands if "mount -t nfs" in command]
    options = re.search(r" -o (\S+) <", mount)[1].split(",")
    assert {"hard", "lookupcache=positive", "actimeo=1"} <= set(options)


@pytest.mark.parametrize("name", FILES)
def test_only_the_placeholders_are_anybodys_own(name):
    """What must be filled in is marked, and listed in clusters/README.md.

    No account, network or machine of somebody's stands elsewhere.
    """
    text = no_comments((CLUSTERS / name).read_text())
    readme = (CLUSTERS / "README.md").read_text()
    assert [mark for mark in PLACEHOLDER.findall(text) if f"`{mark}`" not in readme] == []
    theirs = (
        r"arn:aws|\b(?:ami|sg|subnet|vpc|fs|i)-[0-9a-f]{8,}|\b\d{12}\b"
        r"|\b(?!0\.0\.0\.0|127\.0\.0\.1)\d+\.\d+\.\d+\.\d+\b"
    )
    assert re.findall(theirs, PLACEHOLDER.sub("", text)) == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "student.yaml"])
def test_callers_are_authenticated_and_no_secret_stands_in_a_file(name):
    """Bug guarded: an open dashboard, on which anybody runs code.

    The token is a file of the user's, or a Kubernetes Secret.
    """
    text = no_comments((CLUSTERS / name).read_text())
    if name in KUBERAY_SPEC:
        assert "authOptions: {mode: token, secretName: qcrd-ray-token}" in text
    else:
        assert (
            "RAY_AUTH_MODE=token" in text
            and "~/.ray/auth_token" in yaml.safe_load(text)["file_mounts"].values()
        )
    assert not re.search(
        r"RAY_AUTH_TOKEN\s*[=:]|AKIA[0-9A-Z]{16}|PRIVATE KEY|hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{20}",
        text,
    )
