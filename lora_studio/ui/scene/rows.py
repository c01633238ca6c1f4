"""A mix's adapters as HTML: a slider for each weight, and for each block of each adapter."""

from __future__ import annotations

from lora_studio.language import ntr, tr
from lora_studio.ui import folds, tabs, words
from lora_studio.ui.icons import icon
from lora_studio.ui.scene.mixture import HIGH, LOW, Mix, MixRow

_SIDES = {
    "mid_block": tr("Middle"),
    "ends": tr("First and last"),
    "text_encoder": tr("Text encoder"),
    "text_encoder_2": tr("Text encoder 2"),
}
_ABOUT_BLOCKS = tr(
    "Each multiplies the weight in one part of the model. Down and middle carry shapes, the "
    "last ups carry strokes and colour."
)


def block_label(block: str) -> str:
    """
    >>> block_label("down_blocks.0"), block_label("up_blocks.3"), block_label("mid_block")
    ('Down 1', 'Up 4', 'Middle')
    """
    side, _, number = block.partition("_blocks.")
    if not number.isdigit():
        return str(_SIDES.get(block, block))
    which = int(number) + 1
    return tr("Down {number}", number=which) if side == "down" else tr("Up {number}", number=which)


def html(mix: Mix, empty: str) -> str:
    """The rows, or what to do if there are none: the sentence ``empty``."""
    if not mix.rows:
        return f'<p class="hint">{words.text(empty)}</p>'
    return f'<div class="ingredients">{"".join(map(_row, mix.rows))}</div>'


def _row(row: MixRow) -> str:
    name, remove = words.text(row.name), words.text(tr("Remove {name}", name=row.name))
    return (
        f'<div class="ingredient" data-key="{words.text(row.key)}">{row.cover}'
        f'<div class="named"><b title="{name}">{name}</b><p class="facts">{_facts(row)}</p></div>'
        f'<button type="button" class="out" data-act="remove" aria-label="{remove}"'
        f' title="{words.text(tr("Remove"))}">{icon("close")}</button>'
        f"{_slide('weight', tr('Weight of {name}', name=row.name), row.weight)}{_blocks(row)}</div>"
    )


def _facts(row: MixRow) -> str:
    """Rank, trigger word and, for a blend, the button that takes it apart."""
    rank = f"<span>{words.text(tr('rank {rank}', rank=row.rank))}</span>" if row.rank else ""
    put = words.text(tr("Put this word into the prompt"))
    trigger = f'<button type="button" class="chip" data-act="trigger" title="{put}">{words.text(row.trigger)}</button>'
    apart = f'<button type="button" class="quiet" data-act="apart">{words.text(tr("Take apart"))}</button>'
    return rank + trigger * bool(row.trigger) + apart * row.blend


def _blocks(row: MixRow) -> str:
    count = len(row.factors)
    changed = ntr(count, ", {count:,} changed", ", {count:,} changed") if count else ""
    sliders = "".join(_block(row, block) for block in row.blocks)
    title, about = words.text(tr("Blocks")), words.text(_ABOUT_BLOCKS)
    summary = f"<summary>{title}<i>{words.text(changed)}</i></summary>"
    return (
        f'<details class="blocks" data-kind="{words.text(row.key)}">{summary}<p class="hint">{about}</p>'
        f"<div>{sliders}</div>{_list(row)}</details>"
    )


def _list(row: MixRow) -> str:
    """A field for a list of block weights, as A1111 has them."""
    label = words.text(tr("List of the block weights of {name}", name=row.name))
    example = words.text(tr("A1111's list or its name: OUTALL"))
    use, copy = words.text(tr("Use list")), words.text(tr("Copy list"))
    copied = f' value="{words.text(row.listed)}" data-copied' if row.listed else ""
    return (
        f'<div class="listed"><input type="text" class="list" aria-label="{label}" autocomplete="off"'
        f' spellcheck="false" placeholder="{example}"{copied}>'
        f'<button type="button" class="quiet" data-list="use">{use}</button>'
        f'<button type="button" class="quiet" data-list="copy">{copy}</button></div>'
    )


def _block(row: MixRow, block: str) -> str:
    label, factor = words.text(block_label(block)), row.factors.get(block, 1.0)
    return f"<label><span>{label}</span>{_slide('factor', f'{row.name}, {block_label(block)}', factor, block)}</label>"


def _slide(kind: str, title: str, value: float, block: str = "") -> str:
    """A slider with a field beside it. ``title`` is text, not HTML."""
    label, which = words.text(title), f' data-block="{words.text(block)}"' if block else ""
    as_number = words.text(tr("{title}, as a number", title=title))
    return (
        f'<div class="slide"><input type="range" min="{LOW:g}" max="{HIGH:g}" step="0.05" value="{value:g}"'
        f' aria-label="{label}" tabindex="0">'
        f'<input type="text" inputmode="decimal" class="{kind}" value="{value:g}" aria-label="{as_number}"'
        f' size="5" autocomplete="off"{which}></div>'
    )


_CHANGE = """
let timer;
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
  element.querySelectorAll('.list[data-copied]').forEach(field => {
    field.select();
    navigator.clipboard?.writeText(field.value).catch(() => {});
  });
};
element.addEventListener('input', event => {
  if (event.target.type !== 'range') return;
  event.target.nextElementSibling.value = String(Number(event.target.value));
  paint(event.target);
  clearTimeout(timer);
  timer = setTimeout(() => tell('input'), 150);
});
element.addEventListener('change', event => {
  if (!event.target.matches('.weight, .factor')) return;
  const range = event.target.previousElementSibling, typed = Number(event.target.value.replace(',', '.'));
  if (!isNaN(typed)) range.value = typed;
  paint(range);
  tell('input');
  if (!(typed >= range.min && typed <= range.max)) event.target.value = String(Number(range.value));
});
element.addEventListener('keydown', event => {
  if (event.key !== 'Enter' || event.target.type !== 'text') return;
  if (event.target.matches('.list')) event.target.nextElementSibling.click();
  else event.target.blur();
});
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button) tell('click', {act: button.dataset.act, key: button.closest('.ingredient').dataset.key});
  const list = event.target.closest('button[data-list]');
  if (!list) return;
  const row = list.closest('.ingredient');
  tell('input', {list: list.dataset.list, key: row.dataset.key, text: row.querySelector('.list').value});
});
watch('value', () => requestAnimationFrame(ready));
ready();
"""


def change(tab: str) -> str:
    """Script of the rows, for ``gr.HTML(js_on_load=...)``. It reports sliders shortly after their last move, typed
    numbers, pressed buttons, lists to use or to copy, and an adapter that the address names in ``tab``.
    """
    return tabs.TRIGGER_ON_ADDRESS % tab + folds.STAY + _CHANGE
