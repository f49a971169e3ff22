"""Models load from folders and files, and damaged ones are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from runnables.checkpoints import manifest
from runnables.checkpoints.loading import load
from runnables.errors import ConfigurationError
from runnables.samplers.compile import compile_table
from runnables.samplers.names import DEFAULT, resolve
from runnables.samplers.scheduler import make_scheduler
from tests import single_file

TinyModel = Callable[[str], Path]


@pytest.fixture
def copy(tiny_model: TinyModel, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "copy"))
    manifest.write(folder, source="test")
    return folder


def test_families(tiny_model: TinyModel) -> None:
    families = {
        kind: load(str(tiny_model(kind)), dtype=torch.float32).family
        for kind in ("sd1", "sd2", "sdxl", "sdxl-refiner", "lcm")
    }
    assert families == {
        "sd1": "stable-diffusion",
        "sd2": "stable-diffusion",
        "sdxl": "stable-diffusion-xl",
        "sdxl-refiner": "stable-diffusion-xl-refiner",
        "lcm": "stable-diffusion",
    }


def test_precision_and_profile(copy: Path) -> None:
    (copy / "profile.json").write_text('{"num_inference_steps": 7}')
    checkpoint = load(str(copy), dtype=torch.bfloat16)
    assert checkpoint.unet.dtype == torch.bfloat16
    assert checkpoint.profile.num_inference_steps == 7
    assert checkpoint.scheduler_config["_class_name"] == "PNDMScheduler"


@pytest.mark.parametrize("offset", [None, 0])
def test_an_old_scheduler_config_is_mended_as_by_diffusers(copy: Path, offset: int | None) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {"steps_offset": offset, "clip_sample": True}
    if offset is None:
        del config["steps_offset"]
    path.write_text(json.dumps(config))
    manifest.write(copy, source="test")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(copy, dtype=torch.float32)
    pipeline.scheduler.set_timesteps(6)
    checkpoint = load(str(copy), dtype=torch.float32)
    table = compile_table(DEFAULT, checkpoint.scheduler_config, 6)
    assert table.timesteps.tolist() == pipeline.scheduler.timesteps.tolist()
    assert 831 in table.timesteps.tolist()
    # as in a pipeline that is made with another scheduler
    other = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline = diffusers.StableDiffusionPipeline(**{**pipeline.components, "scheduler": other})
    pipeline.scheduler.set_timesteps(6)
    table = compile_table(resolve("ddim"), checkpoint.scheduler_config, 6)
    assert table.timesteps.tolist() == pipeline.scheduler.timesteps.tolist()


def test_a_half_copied_model_is_named(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match=r"unet/diffusion_pytorch_model.*copied in part"):
        load(str(copy), dtype=torch.float32)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "vae" / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"vae/config\.json is missing"):
        load(str(copy), dtype=torch.float32)


def test_an_altered_file_is_named(copy: Path) -> None:
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ConfigurationError, match="SHA-256"):
        load(str(copy), dtype=torch.float32)


@pytest.mark.parametrize("source", ["/no/such/folder", "nonsense"])
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        load(source, dtype=torch.float32)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model_index\.json"):
        load(str(tmp_path), dtype=torch.float32)


def test_another_architecture_is_named(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(
        json.dumps({**index, "_class_name": "QwenImagePipeline"})
    )
    (copy / "manifest.json").unlink()
    with pytest.raises(ConfigurationError, match="QwenImagePipeline is not supported"):
        load(str(copy), dtype=torch.float32)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="could not be fetched"):
        load("nobody/nothing@main", dtype=torch.float32)


def single_file_of(folder: Path, path: Path) -> Path:
    from diffusers import DiffusionPipeline

    return single_file.write(DiffusionPipeline.from_pretrained(folder), path)


@pytest.fixture(scope="module")
def xl_file(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return single_file_of(tiny_model("sdxl"), tmp_path_factory.mktemp("xl") / "xl.safetensors")


def same_weights(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("kind", ["sd1", "sd1-inpaint", "sdxl", "sdxl-inpaint", "sdxl-refiner"])
def test_a_single_file_holds_what_its_folder_holds(
    kind: str, tiny_model: TinyModel, tmp_path: Path
) -> None:
    folder = tiny_model(kind)
    file = single_file_of(folder, tmp_path / "tiny.safetensors")
    from_file = load(str(file), dtype=torch.float32, config=str(folder))
    from_folder = load(str(folder), dtype=torch.float32)
    assert (from_file.name, from_file.family) == ("tiny", from_folder.family)
    assert same_weights(from_file.unet, from_folder.unet)
    assert same_weights(from_file.vae, from_folder.vae)
    pairs = zip(from_file.text_encoders, from_folder.text_encoders, strict=True)
    assert all(same_weights(*pair) for pair in pairs)
    assert len(from_file.tokenizers) == len(from_folder.tokenizers)
    assert from_file.profile == from_folder.profile
    for key in ("force_zeros_for_empty_prompt", "requires_aesthetics_score"):
        assert bool(from_file.config.get(key)) == bool(from_folder.config.get(key))


@pytest.mark.parametrize(
    ("tensors", "metadata", "marks"),
    [
        (("v_pred",), {}, {"prediction_type": "v_prediction"}),
        (
            ("v_pred", "ztsnr"),
            {},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        ),
        ((), {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        (
            (),
            {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        ),
        ((), {"modelspec.prediction_type": "epsilon"}, {"prediction_type": "epsilon"}),
        ((), {"modelspec.prediction_type": "?", "ss_v_parameterization": "False"}, {}),
    ],
)
def test_a_single_file_says_what_it_predicts(
    tensors: tuple[str, ...],
    metadata: dict[str, str],
    marks: dict[str, object],
    xl_file: Path,
    tiny_model: TinyModel,
    tmp_path: Path,
) -> None:
    marked = load_file(xl_file) | {name: torch.zeros(0) for name in tensors}
    save_file(marked, tmp_path / "x.safetensors", metadata=metadata)
    config = str(tiny_model("sdxl"))
    found = load(str(tmp_path / "x.safetensors"), dtype=torch.float32, config=config)
    plain = load(config, dtype=torch.float32).scheduler_config
    for name in ("prediction_type", "rescale_betas_zero_snr"):
        assert found.scheduler_config.get(name) == marks.get(name, plain.get(name))
    euler = make_scheduler(resolve("euler"), found.scheduler_config)  # the marks are heeded
    assert {name: euler.config[name] for name in marks} == marks


def test_a_single_file_of_the_edm_kind_is_refused(
    xl_file: Path, tiny_model: TinyModel, tmp_path: Path
) -> None:
    marked = load_file(xl_file) | {"edm_vpred.sigma_max": torch.ones(1)}
    save_file(marked, tmp_path / "x.safetensors")
    with pytest.raises(ConfigurationError, match="EDM"):
        load(str(tmp_path / "x.safetensors"), dtype=torch.float32, config=str(tiny_model("sdxl")))


def test_a_single_file_takes_the_folder_and_profile_beside_it(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    file = single_file_of(tiny_model("sd1"), tmp_path / "mine.safetensors")
    shutil.copytree(tiny_model("sd1"), tmp_path / "mine")
    (tmp_path / "mine.profile.json").write_text('{"num_inference_steps": 3}')
    checkpoint = load(str(file), dtype=torch.float32)
    assert (checkpoint.name, checkpoint.profile.num_inference_steps) == ("mine", 3)


def test_a_single_file_without_configuration_says_what_to_do(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    file = single_file_of(tiny_model("sd1"), tmp_path / "mine.safetensors")
    with pytest.raises(ConfigurationError, match=r"import sd-1\.5 first.*SD_CHECKPOINT_CONFIG"):
        load(str(file), dtype=torch.float32)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    cases = {"x.safetensors": "cannot be loaded", "x.ckpt": "can run code"}
    for name, message in cases.items():
        (tmp_path / name).write_bytes(b"not a checkpoint")
        with pytest.raises(ConfigurationError, match=message):
            load(str(tmp_path / name), dtype=torch.float32, config=str(tmp_path))
    save_file({"weight": torch.ones(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ConfigurationError, match="it has no denoiser"):
        load(str(tmp_path / "lora.safetensors"), dtype=torch.float32)


# -- folders without a manifest --------------------------------------------------------------------


@pytest.fixture
def bare(copy: Path) -> Path:
    (copy / manifest.NAME).unlink()
    return copy


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_without_manifest_loads_and_says_so(
    bare: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert load(str(bare), dtype=torch.float32).name == "copy"
    assert "no manifest" in caplog.text


def test_half_copied_weights_are_named(bare: Path) -> None:
    weights = bare / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ConfigurationError, match=r"text_encoder/model.*copied in part"):
        load(str(bare), dtype=torch.float32)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(component: str, bare: Path) -> None:
    shutil.rmtree(bare / component)
    with pytest.raises(ConfigurationError, match=f"no {component}/"):
        load(str(bare), dtype=torch.float32)


def test_an_index_without_unet_is_reported(bare: Path) -> None:
    edit(bare / "model_index.json", unet=[None, None])
    with pytest.raises(ConfigurationError, match="lists no unet"):
        load(str(bare), dtype=torch.float32)


def test_missing_weights_are_not_left_at_random(bare: Path) -> None:
    path = bare / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_out.bias"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"lacks 1 weights, the first is conv_out\.bias"):
        load(str(bare), dtype=torch.float32)


def test_pickles_are_not_loaded(bare: Path) -> None:
    path = bare / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"unet/ has no \.safetensors.*can run code"):
        load(str(bare), dtype=torch.float32)


def test_an_unknown_component_class_is_named(bare: Path) -> None:
    edit(bare / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    with pytest.raises(ConfigurationError, match=r"vae is a AutoencoderTiny.*AutoencoderKL"):
        load(str(bare), dtype=torch.float32)


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": 3}', '{"num_inference_steps": 0}'])
def test_a_wrong_profile_is_reported(text: str, bare: Path) -> None:
    (bare / "profile.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"profile\.json"):
        load(str(bare), dtype=torch.float32)


def test_half_precision_weights_are_taken_where_they_suit(bare: Path) -> None:
    plain = bare / "unet" / "diffusion_pytorch_model.safetensors"
    half = plain.with_name("diffusion_pytorch_model.fp16.safetensors")
    weights = {name: value.half() for name, value in load_file(plain).items()}
    weights["conv_out.bias"] = torch.full_like(weights["conv_out.bias"], 7)  # to tell them apart
    save_file(weights, half, metadata={"format": "pt"})

    def bias(dtype: torch.dtype) -> float:
        return float(load(str(bare), dtype=dtype).unet.conv_out.bias[0])

    assert bias(torch.float16) == 7
    assert bias(torch.float32) != 7
    plain.unlink()
    assert bias(torch.float32) == bias(torch.bfloat16) == 7


def test_weights_under_the_names_of_older_libraries(bare: Path) -> None:
    """Stable Diffusion 1.5 lies on the Hub with such names."""
    expected = load(str(bare), dtype=torch.float32)
    text = bare / "text_encoder" / "model.safetensors"
    prefixed = {f"text_model.{name}": value for name, value in load_file(text).items()}
    prefixed["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(prefixed, text, metadata={"format": "pt"})
    vae = bare / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in load_file(vae).items():
        for new, old in older.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        renamed[name] = value
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, vae, metadata={"format": "pt"})
    checkpoint = load(str(bare), dtype=torch.float32)
    assert same_weights(checkpoint.text_encoders[0], expected.text_encoders[0])
    assert same_weights(checkpoint.vae, expected.vae)


def test_defaults_are_the_familys_unless_the_model_has_its_own(tiny_model: TinyModel) -> None:
    def defaults(kind: str) -> tuple[int, float]:
        profile = load(str(tiny_model(kind)), dtype=torch.float32).profile
        return profile.num_inference_steps, profile.guidance_scale

    assert defaults("sd1") == (50, 7.5)
    assert defaults("sdxl") == defaults("sdxl-refiner") == (50, 5.0)
    assert defaults("lcm") == (4, 8.0)


def test_ready_to_generate(tiny_model: TinyModel) -> None:
    checkpoint = load(str(tiny_model("sdxl")), dtype=torch.bfloat16)
    for module in (checkpoint.unet, checkpoint.vae, *checkpoint.text_encoders):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())
        assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
    widths = [encoder.config.hidden_size for encoder in checkpoint.text_encoders]
    assert widths == sorted(widths), "the first text encoder comes first"


ENCODERS = ("clip_l", "clip_g", "t5xxl")


@pytest.mark.parametrize("inside", [ENCODERS, ENCODERS[:2], ()])
def test_a_single_file_of_stable_diffusion_3(
    inside: tuple[str, ...], tiny_model: TinyModel, tmp_path: Path
) -> None:
    """Text encoders that the file lacks come from the folder with the configurations."""
    folder = tiny_model("sd3-deep")
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    path = single_file.write_sd3(pipeline, tmp_path / "model.safetensors", inside)
    checkpoint = load(str(path), dtype=torch.float32, config=str(folder))
    expected = load(str(folder), dtype=torch.float32)
    assert checkpoint.family == expected.family == "stable-diffusion-3"
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        assert same_weights(checkpoint.components[name], expected.components[name]), name


def test_t5_can_be_left_out_of_folder_and_file(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = tiny_model("sd3-deep")
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    path = single_file.write_sd3(pipeline, tmp_path / "model.safetensors", ENCODERS)
    left_out = ("text_encoder_3", "tokenizer_3")
    for source, config in ((path, str(folder)), (folder, None)):
        checkpoint = load(str(source), dtype=torch.float32, config=config, left_out=left_out)
        assert not {"text_encoder_3", "tokenizer_3"} & set(checkpoint.components)
