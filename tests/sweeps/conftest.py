"""Studies whose trials measure a formula, since choosing and keeping them must work whatever they do."""

import pytest

from lora_studio.config.settings import Settings
from lora_studio.evaluation.value import Value
from lora_studio.sweeps import space, study
from lora_studio.sweeps.outcome import TrialOutcome
from lora_studio.sweeps.study import StudyPlan


def outcome(style, subject=0.5, copies=0, step=10):
    """What a trial of that style found: its samples lie evenly within 1 of it."""
    samples = tuple(style - 1 + 2 * i / 99 for i in range(100))
    return TrialOutcome(
        step=step, style=Value(style, style - 5, style + 5), subject=Value(subject, subject - 0.05, subject + 0.05),
        level=0.4, drift=1.0, copies=copies, samples=samples,
    )  # fmt: skip


@pytest.fixture
def new_study(tmp_path):
    """Makes a study of a sweep's table, by default with a journal, which is quicker than a database."""

    def make(table, name="study", storage=str(tmp_path / "trials.log")):
        plan = StudyPlan(
            sweep=space.checked(table, "my.toml"), settings=Settings(data="pictures").flat(), storage=storage
        )
        return study.create(plan, name, tmp_path / "outputs")

    return make
