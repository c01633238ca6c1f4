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
from lora_studio.language import number, tr
from lora_studio.runs import gallery
from lora_studio.sampling import picture_file
from lora_studio.ui import downloads, images, outcome, words
from lora_studio.ui.blank import blank, press
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.draw.easel import DrawingProgress
from lora_studio.ui.pages.draw.sitting import Sitting
from lora_studio.ui.pages.train import chosen

_ACTS = {
    "use": (tr("Use these settings"), tr("Fills the fields with what it was drawn from")),
    "compare": (tr("Compare…"), tr("With another picture")),
    "start": (tr("Start from it"), tr("Draws a new picture over this one")),
    "mix": (tr("Open in Mix"), tr("Its adapters and prompt on the page Mix")),
    "delete": (tr("Delete"), tr("Moves it to your system's trash")),
}


def empty() -> str:
    """What stands there before anything was drawn."""
    sentences = tr(
        "Write what the picture shows, add an adapter if you like, and press {button}. Every picture is kept below, "
        "with all that it was drawn from.",
        button=press(tr("Draw")),
    )
    return blank("draw", tr("Draw something"), sentences)


_SIDES = {"Columns": tr("Columns"), "Rows": tr("Rows")}
"""What a sheet tells of itself, as its file has it."""


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
        return empty()
    if other is not None:
        return _pair(one, other, sitting.beside, outputs)
    asked = words.text(tr("Choose the picture to compare it with."))
    ask = f'<p class="hint" role="status">{asked}</p>' if sitting.comparing else ""
    return (
        f'<div class="shown">{ask}{_picture(one, outputs)}{_acts(one, sitting, outputs)}<div>{about(one)}</div></div>'
    )


def forming(drawing: DrawingProgress) -> str:
    """The picture that forms, and how far it is."""
    rough, alt = _inline(drawing.rough), words.text(tr("The picture as it forms"))
    picture = f'<img src="{rough}" alt="{alt}">' if rough else '<span class="sketching"></span>'
    bar = f'<div class="bar"><i style="width:{100 * drawing.share:.0f}%"></i></div>'
    shape = f"--shape:{drawing.shape:.4f}"
    sentence = outcome.busy(_doing(drawing))
    return f'<div class="state running">{_figure(picture, shape, "forming")}{bar}{sentence}</div>'


def _doing(drawing: DrawingProgress) -> str:
    if drawing.doing:
        return drawing.doing
    said = _which(drawing)
    if drawing.steps:
        said = tr("{drawing}, step {step} of {steps}", drawing=said, step=drawing.step, steps=drawing.steps)
    if drawing.waiting:
        said = tr("{drawing}; {waiting} more to come", drawing=said, waiting=drawing.waiting)
    return f"{said}…"


def _which(drawing: DrawingProgress) -> str:
    first, last = len(drawing.kept) + 1, min(len(drawing.kept) + drawing.together, drawing.total)
    if drawing.total <= 1:
        return tr("Drawing")
    if first >= last:
        return tr("Drawing picture {number} of {total}", number=first, total=drawing.total)
    return tr("Drawing pictures {first} to {last} of {total}", first=first, last=last, total=drawing.total)


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
    link = f'<a href="{address}" target="_blank" rel="noopener" title="{words.text(tr("Full size"))}">'
    picture = f'<img src="{address}" alt="{title}" width="{one.width}" height="{one.height}" decoding="sync">'
    return _figure(f"{link}{picture}</a>", f"--shape:{one.width / one.height:.4f}")


def _acts(one: SeenPicture, sitting: Sitting, outputs: Path) -> str:
    starred = any(drawn.starred for drawn in gallery.listed(outputs) if drawn.name == one.path.name)
    about = words.text(tr("Take the star away") if starred else tr("Give it a star"))
    star = (
        f'<button type="button" class="way star" data-act="star" data-name="{words.text(one.path.name)}"'
        f' aria-pressed="{str(starred).lower()}" aria-label="{about}" title="{about}">{icon("star")}</button>'
    )
    kept = ("compare", "delete") if one.is_sheet else ("compare", "start", "delete")
    wanted = [key for key in _ACTS if key in kept or (one.told and key != "start")]
    pressed = {"compare": f' aria-pressed="{str(sitting.comparing).lower()}"'}
    buttons = {key: _act(key, *_ACTS[key], one, pressed.get(key, "")) for key in wanted}
    link = downloads.link(one.path, outputs, tr("Download")).replace('class="download"', 'class="way"')
    link += _webp(one.path, outputs) if one.is_sheet else ""
    ends = "".join(buttons[key] for key in ("compare", "start", "mix") if key in buttons)
    return f'<div class="ways">{buttons.get("use", "")}{star}{link}{ends}{buttons["delete"]}</div>'


