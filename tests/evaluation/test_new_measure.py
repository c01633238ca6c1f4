"""A measure is added in one file: this one adds one, and it reaches log, view, page and terminal by itself."""

import pytest

from lora_studio import events
from lora_studio.cli.watch import _interval
from lora_studio.evaluation import registry
from lora_studio.evaluation.measure import Measure
from lora_studio.evaluation.value import Value
from lora_studio.events import Finished, Measured, RolledBack, Started, Validated
from lora_studio.jobs import view
from lora_studio.training.loop import train
from lora_studio.ui import plots

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import new_run, pictures, settings, tiny_base  # noqa: F401


class Norm(Measure):
    """How far the adapter's second factors are from zero, with an interval of a tenth."""

    name, title = "norm", "Length of B"

    def measure(self, session):
        length = sum(float(p.detach().norm()) for name, p in session.parameters.items() if ".lora_B." in name)
        return Value(length, 0.9 * length, 1.1 * length)


@pytest.fixture
def measured(monkeypatch, new_run, settings):  # noqa: F811
    """A run with the measure in its log, folded."""
    monkeypatch.setitem(registry.MEASURES, "norm", Norm())
    run = new_run(settings.changed(preview_every=0))
    run.events_file.write_text("".join(f"{event.line()}\n" for event in train(run, run.settings())))
    return view.fold(run)


def test_its_values_are_logged_and_folded_beside_the_validation_loss(measured):
    assert list(measured.measures) == ["validation", "norm"]
    lengths = measured.measures["norm"]
    assert [one.step for one in lengths] == [0, 2, 4] and isinstance(measured.latest, Finished)
    assert lengths[0].value == 0 < lengths[1].value and lengths[2].high == pytest.approx(1.1 * lengths[2].value)
    assert len(measured.validations) == 3


def test_the_page_draws_it_with_its_interval_and_the_terminal_says_it(measured):
    lengths = measured.measures["norm"]
    chart = plots.measure(lengths, 4)
    assert "Length of B" in chart and chart.count('class="band"') == 1
    assert _interval(lengths[0]) == " (0 to 0)"
    assert plots.measure([Measured(step=1, name="x", title="<b>", value=float("nan"))], 4) == ""
    assert "<b>x" not in plots.measure([Measured(step=1, name="x", title="<b>x", value=1.0)], 4)


def test_a_run_that_goes_back_forgets_what_was_measured_since():
    seen = view.RunView()
    seen.apply(Started(total_steps=9, images=1, device="cpu", precision="fp32", parameters=1, modules=1))
    for step in (2, 4):
        seen.apply(Measured(step=step, name="norm", title="Length of B", value=step))
        seen.apply(Validated(step=step, loss=1 / step))
    seen.apply(RolledBack(step=3, failed_step=5, factor=0.5, what="Back."))
    assert {name: [one.step for one in values] for name, values in seen.measures.items()} == {
        "norm": [2],
        "validation": [2],
    }


def test_the_event_reads_back_from_its_line():
    event = Measured(step=3, name="norm", title="Length of B", value=0.5, low=0.25, high=0.75)
    assert events.parse(event.line()) == event
