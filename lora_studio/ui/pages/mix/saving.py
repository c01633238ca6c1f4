"""Saves a mix as one adapter in the library, with its recipe and a proof that programs read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_studio import files, runs
from lora_studio.adapters import blend_methods
from lora_studio.adapters.blend_methods import RANK
from lora_studio.errors import AdapterError
from lora_studio.jobs import command
from lora_studio.language import english, tr
from lora_studio.ui import outcome, tabs, words
from lora_studio.ui.pages.mix import image_specs
from lora_studio.ui.pages.mix.image_specs import ChosenBlend
from lora_studio.ui.scene.mixture import Mix


def arguments(mix: Mix, chosen: ChosenBlend) -> list[str]:
    """The mix as arguments of the command ``blend``.

    Raises:
        SettingsError: a number is out of range.
        AdapterError: there is nothing to blend.
    """
    if not mix.rows:
        raise AdapterError(tr("There is nothing to save yet."), do=tr("Choose an adapter first."))
    blending = image_specs.blending(chosen)
    named = [f"{row.path}:{row.weight:g}" for row in mix.rows]
    parameters = {RANK.key: blending.rank, **blending.parameters} if blending else {}
    options = [part for key, value in parameters.items() for part in (blend_methods.option(key), str(value))]
    blocks = [
        part
        for index, row in enumerate(mix.rows, 1)
        for block, factor in row.factors.items()
        for part in ("--block", f"{index}:{block}={factor:g}")
    ]
    image = ["--thumbnail", mix.mixed] if mix.mixed and Path(mix.mixed).is_file() else []
    return [*named, "--method", chosen.method, *options, *blocks, *image]


def default_name(mix: Mix) -> str:
    """The name of the file if none is typed: the adapters and their weights in percent. 60 letters of it are kept."""
    return " ".join(f"{english(row.name)} {100 * row.weight:.0f}" for row in mix.rows if row.weight)


def save(mix: Mix, chosen: ChosenBlend, name: str, outputs: Path) -> str:
    """Blends, proves and saves; gives the file, its figures and the proof as HTML.

    Raises:
        StudioError: the adapters cannot be blended so, or the proof did not pass; nothing is saved then.
    """
    return written(arguments(mix, chosen), name.strip() or default_name(mix), outputs)


def written(options: Sequence[str], name: str, outputs: Path) -> str:
    """Saves what ``blend`` makes of ``options`` as ``name`` in the library; gives the file, its figures and the proof
    as HTML. Raises as ``save`` does.
    """
    result = blended(options, name, outputs)
    path = Path(result["file"])
    facts = words.facts((*cost(result), tr("its recipe is in its header")))
    address = words.text(tabs.address("library", f"library/{path.name}"))
    link = f'<a class="download" href="{address}">{words.text(tr("Show in the library"))}</a>'
    file = f'<div class="file"><div><h3>{words.text(path.name)}</h3>{facts}</div>{link}</div>'
    done = outcome.done(tr("Saved, and proved: a program that loads it draws this mix."))
    notices = "".join(words.notice("warned", notice) for notice in result["notices"])
    return f"{done}{notices}{file}{outcome.proof(result['proof'])}"


def blended(options: Sequence[str], name: str, outputs: Path) -> dict[str, Any]:
    """Saves what ``blend`` makes of ``options`` as ``name`` in the library; gives what the command tells, with the
    file's path as ``file``. Raises as ``save`` does.
    """
    folder = runs.library_folder(outputs)
    folder.mkdir(parents=True, exist_ok=True)
    plain = name.replace("/", "-").replace("\\", "-")  # a name such as "ink/wash" is no path
    path = files.free(folder / f"{files.safe_name(plain)}.safetensors")
    return {**command.run("blend", *options, "-o", path), "file": str(path)}


def cost(result: Mapping[str, Any]) -> tuple[str, str, str]:
    """The rank, size and loss of a result of ``blend``."""
    residual = tr("residual {residual}", residual=words.figure(result["residual"]))
    lost = residual if result["residual"] else tr("nothing is trimmed away")
    return tr("rank {rank}", rank=result["rank"]), words.size(result["size"]), lost
