"""The check of the memory on the Train page: what it says as it goes, that it can be ended, and that what would fit can
be taken.
"""

import gradio as gr
import pytest

from lora_studio import runs
from lora_studio.config import presets
from lora_studio.config.settings import SPECS
from lora_studio.errors import MachineError
from lora_studio.events import Preparing, Started, State, StateChanged, StepDone
from lora_studio.jobs import command
from lora_studio.ui.form import shown
from lora_studio.ui.pages.train import check as page
from lora_studio.ui.pages.train.check import Seen
from lora_studio.ui.pages.train.setup import Setup

GB = 2**30
WAYS = [
    {"changes": {"checkpointing": "all"}, "peak": 5 * GB},
    {"changes": {"batch": 1, "accumulate": 4}, "peak": 6 * GB},
]
RECKONED = {"device": "<b>Card</b>", "limit": 8 * GB, "estimate": {"peak": 3 * GB}, "fits": True, "would_fit": []}
TIGHT = RECKONED | {"estimate": {"peak": 12 * GB}, "fits": False, "would_fit": WAYS}
MEASURED = {"peak": 4 * GB, "step_seconds": 0.5, "previews": True}
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
        {"data": str(pictures), "steps": 240, "batch": 4}.get(key, shown(SPECS[key], SPECS[key].default))
        for key in check.form.fields
    ]


class Played(command.Command):
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
            yield one

    def end(self):
        self.ended = True


@pytest.fixture
def process(monkeypatch):
    """What is put into ``says`` is said by every process that is started; those that were are in ``made``."""
    kind = type("OfThisTest", (Played,), {"made": [], "says": []})
    monkeypatch.setattr(page, "Command", kind)
    return kind


def texts(answers):
    return [answer[1]["value"] for answer in answers]


def test_it_is_told_as_it_is_found(check, values, process):
    """A minute of silence, or the press of a button that starts nothing."""
    process.says = [
        {"reckoned": RECKONED},
        told(StateChanged(state=State.PREPARING)),
        told(Preparing(stage="pictures", done=3, total=9)),
        told(STARTED),
        told(StepDone(step=1, loss=1, learning_rate=1)),
        RECKONED | {"measured": MEASURED},
    ]
    seen = Seen()
    *busy, last, end = list(check.run(seen, *values))
    said = texts(busy)
    assert (
        "looking at the base model" in said[0]
        and "about 3.0 GB of the 8.0 GB of &lt;b&gt;Card&lt;/b&gt;. It should fit" in said[1]
    )
    assert ["pictures, 3 of 9" in said[3], "step 1 of 2" in said[4], "step 2 of 2" in said[5]] == [True] * 3 and all(
        "Reckoned" in one for one in said[1:]
    )
    assert all(not answer[3]["interactive"] for answer in busy) and end[3] == gr.update(
        value="Check memory", interactive=True
    )
    assert (
        "It fits." in last[1]["value"]
        and "took 4.0 GB of the 8.0 GB" in last[1]["value"]
        and "about 0.50 s, so 240 steps take about 2 minutes" in last[1]["value"]
        and last[1] == end[1]
    )
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


@pytest.mark.fault(36)
@pytest.mark.parametrize(("measured", "said"), [
    (None, "It does not fit."), (MEASURED | {"peak": 9 * GB}, "took 9.0 GB of the 8.0 GB"), (MEASURED | {"previews": False}, "Training fits, but a preview does not."),
])  # fmt: skip
def test_what_would_fit_is_one_press_away(check, values, process, measured, said):
    """The advice has to be found among fifty fields."""
    process.says = [{"reckoned": TIGHT}, TIGHT | {"measured": measured}]
    seen = Seen()
    _, reckoned, last, _ = texts(check.run(seen, *values))
    assert "It will hardly fit" in reckoned and said in last
    assert all(
        one in text
        for text in (reckoned, last)
        for one in ("Gradient checkpointing: All blocks <span>about 5.0 GB", "Batch: 1 · Accumulation: 4")
    )
    seen, outcome, stale, *filled = check.pressed(seen, gr.EventData(None, {"act": "take", "way": "1"}))
    fields = dict(zip(check.form.fields, filled, strict=True))
    assert {key: one["value"] for key, one in fields.items() if one != gr.skip()} == {"batch": 1, "accumulate": 4}
    assert "Taken: Batch: 1 · Accumulation: 4." in outcome["value"] and not stale["visible"]
    assert not check.changed(seen, ())["visible"], "nothing of the check is shown any more"


