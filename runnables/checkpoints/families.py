"""The model families are listed here as they lie on disk; a new one begins with an entry here.

This module imports no torch, so that `python -m models` and hosts may read it. The code of a family
is named by its import path, and is imported when a model of the family is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Defaults = MappingProxyType[str, Any]  # fields of runnables.parameters.Profile

_SAFETY = "diffusers.pipelines.stable_diffusion.safety_checker"
_CLIP_TOKENIZERS = dict.fromkeys(
    ("CLIPTokenizer", "CLIPTokenizerFast"), "transformers:CLIPTokenizer"
)
_T5 = {"T5EncoderModel": "transformers:T5EncoderModel"}
_T5_TOKENIZERS = dict.fromkeys(("T5Tokenizer", "T5TokenizerFast"), "transformers:T5TokenizerFast")
_QWEN_TOKENIZERS = dict.fromkeys(
    ("Qwen2Tokenizer", "Qwen2TokenizerFast"), "transformers:Qwen2Tokenizer"
)


@dataclass(frozen=True)
class Component:
    """A component is a part of a diffusers folder.

    Attributes:
        classes: class as model_index.json names it -> where the class to load it with is found.
        weights: whether it has weights; else it is a configuration or a vocabulary.
    """

    classes: Mapping[str, str] = field(default_factory=dict)
    weights: bool = False


#: every component that some family is loaded from; others in a folder are passed over
COMPONENTS: dict[str, Component] = {
    "unet": Component({"UNet2DConditionModel": "diffusers:UNet2DConditionModel"}, weights=True),
    "transformer": Component(
        {
            "SD3Transformer2DModel": "diffusers:SD3Transformer2DModel",
            "FluxTransformer2DModel": "diffusers:FluxTransformer2DModel",
            "ZImageTransformer2DModel": "diffusers:ZImageTransformer2DModel",
            "Flux2Transformer2DModel": "diffusers:Flux2Transformer2DModel",
        },
        weights=True,
    ),
    "vae": Component(
        {
            "AutoencoderKL": "diffusers:AutoencoderKL",
            "AutoencoderKLFlux2": "diffusers:AutoencoderKLFlux2",
        },
        weights=True,
    ),
    "text_encoder": Component(
        {
            "CLIPTextModel": "transformers:CLIPTextModel",
            "CLIPTextModelWithProjection": "transformers:CLIPTextModelWithProjection",
            "Qwen3Model": "transformers:Qwen3Model",
            "Qwen3ForCausalLM": "transformers:Qwen3Model",  # no text is written
        },
        weights=True,
    ),
    "text_encoder_2": Component(
        {
            "CLIPTextModelWithProjection": "transformers:CLIPTextModelWithProjection",
            **_T5,
        },
        weights=True,
    ),
    "text_encoder_3": Component(_T5, weights=True),
    "tokenizer": Component({**_CLIP_TOKENIZERS, **_QWEN_TOKENIZERS}),
    "tokenizer_2": Component({**_CLIP_TOKENIZERS, **_T5_TOKENIZERS}),
    "tokenizer_3": Component(_T5_TOKENIZERS),
    "scheduler": Component(),
    "feature_extractor": Component(
        {
            "CLIPImageProcessor": "transformers:CLIPImageProcessor",
            "CLIPFeatureExtractor": "transformers:CLIPImageProcessor",  # before transformers 5
        }
    ),
    "safety_checker": Component(
        {"StableDiffusionSafetyChecker": f"{_SAFETY}:StableDiffusionSafetyChecker"}, weights=True
    ),
}


@dataclass(frozen=True)
class FamilyLayout:
    """A layout describes the files of one family.

    Attributes:
        code: import path of its class, `module:Class`.
        pipelines: diffusers' pipeline classes, as model_index.json names them. The task in such a
            name does not matter: any model does all tasks that its shapes allow.
        denoiser: the component that predicts noise or velocity.
        single_files: diffusers' name of a kind of single-file checkpoint -> the pipeline class that
            reads it, and the catalog's model of that kind. Without a class only the denoiser is
            read from the file, and all else from a folder.
        denoiser_prefix: what names of the denoiser's tensors have in a single file.
        text_prefixes: what the tensors of text encoders begin with that a single file may lack.
        lora_loader: diffusers' mixin that reads LoRA files of the family.
        controlnet: import path of the class that runs its ControlNets, if it takes any.
        defaults: where the family departs from `Profile`.
        halves: 16-bit number formats that its models run in, first the one that diffusers' example
            of the family uses; in others they overflow.
        flag: a field of model_index.json that is true for the models of this family alone.
    """

    code: str
    pipelines: tuple[str, ...]
    single_files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    denoiser: str = "unet"
    denoiser_prefix: str = "model.diffusion_model."
    text_prefixes: Mapping[str, str] = field(default_factory=dict)
    lora_loader: str = "StableDiffusionLoraLoaderMixin"
    controlnet: str = "runnables.extensions.controlnet.unet:UNetControlNet"
    defaults: Defaults = field(default_factory=lambda: MappingProxyType({}))
    halves: tuple[str, ...] = ("fp16", "bf16")
    flag: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """Return the components without which a folder is no model of the family."""
        return frozenset({self.denoiser, "vae", "scheduler"})


#: source of the defaults: those of `__call__` of diffusers' pipelines
FAMILIES: dict[str, FamilyLayout] = {
    "stable-diffusion": FamilyLayout(
        code="runnables.families.stable_diffusion:StableDiffusion",
        pipelines=(
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "LatentConsistencyModelPipeline",
        ),
        single_files={
            "v1": ("StableDiffusionPipeline", "sd-1.5"),
            "inpainting": ("StableDiffusionInpaintPipeline", "sd-1.5-inpaint"),
            "v2": ("StableDiffusionPipeline", "sd-2.1"),
            "inpainting_v2": ("StableDiffusionInpaintPipeline", "sd-2-inpaint"),
        },
    ),
    "stable-diffusion-xl": FamilyLayout(
        code="runnables.families.stable_diffusion_xl:StableDiffusionXL",
        pipelines=(
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
        ),
        single_files={
            "xl_base": ("StableDiffusionXLPipeline", "sdxl"),
            "xl_inpaint": ("StableDiffusionXLInpaintPipeline", "sdxl-inpaint"),
        },
        lora_loader="StableDiffusionXLLoraLoaderMixin",
        defaults=MappingProxyType({"guidance_scale": 5.0}),
    ),
    "stable-diffusion-xl-refiner": FamilyLayout(
        code="runnables.families.stable_diffusion_xl:StableDiffusionXL",
        pipelines=("StableDiffusionXLImg2ImgPipeline",),
        single_files={"xl_refiner": ("StableDiffusionXLImg2ImgPipeline", "sdxl-refiner")},
        lora_loader="StableDiffusionXLLoraLoaderMixin",
        defaults=MappingProxyType({"guidance_scale": 5.0}),
        flag="requires_aesthetics_score",
    ),
    "stable-diffusion-3": FamilyLayout(
        code="runnables.families.stable_diffusion_3:StableDiffusion3",
        pipelines=(
            "StableDiffusion3Pipeline",
            "StableDiffusion3Img2ImgPipeline",
            "StableDiffusion3InpaintPipeline",
        ),
        single_files={
            "sd3": ("StableDiffusion3Pipeline", "sd-3-medium"),
            "sd35_medium": ("StableDiffusion3Pipeline", "sd-3.5-medium"),
            "sd35_large": ("StableDiffusion3Pipeline", "sd-3.5-large"),
        },
        denoiser="transformer",
        text_prefixes={
            "text_encoder": "text_encoders.clip_l.",
            "text_encoder_2": "text_encoders.clip_g.",
            "text_encoder_3": "text_encoders.t5xxl.",
        },
        lora_loader="SD3LoraLoaderMixin",
        controlnet="runnables.extensions.controlnet.stable_diffusion_3:StableDiffusion3ControlNet",
        defaults=MappingProxyType({"num_inference_steps": 28, "guidance_scale": 7.0}),
    ),
    "flux": FamilyLayout(
        code="runnables.families.flux:Flux",
        pipelines=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        single_files={"flux-dev": ("", "flux.1-dev"), "flux-schnell": ("", "flux.1-schnell")},
        denoiser="transformer",
        denoiser_prefix="double_blocks.0.",
        lora_loader="FluxLoraLoaderMixin",
        controlnet="runnables.extensions.controlnet.flux:FluxControlNet",
        halves=("bf16", "fp16"),
        defaults=MappingProxyType({"num_inference_steps": 28, "guidance_scale": 3.5}),
    ),
    "z-image": FamilyLayout(
        code="runnables.families.z_image:ZImage",
        pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
        denoiser="transformer",
        lora_loader="ZImageLoraLoaderMixin",
        halves=("bf16",),
        defaults=MappingProxyType({"num_inference_steps": 9, "guidance_scale": 0.0}),
    ),
    "flux-2-klein": FamilyLayout(
        code="runnables.families.flux_2_klein:Flux2Klein",
        pipelines=("Flux2KleinPipeline",),
        denoiser="transformer",
        lora_loader="Flux2LoraLoaderMixin",
        halves=("bf16", "fp16"),
        defaults=MappingProxyType({"num_inference_steps": 50, "guidance_scale": 4.0}),
    ),
}
#: models distilled to few steps with guidance as an input; source: card of LCM_Dreamshaper_v7
LATENT_CONSISTENCY: Defaults = MappingProxyType({"num_inference_steps": 4, "guidance_scale": 8.0})


def name_of(layout: FamilyLayout) -> str:
    """Return the family that a layout of `FAMILIES` describes."""
    return next(name for name, one in FAMILIES.items() if one is layout)


def family_of(index: Mapping[str, Any]) -> str:
    """Return the family of a model_index.json.

    Raises:
        ValueError: naming the pipeline classes that are supported.
    """
    name = index.get("_class_name")
    found = [family for family, layout in FAMILIES.items() if name in layout.pipelines]
    flagged = [family for family in found if index.get(FAMILIES[family].flag)]
    if found:
        return (flagged or found)[0]
    known = ", ".join({name: None for one in FAMILIES.values() for name in one.pipelines})
    raise ValueError(f"{name} is not supported; supported are {known}")


def single_file_kinds() -> dict[str, tuple[FamilyLayout, str, str]]:
    """Return family, pipeline class and catalog model for each kind of single-file checkpoint."""
    return {
        kind: (layout, pipeline, known)
        for layout in FAMILIES.values()
        for kind, (pipeline, known) in layout.single_files.items()
    }
