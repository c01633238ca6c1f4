"""What a tab says beside what it shows: to screen readers, in the browser's title, and at the end of a run by a sound
and a notification, where that is wanted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lora_studio.events import State
from lora_studio.jobs.queue import QueueEntry
from lora_studio.jobs.view import RunView
from lora_studio.language import tr
from lora_studio.runs import Run
from lora_studio.ui import words
from lora_studio.ui.pages.runs import state_words
from lora_studio.ui.pages.train import judged_parts
from lora_studio.ui.pages.train.judged import Evaluation


@dataclass
class RunNews:
    """What a tab was told of the run that it shows: the states judged, the step of the latest previews, the run's
    state. None before it was told anything.
    """

    judged: frozenset[int] | None = None
    drawn: int | None = None
    state: State | None = None

    def news(self, run: Run, view: RunView, found: Evaluation) -> str:
        """What is new since the last time, in sentences."""
        drawn = max((one.step for one in view.previews if not one.base), default=0)
        told = []
        if self.state not in (None, view.state):
            told.append(tr("{run}: {state}.", run=run.name, state=state_words.within(view)))
        if self.drawn is not None and drawn > self.drawn:
            told.append(tr("Previews of step {drawn:,}.", drawn=drawn))
        told.append(judged_parts.announcement(found, self.judged))
        self.judged, self.drawn, self.state = frozenset(one.step for one in found.states), drawn, view.state
        return " ".join(filter(None, told))


@dataclass
class WatchedWork:
    """The run that a tab saw at work, and how that or the one before it ended."""

    run: str = ""
    ended: str = ""

    def title(self, line: list[QueueEntry], view: RunView | None) -> str:
        """What is at work, for the browser's title: "42 % · ink". ``view`` is of the first run in the queue."""
        if line and line[0].run and view and not view.state.ended:
            if line[0].run.name == self.run:
                self.ended = ""  # it was told by the tick before
            self.run = line[0].run.name
            share = f"{100 * min(view.progress, 1):.0f} %" if view.state is State.RUNNING else state_words.at_work(view)
            return f"{share} · {self.run}"
        if line and line[0].job:
            return f"{line[0].job.noun} · {line[0].job.name}"
        return self.ended

    def note_end(self, view: RunView) -> None:
        """Notes how the run ended, as ``view`` knows, once it has."""
        if view.state.ended:
            self.ended = f"{words.STATES[view.state]} · {self.run}"


def html(news: str, title: str, ended: str) -> str:
    """The live region, with the title and the end of a run for the script below."""
    return f'<p role="status" data-title="{words.text(title)}" data-end="{words.text(ended)}">{words.text(news)}</p>'


def switch() -> str:
    """The switch for sound and notification, as HTML."""
    label = tr("Tell me when it ends")
    return f'<label class="tell"><input type="checkbox"> {label}</label><span class="hint" role="status"></span>'


def remember() -> str:
    """Keeps the switch in the browser, and asks it for notifications; for ``gr.HTML(js_on_load=...)``."""
    how = {"both": str(tr("by a sound and a notification")), "sound": str(tr("by a sound"))}
    return f"const HOW = {json.dumps(how, ensure_ascii=False)};{_REMEMBER}"


TELL = """
const own = 'LoRA Studio', stored = 'lora-studio-tell';
let ended = null;
const tone = () => {
  const sound = new AudioContext(), level = sound.createGain();
  level.connect(sound.destination);
  [[660, 0], [880, 0.18]].forEach(([pitch, at]) => {
    const voice = sound.createOscillator();
    voice.frequency.value = pitch;
    voice.connect(level);
    voice.start(sound.currentTime + at);
    voice.stop(sound.currentTime + at + 0.16);
  });
  level.gain.setValueAtTime(0.08, sound.currentTime);
  level.gain.linearRampToValueAtTime(0, sound.currentTime + 0.36);
  setTimeout(() => sound.close(), 1000);
};
const tell = text => {
  if (localStorage.getItem(stored) !== 'on') return;
  tone();
  if (window.Notification?.permission === 'granted') new Notification(own, {body: text, tag: stored});
};
const show = () => {
  const told = element.querySelector('[data-title]');
  if (!told) return;
  document.title = told.dataset.title ? `${told.dataset.title} – ${own}` : own;
  const end = told.dataset.end;
  if (ended !== null && end && end !== ended) tell(end);
  ended = end;
};
watch('value', show);
show();
"""
"""Sets the browser's title, and tells of the end of a run; for ``gr.HTML(js_on_load=...)``."""

_REMEMBER = """
const stored = 'lora-studio-tell', box = element.querySelector('input'), how = element.querySelector('.hint');
const told = () => {
  const shows = window.Notification?.permission === 'granted';
  how.textContent = !box.checked ? '' : shows ? HOW.both : HOW.sound;
};
box.checked = localStorage.getItem(stored) === 'on';
box.addEventListener('change', async () => {
  localStorage.setItem(stored, box.checked ? 'on' : 'off');
  if (box.checked && window.Notification?.permission === 'default') await Notification.requestPermission();
  told();
});
told();
"""
