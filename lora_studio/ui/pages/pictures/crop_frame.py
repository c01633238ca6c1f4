"""The frame on the large picture that says which part is trained on: moved and scaled by mouse, touch and keyboard."""

from __future__ import annotations

import math
from typing import Any

from lora_studio.curation.collection import Card
from lora_studio.dataset.preparation import MIN_CROP, Crop
from lora_studio.language import tr
from lora_studio.ui import words

_HANDLES = {
    "nw": tr("top left corner"),
    "n": tr("top edge"),
    "ne": tr("top right corner"),
    "e": tr("right edge"),
    "se": tr("bottom right corner"),
    "s": tr("bottom edge"),
    "sw": tr("bottom left corner"),
    "w": tr("left edge"),
}
_KEYS = tr("Crop. Arrow keys move it, with Shift by a pixel; + and − scale it.")


def html(card: Card, image: str, resets: int = 0) -> str:
    """The picture at the address ``image`` with the frame around the part that is trained on. With another number of
    ``resets`` the browser puts the frame back there.
    """
    width, height = card.picture.width, card.picture.height
    left, top, right, bottom = card.box
    shares = " ".join(f"{share:.6f}" for share in (left / width, top / height, right / width, bottom / height))
    data = {
        "name": card.name,
        "resets": resets,
        "size": f"{width} {height}",
        "crop": shares,
        "shape": f"{card.bucket.width / card.bucket.height:.6f}",
    }
    told = "".join(f' data-{key}="{words.text(value)}"' for key, value in data.items())
    handles = "".join(f'<b data-side="{side}" title="{words.text(title)}"></b>' for side, title in _HANDLES.items())
    keep = words.text(tr("Keep the shape {shape}", shape=shape(card)))
    return (
        f'<div class="cropper"{told}>'
        f'<div class="stage" style="aspect-ratio: {width} / {height}; --shape: {width / height:.4f}">'
        f'<img src="{words.text(image)}" alt="" draggable="false">'
        f'<div class="frame-shade"><div class="crop-frame" tabindex="0" role="group" aria-label="{words.text(_KEYS)}">'
        f"{handles}</div></div></div>"
        '<label class="keep-shape"><input type="checkbox" class="keep">'
        f"<span>{keep}</span></label></div>"
    )


def shape(card: Card) -> str:
    """The shape of a card's bucket in small numbers.

    >>> from types import SimpleNamespace as S
    >>> shape(S(bucket=S(width=512, height=768))), shape(S(bucket=S(width=512, height=512)))
    ('2:3', '1:1')
    """
    divisor = math.gcd(card.bucket.width, card.bucket.height)
    return f"{card.bucket.width // divisor}:{card.bucket.height // divisor}"


def reported(value: Any) -> Crop | None:
    """The crop that the browser reports; None if that is none.

    >>> reported([0.1, -0.2, 0.9, 1.5])
    Crop(left=0.1, top=0.0, right=0.9, bottom=1.0)
    >>> reported(["x"]), reported(None)
    (None, None)
    """
    try:
        left, top, right, bottom = (min(1.0, max(0.0, float(share))) for share in value)
    except (TypeError, ValueError):
        return None
    return Crop(left, top, right, bottom)


