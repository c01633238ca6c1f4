"""Work on tensors, each in a process of its own: adding, shrinking, comparing, analyzing. Results are HTML."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import files, runs
from lora_studio.config.specs import SPECS
from lora_studio.errors import SettingsError, StudioError
from lora_studio.jobs import command
from lora_studio.language import tr
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import images, outcome, tabs, words
from lora_studio.ui.pages.library import cards, details

_AT_ONCE = 100
"""Files in one call of a command: Windows limits the length of a command line."""
_SEEDS, _STEPS = (1, 2), 20
_COMPARED = tr("Before and after")
_PLOTS = (
    tr("Strength by block and kind of layer"),
    tr("Share of the change by rank"),
    tr("Sizes of the change's entries"),
)


class ShrinkMeasure(NamedTuple):
    """A measure by which an adapter is shrunk, and its range."""

    name: str
    label: str
    start: float
    low: float
    high: float
    unit: float = 1.0
    """How many of the page's units make one of the command's."""
    whole: bool = False


MEASURES = {
    "energy": ShrinkMeasure(tr("Kept share"), tr("Share of the change to keep, in %"), 99, 1, 100, unit=100),
    "rank": ShrinkMeasure(tr("Rank"), tr("Largest rank"), 8, 1, 1024, whole=True),
    "size": ShrinkMeasure(tr("File size"), tr("File size, in MB"), 2, 0.01, 10_000),
}
"""By the option of ``resize``."""


class Cut(NamedTuple):
    """How far to shrink: ``value`` in the page's unit of ``MEASURES[measure]``."""

    measure: str
    value: float | None

    def option(self) -> list[str]:
        """As ``resize`` takes it.

        Raises:
            SettingsError: the value is out of range.
        """
        measure = MEASURES[self.measure]
        if self.value is None or not measure.low <= self.value <= measure.high:
            raise SettingsError(
                tr(
                    "{label} must be from {low:g} to {high:,g}.",
                    label=measure.label,
                    low=measure.low,
                    high=measure.high,
                ),
                do=tr("Change the number, then try again."),
            )
        return [f"--{self.measure}", str(int(self.value) if measure.whole else self.value / measure.unit)]

    @property
    def ending(self) -> str:
        """What the smaller file's name ends with."""
        return f"{self.measure}-{self.value:g}".replace(".", "_")


def take(uploaded: Sequence[str], outputs: Path) -> str:
    """Copies dropped files into the library, each after every tensor of it was checked; says which were added, and why
    others were refused.
    """
    added: list[str] = []
    refused: list[dict[str, str]] = []
    for first in range(0, len(uploaded), _AT_ONCE):
        try:
            result = command.run("add", *uploaded[first : first + _AT_ONCE], "--outputs", outputs)
        except StudioError as error:  # none of them could be added
            if not error.details.get("refused"):
                raise
            result = {"added": [], "refused": error.details["refused"]}
        added, refused = added + result["added"], refused + result["refused"]
    names = ", ".join(Path(path).name for path in added)
    done = (
        outcome.done(tr("{adapters} in the library.", adapters=words.counted(len(added), "adapter")), names)
        if added
        else ""
    )
    return done + "".join(map(_refusal, refused))


def _refusal(one: dict[str, str]) -> str:
    what = one["what"] if one["file"] in one["what"] else f"{one['file']}: {one['what']}"
    return words.notice("wrong", what, do=one["do"])


def tried(entry: Entry, cut: Cut) -> str:
    """The size and the loss that shrinking would give.

    Raises:
        StudioError: the value is out of range, or the file has changed or is gone.
    """
    return _figures(command.run("resize", entry.path, *cut.option()))


def saved(entry: Entry, cut: Cut, outputs: Path) -> str:
    """Saves a smaller copy, proved for ComfyUI and Forge. Raises as ``tried`` does."""
    result = command.run("resize", entry.path, *cut.option(), "-o", beside(entry, outputs, cut.ending))
    file = Path(result["file"])
    shown = tabs.address("library", file.relative_to(outputs).as_posix())
    return (
        outcome.done(tr("Saved as {name}.", name=file.name), to=shown)
        + _figures(result)
        + outcome.proof(result["proof"])
    )


