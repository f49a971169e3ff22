"""Many runtimes and two tiers, on moto (which authorizes every call) and ministack: none is lost.

The Terraform module is applied with its policies. One of the runtimes is dynamic: its worker loads
the models that tasks name, more than its memory holds. Workers are killed and stopped meanwhile.

`LONG=1 .venv/bin/python -m pytest tests/hosts/queue/test_runtimes.py -s` is the full run, of 1,000
tasks and 8 workers on each; with `TASKS=36` it is one of 3 workers. `-k moto` or `-k ministack`
picks one of the two.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hosts.queue.local import stand_in
from hosts.queue.local.topology import Topology
from tests.hosts.queue import chaos, faults
from tests.hosts.queue.account import PAYING, Account, applied
from tests.long import LONG

pytestmark = [
    pytest.mark.skipif(not LONG, reason="takes many minutes: LONG=1 runs it"),
    pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not installed"),
]
COUNT = int(os.environ.get("TASKS", "1000"))
WHOLE = COUNT >= 100
STATIC, MODELS = (7, 5) if WHOLE else (2, 3)
RUNTIMES = {f"sd{number}": f"{number}.safetensors" for number in range(STATIC)}
KILL, TERM = signal.SIGKILL, signal.SIGTERM
ENDS = [KILL, TERM, TERM] * (5 if WHOLE else 1)


@pytest.mark.parametrize("kind", stand_in.KINDS)
def test_every_task_of_every_runtime_ends_once(
    kind: str, tiny_model: Callable[[str], Path], make_module: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    for number in range(MODELS):
        shutil.copytree(tiny_model("sd1"), folder / f"model-{number}")
    given = {"runtimes": RUNTIMES, "dynamic": True, "visibility_s": chaos.VISIBILITY_S}
    with (
        applied(make_module(tmp_path), given, kind) as account,
        faults.proxy(account.endpoint, 0.05, {"s3", "sns"}) as (address, failures),
    ):
        topology, sent = described(account), bodies()
        model = {"SD_MODEL": str(tiny_model("sd1")), "WORKER_GRACE_S": "0"}
        dynamic = {"SD_MODELS_DIR": str(folder), "SD_MODELS_MEMORY_GB": f"{room(folder):.6f}"}
        settings = [
            {**account.worker(name, address), **model, **(dynamic if name == "dynamic" else {})}
            for name in topology.queues
        ]
        crew = chaos.Crew(settings, tmp_path / "workers.log")
        limit_s = 1500 + 4 * COUNT
        report = chaos.run(
            account.admin, topology, account.front, crew, sent, ENDS, limit_s=limit_s
        )
    tiers = Counter("priority" if key else "standard" for _, key in sent)
    print(f"\n{report}\n{dict(tiers)}, {len(topology.queues)} runtimes")
    print(f"{dict(failures.failed)} of {dict(failures.seen)} calls failed")
    text = crew.log.read_text()
    assert "AccessDenied" not in text and "not authorized" not in text, text[-4000:]
    assert (report.kills, report.terms) == (ENDS.count(KILL), ENDS.count(TERM))
    assert report.handed_back > 0 and min(failures.failed["s3"], failures.failed["sns"]) > 0
    assert report.results == {1: COUNT}, text[-4000:]
    assert report.status == {"completed": COUNT}, text[-4000:]
    assert report.missing_images == report.unannounced == 0, text[-4000:]
    assert report.buried == dict.fromkeys(chaos.POISON, 1), text[-4000:]


def room(folder: Path) -> float:
    """Memory for three of the models, GB: the one that stays and two others."""
    weights = sum(path.stat().st_size for path in folder.glob("model-0/**/*.safetensors"))
    return 3.5 * weights / 1e9


def bodies() -> list[tuple[dict[str, Any], str]]:
    """Tasks for all runtimes by turns, in both forms, a third of them of a paying client."""
    rng, made = random.Random(0), []
    runtimes = [*RUNTIMES, "dynamic"]
    for number, body in enumerate(chaos.bodies(COUNT)):
        runtime = runtimes[number // 2 % len(runtimes)]  # both forms for each
        model = RUNTIMES.get(runtime) or f"model-{rng.randrange(MODELS)}"
        if "task" in body:
            body["task"]["metadata"]["runtime"] = runtime
            body["task"]["content"]["alwayson_scripts"] = {"sd_model_checkpoint": model}
        else:
            body["alwayson_scripts"]["sd_model_checkpoint"] = model
        made.append((body, PAYING if number % 3 == 0 else ""))
    return made


def described(account: Account) -> Topology:
    """The applied module as a topology, with a queue that hears of every completion."""
    told, admin = account.outputs, account.admin
    sqs, sns = admin.client("sqs"), admin.client("sns")
    watch = sqs.create_queue(QueueName="watch")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=watch, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(
        TopicArn=told["results_topic"],
        Protocol="sqs",
        Endpoint=arn["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    queues = {
        name: [told["queues"][f"{name}-priority"], told["queues"][name]] for name in told["workers"]
    }
    dead = told["workers"]["dynamic"]["WORKER_DEAD_LETTER_URL"]
    topic = told["results_topic"]
    return Topology(account.tasks_topic, topic, told["bucket"], queues, dead, watch, RUNTIMES)
