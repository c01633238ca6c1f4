"""The settings as a form: every field is made from its declaration in ``lora_studio.config.settings``, and reading the
form gives Settings.

What stands in the fields stays there whatever happens; a field that is wrong says so, in words and in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gradio as gr
from pydantic import ValidationError

from lora_studio.config.presets import Preset
from lora_studio.config.settings import SPECS, Group, Level, Settings, Spec, key_of
from lora_studio.optim import registry as optimizers
from lora_studio.ui import words


def shown(spec: Spec, value: Any) -> Any:
    """A setting's value as its field holds it."""
    return "\n".join(value) if spec.kind == "lines" else value


def typed(spec: Spec, raw: Any) -> Any:
    """What a field holds as the setting's value; what cannot be one is left as it is, for the check to find."""
    if spec.kind == "lines":
        return [line.strip() for line in (raw or "").splitlines() if line.strip()]
    if spec.kind == "integer" and isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if spec.kind == "text":
        return (raw or "").strip()
    return raw


class Reading(NamedTuple):
    """What a form says."""

    values: dict[str, Any]
    settings: Settings | None
    wrong: dict[str, str]
    """One sentence for each setting that is wrong; under "" what is wrong between them."""


def read(raw: dict[str, Any]) -> Reading:
    """The settings that the fields' values mean, or everything that is wrong with them."""
    values = {key: typed(SPECS[key], value) for key, value in raw.items()}
    try:
        return Reading(values, Settings(**values), {})
    except ValidationError as error:
        return Reading(values, None, {_key(one): _complaint(one) for one in error.errors()})


def _key(error: Any) -> str:
    return key_of(error)


def _complaint(error: Any) -> str:
    spec = SPECS.get(_key(error))
    if spec is None:
        return error["msg"].removeprefix("Value error, ") + "."
    name = spec.label if spec.level in (Level.JOB, Level.BASIC) else f"{spec.group.value} › {spec.label}"
    if error["input"] is None:
        return f"{name} is empty."
    if spec.kind in ("integer", "number"):
        kind = "a whole number" if spec.kind == "integer" else "a number"
        return f"{name} must be {kind} {_bounds(spec)}; it is {words.value(error['input'])}."
    return f"{name}: {error['msg']}."


def _bounds(spec: Spec) -> str:
    limits = (
        [part.removesuffix(".0") for part in (f"{spec.low:,}", f"{spec.high:,}")]
        if None not in (spec.low, spec.high)
        else []
    )
    return "from {} to {}".format(*limits) if limits else ""


def wanted(preset: Preset | None) -> dict[str, Any]:
    """What the form holds when it agrees with ``preset``: its settings over the defaults. What a run is about is no
    preset's business.
    """
    own = preset.settings if preset else {}
    concerned = (
        key
        for key, spec in SPECS.items()
        if spec.level is not Level.JOB and (key in own or spec.kind not in ("text", "lines"))
    )
    return {key: own.get(key, SPECS[key].default) for key in concerned}


def differences(values: dict[str, Any], preset: Preset | None) -> dict[str, tuple[Any, Any]]:
    """Setting -> (the preset's value, the form's value), where they differ. The user's own words (trigger, prompts) are
    no difference.
    """
    return {
        key: (expected, values[key])
        for key, expected in wanted(preset).items()
        if key in values and values[key] != expected
    }


