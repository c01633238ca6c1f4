"""The heading of the run's card: the run's name, and the button that opens all runs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.theme import html


def place() -> dict[str, Any]:
    """Its two parts, by their names among those of the Train page."""
    with gr.Row(elem_classes="headline"):
        return {
            "runs": html(elem_id="run-shown"),
            "all_runs": gr.Button(tr("All runs"), size="md", min_width=110, elem_id="open-runs"),
        }


def parts(name: str, count: int) -> dict[str, dict[str, Any]]:
    """What they show for the run ``name`` of ``count``."""
    return {
        "runs": {"value": f"<h2>{words.text(name)}</h2>" if name else "", "visible": True},
        "all_runs": {"value": tr("All runs ({number:,})", number=count), "visible": bool(count)},
    }
