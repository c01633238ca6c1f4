"""Work on tensors, each in a process of its own: import, shrink, analysis. What they give is HTML for the page."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lora_studio import files, runs
from lora_studio.errors import SettingsError, StudioError
from lora_studio.jobs import command
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import images, outcome, tabs, words
from lora_studio.ui.pages.library import cards

_AT_ONCE = 100
"""Files in one call of a command: Windows takes no longer line."""
_SEEDS, _STEPS = (1, 2), 20
_PLOTS = ("Strength by block and kind of layer", "Share of the change by rank", "Sizes of the change's entries")


class Way(NamedTuple):
    """A measure by which an adapter is shrunk."""

    name: str
    label: str
    start: float
    low: float
    high: float


WAYS = {
    "energy": Way("Kept share", "Share of the change to keep, in %", 99, 1, 100),
    "rank": Way("Rank", "Largest rank", 8, 1, 1024),
    "size": Way("File size", "File size, in MB", 2, 0.01, 10_000),
}


class Cut(NamedTuple):
    """How far to shrink: ``value`` in the unit of ``WAYS[way]``."""

    way: str
    value: float | None

    def option(self) -> list[str]:
        """As ``resize`` takes it.

        Raises:
            SettingsError: it is out of its bounds.
        """
        bounds = WAYS[self.way]
        if self.value is None or not bounds.low <= self.value <= bounds.high:
            raise SettingsError(
                f"{bounds.label} must be from {bounds.low:g} to {bounds.high:,g}.",
                do="Mend the number, then try again.",
            )
        number = (
            str(int(self.value))
            if self.way == "rank"
            else repr(self.value / 100 if self.way == "energy" else self.value)
        )
        return [f"--{self.way}", number]

    @property
    def ending(self) -> str:
        """What the smaller file's name ends with."""
        return f"{self.way}-{self.value:g}".replace(".", "_")


def take(uploaded: Sequence[str], outputs: Path) -> str:
    """Copies dropped files into the library, each after a look at all of it; says what came of each."""
    added, refused = [], []
    for first in range(0, len(uploaded), _AT_ONCE):
        try:
            told = command.run("add", *uploaded[first : first + _AT_ONCE], "--outputs", outputs)
        except StudioError as error:  # not one of them could be taken
            if not error.details.get("refused"):
                raise
            told = {"added": [], "refused": error.details["refused"]}
        added, refused = added + told["added"], refused + told["refused"]
    said = (
        outcome.done(
            f"{words.counted(len(added), 'adapter')} in the library.", ", ".join(Path(path).name for path in added)
        )
        if added
        else ""
    )
    return said + "".join(
        words.notice(
            "wrong", one["what"] if one["file"] in one["what"] else f"{one['file']}: {one['what']}", do=one["do"]
        )
        for one in refused
    )


def tried(entry: Entry, cut: Cut) -> str:
    """What shrinking would give and cost.

    Raises:
        StudioError: the measure is out of its bounds, or the file is no longer as it was.
    """
    return _figures(command.run("resize", entry.path, *cut.option()))


def saved(entry: Entry, cut: Cut, outputs: Path) -> str:
    """A smaller copy, proved for ComfyUI and Forge. Raises as ``tried`` does."""
    told = command.run("resize", entry.path, *cut.option(), "-o", beside(entry, outputs, cut.ending))
    file = Path(told["file"])
    shown = tabs.address("library", file.relative_to(outputs).as_posix())
    return outcome.done(f"Saved as {file.name}.", to=shown) + _figures(told) + outcome.proof(told["proof"])


def _figures(told: dict[str, Any]) -> str:
    kept = f"{outcome.share(told['kept'])} of the change kept (residual {words.figure(told['residual'])})"
    return words.facts(
        (
            f"rank {told['rank_before']} → {told['rank']}",
            f"{words.size(told['size_before'])} → {words.size(told['size'])}",
            kept,
        )
    )


def beside(entry: Entry, outputs: Path, ending: str) -> Path:
    """A free name for what is made from an adapter: in its run's folder, or in the library."""
    folder = runs.library_folder(outputs) if entry.origin is Origin.IMPORTED else outputs / entry.run
    return files.free(folder / f"{cards.stem(entry)}-{ending}.safetensors")


def drawn(entry: Entry, cut: Cut, base: str, prompt: str, outputs: Path) -> str:
    """The same prompt and seeds before and after shrinking, side by side. Raises as ``tried`` does, or if there is
    nothing to draw with.
    """
    if not base or not prompt:
        missing, advice = (
            ("base model", "Name it: its file or folder.") if prompt else ("prompt", "Write what is to be drawn.")
        )
        raise SettingsError(f"The {missing} is missing.", where="Before and after", do=advice)
    with _aside(outputs) as folder:
        small = folder / f"{cut.ending}.safetensors"
        command.run("resize", entry.path, *cut.option(), "-o", small)
        axes = ["--x", _axis("adapter", (entry.path, small)), "--y", _axis("seed", _SEEDS)]
        sheet = command.run(
            "grid", *axes, "--steps", _STEPS, "--prompt", prompt, "--base", base, "-o", folder / "sheet.png"
        )["sheet"]
        shown = images.address(images.copy(Path(sheet), outputs, images.FULL, images.preview))
    return f'<img class="sheet" src="{words.text(shown)}" alt="Drawn before and after shrinking">'


def _axis(kind: str, values: Sequence[object]) -> str:
    """An axis as ``grid`` takes it, whatever letters its values hold."""
    return f"{kind}=" + ",".join('"{}"'.format(str(value).replace('"', '""')) for value in values)


def analysed(entry: Entry, base: str, outputs: Path) -> str:
    """What the adapter does, in words and as plots; relative to the base model's own weights where that is at hand.

    Raises:
        StudioError: it cannot be read.
    """
    with _aside(outputs) as folder:
        told = command.run("analyze", entry.path, "--plots", folder, *(["--base", base] if base else []))
        shown = [
            images.address(images.copy(Path(path), outputs, images.FULL, images.preview)) for path in told["plots"]
        ]
    said = "".join(f"<li>{words.text(line)}</li>" for line in told["words"])
    plots = "".join(
        f'<figure><figcaption>{name}</figcaption><img class="diagram" src="{words.text(address)}" alt="{name}"></figure>'
        for address, name in zip(shown, _PLOTS, strict=True)
    )
    return f'<ul class="said">{said}</ul>{plots}'


@contextmanager
def _aside(outputs: Path) -> Iterator[Path]:
    """A folder for what only the page's copies are made of."""
    parent = images.folder(outputs)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
