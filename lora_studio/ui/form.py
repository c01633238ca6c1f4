"""The settings as a form: every field is made from its declaration in ``lora_studio.config.slices``, and reading the
form gives Settings.

Fields keep their content whatever happens. An invalid field is named, with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr
from pydantic import ValidationError

from lora_studio.config.declaration import Group, Level
from lora_studio.config.presets import Preset
from lora_studio.config.settings import Settings, key_of, layer
from lora_studio.config.specs import SPECS, Spec, allowed
from lora_studio.optim import registry as optimizers
from lora_studio.ui import words
from lora_studio.ui.outcome import Updates

Field = gr.Checkbox | gr.Dropdown | gr.Number | gr.Textbox


def to_field(spec: Spec, value: Any) -> Any:
    """A setting's value in the form that its field holds."""
    return "\n".join(value) if spec.kind == "lines" else value


def from_field(spec: Spec, raw: Any) -> Any:
    """The setting's value of a field's content. Invalid content is returned as it is, for validation to reject."""
    if spec.kind == "lines":
        return [line.strip() for line in (raw or "").splitlines() if line.strip()]
    if spec.kind == "integer" and isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if spec.kind == "text":
        return (raw or "").strip()
    return raw


class FormReading(NamedTuple):
    """The content of a form."""

    values: dict[str, Any]
    settings: Settings | None
    wrong: dict[str, str]
    """One sentence per invalid setting; under "" what is wrong between settings."""


def read(raw: dict[str, Any]) -> FormReading:
    """The settings of the fields' values, or everything that is wrong with them."""
    values = {key: from_field(SPECS[key], value) for key, value in raw.items()}
    try:
        return FormReading(values, Settings(**values), {})
    except ValidationError as error:
        return FormReading(values, None, {key_of(one): _message(one) for one in error.errors()})


def _message(error: Any) -> str:
    spec = SPECS.get(key_of(error))
    if spec is None:
        return error["msg"].removeprefix("Value error, ") + "."
    name = spec.label if spec.level in (Level.JOB, Level.BASIC) else f"{spec.group.value} › {spec.label}"
    if error["input"] is None:
        return f"{name} is empty."
    if error["type"] == "text":
        return f"{name}: {error['msg']}."
    return f"{name} must be {allowed(spec.key)}; it is {words.value(error['input'])}."


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

    def kept(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What handlers would get of the fields, in their order, from what the browser tells of them, by key."""
        return tuple(field.preprocess(values[key]) for key, field in self.fields.items())

    def field(self, key: str, **how: Any) -> Field:
        """Places the field of one setting. ``how`` are arguments of its component."""
        spec = SPECS[key]
        value = to_field(spec, self.start.get(key, spec.default))
        label = f"{spec.label} ({spec.unit})" if spec.unit and spec.unit not in spec.label.lower() else spec.label
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
            case "integer":
                made = gr.Number(precision=0, **common)
            case "number":
                made = gr.Number(step=_step(spec), **common)
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

    def place_basic(self) -> None:
        """Places the basic fields, which matter for every style."""
        with gr.Column(elem_classes="fields"):
            for key, spec in SPECS.items():
                if spec.level is Level.BASIC:
                    self.field(key)

    def place_advanced(self, below: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Places all other fields, folded by group, with those for experts last.

        Args:
            below: what else to place below the fields of some settings.
        """
        for group in Group:
            keys = [
                key
                for level in (Level.ADVANCED, Level.EXPERT)
                for key, spec in SPECS.items()
                if spec.group is group and spec.level is level
            ]
            if keys:
                with gr.Accordion(group.value, open=False, elem_classes="fold"), gr.Column(elem_classes="fields"):
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
        more = f"Usual for {row.title}: {words.value(usual)}" if usual else ""
    return f"{spec.help} {more[0].upper()}{more[1:]}." if more else spec.help


def rates(optimizer: str, preset: Preset | None, method: str = "") -> dict[str, float]:
    """The learning rates for a chosen ``optimizer``: the preset's if they are meant for it, else its usual ones; for a
    chosen ``method``, as they are to its own.
    """
    own = preset_values(preset)
    chosen = layer(own, {"optimizer": optimizer, "method": method or own["method"]})
    return {key: chosen[key] for key in optimizers.RATES}


def _step(spec: Spec) -> float:
    """The step of a field's arrows: a tenth of its default, or of 1."""
    return abs(spec.default) / 10 or 0.01


def summary(reading: FormReading, preset: Preset | None) -> str:
    """What is wrong in the form, or how it differs from the preset, with warnings of a useless learning rate and of
    settings without effect. HTML.
    """
    if reading.wrong:
        lines = "".join(f"<li>{words.text(what)}</li>" for what in reading.wrong.values())
        return f'<div class="notice wrong" role="alert"><b>Fix before training</b><ul>{lines}</ul></div>'
    changed = differences(reading.values, preset)
    if reading.settings is None:
        return _changes(changed, preset)
    odd = (*reading.settings.ignored(), *reading.settings.repeated())
    told = [optimizers.rate_warning(reading.settings.optimizer), *(one.what for one in odd)]
    return _changes(changed, preset) + "".join(words.notice("warned", what) for what in told if what)


def _changes(changed: dict[str, tuple[Any, Any]], preset: Preset | None) -> str:
    if not changed:
        return ""
    chips = "".join(_chip(key, old, new) for key, (old, new) in changed.items())
    title = words.text(preset.title if preset else "the defaults")
    return f'<div class="changes"><span>Changed from {title}</span>{chips}</div>'


def _chip(key: str, old: Any, new: Any) -> str:
    label, before, after = (
        words.text(part) for part in (SPECS[key].label, value_title(key, old), value_title(key, new))
    )
    return f'<span class="chip">{label} <s>{before}</s> {after}</span>'


def value_title(key: str, value: Any) -> str:
    """A setting's value as the page shows it."""
    spec = SPECS[key]
    return spec.title(value) if spec.kind == "choice" else words.value(value)
