"""What a mix is made of: adapters and their weights, and how they stand on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_studio import adapters
from lora_studio.adapters import container, detect, keys, recipe
from lora_studio.adapters.recipe import Blend, Ingredient
from lora_studio.errors import AdapterError, StudioError
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.ui import tabs, words
from lora_studio.ui.pages.library import cards

LOW, HIGH = -2.0, 2.0
"""Weights that the page takes. Beyond twice an adapter's own strength hardly a picture survives; the command line goes
further.
"""
MOST = 8
"""Adapters of a mix."""
_SIDES = {
    "mid_block": "Middle",
    "ends": "First and last",
    "text_encoder": "Text encoder",
    "text_encoder_2": "Text encoder 2",
}


@dataclass
class Row:
    """One adapter of a mix."""

    key: str
    """Its path within the outputs folder."""
    name: str
    path: str
    family: str
    rank: int
    trigger: str
    blocks: tuple[str, ...]
    """Those that it changes."""
    blend: bool
    """Whether it is a blend itself, whose recipe it carries."""
    cover: str
    """Its picture as HTML."""
    weight: float = 1.0
    factors: dict[str, float] = field(default_factory=dict)
    """By block, where it is not 1."""


@dataclass
class Mix:
    """What one browser tab mixes."""

    rows: list[Row] = field(default_factory=list)
    turn: int = 0
    """Counts what was asked for: a picture that an older turn wanted is not shown."""
    lane: str = ""
    """The tab's own lane at the renderer."""
    mixed: str = ""
    plain: str = ""
    """The pictures that are shown, with the adapters and without."""
    scene: str = ""
    """What the plain one is of, as its order's key."""

    @property
    def family(self) -> str:
        return self.rows[0].family if self.rows else ""

    def add(self, entry: Entry, outputs: Path, weight: float = 1.0, factors: Mapping[str, float] | None = None) -> None:
        """Puts an adapter below the others.

        Raises:
            AdapterError: it was made for another kind of model, it is there already, or there are as many as there can
            be.
        """
        name = cards.title(entry)
        if self.rows and entry.family != self.family:
            what = f"{self.rows[0].name} was made for {detect.label(self.family)} and {name} for {detect.label(entry.family)}: they cannot be mixed."
            raise AdapterError(what, do="Mix adapters of one kind of base model, or take the others out first.")
        if len(self.rows) >= MOST:
            raise AdapterError(f"A mix has at most {MOST} adapters.", do="Save these as one, then add that.")
        key = cards.key(entry, outputs)
        if key in (row.key for row in self.rows):
            raise AdapterError(f"{name} is in the mix already.", do="Give it another weight.")
        changed, blend = _inside(entry)
        made = Row(
            key,
            self._free(name),
            entry.path,
            entry.family,
            entry.rank,
            entry.trigger,
            changed,
            blend,
            cards.picture(entry, outputs),
            weight,
            dict(factors or {}),
        )
        self.rows.append(made)

    def _free(self, name: str) -> str:
        """``name``, with a number where another row has it: sheets tell their adapters apart by it."""
        taken, number, free = {row.name for row in self.rows}, 1, name
        while free in taken:
            number += 1
            free = f"{name} ({number})"
        return free

    def kept(self) -> list[dict[str, Any]]:
        """The rows as the browser keeps them."""
        return [{"key": row.key, "weight": row.weight, "blocks": row.factors} for row in self.rows]

    def remove(self, key: str) -> None:
        """Takes an adapter out."""
        self.rows = [row for row in self.rows if row.key != key]

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    def weigh(self, told: Any) -> list[str]:
        """Takes the weights over that the browser tells, as [{"key", "weight", "blocks"}]; gives a sentence for each
        that could not be.
        """
        said = []
        for one in told if isinstance(told, list) else []:
            row = self.row(str(one.get("key"))) if isinstance(one, dict) else None
            if row is None:
                continue
            row.weight, why = bounded(one.get("weight"), row.weight)
            said += [f"{row.name}: {why}"] if why else []
            blocks = one.get("blocks") if isinstance(one.get("blocks"), dict) else {}
            factors = {block: bounded(blocks[block], 1.0)[0] for block in row.blocks if block in blocks}
            row.factors = {block: factor for block, factor in factors.items() if factor != 1}
        return said


