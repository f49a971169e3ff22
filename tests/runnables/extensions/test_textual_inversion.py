"""Textual inversions act as diffusers' load_textual_inversion does, in mixed batches."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runnables.checkpoints.checkpoint import Compiled
from runnables.engine import denoise
from runnables.engine.loaded_model import LoadedModel
from runnables.errors import ConfigurationError, InvalidInput, UnknownName
from runnables.extensions import extensions_of
from runnables.extensions.base import Context
from runnables.extensions.textual_inversion.extension import ConceptText, TextualInversions
from runnables.extensions.textual_inversion.vocabulary import (
    MAX_VECTORS,
    Concept,
    Vocabulary,
    _twin,
)
from runnables.families.text.prompts import Text
from runnables.parameters import LoraUse, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings
from runnables.ticket import Inputs, Ticket
from runnables.upscalers.library import Upscalers
from tests.insides import base_of
from tests.runnables.engine import reference
from tests.runnables.extensions import test_lora
from tests.tiny import TEXT_WIDTH, TEXT_WIDTH_2

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
KINDS = ["sd1", "sd2", "sdxl"]
VECTORS = {"<toy>": 1, "bad-hands-5": 3, "style.one": 2}
LONG = "a red <toy>, " * 12 + "sitting on a green bad-hands-5 mat. " * 3
SHAPES = {"clip_l": TEXT_WIDTH, "clip_g": TEXT_WIDTH_2}


def write(folder: Path, kind: str, vectors: dict[str, int] = VECTORS) -> None:
    """Write files of so many vectors, by name, in SDXL's form or the others'."""
    generator = torch.Generator().manual_seed(0)
    for name, count in vectors.items():
        widths = SHAPES if kind == "sdxl" else {"emb_params": TEXT_WIDTH}
        generated = {
            key: torch.randn(count, width, generator=generator) * 0.3
            for key, width in widths.items()
        }
        save_file(generated, folder / f"{name}.safetensors")


def wanted(*embeddings: str, seed: int = 1, **options: Any) -> TextToImage:
    arguments = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": seed}
    return TextToImage(**(arguments | options), embeddings=embeddings)


def learned(model: Path, folder: Path, names: Iterable[str], target: Path) -> Path:
    """Return a copy of the model into which diffusers has loaded these embeddings."""
    copied: Path = shutil.copytree(model, target)
    load(reference.pipeline(copied, TextToImage), folder, names)
    return copied


def load(pipeline: Any, folder: Path, names: Iterable[str]) -> None:
    """Load them as diffusers does; SDXL's pair as its documentation says."""
    for name in names:
        tensors = load_file(folder / f"{name}.safetensors")
        if "clip_g" not in tensors:
            pipeline.load_textual_inversion(
                str(folder), weight_name=f"{name}.safetensors", token=name
            )
            continue
        for key, number in {"clip_l": "", "clip_g": "_2"}.items():
            encoder = getattr(pipeline, f"text_encoder{number}")
            tokenizer = getattr(pipeline, f"tokenizer{number}")
            pipeline.load_textual_inversion(
                tensors[key], token=name, text_encoder=encoder, tokenizer=tokenizer
            )


def difference(image: Any, pixels: np.ndarray) -> int:
    return int(np.abs(np.asarray(image).astype(int) - pixels.astype(int)).max())


def generated(runnable: StableDiffusionRunnable, one: TextToImage) -> np.ndarray:
    return np.asarray(runnable.txt2img(one).images[0].image)


def encoded(family: Any, folder: Path, prompts: list[str], **options: Any) -> list[Any]:
    """Return the prompts with all embeddings of the folder, encoded."""
    extension = TextualInversions(family, Context(Settings(embeddings_dir=str(folder))))
    words = extension.text(extension.load(wanted(*VECTORS)))
    with torch.inference_mode():
        encoded: list[Any] = family.encode(
            [Text(prompt, additions=(words,), **options) for prompt in prompts]
        )
        return encoded


