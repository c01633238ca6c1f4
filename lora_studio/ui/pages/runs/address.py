"""The address of a comparison, ``#compare/ink/wash``: a reload shows it again, and the browser's Back leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from lora_studio.ui import words


def html(pair: Sequence[str]) -> str:
    """What puts the comparison of ``pair`` into the address, or takes it out where there is none."""
    told = "#compare/" + "/".join(quote(name, safe="") for name in pair) if pair else ""
    return f'<span data-address="{words.text(told)}"></span>'


FOLLOW = """
const named = () => {
  const [tab, ...names] = location.hash.slice(1).split('/');
  return tab === 'compare' && names.length === 2 ? names.map(decodeURIComponent) : [];
};
let shown = [];
const follow = () => {
  const names = named();
  if (names.join('/') === shown.join('/') || !(names.length || /^#(train)?$/.test(location.hash))) return;
  shown = names;
  trigger('input', {names});
};
window.addEventListener('hashchange', follow);
watch('value', () => {
  const place = element.querySelector('[data-address]');
  if (!place) return;
  const told = place.dataset.address, here = named().length > 0;
  if (told ? location.hash !== told : here) history.pushState(null, '', told || '#train');
  shown = named();
});
follow();
"""
"""Asks for the comparison that the address names, now and whenever it changes, and puts the one that is shown into it;
for ``gr.HTML(js_on_load=...)``.
"""
