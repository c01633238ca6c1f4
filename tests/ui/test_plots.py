"""The loss chart: what is drawn is what was measured, however many steps there are."""

import math
import re

import pytest

from lora_studio.ui import plots


def test_smoothing_by_hand():
    """The first smoothed values hang near zero, because the average starts there."""
    assert plots.smoothed([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.5 * 0.5 + 1.5) / 0.75])
    assert plots.smoothed([2.0] * 5, 0.99) == pytest.approx([2.0] * 5)
    assert plots.smoothed([1.0, 5.0, 2.0], 0) == [1.0, 5.0, 2.0]


def test_thinning_keeps_a_single_spike():
    """A loss that jumped once is not seen in a long run."""
    points = [(float(i), 0.1) for i in range(50_000)]
    points[31_234] = (31_234.0, 9.0)
    points[40_001] = (40_001.0, -9.0)
    kept = plots.thinned(points)
    assert len(kept) <= plots.MOST_POINTS and {points[31_234], points[40_001]} <= set(kept)
    assert kept == sorted(kept)
    assert plots.thinned(points[:10]) == points[:10]


def test_a_long_run_stays_small():
    """Each update of a long run sends megabytes to the browser."""
    points = [(float(i), 0.1 + 0.01 * math.sin(i)) for i in range(100_000)]
    assert len(plots.loss(points, points[::500], 100_000)) < 20_000


def test_a_long_run_is_drawn_in_stretches():
    """A line through fifty thousand noisy steps is a black block, and so is a trend that follows each of them; or one
    step that jumped is not seen.
    """
    noise = [(float(step), 0.1 + 0.1 * (step % 10)) for step in range(1, 50_001)]
    noise[31_233] = (31_234.0, 9.0)
    found = plots.stretches(noise)
    assert len(found) == plots.STRETCHES == 150 and found[-1].step == 50_000
    assert found[0][1:] == pytest.approx((0.1, 0.2, 0.55, 0.9, 1.0), abs=0.01)
    assert max(one.highest for one in found) == 9.0
    html = plots.loss(noise, [], 50_000)
    assert html.count('class="spread"') == 2 and 'class="raw"' not in html and "8 of 10 steps" in html
    (trend,) = re.findall(r'class="trend" d="M([^"]*)"', html)
    assert trend.count("L") == 149
    assert 'class="raw"' in plots.loss(noise[:400], [], 400)


def test_a_run_of_two_steps_counts_whole_steps():
    """The axis of a first short try reads 0, 0, 1, 2, 2."""
    labels = re.findall(r'class="tick across"[^>]*>([^<]*)<', plots.loss([(1, 0.5), (2, 0.4)], [], 2))
    assert labels == ["0", "1", "2"]


def test_the_line_stands_where_the_loss_is():
    """The curve is upside down, or shifted against its labels."""
    html = plots.loss([(0, 1.0), (100, 0.0)], [], 100, smoothing=0)
    (line,) = re.findall(r'class="trend" d="M([^"]*)"', html)
    (x0, y0), (x1, y1) = (map(float, point.split()) for point in line.split("L"))
    low, high = (float(part) for part in re.search(r'data-frame="\S+ (\S+) (\S+)"', html).groups())
    assert (x0, x1) == (0, 1000)
    assert y0 == pytest.approx(1000 * (high - 1) / (high - low), abs=1) and y1 == pytest.approx(
        1000 * high / (high - low), abs=1
    )
    assert y0 < y1


@pytest.mark.parametrize("losses", [[], [0.1], [math.nan], [0.1, math.inf, 0.1], [0.0, 0.0], [-0.5, -0.5], [1e30]])
def test_odd_losses_are_drawn_or_left_out(losses):
    """A NaN, or a loss that never moves, breaks the page's timer for good."""
    steps = list(enumerate(losses, 1))
    html = plots.loss(steps, steps, 10)
    assert "nan" not in html.lower() and "inf" not in html.lower()


def test_the_lowest_validation_and_the_proposed_step_stand_where_they_are():
    """The reader takes the lowest validation for the best state, or the line stands at another step."""
    html = plots.loss([(0, 1.0), (200, 0.0)], [(50, 0.8), (100, 0.4), (200, 0.6)], 200, proposed=150)
    low, high = (float(part) for part in re.search(r'data-frame="\S+ (\S+) (\S+)"', html).groups())
    (left, top) = re.search(r'class="lowest" style="left:([\d.]+)%;top:([\d.]+)%"', html).groups()
    assert float(left) == 50 and float(top) == pytest.approx(100 * (high - 0.4) / (high - low), abs=0.1)
    assert "lowest at step 100" in html and 'class="proposed" style="left:75%"' in html and "★ 150" in html
    assert "need not be the best state" in html and "no sign of copying" in html
    assert "proposed" not in plots.loss([(0, 1.0), (200, 0.0)], [], 200)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.99])
def test_one_spike_does_not_flatten_the_rest(smoothing):
    """After one huge loss the curve is a line on the floor."""
    points = [(float(i), 0.1 if i != 500 else 1000.0) for i in range(1000)]
    high = float(re.search(r'data-frame="\S+ \S+ (\S+)"', plots.loss(points, [], 1000, smoothing)).group(1))
    assert high < (1 if smoothing < 0.9 else 20)
