"""Each adaptation of bentoctl, on the real bentoctl. Their list: sd_bentoctl.adaptations."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import ROOT, Run, needs_terraform
from tests.deploy.test_document import RIGHT, with_spec

OPERATOR = str(ROOT / "deploy/operators/aws-ec2")
#: A Terraform configuration that needs no provider.
TERRAFORM = 'resource "terraform_data" "here" {{\n  {body}\n}}\n'
FAILING = """lifecycle {
    precondition {
      condition     = local.right
      error_message = "no"
    }
  }"""
LOCALS = "locals {\n  right = false\n}\n"


def configure(folder: Path, document: object = RIGHT) -> None:
    (folder / "deployment_config.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def installed(run: Run) -> Run:
    """`run`, with our operator installed."""
    done = run("bentoctl", "operator", "install", OPERATOR)
    assert done.returncode == 0, done.stderr
    return run


def test_honest_errors(run: Run) -> None:
    done = run("bentoctl", "generate", "-f", "missing.yaml")
    assert done.returncode == 1
    assert "missing.yaml" in done.stderr


def test_our_operators(run: Run) -> None:
    for name in ("aws-ec2", "aws-eks"):
        done = run("bentoctl", "operator", "install", name)
        assert done.returncode == 0, done.stderr
        assert f"deploy/operators/{name}" in run("bentoctl", "operator", "list").stdout
    unknown = run("bentoctl", "operator", "install", "aws-lambda")
    assert unknown.returncode == 1, "it must not be fetched from GitHub"
    assert [run("bentoctl", "operator", "install", OPERATOR).returncode for _ in "12"] == [0, 0]


def test_clear_messages(installed: Run, tmp_path: Path) -> None:
    configure(tmp_path, {**with_spec(instance_type="m5.large", regoin="us-east-1"), "evn": {}})
    done = installed("bentoctl", "generate")
    assert done.returncode == 1
    assert "3 mistakes" in done.stderr
    for field in ("spec.instance_type", "spec.regoin", "evn"):
        assert f"  {field}: " in done.stderr
    assert not (tmp_path / "main.tf").exists()


def test_generating_twice_is_no_error_but_overwriting_is(installed: Run, tmp_path: Path) -> None:
    configure(tmp_path)
    assert [installed("bentoctl", "generate").returncode for _ in "12"] == [0, 0]
    (tmp_path / "main.tf").write_text("# mine\n")
    refused = installed("bentoctl", "generate")
    assert refused.returncode == 1
    assert "main.tf is there and differs" in refused.stderr
    assert (tmp_path / "main.tf").read_text() == "# mine\n"


@needs_terraform
def test_honest_terraform(installed: Run, tmp_path: Path) -> None:
    configure(tmp_path)
    (tmp_path / "bentoctl.tfvars").write_text("")
    (tmp_path / "main.tf").write_text(LOCALS + TERRAFORM.format(body=FAILING))
    failed = installed("bentoctl", "apply", "--auto-approve")
    assert failed.returncode == 1
    assert "`terraform apply` failed with status 1" in failed.stderr
    assert not applied(installed)
    (tmp_path / "main.tf").write_text(TERRAFORM.format(body=""))
    assert installed("bentoctl", "apply", "--auto-approve").returncode == 0
    assert applied(installed), "there are resources, although there are no outputs"


def applied(run: Run) -> bool:
    script = """
        from sd_bentoctl.adaptations import adapt
        adapt()
        import bentoctl.cli
        print(bentoctl.cli.is_terraform_applied())
    """
    said = run("python", "-c", textwrap.dedent(script)).stdout.split()
    return {"True": True, "False": False}[said[-1]]


def test_no_tracking(run: Run) -> None:
    script = """
        from sd_bentoctl.adaptations import adapt
        adapt()
        from bentoml._internal.utils.analytics.usage_stats import do_not_track
        print(do_not_track())
    """
    assert run("python", "-c", textwrap.dedent(script)).stdout.split() == ["True"]


SERVICE = """
    import bentoml

    @bentoml.service(name="tiny")
    class Tiny:
        weights = bentoml.models.BentoModel("weights:latest")

        @bentoml.api
        def text(self) -> str:
            return "drawn"
"""
BUILD = """
    import bentoml
    with bentoml.models.create("weights") as model:
        open(model.path_of("weights.bin"), "w").write("weights")
    labels = {"precision": "fp16"}
    bentoml.build("service:Tiny", name="tiny", version="v1", labels=labels, include=["service.py"])
"""
#: What a push leaves in the registry.
PUT = """
    import json, boto3
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"digest": "sha256:" + "0" * 64, "size": 1,
                           "mediaType": "application/vnd.oci.image.config.v1+json"}, "layers": []}
    boto3.client("ecr").put_image(
        repositoryName="twice", imageManifest=json.dumps(manifest), imageTag="v1"
    )
