"""The cluster's files: what Ray, a shell or a cloud refuses would be found only when the first machine is paid for."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps._cluster import grows_to
from sweeps._settings import parse
from sweeps.beta_lr import sweep

ROOT = Path(__file__).parents[2]
LAUNCHED = ("cluster.yaml", "cluster-local.yaml")
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return config


def prepared(text: str) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return config


def shell_lines(config: dict[str, Any]) -> list[str]:
    return [line for name in COMMANDS for line in config.get(name, [])]


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_file_is_one_that_ray_takes(name: str) -> None:
    config = prepared((ROOT / name).read_text())
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_misspelled_key_would_be_found(name: str) -> None:
    from jsonschema import ValidationError

    with pytest.raises((ValidationError, ValueError)):
        prepared((ROOT / name).read_text().replace("setup_commands:\n", "setup_comands:\n", 1))


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_shell_line_parses(name: str) -> None:
    lines = shell_lines(loaded(name))
    assert len(lines) > 5
    for line in lines:
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
    assert subprocess.run(["bash", "-n", "-c", lines[0] + " && ("], capture_output=True).returncode


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_copied_is_there_and_is_all_that_the_installation_needs(name: str) -> None:
    mounts = loaded(name)["file_mounts"]
    local = {path for path in mounts.values() if not path.startswith("~")}
    assert all((ROOT / path).exists() for path in local)
    packages = [pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    needed = {*packages, "pyproject.toml", "constraints.txt", "bootstrap.py", "Makefile", PROJECT["project"]["readme"]}
    assert needed | set(PROJECT["project"]["license-files"]) <= local
    assert all(remote.endswith(f"/vqsweep/{path}") for remote, path in mounts.items() if path in local)
    copied = (ROOT / "k8s" / "Dockerfile").read_text()
    for path in needed - {"bootstrap.py", "Makefile"}:
        assert re.search(rf"COPY .*\b{re.escape(path)}\b", copied), path


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_the_lines_name_exists(name: str) -> None:
    text = " ".join(shell_lines(loaded(name)))
    targets = re.findall(r"make (\S+)", text)
    assert targets and all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
    for extras in re.findall(r"-e \"\.\[([a-z,]+)\]\"", text):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    source = "".join(path.read_text() for path in (ROOT / "sweeps").glob("*.py"))
    names = set(re.findall(r"\bVQSWEEP_[A-Z_]+", text))
    assert names >= {"VQSWEEP_RUNS", "VQSWEEP_DATA", "VQSWEEP_STORAGE"}
    assert all(f'"{name}' in source for name in names)


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}


@pytest.mark.filterwarnings("ignore")  # of mlflow, as it is imported
def test_every_flag_is_one_of_its_program() -> None:
    from mlflow.cli import server
    from ray.scripts.scripts import start

    programs = {"ray start": options_of(start), "mlflow server": options_of(server)}
    texts = [" ; ".join(shell_lines(loaded(name))) for name in LAUNCHED]
    tracker = (ROOT / "k8s" / "tracker.yaml").read_text()
    found = 0
    for text in [*texts, tracker]:
        for program, known in programs.items():
            for call in re.findall(rf"{program}( [^;|\n]*)", text):
                flags = [word.partition("=")[0] for word in call.split() if word.startswith("--")]
                found += len(flags)
                assert set(flags) <= known, (program, set(flags) - known)
    assert found > 15


@pytest.mark.parametrize("name", [*LAUNCHED, "docs/cluster.md", "k8s/rayjob.yaml"])
def test_the_sweeps_that_are_shown_can_be_parsed(name: str) -> None:
    shown = re.findall(r"sweeps/beta_lr\.py (?:-- )?((?:--\S+ [^\s`]+ ?)+)", (ROOT / name).read_text())
    assert shown
    for words in shown:
        assert parse(sweep, shlex.split(words), "sweeps/beta_lr.py").trials > 0


def total(node_types: dict[str, Any], resource: str) -> int:
    return sum(t["resources"].get(resource, 0) * t.get("max_workers", 0) for t in node_types.values())


def test_the_cloud_cluster_grows_to_what_a_sweep_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    config = loaded("cluster.yaml")
    told = re.search(r"VQSWEEP_GROWS_TO=(\S+)'", " ".join(config["setup_commands"]))
    assert told is not None
    monkeypatch.setenv("VQSWEEP_GROWS_TO", told[1])
    types = {name: t for name, t in config["available_node_types"].items() if name != config["head_node_type"]}
    assert grows_to() == {"CPU": total(types, "CPU"), "GPU": total(types, "GPU")}
    assert sum(t["max_workers"] for t in types.values()) <= config["max_workers"]


def test_a_growth_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("64", "CPU=x", "CPU=64;GPU=8", "CPU=64,TPU=8"):
        monkeypatch.setenv("VQSWEEP_GROWS_TO", text)
        with pytest.raises(ValueError, match=r"VQSWEEP_GROWS_TO is .*; allowed is such as CPU=64,GPU=8"):
            grows_to()


def ec2_problems(node_config: dict[str, Any]) -> str:
    """What EC2's own description of a machine has against one, without asking anybody; Ray sets the counts."""
    session = pytest.importorskip("botocore.session").get_session()
    from botocore.validate import ParamValidator

    shape = session.get_service_model("ec2").operation_model("RunInstances").input_shape
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node_config}, shape)
    return str(report.generate_report())


