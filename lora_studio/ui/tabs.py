"""The studio's pages as tabs. Each has an address within the page's own: ``#library``, or
``#library/ink/ink.safetensors`` for one adapter there.

A reload opens the same tab, links lead from one tab to another, and the browser's Back button works.
"""

from __future__ import annotations

from urllib.parse import quote

import gradio as gr

from lora_studio.ui import words

HEAD = """<script>
document.documentElement.classList.add('opening');
window.addEventListener('load', () => setTimeout(() => document.documentElement.classList.remove('opening'), 3000));
</script>"""
"""Hides the tabs until the one that the address names is open, for the head of the page. Gradio opens the first tab
before it lets the address be read. Whatever happens then, they are shown in the end.
"""

_FOLLOW_ADDRESS = """
() => {
  const shown = () => document.querySelector('#tabs [role="tab"][aria-selected="true"]')?.id.split('-')[1];
  const open = () => {
    const name = location.hash.slice(1).split('/')[0] || '%(first)s';
    const tab = document.getElementById(`tab-${{run: 'train', compare: 'train'}[name] || name}-button`);
    if (tab?.getAttribute('aria-selected') === 'false') tab.click();
    tab?.scrollIntoView({block: 'nearest', inline: 'nearest'});
    if (!tab && !document.getElementById(name)) history.replaceState(null, '', `#${shown()}`);
    if (name === 'run') document.getElementById('run')?.scrollIntoView();
  };
  const rooms = document.querySelector('#tabs > .tab-wrapper');
  const measure = () => document.documentElement.style.setProperty('--rooms', `${rooms.offsetWidth}px`);
  new ResizeObserver(measure).observe(rooms);
  window.tabsFollowAddress = true;
  window.addEventListener('hashchange', open);
  open();
  const reveal = () => {  // on a narrow screen the run, or the guide to the first one, may stand above the form
    const run = innerWidth <= 760 && document.getElementById('run');
    if (run && run.checkVisibility() && !run.querySelector('.card')) requestAnimationFrame(reveal);
    else document.documentElement.classList.remove('opening');
  };
  requestAnimationFrame(reveal);
}
"""
"""Opens the tab that the address names, now and whenever it changes. In Train ``#run`` is the current run, and
``#compare/ink/wash`` compares two. An address that names nothing on the page is replaced by that of the tab shown.
It also tells the bar's rules how wide the tabs are.
"""

_SET_ADDRESS = """
() => {
  const shown = document.getElementById('tab-%(tab)s-button')?.getAttribute('aria-selected') === 'true';
  const there = /^#(%(addresses)s)(\\/|$)/.test(location.hash);
  if (!window.tabsFollowAddress || !shown || there) return;
  history[location.hash ? 'pushState' : 'replaceState'](null, '', '#%(tab)s');
}
"""
"""Puts the tab that was opened into the address. Gradio itself opens the first tab before the address is read."""


def container() -> gr.Tabs:
    """Holds all tabs."""
    return gr.Tabs(elem_id="tabs", overflow_behavior="wrap")


def tab(title: str, address: str) -> gr.Tab:
    """The tab of one page, with its address within the page's own."""
    made = gr.Tab(title, id=address, elem_id=f"tab-{address}")
    there = {"tab": address, "addresses": "train|run|compare" if address == "train" else address}
    made.select(None, js=_SET_ADDRESS % there, queue=False, show_progress="hidden", api_visibility="private")
    return made


def follow_address(page: gr.Blocks, first: str) -> None:
    """Opens the tab that the page's address names, when the page is loaded and whenever the address changes; without a
    name the tab ``first``.
    """
    follow = _FOLLOW_ADDRESS % {"first": first}
    page.load(None, js=follow, queue=False, show_progress="hidden", api_visibility="private")


def address(tab: str, item: str) -> str:
    """The address of ``item`` in ``tab``.

    >>> address("library", "my run/a#b.safetensors")
    '#library/my%20run/a%23b.safetensors'
    """
    return f"#{tab}/{quote(item)}"


def link(tab: str, item: str, label: str) -> str:
    """A link to ``item`` in ``tab``, drawn as a button, as HTML."""
    return f'<a class="way" href="{words.text(address(tab, item))}">{words.text(label)}</a>'


TRIGGER_ON_ADDRESS = """
{
  const open = () => {
    if (!element.isConnected) return;
    const [tab, ...item] = location.hash.slice(1).split('/');
    if (tab === '%s' && item.length) trigger('click', {key: decodeURIComponent(item.join('/'))});
  };
  window.addEventListener('hashchange', open);
  open();
}
"""
"""Triggers a click with the ``key`` of the item that the address names in a tab; for ``gr.HTML(js_on_load=...)``."""
