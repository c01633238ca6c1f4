"""One adapter made of a mix, saved into the library with its recipe and proof."""

from __future__ import annotations

from pathlib import Path

from lora_studio import files, runs
from lora_studio.errors import AdapterError
from lora_studio.jobs import command
from lora_studio.ui import outcome, tabs, words
from lora_studio.ui.pages.mix.pictures import Method, blending
from lora_studio.ui.pages.mix.rows import Mix

METHODS = {
    "exact": (
        "Exact sum",
        "The adapters side by side: the very mix that you see. The file is as large as all of them together.",
    ),
    "svd": (
        "Trimmed",
        "The nearest adapter of one rank: a small file that loses a little. Rank 0 takes the largest one's.",
    ),
    "ties": (
        "TIES",
        "Keeps each one's strongest entries and lets them vote on the direction, so that they disturb each other less.",
    ),
    "dare": ("DARE", "Drops entries at random and strengthens the rest. Another seed drops others."),
    "prune": ("Pruned", "Keeps each one's strongest entries, then adds them up."),
}
"""Method -> its name and what it does."""
DENSE = ("ties", "dare", "prune")
"""Methods that keep a share of the entries."""


def arguments(mix: Mix, method: Method) -> list[str]:
    """The mix as arguments of the command ``blend``.

    Raises:
        SettingsError: a number is out of its bounds.
        AdapterError: there is nothing to blend.
    """
    if not mix.rows:
        raise AdapterError("There is nothing to save yet.", do="Choose an adapter first.")
    how = blending(method)
    named = [f"{row.path}:{row.weight:g}" for row in mix.rows]
    blocks = [
        part
        for index, row in enumerate(mix.rows, 1)
        for block, factor in row.factors.items()
        for part in ("--block", f"{index}:{block}={factor:g}")
    ]
    picture = ["--thumbnail", mix.mixed] if mix.mixed and Path(mix.mixed).is_file() else []
    chosen = ["--rank", how.rank, "--density", how.density, "--seed", how.seed] if how else []
    return [*named, "--method", method.name, *map(str, chosen), *blocks, *picture]


def default_name(mix: Mix) -> str:
    """What the file is called unless the user says otherwise: the adapters and their weights.

    At most 60 letters of it are kept.
    """
    return " ".join(f"{row.name} {100 * row.weight:.0f}" for row in mix.rows if row.weight)


def save(mix: Mix, method: Method, name: str, outputs: Path) -> str:
    """Blends, proves and saves; gives the file, its figures and the proof as HTML.

    Raises:
        StudioError: the adapters cannot be blended so, or the proof did not pass; nothing is saved then.
    """
    order = arguments(mix, method)
    folder = runs.library_folder(outputs)
    folder.mkdir(parents=True, exist_ok=True)
    path = files.free(folder / f"{files.safe_name(name.strip() or default_name(mix))}.safetensors")
    told = command.run("blend", *order, "-o", path)
    lost = f"residual {words.figure(told['residual'])}" if told["residual"] else "nothing trimmed away"
    facts = words.facts((f"rank {told['rank']}", words.size(told["size"]), lost, "its recipe is in its header"))
    link = f'<a class="download" href="{words.text(tabs.address("library", f"library/{path.name}"))}">Show in the library</a>'
    file = f'<div class="file"><div><h3>{words.text(path.name)}</h3>{facts}</div>{link}</div>'
    return f"{outcome.done('Saved, and proved: what loads it gets this mix.')}{file}{outcome.proof(told['proof'])}"
