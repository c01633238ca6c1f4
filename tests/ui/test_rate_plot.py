"""The chart of tried learning rates."""

import math
import re

from lora_studio.events import RateFound, Started
from lora_studio.jobs.view import RunView
from lora_studio.ui import rate_plot

FOUND = RateFound(rate=1e-3, low=1e-5, high=0.1, rates=(1e-4, 1e-3, 1e-2), losses=(0.5, 0.4, 0.3))


def test_the_axis_is_logarithmic_and_the_found_rate_is_marked():
    html = rate_plot.chart(FOUND)
    (path,) = re.findall(r'class="trend" d="M([^"]*)"', html)
    assert [float(point.split()[0]) for point in path.split("L")] == [0, 500, 1000]
    assert re.findall(r'across" style="left:([\d.]+)%">([^<]*)', html) == [
        ("0", "0.0001"),
        ("50", "0.001"),
        ("100", "0.01"),
    ]
    assert 'class="proposed" style="left:50%"' in html and ">0.001</span>" in html
    assert "Found the learning rate 0.001 between 1e-5 and 0.1." in html


def test_a_loss_that_blew_up_does_not_flatten_the_rest():
    html = rate_plot.chart(FOUND.model_copy(update={"losses": (0.5, 0.4, math.inf)}))
    (path,) = re.findall(r'class="trend" d="M([^"]*)"', html)
    assert path.count("L") == 1


def test_where_nothing_was_found_the_sentence_says_so():
    none = RateFound(rate=2e-4, found=False, low=1e-5, high=0.1)
    assert rate_plot.chart(none) == (
        '<p class="hint">No learning rate between 1e-5 and 0.1 lowered the loss clearly: it stays 0.0002.</p>'
    )
    assert "proposed" not in rate_plot.chart(FOUND.model_copy(update={"found": False}))


def test_a_view_keeps_it_when_the_run_begins_and_resumes():
    view, started = RunView(), Started(total_steps=9, images=3, device="CPU", precision="fp32", parameters=1, modules=1)
    for event in (FOUND, started, started.model_copy(update={"first_step": 4})):
        view.apply(event)
    assert view.rate == FOUND
