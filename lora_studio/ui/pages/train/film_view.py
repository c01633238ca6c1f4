"""How the browser draws the film from ``previews.data``: it changes only what differs, so that frames keep their
pictures, the focus and the place to which the film was scrolled, and a tick sends names of pictures alone.
"""

from __future__ import annotations

import json

from lora_studio.language import tr
from lora_studio.ui import words


def template() -> str:
    """For ``gr.HTML(html_template=...)``."""
    label = words.text(tr("Previews. The arrow keys move between them."))
    return f'<div class="film" role="group" aria-label="{label}"></div><p class="hint signs"></p>'


def draw() -> str:
    """Draws the film and reports which frame was pressed: as a ``select`` where it was the chosen one already. For
    ``gr.HTML(js_on_load=...)``.
    """
    return f"const TEXTS = {json.dumps(_texts(), ensure_ascii=False)};{_DRAW}"


def _texts() -> dict[str, str]:
    """What the drawing says, by the names that it has there. Its fields are filled in by the browser."""
    return {
        "baseModel": str(tr("Base model")),
        "ofBase": str(tr("{prompt}, base model")),
        "ofStep": str(tr("{prompt}, step {step}")),
        "step": str(tr("step {step}")),
        "recommended": str(tr("recommended")),
        "lowest": str(tr("lowest validation")),
        "style": str(tr("Style")),
        "subjects": str(tr("Subjects")),
        "hold": str(tr("hold")),
    }


