"""The Export page: an adapter as a file for other programs, done only once each of them is proved to read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lora_studio import files
from lora_studio.adapters.kinds import KINDS, LORA, PLAIN_READERS, Form, Kind, readers_of, usual_form
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.language import declared, number, tr
from lora_studio.runs import library
from lora_studio.runs.library import Entry
from lora_studio.ui import downloads, sending, tabs, words
from lora_studio.ui.blank import blank, link, press
from lora_studio.ui.exporting import exported, usual_name
from lora_studio.ui.outcome import PROGRAMS, WORK, Updates, done, proof, told
from lora_studio.ui.pages.library import cards, details
from lora_studio.ui.pages.train.setup import QUIET
from lora_studio.ui.paths import tidy
from lora_studio.ui.theme import html

FORMATS = {
    "kohya": tr("kohya: for ComfyUI, Forge, A1111 and diffusers"),
    "diffusers": tr("diffusers: in its own names"),
    "peft": tr("peft: a zipped folder"),
}
"""Format -> what it is for."""
NUMBERS = {"": tr("As it is"), "fp16": tr("16 bit (fp16)"), "bf16": tr("16 bit (bf16)"), "fp32": tr("32 bit")}
PRIVACY = {
    "none": (
        tr("Nothing"),
        tr(
            "Only what a program needs to load it: title, kind of base model, rank. No trigger word, "
            "no thumbnail, no settings."
        ),
    ),
    "minimal": (
        tr("What its users need"),
        tr(
            "What a program needs, and trigger word, thumbnail, author, date, licence and base "
            "model. No settings, no names of pictures, no captions."
        ),
    ),
    "full": (
        tr("The whole recipe"),
        tr(
            "What its users need, and all settings and seeds, the pictures' file names and hashes, "
            "caption tags and versions: enough to train it again. No folders of this machine."
        ),
    ),
}
"""Level -> its name, and what the file then contains."""
_METADATA = {
    "none": tr("metadata: nothing"),
    "minimal": tr("metadata: what its users need"),
    "full": tr("metadata: the whole recipe"),
}
WORDS = {
    "bundled": tr("In the same file, beside the layers"),
    "none": tr("Left out: the layers alone"),
    "only": tr("Alone, as an embedding"),
}
"""What becomes of the words that an adapter has learned beside its layers -> for people."""
_READ_BY = {
    "dora": tr("ComfyUI and Forge read a DoRA that is written for them; other programs read it in ways of their own."),
    "oft": tr("ComfyUI and A1111 read an OFT; Forge and diffusers do not."),
    "ia3": tr("A1111 alone reads an (IA)³."),
}
"""Kind -> who reads it as it is, where that is not every program that reads kohya's format."""
_HIGHEST_RANK = 4096
_MUCH = 0.05
"""From this residual on, a user should compare images before using the file."""


_ADDRESSED = """
(value, offered) => {
  const [tab, ...item] = location.hash.slice(1).split('/');
  return [tab === 'export' && item.length ? decodeURIComponent(item.join('/')) : value, offered];
}
"""
"""The adapter that the page's address names, else the one that is chosen."""
_TO_THE_PROOF = (
    "() => { if (window.innerWidth < 900) document.getElementById('exported')?.scrollIntoView({behavior: 'smooth'}) }"
)