def _figures(result: dict[str, Any]) -> str:
    rank = tr("rank {before} → {after}", before=result["rank_before"], after=result["rank"])
    size = f"{words.size(result['size_before'])} → {words.size(result['size'])}"
    kept = tr(
        "{share} of the change kept (residual {figure})",
        share=outcome.share(result["kept"]),
        figure=words.figure(result["residual"]),
    )
    return words.facts((rank, size, kept))


def beside(entry: Entry, outputs: Path, ending: str) -> Path:
    """A free path for what is made from an adapter: in its run's folder, or in the library."""
    folder = runs.library_folder(outputs) if entry.origin is Origin.IMPORTED else outputs / entry.run
    return files.free(folder / f"{cards.stem(entry)}-{ending}.safetensors")


def drawn(entry: Entry, cut: Cut, base: str, prompt: str, outputs: Path) -> str:
    """The same prompt and seeds before and after shrinking, side by side.

    Raises:
        StudioError: as ``tried``, or the base model or the prompt is missing.
    """
    if not prompt:
        raise SettingsError(tr("The prompt is missing."), where=_COMPARED, do=tr("Write what is to be drawn."))
    if not base:
        raise SettingsError(tr("The base model is missing."), where=_COMPARED, do=tr("Give its file or folder."))
    with _aside(outputs) as folder:
        small = folder / f"{cut.ending}.safetensors"
        command.run("resize", entry.path, *cut.option(), "-o", small)
        axes = ["--x", _axis("adapter", (entry.path, small)), "--y", _axis("seed", _SEEDS)]
        asked = ["--steps", _STEPS, "--prompt", prompt, *_base(entry, base, outputs)]
        sheet = command.run("grid", *axes, *asked, "-o", folder / "sheet.png")["sheet"]
        address = images.address(images.copy(Path(sheet), outputs, images.FULL, images.preview))
    alt = words.text(tr("Drawn before and after shrinking"))
    return f'<img class="sheet" src="{words.text(address)}" alt="{alt}">'


def _base(entry: Entry, base: str, outputs: Path) -> list[str]:
    """The base model as options of a command, read as in the adapter's run if that was trained on it."""
    known = details.base_of_run(entry.run, outputs)
    given = {"base": base} | (known if known.get("base") == base else {})
    return [
        part
        for key, value in given.items()
        for one in (value if isinstance(value, list) else [value])
        if key == "base" or value != SPECS[key].default
        for part in (f"--{key.replace('_', '-')}", str(one))
    ]


def _axis(kind: str, values: Sequence[object]) -> str:
    """An axis as ``grid`` takes it, quoted so that its values may contain commas and quotes."""
    return f"{kind}=" + ",".join('"{}"'.format(str(value).replace('"', '""')) for value in values)


class Analyzed(NamedTuple):
    """Where an adapter changes the model."""

    html: str
    """In words and as plots."""
    blocks: dict[str, float]
    """Each block's share of the change."""


def analyzed(entry: Entry, base: str, outputs: Path) -> Analyzed:
    """Where the adapter changes the model; relative to the base model's weights if it is known.

    Raises:
        StudioError: it cannot be read.
    """
    with _aside(outputs) as folder:
        result = command.run("analyze", entry.path, "--plots", folder, *(["--base", base] if base else []))
        plots = [images.copy(Path(path), outputs, images.FULL, images.preview) for path in result["plots"]]
    lines = "".join(f"<li>{words.text(line)}</li>" for line in result["words"])
    figures = "".join(_figure(images.address(plot), name) for plot, name in zip(plots, _PLOTS, strict=True))
    return Analyzed(f'<ul class="said">{lines}</ul>{figures}', result["blocks"])


def _figure(address: str, name: str) -> str:
    name = words.text(name)
    image = f'<img class="diagram" src="{words.text(address)}" alt="{name}">'
    return f"<figure><figcaption>{name}</figcaption>{image}</figure>"


@contextmanager
def _aside(outputs: Path) -> Generator[Path]:
    """A temporary folder for files of which the page shows copies."""
    parent = images.folder(outputs)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