class Form:
    """The fields of the settings, by key, in the order in which they were placed."""

    def __init__(self, start: dict[str, Any]):
        """``start``: what the fields hold at first, over the defaults."""
        self.start = start
        self.fields: dict[str, gr.components.Component] = {}

    @property
    def components(self) -> list[gr.components.Component]:
        return list(self.fields.values())

    def raw(self, values: Sequence[Any]) -> dict[str, Any]:
        """The fields' values, by key."""
        return dict(zip(self.fields, values, strict=True))

    def field(self, key: str, **how: Any) -> gr.components.Component:
        """Places the field of one setting; ``how`` goes to its component."""
        spec = SPECS[key]
        value = shown(spec, self.start.get(key, spec.default))
        label = f"{spec.label} ({spec.unit})" if spec.unit and spec.unit not in spec.label.lower() else spec.label
        common = {"value": value, "label": label, "info": info(key, self.start), "elem_id": f"set-{key}", **how}
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
                made = gr.Textbox(**{"lines": 3, "max_lines": 8, **common})
            case _:
                made = gr.Textbox(**{"max_lines": 1, **common})
        self.fields[key] = made
        return made

    def explain(self) -> None:
        """Keeps what is written below the fields true to what is chosen in them."""
        choices = [key for key in self.fields if any(option.help for option in SPECS[key].options)]
        explained = [*choices, *(key for key in self.fields if key in optimizers.RATES)]

        def infos(*chosen: Any) -> list[Any]:
            values = dict(zip(choices, chosen, strict=True))
            return [gr.update(info=info(key, values)) for key in explained]

        gr.on(
            [self.fields[key].change for key in choices],
            infos,
            [self.fields[key] for key in choices],
            [self.fields[key] for key in explained],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

    def own(self, key: str, component: gr.components.Component) -> gr.components.Component:
        """Takes in a field that a page has made for itself."""
        self.fields[key] = component
        return component

    def basic(self) -> None:
        """Places the fields that are worth a look for every style."""
        with gr.Column(elem_classes="fields"):
            for key, spec in SPECS.items():
                if spec.level is Level.BASIC:
                    self.field(key)

    def folded(self) -> None:
        """Places all other fields, a fold for each group, the experts' ones last in it."""
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

    def filled(self, values: dict[str, Any]) -> list[Any]:
        """Updates, one a field, that put in ``values`` and leave the others."""
        return [gr.update(value=shown(SPECS[key], values[key])) if key in values else gr.skip() for key in self.fields]


def info(key: str, values: Mapping[str, Any]) -> str:
    """What is written below a field's label: the setting's help, and what the chosen value is good for or, for a rate,
    what is usual for the chosen optimizer. ``values``: what fields hold; the defaults for others.
    """
    spec = SPECS[key]
    value, optimizer = (values.get(name, SPECS[name].default) for name in (key, "optimizer"))
    more = next((option.help for option in spec.options if option.name == value), "")
    if key in optimizers.RATES and (row := optimizers.OPTIMIZERS.get(optimizer)):
        usual = optimizers.usual_rates(row.name).get(key)
        more = f"Usual for {row.title}: {usual:g}" if usual else ""
    return f"{spec.help} {more[0].upper()}{more[1:]}." if more else spec.help


def rates(optimizer: str, preset: Preset | None) -> dict[str, float]:
    """The rates that the form takes when ``optimizer`` is chosen: the preset's where they are meant for it, else its
    usual ones.
    """
    own = wanted(preset)
    return {key: own[key] for key in optimizers.RATES} | optimizers.rates_after(own["optimizer"], optimizer)


def _step(spec: Spec) -> float:
    """How far a field's arrows go: a tenth of what it starts at, or of one."""
    return abs(spec.default) / 10 or 0.01


def summary(reading: Reading, preset: Preset | None) -> str:
    """As HTML: what is wrong in the form; or where it differs from the preset, and a learning rate that makes no sense."""
    if reading.wrong:
        lines = "".join(f"<li>{words.text(what)}</li>" for what in reading.wrong.values())
        return f'<div class="notice wrong" role="alert"><b>Before it can start</b><ul>{lines}</ul></div>'
    changed = differences(reading.values, preset)
    warning = optimizers.rate_warning(reading.settings.optimizer) if reading.settings else ""
    return _changes(changed, preset) + (words.notice("warned", warning) if warning else "")


def _changes(changed: dict[str, tuple[Any, Any]], preset: Preset | None) -> str:
    if not changed:
        return ""
    chips = "".join(_chip(key, old, new) for key, (old, new) in changed.items())
    return f'<div class="changes"><span>Changed from {words.text(preset.title if preset else "the defaults")}</span>{chips}</div>'


def _chip(key: str, old: Any, new: Any) -> str:
    label, before, after = (words.text(part) for part in (SPECS[key].label, named(key, old), named(key, new)))
    return f'<span class="chip">{label} <s>{before}</s> {after}</span>'


def named(key: str, value: Any) -> str:
    """A setting's value as the page calls it."""
    spec = SPECS[key]
    return spec.title(value) if spec.kind == "choice" else words.value(value)
