"""Tiny models with random weights, in diffusers' layout: real architectures, small for tests.

`build(folder, kind)` writes one; kinds are the keys of KINDS. Images are 64x64, latents 8x8.
"""

from __future__ import annotations

import inspect
import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

TEXT_WIDTH = 32
T5_WIDTH = 96
TEXT_WIDTH_2 = 48  # SDXL's second text encoder is the wider and the deeper one
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}

#: what distinguishes the kinds: family, UNet options, scheduler options
KINDS: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"unet": {"attention_head_dim": [2, 4]}, "prediction_type": "v_prediction"},
    "sd1-inpaint": {"unet": {"in_channels": 9}, "pipeline": "StableDiffusionInpaintPipeline"},
    "lcm": {
        "unet": {"time_cond_proj_dim": 16},
        "pipeline": "LatentConsistencyModelPipeline",
        "scheduler": "LCMScheduler",
    },
    "sdxl": {"xl": True},
    "sdxl-inpaint": {
        "xl": True,
        "unet": {"in_channels": 9},
        "pipeline": "StableDiffusionXLInpaintPipeline",
    },
    "flux-dev": {"flux": {"guidance_embeds": True}, "shift": {"use_dynamic_shifting": True}},
    "flux-schnell": {"flux": {"guidance_embeds": False}, "shift": {"shift": 1.0}},
    "z-image": {"z_image": True},
    "flux-2-klein": {"flux_2": {"is_distilled": True}},
    "flux-2-klein-base": {"flux_2": {"is_distilled": False}},
    "sd3": {"mmdit": {}},
    "sd3-no-t5": {"mmdit": {}, "t5": False},
    "sd3.5": {
        "mmdit": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"},
        "dynamic_shift": True,
    },
    "sd3-deep": {"mmdit": {"num_layers": 38}},  # by its layers a single file is known as 3.5 Large
    "sd3-inpaint": {"mmdit": {"in_channels": 33, "out_channels": 16}},
    "sdxl-refiner": {"xl": True, "refiner": True, "pipeline": "StableDiffusionXLImg2ImgPipeline"},
}


def build(folder: Path, kind: str) -> Path:
    """Write a tiny model of this kind into `folder`, and return it."""
    options = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        kinds = {"flux": _flux, "mmdit": _sd3, "xl": _xl, "z_image": _z_image, "flux_2": _flux_2}
        make = next((make for name, make in kinds.items() if name in options), _sd)
        pipeline = make(options)
    pipeline.save_pretrained(folder)
    return folder


def build_controlnet(folder: Path, model: Path, *, seed: int = 0, **options: Any) -> Path:
    """Write a tiny ControlNet for the model in `model`; its zero convolutions are random.

    Args:
        options: changes of the ControlNet's config.
    """
    from diffusers import ControlNetModel

    shared = json.loads((model / "unet" / "config.json").read_text())
    known = inspect.signature(ControlNetModel.__init__).parameters
    given = {name: value for name, value in shared.items() if name in known}
    latents = {"in_channels": shared["out_channels"]}  # without an inpainting model's mask
    config = {**given, **latents, "conditioning_embedding_out_channels": (8, 8, 16, 16)}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ControlNetModel(**{**config, **options})
        zero = [*net.controlnet_down_blocks, net.controlnet_mid_block]
        for layer in [*zero, net.controlnet_cond_embedding.conv_out]:
            torch.nn.init.normal_(layer.weight, std=0.3)
            torch.nn.init.normal_(layer.bias, std=0.3)
    net.save_pretrained(folder)
    return folder


def _sd(options: dict[str, Any]) -> Any:
    import diffusers

    pipeline = getattr(diffusers, options.get("pipeline", "StableDiffusionPipeline"))
    extra = {} if options.get("scheduler") == "LCMScheduler" else {"image_encoder": None}
    return pipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=_unet(**options.get("unet", {})),
        scheduler=_scheduler(options),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **extra,
    )


def _xl(options: dict[str, Any]) -> Any:
    import diffusers

    refiner = bool(options.get("refiner"))
    width = TEXT_WIDTH_2 if refiner else TEXT_WIDTH + TEXT_WIDTH_2
    unet = _unet(
        cross_attention_dim=width,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * (5 if refiner else 6) + TEXT_WIDTH_2,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        **options.get("unet", {}),
    )
    pipeline = getattr(diffusers, options.get("pipeline", "StableDiffusionXLPipeline"))
    asks_score = {"requires_aesthetics_score": refiner} if "Img2Img" in pipeline.__name__ else {}
    return pipeline(
        vae=_vae(),
        text_encoder=None if refiner else _text_encoder(),
        tokenizer=None if refiner else _tokenizer(),
        text_encoder_2=_text_encoder(projected=True),
        tokenizer_2=_tokenizer(),
        unet=unet,
        scheduler=_scheduler({"scheduler": "EulerDiscreteScheduler"}),
        force_zeros_for_empty_prompt=not refiner,
        add_watermarker=False,
        **asks_score,
    )


def _sd3(options: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    t5 = options.get("t5", True)
    first = _text_encoder(projected=True, width=TEXT_WIDTH, layers=3)
    torch.nn.init.eye_(first.text_projection.weight)  # single files have none, and mean this one
    shift = {"use_dynamic_shifting": True} if options.get("dynamic_shift") else {"shift": 3.0}
    return StableDiffusion3Pipeline(
        transformer=_mmdit(**options["mmdit"]),
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        vae=_sd3_vae(),
        text_encoder=first,
        tokenizer=_tokenizer(),
        text_encoder_2=_text_encoder(projected=True),
        tokenizer_2=_tokenizer(),
        text_encoder_3=_t5() if t5 else None,
        tokenizer_3=_t5_tokenizer() if t5 else None,
    )


def _flux(options: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 4, 8),
        **options["flux"],
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**options["shift"]),
        vae=_sd3_vae(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
    )


