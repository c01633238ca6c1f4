"""The finished adapter: its download, and how to use it in other programs."""

from __future__ import annotations

from pathlib import Path

from lora_studio import adapters
from lora_studio.adapters import metadata, usage
from lora_studio.adapters.kinds import KINDS, LORA, WEB_UIS, Kind
from lora_studio.adapters.usage import Strength
from lora_studio.config import by_block
from lora_studio.config.settings import Settings
from lora_studio.errors import StudioError
from lora_studio.jobs.view import RunView
from lora_studio.language import both, tr
from lora_studio.methods import registry as methods
from lora_studio.runs import Run, renaming, shown
from lora_studio.ui import downloads, images, sending, sharing, tabs, words
from lora_studio.ui.outcome import PROGRAMS

_USUAL = 0.8
"""The strength to start with where none was measured."""


def html(run: Run, view: RunView, outputs: Path) -> str:
    """The finished adapter as HTML; empty while the run has none."""
    end = view.finished
    if end is None:
        return ""
    place = renaming.recorded(run, end.adapter)
    file = images.inside(run.folder, str(place.absolute()))
    if file is None:
        return _gone(place.name) if place.parent == run.folder else ""
    settings, name, own = run.settings(), words.text(file.stem), _for_the_starter(file)
    size, steps, loss = (
        words.size(file.stat().st_size),
        tr("step {done:,} of {total:,}", done=view.kept.step, total=end.steps)
        if view.kept
        else words.counted(end.steps, "step"),
        words.figure(view.average_loss),
    )
    method, tokens = methods.get(settings.adapter.method), settings.adapter.tokens
    layers, ranked = method.changes_layers, "rank" not in method.ignores
    learned = [_ranks(settings)] * ranked + [words.counted(tokens, "learned token")] * bool(tokens)
    facts = words.facts((size, *learned, steps, tr("average loss {loss}", loss=loss)))
    key = f"{run.name}/{file.name}"
    ways = downloads.link(file, outputs, tr("Download the adapter")) + tabs.link("draw", key, tr("Draw with it"))
    ways += sharing.link(file, shown.of(run, view.kept.step if view.kept else end.steps), outputs)
    ways += sending.buttons(key, outputs) + tabs.link("library", key, tr("Show in the library"))
    head = f"<div><h3>{words.text(file.name)}</h3>{facts}</div>"
    texts = _texts(file)
    strength = usage.strength(texts)
    kind, export = _kind(file), tabs.link("export", key, tr("Export it"))
    programs = "" if own else _programs(name, strength or Strength(_USUAL), kind, export) if layers else _embedding()
    measured = f"<dt>{tr('Strength')}</dt><dd>{words.text(strength.sentence)}</dd>" if strength else ""
    base = _base(settings, metadata.clip_skip(texts), own)
    return (
        f'<div class="result"><div class="file">{head}<div class="ways">{ways}</div></div>'
        f"<details><summary>{tr('How to use it')}</summary>"
        f"<dl>{measured}{programs}<dt>{tr('Base model')}</dt><dd>{base}</dd></dl></details></div>"
    )


def _embedding() -> str:
    """How to use an embedding in the programs that load its base model, as HTML."""
    comfyui = tr(
        "Name the file like the trigger word, put it in <code>models/embeddings</code>, and write "
        "<code>embedding:</code> before the word in the prompt."
    )
    web_uis = tr(
        "Name the file like the trigger word, put it in <code>embeddings</code>, and write the word into the prompt."
    )
    return f"<dt>ComfyUI</dt><dd>{comfyui}</dd><dt>Forge, A1111</dt><dd>{web_uis}</dd>"


def _gone(name: str) -> str:
    """That the adapter was deleted or moved."""
    do = tr(
        "If it was deleted in the Library, undo brings it back, or your system's trash. A saved state can be kept too."
    )
    return words.notice("warned", tr("The adapter {name} is not in the run's folder any more.", name=name), do=do)


def _ranks(settings: Settings) -> str:
    """The rank, and those that some blocks have in its place."""
    others = [rank for rank in by_block.ranks(settings.adapter.by_block) if rank != settings.adapter.rank]
    rank = settings.adapter.rank
    if not others:
        return tr("rank {rank}", rank=rank)
    return tr("rank {rank} (in blocks {others})", rank=rank, others=both(map(str, others)))


def _for_the_starter(file: Path) -> bool:
    """Whether the adapter fits the starter alone, by its shapes: the base model may have been given as a path."""
    try:
        return adapters.summary(file).family == "starter"
    except StudioError:
        return False


def _kind(file: Path) -> Kind:
    try:
        return KINDS[adapters.summary(file).method]
    except StudioError:
        return LORA


def _programs(name: str, strength: Strength, kind: Kind, export: str) -> str:
    """How to use the adapter called ``name``, as HTML, in the programs that load its base model.

    Args:
        export: a link to the page that makes what other programs read of it.
    """
    start = f"{strength.recommended:g}"
    ways = {
        "ComfyUI": tr(
            "Put it in <code>models/loras</code>, add a <i>Load LoRA</i> node between the checkpoint and the prompts, "
            "and start with a strength of {strength:g}.",
            strength=strength.recommended,
        ),
        "Forge": tr(
            "Put it in <code>models/Lora</code> and add <code>&lt;lora:{name}:{strength}&gt;</code> to the prompt.",
            name=name,
            strength=start,
        ),
    }
    able = [program for program in WEB_UIS if not kind.readers or program in kind.readers]
    named = {PROGRAMS[program]: ways["ComfyUI" if program == "comfyui" else "Forge"] for program in able}
    told = {text: ", ".join(one for one in named if named[one] == text) for text in named.values()}
    others = ", ".join(PROGRAMS[program] for program in WEB_UIS if program not in able)
    unread = tr("Does not read {kind}. {export} in another form.", kind=words.text(kind.a_title), export=export)
    why = f"<dt>{others}</dt><dd>{unread}</dd>"
    return "".join(f"<dt>{who}</dt><dd>{text}</dd>" for text, who in told.items()) + (why if others else "")


def _base(settings: Settings, clip_skip: int, starter: bool) -> str:
    """Which base model the adapter works with, and how prompts are written and read there."""
    told = [_trained_on(settings, starter)]
    if settings.run.trigger:
        told.append(tr("Start your prompts with <b>{trigger}</b>.", trigger=words.text(settings.run.trigger)))
    if clip_skip > 1:
        told.append(tr("Set clip skip to {clip_skip}, as it was trained.", clip_skip=clip_skip))
    return " ".join(told)


def _trained_on(settings: Settings, starter: bool) -> str:
    if starter:
        return tr(
            "It was trained on the <b>built-in starter</b> and works only with that: draw with it on the Draw page. "
            "For ComfyUI, Forge or A1111, train on the Stable Diffusion model that you use there."
        )
    base = words.text(Path(settings.run.base).name)
    return tr("It was trained on <b>{base}</b> and works with models derived from it.", base=base)


def _texts(file: Path) -> dict[str, str]:
    """What the adapter's header says; nothing if it cannot be read."""
    try:
        return adapters.header(file).metadata
    except StudioError:
        return {}
