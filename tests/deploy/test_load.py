"""An instance of the EC2 operator tells CloudWatch how much it has to do, once it serves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

BOOT = Path(__file__).parent / "golden" / "https.boot.sh"
#: What the service itself exposes: 3 requests wait, 2 images are being generated.
EXPOSED = """\
from prometheus_client import generate_latest
from runnables.metrics import Metrics
from runnables.ticket import Load
metrics = Metrics()
metrics.load(Load(waiting=3, active=2))
print(generate_latest().decode())
"""
AWS = """\
#!/bin/bash
echo "$*" >> "$LOG"
[ "$(wc -l < "$LOG")" -lt 2 ] || kill "$PPID"
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where a service loads its model, has no engine's figures yet, and then serves."""
    told = [sys.executable, "-c", EXPOSED]
    metrics = subprocess.run(told, capture_output=True, check=True).stdout
    answers = [(503, b""), (200, b""), (200, b"# nothing yet\n"), (200, b""), (200, metrics)]

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[0] if len(answers) == 1 else answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_it_reports_what_waits_and_what_is_generated(port: int, tmp_path: Path) -> None:
    found = re.search(r"stable-diffusion-load <<'LOAD'\n(.*?)\nLOAD\n", BOOT.read_text(), re.S)
    assert found
    for name, text in {"aws": AWS, "sleep": "#!/bin/bash\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log)}
    script = found[1].replace("127.0.0.1:3000", f"127.0.0.1:{port}")
    subprocess.run(["bash", "-c", script], env=env, timeout=300, check=False)
    reported = (
        "cloudwatch put-metric-data --namespace StableDiffusion --metric-name Load"
        " --dimensions Deployment=sd-public --unit Count --value 5"
    )
    assert log.read_text().splitlines() == [reported] * 2
