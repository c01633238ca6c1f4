"""The keyboard: a link that skips the bar, arrows within lists, single keys for a run, and a dialog that names them.

A list that is one stop of the Tab key says so: ``<div data-roving>`` holds buttons or links, between which the arrows,
Home and End move. ``data-roving=".card"`` names what counts as an item. A list that moves by a script of its own says
``data-one-stop``. A control that has the focus while its part of the page is drawn anew keeps it. Everything is bound
to the document, so that it holds for whatever is drawn later.
"""

from __future__ import annotations

from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.icons import icon

_KEYS = (
    (
        tr("Everywhere"),
        (("?", tr("Show this list")), ("Tab", tr("To the next control")), ("Esc", tr("Close what is open"))),
    ),
    (
        tr("In pictures, cards and previews"),
        (
            ("← ↑ → ↓", tr("To the neighbour")),
            (tr("Home, End"), tr("To the first, to the last")),
            (tr("Enter"), tr("Choose it")),
        ),
    ),
    (tr("Train"), ((tr("Space"), tr("Pause the run, or resume it")), ("P", tr("Draw a preview now")))),
)


def skip_links() -> str:
    """Lead past the bar to the room that is shown, and past its form to what starts the work; seen with the focus."""
    room, action = words.text(tr("Skip to the page")), words.text(tr("Skip to the main button"))
    return (
        f'<button type="button" class="skip" data-skip="room">{room}</button>'
        f'<button type="button" class="skip" data-skip="action">{action}</button>'
    )


def dialog(version: str) -> str:
    """Names all keys, and switches those off that a slip or a voice program could press.

    Args:
        version: the studio's.
    """
    lists = "".join(f"<h3>{title}</h3><dl>{''.join(map(_entry, keys))}</dl>" for title, keys in _KEYS)
    named, close = words.text(tr("Keys")), words.text(tr("Close"))
    single = words.text(tr("Keys without Ctrl act on the page: ?, Space, P"))
    return (
        f'<button type="button" class="help" data-keys title="{named}" aria-label="{named}" aria-haspopup="dialog">'
        f'{icon("help")}</button><dialog id="keys" aria-labelledby="keys-title">'
        f'<div class="head"><h2 id="keys-title">{named}</h2>'
        f'<button type="button" class="out" data-close aria-label="{close}">{icon("close")}</button></div>{lists}'
        f'<label><input type="checkbox" id="single-keys" checked> {single}</label>'
        f'<p class="hint">LoRA Studio {version}</p></dialog>'
    )


def _entry(entry: tuple[str, str]) -> str:
    key, does = entry
    return f"<dt><kbd>{key}</kbd></dt><dd>{does}</dd>"


