"""The preset's field, and what can be done with presets of one's own: save, rename, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio.config import presets
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings
from lora_studio.errors import SettingsError, StudioError
from lora_studio.language import declared, ntr, tr
from lora_studio.runs import own_presets
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates, done, wrong
from lora_studio.ui.theme import html

_HIDDEN, _SHOWN = gr.update(visible=False), gr.update(visible=True)
_SAVE, _RENAME = "save", "rename"
FIRST = "quick-look"
_TO_THE_NAME = """async () => {
  const field = () => document.querySelector('#preset-name :is(input, textarea)');
  for (let wait = 0; wait < 40 && !field()?.checkVisibility(); wait += 1) await new Promise(requestAnimationFrame);
  field()?.select();
}"""
"""The name is typed at once."""
_TO_UNDO = "() => setTimeout(() => document.querySelector('#undo-preset')?.focus(), 100)"
_TO_THE_PRESET = "() => setTimeout(() => document.querySelector('#preset input')?.focus(), 100)"
"""What was pressed is gone."""


class PresetForm:
    """The field, and below it a line of buttons that opens to ask for a name."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.found: dict[str, Preset] = {}
        """All presets by name, those that come with the studio first."""
        self.own: set[str] = set()
        self.damaged: list[str] = []
        """The errors of those that cannot be read."""
        self.look()
        self.first = self.found.get(FIRST) or next(iter(self.found.values()), None)

    def look(self) -> None:
        """Reads the presets again."""
        self.found, self.damaged, self.own = {}, [], set()
        mine = own_presets.folder(self.outputs)
        for path in (*sorted(presets.FOLDER.glob("*.toml")), *sorted(mine.glob("*.toml"))):
            try:
                self.found[path.stem] = presets.read(path)
            except SettingsError as error:
                self.damaged.append(str(error))
                continue
            if path.parent == mine:
                self.own.add(path.stem)

    def get(self, name: object) -> Preset | None:
        """The preset of that name, if there is one."""
        return self.found.get(name) if isinstance(name, str) else None

    def place_field(self) -> None:
        """Places the field."""
        self.field = gr.Dropdown(
            self._choices(),
            value=self.first.name if self.first else None,
            filterable=False,
            label=tr("Preset"),
            info=tr("Fills in the settings below."),
            elem_id="preset",
        )

    def place_tools(self) -> None:
        """Places what the preset is for, and what can be done with it."""
        self.blurb = html(self._blurb(self.first))
        with gr.Row(elem_classes="preset-tools"):
            self.saving = gr.Button(tr("Save as preset…"), size="sm", min_width=100, elem_id="save-preset")
            self.renaming = gr.Button(tr("Rename…"), size="sm", min_width=60, visible=False, elem_id="rename-preset")
            self.deleting = gr.Button(tr("Delete"), size="sm", min_width=60, visible=False, elem_id="delete-preset")
            self.undo = gr.Button(tr("Undo"), size="sm", min_width=60, visible=False, elem_id="undo-preset")
        self.mode = gr.State(_SAVE)
        with gr.Row(elem_classes="preset-name", visible=False) as self.asking:
            self.name = gr.Textbox(
                label=tr("Name of the preset"), show_label=False, container=False, max_lines=1, elem_id="preset-name",
                placeholder=tr("Name of the preset"), min_width=120,
            )  # fmt: skip
            self.store = gr.Button(tr("Save"), size="sm", variant="primary", min_width=60, elem_id="store-preset")
            self.cancel = gr.Button(tr("Cancel"), size="sm", min_width=60)
        self.said = html(visible=False)
        self.deleted = gr.State("")

    @property
    def chosen(self) -> list[Any]:
        """What ``show`` changes."""
        return [self.field, self.blurb, self.renaming, self.deleting]

    def wire(
        self,
        gathers: Callable[..., Any],
        draft: gr.BrowserState,
        settings: Callable[[dict[str, Any]], Settings],
        **quiet: Any,
    ) -> None:
        """Binds the buttons.

        Args:
            gathers: as ``Setup.gathers``, which puts the form into ``draft``.
            settings: makes the settings of what the form holds, by key. Raises StudioError where they are invalid.
        """
        told = [self.said, self.undo]
        asked = [self.mode, self.asking, self.name, self.store, *told]
        saving = self.saving.click(lambda: self.ask(_SAVE), None, asked, **quiet)
        renaming = self.renaming.click(lambda name: self.ask(_RENAME, name), self.field, asked, **quiet)
        for pressed in (saving, renaming):
            pressed.then(None, js=_TO_THE_NAME, **quiet)
        self.cancel.click(lambda: {self.asking: _HIDDEN, **self._say("")}, None, [self.asking, *told], **quiet)
        shown = [*self.chosen, self.asking, *told]
        self.deleting.click(self.delete, self.field, [*shown, self.deleted], **quiet).then(None, js=_TO_UNDO, **quiet)
        self.undo.click(self.restore, self.deleted, shown, **quiet).then(None, js=_TO_THE_PRESET, **quiet)

        def keep(mode: str, chosen: str, title: str, kept: dict[str, Any]) -> Updates:
            return self.keep(mode, chosen, title, lambda: settings(kept["fields"]))

        for event in (self.store.click, self.name.submit):
            gathers(event).then(keep, [self.mode, self.field, self.name, draft], shown, **quiet)

    def show(self, preset: Preset | None) -> Updates:
        """``preset`` as the chosen one of all that there are."""
        own = _SHOWN if preset and preset.name in self.own else _HIDDEN
        choices = self._choices()
        return {
            self.field: gr.update(choices=choices, value=preset.name) if preset else gr.update(choices=choices),
            self.blurb: self._blurb(preset),
            self.renaming: own,
            self.deleting: own,
        }

    def ask(self, mode: str, name: str = "") -> Updates:
        """Asks for a name."""
        preset = self.get(name)
        return {
            self.mode: mode,
            self.asking: _SHOWN,
            self.name: preset.title if preset else "",
            self.store: tr("Rename") if mode == _RENAME else tr("Save"),
            **self._say(""),
        }

    def keep(self, mode: str, chosen: str, title: str, settings: Callable[[], Settings]) -> Updates:
        """Saves ``settings`` under ``title``, or renames the ``chosen`` preset."""
        try:
            if mode == _RENAME:
                kept = own_presets.rename(chosen, title, self.outputs)
                what = tr("Renamed as {title}.", title=kept.title)
            else:
                kept = own_presets.save(title, settings(), self.outputs)
                what = tr("Saved as {title}.", title=kept.title)
        except (StudioError, OSError) as error:
            return self._say(wrong(error))
        self.look()
        more = tr("On the command line: --preset {name}", name=kept.name)
        return {**self.show(self.get(kept.name)), self.asking: _HIDDEN, **self._say(done(what, more))}

    def delete(self, chosen: str) -> Updates:
        """Moves the ``chosen`` preset to the trash, and offers to undo that. The settings stay as they are."""
        title = preset.title if (preset := self.get(chosen)) else chosen
        try:
            own_presets.delete(chosen, self.outputs)
        except (StudioError, OSError) as error:
            return self._say(wrong(error))
        self.look()
        told = self._say(
            done(tr("{title} is in the trash.", title=title), tr("The settings stay as they are.")), undo=True
        )
        return {**self.show(self.first), self.asking: _HIDDEN, self.deleted: chosen, **told}

    def restore(self, name: str) -> Updates:
        """Brings the deleted preset ``name`` back, as the chosen one. The settings stay as they are."""
        try:
            preset = own_presets.restore(name, self.outputs)
        except (StudioError, OSError) as error:
            return self._say(wrong(error))
        self.look()
        told = self._say(done(tr("{title} is back.", title=preset.title), tr("The settings stay as they are.")))
        return {**self.show(self.get(name)), self.asking: _HIDDEN, **told}

    def _say(self, said: str, undo: bool = False) -> Updates:
        """What came of the last press; with ``undo``, it can be undone."""
        return {self.said: gr.update(value=said, visible=bool(said)), self.undo: gr.update(visible=undo)}

    def _choices(self) -> list[tuple[str, str]]:
        return [
            (tr("Yours: {title}", title=preset.title) if name in self.own else declared(preset.title), name)
            for name, preset in self.found.items()
        ]

    def _blurb(self, preset: Preset | None) -> str:
        own = preset is not None and preset.name in self.own
        told = (declared(preset.blurb) if preset.blurb else _size(preset) if own else "") if preset else ""
        return "".join(f'<p class="blurb">{words.text(line)}</p>' for line in (told, *self.damaged) if line)


def _size(preset: Preset) -> str:
    return ntr(len(preset.settings), "Yours: {count} setting.", "Yours: {count} settings.")