def _z_image(options: dict[str, Any]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=T5_WIDTH,
        axes_dims=[4, 6, 6],
    )
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_sd3_vae(),
        text_encoder=_qwen(),
        tokenizer=_qwen_tokenizer(),
        transformer=transformer,
    )


def _flux_2(options: dict[str, Any]) -> Any:
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        in_channels=32,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * T5_WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    for name, weights in transformer.named_parameters():
        if "modulation" in name:  # else the prompt changes the image hardly
            weights.data *= 10
    config = {name: value for name, value in _vae().config.items() if not name.startswith("_")}
    known = inspect.signature(AutoencoderKLFlux2.__init__).parameters
    vae = AutoencoderKLFlux2(
        **{name: value for name, value in config.items() if name in known} | {"latent_channels": 8}
    )
    torch.nn.init.normal_(vae.bn.running_mean, std=0.1)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(_qwen_config(28, initializer_range=0.1)),
        tokenizer=_qwen_tokenizer(),
        transformer=transformer,
        **options["flux_2"],
    )


def _qwen() -> Any:
    from transformers import Qwen3Model

    return Qwen3Model(_qwen_config(3))


def _qwen_config(layers: int, **options: Any) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=len(_bytes()),
        hidden_size=T5_WIDTH,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        **options,
    )


def _qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(vocab=_bytes(), merges=[])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
        "{% if enable_thinking is false %}<think></think>{% endif %}"
    )
    return tokenizer


def _bytes() -> dict[str, int]:
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ", "Ċ"]
    return {word: i for i, word in enumerate(["<|endoftext|>", *letters])}


def _sd3_vae() -> Any:
    return _vae(
        latent_channels=16,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _mmdit(**options: Any) -> Any:
    from diffusers import SD3Transformer2DModel

    config = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": T5_WIDTH,
        "caption_projection_dim": 32,
        "pooled_projection_dim": TEXT_WIDTH + TEXT_WIDTH_2,
        "out_channels": 16,
        "pos_embed_max_size": 16,
    }
    return SD3Transformer2DModel(**{**config, **options})


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(_pieces()), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2
        )
    )


def _t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    return T5TokenizerFast(vocab=_pieces(), extra_ids=0, model_max_length=512)


def _pieces() -> list[tuple[str, float]]:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    return [(piece, -2.0) for piece in ("<pad>", "</s>", "<unk>", "▁", *letters)]


def _unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "cross_attention_dim": TEXT_WIDTH,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**config, **options})


def _vae(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    config = {
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 64,
        "force_upcast": False,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(**{**config, **options})


def _text_encoder(projected: bool = False, width: int = 0, layers: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocabulary = len(_vocabulary())
    default = (TEXT_WIDTH_2, 11) if projected else (TEXT_WIDTH, 3)
    width, layers = width or default[0], layers or default[1]
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        projection_dim=width,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _vocabulary() -> dict[str, int]:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    return {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    options = {"unk_token": "<|endoftext|>", "model_max_length": 77}
    if "vocab" in inspect.signature(CLIPTokenizer).parameters:
        return CLIPTokenizer(vocab=_vocabulary(), merges=[], **options)
    with TemporaryDirectory() as folder:  # transformers 4, as on Neuron
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps(_vocabulary()))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), **options)


def _scheduler(options: dict[str, Any]) -> Any:
    import diffusers

    scheduler = getattr(diffusers, options.get("scheduler", "PNDMScheduler"))
    config = SCHEDULER | {"prediction_type": options.get("prediction_type", "epsilon")}
    if scheduler is diffusers.PNDMScheduler:
        config |= {"skip_prk_steps": True, "set_alpha_to_one": False}
    return scheduler(**config)


def build_sd3_controlnet(folder: Path, model: Path, *, seed: int = 0, **options: Any) -> Path:
    """Write a tiny ControlNet for the Stable Diffusion 3 model in `model`."""
    from diffusers import SD3ControlNetModel

    shared = json.loads((model / "transformer" / "config.json").read_text())
    known = inspect.signature(SD3ControlNetModel.__init__).parameters
    given = {name: value for name, value in shared.items() if name in known}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SD3ControlNetModel(**{**given, "num_layers": 2, **options})
        for layer in [*net.controlnet_blocks, net.pos_embed_input.proj]:
            torch.nn.init.normal_(layer.weight, std=0.2)
    net.save_pretrained(folder)
    return folder


def build_flux_controlnet(folder: Path, model: Path, *, seed: int = 0, **options: Any) -> Path:
    """Write a tiny ControlNet for the FLUX model in `model`; its zero layers are random."""
    from diffusers import FluxControlNetModel

    shared = json.loads((model / "transformer" / "config.json").read_text())
    known = inspect.signature(FluxControlNetModel.__init__).parameters
    given = {name: value for name, value in shared.items() if name in known}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = FluxControlNetModel(**{**given, **options})
        for layer in [*net.controlnet_blocks, *net.controlnet_single_blocks]:
            torch.nn.init.normal_(layer.weight, std=0.2)
        torch.nn.init.normal_(net.controlnet_x_embedder.weight, std=0.2)
    net.save_pretrained(folder)
    return folder
