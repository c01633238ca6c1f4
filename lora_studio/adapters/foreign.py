"""Names for what the studio does not read: adapters of other architectures or methods, and no adapters. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from lora_studio.adapters import detect
from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.families.layout import Shape
from lora_studio.language import tr

_HEADERS = {
    "flux": "Flux",
    "chroma": "Chroma",
    "stable-diffusion-v3": "Stable Diffusion 3",
    "stable-diffusion-3": "Stable Diffusion 3",
    "sd3": "Stable Diffusion 3",
    "stable-diffusion-xl-v1-refiner": "the SDXL refiner",
    "stable-cascade": "Stable Cascade",
    "anima": "Anima",
    "lumina": "Lumina",
    "z-image": "Z-Image",
    "zimage": "Z-Image",
    "hunyuan": "Hunyuan",
    "qwen": "Qwen Image",
    "wan": "Wan",
    "pixart": "PixArt",
    "auraflow": "AuraFlow",
    "cosmos": "Cosmos",
}
"""How ``modelspec.architecture``, ``ss_base_model_version``, or the end of ``ss_network_module``, begins -> what the
adapter is for.
"""
_MARKS = {
    "joint_blocks": "Stable Diffusion 3",
    "double_blocks": "Flux",
    "single_transformer_blocks": "Flux",
    "llm_adapter": "Anima",
    "context_refiner": "Lumina",
    "add_q_proj": "Qwen Image",
    "adaln_single": "PixArt",
    "motion_modules": "AnimateDiff",
    "cross_attn": "Wan",
}
"""A part of a key -> the same, rarer marks first."""
_METHODS = {
    "oft_blocks": "an OFT",
    "oft_diag": "an OFT",
    "oft_R.weight": "an OFT",
    "boft_R": "a BOFT",
    "boft_s": "a BOFT",
    "a1.weight": "a GLoRA",
    "b1.weight": "a GLoRA",
    "on_input": "an (IA)³",
    "ia3_l": "an (IA)³",
    "vera_lambda_b": "a VeRA",
    "vera_lambda_d": "a VeRA",
    "diff": "an adapter with full differences of other layers than linear ones and convolutions",
    "diff_b": "an adapter with changes of other layers' biases",
    "w_norm": "an adapter with changes of normalization layers",
    "set_weight": "an adapter with whole weights",
}
"""How a key ends -> what the file is."""
_EMBEDDINGS = {"emb_params", "clip_l", "clip_g"}


def architecture(names: Collection[str], metadata: Mapping[str, str]) -> str:
    """The title of another architecture that an adapter's header claims, else its keys show; empty if none does."""
    return claimed(metadata) or next(
        (title for mark, title in _MARKS.items() if any(mark in name for name in names)), ""
    )


def claimed(metadata: Mapping[str, str]) -> str:
    """The title of another architecture that an adapter's header claims; empty if it claims none."""
    module = metadata.get("ss_network_module", "").rpartition("lora_")[2]
    for text in (metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", ""), module):
        for start, title in _HEADERS.items():
            if text.lower().startswith(start):
                return title
    return ""


def text_alone(paths: Collection[str], metadata: Mapping[str, str]) -> bool:
    """Whether the header claims another architecture and no layer speaks against it: many share their text encoders."""
    return bool(claimed(metadata)) and all(path.startswith("text_encoder") for path in paths)


def contradiction(metadata: Mapping[str, str], family: str) -> str:
    """A sentence where a header claims another base model than ``family``, which the shapes tell; else empty."""
    title = claimed(metadata)
    if not title and (name := detect.claimed(metadata)) not in ("", family):
        title = detect.label(name)
    if not title:
        return ""
    return f"its header says that it was made for {title}, but its shapes are those of {detect.label(family)}."


def require_not_apart(made_for: str, family: str, where: Path | str) -> None:
    """Raises AdapterError where one of the two families took the other's place: an adapter of one would change the
    other's weights to no purpose, and no shape shows it.
    """
    if registry.apart(made_for, family):
        raise AdapterError(
            f"The adapter was made for {detect.label(made_for)}; the base model is {detect.label(family)}. Their "
            "layers have the same shapes, but different weights.",
            where=where,
            do=tr(
                "Train the style again on {label}, or use the base model that it was made for.",
                label=detect.label(family),
            ),
        )


def method(shapes: Mapping[str, Shape]) -> str:
    """The method of which a key shows that the studio does not read it; empty if none does."""
    for name, shape in shapes.items():
        *_, last, end = ["", "", *name.split(".")]
        if title := _METHODS.get(end) or _METHODS.get(f"{last}.{end}"):
            return "a BOFT" if end == "oft_blocks" and len(shape) == 4 else title
    return ""


def refusal(
    shapes: Mapping[str, Shape], unknown: Collection[str], metadata: Mapping[str, str], path: Path
) -> AdapterError:
    """Why the file at ``path`` is refused.

    Args:
        shapes: of all its tensors, by name.
        unknown: those that belong to no layer of any family, or to no method that the studio reads.
    """
    if title := architecture(unknown, metadata):
        *first, last = registry.titles()
        return AdapterError(
            tr("{name} is an adapter for {title}, which the studio does not use.", name=path.name, title=title),
            where=path,
            do=tr("Choose one that was made for {listed} or {last}.", listed=", ".join(first), last=last),
        )
    if title := method({name: shapes[name] for name in unknown}):
        return AdapterError(
            tr(
                "{name} is {title}, which the studio does not read. It would leave out {number}.",
                name=path.name,
                title=title,
                number=_count(unknown, shapes),
            ),
            where=path,
            do=tr(
                "Convert it to LoRA where it was made, or merge it into its base model there and use that as the base."
            ),
        )
    if len(unknown) == len(shapes):
        return AdapterError(
            f"None of the {len(shapes)} tensors in {path.name} is an adapter's. {_guess(shapes)}".strip(),
            where=path,
            do=tr("Choose a LoRA, LoCon, DoRA, LoHa or LoKr file."),
        )
    return AdapterError(
        tr("The studio can apply {name} only without {number}.", name=path.name, number=_count(unknown, shapes)),
        where=path,
        do=tr("Without them the images would differ, so the file is refused. Convert it to LoRA where it was made."),
    )


def _count(unknown: Collection[str], shapes: Mapping[str, Shape]) -> str:
    return f"{len(unknown)} of {len(shapes)} tensors, such as {next(iter(unknown))[:120]}"


def _guess(names: Collection[str]) -> str:
    whole = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")
    if any(name.startswith(whole) for name in names):
        return "It is a whole base model."
    if any(name.startswith(("conv_in.", "down_blocks.")) for name in names):
        return "It is a part of a base model."
    return "It is a textual-inversion embedding." if set(names) & _EMBEDDINGS else ""
