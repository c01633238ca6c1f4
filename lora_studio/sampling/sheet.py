"""Contact sheets: images in a labelled grid. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from lora_studio.sampling import fonts

INK, FAINT, PAPER = "#1d2024", "#6b7280", "#f6f5f2"
GAP = 12
"""Pixels between images, and around them."""
COLUMNS = 6


def sheet(
    rows: Sequence[Sequence[Image.Image]], *, columns: Sequence[str] = (), names: Sequence[str] = (), title: str = ""
) -> Image.Image:
    """The images of ``rows`` in a grid; every cell takes the size of the largest image.

    Args:
        columns: a label above each column.
        names: a label beside each row; long ones are broken into lines.
        title: above everything.
    """
    cell = max(image.width for row in rows for image in row), max(image.height for row in rows for image in row)
    size = max(13, min(28, cell[0] // 14))
    left = _widest(names, size, cell[0]) + GAP if names else 0
    head, top = (round(2.4 * size) if title else 0), (round(1.7 * size) if columns else 0)
    wide, tall = max(len(row) for row in rows), len(rows)
    page = Image.new("RGB", (left + GAP + wide * (cell[0] + GAP), head + top + GAP + tall * (cell[1] + GAP)), PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        pen.text(
            (GAP, GAP),
            fonts.cut(title, round(1.4 * size), page.width - 2 * GAP),
            INK,
            fonts.font(round(1.4 * size), title),
        )
    for index, label in enumerate(columns):
        pen.text(
            (left + GAP + index * (cell[0] + GAP), head + GAP),
            fonts.cut(label, size, cell[0]),
            FAINT,
            fonts.font(size, label),
        )
    for line, row in enumerate(rows):
        y = head + top + GAP + line * (cell[1] + GAP)
        if names:
            pen.multiline_text(
                (GAP, y),
                _broken(names[line], size, left - GAP, cell[1]),
                INK,
                fonts.font(size, names[line]),
                spacing=size // 4,
            )
        for index, image in enumerate(row):
            page.paste(image.convert("RGB"), (left + GAP + index * (cell[0] + GAP), y))
    return page


def before_after(
    prompts: Sequence[str], before: Sequence[Image.Image], after: Sequence[Image.Image], title: str = ""
) -> Image.Image:
    """Images without the style above those with it, a column for each prompt, ``COLUMNS`` side by side."""
    groups = [slice(start, start + COLUMNS) for start in range(0, len(prompts), COLUMNS)]
    pages = [
        sheet(
            [before[group], after[group]],
            columns=prompts[group],
            names=["before", "after"],
            title="" if group.start else title,
        )
        for group in groups
    ]
    whole = Image.new("RGB", (max(page.width for page in pages), sum(page.height for page in pages)), PAPER)
    for index, page in enumerate(pages):
        whole.paste(page, (0, sum(above.height for above in pages[:index])))
    return whole


def _widest(names: Sequence[str], size: int, limit: int) -> int:
    """Pixels that the longest word or name needs, at most ``limit``."""
    return min(limit, max(round(fonts.width(name, size)) for name in names) + GAP)


def _broken(text: str, size: int, room: int, height: int) -> str:
    """``text`` broken at spaces into lines of ``room`` pixels, as many as fit into ``height``."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fonts.width(longer, size) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    fitting = max(1, int(height // (1.4 * size)))
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], " ".join(lines[fitting - 1 :])]
    return "\n".join(fonts.cut(line, size, room) for line in lines)
