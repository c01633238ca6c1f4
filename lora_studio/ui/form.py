"""The settings as a form: every field is made from its declaration in ``lora_studio.config.slices``.

Fields keep their content whatever happens. An invalid field is named, with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from lora_studio.config.declaration import Group, Level
from lora_studio.config.presets import Preset
from lora_studio.config.settings import layer
from lora_studio.config.specs import SPECS
from lora_studio.language import declared, english, ntr, tr
from lora_studio.optim import registry as optimizers
from lora_studio.ui import field_notes, words
from lora_studio.ui.fields import FormReading, name_of, to_field
from lora_studio.ui.outcome import Updates
from lora_studio.ui.theme import html

_TYPED_NUMBER = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False, autocorrect="off")

Field = gr.Checkbox | gr.Dropdown | gr.Textbox


def preset_values(preset: Preset | None) -> dict[str, Any]:
    """The form's values that agree with ``preset``: its settings over the defaults. Pictures, base model and name are
    not part of a preset.
    """
    own = preset.settings if preset else {}
    concerned = (
        key
        for key, spec in SPECS.items()
        if spec.level is not Level.JOB and (key in own or spec.kind not in ("text", "lines"))
    )
    return {key: own.get(key, SPECS[key].default) for key in concerned}


def differences(values: dict[str, Any], preset: Preset | None) -> dict[str, tuple[Any, Any]]:
    """Setting -> (the preset's value, the form's value), where they differ. Trigger word and prompts do not count."""
    return {
        key: (expected, values[key])
        for key, expected in preset_values(preset).items()
        if key in values and values[key] != expected
    }


class Form:
    """The fields of the settings, by key, in the order of their placement."""

    def __init__(self, start: dict[str, Any]):
        """``start``: the first values of fields, over the defaults."""
        self.start = start
        self.fields: dict[str, Field] = {}

    @property
    def components(self) -> list[Field]:
        """The fields, in order."""
        return list(self.fields.values())

    def raw(self, values: Sequence[Any]) -> dict[str, Any]:
        """The fields' values, by key."""
        return dict(zip(self.fields, values, strict=True))

    @property
    def initial(self) -> dict[str, Any]:
        """What the fields hold at first, by key."""
        return {key: field.value for key, field in self.fields.items()}

    def kept(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What handlers would get of the fields, in their order, from what the browser tells of them, by key."""
        return tuple(field.preprocess(values[key]) for key, field in self.fields.items())

    def field(self, key: str, **how: Any) -> Field:
        """Places the field of one setting. ``how`` are arguments of its component."""
        spec = SPECS[key]
        value = to_field(spec, self.start.get(key, spec.default))
        label = (
            f"{spec.label} ({spec.unit})"
            if spec.unit and english(spec.unit) not in english(spec.label).lower()
            else spec.label
        )
        about = {"value": value, "label": label, "info": info(key, self.start), "elem_id": f"set-{key}"}
        common: dict[str, Any] = about | how
        made: Field
        match spec.kind:
            case "switch":
                made = gr.Checkbox(**common)
            case "choice":
                made = gr.Dropdown(
                    choices=[(option.title, option.name) for option in spec.options],
                    filterable=False,
                    **common,
                )
            case "integer" | "number":
                made = gr.Textbox(max_lines=1, html_attributes=_TYPED_NUMBER, elem_classes="number", **common)
            case "lines":
                made = gr.Textbox(lines=3, max_lines=8, **common)
            case _:
                made = gr.Textbox(max_lines=1, **common)
        self.fields[key] = made
        return made

    def explain(self) -> None:
        """Updates the texts below the fields whenever a choice changes."""
        choices = [key for key in self.fields if any(option.help for option in SPECS[key].options)]
        explained = [*choices, *(key for key in self.fields if key in optimizers.RATES)]

        def infos(*chosen: Any) -> Updates:
            values = dict(zip(choices, chosen, strict=True))
            return {self.fields[key]: gr.update(info=info(key, values)) for key in explained}

        gr.on(
            [self.fields[key].change for key in choices],
            infos,
            [self.fields[key] for key in choices],
            [self.fields[key] for key in explained],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def adopt(self, key: str, component: Field) -> None:
        """Adds a field that a page has made itself."""
        self.fields[key] = component

    def place_all(self, below: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Places the fields of all settings that have none yet, folded by group, with those for experts last, and a
        search above them.

        Args:
            below: what else to place below the fields of some settings.
        """
        html(field_notes.search(), js_on_load=field_notes.searching(), elem_id="find-setting")
        for group in Group:
            keys = [
                key
                for level in Level
                for key, spec in SPECS.items()
                if spec.group is group and spec.level is level and key not in self.fields
            ]
            if keys:
                with gr.Column(elem_classes="group", elem_id=f"group-{group.name.lower()}"):
                    html(field_notes.group_head(group.heading), js_on_load=field_notes.FOLD)
                    with gr.Column(elem_classes="fields"):
                        for key in keys:
                            self.field(key)
                            if below and key in below:
                                below[key]()

    def fill(self, values: Mapping[str, Any]) -> Updates:
        """Updates that put ``values`` into their fields; the other fields keep their content."""
        return {
            field: gr.update(value=to_field(SPECS[key], values[key]))
            for key, field in self.fields.items()
            if key in values
        }


def info(key: str, values: Mapping[str, Any]) -> str:
    """The text below a field's label: the setting's help, and what the chosen value is good for or, for a learning
    rate, what is usual for the chosen optimizer. ``values``: the fields' values; missing ones count as the default.
    """
    spec = SPECS[key]
    value, optimizer = (values.get(name, SPECS[name].default) for name in (key, "optimizer"))
    more = next((option.help for option in spec.options if option.name == value), "")
    if key in optimizers.RATES and (row := optimizers.OPTIMIZERS.get(optimizer)):
        usual = optimizers.usual_rates(row.name).get(key)
        more = tr("Usual for {optimizer}: {rate}", optimizer=row.title, rate=words.value(usual)) if usual else ""
    return tr("{about} {more}.", about=spec.about, more=words.begun(more)) if more else spec.about


def rates(optimizer: str, preset: Preset | None, method: str = "") -> dict[str, float]:
    """The learning rates for a chosen ``optimizer``: the preset's if they are meant for it, else its usual ones; for a
    chosen ``method``, as they are to its own.
    """
    own = preset_values(preset)
    chosen = layer(own, {"optimizer": optimizer, "method": method or own["method"]})
    return {key: chosen[key] for key in optimizers.RATES}


def warnings(reading: FormReading) -> list[str]:
    """What to know of settings that can be trained with: those without effect, and lines that are repeated."""
    if reading.settings is None:
        return []
    return [one.what for one in (*reading.settings.ignored(), *reading.settings.repeated())]


def summary(reading: FormReading) -> str:
    """What is wrong between settings, or what to know of them, as HTML; empty if there is nothing. What is wrong with
    one setting stands at its field.
    """
    if between := reading.wrong.get(""):
        return words.notice("wrong", between)
    if reading.settings is None:
        return ""
    told = [optimizers.rate_warning(reading.settings.optimizer), *warnings(reading)]
    return "".join(words.notice("warned", what) for what in told if what)


def to_fix(reading: FormReading) -> str:
    """How many settings are to be fixed before training, and their names, as HTML; empty if none is. ``data-first``
    is the uppermost one's key.
    """
    keys = [key for key in reading.wrong if key]
    if not keys:
        return ""
    named = words.text(", ".join(map(name_of, keys)))
    counted = words.text(ntr(len(keys), "{count:,} setting to fix", "{count:,} settings to fix"))
    return f'<div class="notice wrong" role="alert" data-first="{keys[0]}"><b>{counted}</b><p>{named}</p></div>'


def changes(changed: Mapping[str, tuple[Any, Any]], preset: Preset | None) -> str:
    """How the form differs from ``preset``, as HTML; empty if it does not."""
    if not changed:
        return ""
    chips = "".join(_chip(key, old, new) for key, (old, new) in changed.items())
    title = declared(preset.title) if preset else tr("the defaults")
    return f'<div class="changes"><span>{words.text(tr("Changed from {preset}", preset=title))}</span>{chips}</div>'


def _chip(key: str, old: Any, new: Any) -> str:
    label, before, after = (
        words.text(part) for part in (SPECS[key].label, value_title(key, old), value_title(key, new))
    )
    return f'<span class="chip">{label} <s>{before}</s> {after}</span>'


def value_title(key: str, value: Any) -> str:
    """A setting's value as the page shows it."""
    spec = SPECS[key]
    return spec.title(value) if spec.kind == "choice" else words.value(value)
