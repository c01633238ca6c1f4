"""What is wrong with the pictures, each with what one press does about it: duplicates side by side, the others by kind.
Every press is a step that can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from lora_studio import language
from lora_studio.curation.collection import Card, Collection, Query
from lora_studio.language import ntr, tr
from lora_studio.ui import folds, words
from lora_studio.ui.outcome import WORK, Updates
from lora_studio.ui.pages.pictures import changes, findings, thumbnails
from lora_studio.ui.pages.pictures.bulk import BulkEdits
from lora_studio.ui.pages.pictures.captioning import CaptioningPanel
from lora_studio.ui.pages.pictures.findings import Fix, HealthFinding
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.theme import html

_MOST_GROUPS, _MOST_THUMBNAILS, _MOST_LINES = 8, 8, 5

_OPEN_AT_MOST = 3
"""Findings that are shown unfolded; of more, only what prevents training is."""

PRESS = (
    folds.STAY
    + """
let asked = '';
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  const {kind} = button?.closest('details')?.dataset ?? {};
  if (button) trigger({trim: 'edit', describe: 'submit'}[button.dataset.act] ?? 'click', {kind, ...button.dataset});
});
const wanted = () => {
  const images = [...element.querySelectorAll('img[data-wanted]')].filter(image => image.checkVisibility());
  const names = images.map(image => image.parentElement.dataset.name);
  if (names.length && asked !== (asked = names.join('/'))) trigger('play', {names});
};
element.addEventListener('toggle', wanted, true);
watch('value', () => requestAnimationFrame(wanted));
"""
)
"""Reports a pressed button by its data, and asks for thumbnails that are missing; for ``gr.HTML(js_on_load=...)``."""


class Health:
    """The card with the findings."""

    def __init__(self, room: Room, bulk: BulkEdits, captioning: CaptioningPanel):
        self.room, self.bulk, self.captioning = room, bulk, captioning
        with gr.Column(elem_classes="card", elem_id="health-card"):
            self.report = html(js_on_load=PRESS, elem_id="health")
        room.shows(self.draw, [self.report])

    def wire(self) -> None:
        """Binds the buttons in the findings."""
        self.room.edits(self.report.click, self.press)
        self.bulk.opens(self.report.edit, self.trim)
        self.captioning.opens(self.report.submit)
        self.report.play(self.make_thumbnails, self.room.look, self.report, **WORK)

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The findings of the folder."""
        return {self.report: report(collection, findings.find(collection), self.room.outputs)}

    def make_thumbnails(self, look: PicturesLook, event: gr.EventData) -> str:
        """The findings with the thumbnails that were missing."""
        collection = self.room.collections.of(look)
        thumbnails.make([collection.cards[name] for name in event.names if name in collection.cards], self.room.outputs)
        return report(collection, findings.find(collection), self.room.outputs)

    def press(self, look: PicturesLook, event: gr.EventData) -> None:
        """What one press does."""
        collection = self.room.collections.of(look)
        match str(event.act):
            case "choose":
                look.chosen, look.selected = str(event.name), {str(event.name)}
            case "keep":
                self._leave_out(look, findings.others(findings.find(collection), str(event.kind), str(event.name)))
            case "crops":
                look.query, look.page = Query(mark="cropped", sort="cut"), 0
            case act:
                found = next((one for one in findings.find(collection) if one.key == event.kind), None)
                if found and act in found.fixes:
                    self._fix(look, collection, found, Fix(act))

    def trim(self, look: PicturesLook) -> Updates:
        """Shows what shortening the captions that are too long would change."""
        return self.bulk.propose(look, "trim", {"tokens": self.room.collections.of(look).target.most_tokens})

    def _fix(self, look: PicturesLook, collection: Collection, found: HealthFinding, fix: Fix) -> None:
        match fix:
            case Fix.LEAVE_OUT:
                self._leave_out(look, found.names)
            case Fix.KEEP_LARGEST:
                self._leave_out(look, findings.beside_largest(found, collection))
            case Fix.SHOW:
                look.query, look.page = Query(mark=found.kind), 0
            case Fix.REMOVE_MASKS:
                done = self.room.workbench(look).set_masks(dict.fromkeys(found.names))
                self.room.changed(look, done)
            case Fix.FORGET:
                self.room.changed(look, self.room.workbench(look).forget_gone())

    def _leave_out(self, look: PicturesLook, names: Sequence[str]) -> None:
        done = self.room.workbench(look).leave_out(names)
        self.room.changed(look, done, left_out=dict.fromkeys(names, True))


