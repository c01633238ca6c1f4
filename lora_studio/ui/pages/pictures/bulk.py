"""Edits of many captions at once: a form for each edit of ``curation.edits``, made from its declaration. What an edit
would change is shown while it is typed, and nothing is written before Apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.blocks import Block

from lora_studio.curation import edits
from lora_studio.curation.collection import Card, Collection, Query
from lora_studio.curation.edits import EDITS, CaptionChange, EditField
from lora_studio.errors import SettingsError
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates
from lora_studio.ui.pages.pictures import changes, scopes
from lora_studio.ui.pages.pictures.drafts import ALL, FOUND, EditDraft
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.pictures.room import Room
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.theme import html

if TYPE_CHECKING:
    from lora_studio.texts.tokenizer import Tokenizer  # transformers, which takes most of a second to import

_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)
_CHOICES = {"front": tr("Front"), "end": tr("End")}
"""What edits let her choose -> how it is called."""
_INTO_VIEW = """
() => setTimeout(() => {
  const card = document.getElementById('bulk');
  const fields = card?.querySelectorAll('.edit-fields textarea, .edit-fields input[type="text"]') ?? [];
  card?.scrollIntoView({block: 'nearest'});
  [...fields].find(one => one.checkVisibility() && !one.value)?.focus({preventScroll: true});
}, 50)
"""
"""Shows the form, and lets her type what is missing in it."""


class BulkEdits:
    """The card with the form and what it would change."""

    def __init__(self, room: Room):
        self.room = room
        with gr.Column(elem_classes="card", visible=False, elem_id="bulk") as self.card:
            self._place()
        room.shows(self.draw, [self.card, self.scope, self.wrong, self.preview, self.apply])

    def _place(self) -> None:
        html(f"<h2>{words.text(tr('Change captions'))}</h2>")
        titles = [(edit.title, kind) for kind, edit in EDITS.items()]
        self.kind = gr.Dropdown(
            titles, show_label=False, label=tr("Edit"), container=False, filterable=False, elem_id="edit"
        )
        self.sentence = html()
        self.forms: dict[str, gr.Column] = {}
        self.fields: dict[tuple[str, str], Any] = {}
        for kind in EDITS:
            with gr.Column(visible=False, elem_classes="edit-fields") as self.forms[kind]:
                for one in edits.fields(kind):
                    self.fields[kind, one.name] = _field(kind, one)
        self.wrong = html(visible=False, elem_id="edit-wrong")
        self.scope = gr.Radio([], label=tr("In"), show_label=False, container=False, elem_id="edit-scope")
        self.preview = html(elem_id="edit-preview")
        with gr.Row(elem_classes="controls"):
            self.apply = gr.Button(tr("Apply"), variant="primary", size="md", min_width=90, elem_id="edit-apply")
            self.close = gr.Button(tr("Cancel"), size="md", min_width=80, elem_id="edit-close")

    @property
    def opened(self) -> list[Block]:
        """What ``propose`` changes."""
        drawn = [self.card, self.scope, self.wrong, self.preview, self.apply]
        return [self.room.look, *drawn, self.kind, self.sentence, *self.forms.values(), *self.fields.values()]

    def wire(self) -> None:
        """Binds the form."""
        typed = [self.room.look, self.scope, *self.fields.values()]
        shown = [self.room.look, self.card, self.scope, self.wrong, self.preview, self.apply]
        # a text that was pasted by mouse is no input to gradio
        written = [one for one in self.fields.values() if isinstance(one, gr.Textbox | gr.Number)]
        chosen = [self.scope, *(one for one in self.fields.values() if one not in written)]
        inputs = [one.change for one in written] + [one.input for one in chosen]
        gr.on(inputs, self.type, typed, shown, trigger_mode="always_last", **QUIET)
        self.kind.input(self.choose, [self.room.look, self.kind], self.opened, **QUIET)
        self.close.click(self.cancel, self.room.look, shown, **QUIET)
        self.room.edits(self.apply.click, self.write, outputs=[self.card])

    def opens(self, event: Any, act: Any, inputs: Sequence[Block] = ()) -> None:
        """Binds an event to ``act``, which returns what ``propose`` does, and brings the card into view."""
        event(act, [self.room.look, *inputs], self.opened, **QUIET).then(None, js=_INTO_VIEW, **QUIET)

    def propose(self, look: PicturesLook, kind: str, values: Mapping[str, Any] | None = None) -> Updates:
        """Opens the form of an edit with ``values``, and shows what it would change in all captions."""
        narrowed = not values and look.query != Query(sort=look.query.sort)
        look.draft = EditDraft(kind, dict(values or {}), FOUND if narrowed else ALL)
        return {
            self.room.look: look,
            self.kind: kind,
            self.sentence: f'<p class="hint">{words.text(EDITS[kind].sentence)}</p>',
            **{form: gr.update(visible=one == kind) for one, form in self.forms.items()},
            **self._filled(kind, values or {}),
            **self.draw(look, self.room.collections.of(look)),
        }

    def _filled(self, kind: str, values: Mapping[str, Any]) -> Updates:
        return {
            self.fields[kind, one.name]: gr.update(value=_shown(one, values.get(one.name, one.default)))
            for one in edits.fields(kind)
        }

    def choose(self, look: PicturesLook, kind: str) -> Updates:
        """Another edit, for the same pictures."""
        scope = look.draft.scope if look.draft else ALL
        updates = self.propose(look, kind)
        assert look.draft
        look.draft.scope = scope
        return {**updates, **self.draw(look, self.room.collections.of(look))}

    def type(self, look: PicturesLook, scope: str, *values: Any) -> Updates:
        """What the edit would change, with what was typed by now."""
        if look.draft:
            given = dict(zip(self.fields, values, strict=True))
            own = {name: value for (kind, name), value in given.items() if kind == look.draft.kind}
            look.draft.values = {name: value for name, value in own.items() if value is not None}
            look.draft.scope = scope or ALL
        return {self.room.look: look, **self.draw(look, self.room.collections.of(look))}

    def cancel(self, look: PicturesLook) -> Updates:
        """Closes the form; nothing is written."""
        look.draft = None
        return {self.room.look: look, self.card: _HIDDEN}

    def write(self, look: PicturesLook) -> Updates | None:
        """Writes what was shown."""
        draft = look.draft
        if not draft or not draft.changes:
            return None
        after = {one.name: one.after for one in draft.changes}
        before = {one.name: one.before for one in draft.changes}
        done = self.room.workbench(look).edit_captions(after, draft.title, before)
        look.draft = None
        self.room.changed(look, done, captions=after)
        return None

    def draw(self, look: PicturesLook, collection: Collection) -> Updates:
        """The card, while an edit is typed."""
        draft = look.draft
        if draft is None:
            return {self.card: _HIDDEN}
        known = scopes.cards(look, collection)
        draft.scope = draft.scope if draft.scope in known else ALL
        wrong = _compute(draft, _captions(known[draft.scope]), collection)
        titles = scopes.titles(known)
        count = len(draft.changes)
        return {
            self.card: _SHOWN,
            self.scope: gr.update(choices=titles, value=draft.scope, visible=len(titles) > 1),
            self.wrong: gr.update(value=wrong, visible=bool(wrong)),
            self.preview: "" if wrong or not draft.complete else _preview(draft.changes),
            self.apply: gr.update(
                value=tr("Apply to {captions}", captions=words.counted(count, "caption")) if count else tr("Apply"),
                interactive=count > 0,
            ),
        }


def _field(kind: str, one: EditField) -> Any:
    """The component of an edit's field."""
    how: dict[str, Any] = {
        "label": one.title,
        "info": one.help or None,
        "value": _shown(one, one.default),
        "elem_id": f"{kind}-{one.name}".replace(" ", "-").replace("_", "-"),
    }
    match one.type:
        case "flag":
            return gr.Checkbox(**how)
        case "number":
            return gr.Number(precision=0, **how)
        case "choice":
            return gr.Radio([(_CHOICES[choice], choice) for choice in one.choices], **how)
    return gr.Textbox(max_lines=1, **how)


