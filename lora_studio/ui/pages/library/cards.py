"""The adapters as cards, read from their headers alone."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path

from PIL import Image

from lora_studio import adapters
from lora_studio.adapters import detect, metadata
from lora_studio.adapters.kinds import EMBEDDING
from lora_studio.errors import AdapterError, StudioError
from lora_studio.language import tr
from lora_studio.runs import Run, Unreadable, library, renaming
from lora_studio.runs.library import Entry, Origin
from lora_studio.ui import images, tabs, words
from lora_studio.ui.blank import blank, way
from lora_studio.ui.pages.library import measures
from lora_studio.ui.pages.library.look import Look
from lora_studio.ui.pages.library.measures import Measures

_MOST_NAMED = 40
_MOST_PIXELS = 2**24


CHOOSE = (
    tabs.TRIGGER_ON_ADDRESS % "library"
    + """
const mark = () => element.querySelectorAll('.adapter').forEach(card => {
  card.setAttribute('aria-current', card.getAttribute('href') === location.hash);
});
window.addEventListener('hashchange', mark);
watch('value', () => requestAnimationFrame(mark));
mark();
"""
)
"""Script of the cards, which are links, for ``gr.HTML(js_on_load=...)``. It reports and marks the one that the address
names.
"""


def key(entry: Entry, outputs: Path) -> str:
    """What the page calls an adapter: its path within ``outputs``."""
    return Path(entry.path).relative_to(outputs).as_posix()


def find(wanted: str, outputs: Path) -> Entry | None:
    """The adapter with that key, also if its run was renamed since. Only what the catalogue lists can be found, so that
    a made-up path finds nothing.
    """
    known = {key(entry, outputs): entry for entry in library.entries(outputs)}
    if wanted in known or not wanted:
        return known.get(wanted)
    now = str(renaming.follow_path(outputs / wanted, outputs))
    return next((entry for entry in known.values() if entry.path == now), None)


def found(wanted: str, outputs: Path) -> Entry:
    """The adapter with that key.

    Raises:
        AdapterError: there is none.
    """
    if entry := find(wanted, outputs):
        return entry
    raise AdapterError(tr("This adapter is gone."), where=wanted, do=tr("Choose another: it was moved or deleted."))


def choices(entries: list[Entry], outputs: Path) -> list[tuple[str, str]]:
    """Name and key of each adapter, to choose from; saved states of runs come last. Where several have the same name,
    their folders' names are added.
    """
    ordered = sorted(entries, key=lambda entry: entry.origin is Origin.CHECKPOINT)
    titles = Counter(map(title, ordered))
    names = [
        title(entry) + (f" ({Path(entry.path).parent.name})" if titles[title(entry)] > 1 else "") for entry in ordered
    ]
    return [(name, key(entry, outputs)) for name, entry in zip(names, ordered, strict=True)]


def matching(look: Look, entries: list[Entry]) -> list[Entry]:
    """The adapters that the search asks for."""
    return library.search(
        [entry for entry in entries if look.states or entry.origin is not Origin.CHECKPOINT], look.words
    )


def ordered(look: Look, entries: list[Entry], outputs: Path) -> list[Entry]:
    """``entries``, the latest first, in the order that is asked for; those that were not judged have no style."""
    if look.order == "style":
        found = measures.of_all(entries, outputs)
        styles = {path: one.style.value for path, one in found.items()}
        return sorted(entries, key=lambda entry: styles.get(entry.path, -math.inf), reverse=True)
    if look.order == "name":
        return sorted(entries, key=_name)
    return sorted(entries, key=lambda entry: entry.size, reverse=True) if look.order == "size" else entries


def _name(entry: Entry) -> tuple[str, int]:
    """Sorts by name, the states of a run after its adapter and by step."""
    return (title(entry).casefold(), -1) if entry.step is None else (entry.run.casefold(), entry.step)


def _none_yet() -> str:
    sentences = tr(
        "What you train appears here, with its picture, facts and recipe. Adapters from "
        "elsewhere go into the field below."
    )
    return blank("library", tr("No adapter yet"), sentences, way("train", tr("Train a style"), primary=True))


def html(look: Look, found: list[Entry], total: int, outputs: Path) -> str:
    """The first ``look.most`` of ``found`` as cards."""
    if not found and not total and not look.words:
        return f'<div class="none-yet" role="status">{_none_yet()}</div>'
    if not found:
        return f'<p class="hint" role="status">{_nothing(look)}</p>'
    shown = found[: look.most]
    measured = measures.of_all(shown, outputs)
    cards = "".join(_card(entry, measured.get(entry.path), outputs) for entry in shown)
    count = f'<p class="hint" role="status">{words.counted(len(found), "adapter")}</p>'
    return f'{count}<div class="adapters" data-roving>{cards}</div>'


def _nothing(look: Look) -> str:
    if look.words:
        return tr(
            "No adapter has all of “{words}” in its name, trigger word, model or run.", words=words.text(look.words)
        )
    return tr("Only saved states of runs so far. Mark “Saved states too” to see them.")


def _card(entry: Entry, measured: Measures | None, outputs: Path) -> str:
    figures = " · ".join([*_rank(entry), words.size(entry.size)])
    trigger = f'<span class="trigger">{words.text(entry.trigger)}</span>' if entry.trigger else ""
    measure = f'<span class="measured">{words.text(measured.line)}</span>' if measured else ""
    link, name = words.text(tabs.address("library", key(entry, outputs))), words.text(title(entry))
    return (
        f'<a class="adapter" href="{link}" title="{name}">{picture(entry, outputs)}<b>{name}</b>'
        f"<span>{words.text(family(entry))}</span>"
        f"<span>{figures}</span>{measure}{trigger}<time>{day(entry)}</time></a>"
    )


def title(entry: Entry) -> str:
    """The adapter's name: its file's, which other programs show as well; a saved state's run and step. The title in the
    header may be that of what it was made from.
    """
    return Path(entry.path).stem if entry.step is None else tr("{run}, step {step:,}", run=entry.run, step=entry.step)


def stem(entry: Entry) -> str:
    """A file name for what is made from an adapter."""
    return Path(entry.path).stem if entry.step is None else f"{entry.run}-step-{entry.step}"


def family(entry: Entry) -> str:
    """What model it fits, with a capital."""
    return detect.heading(entry.family)


def facts(entry: Entry) -> str:
    """Family, rank, size and date side by side, as HTML."""
    return words.facts((family(entry), *_rank(entry), words.size(entry.size), day(entry)))


def made_for(entry: Entry) -> str:
    """What an artist must know before other programs get an adapter of the starter, as HTML; empty for another."""
    what = tr("Made for the built-in starter: no other program can draw with it.")
    do = tr("For another program, train the style on the model that you use there.")
    return words.notice("warned", what, do=do) if entry.family == "starter" else ""


def _rank(entry: Entry) -> list[str]:
    """Its rank, if it has one; an embedding is called what it is."""
    if entry.method == EMBEDDING.name:
        return [tr("embedding")]
    return [tr("rank {rank}", rank=entry.rank)] if entry.rank else []


def day(entry: Entry) -> str:
    """When the file was last changed, as ``3 Nov 2026``."""
    return words.day(entry.modified)


def picture(entry: Entry, outputs: Path) -> str:
    """The thumbnail in the header, else its run's latest preview, re-encoded, as HTML; else the title's first
    letter.
    """
    try:
        copy = _copy(entry, outputs)
    except OSError:
        copy = None  # a damaged thumbnail is no reason to hide the adapter
    if copy:
        return f'<img class="cover" src="{words.text(images.address(copy))}" alt="" loading="lazy">'
    return f'<span class="cover" aria-hidden="true">{words.text(title(entry).strip()[:1].upper() or "·")}</span>'


def _copy(entry: Entry, outputs: Path) -> Path | None:
    if entry.has_thumbnail:
        return images.copy(Path(entry.path), outputs, images.THUMBNAIL, thumbnail)
    drawn = _latest_preview(entry, outputs)
    return images.copy(drawn, outputs, images.THUMBNAIL, images.preview) if drawn else None


def _latest_preview(entry: Entry, outputs: Path) -> Path | None:
    """The latest preview of the adapter's run, up to the adapter's step."""
    if not entry.run:
        return None
    numbered = ((path.name.split("-")[1], path) for path in Run(outputs / entry.run).previews.glob("step-*-0.png"))
    drawn = [
        (int(step), path)
        for step, path in numbered
        if step.isdecimal() and (entry.step is None or int(step) <= entry.step)
    ]
    return max(drawn, default=(0, None))[1]


def thumbnail(path: Path) -> Image.Image:
    """The thumbnail in an adapter's header, as RGB.

    Raises:
        OSError: there is none, or it is damaged or far too large.
    """
    try:
        data = metadata.thumbnail_bytes(adapters.header(path).metadata)
        with Image.open(io.BytesIO(data or b""), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise OSError(f"{image.width} x {image.height} pixels are too many for a thumbnail")
            return image.convert("RGB")
    except (StudioError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from error


def unreadable(files: list[Unreadable]) -> str:
    """The files that cannot be read, each with the reason, as HTML."""
    if not files:
        return ""
    rows = "".join(
        f"<li><b>{words.text(Path(one.path).name)}</b> {words.text(one.what)} <span>{words.text(one.do)}</span></li>"
        for one in files[:_MOST_NAMED]
    )
    more = tr("and {count:,} more", count=len(files) - _MOST_NAMED)
    rows += f"<li>{words.text(more)}</li>" if len(files) > _MOST_NAMED else ""
    left = tr("{files} left out", files=words.counted(len(files), "file"))
    summary = f"<summary>{words.text(left)}</summary>"
    return f'<details class="problems">{summary}<ul>{rows}</ul></details>'
