"""``quickstart``: the whole way without a browser: a sample style -> an adapter and a picture of what it changed."""

from __future__ import annotations

import time
from pathlib import Path

from lora_studio import presets, runs, starter
from lora_studio.cli import train, watch
from lora_studio.cli.options import AsJson, Outputs, duration, tell
from lora_studio.errors import MachineError

PRESET = "quick-look"


def quickstart(outputs: Outputs = runs.OUTPUTS, as_json: AsJson = False) -> None:
    """Train a sample style on the built-in starter, and draw before and after."""
    styles = starter.sample_styles() if starter.SAMPLES.is_dir() else []
    if not styles:
        raise MachineError("The sample styles are missing.", where=starter.SAMPLES, do="Fetch the studio anew.")
    style = styles[0]
    run = train.begin(presets.layered(PRESET, [], data=str(style), name=f"quickstart-{style.name}"), outputs)
    seen = watch.work(run)