@pytest.mark.parametrize(
    "event", [{"act": "take", "way": "7"}, {"act": "take", "way": "-1"}, {"act": "close", "way": ""}]
)
def test_nothing_else_can_be_taken(check, values, process, event):
    process.says = [TIGHT | {"measured": None}]
    seen = Seen()
    list(check.run(seen, *values))
    _, outcome, _, *filled = check.pressed(seen, gr.EventData(None, event))
    assert not outcome["visible"] and set(map(str, filled)) == {str(gr.skip())}


def test_no_way_is_said(check, values, process):
    process.says = [RECKONED | {"fits": False, "measured": None}]
    assert "a smaller base model would" in texts(check.run(Seen(), *values))[-1]


@pytest.mark.parametrize("ends", ["cancel", "start", "take", "tab", "another"])
def test_it_is_ended_before_its_time(check, values, process, ends):
    """It holds the device on though nobody wants to know; or its last words cover what came after."""
    process.says = [{"reckoned": TIGHT}, {"reckoned": TIGHT}, TIGHT | {"measured": None}]
    left = runs.trials_folder(check.outputs) / f"trial.{2**22 + 1}.partial"
    left.mkdir(parents=True)
    seen = Seen()
    answers = check.run(seen, *values)
    next(answers), next(answers)
    match ends:
        case "cancel" | "take":
            check.pressed(seen, gr.EventData(None, {"act": "take" if ends == "take" else "close", "way": "0"}))
        case "start":
            check.close(seen)
        case "tab":
            answers.close()
        case "another":
            next(other := check.run(Seen(), *values))
            next(other)
    rest = list(answers)
    assert process.made[0].ended and not left.exists() and not any("It does not fit" in text for text in texts(rest))
    if ends != "tab":
        assert rest[-1][3] == gr.update(value="Check memory", interactive=True)
        assert rest[-1][1]["visible"] == (ends == "take") and ("Taken" in rest[-1][1]["value"]) == (ends == "take")


def test_a_mistake_is_told_and_the_button_comes_back(check, values, process):
    """What, where, what to do; and nothing is started for a form that is wrong."""
    process.says = [
        {"reckoned": RECKONED},
        MachineError("It ended before it had a result.", where="train", do="Close other programs."),
    ]
    end = list(check.run(Seen(), *values))[-1]
    assert (
        all(part in end[1]["value"] for part in ("It ended before it had a result.", "train", "Close other programs."))
        and end[3]["interactive"]
    )
    wrong = [0 if key == "rank" else value for key, value in zip(check.form.fields, values, strict=True)]
    (end,) = check.run(Seen(), *wrong)
    assert "Rank must be" in end[1]["value"] and len(process.made) == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "asked"),
    [("auto", "auto", True), ("cuda", "auto", True), ("cpu", "cpu", True), ("cuda", "cpu", False)],
)
def test_beside_a_run_on_the_same_device_it_asks_first(check, values, process, part, theirs, ours, asked):
    """The check fills the memory of a run at work, which fails."""
    part("ink", check.outputs, device=theirs).lives()
    values[list(check.form.fields).index("device")] = ours
    process.says = [RECKONED | {"measured": MEASURED}]
    seen = Seen()
    first = list(check.run(seen, *values))[-1]
    assert ("ink trains on this device" in first[1]["value"]) == asked == (not process.made) and first[3]["value"] == (
        "Check all the same" if asked else "Check memory"
    )
    assert "It fits." in texts(check.run(seen, *values))[-1]
