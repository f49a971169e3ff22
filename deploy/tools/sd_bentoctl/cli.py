"""The console script `bentoctl`."""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """bentoctl's commands, adapted; what operators raise for users is shown without a traceback."""
    # `fs`, which bentoctl needs, still uses pkg_resources
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from bentoctl.cli import bentoctl

    from sd_bentoctl.adaptations import adapt
    from sd_bentoctl.generate import Exists

    adapt()
    try:
        bentoctl()
    except (Exists, FileNotFoundError) as error:
        print(f"bentoctl: {error}", file=sys.stderr)
        sys.exit(1)
