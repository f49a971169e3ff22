"""What /metrics of a real server tells, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from runnables.version import VERSION
from tests.service.server import ROOT, Server

OBSERVABILITY = ROOT / "deploy" / "observability"
DASHBOARD = OBSERVABILITY / "grafana.json"
NAME = re.compile(r"\bsd_[a-z0-9_]+")
ASK = {"prompt": "sea", "num_inference_steps": 2, "seed": 1, "height": 64, "width": 64}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(server: Server) -> Samples:
    """Every sample of /metrics by its name and labels."""
    text = httpx.get(f"{server.url}/metrics", timeout=300).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("sd_")
    }


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = set(labels.items())
    return sum(v for (n, given), v in found.items() if n == name and wanted <= set(given))


@pytest.fixture(scope="module")
def before_and_after(server: Server) -> tuple[Samples, Samples]:
    """Around one synchronous request of two images, one refusal, and one job."""
    before = samples(server)
    two = {**ASK, "num_images_per_prompt": 2}
    assert httpx.post(f"{server.url}/txt2img", json=two, timeout=300).status_code == 200
    assert httpx.post(f"{server.url}/txt2img", json={}, timeout=300).status_code == 400
    body = {"task": "txt2img", "parameters": ASK}
    url = httpx.post(f"{server.url}/jobs", json=body, timeout=300).headers["location"]
    while httpx.get(f"{server.url}{url}", timeout=300).json()["state"] != "succeeded":
        time.sleep(0.05)
    return before, samples(server)


@pytest.mark.parametrize(
    ("name", "labels", "grown"),
    [
        ("sd_images_total", {"finish_reason": "success", "model": "embedded", "key": ""}, 3),
        ("sd_requests_total", {"task": "txt2img", "status": "200"}, 1),
        ("sd_requests_total", {"task": "txt2img", "status": "400"}, 1),
        ("sd_jobs_ended_total", {"task": "txt2img", "state": "succeeded"}, 1),
        ("sd_job_wait_seconds_count", {}, 1),
        ("sd_request_stage_seconds_count", {"stage": "denoise"}, 2),
        ("sd_request_stage_seconds_count", {"stage": "queue"}, 2),
        ("sd_stage_seconds_count", {"stage": "encode"}, 2),
    ],
)
def test_counts(
    before_and_after: tuple[Samples, Samples], name: str, labels: dict[str, str], grown: int
) -> None:
    before, after = before_and_after
    assert total(after, name, **labels) - total(before, name, **labels) == grown


def test_memory_and_what_is_pending_are_told(
    before_and_after: tuple[Samples, Samples],
) -> None:
    _, after = before_and_after
    assert total(after, "sd_memory_bytes", kind="process") > 50e6
    assert total(after, "sd_memory_bytes", kind="free") > 50e6
    assert ("sd_queue_seconds", ()) in after and total(after, "sd_queue_seconds") >= 0


def test_paths_are_no_labels(server: Server, before_and_after: tuple[Samples, Samples]) -> None:
    """Each job has a path of its own: metrics of paths would grow without end."""
    text = httpx.get(f"{server.url}/metrics", timeout=300).text
    assert "sd_jobs_ended_total" in text and "/jobs/" not in text


def test_cost_units_are_rows_times_steps_times_area(
    before_and_after: tuple[Samples, Samples],
) -> None:
    """3 images of 64x64 with guidance: 2 rows a step, 1/64 of 512x512 each."""
    before, after = before_and_after
    calls = 3  # the embedded model's sampler may take more UNet calls than steps: at most one more
    units = total(after, "sd_cost_units_total") - total(before, "sd_cost_units_total")
    assert 3 * 2 * 2 / 64 <= units <= 3 * 2 * calls / 64


def test_steps_are_timed_and_their_rows_counted(
    before_and_after: tuple[Samples, Samples],
) -> None:
    before, after = before_and_after
    steps = total(after, "sd_stage_seconds_count", stage="denoise")
    assert steps > total(before, "sd_stage_seconds_count", stage="denoise")
    assert total(after, "sd_batch_rows_count") == steps


def expressions(node: Any) -> Iterator[str]:
    """Every query of a dashboard, its variables' included."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_the_dashboard_queries_what_is_exposed(
    before_and_after: tuple[Samples, Samples],
) -> None:
    exposed = {name for name, _ in before_and_after[1]}
    queries = list(expressions(json.loads(DASHBOARD.read_text())))
    asked = {name for query in queries for name in NAME.findall(query)}
    assert len(asked) > 10
    assert asked <= exposed, asked - exposed


def test_what_answers_is_told(before_and_after: tuple[Samples, Samples]) -> None:
    labels = {"version": VERSION, "model": "embedded", "device": "cpu"}
    assert total(before_and_after[1], "sd_build_info", **labels) == 1


def test_the_alerts_query_what_is_exposed(before_and_after: tuple[Samples, Samples]) -> None:
    exposed = {name for name, _ in before_and_after[1]}
    rules = [
        rule
        for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    asked = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert len(rules) == len({rule["alert"] for rule in rules}) > 5
    assert asked <= exposed, asked - exposed
    assert all({"summary", "action"} <= set(rule["annotations"]) for rule in rules)
    assert all(rule["labels"]["severity"] in ("page", "ticket") for rule in rules)


def test_the_files_that_the_compose_mounts_are_there() -> None:
    services = yaml.safe_load((OBSERVABILITY / "compose.yml").read_text())["services"]
    mounted = [one.partition(":")[0] for name in services.values() for one in name["volumes"]]
    assert len(mounted) > 3
    assert all((OBSERVABILITY / path).exists() for path in mounted)
    scraped = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    assert all((OBSERVABILITY / path).exists() for path in scraped["rule_files"])
