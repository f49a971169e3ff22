"""What an instance of the EC2 operator does before each start of the service."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

BOOT = Path(__file__).parent / "golden" / "https.boot.sh"
AWS = """\
#!/bin/bash
echo "aws $*" >> "$LOG"
case "$*" in
  "ssm get-parameter "*) [ -z "$KEYS_FAIL" ] && echo "$KEYS" ;;
esac
"""
DOCKER = """\
#!/bin/bash
echo "docker $*" >> "$LOG"
case "$*" in
  login*) cat > /dev/null ;;
  "image inspect"*) exit 1 ;;
  pull*) [ -z "$PULL_FAILS" ] || { echo "toomanyrequests: 'slow down', please" >&2; exit 18; } ;;
esac
"""


def prepare(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the boot script's program in this folder instead of /etc and /opt."""
    found = re.search(
        r"stable-diffusion-prepare <<'PREPARE'\n(.*?)\nPREPARE\n", BOOT.read_text(), re.S
    )
    assert found
    for name, text in {"aws": AWS, "docker": DOCKER}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "env").write_text("SD_DEVICE=cuda\n")
    script = found[1].replace("/etc/stable-diffusion/", f"{folder}/").replace("/run/", f"{folder}/")
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        env={
            "PATH": path,
            "LOG": str(folder / "log"),
            "KEYS": "",
            "KEYS_FAIL": "",
            "PULL_FAILS": "",
            **env,
        },
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def test_the_service_gets_its_keys(tmp_path: Path) -> None:
    done = prepare(tmp_path, KEYS="one,two")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env.run").read_text() == "SD_DEVICE=cuda\nSD_API_KEYS=one,two\n"
    assert "docker pull" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("env", [{"KEYS_FAIL": "yes"}, {"KEYS": ""}])
def test_without_its_keys_the_service_does_not_start(tmp_path: Path, env: dict[str, str]) -> None:
    """An empty SD_API_KEYS would open it to everybody."""
    done = prepare(tmp_path, **env)
    assert done.returncode != 0
    assert "API keys" in told(tmp_path)[-1]
    assert "SD_API_KEYS" not in (tmp_path / "env.run").read_text()
    assert "\ndocker" not in (tmp_path / "log").read_text()


def told(folder: Path) -> list[str]:
    """What was put into the log group, in order, and the calls of docker between."""
    lines = (folder / "log").read_text().splitlines()
    found = (
        re.search(r"^aws logs put-log-events .*message='([^']*)'$|^(docker \w+)", one)
        for one in lines
    )
    return [one[1] or one[2] for one in found if one]


def test_the_log_group_hears_what_it_is_doing(tmp_path: Path) -> None:
    """`bentoctl apply` shows the last line of that group while it waits."""
    done = prepare(tmp_path, KEYS="one")
    assert done.returncode == 0, done.stderr
    lines = told(tmp_path)
    assert any("model" in line for line in lines[: lines.index("docker login")])
    assert "pulling the image" in lines[lines.index("docker pull") - 1]
    assert "pulling the image" in done.stdout, "the journal has it, too"
    assert "one" not in (tmp_path / "log").read_text().replace("none", ""), "keys are not told"


def test_the_log_group_hears_why_it_failed(tmp_path: Path) -> None:
    done = prepare(tmp_path, KEYS="one", PULL_FAILS="yes")
    assert done.returncode == 18
    assert re.search(
        "failed with status 18: .*toomanyrequests: +slow down +please", told(tmp_path)[-1]
    )
    assert "toomanyrequests" in done.stdout
