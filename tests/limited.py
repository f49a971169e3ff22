"""Python code in a process of its own that may use so many seconds of CPU time."""

from __future__ import annotations

import subprocess
import sys

from tests.steps import ROOT

#: The limit begins once the imports are done. The kernel ends a process that goes over it, also
#: within a regular expression. It counts CPU time: a busy machine changes nothing.
LIMIT = """
import resource, time
spent = int(time.process_time()) + 1
resource.setrlimit(resource.RLIMIT_CPU, (spent + {seconds}, spent + {seconds}))
"""


def run(imports: str, code: str, seconds: int = 5) -> subprocess.CompletedProcess[str]:
    """Run the imports, then the code with the limit; the result has status and output."""
    return subprocess.run(
        [sys.executable, "-c", imports + LIMIT.format(seconds=seconds) + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
