"""``download``: a base model from the Hugging Face hub. The only command that uses the network, and only for what it is
told.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lora_studio.cli.options import AsJson, tell


def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the hub names it: author/model.", show_default=False)],
    look: Annotated[bool, typer.Option("--look", help="Only say how large it is and under which licence.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a base model from the Hugging Face hub. Files that are here already are not fetched again."""
    from lora_studio.models import hub

    offer = hub.look(name)
    licence = offer.licence or "none named"
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
        return tell(told, [f"python3 app.py download {name} fetches it."], as_json)
    folder = hub.fetch(offer)
    tell(
        {**told, "folder": folder},
        [f"It is here: {folder}", f"Train on it with: python3 app.py train --data my-pictures --base {name}"],
        as_json,
    )
