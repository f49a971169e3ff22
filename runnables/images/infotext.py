"""The Stable Diffusion WebUI writes this text about an image into its file, and reads it back.

It is the prompt, a line with the negative prompt, and a last line of settings:

    a red cat
    Negative prompt: dogs
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 7, Size: 512x512

Names are those of the WebUI, so that it, and `png-info` here, can generate the same image again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runnables import attention
from runnables.samplers import names

MAX_TEXT = 1_000_000  # characters; a longer text is not read
NEGATIVE = "Negative prompt:"
FIRST = "Steps: "  # what the line of settings begins with
#: our spacing of noise levels -> the name of the WebUI's schedule
SCHEDULES = {
    "": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "trailing": "SGM Uniform",
}
#: what has to be quoted in a value
SPECIAL = (",", "\n", ":", '"')


def write(parameters: Mapping[str, Any]) -> str:
    """Return the text for these parameters, which have nothing left open.

    Those of a task that the WebUI has no such text for are written as JSON.
    """
    if "prompt" not in parameters:
        return json.dumps(parameters)
    skip = parameters.get("clip_skip")
    settings = {
        "Steps": parameters["num_inference_steps"],
        **_sampler(str(parameters["scheduler"])),
        "CFG scale": parameters["guidance_scale"],
        "Seed": parameters["seed"],
        "Size": f"{parameters['width']}x{parameters['height']}",
        "Model": parameters.get("model"),
        "Denoising strength": parameters.get("strength"),
        "Clip skip": skip + 1 if skip else None,
        **_second_pass(parameters.get("hires")),
    }
    syntax = parameters.get("prompt_syntax", "plain")
    lines = [" ".join([_prompt(parameters["prompt"], syntax), *_tags(parameters)])]
    if parameters.get("negative_prompt"):
        lines.append(f"{NEGATIVE} {_prompt(parameters['negative_prompt'], syntax)}")
    lines.append(
        ", ".join(
            f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None
        )
    )
    return "\n".join(lines)


def _prompt(text: str, syntax: str) -> str:
    """Return a prompt in the WebUI's syntax; compel's stays as it is.

    A line of it that looks like the negative prompt is joined with the line before, which the text
    encoders do not notice: they read any white space alike.
    """
    *before, last = text.split(NEGATIVE)
    joined = NEGATIVE.join([*map(_without_break, before), last])
    return attention.escaped(joined) if syntax == "plain" else joined


def _without_break(text: str) -> str:
    """Return a text with a blank for the line breaks at its end."""
    kept = text.rstrip()
    blanks, line_break, _ = text[len(kept) :].partition("\n")
    return f"{kept}{blanks} " if line_break else text


def _tags(parameters: Mapping[str, Any]) -> list[str]:
    """Return the LoRAs as tags of the prompt."""
    return [f"<lora:{one['name']}:{_weights(one)}>" for one in parameters.get("loras") or ()]


def _weights(lora: Mapping[str, Any]) -> str:
    """Return a LoRA's weight, or its weights in text encoders and UNet where they differ."""
    text = lora.get("text_weight")
    return f"{lora['weight']:g}" if text is None else f"{text:g}:{lora['weight']:g}"


def _sampler(name: str) -> dict[str, str]:
    """Return a sampler's two names."""
    sampler = names.find(name)
    if sampler is None or sampler.name == names.DEFAULT.name:
        return {"Sampler": name}
    plain = names.samplers().get(sampler.name.removesuffix(f"_{sampler.spacing}"), sampler)
    return {"Sampler": plain.label, "Schedule type": SCHEDULES[sampler.spacing]}


def _second_pass(hires: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a second pass in the WebUI's names; its strength stands where img2img's would."""
    if not hires:
        return {}
    return {
        "Denoising strength": hires["strength"],
        "Hires upscale": hires["scale"],
        "Hires steps": hires["num_inference_steps"],
        "Hires upscaler": {"latent": "Latent"}.get(hires["upscaler"], hires["upscaler"]),
    }


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(one in text for one in SPECIAL) else text


def parse(text: str) -> dict[str, str]:
    r"""Return prompts and settings by the WebUI's names; nothing where there is no such text.

    It takes time in proportion to the length of the text.

    >>> parse("a cat\nNegative prompt: dog\nSteps: 4, Size: 64x32")["Negative prompt"]
    'dog'
    """
    if len(text) > MAX_TEXT:
        return {}
    prompts, _, last = text.strip().rpartition("\n")
    if not last.startswith(FIRST):
        return {}
    prompt, _, negative = f"\n{prompts}".partition(f"\n{NEGATIVE}")
    found = {"Prompt": prompt.strip(), "Negative prompt": negative.strip(), **dict(_settings(last))}
    width, _, height = found.get("Size", "").partition("x")
    if width.isdecimal() and height.isdecimal():
        found["Size-1"], found["Size-2"] = width, height
    return found


def _settings(line: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values of a line: `name: value, name: "a value, quoted", ...`."""
    at = 0
    while at < len(line):
        comma = _or_end(line, line.find(",", at))
        colon = line.find(":", at, comma)
        name = line[at : max(colon, at)].strip()
        if not _is_name(name):
            at = comma + 1
            continue
        start = _past_spaces(line, colon + 1)
        end = _end_of_string(line, start) if line[start : start + 1] == '"' else comma
        after = _past_spaces(line, end)
        if line[after : after + 1] not in ("", ","):  # not a quoted value after all
            end = after = comma
        yield name, _plain(line[start:end])
        at = after + 1


def _is_name(text: str) -> bool:
    return text[:1].isalnum() and all(one.isalnum() or one in "_ -/" for one in text)


def _past_spaces(line: str, at: int) -> int:
    while line[at : at + 1] == " ":
        at += 1
    return at


def _or_end(line: str, at: int) -> int:
    return len(line) if at < 0 else at


def _end_of_string(line: str, start: int) -> int:
    """Return where the string that begins here has ended, or -1.

    A quotation mark at the beginning of a later value ends it at the latest, so that no part of the
    line is read more than twice.
    """
    at = start + 1
    while at < len(line) and line[at] != '"':
        at += 2 if line[at] == "\\" else 1
    return at + 1 if at < len(line) else _or_end(line, line.find(",", start))


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        text = str(json.loads(value))
        text.encode()  # half a surrogate pair is no text
    except ValueError:
        return value.strip()
    return text
