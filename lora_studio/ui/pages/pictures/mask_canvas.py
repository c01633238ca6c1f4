"""The picture with a canvas on it, on which is painted what is not learned: by mouse, pen, touch and keyboard."""

from __future__ import annotations

from lora_studio.curation.collection import Card
from lora_studio.curation.masks import CORNERS
from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.pages.pictures.drawn_masks import COLOUR, canvas_size

_KEYS = tr("Mask. Arrow keys move the brush, the space bar puts it down and lifts it, square brackets change its size.")
_CORNERS = {
    "top-left": tr("Top left"),
    "top-right": tr("Top right"),
    "bottom-left": tr("Bottom left"),
    "bottom-right": tr("Bottom right"),
}
_BRUSHES = {"hide": tr("Do not learn"), "learn": tr("Learn")}


def html(card: Card, image: str, mask: str, selected: int, total: int, resets: int = 0) -> str:
    """The picture at the address ``image`` under its ``mask``, the brushes, and the box for a corner.

    Args:
        selected: how many pictures are selected.
        total: how many there are.
        resets: with another number, the browser shows the saved mask again.
    """
    width, height = card.picture.width, card.picture.height
    across, down = canvas_size(width, height)
    data = f'data-name="{words.text(card.name)}" data-mask="{words.text(mask)}" data-resets="{resets}"'
    brushes = "".join(
        f'<button type="button" class="filter" data-brush="{key}" aria-pressed="{str(key == "hide").lower()}">'
        f"{words.text(title)}</button>"
        for key, title in _BRUSHES.items()
    )
    keys, brush, size = words.text(_KEYS), words.text(tr("Brush")), words.text(tr("Size"))
    return (
        f'<div class="masker" {data}>'
        f'<div class="stage" style="aspect-ratio: {width} / {height}; --shape: {width / height:.4f}">'
        f'<img src="{words.text(image)}" alt="" draggable="false">'
        f'<canvas width="{across}" height="{down}" tabindex="0" role="application" aria-label="{keys}"></canvas>'
        '<i class="corner-box"></i><i class="brush-point"></i></div>'
        f'<div class="brushes"><div class="chips" role="group" aria-label="{brush}">{brushes}</div>'
        f'<label>{size} <input type="range" class="brush-size" min="1" max="30" value="6"></label></div>'
        f"{_corner(selected, total)}</div>"
    )


def _corner(selected: int, total: int) -> str:
    """The box that hides the same corner of many pictures."""
    corners = "".join(
        f'<button type="button" class="filter" data-corner="{where}" aria-pressed="false">'
        f"{words.text(_CORNERS[where])}</button>"
        for where in CORNERS
    )
    sides = "".join(
        f'<label>{words.text(title)} <input type="range" class="corner-{key}" min="2" max="60" value="{value}"></label>'
        for key, title, value in (("width", tr("Width"), 30), ("height", tr("Height"), 12))
    )
    scopes = [("one", tr("Hide it here"))]
    scopes += [("selected", tr("In the {count:,} selected", count=selected))] if selected > 1 else []
    scopes += [("all", tr("In all {count:,} pictures", count=total))] if total > 1 else []
    ways = "".join(
        f'<button type="button" class="way" data-apply="{key}" disabled>{words.text(title)}</button>'
        for key, title in scopes
    )
    summary, corner = tr("Mask a corner, such as a signature or a watermark"), words.text(tr("Corner"))
    return (
        f'<details class="corner"><summary>{words.text(summary)}</summary>'
        f'<div class="chips" role="group" aria-label="{corner}">{corners}</div><div class="sides">{sides}</div>'
        f'<p class="ways">{ways}</p></details>'
    )


