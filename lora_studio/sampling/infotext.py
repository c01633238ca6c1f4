"""How a picture was made, as the text that A1111's web UI writes into it and reads (``modules/infotext_utils.py``
there): the prompt, a line ``Negative prompt:``, and a last line of ``Name: value`` pairs. Forge, Civitai and loaders of
ComfyUI read it too. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from lora_studio.diffusion import samplers
from lora_studio.sampling.image_settings import Hires
from lora_studio.sampling.picture_recipe import PictureRecipe, StartedFrom, Stated, UsedAdapter
from lora_studio.texts import prompts

_ELSEWHERE = {"euler_a": "Euler a", "euler_trailing": "Euler", "ddim_trailing": "DDIM"}
"""Samplers that A1111 calls otherwise than the studio."""
_TRAILING, _SPACED = "_trailing", "SGM Uniform"
"""How the studio's names of samplers end that begin at the last timestep, and A1111's schedule that does."""
_SCHEDULES = ("karras", "exponential", "sgm uniform", "automatic", "uniform", "polyexponential")
"""Words that earlier versions of A1111 put behind a sampler's name."""
_SHORT_MODEL, _SHORT_LORA = 10, 12
"""Characters of a hash that A1111 writes, of a checkpoint's file and of a LoRA's tensors."""
_FILES = (".safetensors", ".ckpt")
_MOST = 100_000
"""Characters that are read."""
_NEGATIVE = "Negative prompt:"
_PAIR = re.compile(r"\s*+([A-Za-z][\w \-/()]*+)\s*+:\s*+")
_SPACE = re.compile(r"(?<![ \t])[ \t]++(?=,)")
"""That a LoRA leaves before a comma. Nothing in either is tried twice: a picture from elsewhere may hold any text."""
_FEWEST = 3
"""Pairs that the last line has at least: fewer are words of the prompt."""
_SILENT = ("Version", "Hashes", "Hires upscaler")
_USUAL = {"RNG": "CPU", "Schedule type": "Automatic"}
"""What the studio does, so that nothing is lost."""


def write(recipe: PictureRecipe) -> str:
    """The text of ``recipe``."""
    loras = "".join(f" <lora:{one.name}:{one.weight:g}>" for one in recipe.adapters)
    negative = f"\n{_NEGATIVE} {recipe.negative}" if recipe.negative else ""
    pairs = ", ".join(f"{name}: {_quoted(value)}" for name, value in _pairs(recipe).items() if value)
    return f"{recipe.prompt}{loras}{negative}\n{pairs}"


def _pairs(recipe: PictureRecipe) -> dict[str, str]:
    hires, start = recipe.hires, recipe.start
    noise = hires.strength if hires else start.strength if start else None
    hashes = ", ".join(f"{one.name}: {one.tensors[:_SHORT_LORA]}" for one in recipe.adapters if one.tensors)
    is_file = recipe.base.lower().endswith(_FILES)  # A1111 knows models by their files' hashes, and no folders
    return {
        "Steps": str(recipe.steps),
        "Sampler": name_elsewhere(recipe.sampler),
        "Schedule type": _SPACED if recipe.sampler.endswith(_TRAILING) else "",
        "CFG scale": f"{recipe.guidance:g}",
        "Seed": str(recipe.seed),
        "Size": f"{recipe.width}x{recipe.height}" if recipe.width else "",
        "Model hash": recipe.base_sha256[:_SHORT_MODEL] if is_file else "",
        "Model": recipe.base.rpartition(".")[0] if is_file else recipe.base,
        "Denoising strength": "" if noise is None else f"{noise:g}",
        "Clip skip": str(recipe.clip_skip) if recipe.clip_skip > 1 else "",
        "RNG": "CPU",
        "Hires upscale": f"{hires.scale:g}" if hires else "",
        "Hires steps": str(hires.steps) if hires and hires.steps else "",
        "Lora hashes": hashes,
        "Version": f"LoRA Studio {recipe.version}".rstrip(),
    }


def name_elsewhere(sampler: str) -> str:
    """What A1111 calls a sampler of the studio."""
    return _ELSEWHERE.get(sampler, samplers.TITLES.get(sampler, sampler))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n"]', value) else value