"""
#: Stands for podman, which would need a base image: notes its arguments and what the context holds.
BUILDER = """\
#!/bin/sh
echo "$@" >> "$NOTES/calls"
[ "$1" = login ] && cat >> "$NOTES/password"
for context in "$@"; do :; done
[ "$1" = build ] && find "$context" -type f > "$NOTES/files" && cp "$3" "$NOTES/Dockerfile"
exit "${STATUS:-0}"
"""


@pytest.fixture
def builder(tmp_path: Path, installed: Run) -> dict[str, str]:
    """A Bento with a model in the store, and environment with a builder that takes notes."""
    (tmp_path / "service.py").write_text(textwrap.dedent(SERVICE))
    built = installed("python", "-c", textwrap.dedent(BUILD))
    assert built.returncode == 0, built.stderr
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/podman").write_text(BUILDER)
    (tmp_path / "bin/podman").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(shutil.which('sh') or '/bin/sh').parent}"
    return {"BENTOCTL_BUILDER": "podman", "NOTES": str(tmp_path), "PATH": path}


def test_working_build(
    installed: Run, builder: dict[str, str], aws: dict[str, str], tmp_path: Path
) -> None:
    configure(tmp_path)
    done = installed("bentoctl", "build", "-b", "tiny:v1", **builder, **aws)
    assert done.returncode == 0, done.stderr
    assert "weights.bin" in (tmp_path / "files").read_text(), "the model is in the context"
    assert "COPY --from=base-container /app /app" in (tmp_path / "Dockerfile").read_text()
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/drawing:v1"
    built, *others = (tmp_path / "calls").read_text().splitlines()
    assert built.startswith("build --file ")
    assert "--platform=linux/amd64" in built
    registry = image.split("/")[0]
    assert others == [
        f"tag aws-ec2-tiny:v1 {image}",
        f"login --username AWS --password-stdin {registry}",
        f"push {image}",
    ]
    assert (tmp_path / "password").read_text()
    assert f'image_uri = "{image}"' in (tmp_path / "bentoctl.tfvars").read_text()
    assert installed("bentoctl", "generate").returncode == 0
    assert f'image_uri = "{image}"' in (tmp_path / "bentoctl.tfvars").read_text(), "it stays"


def test_a_second_build_pushes_nothing(
    installed: Run, builder: dict[str, str], aws: dict[str, str], tmp_path: Path
) -> None:
    """ECR refuses another image under an immutable tag, and an image built again is another one."""
    configure(tmp_path, {**RIGHT, "name": "twice"})
    first = installed("bentoctl", "build", "-b", "tiny:v1", **builder, **aws)
    assert first.returncode == 0, first.stderr
    put = installed("python", "-c", textwrap.dedent(PUT), **aws)
    assert put.returncode == 0, put.stderr
    (tmp_path / "calls").unlink()
    again = installed("bentoctl", "build", "-b", "tiny:v1", **builder, **aws)
    assert again.returncode == 0, again.stderr
    assert "is in the repository already" in again.stdout
    assert "push" not in (tmp_path / "calls").read_text()
    assert "/twice:v1" in (tmp_path / "bentoctl.tfvars").read_text()


def test_a_failed_build_is_an_error(
    installed: Run, builder: dict[str, str], tmp_path: Path
) -> None:
    configure(tmp_path)
    done = installed("bentoctl", "build", "-b", "tiny:v1", "--dry-run", **builder, STATUS="3")
    assert done.returncode == 1
    assert "`podman build` failed with status 3" in done.stderr


def test_a_bento_of_another_precision_is_refused(
    installed: Run, builder: dict[str, str], tmp_path: Path
) -> None:
    configure(tmp_path, with_spec(precision="fp32"))
    refused = installed("bentoctl", "build", "-b", "tiny:v1", "--dry-run", **builder)
    assert refused.returncode == 1
    assert "spec.precision: is fp32, and the Bento is built for fp16" in refused.stderr
    assert not (tmp_path / "calls").exists(), "no image is built"


@needs_terraform
def test_values_are_text_to_terraform_too(tmp_path: Path, run: Run) -> None:
    from sd_bentoctl import tfvars

    value = {
        "text": 'say "${path.module}" and %{ if true }\\ no $${x} \b\f\n\t\u00e9\U0001f600',
        "numbers": [1, 2.5, -3],
        "none": None,
        "flag": True,
        "nested": {"${key}": ["%{x}"]},
    }
    tfvars.write(tmp_path / "values.tfvars", {"value": value})
    (tmp_path / "main.tf").write_text(
        'variable "value" {}\noutput "it" {\n  value = var.value\n}\n'
    )
    assert run("terraform", "fmt", "-check", "values.tfvars").returncode == 0
    applied = run("terraform", "apply", "-auto-approve", "-var-file=values.tfvars")
    assert applied.returncode == 0, applied.stderr
    assert json.loads(run("terraform", "output", "-json", "it").stdout) == value