PAINT = (
    f"const COLOUR = 'rgb({', '.join(map(str, COLOUR))})';"
    + """
const find = which => element.querySelector(which), box = () => find('.masker'), canvas = () => find('canvas');
let brush = 'hide', corner = '', open = false, unsent = null, timer, down = false;
let last = null, at = null;  // where the brush was in this stroke, and where it is
let awaited = null, strokes = [], finished = false;  // the mask that loads, what is painted meanwhile, and if it ended
const pen = () => canvas().getContext('2d', {willReadFrequently: true});
const thick = () => Number(find('.brush-size').value) / 100 * Math.max(canvas().width, canvas().height);
const load = () => {
  const address = box().dataset.mask, into = canvas();
  awaited = null;
  strokes = [];
  finished = false;
  if (!address) { pen().clearRect(0, 0, into.width, into.height); return; }
  const image = awaited = new Image();
  const painted = () => {
    if (awaited !== image) return;
    awaited = null;
    for (const one of strokes) stroke(...one);
    if (finished) keep();
  };
  image.onload = () => {
    if (awaited !== image) return;
    pen().clearRect(0, 0, into.width, into.height);
    pen().globalCompositeOperation = 'source-over';
    pen().drawImage(image, 0, 0, into.width, into.height);
    painted();
  };
  image.onerror = painted;
  image.src = address;
};
const place = event => {
  const edge = canvas().getBoundingClientRect();
  return [(event.clientX - edge.left) / edge.width, (event.clientY - edge.top) / edge.height];
};
const stroke = (from, to, how = brush, lineWidth = thick()) => {
  const context = pen(), {width, height} = canvas();
  if (awaited) strokes.push([from, to, how, lineWidth]);
  context.globalCompositeOperation = how === 'hide' ? 'source-over' : 'destination-out';
  Object.assign(context, {strokeStyle: COLOUR, lineWidth, lineCap: 'round', lineJoin: 'round'});
  context.beginPath();
  context.moveTo(from[0] * width, from[1] * height);
  context.lineTo(to[0] * width + 0.01, to[1] * height);
  context.stroke();
};
const drawn = () => {
  const {width, height} = canvas(), from = pen().getImageData(0, 0, width, height), to = new ImageData(width, height);
  for (let i = 0; i < from.data.length; i += 4) {
    to.data[i] = to.data[i + 1] = to.data[i + 2] = 255 - from.data[i + 3];
    to.data[i + 3] = 255;
  }
  const copy = Object.assign(document.createElement('canvas'), {width, height});
  copy.getContext('2d').putImageData(to, 0, 0);
  return copy.toDataURL('image/png');
};
const tell = () => {
  clearTimeout(timer);
  if (unsent) trigger('input', unsent);
  unsent = null;
};
const keep = () => {
  unsent = {name: box().dataset.name, mask: drawn()};
  clearTimeout(timer);
  timer = setTimeout(tell, 800);
};
const lifted = () => {
  if (!last) return;
  last = null;
  if (awaited) finished = true;  // the mask that it lies on is still on its way
  else keep();
};
const point = () => {
  const dot = find('.brush-point'), edge = canvas().getBoundingClientRect();
  dot.style.display = at ? 'block' : 'none';
  if (!at) return;
  const side = thick() / canvas().width * edge.width;
  Object.assign(dot.style, {left: at[0] * 100 + '%', top: at[1] * 100 + '%', width: side + 'px', height: side + 'px'});
};
const frame = () => {
  const shown = find('.corner-box');
  shown.style.display = open && corner ? 'block' : 'none';
  shown.style.width = find('.corner-width').value + '%';
  shown.style.height = find('.corner-height').value + '%';
  for (const side of ['top', 'bottom', 'left', 'right']) shown.style[side] = corner.includes(side) ? '0' : 'auto';
};
const controls = () => {
  const press = (which, key, value) => element.querySelectorAll(which).forEach(button => {
    button.setAttribute('aria-pressed', String(button.dataset[key] === value));
  });
  press('[data-brush]', 'brush', brush);
  press('[data-corner]', 'corner', corner);
  element.querySelectorAll('[data-apply]').forEach(button => { button.disabled = !corner; });
  if (find('.corner').open !== open) find('.corner').open = open;
  frame();
};
element.addEventListener('pointerdown', event => {
  if (event.target !== canvas() || event.button) return;
  last = at = place(event);
  canvas().setPointerCapture(event.pointerId);
  canvas().focus({preventScroll: true});
  event.preventDefault();
  stroke(last, last);
  point();
});
element.addEventListener('pointermove', event => {
  if (event.target !== canvas()) return;
  at = place(event);
  for (const one of last && event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
    if (!last) break;
    const next = place(one);
    stroke(last, next);
    last = next;
  }
  point();
});
element.addEventListener('pointerup', lifted);
element.addEventListener('pointercancel', lifted);
element.addEventListener('pointerout', event => {
  if (event.target === canvas() && !last && document.activeElement !== canvas()) { at = null; point(); }
});
element.addEventListener('keydown', event => {
  if (event.target !== canvas() || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 0.005 : 0.02, size = find('.brush-size');
  const moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]};
  if (moves[event.key]) {
    const next = (at || [0.5, 0.5]).map((share, axis) => Math.min(1, Math.max(0, share + moves[event.key][axis])));
    if (down) { stroke(last, next); last = next; }
    at = next;
  } else if (event.key === ' ') {
    at ||= [0.5, 0.5];
    down = !down;
    if (down) { last = at; stroke(at, at); } else lifted();
  } else if (event.key === '[' || event.key === ']') {
    size.value = Number(size.value) + (event.key === ']' ? 1 : -1);
  } else return;
  event.preventDefault();
  event.stopPropagation();
  point();
});
element.addEventListener('focusin', event => {
  if (event.target === canvas() && !last) { at = [0.5, 0.5]; point(); }
});
element.addEventListener('focusout', event => {
  if (event.target === canvas() && down) { down = false; lifted(); }
});
element.addEventListener('input', () => { point(); frame(); });
element.addEventListener('toggle', event => { open = event.target.open; frame(); }, true);
element.addEventListener('click', event => {
  const {brush: chosen, corner: where, apply} = event.target.closest('button')?.dataset || {};
  if (chosen) brush = chosen;
  if (where) corner = where;
  if (chosen || where) controls();
  if (!apply) return;
  const size = {width: Number(find('.corner-width').value), height: Number(find('.corner-height').value)};
  tell();
  trigger('submit', {name: box().dataset.name, corner, scope: apply, ...size});
  corner = '';
  controls();
});
const show = () => {
  if (unsent && unsent.name !== box()?.dataset.name) tell();
  if (!box()) return;
  controls();
  if (!unsent && !last) load();
};
watch('value', show);
show();
"""
)
"""Paints, and reports the whole mask shortly after the last stroke; for ``gr.HTML(js_on_load=...)``."""
