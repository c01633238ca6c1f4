"""The table of blend methods in ``docs/adapters.md``, made from their declarations:
``python -m lora_studio.adapters.blend_table``.
"""

from __future__ import annotations

from pathlib import Path

from lora_studio import files
from lora_studio.adapters.blend_methods import METHODS, RANK, BlendParameter, option, parameters, takers

PATH = Path(__file__).resolve().parents[2] / "docs" / "adapters.md"
_BEGIN, _END = "<!-- blend methods: made from their declarations -->\n", "<!-- end of blend methods -->\n"


def markdown() -> str:
    """Both tables: the methods, and the options that go with them."""
    methods = [f"| `{method.key}` | {method.title} | {method.help} |" for method in METHODS.values()]
    return "\n".join(
        [
            "| Method | Name | What it does |",
            "| --- | --- | --- |",
            *methods,
            "",
            "| Option | Methods | Default | What it does |",
            "| --- | --- | --- | --- |",
            *map(_option, parameters().values()),
            "",
        ]
    )


def _option(parameter: BlendParameter) -> str:
    methods = "all" if parameter == RANK else ", ".join(f"`{key}`" for key in takers(parameter))
    what = f"{parameter.help} {parameter.range.capitalize()}."
    return f"| `{option(parameter.key)}` | {methods} | `{parameter.default}` | {what} |"


def inserted(text: str) -> str:
    """``text`` of the document with its tables replaced by those of the declarations."""
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}{markdown()}{_END}{tail}"


if __name__ == "__main__":
    files.write(PATH, inserted(PATH.read_text("utf-8")))
