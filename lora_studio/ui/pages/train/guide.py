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


def _steps() -> tuple[tuple[str, str, str], ...]:
    """The sign of each step, its title, and what to do, as HTML."""
    pictures = tr("Twenty to forty in one style. {way}", way=way("pictures", tr("Open Pictures")))
    base = tr(
        "The built-in starter needs no graphics card and shows within minutes whether a style is learned. For large "
        "pictures name a model of yours."
    )
    start = tr("Press <b>Start training</b>. Previews appear here while it trains. Closing this tab does not stop it.")
    return ("pictures", tr("Pictures"), pictures), ("mix", tr("Base model"), base), ("train", tr("Start"), start)


def html(sample: str) -> str:
    """The guide as HTML.

    Args:
        sample: the name of the sample style; without one, nothing is offered.
    """
    steps = "".join(
        f"<li>{icon(sign)}<h3>{number}. {title}</h3><p>{text}</p></li>"
        for number, (sign, title, text) in enumerate(_steps(), 1)
    )
    return (
        f'<div class="guide"><div class="head"><h2>{tr("Your first style")}</h2>'
        f'<button type="button" class="quiet-button" data-act="away">{tr("Hide this")}</button></div>'
        f"<ol>{steps}</ol>{_offer(sample) if sample else ''}</div>"
        f'<div class="plain" hidden>{status.empty()}</div>'
    )


def _offer(sample: str) -> str:
    about = tr("{sample}, on the built-in starter. A first look at what a run shows.", sample=sample)
    return (
        f'<div class="offer"><button type="button" class="way primary" data-act="sample">{tr("Train the sample")}'
        f"</button><p>{words.text(about)}</p></div>"
    )
