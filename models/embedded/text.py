"""The text encoder: taught, before the UNet, to tell what a caption says."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.embedded import draw
from models.embedded.run import DEVICE, Run
from models.embedded.tokenizer import load_tokenizer, tokenize

TEXT_WIDTH = 128
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
        captions = [blur(draw.caption(subject, rng), rng) for subject in subjects]
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
