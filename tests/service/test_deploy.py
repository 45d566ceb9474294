"""The files under ``deploy/``, ``docker-compose.yml`` and the ``Dockerfile`` agree with the service and each other."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from ganserve.settings import PREFIX, Settings
from service.observe import metrics

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/ganserve.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

# What Prometheus adds to every sample, and what a histogram's buckets have.
_ADDED = {"instance", "job", "le"}


def exported() -> dict[str, set[str]]:
    """Names of samples and their labels, as the service defines them."""
    found: dict[str, set[str]] = {"ganserve_jobs": {"state"}, "ganserve_workers": set()}
    for metric in vars(metrics).values():
        if hasattr(metric, "_labelnames"):
            for family in metric.describe():
                suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
                for suffix in suffixes:
                    found[family.name + suffix] = set(metric._labelnames)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_of_the_dashboard_names_what_the_service_exports(expression: str) -> None:
    known = exported()
    named = re.findall(r"\b(ganserve_\w+)", expression)
    assert named
    for name in named:
        assert name in known
    labels = set().union(*(known[name] for name in named)) | _ADDED
    grouped = [label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")]
    matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression)
    assert set(grouped) | set(matched) <= labels
    # A counter means nothing but by its rate, and only counters and histograms have one.
    for name in named:
        counted = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert counted == bool(re.search(rf"(rate|increase)\({name}\b", expression)), name
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_shows_every_metric_of_the_service() -> None:
    shown = set(re.findall(r"\b(ganserve_\w+)", " ".join(EXPRESSIONS)))
    families = {re.sub("_(bucket|sum|count|total)$", "", name) for name in exported()}
    assert families == {re.sub("_(bucket|sum|count|total)$", "", name) for name in shown}


def test_what_is_defined_is_what_is_exported(client: TestClient) -> None:
    client.get("/generate?seed=1")
    text = client.get("/metrics").text
    helped = set(re.findall(r"^# TYPE (ganserve_\w+) ", text, re.M)) - {"ganserve_request_seconds_created"}
    helped = {name for name in helped if not name.endswith("_created")}
    assert {re.sub("_total$", "", name) for name in helped} == {
        re.sub("_(bucket|sum|count|total)$", "", name) for name in exported()
    }
    assert any(family.name == "ganserve_images" for family in REGISTRY.collect())


def test_the_dashboard_takes_its_data_from_a_choice_and_its_panels_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_grafana_is_told_of_prometheus_and_of_the_dashboard_where_compose_mounts_it() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    path = yaml.safe_load((folder / "dashboards/ganserve.yml").read_text())["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/ganserve.json:{path}/ganserve.json:ro" in SERVICES["grafana"]["volumes"]


def test_prometheus_scrapes_every_container_that_serves() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    scraped = {name for job in jobs for source in job["dns_sd_configs"] for name in source["names"]}
    serving = {
        name for name, service in SERVICES.items() if service.get("build", {}).get("target", "").startswith("serv")
    }
    assert scraped == serving == {"service", "service-cuda", "replica"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_hardened_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["restart"] == "unless-stopped"
    assert not service.get("privileged")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    if "build" not in service:
        image, _, tag = service["image"].rpartition(":")
        assert image
        assert re.search(r"\d", tag), "a version, so that the same file always means the same image"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_has_a_health_check(name: str) -> None:
    service = SERVICES[name]
    if service.get("build", {}).get("target", "").startswith("service"):
        # Theirs is in the image.
        assert (ROOT / "Dockerfile").read_text().count("HEALTHCHECK") == 2
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


def test_what_compose_sets_are_settings_of_the_service() -> None:
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    dockerfile = (ROOT / "Dockerfile").read_text()
    told = {name for service in SERVICES.values() for name in service.get("environment", {})}
    told |= set(re.findall(r"\b(GANSERVE_[A-Z_]+)=", dockerfile))
    assert {name for name in told if name.startswith(PREFIX)} <= names


def test_the_service_has_time_to_drain_before_it_is_killed() -> None:
    drain = Settings.model_fields["drain_timeout"].default
    for name in ("service", "service-cuda", "replica"):
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > drain


def test_the_images_run_as_a_user_without_rights_and_start_what_they_are_named_for() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.M)[1:]
    targets = {stage.splitlines()[0].split()[-1]: stage for stage in stages}
    images = {
        "service": "service",
        "service-cuda": "service",
        "trainer": "training.worker",
        "trainer-cuda": "training.worker",
    }
    for name, module in images.items():
        # By number, which is how Kubernetes knows that it is not root.
        assert re.search(r"^USER 10001$", targets[name], re.M)
        assert f'CMD ["python", "-m", "{module}"]' in targets[name]
    # The last stage is what `docker build .` makes.
    assert list(targets)[-1] == "service"
    assert "training" not in re.findall(r"^COPY (\S+)", targets["service"], re.M)


@pytest.mark.skipif(
    not (shutil.which("docker-compose") or shutil.which("docker")), reason="no compose client is installed"
)
def test_compose_accepts_the_file_with_all_its_profiles_and_refuses_it_without_secrets() -> None:
    client = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if subprocess.run([*client, "version"], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("this docker has no compose")
    command = [*client, "--project-directory", str(ROOT), "-f", str(ROOT / "docker-compose.yml"), "config"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GANSERVE_", "POSTGRES_"))}
    environment["COMPOSE_PROFILES"] = "scale,gpu,dashboards"
    secrets = {"GANSERVE_ADMIN_TOKEN": "a" * 32, "POSTGRES_PASSWORD": "b" * 32}
    given = subprocess.run(command, env=environment | secrets, capture_output=True, text=True, check=False, timeout=60)
    assert given.returncode == 0, given.stderr
    if not (ROOT / ".env").exists():
        missing = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert missing.returncode != 0
        assert "GANSERVE_ADMIN_TOKEN" in missing.stderr or "POSTGRES_PASSWORD" in missing.stderr


def test_whatever_the_images_copy_is_let_in() -> None:
    lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    copied = [line for line in lines if not line.startswith("--from=")]
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    needed = {name for line in copied for name in line.split()}
    assert {"ganserve", "service", "models"} <= needed <= allowed
