"""Trains the embedded model: `python -m models.embedded.train --stage all`.

Four stages, each resumable from its checkpoint in --work and each writing its part of a diffusers
folder to --out: a byte-pair tokenizer on our captions, an autoencoder, a CLIP text encoder that
learns to tell what a caption says, and the UNet that denoises latents with the text encoder frozen.
Two CPU cores take about two hours in all; a GPU is used where there is one.
"""

# mypy: disable-error-code="no-any-return"
# (numpy and torch expressions are typed Any in part)
from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from models.embedded import draw

SIZES = [(128, 128)] * 6 + [(96, 128), (128, 96), (128, 192), (160, 160)]
TEXT_WIDTH = 128
STAGES = ("tokenizer", "vae", "text", "unet")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# -- shared ----------------------------------------------------------------------------------------


class Run:
    """A training loop that can be stopped and taken up again.

    Args:
        module: what is trained; `ema` follows it with the given decay.
        steps: optimiser steps in all, on a one-cycle learning rate that peaks at `rate`.
    """

    def __init__(
        self, name: str, module: nn.Module, work: Path, steps: int, rate: float, decay: float
    ) -> None:
        self.name, self.module, self.steps, self.decay = name, module.to(DEVICE), steps, decay
        self.path = work / f"{name}.pt"
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=steps + 1, pct_start=0.06, final_div_factor=20
        )
        self.ema = {k: v.detach().clone().float() for k, v in module.state_dict().items()}
        self.step = 0
        if self.path.exists():
            saved = torch.load(self.path, map_location=DEVICE)
            self.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.ema, self.step = saved["ema"], saved["step"]

    def __call__(self, loss_of: Callable[[int], Tensor], every: int = 250) -> None:
        """Train to the end; `loss_of(step)` draws a batch and returns its loss."""
        bar = tqdm(range(self.step, self.steps), self.name, initial=self.step, total=self.steps)
        mean = None
        for step in bar:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            self._follow()
            self.step = step + 1
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{mean:.4f}")
            if self.step % every == 0 or self.step == self.steps:
                self.save()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for key, value in self.module.state_dict().items():
            self.ema[key].lerp_(value.float(), 1 - decay)

    def save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema,
            "step": self.step,
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").rename(self.path)

    def load_ema(self) -> None:
        """Put the averaged weights into the module."""
        like = self.module.state_dict()
        self.module.load_state_dict({k: v.to(like[k].dtype) for k, v in self.ema.items()})


def pictures(rng: random.Random, count: int, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """(count, 3, H, W) in -1..1 and their captions."""
    subjects = [draw.subject(rng) for _ in range(count)]
    pixels = np.stack([draw.render(subject, rng, *size) for subject in subjects])
    captions = [draw.caption(subject, rng) for subject in subjects]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1, captions


# -- tokenizer -------------------------------------------------------------------------------------


def train_tokenizer(out: Path) -> None:
    """A CLIP-format byte-pair vocabulary (vocab.json, merges.txt) of our captions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    rng = random.Random(0)
    corpus = [draw.caption(draw.subject(rng, 0.5), rng) for _ in range(20_000)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=1200,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in trained["merges"]]
    # CLIP's order: bytes, bytes that end a word, merges, special tokens
    words = sorted(alphabet)
    words += [letter + "</w>" for letter in words]
    words += ["".join(pair.split(" ")) for pair in merges]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: index for index, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    from transformers import CLIPTokenizer

    CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    ).save_pretrained(folder)


def load_tokenizer(out: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(out / "tokenizer")


def tokenize(tokenizer: Any, captions: list[str]) -> Tensor:
    """(N, 77) ids."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


# -- autoencoder -----------------------------------------------------------------------------------


def build_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=128,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        force_upcast=False,
    )


