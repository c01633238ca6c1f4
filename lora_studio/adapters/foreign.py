"""Names for what the studio does not read: adapters of other architectures or methods, and no adapters. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from lora_studio.adapters import detect
from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.families.layout import Shape
from lora_studio.language import either, in_sequence, tr

_HEADERS = {
    "flux": "Flux",
    "chroma": "Chroma",
    "stable-diffusion-v3": "Stable Diffusion 3",
    "stable-diffusion-3": "Stable Diffusion 3",
    "sd3": "Stable Diffusion 3",
    "stable-diffusion-xl-v1-refiner": tr("the SDXL refiner"),
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
    "oft_blocks": tr("an OFT"),
    "oft_diag": tr("an OFT"),
    "oft_R.weight": tr("an OFT"),
    "boft_R": tr("a BOFT"),
    "boft_s": tr("a BOFT"),
    "a1.weight": tr("a GLoRA"),
    "b1.weight": tr("a GLoRA"),
    "on_input": tr("an (IA)³"),
    "ia3_l": tr("an (IA)³"),
    "vera_lambda_b": tr("a VeRA"),
    "vera_lambda_d": tr("a VeRA"),
    "diff": tr("an adapter with full differences of other layers than linear ones and convolutions"),
    "diff_b": tr("an adapter with changes of other layers' biases"),
    "w_norm": tr("an adapter with changes of normalization layers"),
    "set_weight": tr("an adapter with whole weights"),
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
    return tr(
        "its header says that it was made for {title}, but its shapes are those of {family}.",
        title=title,
        family=detect.label(family),
    )


def require_not_apart(made_for: str, family: str, where: Path | str) -> None:
    """Raises AdapterError where one of the two families took the other's place: an adapter of one would change the
    other's weights to no purpose, and no shape shows it.
    """
    if registry.apart(made_for, family):
        raise AdapterError(
            tr(
                "The adapter was made for {made_for}; the base model is {family}. Their layers have the same shapes, "
                "but different weights.",
                made_for=detect.label(made_for),
                family=detect.label(family),
            ),
            where=where,
            do=tr(
                "Train the style again on {family}, or use the base model that it was made for.",
                family=detect.label(family),
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
        return AdapterError(
            tr("{name} is an adapter for {title}, which the studio does not use.", name=path.name, title=title),
            where=path,
            do=tr("Choose one that was made for {families}.", families=either(registry.titles())),
        )
    if title := method({name: shapes[name] for name in unknown}):
        return AdapterError(
            tr(
                "{name} is {title}, which the studio does not read. It would leave out {tensors}.",
                name=path.name,
                title=title,
                tensors=_count(unknown, shapes),
            ),
            where=path,
            do=tr(
                "Convert it to LoRA where it was made, or merge it into its base model there and use that as the base."
            ),
        )
    if len(unknown) == len(shapes):
        return AdapterError(
            _no_adapter(path.name, shapes),
            where=path,
            do=tr("Choose a LoRA, LoCon, DoRA, LoHa or LoKr file."),
        )
    return AdapterError(
        tr("The studio can apply {name} only without {tensors}.", name=path.name, tensors=_count(unknown, shapes)),
        where=path,
        do=tr("Without them the images would differ, so the file is refused. Convert it to LoRA where it was made."),
    )


def _count(unknown: Collection[str], shapes: Mapping[str, Shape]) -> str:
    return tr(
        "{count} of {total} tensors, such as {example}",
        count=len(unknown),
        total=len(shapes),
        example=next(iter(unknown))[:120],
    )


def _no_adapter(name: str, shapes: Collection[str]) -> str:
    none = tr("None of the {total} tensors in {name} is an adapter's.", total=len(shapes), name=name)
    return in_sequence([none, _guess(shapes)])


def _guess(names: Collection[str]) -> str:
    whole = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.")
    if any(name.startswith(whole) for name in names):
        return tr("It is a whole base model.")
    if any(name.startswith(("conv_in.", "down_blocks.")) for name in names):
        return tr("It is a part of a base model.")
    return tr("It is a textual-inversion embedding.") if set(names) & _EMBEDDINGS else ""
