"""What stands in place of a run while there is none: the way to the first one, in three steps, and a sample that one
press trains. It can be put away, and is gone once a run exists.
"""

from __future__ import annotations

from lora_studio.language import tr
from lora_studio.ui import words
from lora_studio.ui.blank import way
from lora_studio.ui.icons import icon
from lora_studio.ui.pages.train import status

PRESS = """
const key = 'lora-studio-guided', guide = element.querySelector('.guide'), plain = element.querySelector('.plain');
const away = () => { guide.hidden = true; plain.hidden = false; };
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button?.dataset.act === 'away') {
    try { localStorage.setItem(key, 'yes'); } catch {}
    away();
  } else if (button) {
    button.disabled = true;
    setTimeout(() => { button.disabled = false; }, 8000);
    trigger('click', {act: 'sample'});
  }
});
try { if (localStorage.getItem(key)) away(); } catch {}
"""
"""Asks for the sample to be trained, and puts the guide away for good; for ``gr.HTML(js_on_load=...)``."""

_STEPS = (
    (
        "pictures",
        "Pictures",
        tr("Twenty to forty in one style. {way}", way=way("pictures", tr("Open Pictures"))),
    ),
    (
        "mix",
        tr("Base model"),
        tr(
            "The built-in starter needs no graphics card and shows within minutes whether a style is "
            "learned. For large pictures name a model of yours."
        ),
    ),
    (
        "train",
        "Start",
        "Press <b>Start training</b>. Previews appear here while it trains. Closing this tab does not stop it.",
    ),
)


def html(sample: str) -> str:
    """The guide as HTML.

    Args:
        sample: the name of the sample style; without one, nothing is offered.
    """
    steps = "".join(
        f"<li>{icon(sign)}<h3>{number}. {title}</h3><p>{text}</p></li>"
        for number, (sign, title, text) in enumerate(_STEPS, 1)
    )
    offer = (
        '<div class="offer"><button type="button" class="way primary" data-act="sample">Train the sample</button>'
        f"<p>{words.text(sample)}, on the built-in starter. A first look at what a run shows.</p></div>"
        if sample
        else ""
    )
    return (
        '<div class="guide"><div class="head"><h2>Your first style</h2>'
        '<button type="button" class="quiet-button" data-act="away">Hide this</button></div>'
        f"<ol>{steps}</ol>{offer}</div>"
        f'<div class="plain" hidden>{status.EMPTY}</div>'
    )