def report(collection: Collection, found: Sequence[HealthFinding], outputs: Path) -> str:
    """All findings as HTML, under how many pictures there are."""
    out = collection.counts()["left out"]
    problems = sum(one.count for one in found if one.severity != "note")
    facts = [words.counted(len(collection.cards), "picture"), *[tr("{count:,} left out", count=out)] * bool(out)]
    facts.append(words.counted(problems, "problem") if problems else tr("no problem"))
    wrong = [one for one in found if one.severity != "note"]
    notes = [one for one in found if one.severity == "note"]
    parts = [_finding(one, len(wrong) <= _OPEN_AT_MOST, collection, outputs) for one in wrong]
    parts.append(_crops(findings.cropped(collection)))
    noted = "".join(_finding(one, True, collection, outputs) for one in notes)
    parts.append(_folded("notes", tr("Good to know"), noted, False))
    return f'<div class="health"><h2>{words.text(tr("Health"))}</h2>{words.facts(facts)}{"".join(parts)}</div>'


def _crops(names: Sequence[str]) -> str:
    """One line that unfolds, on what is cut off."""
    if not names:
        return ""
    title = ntr(len(names), "{count:,} picture is cropped", "{count:,} pictures are cropped")
    what = tr("To fit the shape that it trains at, each loses a part: the frame on its card shows what is kept.")
    label = words.text(findings.LABELS[Fix.SHOW])
    show = f'<button type="button" class="quiet-button" data-act="crops">{label}</button>'
    return _folded("cropped", title, f'<p class="hint">{words.text(what)}</p><div class="fixes">{show}</div>', False)


def _finding(found: HealthFinding, unfolded: bool, collection: Collection, outputs: Path) -> str:
    number = len(found.groups) or len(found.names) or len(found.what)
    lines = "".join(f"<li>{words.text(line)}</li>" for line in found.what[:_MOST_LINES])
    if len(found.what) > _MOST_LINES:
        rest = tr("and {count:,} more", count=len(found.what) - _MOST_LINES)
        lines += f"<li>{words.text(rest)}</li>"
    cards = [collection.cards[name] for name in found.names]
    shown = _groups(found, collection, outputs) if found.groups else thumbnails.row(cards, _MOST_THUMBNAILS, outputs)
    inside = f'<ul>{lines}</ul><p class="hint">{words.text(found.do)}</p>{shown}{_fixes(found)}'
    return _folded(found.key, found.title, inside, unfolded or found.severity == "blocking", number, found.severity)


def _folded(key: str, title: str, inside: str, unfolded: bool, number: int = 0, severity: str = "") -> str:
    if not inside:
        return ""
    count = f" <b>{language.number(number)}</b>" if number else ""
    return (
        f'<details class="finding {severity.replace(" ", "-")}" data-kind="{words.text(key)}"{" open" * unfolded}>'
        f"<summary>{words.text(title)}{count}</summary>{inside}</details>"
    )


def _fixes(found: HealthFinding) -> str:
    if len(found.groups) == 1 or not found.fixes:  # one set's pictures have buttons of their own
        return ""
    start = f'<button type="button" class="quiet-button" data-kind="{words.text(found.key)}"'
    buttons = (f'{start} data-act="{fix}">{words.text(findings.LABELS[fix])}</button>' for fix in found.fixes)
    return f'<div class="fixes">{"".join(buttons)}</div>'


def _groups(found: HealthFinding, collection: Collection, outputs: Path) -> str:
    shown = "".join(
        _group([collection.cards[name] for name in group], outputs) for group in found.groups[:_MOST_GROUPS]
    )
    return shown + changes.more(len(found.groups) - _MOST_GROUPS)


def _group(cards: Sequence[Card], outputs: Path) -> str:
    """Pictures side by side, the one that is suggested first."""
    best = findings.largest(cards)
    ordered = sorted(cards, key=lambda card: card is not best)
    return (
        f'<div class="twins">{"".join(_twin(card, card is best, outputs) for card in ordered[:_MOST_THUMBNAILS])}</div>'
    )


def _twin(card: Card, best: bool, outputs: Path) -> str:
    name, size = words.text(card.name), f"{card.picture.width} × {card.picture.height}"
    label, title = tr("Keep {name}, leave the others out", name=card.name), tr("Keep this one")
    keep = (
        f'<button type="button" class="quiet-button" data-act="keep" data-name="{name}" '
        f'aria-label="{words.text(label)}">{words.text(title)}</button>'
    )
    facts = " · ".join([size, tr("suggested")] if best else [size])
    about = f"<figcaption>{name}<span>{words.text(facts)}</span></figcaption>"
    return f"<figure>{thumbnails.button(card, outputs)}{about}{keep}</figure>"
