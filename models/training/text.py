"""The text encoder: taught, before the UNet, to tell what a caption says."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import draw
from models.training.concepts import concepts, keywords
from models.training.run import DEVICE, RANK, Run
from models.training.sprites import STYLES
from models.training.tokenizer import load_tokenizer, tokenize

TEXT_WIDTH = 128
FIELDS: dict[str, list[str]] = {
    "shape": ["", *draw.SHAPES],
    "colour": ["", *draw.COLOURS],
    "background": ["", *draw.COLOURS],
    "size": list(draw.SIZES),
    "place": list(draw.PLACES),
    "scene": ["", *draw.SCENES],
    "thing": ["", *concepts()],
    "style": ["", *STYLES],
    "other": ["", *concepts()],
}
SHORT = 28  # tokens of most batches; the end tokens after them are seen less often


class Reader(nn.Module):
    """The text encoder with a linear head per field, on the end token and on those after it."""

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
        self.end = vocabulary - 1
        self.heads = nn.ModuleDict({k: nn.Linear(TEXT_WIDTH, len(v)) for k, v in FIELDS.items()})

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """{field: (N, choices)} from the mean of end tokens, and from one of them at random."""
        states = self.encoder(ids)[0]
        end = ids == self.end
        weights = torch.rand(ids.shape, device=ids.device) * end
        one = F.one_hot(weights.argmax(1), ids.shape[1]).to(states.dtype)
        mean = end.to(states.dtype) / end.sum(1, keepdim=True)
        pooled = torch.cat([(states * w[..., None]).sum(1) for w in (one, mean)])
        return {name: head(pooled) for name, head in self.heads.items()}


def train_text(out: Path, work: Path, steps: int, batch: int, seed: int) -> None:
    """Teach the encoder to say which thing, shape, colours, size, place and scene a caption means.

    The UNet then gets this in a form that it can read at once, and a synonym means the same to it
    as the name.
    """
    tokenizer = load_tokenizer(out)
    reader = Reader(len(tokenizer))
    run = Run("text", reader, work, steps, 1.5e-3, 0.995)
    words = keywords(work)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"text {seed} {step} {RANK}")
        torch.manual_seed(rng.randrange(2**31))
        subjects = [draw.told(draw.subject(rng, 0.4, 0.75), rng) for _ in range(batch)]
        captions = [blur(draw.caption(subject, rng, words), rng) for subject in subjects]
        for index in range(0, batch, 16):  # the empty prompt, and words without a meaning
            subjects[index] = draw.Subject()
            captions[index] = "" if rng.random() < 0.5 else _noise_words(rng)
        ids = tokenize(tokenizer, captions).to(DEVICE)
        if rng.random() < 0.7:
            ids = shortened(ids)
        outputs = reader(ids)
        losses = []
        for name, choices in FIELDS.items():
            wanted = torch.tensor([choices.index(getattr(s, name)) for s in subjects] * 2)
            losses.append(F.cross_entropy(outputs[name].float(), wanted.to(DEVICE)))
        return torch.stack(losses).sum()

    run(loss_of)
    if RANK == 0:
        run.load_ema()
        _report(reader, tokenizer, words)
        reader.encoder.to(torch.float16).save_pretrained(out / "text_encoder")


@torch.no_grad()
def _report(reader: Reader, tokenizer: Any, words: dict[str, list[str]]) -> None:
    """Print how often each field is read right from captions that were not used in training."""
    rng = random.Random("held out text")
    subjects = [draw.told(draw.subject(rng, 0.4, 0.75), rng) for _ in range(512)]
    captions = [draw.caption(subject, rng, words) for subject in subjects]
    right: dict[str, float] = {}
    outputs = reader(tokenize(tokenizer, captions).to(DEVICE))
    for name, choices in FIELDS.items():
        wanted = torch.tensor([choices.index(getattr(s, name)) for s in subjects] * 2)
        right[name] = (outputs[name].argmax(1).cpu() == wanted).float().mean().item()
    print({name: round(value, 3) for name, value in right.items()})


def shortened(ids: Tensor) -> Tensor:
    """Without the last end tokens, which cost most of the time, where every caption fits."""
    fits = bool((ids[:, SHORT - 1] == ids[:, -1]).all())
    return ids[:, :SHORT] if fits else ids


def blur(caption: str, rng: random.Random) -> str:
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