@pytest.mark.filterwarnings("default")
def test_the_clouds_machines_have_no_field_that_it_does_not_know() -> None:
    types = loaded("cluster.yaml")["available_node_types"]
    for node_type in types.values():
        assert ec2_problems(node_type["node_config"]) == ""
    spot = types["gpu_worker"]["node_config"]
    assert spot["InstanceMarketOptions"]["MarketType"] == "spot"
    wrong = {**spot, "InstanceMarketOption": spot["InstanceMarketOptions"]}
    assert "InstanceMarketOption" in ec2_problems(wrong)
    assert "VolumeSize" in ec2_problems({"BlockDeviceMappings": [{"Ebs": {"VolumeSize": "200"}}]})


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "k8s" / name).read_text()))


def names_of(documents: list[dict[str, Any]], kind: str) -> set[str]:
    return {document["metadata"]["name"] for document in documents if document["kind"] == kind}


def pods_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document.get("spec", {})
    if document["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        return [group["template"]["spec"] for group in groups]
    return [spec["template"]["spec"]] if "template" in spec else []


def test_what_the_manifests_name_is_defined() -> None:
    tracker = documents("tracker.yaml")
    services, claims = names_of(tracker, "Service"), names_of(tracker, "PersistentVolumeClaim")
    secrets = {d["metadata"]["name"]: d["stringData"] for d in tracker if d["kind"] == "Secret"}
    for document in [*tracker, *documents("rayjob.yaml")]:
        templates = [t["metadata"]["name"] for t in document.get("spec", {}).get("volumeClaimTemplates", [])]
        for pod in pods_of(document):
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for volume in volumes.values():
                if "persistentVolumeClaim" in volume:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims
                if "configMap" in volume:
                    assert volume["configMap"]["name"] in names_of(tracker, "ConfigMap")
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= {*volumes, *templates}
                for variable in container.get("env", []):
                    key = variable.get("valueFrom", {}).get("secretKeyRef")
                    assert key is None or key["key"] in secrets[key["name"]]
                    for host in re.findall(r"https?://([a-z-]+)", variable.get("value", "")):
                        assert host in services
    for url in (secrets["vqsweep-postgres"][name] for name in ("tracker", "storage")):
        host, database = re.fullmatch(r"postgresql\+psycopg2://vqsweep:.*@([a-z-]+)/([a-z]+)", url).groups()  # type: ignore[union-attr]
        assert host in services
        assert f"CREATE DATABASE {database} " in (ROOT / "k8s" / "tracker.yaml").read_text()


def test_the_job_is_for_the_ray_that_is_tested_and_grows_to_what_a_sweep_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (job,) = documents("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert f"FROM rayproject/ray:{cluster['rayVersion']}-py" in (ROOT / "k8s" / "Dockerfile").read_text()
    program = job["spec"]["entrypoint"].split()[1]
    assert (ROOT / Path(program).relative_to("/opt/vqsweep")).exists()
    sums = {"CPU": 0, "GPU": 0}
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits == group["template"]["spec"]["containers"][0]["resources"]["requests"]
        sums["CPU"] += int(limits["cpu"]) * group["maxReplicas"]
        sums["GPU"] += int(limits["nvidia.com/gpu"]) * group["maxReplicas"]
    for pod in pods_of(job):
        variables = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        monkeypatch.setenv("VQSWEEP_GROWS_TO", str(variables["VQSWEEP_GROWS_TO"]))
        assert grows_to() == sums
