"""The large picture as HTML: how it forms, what it was drawn from, and what can be done with it; or two compared."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lora_studio import files
from lora_studio.diffusion import samplers
from lora_studio.errors import StudioError
from lora_studio.language import tr
from lora_studio.runs import gallery
from lora_studio.sampling import picture_file
from lora_studio.ui import downloads, images, outcome, words
from lora_studio.ui.blank import blank
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.draw.easel import DrawingProgress
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.train import chosen

EMPTY = blank(
    "draw",
    tr("Draw something"),
    "Write what the picture shows, add an adapter if you like, and press <b>Draw</b>. Every picture is kept below, "
    "with all that it was drawn from.",
)
_ACTS = {
    "use": (tr("Use these settings"), tr("Fills the fields with what it was drawn from")),
    "compare": ("Compare…", tr("With another picture")),
    "start": (tr("Start from it"), tr("Draws a new picture over this one")),
    "mix": (tr("Open in Mix"), tr("Its adapters and prompt on the page Mix")),
    "delete": ("Delete", tr("Moves it to your system's trash")),
}


class SeenPicture(NamedTuple):
    """A picture of the gallery as the page shows it. ``told`` are the values of its recipe."""

    path: Path
    width: int
    height: int
    told: dict[str, Any]
    left: dict[str, str]
    own: bool

    @property
    def is_sheet(self) -> bool:
        return self.own and "Columns" in self.left


def html(sitting: Sitting, drawing: DrawingProgress, outputs: Path) -> str:
    """What stands large."""
    if sitting.watching and drawing.at_work:
        return forming(drawing)
    one, other = (seen(name, outputs) for name in (sitting.chosen, sitting.other))
    if one is None:
        return EMPTY
    if other is not None:
        return _pair(one, other, sitting.beside, outputs)
    ask = '<p class="hint" role="status">Choose the picture to compare it with.</p>' if sitting.comparing else ""
    return f'<div class="shown">{ask}{_picture(one, outputs)}{_acts(one, outputs)}<div>{about(one)}</div></div>'


def forming(drawing: DrawingProgress) -> str:
    """The picture that forms, and how far it is."""
    rough = _inline(drawing.rough)
    picture = f'<img src="{rough}" alt="The picture as it forms">' if rough else '<span class="sketching"></span>'
    bar = f'<div class="bar"><i style="width:{100 * drawing.share:.0f}%"></i></div>'
    shape = f"--shape:{drawing.shape:.4f}"
    sentence = outcome.busy(_doing(drawing))
    return f'<div class="state running">{_figure(picture, shape, "forming")}{bar}{sentence}</div>'


def _doing(drawing: DrawingProgress) -> str:
    if drawing.doing:
        return drawing.doing
    first, last = len(drawing.kept) + 1, min(len(drawing.kept) + drawing.together, drawing.total)
    which = f"picture {first}" if first >= last else f"pictures {first} to {last}"
    said = tr("Drawing {which} of {total}", which=which, total=drawing.total) if drawing.total > 1 else "Drawing"
    steps = f", step {drawing.step} of {drawing.steps}" if drawing.steps else ""
    waits = f"; {drawing.waiting} more to come" if drawing.waiting else ""
    return f"{said}{steps}{waits}…"


def _inline(path: str) -> str:
    """A small picture as a data address, since its file may be gone when the browser asks for it."""
    try:
        return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}" if path else ""
    except OSError:
        return ""


def seen(name: str, outputs: Path) -> SeenPicture | None:
    """The picture of the gallery with that name; None if there is none, or it cannot be read."""
    path = gallery.find(name, outputs) if name else None
    if path is None:
        return None
    stat = path.stat()
    return _seen(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _seen(path: Path, modified: int, size: int) -> SeenPicture | None:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    try:
        stated = picture_file.read(path)
    except StudioError:
        return SeenPicture(path, width, height, {}, {}, False)
    return SeenPicture(path, width, height, stated.values, stated.left, stated.own)


def _figure(content: str, shape: str, kind: str = "") -> str:
    return f'<figure class="easel {kind}" style="{shape}">{content}</figure>'


def _picture(one: SeenPicture, outputs: Path) -> str:
    address = words.text(images.address(downloads.offered(one.path, outputs)))
    title = words.text(str(one.told.get("prompt") or one.path.name))
    link = f'<a href="{address}" target="_blank" rel="noopener" title="Full size">'
    picture = f'<img src="{address}" alt="{title}" width="{one.width}" height="{one.height}" decoding="sync">'
    return _figure(f"{link}{picture}</a>", f"--shape:{one.width / one.height:.4f}")


def _acts(one: SeenPicture, outputs: Path) -> str:
    starred = any(drawn.starred for drawn in gallery.listed(outputs) if drawn.name == one.path.name)
    about = tr("Take the star away") if starred else tr("Give it a star")
    star = (
        f'<button type="button" class="way star" data-act="star" data-name="{words.text(one.path.name)}"'
        f' aria-pressed="{str(starred).lower()}" aria-label="{about}" title="{about}">{icon("star")}</button>'
    )
    kept = ("compare", "delete") if one.is_sheet else ("compare", "start", "delete")
    wanted = [key for key in _ACTS if key in kept or (one.told and key != "start")]
    buttons = {key: _act(key, *_ACTS[key], one) for key in wanted}
    link = downloads.link(one.path, outputs, "Download").replace('class="download"', 'class="way"')
    link += _webp(one.path, outputs) if one.is_sheet else ""
    ends = "".join(buttons[key] for key in ("compare", "start", "mix") if key in buttons)
    return f'<div class="ways">{buttons.get("use", "")}{star}{link}{ends}{buttons["delete"]}</div>'


def _webp(path: Path, outputs: Path) -> str:
    """A link that downloads a sheet as a WebP, which is a fraction of its size."""
    copy = images.place(path, outputs, 0)
    if not copy.exists():
        files.write(copy, picture_file.to_webp(path.read_bytes()))
    address, name = words.text(images.address(copy)), words.text(tr("{stem}.webp", stem=path.stem))
    return f'<a class="way" download="{name}" href="{address}">WebP</a>'


def _act(key: str, label: str, title: str, one: SeenPicture) -> str:
    name = words.text(one.path.name)
    return f'<button type="button" class="way" data-act="{key}" data-name="{name}" title="{title}">{label}</button>'


def about(one: SeenPicture) -> str:
    """What it was drawn from."""
    told = one.told
    if not told:
        return '<p class="hint">Its file does not tell how it was drawn.</p>'
    negative = (
        f'<p class="caption"><span>without {words.text(told["negative"])}</span></p>' if told.get("negative") else ""
    )
    left = "".join(f"<span>{words.text(name)}: {words.text(value)}</span>" for name, value in one.left.items())
    more = f'<p class="facts small">{left}</p>' if left else ""
    title = told.get("prompt") or ("Sheet" if one.is_sheet else "no prompt")
    prompt = f'<p class="caption"><b>{words.text(title)}</b></p>'
    return f"{prompt}{negative}{words.facts(_facts(one))}{more}"


def _facts(one: SeenPicture) -> Iterable[str]:
    told = one.told
    for used in told.get("adapters") or ():
        yield f"{used['name']} × {used['weight']:g}"
    if "seed" in told:
        yield f"seed {told['seed']}"
    yield f"{one.width} × {one.height}"
    if "steps" in told:
        yield words.counted(told["steps"], "step")
    if "sampler" in told:
        yield samplers.TITLES.get(told["sampler"], told["sampler"])
    if "guidance" in told:
        yield f"guidance {told['guidance']:g}"
    if hires := told.get("hires"):
        yield f"drawn {hires['scale']:g} times larger at {hires['strength']:g}"
    if start := told.get("start"):
        yield f"from {start['name'] or 'a picture'} at {start['strength']:g}"
    if base := told.get("base"):
        yield "built-in starter" if base == "starter" else base


def _pair(one: SeenPicture, other: SeenPicture, beside: bool, outputs: Path) -> str:
    """Two pictures: one over the other with an edge to move, or side by side."""
    addresses = [words.text(images.address(downloads.offered(each.path, outputs))) for each in (one, other)]
    titles = [words.text(_short(each, against)) for each, against in ((one, other), (other, one))]
    way = tr("One over the other") if beside else tr("Side by side")
    buttons = (
        f'<div class="ways"><button type="button" class="way" data-act="beside">{way}</button>'
        '<button type="button" class="way" data-act="single">End the comparison</button></div>'
    )
    if beside:
        figures = "".join(
            f'<figure><img src="{address}" alt="{title}"><figcaption>{title}</figcaption></figure>'
            for address, title in zip(addresses, titles, strict=True)
        )
        return f'<div class="shown"><div class="beside">{figures}</div>{buttons}</div>'
    return (
        f'<div class="shown"><div class="easel pair" style="--shape:{one.width / one.height:.4f}">'
        f'<img src="{addresses[1]}" alt="{titles[1]}"><img class="base" src="{addresses[0]}" alt="{titles[0]}">'
        '<input type="range" min="0" max="100" value="50" aria-label="Move the edge between the two pictures">'
        f'<i class="edge"></i><span class="left">{titles[0]}</span><span class="right">{titles[1]}</span></div>'
        f"{buttons}</div>"
    )


def _short(one: SeenPicture, other: SeenPicture) -> str:
    """What tells ``one`` from ``other``, in a few words."""
    facts, others = list(_facts(one)), set(_facts(other))
    differing = [fact for fact in facts if fact not in others]
    if one.told.get("prompt") != other.told.get("prompt"):
        differing.insert(0, str(one.told.get("prompt") or ""))
    return " · ".join(filter(None, differing))[:90] or one.path.name


SLIDE = chosen.SLIDE