@torch.no_grad()
def start_as_resampler(vae: Any) -> None:
    """Begin as a network that shrinks the picture to its latents and enlarges it again.

    Colours then pass from the first step on. Channels 0-2 carry red, green and blue, 3-5 their
    negatives (silu(x) - silu(-x) = x) and 6 is constant, so that group norms keep the scale.
    """
    for module in vae.modules():
        _pass_through(module)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in):
        conv.weight[:7] = 0
        conv.bias[6] = 1.0
        for colour in range(3):
            conv.weight[colour, colour, 1, 1] = 1.0
            conv.weight[colour + 3, colour, 1, 1] = -1.0
    for conv in (vae.encoder.conv_out, vae.decoder.conv_out):
        _fade(conv, 0.1)
        for colour in range(3):
            conv.weight[colour, colour, 1, 1] = 1.0
            conv.weight[colour, colour + 3, 1, 1] = -1.0
    for conv in (vae.quant_conv, vae.post_quant_conv):
        _fade(conv, 0.1)
        _pass(conv, range(4))


def _pass_through(module: nn.Module) -> None:
    """Residual blocks do little, and resampling does nothing but that."""
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    if isinstance(module, ResnetBlock2D):
        _fade(module.conv2, 0.1)
        if module.conv_shortcut is not None:
            _fade(module.conv_shortcut, 0.1)
            _pass(module.conv_shortcut, range(min(module.conv_shortcut.weight.shape[:2])))
    elif isinstance(module, Downsample2D):
        _fade(module.conv, 0.1)
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            _pass(module.conv, range(module.conv.weight.shape[0]), 0.25, row, column)
    elif isinstance(module, Upsample2D):
        _fade(module.conv, 0.1)
        _pass(module.conv, range(module.conv.weight.shape[0]))


def _fade(conv: Any, factor: float) -> None:
    conv.weight.mul_(factor)
    conv.bias.mul_(0)


def _pass(conv: Any, channels: range, weight: float = 1.0, row: int = -1, column: int = -1) -> None:
    """Let channels through at one tap of the kernel, by default its centre."""
    middle = conv.weight.shape[-1] // 2
    for channel in channels:
        conv.weight[
            channel, channel, row if row >= 0 else middle, column if column >= 0 else middle
        ] = weight


def train_vae(out: Path, work: Path, steps: int, batch: int, seed: int) -> None:
    """L1 on pixels and on their gradients (sharp edges), through lightly noised latents.

    The posterior is trained as a point with a little fixed noise: sampling it from the start, at
    unit variance, drowns what few steps can learn.
    """
    vae = build_vae().to(memory_format=torch.channels_last)
    start_as_resampler(vae)
    run = Run("vae", vae, work, steps, 2e-3, 0.995)
    loader = _loader(VaePictures(seed, batch, run.step))

    def loss_of(step: int) -> Tensor:
        pixels = next(loader).to(DEVICE, memory_format=torch.channels_last)
        latents = vae.encode(pixels).latent_dist.mean
        noisy = latents + 0.03 * torch.randn_like(latents)
        decoded = vae.decode(noisy).sample.float()
        return reconstruction(decoded, pixels) + 1e-3 * latents.float().square().mean()

    run(loss_of)
    run.load_ema()
    _sharpen(vae)
    vae.register_to_config(scaling_factor=_latent_scale(vae, seed))
    vae.to(torch.float16).save_pretrained(out / "vae")


def _sharpen(vae: Any) -> None:
    """Give the posterior the small fixed variance it was trained with."""
    with torch.no_grad():
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = 2 * np.log(0.03)


def reconstruction(decoded: Tensor, pixels: Tensor) -> Tensor:
    """L1 of values and of horizontal and vertical differences."""
    loss = F.l1_loss(decoded, pixels)
    for dim in (2, 3):
        loss = loss + F.l1_loss(decoded.diff(dim=dim), pixels.diff(dim=dim))
    return loss


class VaePictures(torch.utils.data.IterableDataset[Tensor]):
    """Endless batches of pictures; scenes are over-represented, they are harder."""

    def __init__(self, seed: int, batch: int, start: int) -> None:
        self.seed, self.batch, self.start = seed, batch, start

    def __iter__(self) -> Iterator[Tensor]:
        step = self.start
        while True:
            rng = random.Random(f"vae {self.seed} {step}")
            kinds = [draw.subject(rng, 0.6) for _ in range(self.batch)]
            pixels = np.stack([draw.render(subject, rng) for subject in kinds])
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1
            step += 1