def _encode(diffuser: Any, prompt: str) -> Any:
    """Encode as diffusers does: hidden states first, SDXL's pooled projection third."""
    options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    return diffuser.encode_prompt(prompt, device="cpu", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_embeddings_in_one_batch_equal_diffusers(
    kind: str, start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, kind)
    runnable = start(kind, embeddings_dir=str(tmp_path))
    every = [
        wanted(),
        wanted("<toy>", prompt="a <toy>, red"),
        wanted("bad-hands-5", negative_prompt="bad-hands-5 dog", seed=2),
        wanted("<toy>", "bad-hands-5", prompt="my<toy>s", negative_prompt="x, bad-hands-5"),
        wanted("style.one", prompt="style.one style.one", guidance_scale=1.0),
        wanted(prompt="a <toy>, red", negative_prompt="bad-hands-5 dog"),
        wanted("bad-hands-5", "<toy>", prompt="bad-hands-5 <toy>", clip_skip=1, seed=3),
    ]
    tickets = [runnable.submit(one) for one in every]
    images = []
    for i, (one, ticket) in enumerate(zip(every, tickets, strict=True)):
        result = ticket.future.result(timeout=300)
        images.append(np.asarray(result.images[0].image))
        folder = learned(tiny_model(kind), tmp_path, one.embeddings, tmp_path / str(i))
        expected = reference.generate(folder, result.parameters)
        assert difference(images[-1], expected) <= 2, one.embeddings
    assert difference(images[1], images[0]) > 2
    assert (
        difference(images[2], generated(runnable, every[2].model_copy(update={"embeddings": ()})))
        > 2
    )


@pytest.mark.parametrize("kind", KINDS)
def test_encodings_equal_diffusers(
    kind: str, start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, kind)
    base = base_of(start(kind))
    prompts = ["a <toy>", "bad-hands-5", "style.one, <toy>; bad-hands-5 bad-hands-5", "", "a cat"]
    folder = learned(tiny_model(kind), tmp_path, VECTORS, tmp_path / "model")
    diffuser = reference.pipeline(folder, TextToImage)
    for prompt, ours in zip(prompts, encoded(base, tmp_path, prompts), strict=True):
        theirs = _encode(diffuser, prompt)
        assert (ours.hidden_states - theirs[0][0]).abs().max() < 1e-5
        if kind == "sdxl":
            assert (ours.pooled - theirs[2][0]).abs().max() < 1e-5


def test_a_legacy_text_encoder_pools_where_diffusers_does(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    """With eos_token_id 2, as SDXL's has it, transformers pools at the largest id."""
    model = shutil.copytree(tiny_model("sdxl"), tmp_path / "legacy")
    config = model / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 2}))
    write(tmp_path, "sdxl")
    one = wanted("bad-hands-5", "<toy>", prompt="a <toy> bad-hands-5 dog")
    image = generated(start("sdxl", model=str(model), embeddings_dir=str(tmp_path)), one)
    folder = learned(model, tmp_path, one.embeddings, tmp_path / "model")
    assert difference(image, reference.generate(folder, one)) <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_lengths_equal_compel(
    kind: str, start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    from compel import CompelForSD, CompelForSDXL, DiffusersTextualInversionManager

    write(tmp_path, kind)
    base = base_of(start(kind))
    folder = learned(tiny_model(kind), tmp_path, VECTORS, tmp_path / "model")
    diffuser = reference.pipeline(folder, TextToImage)
    compel = (CompelForSDXL if kind == "sdxl" else CompelForSD)(
        diffuser, DiffusersTextualInversionManager(diffuser)
    )
    weighted = ["(bad-hands-5)1.4 and a (red <toy>)0.6", '("<toy>", "bad-hands-5").blend(1, 0.5)']
    for syntax, prompts in {"compel": [*weighted, f"{LONG} <toy>++"], "plain": [LONG]}.items():
        for prompt, ours in zip(
            prompts, encoded(base, tmp_path, prompts, syntax=syntax), strict=True
        ):
            theirs = compel(prompt).embeds[0]
            assert (ours.hidden_states - theirs).abs().max() < 1e-5, prompt
            if kind == "sdxl":  # knows no weights, and what diffusers reads
                assert (ours.pooled - _encode(diffuser, prompt)[2][0]).abs().max() < 1e-5, prompt


def test_a_lora_and_an_embedding_together_equal_diffusers(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    model, loras = tiny_model("sd1"), tmp_path / "loras"
    loras.mkdir()
    write(tmp_path, "sd1")
    test_lora.write(loras, "one", model)
    one = wanted("bad-hands-5", prompt="a bad-hands-5", loras=(LoraUse(name="one", weight=0.8),))
    image = generated(start("sd1", embeddings_dir=str(tmp_path), lora_dir=str(loras)), one)
    folder = learned(model, tmp_path, one.embeddings, tmp_path / "model")
    assert difference(image, test_lora.expected(folder, loras, one)) <= 2


def test_prompts_are_converted_as_diffusers_does(start: Start) -> None:
    from diffusers.loaders import TextualInversionLoaderMixin

    base = base_of(start("sd1"))
    concepts = tuple(Concept(name, (torch.zeros(n, 4),)) for name, n in VECTORS.items())
    vocabulary = Vocabulary(base.encoders[0].tokenizer, concepts, 0)
    loader = TextualInversionLoaderMixin()
    for prompt in ("", "a cat", "a <toy>bad-hands-5, style.one", "bad-hands-5_1 style.one_2", LONG):
        theirs = loader.maybe_convert_prompt(prompt, vocabulary.tokenizer)
        assert vocabulary.convert(prompt) == theirs


def test_a_twin_tokenizes_as_a_copy_does() -> None:
    from transformers import CLIPTokenizer

    own = CLIPTokenizer.from_pretrained(f"{EMBEDDED_MODEL}/tokenizer")
    twin, copied = _twin(own), copy.deepcopy(own)
    whole = {"padding": "max_length", "max_length": 77, "truncation": True}
    for tokenizer in (twin, copied):
        tokenizer.add_tokens(["<toy>", "Big-Hands"])
    for prompt in ("", "A red circle", "it's a<toy> big-hands <|endoftext|> x", "word " * 100):
        assert twin.tokenize(prompt) == copied.tokenize(prompt)
        assert twin(prompt, **whole).input_ids == copied(prompt, **whole).input_ids
        assert "<toy>" not in own.tokenize(prompt)
    assert (len(twin), len(own)) == (len(copied), len(copied) - 2)


def test_to_a_refiner_the_names_are_ordinary_words(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    import diffusers

    write(tmp_path, "sdxl")
    refiner, one = tiny_model("sdxl-refiner"), wanted("<toy>", prompt="a <toy>")
    image = generated(start("sdxl", refiner=str(refiner), embeddings_dir=str(tmp_path)), one)
    first = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny_model("sdxl"))
    load(first, tmp_path, one.embeddings)
    second = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner)
    options = {"prompt": "a <toy>", "num_inference_steps": 4, "guidance_scale": 5.0}
    options["generator"] = torch.Generator().manual_seed(1)
    latents = first(**options, denoising_end=0.8, output_type="latent").images
    pixels = second(**options, image=latents, denoising_start=0.8, output_type="np").images[0]
    assert difference(image, (pixels * 255).round()) <= 2


def test_one_encoder_of_sdxl_reads_its_part_of_the_pair(
    start: Start, tiny_model: TinyModel, tmp_path: Path
) -> None:
    write(tmp_path, "sdxl")
    refiner = base_of(start("sdxl-refiner", embeddings_dir=str(tmp_path)))
    assert refiner is not None
    extension = TextualInversions(refiner, Context(Settings(embeddings_dir=str(tmp_path))))
    (concept,) = extension.load(wanted("<toy>"))
    own = load_file(tmp_path / "<toy>.safetensors")["clip_g"]
    assert torch.equal(concept.vectors[0], own)


def test_every_form_of_a_file_is_read(start: Start, tmp_path: Path) -> None:
    vectors = torch.randn(2, TEXT_WIDTH) * 0.3
    save_file({"emb_params": vectors}, tmp_path / "webui.safetensors")
    save_file({"<any-token>": vectors}, tmp_path / "theirs.safetensors")
    save_file({"<any-token>": vectors[0]}, tmp_path / "flat.safetensors")
    save_file({"<any-token>": vectors[:1].half()}, tmp_path / "half.safetensors")
    runnable = start("sd1", embeddings_dir=str(tmp_path))
    images = {
        name: generated(runnable, wanted(name, prompt=f"a {name}"))
        for name in ("webui", "theirs", "flat", "half")
    }
    assert difference(images["webui"], images["theirs"]) == 0
    assert difference(images["flat"], images["half"]) <= 2
    assert difference(images["webui"], images["flat"]) > 2


def test_a_name_may_begin_another_and_have_any_letter_case(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sd1", {"toy-dog": 2, "toy-dogs": 3})
    for name, source in {"one": "toy-dog", "two": "toy-dogs"}.items():
        shutil.copy(tmp_path / f"{source}.safetensors", tmp_path / f"<{name}>.safetensors")
    runnable = start("sd1", embeddings_dir=str(tmp_path))
    alike = wanted("toy-dog", "toy-dogs", prompt="a toy-dogs toy-dog x")
    apart = wanted("<one>", "<two>", prompt="a <two> <one> x")
    assert difference(generated(runnable, alike), generated(runnable, apart)) == 0
    for name in ("one", "two"):  # diffusers reads only the first vector of a name with capitals
        shutil.copy(tmp_path / f"<{name}>.safetensors", tmp_path / f"My-{name}.safetensors")
    for prompt in ("a My-two My-one x", "a my-two MY-ONE x"):
        capital = wanted("My-one", "My-two", prompt=prompt)
        assert difference(generated(runnable, capital), generated(runnable, apart)) == 0
    upper = wanted("<two>", "<one>", prompt="A <TWO> <One> X")
    assert difference(generated(runnable, upper), generated(runnable, apart)) == 0
    weighted = {"prompt": "a (<TWO>)1.2 <One>", "prompt_syntax": "compel"}
    lower = weighted | {"prompt": "a (<two>)1.2 <one>"}
    assert (
        difference(
            generated(runnable, wanted("<one>", "<two>", **weighted)),
            generated(runnable, wanted("<one>", "<two>", **lower)),
        )
        == 0
    )


def test_prompts_with_the_same_embeddings_are_kept_under_the_same_key() -> None:
    one, two = (SimpleNamespace(number=number) for number in (1, 2))
    kept: Any = ConceptText((one, two))  # type: ignore[arg-type]
    assert kept.key == ConceptText((one, two)).key  # type: ignore[arg-type]
    assert kept.key != ConceptText((one,)).key  # type: ignore[arg-type]


def test_nothing_is_left_behind(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sdxl")
    runnable = start("sdxl", embeddings_dir=str(tmp_path))
    base = base_of(runnable)

    def state() -> list[Any]:
        return [
            (
                len(encoder.tokenizer),
                dict(encoder.tokenizer.added_tokens_encoder),
                encoder.tokenizer("a <toy>").input_ids,
                encoder.model.get_input_embeddings().weight.sum().item(),
                [len(module._forward_hooks) for module in encoder.model.modules()],
                [len(module._forward_pre_hooks) for module in encoder.model.modules()],
            )
            for encoder in base.encoders
        ]

    before = state()
    generated(
        runnable, wanted("<toy>", "bad-hands-5", prompt="a <toy>", negative_prompt="bad-hands-5")
    )
    assert state() == before


def test_what_is_not_there_or_does_not_fit_is_refused(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sd1")
    vectors = torch.zeros(1, TEXT_WIDTH)
    wrong = {
        "narrow": {"emb_params": torch.zeros(1, TEXT_WIDTH + 1)},
        "deep": {"emb_params": torch.zeros(1, 1, TEXT_WIDTH)},
        "empty": {"emb_params": torch.zeros(0, TEXT_WIDTH)},
        "many": {"emb_params": torch.zeros(76, TEXT_WIDTH)},
        "nan": {"emb_params": vectors / 0},
        "pair": {"clip_l": vectors, "clip_g": torch.zeros(1, TEXT_WIDTH_2)},
        "lora": {key: vectors.clone() for key in "abc"},
        "nothing": {},
        "q": {"emb_params": vectors},
        " x ": {"emb_params": vectors},
    }
    for name, tensors in wrong.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    torch.save({"emb_params": vectors}, tmp_path / "pickle.pt")
    runnable = start("sd1", embeddings_dir=str(tmp_path))
    listed = [each["name"] for each in runnable.listed("embeddings")]
    assert listed == sorted([*VECTORS, *wrong, "broken"])
    with pytest.raises(UnknownName, match="did you mean 'bad-hands-5'") as unknown:
        runnable.submit(wanted("bad-hands"))
    assert unknown.value.loc == ("embeddings",)
    for name in ("../<toy>", str(tmp_path / "<toy>"), "<toy>.safetensors", "pickle", "\0", ".."):
        with pytest.raises(UnknownName):
            runnable.submit(wanted(name))
    for name in [*wrong, "broken"]:
        with pytest.raises(InvalidInput, match=repr(name)) as refused:
            runnable.submit(wanted(name))
        assert (refused.value.loc, refused.value.status) == (("embeddings",), 400)
    assert runnable.txt2img(wanted("<toy>", prompt="a <toy>")).images


def test_embeddings_of_sdxl_need_both_of_its_encoders(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sd1")
    one, two = torch.zeros(1, TEXT_WIDTH), torch.zeros(2, TEXT_WIDTH_2)
    save_file({"clip_l": one, "clip_g": two}, tmp_path / "uneven.safetensors")
    save_file({"clip_l": one, "clip_g": one.clone()}, tmp_path / "narrow.safetensors")
    runnable = start("sdxl", embeddings_dir=str(tmp_path))
    for name in ("<toy>", "uneven", "narrow"):
        with pytest.raises(InvalidInput, match=name) as refused:
            runnable.submit(wanted(name))
        assert refused.value.loc == ("embeddings",)


def test_what_does_not_go_together_is_refused(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sd1", {"<toy>": 3, "<toy>_2": 1, "<TOY>": 1, "<large>": 75})
    runnable = start("sd1", embeddings_dir=str(tmp_path))
    for name in ("<toy>_2", "<TOY>"):
        with pytest.raises(InvalidInput, match="in common") as refused:
            runnable.submit(wanted("<toy>", name))
        assert refused.value.loc == ("embeddings",)
    often = "<large> " * (MAX_VECTORS // 75)
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(InvalidInput, match=f"{MAX_VECTORS} are the most") as refused:
            runnable.submit(wanted("<large>", **{field: often + "<Large>"}))
        assert refused.value.loc == (field,)
    assert runnable.txt2img(wanted("<toy>", "<toy>", prompt="a <toy>")).images


def test_a_compiled_model_takes_none(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "sd1")
    base = base_of(start("sd1"))
    checkpoint = replace(base.checkpoint, compiled=Compiled(((64, 64),), 2))
    family = type(base)(checkpoint, base.device, base.dtype)
    settings = Settings(embeddings_dir=str(tmp_path))
    extensions = extensions_of(family, Context(settings))
    model = LoadedModel("x", family, settings, Upscalers(settings, base.device), None, extensions)
    with pytest.raises(InvalidInput, match="not compiled") as refused:
        denoise.plan(model, Ticket(wanted("<toy>")), Inputs())
    assert refused.value.loc == ("embeddings",)


def test_a_folder_that_is_not_there_stops_the_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SD_EMBEDDINGS_DIR"):
        start("sd1", embeddings_dir=str(tmp_path / "nowhere"))