class ExportPage:
    """The page's components and handlers."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        with gr.Row(elem_classes="halves", equal_height=False):
            with gr.Column(scale=5, min_width=330, elem_classes="half"):
                self._place_adapter()
                self._place_file()
                with gr.Column(elem_classes="go"):
                    self.go = gr.Button(tr("Export and prove"), variant="primary", size="lg", elem_id="export-now")
            with (
                gr.Column(scale=8, min_width=330, elem_classes="half", elem_id="exported"),
                gr.Column(elem_classes="card"),
            ):
                self.outcome = html(_empty(), elem_id="outcome")

    def _place_adapter(self) -> None:
        with gr.Column(elem_classes="card"):
            html(f"<h2>{words.text(tr('1. The adapter'))}</h2>")
            self.offered = gr.State(None)
            self.adapter = gr.Dropdown(
                [],
                label=tr("Adapter to export"),
                allow_custom_value=True,
                show_label=False,
                container=False,
                elem_id="export-adapter",
            )  # or an address that names one is refused
            self.facts = html(js_on_load=tabs.TRIGGER_ON_ADDRESS % "export", elem_id="export-facts")
            with gr.Column(visible=False) as self.converted:
                self.form = gr.Radio([], label=tr("Form"), elem_id="export-form", elem_classes="stacked")
                with gr.Column(elem_classes="fields"):
                    self.base = gr.Textbox(
                        label=tr("Base model"),
                        info=tr("The model that it was trained on, on which its change depends."),
                        placeholder=tr("starter, or the path of a model"),
                        max_lines=1,
                        elem_id="export-base",
                    )
                    help = tr(
                        "Of the plain LoRA: a higher one is more exact. 0 takes twice a DoRA's, 64 for an OFT or "
                        "(IA)³, and all of a LoHa or LoKr."
                    )
                    self.rank = gr.Number(0, label=tr("Rank"), info=help, precision=0, elem_id="export-rank")
            self.words = gr.Radio(
                [(label, name) for name, label in WORDS.items()],
                value="bundled",
                label=tr("Learned words"),
                info=tr("A1111 and ComfyUI read a learned word from a file of its own, called as the word is."),
                visible=False,
                elem_id="export-words",
                elem_classes="stacked",
            )

    def _place_file(self) -> None:
        with gr.Column(elem_classes="card"):
            html(f"<h2>{words.text(tr('2. The file'))}</h2>")
            self.name = gr.Textbox(label=tr("File name"), max_lines=1, elem_id="export-name")
            self.format = gr.Radio(
                [(label, name) for name, label in FORMATS.items()],
                value="kohya",
                label=tr("Format"),
                elem_id="format",
                elem_classes="stacked",
            )
            self.privacy = gr.Radio(
                [(label, name) for name, (label, _) in PRIVACY.items()],
                value="minimal",
                label=tr("What the file tells"),
                elem_id="privacy",
            )
            self.tells = html(_tells("minimal"))
            with gr.Accordion(tr("Programs and number format"), open=False, elem_classes="fold"):
                programs = [(label, name) for name, label in PROGRAMS.items()]
                self.targets = gr.CheckboxGroup(
                    programs, value=list(PLAIN_READERS["kohya"]), label=tr("Prove it for"), elem_id="targets"
                )
                self.number = gr.Dropdown(
                    [(label, name) for name, label in NUMBERS.items()],
                    value="",
                    label=tr("Number format"),
                    filterable=False,
                    elem_id="number",
                )

    @property
    def _choice(self) -> list[Any]:
        """What ``offer`` changes."""
        return [self.offered, self.adapter, self.facts, self.name, self.format, self.words, *self._form]

    @property
    def _form(self) -> list[Any]:
        """What ``choose`` changes."""
        return [self.converted, self.form, self.base, self.rank, self.targets]

    def wire(self, tab: gr.Tab) -> None:
        """Binds everything; ``tab`` is the page's own."""
        chosen = [self.adapter, self.offered]
        tab.select(self.offer, chosen, self._choice, js=_ADDRESSED, **QUIET)
        self.adapter.input(self.offer, chosen, self._choice, **QUIET)
        self.facts.click(self.asked, self.offered, self._choice, **QUIET)
        asked: set[Any] = {self.adapter, self.format, self.form, self.words}
        for field in (self.format, self.form, self.words):
            field.input(self.choose, asked, self._form, **QUIET)
        self.words.input(self.name_of, {self.adapter, self.words, self.name}, self.name, **QUIET)
        self.privacy.change(_tells, self.privacy, self.tells, **QUIET)
        form: set[Any] = {
            self.adapter,
            self.format,
            self.targets,
            self.number,
            self.privacy,
            self.name,
            self.base,
            self.form,
            self.rank,
            self.words,
        }
        self.go.click(self.export, form, self.outcome, **WORK)
        self.go.click(None, js=_TO_THE_PROOF, **QUIET)

    def asked(self, offered: str | None, event: gr.EventData) -> Updates:
        """Offers the adapter that the page's address names."""
        return self.offer(str(event.key), offered)

    def offer(self, key: str | None, offered: str | None = None) -> Updates:
        """The adapters to choose from, with ``key`` chosen, or the latest if there is no such one; saved states of runs
        come last. What was typed for the one that is ``offered`` already stays: opening the page by an adapter's
        address offers it twice.
        """
        entries = library.entries(self.outputs)
        by_key = {cards.key(entry, self.outputs): entry for entry in entries}
        choices = cards.choices(entries, self.outputs)
        chosen = key if key in by_key else next((known for _, known in choices), None)
        if chosen is None:
            return {
                self.offered: None,
                self.adapter: gr.update(choices=[], value=None),
                self.facts: _none(),
                self.converted: gr.update(visible=False),
                self.words: gr.update(visible=False),
                self.name: "",
            }
        entry = by_key[chosen]
        if chosen == offered:
            return {
                self.adapter: gr.update(choices=choices, value=chosen),
                self.facts: cards.facts(entry) + cards.made_for(entry),
            }
        kind = KINDS[entry.method]
        base = details.base_at_hand(entry, self.outputs) if kind.needs_base else ""
        own = {**self._fields(kind, "kohya", None, _has_both(entry)), self.format: "kohya"}
        return {
            **(own if kind.readers or entry.words else {self.converted: gr.update(visible=False)}),
            self.words: gr.update(visible=_has_both(entry), value="bundled"),
            self.offered: chosen,
            self.adapter: gr.update(choices=choices, value=chosen),
            self.facts: cards.facts(entry) + cards.made_for(entry),
            self.base: gr.update(value=base, visible=kind.needs_base),
            self.name: usual_name(entry),
        }

    def choose(self, form: dict[Any, Any]) -> Updates:
        """What a chosen format or form brings: the programs that read it, and the fields that it needs."""
        entry = cards.find(form[self.adapter] or "", self.outputs)
        kind = KINDS[entry.method] if entry else LORA
        bundled = bool(entry and _has_both(entry) and form.get(self.words) == "bundled")
        return self._fields(kind, form[self.format], form[self.form], bundled)

    def name_of(self, form: dict[Any, Any]) -> str:
        """The file's name for what is chosen of the learned words, unless another one was typed."""
        entry = cards.find(form[self.adapter] or "", self.outputs)
        if entry is None or form[self.name] not in (usual_name(entry), *entry.words):
            return form[self.name]
        return entry.words[0] if form[self.words] == "only" and entry.words else usual_name(entry)

    def _fields(self, kind: Kind, format: str, form: Form | None, bundled: bool = False) -> Updates:
        """The fields for an adapter of that kind; without a ``form`` for its usual one. diffusers reads no file with
        ``bundled`` words.
        """
        able: list[Form] = ["own", "lora", "full"] if format == "kohya" and kind.readers else ["lora"]
        form = form if form in able else usual_form(kind, format)
        titles = {
            "own": tr("Keep the {kind}", kind=declared(kind.title)),
            "lora": tr("Plain LoRA"),
            "full": tr("Full difference: exact, and large"),
        }
        return {
            self.converted: gr.update(visible=bool(kind.readers)),
            self.form: gr.update(
                choices=[(titles[one], one) for one in able], value=form, info=_READ_BY.get(kind.name)
            ),
            self.base: gr.update(visible=kind.needs_base),
            self.rank: gr.update(visible=form == "lora"),
            self.targets: [one for one in readers_of(kind, format, form) if not (bundled and one == "diffusers")],
        }

    def export(self, form: dict[Any, Any]) -> Iterator[Any]:
        """Writes and proves what the ``form`` asks for, by field; then shows the proof and the file, or the problem."""

        def act() -> str:
            entry = cards.find(form[self.adapter] or "", self.outputs)
            if entry is None:
                raise AdapterError(tr("No adapter is chosen."), do=tr("Choose one at the top."))
            options = self._options(form, KINDS[entry.method])
            name = files.safe_name(form[self.name].strip() or usual_name(entry))
            return self._made(entry, options, form[self.format], name)

        yield from told(tr("Writing the file and reading it back the way each program does…"), act)

    def _options(self, form: dict[Any, Any], kind: Kind) -> list[str]:
        """The form as options of ``convert``.

        Raises:
            SettingsError: something in it is missing or out of range.
        """
        if not form[self.targets]:
            raise SettingsError(
                tr("No program is chosen to prove it for."), where=tr("Prove it for"), do=tr("Choose at least one.")
            )
        options = ["--to", form[self.format], "--privacy", form[self.privacy]]
        options += [part for target in form[self.targets] for part in ("--target", target)]
        options += ["--dtype", form[self.number]] if form[self.number] else []
        words_kept = form.get(self.words) or "bundled"
        options += ["--words", words_kept] if words_kept != "bundled" else []
        return options + (self._options_of_a_form(form, kind) if kind.readers else [])

    def _options_of_a_form(self, form: dict[Any, Any], kind: Kind) -> list[str]:
        chosen: Form = form[self.form] or usual_form(kind, form[self.format])
        base = form[self.base] if kind.needs_base else ""
        rank = (form[self.rank] or 0) if chosen == "lora" else 0
        if not 0 <= rank <= _HIGHEST_RANK:
            raise SettingsError(
                tr("The rank must be from 0 to {most:,}; it is {rank}.", most=_HIGHEST_RANK, rank=words.value(rank)),
                where=tr("Rank"),
                do=tr("Change the number, then try again."),
            )
        more = [*(["--base", tidy(base)] if base else []), *(["--rank", str(int(rank))] if rank else [])]
        return ["--form", chosen, *more]

    def _made(self, entry: Entry, options: list[str], kind: str, name: str) -> str:
        """The exported file as HTML: its proof and the link to it."""
        with exported(entry, options, kind, name, self.outputs) as (path, result):
            link, size = downloads.link(path, self.outputs, tr("Download")), path.stat().st_size
            if kind == "kohya":
                offered = downloads.offered(path, self.outputs)
                link += sending.buttons(cards.key(entry, self.outputs), self.outputs, offered)
        facts = words.facts((cards.family(entry), words.size(size), _METADATA[result["privacy"]]))
        file = (
            f'<div class="file"><div><h3>{words.text(path.name)}</h3>{facts}</div><div class="ways">{link}</div></div>'
        )
        return file + _proved(result["residual"]) + proof(result["proof"])


