"""One process of the AWS provider, which every Terraform command in a folder uses.

Else each command verifies the checksum of the provider's 700 MB, and starts it again for every
walk of its graph (a `run` of `terraform test` has several), which takes most of the processor time.
https://developer.hashicorp.com/terraform/plugin/debugging
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.check.terraform import PROVIDER


@contextlib.contextmanager
def attached(folder: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Environment for Terraform in a folder, after `terraform init` there with the same `env`.

    The provider takes its own settings, like AWS_ENDPOINT_URL, from `env`, and not from the
    environment of the commands. All its configurations are one: a module with a second `provider`
    block cannot be run so.

    Raises:
        RuntimeError: the provider does not start.
    """
    installed = folder / ".terraform" / "providers" / PROVIDER
    (program,) = installed.glob("*/*/terraform-provider-aws*")  # version and architecture
    # memory is there, and collecting it four times less often takes less time
    env = {**env, "GOGC": "400"}
    own = {**os.environ, **env, "TF_LOG_SDK": "off"}  # else each call is written down
    own.pop("AWS_CA_BUNDLE", None)  # with it, configuring a second time is an error
    process = subprocess.Popen(
        [str(program), "-debug"],
        cwd=folder,  # files that a configuration names by a relative path are read by the provider
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        for line in process.stdout:
            if found := re.search(r"TF_REATTACH_PROVIDERS='(.*)'", line):
                yield {**env, "TF_REATTACH_PROVIDERS": found[1]}
                return
        raise RuntimeError(f"{program} said no address")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