DRAG = (
    f"const LEAST = {MIN_CROP};"
    + """
const box = () => element.querySelector('.cropper'), frame = () => element.querySelector('.crop-frame');
const numbers = text => text.split(' ').map(Number);
let at = [0, 0, 1, 1], timer, grip = null;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const paint = () => {
  const [left, top, right, bottom] = at.map(share => share * 100 + '%');
  Object.assign(frame().style, {left, top, right: `calc(100% - ${right})`, bottom: `calc(100% - ${bottom})`});
};
const least = () => numbers(box().dataset.size).map(side => Math.min(1, Math.max(LEAST / side, 0.02)));
const kept = () => element.querySelector('.keep').checked;
// The share of the width that goes with one share of the height, where the shape is kept.
const ratio = () => { const [w, h] = numbers(box().dataset.size); return Number(box().dataset.shape) * h / w; };
const moved = (from, x, y) => {
  x = clamp(x, -from[0], 1 - from[2]); y = clamp(y, -from[1], 1 - from[3]);
  return [from[0] + x, from[1] + y, from[2] + x, from[3] + y];
};
const pulled = (from, side, x, y) => {
  let [left, top, right, bottom] = from;
  const [w, h] = least();
  if (side.includes('w')) left = clamp(left + x, 0, right - w);
  if (side.includes('e')) right = clamp(right + x, left + w, 1);
  if (side.includes('n')) top = clamp(top + y, 0, bottom - h);
  if (side.includes('s')) bottom = clamp(bottom + y, top + h, 1);
  return kept() ? shaped([left, top, right, bottom], side) : [left, top, right, bottom];
};
// Keeps the shape: the side that was pulled says how large, the opposite corner or edge's middle stays.
const shaped = ([left, top, right, bottom], side) => {
  const part = ratio();
  let wide = right - left, high = bottom - top;
  if (side === 'n' || side === 's') wide = high * part;
  else if (side === 'e' || side === 'w' || wide / part > high) high = wide / part;
  else wide = high * part;
  const x = side.includes('w') ? right : side.includes('e') ? left : (left + right) / 2;
  const y = side.includes('n') ? bottom : side.includes('s') ? top : (top + bottom) / 2;
  const across = side.includes('w') ? x : side.includes('e') ? 1 - x : 2 * Math.min(x, 1 - x);
  const down = side.includes('n') ? y : side.includes('s') ? 1 - y : 2 * Math.min(y, 1 - y);
  const fits = Math.min(1, across / wide, down / high);
  wide *= fits; high *= fits;
  left = side.includes('w') ? x - wide : side.includes('e') ? x : x - wide / 2;
  top = side.includes('n') ? y - high : side.includes('s') ? y : y - high / 2;
  return [left, top, left + wide, top + high];
};
const scaled = by => {
  const [left, top, right, bottom] = at, [w, h] = least();
  let wide = (right - left) * by, high = (bottom - top) * by;
  const fits = Math.min(1 / Math.max(wide, high, 1), 1), grows = Math.max(w / wide, h / high, 1);
  wide *= fits * grows; high *= fits * grows;
  const x = clamp((left + right) / 2, wide / 2, 1 - wide / 2), y = clamp((top + bottom) / 2, high / 2, 1 - high / 2);
  return [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2];
};
let unsent = null;
const tell = () => {
  clearTimeout(timer);
  if (unsent) trigger('input', unsent);
  unsent = null;
};
const changed = (next, wait) => {
  at = next;
  paint();
  unsent = {name: box().dataset.name, crop: at};
  clearTimeout(timer);
  timer = setTimeout(tell, wait);
};
element.addEventListener('pointerdown', event => {
  const target = event.target.closest('.crop-frame');
  if (!target || event.button) return;
  const stage = target.parentElement.getBoundingClientRect();
  grip = {side: event.target.dataset.side || '', from: at, x: event.clientX, y: event.clientY, stage};
  target.setPointerCapture(event.pointerId);
  target.focus({preventScroll: true});
  event.preventDefault();
});
element.addEventListener('pointermove', event => {
  if (!grip) return;
  const x = (event.clientX - grip.x) / grip.stage.width, y = (event.clientY - grip.y) / grip.stage.height;
  at = grip.side ? pulled(grip.from, grip.side, x, y) : moved(grip.from, x, y);
  paint();
});
element.addEventListener('pointerup', () => {
  if (!grip) return;
  const same = grip.from.every((share, index) => share === at[index]);
  grip = null;
  if (!same) { changed(at, 0); }
});
element.addEventListener('pointercancel', () => { if (grip) { at = grip.from; grip = null; paint(); } });
element.addEventListener('keydown', event => {
  if (!event.target.closest('.crop-frame') || event.ctrlKey || event.metaKey || event.altKey) return;
  const [w, h] = numbers(box().dataset.size), x = event.shiftKey ? 1 / w : 0.01, y = event.shiftKey ? 1 / h : 0.01;
  const next = {
    ArrowLeft: () => moved(at, -x, 0), ArrowRight: () => moved(at, x, 0),
    ArrowUp: () => moved(at, 0, -y), ArrowDown: () => moved(at, 0, y),
    '+': () => scaled(1.04), '=': () => scaled(1.04), '-': () => scaled(1 / 1.04), '−': () => scaled(1 / 1.04),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  event.stopPropagation();
  changed(next(), 500);
});
element.addEventListener('focusout', tell);
const show = () => {
  if (unsent && unsent.name !== box()?.dataset.name) tell();
  if (!box() || grip || unsent) return;
  at = numbers(box().dataset.crop);
  paint();
};
watch('value', show);
show();
"""
)
"""Moves and scales the frame, and reports where it was released; for ``gr.HTML(js_on_load=...)``."""
