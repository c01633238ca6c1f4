"""*Check memory* on the Train page: what it shows while it runs, that it can be cancelled, and that settings that would
fit can be applied.
"""

import threading

import gradio as gr
import pytest

from lora_studio import runs
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.specs import SPECS
from lora_studio.errors import MachineError
from lora_studio.events import Preparing, Started, State, StateChanged, StepDone
from lora_studio.jobs import command
from lora_studio.ui.fields import to_field
from lora_studio.ui.pages.train import check as page
from lora_studio.ui.pages.train import memory_report
from lora_studio.ui.pages.train.check import CheckState
from lora_studio.ui.pages.train.setup import Setup
from tests.ui.played import until

GB = 2**30
WAYS = [
    {"changes": {"checkpointing": "all"}, "peak": 5 * GB},
    {"changes": {"batch": 1, "accumulate": 4}, "peak": 6 * GB},
]
ESTIMATED = {"device": "<b>Card</b>", "limit": 8 * GB, "estimate": {"peak": 3 * GB}, "fits": True, "would_fit": []}
TIGHT = ESTIMATED | {"estimate": {"peak": 12 * GB}, "fits": False, "would_fit": WAYS}
MEASURED = {
    "peak": 4 * GB,
    "step_seconds": 0.5,
    "previews": True,
    "copies": 240,
    "encoding_seconds": 75.0,
    "cached": GB,
}
STARTED = Started(total_steps=2, images=9, device="Card", precision="bf16", parameters=1, modules=1)


def told(event):
    return event.model_dump(mode="json")


@pytest.fixture
def check(tmp_path):
    with gr.Blocks():
        return Setup(tmp_path / "outputs").check


@pytest.fixture
def values(check, pictures):
    """What the form holds, with a folder that can be trained on."""
    return [
        {"data": str(pictures), "steps": 240, "batch": 4}.get(key, to_field(SPECS[key], SPECS[key].default))
        for key in check.form.fields
    ]


class Played(command.CommandProcess):
    """A process that says what the test wants."""

    made: list["Played"]
    says: list

    def __init__(self, *arguments):
        self.arguments, self.ended = arguments, False
        self.settings = presets.read(arguments[2]).settings
        self.made.append(self)

    def objects(self):
        for one in self.says:
            if self.ended:
                return
            if isinstance(one, Exception):
                raise one
            if isinstance(one, threading.Event):
                one.wait(60)
            else:
                yield one

    def end(self):
        self.ended = True


@pytest.fixture
def process(monkeypatch):
    """What is put into ``says`` is said by every process that is started; those that were are in ``made``."""
    kind = type("OfThisTest", (Played,), {"made": [], "says": []})
    monkeypatch.setattr(page, "CommandProcess", kind)
    return kind


def texts(check, answers):
    """What each answer shows of the check."""
    return [answer[check.outcome]["value"] for answer in answers]


def clicked(check, seen, event):
    """What a press on a button in the result shows, whether the note of staleness does, and the fields it fills."""
    updates = check.pressed(seen, gr.EventData(None, event))
    fields = {key: updates[field]["value"] for key, field in check.form.fields.items() if field in updates}
    return updates[check.outcome], updates[check.stale]["visible"], fields


def test_it_is_told_as_it_is_found(check, values, process):
    """A minute without any sign, or a press that starts nothing."""
    process.says = [
        {"estimated": ESTIMATED},
        told(StateChanged(state=State.PREPARING)),
        told(Preparing(stage="pictures", done=3, total=9)),
        told(STARTED),
        told(StepDone(step=1, loss=1, learning_rate=1)),
        ESTIMATED | {"measured": MEASURED},
    ]
    seen = CheckState()
    *busy, last, end = list(check.run(seen, *values))
    said = texts(check, busy)
    assert (
        "reading the base model" in said[0]
        and "about 3.0 GB of the 8.0 GB of &lt;b&gt;Card&lt;/b&gt;. It should fit" in said[1]
    )
    assert ["pictures, 3 of 9" in said[3], "step 1 of 2" in said[4], "step 2 of 2" in said[5]] == [True] * 3 and all(
        "Estimate" in one for one in said[1:]
    )
    assert all(not answer[check.button]["interactive"] for answer in busy)
    assert end[check.button] == gr.update(value="Check memory", interactive=True)
    (shown,) = texts(check, [last])
    assert "It fits." in shown and "used 4.0 GB of the 8.0 GB" in shown
    assert "about 0.50 s, so 240 steps take about 2 minutes" in shown
    assert "in the cache" not in shown, "there are no copies"
    assert last[check.outcome] == end[check.outcome]
    (made,) = process.made
    assert (
        made.ended
        and made.arguments[:2] == ("train", "--preset")
        and made.arguments[3:] == ("--dry-run", "--outputs", check.outputs)
    )
    assert (made.settings["batch"], made.settings["data"]) == (4, values[0]) and not made.arguments[2].exists()
    assert not check.changed(seen, tuple(values))["visible"]
    changed = check.changed(seen, (*values[:-1], "another"))
    assert changed["visible"] and "changed since" in changed["value"]


def test_what_copies_take_is_told():
    settings = Settings(augment_rotation=5)
    shown = memory_report.result(ESTIMATED | {"measured": MEASURED, "fits": True}, settings)
    assert "Its 240 pictures and copies take 1.0 GB in the cache" in shown and "encoded in 75 seconds" in shown