def _shown(one: EditField, value: Any) -> Any:
    """A field's value as its component holds it."""
    if one.type == "tags":
        return value if isinstance(value, str) else ", ".join(value or ())
    return value if value is not None else "" if one.type == "text" else None


@lru_cache(maxsize=65536)
def _count(tokenizers: tuple[Tokenizer, ...], text: str) -> int:
    """How many tokens a text has, by the tokenizer that makes most of it."""
    return max(one.counts([text])[0] for one in tokenizers)


def _captions(cards: Sequence[Card]) -> dict[str, str]:
    return {card.name: card.picture.caption for card in cards}


def _compute(draft: EditDraft, captions: Mapping[str, str], collection: Collection) -> str:
    """Finds the changes of a draft; what is wrong with it, as HTML, if something is."""
    draft.changes, draft.title = [], ""
    if not draft.complete:
        return ""
    try:
        edit = edits.make(draft.kind, **draft.values)
        draft.changes = edits.preview(captions, edit, partial(_count, collection.target.tokenizers))
    except SettingsError as error:
        return words.notice("wrong", error.what, error.where, error.do)
    draft.title = edits.describe([edit])
    return ""


def _preview(found: Sequence[CaptionChange]) -> str:
    if not found:
        return f'<p class="hint" role="status">{words.text(tr("No caption would change."))}</p>'
    number = words.text(words.counted(len(found), "caption changes", "captions change"))
    return f'<p class="count" role="status"><b>{number}</b></p>{changes.listed(found)}'
