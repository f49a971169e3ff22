"""This module wraps compel (https://github.com/damian0815/compel) around one text encoder.

Its parser and its arithmetic are used as they are: weights above 1 move a token's embedding away
from that of the empty prompt, weights below 1 blend with the prompt that lacks the words; texts of
any length are encoded in chunks of the model's 77 tokens, split at sentence, phrase or word ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyparsing
import torch
from compel import Compel
from compel.embeddings_provider import (
    BaseTextualInversionManager,
    EmbeddingsProvider,
    SplitLongTextMode,
)
from compel.prompt_parser import Blend, Conjunction, PromptParser
from torch import Tensor

from runnables import attention
from runnables.errors import InvalidInput
from runnables.parameters import Syntax

if TYPE_CHECKING:
    from runnables.families.text.clip import ClipEncoder
    from runnables.families.text.prompts import Vocabulary

pyparsing.ParserElement.enable_packrat()  # else time is exponential in the parentheses' depth
DEEPEST = 10
LONGEST = 1000  # characters: 0.4 s of one processor, during which no other prompt is parsed
PARSED = 256  # the last prompts, whose parsing is kept
LARGEST = 10.0


@lru_cache(PARSED)
def parse(prompt: str) -> Conjunction:
    """Return a prompt's parts; `check` parses it, and the engine's thread finds it here.

    pyparsing holds a lock of the whole process while it parses.
    """
    return PromptParser().parse_conjunction(prompt)


class Composer(Compel):
    """This is compel with our `parse`."""

    parse_prompt_string = staticmethod(parse)


class Manager(BaseTextualInversionManager):
    """This manager lets compel weight all words of a concept alike."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def expand_textual_inversion_token_ids_if_necessary(self, token_ids: list[int]) -> list[int]:
        return self._vocabulary.expand(token_ids)


@dataclass(frozen=True)
class _Placed:
    """compel asks this where encodings belong; a streamed encoder's own weights are elsewhere."""

    device: torch.device
    dtype: torch.dtype


class Provider(EmbeddingsProvider):
    """This is compel's provider, with `clip_skip` counted as diffusers does, at any depth."""

    def __init__(self, encoder: ClipEncoder, clip_skip: int) -> None:
        super().__init__(
            encoder.tokenizer,
            _Placed(encoder.device, encoder.model.dtype),
            Manager(encoder.vocabulary) if encoder.vocabulary else None,
            truncate=False,
            split_long_text_mode=SplitLongTextMode.SENTENCES,  # as Compel itself has it
            dtype_for_device_getter=lambda device: encoder.model.dtype,
        )
        self._encoder = encoder
        self._clip_skip = clip_skip

    def _encode_token_ids_to_embeddings(
        self, token_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        return self._encoder.forward(token_ids, attention_mask, self._clip_skip)[0]


def compose(encoder: ClipEncoder, prompt: str, clip_skip: int, syntax: Syntax) -> Tensor:
    """Return the encoding of a prompt of any length: (a multiple of 77 tokens, features).

    Raises:
        InvalidInput: The prompt is not in this syntax.
    """
    provider = Provider(encoder, clip_skip)
    compel = Composer(encoder.tokenizer, provider.text_encoder, truncate_long_prompts=False)
    compel.conditioning_provider = provider
    if syntax != "compel":
        pieces = attention.parse(prompt) if syntax == "webui" else [(prompt, 1.0)]
        texts, weights = zip(
            *[piece for piece in pieces if piece[0].strip()] or [("", 1.0)], strict=True
        )
        embedding: Tensor = provider.get_embeddings_for_weighted_prompt_fragments(
            [list(texts)], [list(weights)], device=encoder.device
        )
        return embedding[0]
    try:
        return compel.build_conditioning_tensor(prompt)[0]  # type: ignore[no-any-return]
    except (RuntimeError, ValueError, IndexError) as error:
        raise _refusal(str(error)) from error


def check(prompt: str, loc: str, syntax: Syntax) -> None:
    """Check that a prompt is in its syntax.

    Raises:
        InvalidInput: It is not; the field is named.
    """
    if syntax == "compel":
        _check_compel(prompt, loc)
    elif syntax == "webui":
        try:
            attention.parse(prompt)
        except ValueError as error:
            raise InvalidInput(f"{loc}: {error}", loc=(loc,)) from error


def _check_compel(prompt: str, loc: str) -> None:
    if len(prompt) > LONGEST:
        raise _refusal(f"it is {len(prompt)} characters long, and {LONGEST} are the most", loc)
    if _depth(prompt) > DEEPEST:
        raise _refusal(f"parentheses may lie within one another {DEEPEST} deep", loc)
    try:
        conjunction = parse(prompt)
    except Exception as error:  # the parser's own, and pyparsing's
        raise _refusal(str(error), loc) from error
    weights = list(conjunction.weights)
    for part in conjunction.prompts:
        blend = isinstance(part, Blend)
        weights += part.weights if blend else []
        for fragment in (f for p in (part.prompts if blend else [part]) for f in p.children):
            if not hasattr(fragment, "weight"):
                raise _refusal(".swap() is not supported", loc)
            weights.append(fragment.weight)
    if not all(0 <= weight <= LARGEST for weight in weights):
        raise _refusal(f"weights must be from 0 to {LARGEST:g}", loc)


def _depth(prompt: str) -> int:
    depth = deepest = 0
    for character in prompt:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


def _refusal(why: str, loc: str = "prompt") -> InvalidInput:
    return InvalidInput(f"{loc} is not in compel's syntax: {why}", loc=(loc,))
