"""``docs/settings.md``, made from the settings' declarations: ``python -m lora_studio.config.table``."""

from __future__ import annotations

from pathlib import Path

from lora_studio import files
from lora_studio.config.settings import SPECS, Group, Spec

PATH = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

_HEAD = """# Settings

Every setting of a training run. The page shows them under the same headings, `python3 app.py train --set key=value` takes
them by their key, and so do presets and a run's `settings.toml`. On the command line a list takes `|` between its items.

This file is made from the declarations in `lora_studio/config/settings.py`: `python -m lora_studio.config.table`.
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
        ]
    )


def _row(spec: Spec) -> str:
    return f"| `{spec.key}` | {spec.label} | {_value(spec, spec.default)} | {values(spec)} | {_help(spec)} |"


def _help(spec: Spec) -> str:
    """What a setting does, and what its choices are good for."""
    choices = "; ".join(option.help for option in spec.options if option.help)
    return f"{spec.help} {choices}." if choices else spec.help


def values(spec: Spec) -> str:
    """What a setting takes, for people: its choices, its range and unit, or its kind."""
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