def read(text: str) -> Stated:
    """What ``text`` tells. Any text can be read; one that does not end in pairs tells nothing.

    >>> read("a cat <lora:ink:0.8>\\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5").values["sampler"]
    'euler_a'
    """
    *words, last = text[:_MOST].strip().split("\n")
    pairs = dict(_split(last))
    if len(pairs) < _FEWEST:
        return Stated({}, {}, False)
    prompt, _, negative = "\n".join(words).partition(_NEGATIVE)
    plain, found = prompts.taken(prompt)
    values: dict[str, Any] = {"prompt": _SPACE.sub("", plain).strip(), "negative": negative.strip()}
    left: dict[str, str] = {}
    for name, value in pairs.items():
        understood = _READERS[name](value) if name in _READERS else {}
        values |= understood
        if not understood and name not in _SILENT and _USUAL.get(name) != value:
            left[name] = value
    values["adapters"] = _adapters(found, pairs.get("Lora hashes", ""))
    return Stated(_noise(_model(_schedule(values, left))), left, False)


def _split(line: str) -> Iterator[tuple[str, str]]:
    """The pairs of a line. A value is a string in quotes, JSON, or reaches to the next comma."""
    place, decoder = 0, json.JSONDecoder()
    while match := _PAIR.match(line, place):
        place = match.end()
        try:
            if line[place : place + 1] not in ('"', "{", "["):
                raise ValueError
            value, end = decoder.raw_decode(line, place)
            told = value if isinstance(value, str) else json.dumps(value)
        except (ValueError, RecursionError):
            end = line.find(",", place)
            end = len(line) if end < 0 else end
            told = line[place:end].strip()
        yield match[1].rstrip(), told
        following = line.find(",", end)
        place = len(line) if following < 0 else following + 1


def _adapters(found: list[tuple[str, float]], hashes: str) -> list[dict[str, Any]]:
    known = dict(pair.split(":", 1) for pair in hashes.split(",") if ":" in pair)
    tensors = {name.strip(): value.strip() for name, value in known.items()}
    made = []
    for name, weight in found:
        try:
            made.append(UsedAdapter(name=name, weight=weight, tensors=tensors.get(name, "")).model_dump())
        except ValidationError:
            continue  # a weight that no picture survives
    return made


def _schedule(values: dict[str, Any], left: dict[str, str]) -> dict[str, Any]:
    """``values`` with the sampler under the studio's name; where it has none, it is left."""
    told = values.pop("sampler", None)
    if told is None:
        return values
    plain = next((told[: -len(one) - 1] for one in _SCHEDULES if told.lower().endswith(f" {one}")), told)
    if plain != told:
        left.setdefault("Schedule type", told[len(plain) + 1 :])
    spaced = left.get("Schedule type") == _SPACED
    named = [key for key in samplers.NAMES if name_elsewhere(key).lower() == plain.lower()]
    fitting = [key for key in named if key.endswith(_TRAILING) == spaced]
    if not named:
        left["Sampler"] = told
        return values
    if fitting and spaced:
        del left["Schedule type"]
    return {**values, "sampler": (fitting or named)[0]}


def _model(values: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's name has its ending back, where a hash tells that it is one."""
    if values.get("base_sha256") and values.get("base"):
        values["base"] = f"{values['base']}.safetensors"
    return values


def _noise(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with a second pass or a start instead of their numbers."""
    strength, scale, steps = (values.pop(key, None) for key in ("strength", "scale", "second_steps"))
    if strength is None:
        return values
    if scale is None:
        return {**values, "start": StartedFrom(strength=strength).model_dump()}
    return {**values, "hires": Hires(scale=scale, strength=strength, steps=steps or 0).model_dump()}


def _reading(key: str, kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], dict[str, Any]]:
    def read(text: str) -> dict[str, Any]:
        try:
            value = kind(text)
        except ValueError:
            return {}
        return {key: value} if low <= value <= high else {}

    return read


def _size(text: str) -> dict[str, int]:
    match = re.fullmatch(r"(\d{1,5})\s*x\s*(\d{1,5})", text)
    return {"width": int(match[1]), "height": int(match[2])} if match else {}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "Steps": _reading("steps", int, 1, 1000),
    "Sampler": lambda text: {"sampler": text},
    "CFG scale": _reading("guidance", float, 0, 100),
    "Seed": _reading("seed", int, 0, 2**63 - 1),
    "Size": _size,
    "Model": lambda text: {"base": text},
    "Model hash": lambda text: {"base_sha256": text},
    "Clip skip": _reading("clip_skip", int, 1, 12),
    "Denoising strength": _reading("strength", float, 0.01, 1),
    "Hires upscale": _reading("scale", float, 1, 4),
    "Hires steps": _reading("second_steps", int, 0, 200),
    "Lora hashes": lambda text: {"adapters": ()},
}
"""What each name of the last line says, as fields of a recipe; empty where the value is none."""