def bounded(typed: object, before: float) -> tuple[float, str]:
    """The weight that was typed, kept within its bounds, and why it is another one; empty where it is not.

    >>> bounded("0,75", 1.0), bounded(-0.5, 1.0)
    ((0.75, ''), (-0.5, ''))
    """
    try:
        weight = float(str(typed).strip().replace(",", ".").replace("−", "-"))
    except ValueError:
        weight = math.nan
    if math.isnan(weight):
        return before, f"“{str(typed)[:20]}” is no number, so its weight stays {before:g}."
    if not LOW <= weight <= HIGH:
        kept = LOW if weight < LOW else HIGH
        return kept, f"{weight:g} is too much. Weights go from −2 to 2, and 1 is as trained; it is {kept:g} now."
    return round(weight, 4), ""


def _inside(entry: Entry) -> tuple[tuple[str, ...], bool]:
    """The blocks that an adapter changes, and whether it is a blend; from its header alone."""
    try:
        table, texts, _ = container.peek(Path(entry.path))
    except StudioError as error:
        raise AdapterError(f"{cards.title(entry)} cannot be read any more.", where=entry.path, do=error.do) from error
    found, _ = keys.collect(table)
    return tuple(sorted({keys.block_of(path) for path in found}, key=_place)), isinstance(recipe.read(texts), Blend)


def _place(block: str) -> tuple[int, str]:
    """From the model's beginning to its end."""
    return next(
        (order for order, start in enumerate(("text", "down", "mid", "up", "ends")) if block.startswith(start)), 9
    ), block


def block_label(block: str) -> str:
    """
    >>> block_label("down_blocks.0"), block_label("up_blocks.3"), block_label("mid_block")
    ('Down 1', 'Up 4', 'Middle')
    """
    side, _, number = block.partition("_blocks.")
    return f"{side.capitalize()} {int(number) + 1}" if number.isdigit() else _SIDES.get(block, block)


def apart(mix: Mix, key: str, outputs: Path) -> Blend:
    """Puts the adapters that a blend was made of in its place, each with its weight in it.

    Returns:
        The blend's recipe.

    Raises:
        AdapterError: it is none, or an adapter of it is not in the library; the mix stays as it is.
    """
    row = mix.row(key)
    found = recipe.read(adapters.header(Path(row.path)).metadata) if row else None
    if row is None or not isinstance(found, Blend):
        raise AdapterError("It is no blend of the studio.", do="Only a blend's own file can be taken apart.")
    entries = [entry for entry in library.entries(outputs) if entry.path != row.path]
    parts = [(one, _match(one, entries)) for one in found.ingredients]
    if missing := [one.name for one, entry in parts if entry is None]:
        raise AdapterError(
            f"{row.name} was made of {', '.join(missing)}, which the library does not hold.",
            do="Add them to the library first.",
        )
    changed = Mix([other for other in mix.rows if other.key != key])
    for index, (one, entry) in enumerate(parts):
        sign = -1 if found.method == "subtract" and index else 1
        changed.add(entry, outputs, bounded(sign * one.weight * row.weight, 1.0)[0], one.blocks)
    mix.rows = changed.rows
    return found


def _match(one: Ingredient, entries: list[Entry]) -> Entry | None:
    """The library's adapter with an ingredient's hash, or of its name where the recipe has none; those of its name are
    looked at first.
    """
    for entry in sorted(entries, key=lambda entry: Path(entry.path).stem != one.name):
        if not one.sha256:
            return entry if Path(entry.path).stem == one.name else None
        try:
            if adapters.header(Path(entry.path)).metadata.get("sshs_model_hash") == one.sha256:
                return entry
        except StudioError:
            continue
    return None


def html(mix: Mix) -> str:
    """The rows, or what to do where there is none."""
    if not mix.rows:
        return '<p class="hint">No adapter yet. Choose the first one above; a second one makes it a mix.</p>'
    return f'<div class="ingredients">{"".join(map(_row, mix.rows))}</div>'