def _webp(path: Path, outputs: Path) -> str:
    """A link that downloads a sheet as a WebP, which is a fraction of its size."""
    copy = images.place(path, outputs, 0)
    if not copy.exists():
        files.write(copy, picture_file.to_webp(path.read_bytes()))
    address, name = words.text(images.address(copy)), words.text(f"{path.stem}.webp")
    return f'<a class="way" download="{name}" href="{address}">WebP</a>'


def _act(key: str, label: str, title: str, one: SeenPicture, more: str) -> str:
    about = f'data-act="{key}" data-name="{words.text(one.path.name)}" title="{words.text(title)}"{more}'
    return f'<button type="button" class="way" {about}>{words.text(label)}</button>'


def about(one: SeenPicture) -> str:
    """What it was drawn from."""
    told = one.told
    if not told:
        return f'<p class="hint">{words.text(tr("Its file does not tell how it was drawn."))}</p>'
    without = words.text(tr("without {things}", things=told.get("negative")))
    negative = f'<p class="caption"><span>{without}</span></p>' if told.get("negative") else ""
    left = "".join(
        f"<span>{words.text(_SIDES.get(name, name))}: {words.text(value)}</span>" for name, value in one.left.items()
    )
    more = f'<p class="facts small">{left}</p>' if left else ""
    title = told.get("prompt") or (tr("Sheet") if one.is_sheet else tr("no prompt"))
    prompt = f'<p class="caption"><b>{words.text(title)}</b></p>'
    return f"{prompt}{negative}{words.facts(_facts(one))}{more}"


def _facts(one: SeenPicture) -> Iterable[str]:
    told = one.told
    for used in told.get("adapters") or ():
        yield f"{used['name']} × {number(used['weight'], 'g')}"
    if "seed" in told:
        yield tr("seed {seed}", seed=told["seed"])
    yield f"{one.width} × {one.height}"
    if "steps" in told:
        yield words.counted(told["steps"], "step")
    if "sampler" in told:
        yield samplers.TITLES.get(told["sampler"], told["sampler"])
    if "guidance" in told:
        yield tr("guidance {guidance:g}", guidance=told["guidance"])
    if hires := told.get("hires"):
        yield tr("drawn {scale:g} times larger at {strength:g}", scale=hires["scale"], strength=hires["strength"])
    if start := told.get("start"):
        picture = start["name"] or tr("a picture")
        yield tr("from {picture} at {strength:g}", picture=picture, strength=start["strength"])
    if base := told.get("base"):
        yield tr("built-in starter") if base == "starter" else base


def _pair(one: SeenPicture, other: SeenPicture, beside: bool, outputs: Path) -> str:
    """Two pictures: one over the other with an edge to move, or side by side."""
    addresses = [words.text(images.address(downloads.offered(each.path, outputs))) for each in (one, other)]
    titles = [words.text(_short(each, against)) for each, against in ((one, other), (other, one))]
    act, way = ("over", tr("One over the other")) if beside else ("beside", tr("Side by side"))
    buttons = (
        f'<div class="ways"><button type="button" class="way" data-act="{act}">{words.text(way)}</button>'
        f'<button type="button" class="way" data-act="single">{words.text(tr("End the comparison"))}</button></div>'
    )
    if beside:
        figures = "".join(
            f'<figure><img src="{address}" alt="{title}"><figcaption>{title}</figcaption></figure>'
            for address, title in zip(addresses, titles, strict=True)
        )
        return f'<div class="shown"><div class="beside">{figures}</div>{buttons}</div>'
    edge = words.text(tr("Move the edge between the two pictures"))
    return (
        f'<div class="shown"><div class="easel pair" style="--shape:{one.width / one.height:.4f}">'
        f'<img src="{addresses[1]}" alt="{titles[1]}"><img class="base" src="{addresses[0]}" alt="{titles[0]}">'
        f'<input type="range" min="0" max="100" value="50" aria-label="{edge}">'
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
