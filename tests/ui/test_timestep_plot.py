"""The small drawing of how often each noise level is trained at."""

import re

from lora_studio.ui.pages.train import timestep_plot
from lora_studio.ui.pages.train.setup import Setup


def heights(html: str) -> list[float]:
    """Of the drawing's outline, in thousandths of its height."""
    [outline] = re.findall(r'class="trend" d="M([^"]+)"', html)
    return [1000 - float(point.split()[1]) for point in outline.split("L")]


def test_uniform_draws_are_a_box_and_those_of_a_range_a_narrower_one():
    whole = heights(timestep_plot.chart(0, 1, "uniform", -6, 2))
    assert len(set(whole[1:-1])) == 1 and (whole[0], whole[-1]) == (0, 0)
    half = heights(timestep_plot.chart(0.5, 1, "uniform", -6, 2))
    assert half[1:101] == [0] * 100 and len(set(half[101:-1])) == 1
    assert "100% of the draws are in the noisier half" in timestep_plot.chart(0.5, 1, "uniform", -6, 2)


def test_biased_draws_rise_towards_where_there_are_more():
    noise, style = (heights(timestep_plot.chart(0, 1, bias, -6, 2)) for bias in ("noise", "lognormal"))
    assert noise[1:-1] == sorted(noise[1:-1]) and style[-2] > 10 * style[60]
    assert "75% of" in timestep_plot.chart(0, 1, "noise", -6, 2)
    assert "25% of" in timestep_plot.chart(0, 1, "detail", -6, 2)


def test_what_the_form_refuses_is_not_drawn():
    assert timestep_plot.chart(0.5, 0.5, "uniform", -6, 2) == timestep_plot.chart(None, 1, "uniform", -6, 2) == ""
    assert timestep_plot.chart(0, 1, "no such", -6, 2) == ""


def test_it_stands_below_the_settings_and_starts_with_their_values(tmp_path):
    import gradio as gr

    with gr.Blocks():
        setup = Setup(tmp_path)
    assert setup.timesteps.value == timestep_plot.chart(0.0, 1.0, "uniform", -6.0, 2.0)
