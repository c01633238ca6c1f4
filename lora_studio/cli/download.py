"""``download``: a base model from the Hugging Face hub. The only command that uses the network."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_studio.cli.options import AsJson, tell


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on the hub: author/model.", show_default=False)],
    look: Annotated[bool, typer.Option("--look", help="Only show its size and licence.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a base model from the Hugging Face hub. Files that were downloaded before are kept."""
    from lora_studio.models import hub

    offer = hub.look(name)
    licence = offer.licence or "not given"
    print(
        f"{name}: {offer.size / 1e9:.2f} GB in {len(offer.files)} files, licence: {licence}.",
        file=sys.stderr,
        flush=True,
    )
    told = {
        "name": name,
        "revision": offer.revision,
        "licence": offer.licence,
        "bytes": offer.size,
        "files": len(offer.files),
    }
    if look:
        return tell(told, [f"python3 app.py download {name} downloads it."], as_json)
    folder = hub.fetch(offer)
    tell(
        {**told, "folder": folder},
        [f"Downloaded to {folder}", f"Train on it with: python3 app.py train --data my-pictures --base {name}"],
        as_json,
    )
