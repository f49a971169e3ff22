"""Exact repeats share a generation that is under way, or its result, and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runnables import repeats
from runnables.engine.batch import Batch
from runnables.errors import Cancelled, DeadlineExceeded, GenerationFailed, NotReady
from runnables.parameters import AnyParameters, ImageToImage, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Caller, GeneratedImage, Inputs, Progress, Result, Ticket
from tests.insides import engine_of
from tests.runnables.extensions.test_lora import write

Start = Callable[..., StableDiffusionRunnable]
KEPT_MB = 64.0


def wanted(seed: int | None = 1, **options: Any) -> TextToImage:
    steps = {"num_inference_steps": 4, "scheduler": "ddim"}
    return TextToImage(**{"prompt": "a cat", "seed": seed, **steps, **options})


class Service:
    """A runnable that keeps results; the first step of a `held` request waits for `release`."""

    def __init__(self, runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runnable = runnable
        self.generated: list[Ticket] = []
        self._gate, self._begun = threading.Event(), threading.Event()
        engine = engine_of(runnable)
        submit = engine.submit

        def counted(ticket: Ticket, inputs: Inputs) -> None:
            submit(ticket, inputs)
            self.generated.append(ticket)

        monkeypatch.setattr(engine, "submit", counted)

    def held(self, parameters: AnyParameters, **options: Any) -> Ticket:
        """Submit a request, and return when it has begun."""
        self._gate.clear()
        self._begun.clear()
        ticket = self.runnable.submit(parameters, on_step=self._hold, **options)
        assert self._begun.wait(300)
        return ticket

    def release(self) -> None:
        self._gate.set()

    def run(self, parameters: AnyParameters, inputs: Inputs | None = None) -> Result:
        return self.runnable.submit(parameters, inputs or Inputs()).future.result(timeout=300)

    def _hold(self, _: Progress) -> None:
        self._begun.set()
        assert self._gate.wait(300)


@pytest.fixture(scope="module")
def runnable(start: Start, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionRunnable:
    return start("sd1", repeats_mb=KEPT_MB, lora_dir=str(tmp_path_factory.mktemp("loras")))


@pytest.fixture
def service(
    runnable: StableDiffusionRunnable, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    assert runnable._repeats is not None
    runnable._repeats.forget()
    service = Service(runnable, monkeypatch)
    yield service
    service.release()


def pixels(result: Result) -> Any:
    return np.asarray(result.images[0].image)


def test_an_equal_request_joins_the_one_under_way(service: Service) -> None:
    first = service.held(wanted())
    seen: list[Progress] = []
    second = service.runnable.submit(wanted(output_format="png"), on_step=seen.append)
    assert second.progress == first.progress
    service.release()
    generated, joined = (one.future.result(timeout=300) for one in (first, second))
    assert len(service.generated) == 1
    assert (generated.cache, joined.cache) == (None, "joined")
    assert np.array_equal(pixels(generated), pixels(joined))
    assert [progress.step for progress in seen] == [2, 3, 4]
    assert first.progress == second.progress == Progress("done", 4, 4)
    assert generated.cost_units > 0 and joined.cost_units == 0, "the machine worked once"
    assert joined.parameters.output_format == "png", "each gets its own parameters back"
    assert generated.parameters.output_format is None


def test_many_that_come_together_are_generated_once(service: Service) -> None:
    results: list[Result] = []
    run = lambda: results.append(service.run(wanted(2)))  # noqa: E731
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(results) == 8
    assert len(service.generated) == 1


def test_a_repeat_is_answered_from_the_result(service: Service) -> None:
    first, again = service.run(wanted()), service.run(wanted(priority="high", deadline_s=60))
    assert len(service.generated) == 1
    assert (first.cache, again.cache, again.cost_units) == (None, "hit", 0.0)
    assert np.array_equal(pixels(first), pixels(again))
    assert again.images[0].seed == 1
    assert again.timings.keys() == first.timings.keys()
    assert again.parameters.priority == "high"


def test_defaults_that_are_spelt_out_are_the_same_request(service: Service) -> None:
    complete = service.run(wanted()).parameters
    spelt = {"guidance_scale": complete.guidance_scale, "height": complete.height}  # type: ignore[union-attr]
    assert service.run(wanted(**spelt)).cache == "hit"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": None},
        {"prompt": "a dog"},
        {"negative_prompt": "a dog"},
        {"num_inference_steps": 5},
        {"guidance_scale": 3.0},
        {"guidance_rescale": 0.5},
        {"guidance_interval": (0.0, 0.5)},
        {"scheduler": "euler"},
        {"width": 72},
        {"num_images_per_prompt": 2},
        {"safety_check": False},
        {"clip_skip": 1},
        {"prompt_syntax": "compel"},
        {"deep_cache_interval": 2},
        {"hires": {"scale": 1.5}},
    ],
    ids=str,
)
def test_one_other_parameter_is_another_request(service: Service, other: dict[str, Any]) -> None:
    assert service.run(wanted()).cache is None
    assert service.run(wanted(**other)).cache is None


def test_a_random_seed_is_never_repeated(service: Service) -> None:
    assert [service.run(wanted(None)).cache for _ in range(2)] == [None, None]


def test_the_pictures_count(service: Service, photo: Image.Image) -> None:
    parameters = ImageToImage(prompt="a cat", num_inference_steps=4, seed=1)
    turned = photo.transpose(Image.Transpose.ROTATE_180)
    caches = [service.run(parameters, Inputs(one)).cache for one in (photo, turned, photo.copy())]
    assert caches == [None, None, "hit"]


def test_enlarging_has_no_seed_and_is_repeated(service: Service, photo: Image.Image) -> None:
    caches = [service.run(Upscale(), Inputs(photo)).cache for _ in range(2)]
    assert caches == [None, "hit"]
    assert service.run(Upscale(scale=3), Inputs(photo)).cache is None


def test_a_lora_that_was_replaced_counts(service: Service) -> None:
    folder = Path(service.runnable.settings.lora_dir or "")
    parameters = wanted(loras=[{"name": "one"}])
    model = Path(service.runnable.settings.model)
    write(folder, "one", model, seed=1)
    assert [service.run(parameters).cache for _ in range(2)] == [None, "hit"]
    write(folder, "new", model, seed=2)
    (folder / "new.safetensors").replace(folder / "one.safetensors")
    assert service.run(parameters).cache is None


def test_a_model_that_was_read_again_counts(service: Service) -> None:
    name = service.runnable.models()[0]["name"]
    assert service.run(wanted()).cache is None
    service.runnable.change_model(name, load=False)
    service.runnable.change_model(name, load=True)
    assert service.run(wanted()).cache is None


def test_a_failure_is_told_to_all_and_not_kept(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.held(wanted())
    second = service.runnable.submit(wanted())
    with monkeypatch.context() as broken:
        broken.setattr(Batch, "_guide", lambda *_: 1 / 0)
        service.release()
        for ticket in (first, second):
            with pytest.raises(GenerationFailed):
                ticket.future.result(timeout=300)
        assert second.progress.state == "failed"
    assert service.run(wanted()).cache is None


def test_a_cancel_of_one_keeps_the_other(service: Service) -> None:
    first = service.held(wanted())
    second = service.runnable.submit(wanted())
    first.cancel()
    with pytest.raises(Cancelled):
        first.future.result(timeout=0)
    service.release()
    result = second.future.result(timeout=300)
    assert len(service.generated) == 1
    assert result.images and result.cost_units > 0, "who is left pays"
    assert first.progress.state == "cancelled"


def test_a_cancel_of_all_frees_the_rows(service: Service) -> None:
    tickets = [service.held(wanted(num_inference_steps=150))]
    tickets += [service.runnable.submit(wanted(num_inference_steps=150)) for _ in range(2)]
    for ticket in tickets:
        ticket.cancel()
    service.release()
    (shared,) = service.generated
    with pytest.raises(Cancelled):
        shared.future.result(timeout=300)
    assert shared.progress.step < 150
    assert service.run(wanted()).images


def test_each_keeps_its_own_deadline(service: Service) -> None:
    """The engine's own goes on to the latest."""
    first = service.held(wanted(deadline_s=100))
    second = service.runnable.submit(wanted(deadline_s=0.2))
    with pytest.raises(DeadlineExceeded):
        second.future.result(timeout=300)
    (shared,) = service.generated
    assert shared.parameters.deadline_s == pytest.approx(100)
    third = service.runnable.submit(wanted(deadline_s=300))
    assert (shared.parameters.deadline_s or 0) > 299
    service.release()
    for ticket in (first, third):
        assert ticket.future.result(timeout=300).images