def _empty() -> str:
    sentences = tr(
        "Choose an adapter and press {button}. The file is read back the way each program reads it, and compared with "
        "the adapter layer by layer. It appears here once the proof passes.",
        button=press(tr("Export and prove")),
    )
    return blank("export", tr("Nothing exported yet"), sentences)


def _none() -> str:
    """That there is nothing to export."""
    told = tr(
        "There is no adapter yet. {train}, or {add}.",
        train=link("train", tr("Train one")),
        add=link("library", tr("add one to the library")),
    )
    return f'<p class="hint">{told}</p>'


def _has_both(entry: Entry) -> bool:
    """Whether it has learned words and layers, so that the two can be told apart."""
    return bool(entry.words and entry.modules)


def _proved(residual: float) -> str:
    """What the passed proof means. ``residual`` is the part of the change that a plain LoRA made of it lacks."""
    if not residual:
        return done(tr("Proved: every program that you chose reads the adapter as it is here."))
    proved = tr("Proved: every program that you chose reads this plain LoRA as it was written.")
    small = residual < 1e-4
    share = number(residual, ".1e") if small else tr("{share:.2g} %", share=100 * residual)
    difference = tr("The plain LoRA's change differs from the adapter's by {share}.", share=share)
    if residual < _MUCH:
        return done(proved, difference)
    return done(proved) + words.notice(
        "warned", difference, do=tr("A higher rank makes it more exact, the full difference exact.")
    )


def _tells(level: str) -> str:
    return f'<p class="blurb" id="tells">{words.text(PRIVACY[level][1])}</p>'