def _loader(dataset: Any) -> Iterator[Any]:
    return iter(
        torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)
    )


@torch.no_grad()
def _latent_scale(vae: Any, seed: int) -> float:
    pixels, _ = pictures(random.Random(seed + 1), 256, (128, 128))
    latents = torch.cat([vae.encode(part.to(DEVICE)).latent_dist.mean for part in pixels.split(32)])
    return round(1 / latents.std().item(), 5)


# -- text encoder ----------------------------------------------------------------------------------

FIELDS: dict[str, list[str]] = {
    "shape": ["", *draw.SHAPES],
    "colour": ["", *draw.COLOURS],
    "background": ["", *draw.COLOURS],
    "size": list(draw.SIZES),
    "place": list(draw.PLACES),
    "scene": ["", *draw.SCENES],
}


class Reader(nn.Module):
    """The text encoder with a linear head a field, on the end token and on every token after it."""

    def __init__(self, vocabulary: int) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__()
        self.encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=TEXT_WIDTH,
                intermediate_size=2 * TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=77,
                projection_dim=TEXT_WIDTH,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
                pad_token_id=vocabulary - 1,
                hidden_act="quick_gelu",
            )
        )
        self.heads = nn.ModuleDict({k: nn.Linear(TEXT_WIDTH, len(v)) for k, v in FIELDS.items()})

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """{field: (N, choices)} from the mean of end tokens, and from one of them at random."""
        states = self.encoder(ids)[0]
        end = ids == self.encoder.config.eos_token_id
        weights = torch.rand(ids.shape, device=ids.device) * end
        one = F.one_hot(weights.argmax(1), ids.shape[1]).to(states.dtype)
        mean = end.to(states.dtype) / end.sum(1, keepdim=True)
        pooled = torch.cat([(states * w[..., None]).sum(1) for w in (one, mean)])
        return {name: head(pooled) for name, head in self.heads.items()}


def train_text(out: Path, work: Path, steps: int, batch: int, seed: int) -> None:
    """Teach the encoder to tell shape, colours, size, place and scene of a caption.

    So the UNet is told in a form it can read at once: trained together, colours come late.
    """
    tokenizer = load_tokenizer(out)
    reader = Reader(len(tokenizer))
    run = Run("text", reader, work, steps, 1e-3, 0.995)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"text {seed} {step}")
        subjects = [draw.told(draw.subject(rng, 0.4), rng) for _ in range(batch)]
        captions = [_blur(draw.caption(subject, rng), rng) for subject in subjects]
        for index in range(0, batch, 12):  # the empty prompt, and words that say nothing
            subjects[index] = draw.Subject()
            captions[index] = "" if rng.random() < 0.5 else _noise_words(rng)
        outputs = reader(tokenize(tokenizer, captions).to(DEVICE))
        losses = []
        for name, choices in FIELDS.items():
            wanted = torch.tensor([choices.index(getattr(s, name)) for s in subjects] * 2)
            losses.append(F.cross_entropy(outputs[name].float(), wanted.to(DEVICE)))
        return torch.stack(losses).sum()

    run(loss_of, every=500)
    run.load_ema()
    reader.encoder.to(torch.float16).save_pretrained(out / "text_encoder")


def _blur(caption: str, rng: random.Random) -> str:
    """Now and then add words that carry nothing, so that unknown words do not disturb."""
    if rng.random() < 0.4:
        words = caption.split(" ")
        words.insert(rng.choice([0, len(words)]), _noise_words(rng))
        return " ".join(words)
    return caption


def _noise_words(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(rng.randint(1, 5))]
    return " ".join(words)


# -- UNet ------------------------------------------------------------------------------------------


