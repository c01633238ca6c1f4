"""Sends an adapter to another program: buttons for any room, and the one panel that they open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import files
from lora_studio.errors import AdapterError, StudioError
from lora_studio.jobs import command
from lora_studio.language import tr
from lora_studio.runs import programs
from lora_studio.ui import images, words
from lora_studio.ui.outcome import WORK, Updates, bound, busy, done, wrong
from lora_studio.ui.pages.library import cards
from lora_studio.ui.paths import tidy
from lora_studio.ui.theme import html

QUIET: dict[str, Any] = {"queue": False, **WORK}
_LISTEN = """
document.addEventListener('click', event => {
  const button = event.target.closest?.('[data-send]');
  if (!button) return;
  window.sendOpener = button;
  window.sendNow = Boolean(button.dataset.to);
  const {send, to, file} = button.dataset;
  trigger('click', {key: send, to: to || '', file: file || ''});
});
document.addEventListener('keydown', event => {
  if (event.key === 'Escape') document.querySelector('#send-close')?.click();
});
"""
"""Reports a press of one of the ``buttons``, wherever it is on the page; Escape closes the panel."""
_OPENED = """
() => {
  for (const part of document.querySelectorAll('#tabs, .masthead')) part.inert = true;
  const panel = document.getElementById('send');
  panel?.setAttribute('role', 'dialog');
  panel?.setAttribute('aria-modal', 'true');
  panel?.setAttribute('aria-labelledby', 'send-title');
  const now = document.getElementById('send-now');
  if (window.sendNow) now?.click();
  (window.sendNow ? document.getElementById('send-close') : panel?.querySelector('input:checked'))?.focus();
}
"""
_CLOSED = """
() => {
  for (const part of document.querySelectorAll('#tabs, .masthead')) part.inert = false;
  if (window.sendOpener?.isConnected) window.sendOpener.focus();
}
"""
_TELLS = tr(
    "It is written for that program and read back as it reads it before it is copied. It "
    "tells what its users need: trigger word, picture, author, licence. For more or less, "
    "use Export."
)
_HIDDEN = gr.update(visible=False)


def buttons(key: str, outputs: Path, exported: Path | None = None) -> str:
    """A button for each program whose folder is known, and one for any other, as HTML.

    Args:
        key: names the adapter as ``cards.key`` does.
        exported: a file that was made of it and is offered as a download; it is sent as it is.
    """
    known = [programs.PROGRAMS[name] for name in programs.remembered(outputs) if name != "other"]
    names = [(tr("Send to {title}", title=one.title), one.name) for one in known] + [
        (tr("Send elsewhere…") if known else tr("Send to…"), "")
    ]
    file = exported.relative_to(images.folder(outputs)).as_posix() if exported else ""
    more = f' data-send="{words.text(key)}"' + f' data-file="{words.text(file)}"' * bool(file)
    return "".join(
        f'<button type="button" class="way"{more} data-to="{to}">{words.text(label)}</button>' for label, to in names
    )


class SendPanel:
    """The panel: which program, its folder, the name there; and what came of it."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.pressed = html(js_on_load=_LISTEN, elem_id="send-pressed")
        self.key, self.file, self.free = gr.State(""), gr.State(""), gr.State("")
        self.closed, self.came = gr.State(True), gr.State("")
        with gr.Column(visible=False, elem_id="send", elem_classes="card") as self.panel:
            self.title = html()
            self.program = gr.Radio(
                [(one.title, one.name) for one in programs.PROGRAMS.values()], label=tr("Program"), elem_id="send-to"
            )
            self.folder = gr.Textbox(
                label=tr("Its folder"),
                info=tr("The program's own folder, or its folder of LoRAs. It is remembered."),
                max_lines=1,
                elem_id="send-folder",
            )
            self.name = gr.Textbox(label=tr("Name of the file there"), max_lines=1, elem_id="send-name")
            html(f'<p class="hint">{words.text(_TELLS)}</p>')
            self.outcome = html(visible=False, elem_id="send-outcome")
            with gr.Row(visible=False, elem_classes="controls") as self.question:
                self.other = gr.Button(tr("Send under another name"), size="md", elem_id="send-other")
                self.over = gr.Button(tr("Replace it"), size="md", elem_id="send-over")
            with gr.Row(elem_classes="controls"):
                self.go = gr.Button(tr("Send"), variant="primary", size="md", elem_id="send-now")
                self.close = gr.Button(tr("Close"), size="md", elem_id="send-close")
        self._wire()

    def _wire(self) -> None:
        asked: list[Any] = [self.key, self.file, self.program, self.folder, self.name]
        opened: list[Any] = [self.panel, self.title, *asked, self.outcome, self.question]
        self.pressed.click(self.open, None, [*opened, self.closed], **QUIET).then(None, js=_OPENED, **QUIET)
        self.close.click(lambda: (_HIDDEN, True), None, [self.panel, self.closed], **QUIET).then(
            None, js=_CLOSED, **QUIET
        )
        self.program.input(self.choose, self.program, [self.folder, self.outcome, self.question], **QUIET)
        shown: list[Any] = [self.outcome, self.question, self.other, self.free, self.folder, self.came]
        renamed = [self.key, self.file, self.program, self.folder, self.free]
        for event, given, work in (
            (self.go.click, asked, self.send),
            (self.name.submit, asked, self.send),
            (self.folder.submit, asked, self.send),
            (self.other.click, renamed, self.send),
            (self.over.click, asked, lambda *asked: (yield from self.send(*asked, replace=True))),
        ):
            sending = bound(self.go, tr("Sending…"), event, work, given, shown, **WORK)
            sending.then(self.tell, [self.closed, self.came], **WORK)

    def open(self, event: gr.EventData) -> Updates:
        """Shows the panel for the adapter of the button that was pressed."""
        known = programs.remembered(self.outputs)
        entry = cards.find(str(event.key), self.outputs)
        to = event.to if event.to in programs.PROGRAMS else next(iter(known), "comfyui")
        name = Path(event.file).stem if event.file else cards.stem(entry) if entry else str(event.key)
        heading = tr("Send {name} to another program", name=name)
        return {
            self.panel: gr.update(visible=True),
            self.closed: False,
            self.title: f'<h2 id="send-title">{words.text(heading)}</h2>' + (cards.made_for(entry) if entry else ""),
            self.key: str(event.key),
            self.file: str(event.file),
            self.program: to,
            self.name: name,
            **self.choose(to),
        }

    def choose(self, name: str) -> Updates:
        """The folder of the chosen program, if it is known."""
        program = programs.PROGRAMS[name]
        folder = programs.remembered(self.outputs).get(name, "")
        example = (
            tr("For example {path}", path=f"…/{program.title}/{program.loras}") if program.loras else tr("Any folder")
        )
        update = gr.update(value=str(folder), placeholder=example)
        return {self.folder: update, self.outcome: _HIDDEN, self.question: _HIDDEN}

    def send(
        self, key: str, file: str, name: str, folder: str, called: str, replace: bool = False
    ) -> Iterator[Updates]:
        """Sends the adapter; a different file of its name there is asked about first."""
        program = programs.PROGRAMS[name]
        try:
            target = self._target(program, folder, called, replace)
        except StudioError as error:
            shown = gr.update(value=wrong(error), visible=True)
            yield {self.outcome: shown, self.question: _HIDDEN, self.came: wrong(error)}
            return
        meanwhile = busy(tr("Writing it for {title}, reading it back, and copying it…", title=program.title))
        yield {self.outcome: gr.update(value=meanwhile, visible=True), self.question: _HIDDEN}
        try:
            result = command.run("send", *self._source(key, file), *target)
        except StudioError as error:
            free = error.details.get("free")
            asked = gr.update(visible=bool(free))
            yield {
                self.outcome: gr.update(value=wrong(error), visible=True),
                self.question: asked,
                self.other: tr("Send as {free}", free=free),
                self.free: free or "",
                self.came: wrong(error),
            }
            return
        known = programs.remembered(self.outputs).get(name, folder)
        shown = gr.update(value=told(result), visible=True)
        yield {self.outcome: shown, self.question: _HIDDEN, self.folder: str(known), self.came: told(result)}

    def tell(self, closed: bool, came: str) -> None:
        """What came of it, where the panel was closed meanwhile."""
        if closed and came:
            gr.Info(came, duration=20, title=tr("Send to another program"))

    def _source(self, key: str, file: str) -> list[object]:
        """The adapter, or the ``file`` that was exported of it, as arguments of ``send``.

        Raises:
            AdapterError: it is gone.
        """
        if file and (exported := images.inside(images.folder(self.outputs), file)):
            return [exported, "--as-it-is"]
        entry = cards.find(key, self.outputs)
        if file or entry is None:
            raise AdapterError(
                tr("This file is gone."), where=file or key, do=tr("Close this, and choose or export it again.")
            )
        return [entry.path]

    def _target(self, program: programs.Program, folder: str, called: str, replace: bool) -> list[object]:
        """Where to, as arguments of ``send``.

        Raises:
            SettingsError: the folder cannot be used: told before anything is written for it.
        """
        typed, known = tidy(folder), programs.remembered(self.outputs).get(program.name)
        given = ["--folder", typed] if typed and typed != str(known or "") else []
        if given:
            programs.recognized(program, typed)
        else:
            programs.folder_of(program, self.outputs)
        name_there = ["--as", files.safe_name(called)] if called.strip() else []
        return ["--to", program.name, *given, *name_there, *["--replace"] * replace, "--outputs", self.outputs]


def told(result: dict[str, Any]) -> str:
    """What came of it, as HTML."""
    file = Path(result["file"])
    if result["already"]:
        shown = done(tr("{name} is there already, the same file.", name=file.name), str(file.parent))
    else:
        shown = done(tr("{name} was sent to {parent}.", name=file.name, parent=file.parent), result["refresh"])
    return shown + (words.notice("warned", result["note"]) if result["note"] else "")
