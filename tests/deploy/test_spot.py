"""A spot instance of the EC2 operator leaves its group at the notice, and not before."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

BOOT = Path(__file__).parent / "golden" / "https.boot.sh"
#: The instance metadata service, version 2: no answer without a token, a notice at the third look.
CURL = """\
#!/bin/bash
echo "curl $*" >> "$LOG"
case "$*" in
  *"--request PUT"*"/api/token"*) echo the-token ;;
  *"X-aws-ec2-metadata-token: the-token"*/instance-id) echo i-0123 ;;
  *"X-aws-ec2-metadata-token: the-token"*/spot/instance-action)
    [ "$(grep -c spot/instance-action "$LOG")" -ge 3 ] || exit 22 ;;
  *) exit 22 ;;
esac
"""
AWS = """\
#!/bin/bash
echo "aws $*" >> "$LOG"
[ "$(grep -c "^aws " "$LOG")" -ge 2 ]
"""


def script() -> str:
    """The script as the boot script writes it."""
    found = re.search(r"stable-diffusion-spot <<'SPOT'\n(.*?)\nSPOT\n", BOOT.read_text(), re.S)
    assert found
    return found[1]


def test_it_leaves_at_the_notice_and_tries_until_it_may(tmp_path: Path) -> None:
    for name, text in {"curl": CURL, "aws": AWS, "sleep": "#!/bin/bash\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    done = subprocess.run(["bash", "-c", script()], env=env, timeout=300, check=False)
    assert done.returncode == 0
    lines = log.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("aws "))
    assert sum("spot/instance-action" in line for line in lines[:first]) == 3
    leaves = [line for line in lines if line.startswith("aws ")]
    assert len(leaves) == 2, "the call that failed was made again"
    assert "set-instance-health --instance-id i-0123 --health-status Unhealthy" in leaves[-1]