def build_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@torch.no_grad()
def encode_pictures(out: Path, work: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Latents and captions of `count` pictures in groups of one size, drawn and encoded once."""
    path = work / f"latents-{count}.pt"
    if path.exists():
        cached: list[dict[str, Any]] = torch.load(path)
        return cached
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).to(DEVICE)
    groups: list[dict[str, Any]] = []
    for index in tqdm(range(count // 64), "latents"):
        rng = random.Random(f"latents {seed} {index}")
        size = rng.choice(SIZES)
        subjects = [draw.subject(rng, 0.35) for _ in range(64)]
        pixels = np.stack([draw.render(subject, rng, *size) for subject in subjects])
        batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1).to(DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            latents = vae.encode(batch).latent_dist.mean * vae.config.scaling_factor
        groups.append({"latents": latents.half().cpu(), "subjects": subjects})
    torch.save(groups, path)
    return groups


def train_unet(out: Path, work: Path, steps: int, batch: int, pictures_: int, seed: int) -> None:
    """Noise prediction (arXiv:2006.11239) with min-SNR weights (arXiv:2303.09556)."""
    from diffusers import DDPMScheduler
    from transformers import CLIPTextModel

    groups = encode_pictures(out, work, pictures_, seed)
    tokenizer = load_tokenizer(out)
    text = (
        CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32).to(DEVICE).eval()
    )
    unet = build_unet().to(memory_format=torch.channels_last)
    alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod.to(DEVICE)
    run = Run("unet", unet, work, steps, 1.2e-3, 0.9985)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"unet {seed} {step}")
        torch.manual_seed(rng.randrange(2**31))
        group = rng.choice(groups)
        chosen = [rng.randrange(64) for _ in range(batch)]
        latents = group["latents"][chosen].float().to(DEVICE)
        told = [draw.told(group["subjects"][i], rng) for i in chosen]
        captions = [
            "" if rng.random() < 0.1 else _blur_lightly(draw.caption(subject, rng), rng)
            for subject in told
        ]
        with torch.no_grad():
            states = text(tokenize(tokenizer, captions).to(DEVICE))[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (len(chosen),), device=DEVICE)
        signal = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        predicted = unet(
            noisy.contiguous(memory_format=torch.channels_last), timesteps, states
        ).sample
        ratio = (alphas / (1 - alphas))[timesteps]
        weight = ratio.clamp(max=5.0) / ratio
        return (weight * (predicted.float() - noise).square().mean(dim=(1, 2, 3))).mean()

    run(loss_of)
    run.load_ema()
    save_pipeline(out, unet)


def _blur_lightly(caption: str, rng: random.Random) -> str:
    return _blur(caption, rng) if rng.random() < 0.25 else caption


def save_pipeline(out: Path, unet: Any) -> None:
    """UNet, scheduler and model_index.json: the folder is a diffusers model from here on."""
    from diffusers import PNDMScheduler

    unet.to(torch.float16).save_pretrained(out / "unet")
    PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **SCHEDULER).save_pretrained(
        out / "scheduler"
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--stage", choices=[*STAGES, "all", "save-unet"], default="all")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="the model's folder"
    )
    parser.add_argument("--work", type=Path, default=Path("output.training"), help="checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=3000)
    parser.add_argument("--text-steps", type=int, default=700)
    parser.add_argument("--unet-steps", type=int, default=12_000)
    parser.add_argument(
        "--pictures", type=int, default=48_000, help="pictures encoded for the UNet"
    )
    parser.add_argument("--batch", type=int, default=64, help="rows a UNet step")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    out, work, seed = arguments.out, arguments.work, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Callable[[], None]] = {
        "tokenizer": lambda: train_tokenizer(out),
        "vae": lambda: train_vae(out, work, arguments.vae_steps, 16, seed),
        "text": lambda: train_text(out, work, arguments.text_steps, 96, seed),
        "unet": lambda: train_unet(
            out, work, arguments.unet_steps, arguments.batch, arguments.pictures, seed
        ),
        "save-unet": lambda: _save_checkpoint(out, work),
    }
    for stage in STAGES if arguments.stage == "all" else [arguments.stage]:
        stages[stage]()


def _save_checkpoint(out: Path, work: Path) -> None:
    """Write the averaged weights of an unfinished UNet run."""
    unet = build_unet()
    like = unet.state_dict()
    ema = torch.load(work / "unet.pt", map_location="cpu")["ema"]
    unet.load_state_dict({k: v.to(like[k].dtype) for k, v in ema.items()})
    save_pipeline(out, unet)


if __name__ == "__main__":
    main()