_DRAW = """
const film = element.querySelector('.film');
let atEnd = true, shown;

const put = (parent, tag, key, at, kind = '') => {
  let one = [...parent.children].find(child => child.dataset.key === key);
  if (one?.localName !== tag) { one?.remove(); one = document.createElement(tag); one.dataset.key = key; }
  if (parent.children[at] !== one) parent.insertBefore(one, parent.children[at] || null);
  if (one.className !== kind) one.className = kind;
  return one;
};
const keep = (parent, keys) => {
  for (const child of [...parent.children]) if (!keys.includes(child.dataset.key)) child.remove();
};
const set = (one, name, value) => {
  if (value === null) one.removeAttribute(name);
  else if (one.getAttribute(name) !== String(value)) one.setAttribute(name, value);
};
const say = (one, text, title = text) => {
  if (one.textContent !== text) one.textContent = text;
  set(one, 'title', title || null);
};
const number = step => step.toLocaleString(document.documentElement.lang || 'en');
const told = (text, parts) => text.replace(/{(\\w+)}/g, (field, name) => parts[name] ?? field);

const frame = (row, at, key, kind, name, step, prompt, data) => {
  const tag = name ? 'button' : 'span', chosen = step !== null && step === data.step && prompt === data.prompt;
  const one = put(row, tag, key, at, `frame${kind}${name ? '' : ' missing'}${chosen ? ' chosen' : ''}`);
  if (!name) return;
  const [, , text] = data.prompts.find(([index]) => index === prompt);
  const title = step === null ? told(TEXTS.ofBase, {prompt: text})
    : told(TEXTS.ofStep, {prompt: text, step: number(step)});
  one.type = 'button';
  for (const [name, value] of Object.entries({'data-step': step ?? 'base', 'data-prompt': prompt, title}))
    set(one, name, value);
  set(one, 'aria-label', title);
  set(one, 'aria-pressed', chosen);
  const image = put(one, 'img', 'img', 0);
  set(image, 'src', `${data.root}${name.slice(0, 2)}/${name}.webp`);
  image.loading = 'lazy';
  image.alt = '';
};
const line = (key, at, kind, name, columns, cell, full = name) => {
  const row = put(film, 'div', key, at, kind);
  keep(row, ['name', 'base', ...columns.map(([step]) => String(step))]);
  say(put(row, 'span', 'name', 0, 'name'), name, full);
  cell(row, 1, 'base', null);
  columns.forEach((column, i) => cell(row, i + 2, String(column[0]), column, i));
  return row;
};
const marks = (step, data) =>
  (step === data.proposed ? ' proposed' : '') + (step === data.lowest ? ' lowest-one' : '')
    + (step === data.step ? ' of-chosen' : '');
const heading = (step, data) => [
  number(step) + (step === data.proposed ? ' ★' : '') + (step === data.lowest ? ' ○' : ''),
  [told(TEXTS.step, {step: number(step)}), step === data.proposed && TEXTS.recommended,
    step === data.lowest && TEXTS.lowest].filter(Boolean).join(', '),
];

const draw = data => {
  if (!data?.prompts) return;
  const columns = [...data.columns, ...data.coming.map(step => [step, null])];
  const measures = data.judged ? ['style', 'subjects'] : [];
  const keys = ['head', ...data.prompts.map(([index]) => `row ${index}`), ...measures];
  film.style.setProperty('--frames', data.frames);
  keep(film, keys);
  line('head', 0, 'row steps', '', columns, (row, at, key, column) => {
    const come = column && !column[1];
    const one = put(row, 'span', key, at, column ? `step${marks(column[0], data)}${come ? ' coming' : ''}` : 'base');
    say(one, ...(column ? heading(column[0], data) : [TEXTS.baseModel]));
  });
  data.prompts.forEach(([index, name, text], i) => {
    line(`row ${index}`, i + 1, 'row', name, columns, (row, at, key, column) => {
      if (column && !column[1]) put(row, 'span', key, at, 'frame coming');
      else frame(row, at, key, column ? marks(column[0], data) : ' base', (column ? column[1] : data.base)[i],
        column ? column[0] : null, index, data);
    }, text);
  });
  if (data.judged) {
    const judge = (row, at, key, column, texts) => {
      const one = put(row, 'span', key, at, column ? `by-step${marks(column[0], data)}` : 'base');
      say(put(one, 'b', 'b', 0), texts[0] || '');
      say(put(one, 'small', 'small', 1), texts[1] || '');
    };
    line('style', keys.length - 2, 'row learned', TEXTS.style, columns, (row, at, key, column) =>
      judge(row, at, key, column, column ? column.slice(2, 4) : ['0 %']));
    line('subjects', keys.length - 1, 'row learned', TEXTS.subjects, columns, (row, at, key, column) => {
      judge(row, at, key, column, column ? [column[4]] : [TEXTS.hold]);
      if (column) row.children[at].classList.toggle('fading', Boolean(column[5]));
    });
  }
  const signs = element.querySelector('.signs'), drawn = step => data.columns.some(column => column[0] === step);
  say(signs, [drawn(data.proposed) && '★ ' + TEXTS.recommended, drawn(data.lowest) && '○ ' + TEXTS.lowest]
    .filter(Boolean).join(' · '), '');
  stop();
};

// One stop of the Tab key: the frame that has the focus, or the chosen one.
const frames = () => [...film.querySelectorAll('button.frame')];
const stop = () => {
  const all = frames();
  const one = all.find(frame => frame === document.activeElement)
    || all.find(frame => frame.classList.contains('chosen')) || all[0];
  for (const frame of all) frame.tabIndex = frame === one ? 0 : -1;
};
const near = (one, across, down) => {
  const rows = [...film.querySelectorAll('.row')].map(row => [...row.querySelectorAll('button.frame')])
    .filter(row => row.length);
  const y = rows.findIndex(row => row.includes(one)), x = rows[y].indexOf(one);
  const row = rows[Math.min(rows.length - 1, Math.max(0, y + down))];
  if (!down) return row[Math.min(row.length - 1, Math.max(0, x + across))];
  return row.find(frame => frame.dataset.step === one.dataset.step) || row[Math.min(x, row.length - 1)];
};
const WAYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  Home: [-1e9, 0], End: [1e9, 0]};
element.addEventListener('keydown', event => {
  const one = event.target.closest('button.frame');
  if (!one || !WAYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  near(one, ...WAYS[event.key]).focus();
});
element.addEventListener('focusin', stop);

// The newest frame stays in view unless the film was scrolled away from it; one chosen elsewhere comes into view.
const right = one => one.getBoundingClientRect().right;
const newest = () => [...film.querySelectorAll('.steps .step:not(.coming)')].pop();
const hidden = () => newest() ? right(newest()) - right(film) : 0;
const passed = () => newest()?.getBoundingClientRect().left < right(film.querySelector('.steps .base'));
const follow = () => {
  const chosen = film.querySelector('.steps .of-chosen');
  if (atEnd && (hidden() > 0 || passed())) film.scrollLeft += Math.ceil(hidden()) + 2;
  if (chosen && chosen !== newest() && chosen.dataset.key !== shown) {
    const box = chosen.getBoundingClientRect(), edge = right(film.querySelector('.steps .base'));
    const middle = (edge + right(film)) / 2;
    if (box.left < edge || box.right > right(film) + 1) film.scrollLeft += (box.left + box.right) / 2 - middle;
  }
  shown = chosen?.dataset.key;
};
film.addEventListener('scroll', () => { atEnd = hidden() < 40 && !passed(); });

element.addEventListener('click', event => {
  const one = event.target.closest('button.frame');
  if (!one) return;
  const again = one.classList.contains('chosen');
  trigger(again ? 'select' : 'click', {step: one.dataset.step, prompt: Number(one.dataset.prompt)});
});
const update = () => { draw(props.value); requestAnimationFrame(follow); };
watch('value', update);
new ResizeObserver(() => follow()).observe(film);
update();
"""
