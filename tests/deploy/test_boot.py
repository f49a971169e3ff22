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
DOCKER = '#!/bin/bash\ncat > /dev/null\necho "docker $*" >> "$LOG"\n'


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
    script = found[1].replace("/etc/stable-diffusion/", f"{folder}/")
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", script],
        env={"PATH": path, "LOG": str(folder / "log"), "KEYS": "", "KEYS_FAIL": "", **env},
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
    assert "docker image inspect" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("env", [{"KEYS_FAIL": "yes"}, {"KEYS": ""}])
def test_without_its_keys_the_service_does_not_start(tmp_path: Path, env: dict[str, str]) -> None:
    """An empty SD_API_KEYS would open it to everybody."""
    done = prepare(tmp_path, **env)
    assert done.returncode != 0
    assert "SD_API_KEYS" not in (tmp_path / "env.run").read_text()
    assert "docker" not in (tmp_path / "log").read_text()
