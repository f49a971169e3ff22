"""Three arms serve the same model: one at a time, static batches, and the engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch

from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.samplers.names import DEFAULT
from runnables.samplers.scheduler import make_scheduler
from runnables.settings import Precision, Settings

Job = tuple[TextToImage, "Future[Any]"]


class Arm(Protocol):
    """An arm generates images of complete parameters."""

    name: str

    def submit(self, parameters: TextToImage) -> Future[Any]: ...
    def close(self) -> None: ...


class Diffusers:
    """This arm is diffusers' pipeline behind a lock, as the first such services were written.

    With `largest` over 1, waiting requests of equal steps, sampler, guidance and size are generated
    in one call, as adaptive batching (BentoML's, for example) does.
    """

    def __init__(self, model: Path | str, largest: int = 1) -> None:
        import diffusers

        self.name = "static batches" if largest > 1 else "one at a time"
        self._largest = largest
        self._pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
            model, dtype=torch.float32
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._config = dict(self._pipeline.scheduler.config)
        self._config["_class_name"] = type(self._pipeline.scheduler).__name__
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, parameters: TextToImage) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.put((parameters, future))
        return future

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        kept: list[Job] = []
        while True:
            first = kept.pop(0) if kept else self._waiting.get()
            if first is None:
                return
            kept += self._arrived()
            alike = [job for job in kept if _alike(job[0], first[0])][: self._largest - 1]
            kept = [job for job in kept if job not in alike]
            self._draw([first, *alike])

    def _arrived(self) -> list[Job]:
        jobs = []
        while self._largest > 1:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._waiting.put(None)
                break
            jobs.append(job)
        return jobs

    @torch.inference_mode()
    def _draw(self, jobs: list[Job]) -> None:
        ask = jobs[0][0]
        self._pipeline.scheduler = make_scheduler(ask.scheduler or DEFAULT, self._config)
        images = self._pipeline(
            prompt=[one.prompt for one, _ in jobs],
            num_inference_steps=ask.num_inference_steps,
            guidance_scale=ask.guidance_scale,
            height=ask.height,
            width=ask.width,
            generator=[torch.Generator().manual_seed(one.seed or 0) for one, _ in jobs],
        ).images
        for (_, future), image in zip(jobs, images, strict=True):
            future.set_result(image)


class Engine:
    """This arm is the project's runnable."""

    def __init__(self, model: Path, precision: Precision = "auto") -> None:
        self.name = "engine" if precision == "auto" else f"engine, {precision}"
        self._runnable = StableDiffusionRunnable(
            Settings(model=str(model), precision=precision, max_queue_s=1e6, request_timeout_s=1e6)
        )
        self._runnable.start()

    def submit(self, parameters: TextToImage) -> Future[Any]:
        return self._runnable.submit(parameters).future

    def close(self) -> None:
        self._runnable.close()


ARMS: dict[str, Callable[[Path], Arm]] = {
    "one at a time": Diffusers,
    "static batches": lambda model: Diffusers(model, largest=8),
    "engine": Engine,
    "engine, bf16": lambda model: Engine(model, "bf16"),
}


def _alike(one: TextToImage, other: TextToImage) -> bool:
    fields = ("num_inference_steps", "scheduler", "guidance_scale", "height", "width")
    return all(getattr(one, name) == getattr(other, name) for name in fields)
