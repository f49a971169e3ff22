"""Which process of pytest-xdist runs which file of tests, and in which order.

Files that use the one server of a fixture run in one process, so that it is started once. What
takes longest comes first, so that the processes end together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

#: Files whose tests use the fixture `server` (tests/conftest.py): a real `bentoml serve`.
BENTO = (
    "tests/api/mcp/test_mcp.py",
    "tests/benchmarks/test_locust.py",
    "tests/clients/test_docs.py",
    "tests/clients/test_generated.py",
    "tests/clients/test_imagine.py",
    "tests/clients/test_openai.py",
    "tests/clients/test_replays.py",
    "tests/clients/test_webui.py",
    "tests/service/test_bad_input.py",
    "tests/service/test_browser.py",
    "tests/service/test_contract.py",
    "tests/service/test_controlnets.py",
    "tests/service/test_hostile.py",
    "tests/service/test_life.py",
    "tests/service/test_metrics.py",
    "tests/service/test_prefix.py",
    "tests/ui/test_page.py",
    "tests/ui/test_setups.py",
    "tests/ui/test_standalone.py",
)
#: Files whose tests use the fixture `server` of tests/hosts/ray/conftest.py: a real Ray.
RAY = (
    "tests/hosts/ray/test_contract.py",
    "tests/hosts/ray/test_controlnets.py",
    "tests/hosts/ray/test_jobs.py",
    "tests/hosts/ray/test_life.py",
    "tests/hosts/ray/test_parity.py",
    "tests/hosts/ray/test_heal.py",  # it kills parts of the server
)
#: The longest, and of these the longest first.
FIRST = (
    "bento",
    "ray",
    "tests/deploy/eks/test_operator.py",
    "tests/deploy/test_check.py",
    "tests/hosts/queue/test_policies.py",
    "tests/hosts/queue/test_system.py",
    "tests/runnables/engine/test_unload.py",
    "tests/benchmarks/test_benchmarks.py",
    "tests/clients/test_fields.py",
    "tests/runnables/extensions/test_controlnet.py",
    "tests/runnables/engine/test_watch.py",
    "tests/hosts/queue/test_chaos.py",
    "tests/bento/test_bento.py",
    "tests/service/test_jobs_kill.py",
    "tests/deploy/eks/test_teardown.py",
    "tests/hosts/queue/test_serve.py",
    "tests/hosts/queue/test_terraform.py",
    "tests/test_commands.py",
    "tests/runnables/extensions/test_lora.py",
    "tests/deploy/test_init.py",
    "tests/hosts/queue/test_traces.py",
    "tests/hosts/ray/test_models.py",
    "tests/runnables/engine/test_parity.py",
    "tests/deploy/eks/test_scripts.py",
    "tests/api/test_schemathesis.py",
    "tests/benchmarks/test_quantization.py",
    "tests/runnables/families/test_stable_diffusion_3.py",
    "tests/runnables/test_imports.py",
    "tests/runnables/accelerators/test_placement.py",
    "tests/runnables/engine/test_hires.py",
    "tests/runnables/engine/test_random.py",
    "tests/runnables/engine/test_fairness.py",
    "tests/test_patterns.py",
    "tests/runnables/samplers/test_compile.py",
    "tests/models/training/test_evaluate.py",
    "tests/runnables/checkpoints/test_hub.py",
    "tests/runnables/extensions/test_textual_inversion.py",
    "tests/deploy/test_adaptations.py",
)


def unit(nodeid: str) -> str:
    """What a test is run together with: its file, or the files that share a server with it."""
    file = nodeid.split("::", 1)[0]
    return "bento" if file in BENTO else "ray" if file in RAY else file


def place(nodeid: str) -> tuple[int, int]:
    """A test's place in the order; those of one place stay as they are."""
    one, file = unit(nodeid), nodeid.split("::", 1)[0]
    within = RAY.index(file) if one == "ray" else 0
    return (FIRST.index(one) if one in FIRST else len(FIRST)), within


def schedule(config: pytest.Config, log: Any) -> Any:
    """xdist's schedule of files, of these units."""
    from xdist.scheduler import LoadFileScheduling  # it is not in every environment

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Units(config, log)
