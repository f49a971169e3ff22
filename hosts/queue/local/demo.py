"""`make queue-demo`: the queue on this machine, without an AWS account.

A stand-in for AWS, the topology of `deploy/queue/terraform`, the front door behind HTTP, one worker
process with the embedded model; 20 tasks of both forms, and their images as they appear.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hosts.queue.local import stand_in, workers
from hosts.queue.local.system import RUNTIMES, Client, system

PROMPTS = (
    "View of a cyberpunk city",
    "A red circle on a blue background",
    "A green square on a white background",
    "Mountains at sunset",
    "A starry sky over the sea",
)


def body(number: int, example: str) -> tuple[str, dict[str, Any]]:
    """(path, body): newer and older form, text to image and image to image, by turns."""
    image = {"prompt": PROMPTS[number % len(PROMPTS)], "steps": 20, "width": 128, "height": 128}
    kind = "image-to-image" if number % 4 > 1 else "text-to-image"
    link = example if number % 4 > 1 else None
    if number % 2:
        scripts = {
            "task": kind,
            "sd_model_checkpoint": RUNTIMES["embedded"],
            "id_task": f"demo-{number:02}",
            "uid": "demo",
            "save_dir": "demo",
        }
        linked = {"image_link": link} if link else {}
        return "/v1alpha1", {**image, "alwayson_scripts": {**scripts, **linked}}
    metadata = {
        "id": f"demo-{number:02}",
        "runtime": "embedded",
        "tasktype": kind,
        "prefix": "demo",
        "context": {"number": number},
    }
    linked = {"image_link": link} if link else {}
    content = {"alwayson_scripts": {}, **image, **linked}
    return "/v1alpha2", {"task": {"metadata": metadata, "content": content}}


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(prog="python -m hosts.queue.local.demo", description=__doc__)
    parser.add_argument(
        "--aws", choices=stand_in.KINDS, default=stand_in.KINDS[0], help="the stand-in"
    )
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("output.queue-demo"))
    parser.add_argument("--example", type=Path, default=workers.ROOT / "input.jpg")
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    print(f"starting {arguments.aws}, the topology, the front door and a worker ...", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        system(arguments.aws, Path(folder)) as (client, made, session),
    ):
        key = "inputs/example.jpg"
        session.client("s3").upload_file(str(arguments.example), made.bucket, key)
        started = time.monotonic()
        waiting = [
            _send(client, number, f"s3://{made.bucket}/{key}") for number in range(arguments.tasks)
        ]
        _collect(client, waiting, arguments.output)
    print(
        f"{arguments.tasks} tasks in {time.monotonic() - started:.1f} s; "
        f"images and manifests are in {arguments.output}/"
    )


def _send(client: Client, number: int, example: str) -> str:
    path, sent = body(number, example)
    answer = client.call("POST", path, sent)
    return str(answer.get("id") or answer["id_task"])


def _collect(client: Client, waiting: list[str], output: Path) -> None:
    """Fetch what is finished, until all is."""
    with tqdm(total=len(waiting), unit="task") as bar:
        while waiting:
            time.sleep(0.2)
            for id in list(waiting):
                answer = client.call("GET", f"/v1alpha2/tasks/{id}?prefix=demo")
                if answer["status"] == "queued":
                    continue
                waiting.remove(id)
                bar.update()
                bar.write(f"{id}: {answer['status']} {answer.get('error', '')}".rstrip())
                (output / f"{id}.json").write_text(json.dumps(answer, indent=1))
                for number, link in enumerate(answer["images"]):
                    urllib.request.urlretrieve(link, output / f"{id}-{number}.png")


if __name__ == "__main__":
    main()
