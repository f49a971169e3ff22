"""A CLIP-format byte-pair tokenizer, trained on our captions."""

# mypy: disable-error-code="no-any-return"
# (torch expressions are typed Any in part)
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from torch import Tensor

from models.training import draw
from models.training.concepts import keywords


def train_tokenizer(out: Path, work: Path) -> None:
    """A CLIP-format byte-pair vocabulary (vocab.json, merges.txt) of our captions."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    rng = random.Random(0)
    further = keywords(work)
    corpus = [draw.caption(draw.subject(rng, 0.5, 0.7), rng, further) for _ in range(40_000)]
    corpus += [name for names in further.values() for name in names] * 4
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=2600,
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
