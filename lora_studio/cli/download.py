"""``download``: a model from the Hugging Face hub. The only command that uses the network."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_studio.cli.options import AsJson, tell

if TYPE_CHECKING:
    from lora_studio.hub import Offer

EVERY = 0.5
"""Seconds between two reports of how much is here."""


def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Its name on the hub: author/model. Or one of the names for caption.",
            show_default=False,
        ),
    ],
    look: Annotated[bool, typer.Option("--look", help="Only show its size and licence.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a base model, or a model that captions or masks pictures, from the Hugging Face hub. Files that were
    downloaded before are kept.
    """
    from lora_studio import hub
    from lora_studio.vision import offers

    offer = offers.look(name)
    licence = offer.licence or "not given"
    print(
        f"{offer.name}: {offer.size / 1e9:.2f} GB in {len(offer.files)} files, licence: {licence}.",
        file=sys.stderr,
        flush=True,
    )
    told = {
        "name": offer.name,
        "revision": offer.revision,
        "licence": offer.licence,
        "bytes": offer.size,
        "files": len(offer.files),
    }
    if look:
        return tell(told, [f"python3 app.py download {name} downloads it."], as_json)
    with _progress(offer) if as_json else nullcontext():
        folder = hub.fetch(offer)
    tell({**told, "folder": folder}, [f"Downloaded to {folder}", _next(offer, folder)], as_json)


@contextmanager
def _progress(offer: Offer) -> Generator[None]:
    """Prints the bytes that are here, as objects on lines of their own, for a program that waits for the result."""
    from lora_studio import hub

    done = threading.Event()

    def report() -> None:
        while not done.wait(EVERY):
            print(json.dumps({"done": min(hub.fetched(offer.name), offer.size), "total": offer.size}), flush=True)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        done.set()
        reporter.join()


def _next(offer: Offer, folder: Path) -> str:
    """What can be done with the model, as a sentence."""
    from lora_studio.vision import local
    from lora_studio.vision.catalogue import Task

    if "model_index.json" in offer.files:
        return f"Train on it with: python3 app.py train --data my-pictures --base {offer.name}"
    if local.find(str(folder)).task is Task.MASKS:
        return "The Pictures page makes masks with it."
    return f"Caption with it: python3 app.py caption my-pictures --with {offer.name}"
