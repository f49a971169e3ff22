"""The operator's settings are the `SD_*` environment variables, each declared once.

`python -m runnables` prints them. An `SD_*` variable that is not declared here stops the start with
a suggestion, so that no typing mistake leaves a setting at its default unnoticed.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from runnables.accelerators.names import ACCELERATORS
from runnables.environment import EnvironmentSettings

PAGE = """# Settings

Environment variables, declared in `runnables/settings.py`; a misspelt one stops the start.
Written by `python -m runnables --markdown > docs/settings.md`.

| name | default | meaning |
|---|---|---|"""
EMBEDDED_MODEL = str(Path(__file__).resolve().parent.parent / "models" / "embedded")
#: a path prefix: it begins with a slash and ends without one
PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
#: a bucket and a folder in it
S3_FOLDER = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
#: S3 refuses to presign for longer
S3_EXPIRY_S = 7 * 24 * 3600
MODEL_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)

QUANTIZED = ("int8", "fp8")
Precision = Literal["auto", "fp32", "fp16", "bf16"]


class Settings(EnvironmentSettings):
    """The settings are read from the environment, or passed by name (tests, other hosts)."""

    model_config = SettingsConfigDict(env_prefix="SD_")

    model: str = Field(
        EMBEDDED_MODEL,
        description="A diffusers folder, a single-file .safetensors checkpoint, a name from the "
        "catalog, or a Hub id with optional @revision",
    )
    models: str = Field(
        "",
        description="Comma-separated `name=source` of further models, which requests choose by "
        "`model`; a source is what SD_MODEL takes. Each is loaded when it is first requested",
    )
    models_dir: str | None = Field(
        None,
        description="A folder of further models (diffusers folders and .safetensors checkpoints), "
        "each named as its folder or file is; one that arrives is served without a restart",
    )
    models_memory_gb: float = Field(
        0.0,
        ge=0,
        description="Memory for the weights of all models that are loaded at once, SD_MODEL's "
        "included; of the others the least recently used makes room. 0: all stay",
    )
    idle_unload_s: float = Field(
        0.0,
        ge=0,
        description="Unload a model, SD_MODEL's included, after these seconds without a request; "
        "the next one loads it again and waits, within its deadline. 0: never",
    )
    checkpoint_config: str | None = Field(
        None,
        description="For a single-file checkpoint without the Hub: a diffusers folder of the same "
        "architecture, for configs and tokenizers",
    )
    device: str = Field(
        "auto",
        description="auto takes the first of the others that is there. One of "
        f"auto, {', '.join(ACCELERATORS)}",
    )
    precision: Precision = Field(
        "auto",
        description="auto is fp32; on CUDA fp16, or bf16 for models that overflow in fp16, and for "
        "those published in bf16 where the GPU computes in it",
    )
    quantize: str = Field(
        "",
        description="Comma-separated `component:kind` of weights kept in 8 bits, such as "
        "`text_encoder_3:int8,transformer:int8`; kinds are int8 and fp8",
    )
    t5: bool = Field(
        True,
        description="Load T5, the third text encoder of Stable Diffusion 3. Without it prompts of "
        "more than 77 tokens are refused, and 19 GB (fp32) are saved",
    )
    refiner: str | None = Field(None, description="An SDXL refiner run after the base model")
    lora_dir: str | None = Field(
        None, description="A folder of LoRAs (.safetensors) that requests may name"
    )
    controlnet_dir: str | None = Field(
        None, description="A folder of ControlNets (diffusers folders) that requests may name"
    )
    embeddings_dir: str | None = Field(
        None, description="A folder of textual inversions (.safetensors) that requests may name"
    )
    adapters_memory_mb: float = Field(
        2048,
        ge=0,
        description="Memory for loaded LoRAs; ControlNets, textual inversions "
        "and upscalers have as much each",
    )
    upscaler_dir: str | None = Field(
        None, description="A folder of Swin2SR models (folders) that requests may name"
    )
    preview_vae: str | None = Field(
        None,
        description="A folder with an AutoencoderTiny (TAESD) of this model's family: sharper "
        "previews; default: colours fitted to the model's own VAE",
    )
    threads: int = Field(
        0,
        ge=0,
        description="CPU threads for generating; 0: as many as cores are free",
    )
    compile: Literal["off", "regional", "full"] = Field(
        "off",
        description="torch.compile: regional compiles the denoiser's repeated blocks, once for all "
        "sizes; full the whole denoiser for each number of rows (on a GPU; slower start)",
    )
    cuda_graphs_mb: int = Field(
        0,
        ge=0,
        description="Memory for CUDA graphs of denoiser calls, captured by size and number of rows "
        "when they are first used; 0: none",
    )
    max_batch: int = Field(
        0, ge=0, description="Denoiser rows per step at most; 0: as the accelerator suggests"
    )
    max_queue_s: float = Field(
        120.0, gt=0, description="Refuse (429) when the estimated wait would exceed these seconds"
    )
    max_pixels: int = Field(
        2048 * 2048,
        ge=64 * 64,
        description="Largest height x width generated, and largest input image",
    )
    max_body_mb: float = Field(25.0, gt=0, description="Largest request body")
    request_timeout_s: float = Field(
        300.0, gt=0, description="Every request's deadline when it names none"
    )
    stall_s: float = Field(
        300.0,
        gt=0,
        description="The engine stands still when a step takes longer than this and 20 times its "
        "estimate: its requests fail (503), and /livez answers 503. To be longer than a first step "
        "with SD_COMPILE, and than the warm-up of a further model",
    )
    drain_s: float = Field(60.0, ge=0, description="How long a stop waits for requests in flight")
    measured_dir: str = Field(
        "",
        description="A folder that keeps what was measured (seconds and bytes of a step), and with "
        "SD_COMPILE what was compiled, so that the next start with the same model, device, "
        "versions and settings is shorter. Empty: each start measures",
    )
    repeats_mb: float = Field(
        0.0,
        ge=0,
        description="Memory for finished results and their prompts, with which exact repeats "
        "(explicit seed, all parameters and pictures) are answered; a request that equals one "
        "under way shares its result. All callers share them. 0: every request is generated",
    )
    prompt_cache: int = Field(256, ge=0, description="Prompt embeddings kept, of 256 MB at most")
    path_prefix: str = Field(
        "",
        description="The path below which clients see the service, such as /sd; whether the proxy "
        "in front strips it does not matter",
    )
    trusted_proxies: str = Field(
        "",
        description="Comma-separated addresses or networks of proxies whose X-Forwarded-Prefix, "
        "-Proto, -Host and -For are believed; * for all",
    )
    cors_origins: str = Field("", description="Comma-separated allowed origins; * for all")
    api_keys: str = Field(
        "", description="Comma-separated keys, or a file of SHA-256 hashes; empty: open to all"
    )
    anonymous: Literal["together", "address"] = Field(
        "together",
        description="Callers without a key share the machine as one caller, or as one per "
        "`address` (behind a proxy that SD_TRUSTED_PROXIES does not name all have the proxy's)",
    )
    fetch_hosts: str = Field(
        "",
        description="Comma-separated hosts (name or name:port) that images may be fetched from; "
        "empty: none are fetched",
    )
    fetch_insecure: bool = Field(
        False,
        description="Fetch and call webhooks over plain http and at private addresses too: for "
        "closed networks and tests",
    )
    jobs_dir: str = Field(
        "",
        description="Folder of jobs and their images; processes that share it are one service. "
        "Default: stable-diffusion/jobs in XDG_STATE_HOME or ~/.local/state",
    )
    jobs_max: int = Field(
        1000, ge=1, description="Jobs of a key waiting at most; more are refused (429)"
    )
    jobs_active: int = Field(16, ge=1, description="Jobs passed to the engine at once at most")
    jobs_retention_h: float = Field(
        24.0, gt=0, description="Hours that ended jobs and their images are kept"
    )
    webhook_secret: str = Field(
        "",
        description="Comma-separated secrets (`whsec_` and base64), each of which signs the "
        "webhooks of jobs; empty: jobs with a webhook are refused",
    )
    url_expiry_s: float = Field(
        3600.0,
        gt=0,
        le=30 * 24 * 3600,
        description="How long signed addresses are valid: of images that OpenAI's "
        "`response_format=url` asks for, which are kept as long, and of `/jobs/{id}/links`",
    )
    urls_s3: str = Field(
        "",
        description="`s3://bucket/prefix` that those images are put into; their addresses are "
        "presigned ones of S3. Empty: this service keeps and answers them",
    )
    transparent: Literal["opaque", "refuse"] = Field(
        "opaque",
        description="What happens to OpenAI's `background=transparent`, which no model here can "
        "generate: an opaque image that says so, or 400",
    )
    metadata: Literal["full", "minimal", "none"] = Field(
        "full", description="Parameters written into the images"
    )
    watermark: str = Field(
        "",
        description="A text of your choice, whose imperceptible watermark is put into every "
        "generated or enlarged image; with the same text POST /verify finds it. Empty: none",
    )
    c2pa_cert: str | None = Field(
        None, description="PEM file, the certificate chain that images are signed with (C2PA)"
    )
    c2pa_key: str | None = Field(None, description="PEM file (PKCS #8), its private key")
    c2pa_alg: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = Field(
        "es256", description="The key's algorithm"
    )
    c2pa_timestamps: str | None = Field(
        None, description="Address of a timestamp authority (RFC 3161); default: none"
    )
    safety: Literal["off", "flag", "blur", "block"] = Field(
        "block", description="What happens to flagged images where the model ships a safety checker"
    )
    ui: bool = Field(True, description="The web page at /ui")
    log_format: Literal["text", "json"] = Field(
        "text",
        description="json: every line of the log is an object with time, level, logger, message, "
        "and the request's id and the name of its key",
    )

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if device not in ("auto", *ACCELERATORS):
            raise ValueError(f"it must be one of auto, {', '.join(ACCELERATORS)}")
        return device

    @field_validator("path_prefix")
    @classmethod
    def _check_path_prefix(cls, prefix: str) -> str:
        plain = prefix.rstrip("/")
        if plain and not PATH_PREFIX.fullmatch(plain):
            raise ValueError("it must look like /sd or /images/sd")
        return plain

    @field_validator("urls_s3")
    @classmethod
    def _check_urls_s3(cls, folder: str, others: ValidationInfo) -> str:
        if folder and not S3_FOLDER.fullmatch(folder):
            raise ValueError("it must look like s3://bucket/prefix")
        if folder and others.data.get("url_expiry_s", 0) > S3_EXPIRY_S:
            raise ValueError("SD_URL_EXPIRY_S can be 7 days at most with it")
        return folder

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, proxies: str) -> str:
        if proxies.strip() != "*":
            for proxy in filter(None, map(str.strip, proxies.split(","))):
                ipaddress.ip_network(proxy)
        return proxies.strip()

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: str) -> str:
        named = _pairs(models, "=")
        for name, source in named:
            if not MODEL_NAME.fullmatch(name) or not source:
                raise ValueError(f"{name!r}: each must be name=source, the name of A-Za-z0-9._-")
        if len(dict(named)) < len(named):
            raise ValueError("a name stands twice")
        return models

    @property
    def further_models(self) -> dict[str, str]:
        """Return name -> source of SD_MODELS."""
        return dict(_pairs(self.models, "="))

    @property
    def jobs_folder(self) -> Path:
        """Return SD_JOBS_DIR, or `stable-diffusion/jobs` in the user's state folder (XDG)."""
        if self.jobs_dir:
            return Path(self.jobs_dir)
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(state) / "stable-diffusion" / "jobs"

    @field_validator("quantize")
    @classmethod
    def _check_quantize(cls, quantize: str) -> str:
        named = _pairs(quantize, ":")
        for component, kind in named:
            if not component or kind not in QUANTIZED:
                known = ", ".join(QUANTIZED)
                raise ValueError(f"{component}:{kind} is not component:kind; kinds are {known}")
        if len(dict(named)) < len(named):
            raise ValueError("a component stands twice")
        return quantize

    @property
    def quantized(self) -> dict[str, str]:
        """Return component -> kind of SD_QUANTIZE."""
        return dict(_pairs(self.quantize, ":"))

    @classmethod
    def page(cls) -> str:
        """Return the settings in Markdown, the content of docs/settings.md."""
        rows = (f"| `{name}` | {default} | {text} |" for name, default, text in cls.rows())
        return "\n".join([PAGE, *rows])


def _pairs(text: str, between: str) -> list[tuple[str, str]]:
    """Return the names and values of a list that is separated by commas."""
    parts = [part.partition(between) for part in text.split(",") if part.strip()]
    return [(name.strip(), value.strip()) for name, _, value in parts]
