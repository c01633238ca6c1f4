"""``add``: imports adapters into the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lora_studio.cli import adapters as shared
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.errors import StudioError
from lora_studio.runs import OUTPUTS


def add(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Adapters: .safetensors files, or folders that peft wrote.", show_default=False
        ),
    ],
    outputs: Outputs = OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Copy adapters into the library, after checking every tensor of them."""
    from lora_studio.runs import library

    added, refused, mistakes = [], [], []
    for file in files:
        try:
            added.append(str(library.add(shared.existing(file), outputs.resolve())))
        except StudioError as error:
            mistakes.append(error)
            refused.append({"file": file.name, "what": error.what, "do": error.do})
    if not added:
        mistakes[0].details["refused"] = refused
        raise mistakes[0]
    tell(
        {"added": added, "refused": refused},
        [*(f"In the library: {path}" for path in added), *(f"Left out: {one}" for one in mistakes)],
        as_json,
    )