def test_a_press_returns_at_once_and_the_timer_shows_the_rest(check, values, process):
    """A check that ended long ago stands at "drawing a preview"."""
    go_on = threading.Event()
    process.says = [{"estimated": ESTIMATED}, go_on, ESTIMATED | {"measured": MEASURED}]
    seen = CheckState()
    first = check.begin(seen, *values)
    assert "reading the base model" in first[check.outcome]["value"] and first[check.again]["active"]
    until(lambda: "It should fit" in check.now(seen)[check.outcome]["value"])
    now = check.now(seen)
    assert now[check.again]["active"] and not now[check.button]["interactive"]
    go_on.set()
    until(lambda: "It fits." in check.now(seen)[check.outcome]["value"])
    until(lambda: not check.now(seen)[check.again]["active"])
    assert check.now(seen)[check.button] == gr.update(value="Check memory", interactive=True)


@pytest.mark.fault(36)
@pytest.mark.parametrize(("measured", "said"), [
    (None, "It does not fit."),
    (MEASURED | {"peak": 9 * GB}, "used 9.0 GB of the 8.0 GB"),
    (MEASURED | {"previews": False}, "Training fits, but a preview does not."),
])  # fmt: skip
def test_what_would_fit_is_one_press_away(check, values, process, measured, said):
    """The advice has to be found among fifty fields."""
    process.says = [{"estimated": TIGHT}, TIGHT | {"measured": measured}]
    seen = CheckState()
    _, estimated, last, _ = texts(check, check.run(seen, *values))
    assert "It probably does not fit" in estimated and said in last
    assert all(
        one in text
        for text in (estimated, last)
        for one in ("Gradient checkpointing: All blocks <span>about 5.0 GB", "Batch size: 1 · Gradient accumulation: 4")
    )
    outcome, stale, fields = clicked(check, seen, {"act": "apply", "option": "1"})
    assert fields == {"batch": "1", "accumulate": "4"}
    assert "Applied: Batch size: 1 · Gradient accumulation: 4." in outcome["value"] and not stale
    assert not check.changed(seen, ())["visible"], "nothing of the check is shown any more"


@pytest.mark.parametrize(
    "event", [{"act": "apply", "option": "7"}, {"act": "apply", "option": "-1"}, {"act": "close", "option": ""}]
)
def test_nothing_else_can_be_applied(check, values, process, event):
    process.says = [TIGHT | {"measured": None}]
    seen = CheckState()
    list(check.run(seen, *values))
    outcome, _, fields = clicked(check, seen, event)
    assert not outcome["visible"] and fields == {}


def test_it_measures_what_cannot_be_estimated(check, values, process):
    unknown = ESTIMATED | {"estimate": None, "fits": None}
    process.says = [{"estimated": unknown}, unknown | {"fits": False, "measured": None}]
    said = texts(check, check.run(CheckState(), *values))
    assert "cannot be estimated. A few steps" in said[1]
    assert "Which settings would fit cannot be estimated" in said[-1] and "smaller base model" not in said[-1]


def test_it_says_when_no_setting_would_fit(check, values, process):
    process.says = [ESTIMATED | {"fits": False, "measured": None}]
    assert "Use a smaller base model" in texts(check, check.run(CheckState(), *values))[-1]


@pytest.mark.parametrize("ends", ["cancel", "start", "apply", "again", "another"])
def test_it_is_ended_before_its_time(check, values, process, ends):
    """It keeps the device busy though nobody waits for it, or its last answer covers what came after."""
    process.says = [{"estimated": TIGHT}, {"estimated": TIGHT}, TIGHT | {"measured": None}]
    left = runs.trials_folder(check.outputs) / f"trial.{2**22 + 1}.partial"
    left.mkdir(parents=True)
    seen = CheckState()
    answers = check.run(seen, *values)
    next(answers), next(answers)
    match ends:
        case "cancel" | "apply":
            clicked(check, seen, {"act": "apply" if ends == "apply" else "close", "option": "0"})
        case "start":
            check.close(seen)
        case "again":
            next(new := check.run(seen, *values))
        case "another":
            next(other := check.run(CheckState(), *values))
            next(other)
    rest = list(answers)
    assert process.made[0].ended and not rest and not left.exists()
    if ends == "again":
        assert "It does not fit" in texts(check, new)[-1]
        return
    now = check.now(seen)
    assert now[check.button] == gr.update(value="Check memory", interactive=True) and not now[check.again]["active"]
    shown = now[check.outcome]
    assert shown["visible"] == (ends == "apply") and ("Applied" in shown["value"]) == (ends == "apply")


def test_a_mistake_is_told_and_the_button_comes_back(check, values, process):
    """What, where, what to do; and nothing is started for a form that is wrong."""
    process.says = [
        {"estimated": ESTIMATED},
        MachineError("It ended before it had a result.", where="train", do="Close other programs."),
    ]
    end = list(check.run(CheckState(), *values))[-1]
    (shown,) = texts(check, [end])
    assert all(part in shown for part in ("It ended before it had a result.", "train", "Close other programs."))
    assert end[check.button]["interactive"]
    wrong = [0 if key == "rank" else value for key, value in zip(check.form.fields, values, strict=True)]
    (end,) = check.run(CheckState(), *wrong)
    assert "Rank must be" in end[check.outcome]["value"] and len(process.made) == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "asked"),
    [("auto", "auto", True), ("cuda", "auto", True), ("cpu", "cpu", True), ("cuda", "cpu", False)],
)
def test_beside_a_run_on_the_same_device_it_asks_first(check, values, process, part, theirs, ours, asked):
    """The check fills the memory of a run at work, which fails."""
    part("ink", check.outputs, device=theirs).lives()
    values[list(check.form.fields).index("device")] = ours
    process.says = [ESTIMATED | {"measured": MEASURED}]
    seen = CheckState()
    first = list(check.run(seen, *values))[-1]
    assert ("ink trains on this device" in first[check.outcome]["value"]) == asked == (not process.made)
    assert first[check.button]["value"] == ("Check anyway" if asked else "Check memory")
    assert "It fits." in texts(check, check.run(seen, *values))[-1]
