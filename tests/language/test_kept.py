"""What is kept on the disk is told in its reader's language: a run's log, the steps of a dataset, a job's title."""

import gettext
import json

import pytest
from PIL import Image

from lora_studio import events as e
from lora_studio.curation.history import StepHead
from lora_studio.curation.workbench import Workbench
from lora_studio.dataset import folder
from lora_studio.errors import RunError
from lora_studio.jobs import eventlog, view
from lora_studio.language import catalogue, few, in_sequence, ntr, tr, using
from lora_studio.runs import Run

GERMAN = {
    "The run continues. {do}": "Der Lauf geht weiter. {do}",
    "Free {room:.1f} GB.": "Gib {room:.1f} GB frei.",
    "{some} and {more:,} more": "{some} und {more:,} weitere",
    "{first} {then}": "{first} {then}",
    "Internal error: {name}: {error}": "Interner Fehler: {name}: {error}",
    "Found the learning rate {rate} between {low} and {high}.": "Lernrate {rate} zwischen {low} und {high} gefunden.",
    "{predicts} – {reason}": "{predicts} – {reason}",
    "noise": "Rauschen",
    "the file says so": "so steht es in der Datei",
    "judging this state": "dieser Stand wird beurteilt",
    "{name} was added.": "{name} kam hinzu.",
    "Undone: {title}.": "Rückgängig gemacht: {title}.",
}
PLURALS = {
    "{count:,} caption changed": ("{count:,} Bildtext geändert", "{count:,} Bildtexte geändert"),
    "{count:,} picture has no caption: {names}.": (
        "{count:,} Bild hat keinen Bildtext: {names}.",
        "{count:,} Bilder haben keinen Bildtext: {names}.",
    ),
}


class German(gettext.NullTranslations):
    """A small catalogue."""

    def gettext(self, message):
        return GERMAN.get(message, message)

    def ngettext(self, msgid1, msgid2, n):
        one, many = PLURALS.get(msgid1, (msgid1, msgid2))
        return one if n == 1 else many


@pytest.fixture(autouse=True)
def german(monkeypatch):
    known = {"de": German()}
    monkeypatch.setattr(catalogue, "translations", lambda language: known.get(language, gettext.NullTranslations()))


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "ink")
    made.folder.mkdir()
    return made


def logged(run, *happened):
    """A worker, which speaks English, writes what happened."""
    log = eventlog.EventLog(run.events_file)
    for one in happened:
        log.append(one)


def test_a_log_that_a_worker_wrote_in_english_reads_in_the_readers_language(run):
    """Warnings of German runs told in English."""
    more = few(["a.png", "b.png", "c.png", "d.png"], 2)
    do = tr("The run continues. {do}", do=tr("Free {room:.1f} GB.", room=1.5))
    logged(run, e.Warned(what=in_sequence([tr("{name} was added.", name="a.png"), more]), do=do))
    with using("de"):
        warned = view.fold(run).warnings[0]
        assert f"{warned.what}" == "a.png kam hinzu. a.png, b.png und 2 weitere"
        assert str(warned.do) == "Der Lauf geht weiter. Gib 1,5 GB frei."
    assert str(warned.do) == "The run continues. Free 1.5 GB."


def test_an_old_log_with_plain_texts_still_reads(run):
    """A run of an earlier version that the page can no longer show."""
    run.events_file.write_text(
        '{"at":1.0,"kind":"base","name":"SDXL","family":"SDXL","predicts":"noise","reason":"the file says so"}\n'
        '{"at":2.0,"kind":"warned","what":"The disk is full.","where":"/data","do":"Free some space."}\n'
        '{"at":3.0,"kind":"failed","what":"It broke.","where":"worker.log","do":"Resume it.","ours":true}\n'
    )
    with using("de"):
        seen = view.fold(run)
    assert seen.warnings[0].what == "The disk is full." and seen.failed.do == "Resume it."
    assert seen.base.sentence == "Base model SDXL, SDXL. It predicts: noise – the file says so."


def test_an_error_is_kept_with_its_parts(run):
    """The reason why a run failed, in English on a German page."""
    logged(run, e.Failed.of(RunError(tr("{name} was added.", name="a.png"), do=tr("Free {room:.1f} GB.", room=2.5))))
    logged(run, e.Failed.of(ZeroDivisionError("division by zero")))
    with using("de"):
        first, last = eventlog.read(run.events_file, 0)[0]
        assert [str(first.what), str(first.do)] == ["a.png kam hinzu.", "Gib 2,5 GB frei."]
        assert str(last.what) == "Interner Fehler: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            e.RateFound(rate=1e-4, low=1e-6, high=1e-2),
            "Lernrate 0.0001 zwischen 1e-6 und 0.01 gefunden.",
        ),
        (
            e.BaseLoaded(name="SDXL", family="SDXL", predicts=tr("noise"), reason=tr("the file says so")),
            "Base model SDXL, SDXL. It predicts: Rauschen – so steht es in der Datei.",
        ),
    ],
)
def test_sentences_of_events_are_said_anew(event, sentence):
    """Half a sentence in another language than the other half."""
    again = e.parse(event.line())
    with using("de"):
        assert str(again.sentence) == sentence


def test_programs_get_english_texts_without_parts():
    """JSON that other programs read, with records in place of texts."""
    with using("de"):
        event = e.Warned(at=1.0, what=tr("{name} was added.", name="a.png"), where="data")
        told = json.loads(event.printed())
    assert told == {"at": 1.0, "kind": "warned", "what": "a.png was added.", "where": "data", "do": ""}


def test_a_stage_is_told_in_the_readers_language(run):
    """A stage that stays English below a German bar of progress."""
    logged(run, e.Preparing(stage=tr("judging this state"), done=0, total=1))
    with using("de"):
        assert str(view.fold(run).preparing.stage) == "dieser Stand wird beurteilt"


def test_the_steps_of_a_dataset_are_told_in_the_readers_language(tmp_path):
    """What can be undone, in English on a German page."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    bench = Workbench(tmp_path)
    bench.allow()
    assert bench.edit_captions({"a.png": "a boat"}).sentence == "1 caption changed."
    with using("de"):
        assert bench.undoable == "1 Bildtext geändert"
        assert bench.undo().sentence == "Rückgängig gemacht: 1 Bildtext geändert."
        assert bench.redoable == "1 Bildtext geändert"


def test_steps_of_earlier_versions_still_read():
    """A history of plain titles that can no longer be undone."""
    old = StepHead.model_validate_json('{"title":"3 captions changed","names":["a.png"],"at":1.0}')
    assert old.title == "3 captions changed"
    new = StepHead(title=ntr(3, "{count:,} caption changed", "{count:,} captions changed"), names=(), at=1.0)
    with using("de"):
        assert str(StepHead.model_validate_json(new.model_dump_json()).title) == "3 Bildtexte geändert"


def test_a_problem_of_a_dataset_is_said_anew(tmp_path):
    """A scan that an English request made, shown to a German one."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    found = next(one for one in folder.scan(tmp_path).problems if one.kind == "no caption")
    assert str(found.what) == "1 picture has no caption: a.png."
    with using("de"):
        assert str(found.what) == "1 Bild hat keinen Bildtext: a.png."
