"""The studio's pages as tabs, each with an address behind the page's own: ``#library``, or
``#library/ink/ink.safetensors`` for one adapter there.

A reload comes back to the same room, a link leads from one room to another, and the browser's Back goes back.
"""

from __future__ import annotations

from urllib.parse import quote

import gradio as gr

from lora_studio.ui import words

_OPEN = """
() => {
  const open = () => {
    const name = location.hash.slice(1).split('/')[0] || 'train';
    const tab = document.getElementById(`room-${name === 'run' ? 'train' : name}-button`);
    if (tab?.getAttribute('aria-selected') === 'false') tab.click();
    if (name === 'run') document.getElementById('run')?.scrollIntoView();
  };
  window.roomsOpen = true;
  window.addEventListener('hashchange', open);
  open();
}
"""
"""Opens the room that the address names, now and whenever it changes; ``#run`` is the run at work, in the first room.
"""

_NOTE = """
() => {
  const shown = document.getElementById('room-%(room)s-button')?.getAttribute('aria-selected') === 'true';
  if (window.roomsOpen && shown && !/^#%(room)s(\\/|$)/.test(location.hash)) history.pushState(null, '', '#%(room)s');
}
"""
"""Writes the room that was opened into the address, unless it is there. Gradio opens the first one by itself, before
the address was read.
"""


def all() -> gr.Tabs:
    """What the rooms stand in."""
    return gr.Tabs(elem_id="rooms", overflow_behavior="wrap")


def room(name: str) -> gr.Tab:
    """One page's room; its address is ``name`` in small letters."""
    address = name.lower()
    tab = gr.Tab(name, id=address, elem_id=f"room-{address}")
    tab.select(None, js=_NOTE % {"room": address}, queue=False, show_progress="hidden", api_visibility="private")
    return tab


def wire(page: gr.Blocks) -> None:
    """Opens the room that the page's address names, when it is loaded and later."""
    page.load(None, js=_OPEN, queue=False, show_progress="hidden", api_visibility="private")


def address(room: str, thing: str) -> str:
    """Where a link to ``thing`` in ``room`` leads.

    >>> address("library", "my run/a#b.safetensors")
    '#library/my%20run/a%23b.safetensors'
    """
    return f"#{room}/{quote(thing)}"


def link(room: str, thing: str, label: str) -> str:
    """A link to ``thing`` in ``room``, drawn as a button, as HTML."""
    return f'<a class="way" href="{words.text(address(room, thing))}">{words.text(label)}</a>'


ASKED = """
const asked = () => {
  if (!element.isConnected) return;
  const [room, ...thing] = location.hash.slice(1).split('/');
  if (room === '%s' && thing.length) trigger('click', {key: decodeURIComponent(thing.join('/'))});
};
window.addEventListener('hashchange', asked);
asked();
"""
"""Tells of the thing that the address names in a room, as a click with its ``key``; for ``gr.HTML(js_on_load=...)``."""

NAMED = "value => location.hash.startsWith('#%(room)s/') ? decodeURIComponent(location.hash.slice('#%(room)s/'.length)) : value"
"""The thing that the address names in a room, or the value of a component; for the ``js`` of a handler with that one
input.
"""
