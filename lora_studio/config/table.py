"""``docs/settings.md``, made from the settings' declarations: ``python -m lora_studio.config.table``."""

from __future__ import annotations

from pathlib import Path

from lora_studio import files
from lora_studio.config.declaration import Group
from lora_studio.config.specs import SPECS, Spec
from lora_studio.optim import registry

PATH = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

_HEAD = """# Settings

Every setting of a training run. The page shows them under the same headings. On the command line, in presets and in a
run's `settings.toml` they go by their key: `python3 app.py train --set key=value`, where a list takes `|` between its
items.

This file is made from the declarations in `lora_studio/config/slices/`: `python -m lora_studio.config.table`.
"""


def markdown() -> str:
    """The whole document."""
    return "\n".join([_HEAD, *(_section(group) for group in Group)])


def _section(group: Group) -> str:
    rows = [_row(spec) for spec in SPECS.values() if spec.group is group]
    return "\n".join(
        [
            f"## {group.value}\n",
            "| Key | Name | Default | Values | What it does |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            *(_usual_rates() if group is Group.OPTIMIZER else []),
        ]
    )


def _usual_rates() -> list[str]:
    """The rates that a change of optimizer brings with it."""
    rows = []
    for spec in registry.OPTIMIZERS.values():
        text = "the same" if spec.text_learning_rate is None else f"`{spec.text_learning_rate:g}`"
        rows.append(f"| {spec.title} | `{spec.learning_rate:g}` | {text} |")
    return [
        "Choosing another optimizer, on the page or with `--set`, also sets its usual rates, unless others are given",
        "or both optimizers have the same update rule. [optimizers.md](optimizers.md) says how to choose one.\n",
        "| Optimizer | Learning rate | Text encoder rate |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _row(spec: Spec) -> str:
    return f"| `{spec.key}` | {spec.label} | {_value(spec, spec.default)} | {values(spec)} | {_help(spec)} |"


def _help(spec: Spec) -> str:
    """What a setting does, and what its choices are good for."""
    choices = "; ".join(option.help for option in spec.options if option.help)
    text = f"{spec.help} {choices}." if choices else spec.help
    return text.replace("|", r"\|")  # Markdown would take it for the cell's end, even within backticks


def values(spec: Spec) -> str:
    """A setting's possible values, for people: its choices, its range and unit, or its kind."""
    if spec.kind == "choice":
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    if spec.kind in ("integer", "number"):
        return f"{spec.low:.10g} … {spec.high:.10g} {spec.unit}".rstrip()
    return {"switch": "on, off", "text": "text", "lines": "list of texts"}[spec.kind]


def _value(spec: Spec, value: object) -> str:
    if spec.kind == "switch":
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value not in ("", []) else "(empty)"


if __name__ == "__main__":
    files.write(PATH, markdown())
