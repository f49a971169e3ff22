"""The operator by bentoctl's hand: installed, generated, and one configuration made and destroyed.

Every configuration applied, with its resources counted: `make deploy-check`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT, Run

OPERATOR = str(ROOT / "deploy" / "operators" / "aws-eks")
READY = sorted((ROOT / "deploy" / "eks").glob("*.yaml"))
Reports = dict[str, dict[str, Any]]


def command(tools: Path, report: Path, *options: str) -> list[str]:
    program = [str(tools / "python"), "-m", "deploy.check", "--operator", "aws-eks"]
    return [*program, "--report", str(report), *options]


def reports(path: Path) -> Reports:
    return {one["label"]: one for one in json.loads(path.read_text())}


@pytest.fixture(scope="module", autouse=True)
def applied(
    tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Reports]]:
    """One configuration made and destroyed in the background: it waits more than it works."""
    report = tmp_path_factory.mktemp("apply") / "report.json"
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(
        command(tools, report, "--config", "eks/gpu.yaml"),
        cwd=ROOT,
        text=True,
        start_new_session=True,
        **pipe,
    )

    def finish() -> Reports:
        said, _ = process.communicate()
        assert process.returncode == 0, said
        return reports(report)

    yield finish
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)  # Terraform and moto, too
        process.wait()


def test_generates_offline_twice(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deployment_config.yaml").write_text(READY[0].read_text())
    assert run("bentoctl", "operator", "install", OPERATOR).returncode == 0
    for _ in "12":
        done = run("bentoctl", "generate")
        assert done.returncode == 0, done.stderr
    assert {"main.tf", "bentoctl.tfvars", "kubernetes"} <= {one.name for one in tmp_path.iterdir()}


def test_values_only_brings_the_built_image(tmp_path: Path) -> None:
    from sd_aws_eks import generate
    from sd_aws_eks.spec import EksSpec

    spec = EksSpec(region="us-east-1", instance_types=("g5.xlarge",)).model_dump(mode="json")
    for image in (None, "1.dkr.ecr.us-east-1.amazonaws.com/sd:abc"):
        given = {**spec, "image_tag": image}
        generate("images", given, "terraform", str(tmp_path), image is not None)
    document = yaml.safe_load((tmp_path / "kubernetes/deployment/kustomization.yaml").read_text())
    assert document["images"][0]["newTag"] == "abc"
    assert "sd:abc" in (tmp_path / "bentoctl.tfvars").read_text()


def test_a_queue_that_is_wanted_no_more_leaves_no_files(tmp_path: Path) -> None:
    from sd_aws_eks import generate
    from sd_aws_eks.spec import EksSpec

    for is_async in (True, False):
        fields = {"region": "us-east-1", "instance_types": ["g5.xlarge"], "async": is_async}
        given = EksSpec.model_validate(fields).model_dump(mode="json")
        generate("images", given, "terraform", str(tmp_path), False)
        assert (tmp_path / "async.tf").exists() is is_async
        assert (tmp_path / "queue").exists() is is_async


def test_each_runtime_gets_its_environment(tmp_path: Path) -> None:
    from sd_aws_eks import workers

    (tmp_path / "sdxl").mkdir()
    written = workers.write(tmp_path, {"sdxl": "QUEUE_URL=x", "sd15": "QUEUE_URL=y"})
    assert written == [tmp_path / "sdxl" / "workers.env", tmp_path / "workers.env"]
    assert (tmp_path / "sdxl" / "workers.env").read_text() == "QUEUE_URL=x\n"


def test_remote_state_has_a_lock(tmp_path: Path) -> None:
    from sd_aws_eks import generate
    from sd_aws_eks.spec import EksSpec

    fields = {"region": "us-east-1", "instance_types": ["g5.xlarge"], "state_bucket": "my-state"}
    given = EksSpec.model_validate(fields).model_dump(mode="json")
    generate("images", given, "terraform", str(tmp_path), False)
    backend = json.loads((tmp_path / "backend.tf.json").read_text())["terraform"]["backend"]["s3"]
    assert backend["key"] == "images/us-east-1/terraform.tfstate" and backend["use_lockfile"]


def test_a_wrong_one_is_refused_before_terraform(run: Run, tmp_path: Path) -> None:
    document = yaml.safe_load(READY[0].read_text())
    document["spec"] |= {"region": "us-eats-1", "min_replicas": -1}
    (tmp_path / "deployment_config.yaml").write_text(yaml.safe_dump(document))
    run("bentoctl", "operator", "install", OPERATOR)
    done = run("bentoctl", "generate")
    assert done.returncode == 1
    assert "spec.region: " in done.stderr and "spec.min_replicas: " in done.stderr
    assert not (tmp_path / "main.tf").exists()


def test_two_operators_share_no_names() -> None:
    """bentoctl puts both folders on sys.path."""
    shared = "operator_config"
    names = [
        {
            one.stem
            for one in folder.iterdir()
            if one.suffix == ".py" or (one / "__init__.py").exists()
        }
        for folder in sorted((ROOT / "deploy" / "operators").iterdir())
    ]
    assert len(names) == 2 and names[0] & names[1] == {shared}


def test_every_configuration_validates(tools: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    validate = command(tools, report, "--until", "validate")
    done = subprocess.run(validate, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert set(reports(report)) == {f"eks/{path.name}" for path in READY}


def test_made_and_destroyed_on_a_stand_in(applied: Callable[[], Reports]) -> None:
    (one,) = applied().values()
    assert one["tests"] >= 10
    assert one["created"] == one["planned"] == one["destroyed"] > 60
    assert one["left"] == {}
    assert one["kinds"]["aws_eks_cluster"] == 1 and one["kinds"]["aws_eks_node_group"] == 1


def test_describe_is_for_this_operator(tmp_path: Path) -> None:
    code = "import sys; from sd_aws_eks.describe import main; sys.exit(main(sys.argv[1:]))"
    env = {"PYTHONPATH": f"{ROOT / 'deploy/tools'}:{OPERATOR}"}
    path = ROOT / "deploy" / "ec2" / "deployment_config.yaml"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "spec." in done.stderr