def test_a_lower_priority_holds_up_no_higher_one(service: Service) -> None:
    first = service.held(wanted(priority="low"))
    second = service.runnable.submit(wanted(priority="high"))
    service.release()
    assert first.future.result(timeout=300).images
    assert second.future.result(timeout=300).cache is None


def test_it_is_served_as_the_caller_that_was_served_least(service: Service) -> None:
    engine = engine_of(service.runnable)
    busy, idle = Caller("busy"), Caller("idle")
    first = service.held(wanted(), caller=busy)
    (shared,) = service.generated
    assert shared.caller == busy
    engine._turns.charge(busy, 10.0)
    second = service.runnable.submit(wanted(), caller=idle)
    assert shared.caller == idle
    second.cancel()
    assert shared.caller == busy
    service.release()
    assert first.future.result(timeout=300).images


def test_the_least_recently_used_results_make_room() -> None:
    kept = repeats.Repeats(None, Settings(repeats_mb=0.1))  # type: ignore[arg-type]
    image = Image.new("RGB", (100, 100))  # 40 kB, so that two fit
    result = Result((GeneratedImage(image, 1),), wanted(), {})
    for key in ("a", "b"):
        kept._keep(key, result)
    assert kept._answer("a", repeats.Member(wanted()), _plan())
    kept._keep("c", result)
    assert list(kept._kept) == ["a", "c"]
    kept._keep("large", Result((GeneratedImage(image.resize((200, 200)), 1),), wanted(), {}))
    assert list(kept._kept) == ["a", "c"], "it would not fit alone"


def test_prompts_take_room_too_and_the_sum_is_right_after_many() -> None:
    kept = repeats.Repeats(None, Settings(repeats_mb=1.0))  # type: ignore[arg-type]
    image = GeneratedImage(Image.new("RGB", (8, 8)), 1)
    for index in range(20):
        result = Result((image,), wanted(prompt="\U0001f600" * 30_000), {})  # 240 kB
        kept._keep(str(index % 13), result)
    assert len(kept._kept) == 4


def _plan() -> Any:
    from runnables.ticket import Plan

    return Plan(wanted(), 4, 1.0, model=1)


def test_nothing_is_answered_while_the_service_stops(start: Start) -> None:
    runnable = start("sd1", repeats_mb=KEPT_MB)
    assert runnable.txt2img(wanted()).images
    first = runnable.submit(wanted(num_inference_steps=20))
    second = runnable.submit(wanted(num_inference_steps=20))
    assert runnable.drain(60)
    assert first.future.done() and second.future.done()
    with pytest.raises(NotReady):
        runnable.submit(wanted())


def test_it_is_off_by_default(start: Start) -> None:
    runnable = start("sd1")
    assert [runnable.txt2img(wanted()).cache for _ in range(2)] == [None, None]
    assert runnable._repeats is None
