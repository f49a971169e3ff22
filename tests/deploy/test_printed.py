"""deploy/README.md's commands, typed as printed, on moto, with a podman that takes notes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.check.inventory import inventory
from deploy.check.ready import ready
from deploy.check.stand_in import Overrides, stand_in
from deploy.check.terraform import configuration
from tests.deploy.conftest import ROOT, needs_terraform
from tests.deploy.test_adaptations import BUILDER
from tests.long import long

FIRST = "make deploy-tools bento"
ENVIRONMENTS = (".venv", ".venv-deploy")
#: what is not of the repository, or of no use here
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "node_modules", "output.*", "__pycache__", "tests"
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository, with this one's environments."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    for name in ENVIRONMENTS:
        (folder / name).symlink_to(ROOT / name)
    for path in (*folder.glob("requirements/*"), folder / "deploy/tools/pyproject.toml"):
        os.utime(path, (0, 0))  # so that make installs nothing anew into the environments
    return folder


def commands(page: Path) -> list[str]:
    """The lines of the block that begins with FIRST, and the command that removes all of it."""
    text = page.read_text()
    (block,) = re.findall(rf"```\n({re.escape(FIRST)}.*?)```", text, flags=re.DOTALL)
    (destroy,) = re.findall(r"`(bentoctl destroy [^`]+)`", text)
    return [*block.splitlines(), destroy]


@long
@needs_terraform
@pytest.mark.usefixtures("tools")
def test_the_commands_as_they_are_printed(clone: Path, tmp_path: Path) -> None:
    (one,) = ready("aws-ec2", "ec2/deployment_config.yaml")
    overrides, laid = Overrides(one), tmp_path / "laid"
    laid.mkdir()
    overrides.lay(laid)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/podman").write_text(BUILDER)
    (tmp_path / "bin/podman").chmod(0o755)
    (tmp_path / "answers").write_text("yes\n")  # to what apply and destroy ask
    lines = ["set -e", f"export PATH={tmp_path / 'bin'}:$PATH"]
    for line in commands(clone / "deploy/README.md"):
        lines += [f"exec <{tmp_path / 'answers'}", line]
        lines += [f"cp {laid}/* ."] if " generate " in line else []
    with stand_in() as aws:
        overrides.prepare(one.document, aws.client)
        before = inventory(aws.client)
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=clone,
            env={
                **os.environ,
                **aws.env,
                **configuration(tmp_path),
                "BENTOCTL_HOME": str(tmp_path / "bentoctl"),
                "BENTOML_HOME": str(tmp_path / "bentoml"),
                "BENTOCTL_BUILDER": "podman",
                "BENTOCTL_WAIT_S": "0",  # the stand-in starts no machine
                "NOTES": str(tmp_path),
                "NO_COLOR": "1",
            },
            text=True,
            capture_output=True,
            check=False,
        )
        left = inventory(aws.client) - before
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    counts = re.findall(r"Resources: (\d+) added, 0 changed, (\d+) destroyed", done.stdout)
    assert counts == [("30", "0"), ("0", "30")]
    assert re.search(r"curl .*/txt2img", done.stdout), "terraform output prints it"
    called = (tmp_path / "calls").read_text()
    assert re.search(
        r"^push \S+\.dkr\.ecr\.us-east-1\.amazonaws\.com/stable-diffusion:", called, re.M
    )
    assert (
        "models/embedded/unet/diffusion_pytorch_model.safetensors"
        in (tmp_path / "files").read_text()
    )
    assert not left
