"""Automatic captions as HTML: a job while it works and when it has ended, what it proposes, and a model's download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_studio.curation.collection import Card, Collection
from lora_studio.events import State
from lora_studio.jobs.captioning import CaptioningView, Mode
from lora_studio.jobs.model_downloads import HubOffer, ModelDownload
from lora_studio.language import few, in_sequence, ntr, tr
from lora_studio.ui import outcome, words
from lora_studio.ui.pages.pictures import changes, thumbnails
from lora_studio.vision import catalogue

MOST_SHOWN = 20
_LATEST = 3

PRESS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) trigger('click', {...button.dataset});
});
"""
"""Reports a pressed button by its data; for ``gr.HTML(js_on_load=...)``."""


def at_work(view: CaptioningView, stopping: bool, collection: Collection, outputs: Path) -> str:
    """A job that works or waits."""
    if stopping:
        said = tr("Stopping: what it has captioned is kept.")
    elif view.state is State.QUEUED:
        said = tr("Waiting for {job}.", job=view.waits_for) if view.waits_for else tr("Starting.")
    elif not view.total:
        said = tr("Loading the model.")
    else:
        said = tr(
            "{model} looks at your pictures: {done:,} of {total:,}", model=view.model, done=view.done, total=view.total
        )
    kind = "queued" if view.state is State.QUEUED else "running"
    parts = [f'<p class="sentence"><span class="dot"></span>{words.text(said)}</p>']
    if view.total:
        left = view.seconds_left
        facts = [tr("about {duration} left", duration=words.duration(left))] if left is not None else []
        parts += [_bar(view.done, view.total), words.facts([*facts, view.device])]
    latest = [one for one in view.latest[:_LATEST] if one.name in collection.cards]
    thumbnails.make([collection.cards[one.name] for one in latest], outputs)
    rows = "".join(_caption(collection.cards[one.name], one.text, outputs) for one in latest)
    return f'<div class="state {kind}" role="status">{"".join(parts)}<ul class="described">{rows}</ul></div>'


def _bar(done: int, total: int) -> str:
    return f'<div class="bar"><i style="width: {done / max(total, 1):.1%}"></i></div>'


def _caption(card: Card, text: str, outputs: Path) -> str:
    return f"<li>{thumbnails.button(card, outputs)}<p>{words.text(text or tr('nothing'))}</p></li>"


def ended(view: CaptioningView, mode: Mode, proposals: int, style: Sequence[str] = ()) -> str:
    """What a job that has ended did, what was wrong, and what its captions say about the ``style``."""
    parts = [words.notice("wrong", view.error.what, view.error.where, view.error.do)] if view.error else []
    stopped = view.state is State.INTERRUPTED and not view.error
    if stopped:
        done = ntr(
            view.total,
            "Stopped after {done:,} of {count:,} picture.",
            "Stopped after {done:,} of {count:,} pictures.",
            done=view.done,
        )
        parts.append(words.notice("warned", done if view.total else tr("Taken out of the queue before its turn.")))
    if mode is Mode.PROPOSE:
        waiting = ntr(proposals, "{count:,} caption is proposed.", "{count:,} captions are proposed.")
        parts += [outcome.done(waiting, tr("Nothing is written before you accept it."))] if proposals else []
    elif view.written or view.state is State.FINISHED:
        parts.append(outcome.done(_written(view), _kept(view)))
    parts += [words.notice("warned", one.what, one.where, one.do) for one in view.warnings]
    parts += [_styled(style)] if style else []
    return f'<div class="outcome">{"".join(parts)}</div>'


def _written(view: CaptioningView) -> str:
    model = view.model or tr("The model")
    return (
        tr("{model} wrote {captions}.", model=model, captions=words.counted(len(view.written), "caption"))
        if view.written
        else tr("Nothing had to be written.")
    )


def _kept(view: CaptioningView) -> str:
    if not view.kept:
        return ""
    return ntr(
        len(view.kept),
        "{count:,} caption stays as it was: it was written meanwhile, or there was nothing to add.",
        "{count:,} captions stay as they were: it was written meanwhile, or there was nothing to add.",
    )


def proposed(found: Mapping[str, str], collection: Collection, outputs: Path) -> str:
    """Proposals beside the captions that are there, with what would change marked."""
    rows = [(collection.cards[name], text) for name, text in found.items() if name in collection.cards]
    thumbnails.make([card for card, _ in rows[:MOST_SHOWN]], outputs)
    shown = "".join(_proposal(card, text, outputs) for card, text in rows[:MOST_SHOWN])
    more = changes.more(len(rows) - MOST_SHOWN)
    return f'<ul class="proposals">{shown}</ul>{more}' if rows else ""


def _proposal(card: Card, text: str, outputs: Path) -> str:
    name = words.text(card.name)
    now = words.text(card.picture.caption) or f'<span class="hint">{words.text(tr("no caption"))}</span>'
    acts = (
        ("accept", tr("Accept"), tr("Accept the caption of {name}", name=card.name)),
        ("dismiss", tr("Dismiss"), tr("Dismiss the caption of {name}", name=card.name)),
    )
    buttons = "".join(
        f'<button type="button" class="quiet-button" data-act="{act}" data-name="{name}" '
        f'aria-label="{words.text(label)}">{words.text(title)}</button>'
        for act, title, label in acts
    )
    before, after = words.text(tr("Now")), words.text(tr("Proposed"))
    return (
        f"<li>{thumbnails.button(card, outputs)}<dl><dt>{before}</dt><dd>{now}</dd><dt>{after}</dt>"
        f'<dd class="caption-change">{changes.new(card.picture.caption, text)}</dd></dl>'
        f'<div class="fixes">{buttons}</div></li>'
    )


def offered(model: str, offer: HubOffer | None) -> str:
    """That a model is not on this machine, and what downloading it takes as far as it is known."""
    known = catalogue.named(model)
    name = known.title if known else model
    if offer:
        licence = offer.licence or tr("not named")
        facts = ntr(
            offer.files,
            "{size} in {count:,} file. Licence: {licence}.",
            "{size} in {count:,} files. Licence: {licence}.",
            size=words.size(offer.size),
            licence=licence,
        )
        return words.notice("warned", tr("{name} can be downloaded.", name=offer.name), do=facts)
    facts = [tr("About {size}.", size=words.size(known.size))] if known and known.size else []
    facts += [tr("Licence: {licence}.", licence=known.licence)] if known else []
    facts.append(tr("The hub is asked only when you press Look it up."))
    return words.notice("warned", tr("{name} is not on this machine.", name=name), do=in_sequence(facts))


def downloading(download: ModelDownload) -> str:
    """A download that is under way."""
    known = catalogue.named(download.name)
    name = known.title if known else download.name
    said = tr("Downloading {name}", name=name)
    if download.total:
        done, total = words.size(download.done), words.size(download.total)
        said = tr("Downloading {name}: {done} of {total}", name=name, done=done, total=total)
    bar = _bar(download.done, download.total) if download.total else ""
    return (
        f'<div class="state running" role="status"><p class="sentence"><span class="dot"></span>{words.text(said)}</p>'
        f'{bar}<p class="hint">{words.text(tr("It goes on where it was if it is stopped."))}</p></div>'
    )


def _styled(found: Sequence[str]) -> str:
    """That captions name the style."""
    named = few([tr("“{word}”", word=one) for one in found], 5)
    do = tr("What captions leave unsaid becomes the style: remove these words.")
    return words.notice("warned", tr("The new captions say how the pictures are made: {named}.", named=named), do=do)
