"""The page's icons, drawn for it: lines on a grid of 24 units, in the colour of the text around them."""

from __future__ import annotations

from urllib.parse import quote

ICONS = {
    "pictures": "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01",
    "train": "M4 4v16h16M8 16c4 0 3-8 7-8 2 0 3-1 5-1",
    "draw": "M14 6l4 4M4 20l1-5L16 4a2.1 2.1 0 0 1 3 0l1 1a2.1 2.1 0 0 1 0 3L9 19z",
    "mix": "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
    "library": "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM13 13h7v7h-7z",
    "export": "M12 15V4M8 8l4-4 4 4M5 13v7h14v-7",
    "sweeps": "M5 19V11M12 19V5M19 19v-5M3 21h18",
    "star": "M12 4l2.5 5.2 5.7.8-4.1 4 1 5.7-5.1-2.7-5.1 2.7 1-5.7-4.1-4 5.7-.8z",
    "expand": "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7",
    "close": "M6 6l12 12M18 6L6 18",
    "left": "M15 5l-7 7 7 7",
    "right": "M9 5l7 7-7 7",
    "up": "M12 20V5M6 11l6-6 6 6",
    "later": "M12 4v15M6 13l6 6 6-6",
    "down": "M5 9l7 7 7-7",
    "language": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM3 12h18M12 3c5 5.5 5 12.5 0 18M12 3c-5 5.5-5 12.5 0 18",
    "help": "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
}
"""Name -> the lines, as an SVG path."""
_LOOK = 'fill="none" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round"'


def icon(name: str) -> str:
    """One of ``ICONS`` as HTML. Screen readers skip it: the control that holds it has a name."""
    return (
        f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" {_LOOK} stroke="currentColor">'
        f'<path d="{ICONS[name]}"/></svg>'
    )


def css() -> str:
    """The icons that styles draw in place of gradio's own signs, as custom properties: ``--icon-down``."""
    image = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" {_LOOK} stroke="#000">'
    source = f'{image}<path d="{ICONS["down"]}"/></svg>'
    return f':root {{ --icon-down: url("data:image/svg+xml,{quote(source)}"); }}'