SCRIPT = """
if (!window.studioKeys) {
  window.studioKeys = true;
  const ITEMS = 'button:not(:disabled), a[href]', LISTS = '[data-roving], [data-one-stop]';
  const CHOSEN = '[aria-current="true"], [aria-pressed="true"], [aria-selected="true"]';
  const STORED = 'lora-studio-single-keys';
  const items = list => [...list.querySelectorAll(list.dataset.roving || ITEMS)].filter(one => one.checkVisibility());
  const stop = (list, at) => {
    const all = items(list);
    const last = all.find(one => list.roved && one.getAttribute('tabindex') === '0');
    const chosen = all.find(one => one.matches(CHOSEN));
    const now = at || (list.contains(document.activeElement) && last) || chosen || last || all[0];
    if (at) list.roved = true;
    for (const one of all) {
      const wanted = one === now ? 0 : -1;
      if (one.getAttribute('tabindex') !== `${wanted}`) one.tabIndex = wanted;
    }
  };
  let due = false;
  const stops = () => {
    due = false;
    const tabs = document.querySelector('#tabs [role="tablist"]');  // which may come after this script
    if (tabs) tabs.dataset.roving = '[role="tab"]';
    document.querySelectorAll(LISTS).forEach(list => stop(list));
  };
  const named = one => [one.tagName, one.textContent.trim(), one.ariaLabel, ...Object.entries(one.dataset)].join('|');
  let held = null;  // the control with the focus, which may be drawn anew at any time
  document.addEventListener('focusin', event => {
    const control = event.target, part = control.parentElement?.closest('[id]');
    held = part && {control, part, name: named(control), lost: null};
  });
  document.addEventListener('focusout', () => setTimeout(() => {
    if (held?.control.isConnected && document.activeElement !== held.control) held = null;
  }));
  const keepFocus = () => {
    if (!held || held.control.isConnected) return;
    held.lost ||= performance.now();
    if (document.activeElement !== document.body || performance.now() - held.lost > 1000) { held = null; return; }
    const same = [...held.part.querySelectorAll(held.control.tagName)].find(one => named(one) === held.name);
    same?.focus({preventScroll: true});
  };
  new MutationObserver(() => {
    keepFocus();
    if (!due) { due = true; requestAnimationFrame(stops); }
  }).observe(document.body, {childList: true, subtree: true});
  stops();
  const list = event => event.target.closest?.(LISTS);
  document.addEventListener('focusin', event => {
    const within = list(event);
    if (within && items(within).includes(event.target)) stop(within, event.target);
  });
  const middle = one => {
    const box = one.getBoundingClientRect();
    return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  };
  const beside = (all, one, way) => {  // the nearest in the row above or below
    const [x, y] = middle(one);
    const far = other => { const [left, top] = middle(other); return Math.abs(top - y) * 4 + Math.abs(left - x); };
    const there = all.filter(other => way * (middle(other)[1] - y) > one.offsetHeight / 2);
    return there.sort((a, b) => far(a) - far(b))[0];
  };
  const moved = (within, key, one) => {
    const all = items(within), at = all.indexOf(one);
    if (at < 0) return null;
    return {
      ArrowLeft: () => all[at - 1], ArrowRight: () => all[at + 1], Home: () => all[0], End: () => all.at(-1),
      ArrowUp: () => beside(all, one, -1), ArrowDown: () => beside(all, one, 1),
    }[key]?.();
  };
  const singles = () => localStorage.getItem(STORED) !== 'off';
  const opened = () => {
    const dialog = document.getElementById('keys');
    document.getElementById('single-keys').checked = singles();
    if (!dialog.open) dialog.showModal();
  };
  const pressed = id => {
    const button = document.getElementById(id);
    if (!button?.checkVisibility() || button.disabled) return false;
    button.click();
    return true;
  };
  const typing = target => target.closest?.('input, textarea, select, [contenteditable="true"]');
  document.addEventListener('keydown', event => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const within = list(event), free = within?.matches('[data-roving]') && !typing(event.target);
    const to = free && moved(within, event.key, event.target);
    if (to) { event.preventDefault(); to.focus(); return; }
    if (!singles() || typing(event.target) || document.querySelector('dialog[open]')) return;
    if (event.key === '?') { event.preventDefault(); opened(); return; }
    if (event.repeat || event.target.closest?.('button, a, summary, [role]:not([role="tabpanel"])')) return;
    if (!document.getElementById('tab-train')?.checkVisibility()) return;
    if (event.key === ' ' && (pressed('pause') || pressed('resume'))) event.preventDefault();
    if (event.key.toLowerCase() === 'p') pressed('preview-now');
  });
  document.addEventListener('click', event => {
    if (event.target.closest?.('[data-keys]')) opened();
    const dialog = document.getElementById('keys');
    if (event.target === dialog || event.target.closest?.('#keys [data-close]')) dialog.close();
    const skip = event.target.closest?.('[data-skip]')?.dataset.skip;
    if (!skip) return;
    const room = [...document.querySelectorAll('#tabs > [role="tabpanel"]')].find(one => one.checkVisibility());
    const action = [...room.querySelectorAll('.go button.primary')].find(one => one.checkVisibility());
    room.tabIndex = -1;
    (skip === 'action' && action || room).focus();
  });
  document.addEventListener('change', event => {
    if (event.target.id === 'single-keys') localStorage.setItem(STORED, event.target.checked ? 'on' : 'off');
  });
}
"""
"""Binds the keys to the document; for ``gr.HTML(js_on_load=...)``."""