def _row(row: Row) -> str:
    name = words.text(row.name)
    trigger = (
        f'<button type="button" class="chip" data-act="trigger" title="Put this word into the prompt">{words.text(row.trigger)}</button>'
        if row.trigger
        else ""
    )
    apart = '<button type="button" class="quiet" data-act="apart">Take apart</button>' if row.blend else ""
    rank = f"<span>rank {row.rank}</span>" if row.rank else ""
    sliders = "".join(_block(row, block) for block in row.blocks)
    changed = f", {words.counted(len(row.factors), 'changed', 'changed')}" if row.factors else ""
    return (
        f'<div class="ingredient" data-key="{words.text(row.key)}">{row.cover}<div class="named"><b title="{name}">{name}</b><p class="facts">{rank}{trigger}{apart}</p></div>'
        f'<button type="button" class="out" data-act="remove" aria-label="Take {name} out" title="Take it out">×</button>'
        f"{_slide('weight', f'Weight of {name}', row.weight)}"
        f'<details class="blocks"><summary>Blocks<i>{changed}</i></summary><p class="hint">Each multiplies the weight in one part of the model. '
        f"Down and middle carry shapes, the last ups carry strokes and colour.</p><div>{sliders}</div></details></div>"
    )


def _block(row: Row, block: str) -> str:
    label, factor = words.text(block_label(block)), row.factors.get(block, 1.0)
    return f"<label><span>{label}</span>{_slide('factor', f'{row.name}, {block_label(block)}', factor, block)}</label>"


def _slide(kind: str, title: str, value: float, block: str = "") -> str:
    label, which = words.text(title), f' data-block="{words.text(block)}"' if block else ""
    return (
        f'<div class="slide"><input type="range" min="{LOW:g}" max="{HIGH:g}" step="0.05" value="{value:g}" aria-label="{label}" tabindex="0">'
        f'<input type="text" inputmode="decimal" class="{kind}" value="{value:g}" aria-label="{label}, as a number" size="5" autocomplete="off"{which}></div>'
    )


CHANGE = (
    tabs.ASKED % "mix"
    + """
let timer;
const open = new Set();
const rows = () => [...element.querySelectorAll('.ingredient')].map(row => ({
  key: row.dataset.key,
  weight: row.querySelector('.weight').value,
  blocks: Object.fromEntries([...row.querySelectorAll('.factor')].map(field => [field.dataset.block, field.value])),
}));
const tell = (event, more) => { clearTimeout(timer); trigger(event, {rows: rows(), ...more}); };
const paint = range => {
  const at = 100 * (range.value - range.min) / (range.max - range.min);
  range.style.setProperty('--low', `${Math.min(50, at)}%`);
  range.style.setProperty('--high', `${Math.max(50, at)}%`);
};
const ready = () => {
  element.querySelectorAll('input[type=range]').forEach(paint);
  element.querySelectorAll('.ingredient').forEach(row => { row.querySelector('details').open = open.has(row.dataset.key); });
};
element.addEventListener('input', event => {
  if (event.target.type !== 'range') return;
  event.target.nextElementSibling.value = String(Number(event.target.value));
  paint(event.target);
  clearTimeout(timer);
  timer = setTimeout(() => tell('input'), 150);
});
element.addEventListener('change', event => {
  if (event.target.type !== 'text') return;
  const range = event.target.previousElementSibling, typed = Number(event.target.value.replace(',', '.'));
  if (!isNaN(typed)) range.value = typed;
  paint(range);
  tell('input');
  if (!(typed >= range.min && typed <= range.max)) event.target.value = String(Number(range.value));
});
element.addEventListener('keydown', event => { if (event.key === 'Enter' && event.target.type === 'text') event.target.blur(); });
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) tell('click', {act: button.dataset.act, key: button.closest('.ingredient').dataset.key});
});
element.addEventListener('toggle', event => {
  const key = event.target.closest('.ingredient')?.dataset.key;
  if (key) open[event.target.open ? 'add' : 'delete'](key);
}, true);
watch('value', () => requestAnimationFrame(ready));
ready();
"""
)
"""Tells of moved sliders a moment after the last move, of typed numbers, of buttons, and of an adapter that the address
names; for ``gr.HTML(js_on_load=...)``.
"""
