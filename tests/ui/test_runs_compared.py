"""Two runs compared: what both drew and measured, and the settings that differ."""

import re

from playwright.sync_api import expect

from lora_studio import events as e
from lora_studio.ui.pages.runs import comparison, curves
from lora_studio.ui.pages.train.live import RunWatcher
from tests.ui.played import judged


def two(part, outputs=None):
    """``ink`` for 30 steps at rank 8, and ``wash`` for 20 at rank 4, which drew with other seeds."""
    both = part("ink", outputs, rank=8, optimizer="adamw"), part("wash", outputs, rank=4, optimizer="lion")
    for played, last in zip(both, (30, 20), strict=True):
        played.begins()
        played.trains(1, last)
        for step in (10, last):
            played.draws(step)
            value = 0.3 - 0.005 * step
            played.says(e.Measured(step=step, name="validation", title="Validation", value=value))
        played.finishes(last)
    return both


def cells(html, name):
    """The two values of the row that is called so."""
    return re.search(rf'<th scope="row">{re.escape(name)}</th><td>(.*?)</td><td>(.*?)</td>', html).groups()


def test_what_both_measured_is_set_side_by_side(part, tmp_path):
    """Means over other steps are compared, or a setting that is the same hides those that differ."""
    ink, wash = two(part)
    html = comparison.html([ink.run, wash.run], {}, RunWatcher(tmp_path))
    assert cells(html, "Loss, mean of 20 steps to 20") == ("0.1895", "0.1895")
    assert cells(html, "Validation, at step 10") == ("0.2500", "0.2500")
    assert cells(html, "Lowest validation") == ("0.1500 at step 30", "0.2000 at step 20")
    assert cells(html, "Time of a step") == ("0.25 seconds", "0.25 seconds")
    assert cells(html, "Rank") == ("8", "4") and cells(html, "Optimizer") == ("AdamW", "Lion")
    assert "Name</th>" not in html and "Style learned" not in html
    assert re.search(r"\d+ other settings are the same\.", html)
    for run in (ink.run, wash.run):
        judged(run, 20, (40.0, 35.0, 45.0))
    judged(ink.run, 30, (60.0, 55.0, 65.0))
    html = comparison.html([ink.run, wash.run], {}, RunWatcher(tmp_path))
    assert cells(html, "Style learned, at step 20") == ("40.00 %", "40.00 %")
    assert cells(html, "Most style learned") == ("60.00 % at step 30", "40.00 % at step 20")


def test_pictures_of_the_same_prompts_stand_beside_each_other(part, tmp_path):
    """A picture stands beside one of another prompt, or a prompt can contain markup."""
    ink, wash = two(part)
    html = comparison.html([ink.run, wash.run], {0: 10}, RunWatcher(tmp_path))
    assert re.findall(r'alt="([^"]*)"', html) == [
        "a cat, ink, step 10",
        "a cat, wash, step 20",
        "&lt;b&gt;a house&lt;/b&gt;, ink, step 10",
        "&lt;b&gt;a house&lt;/b&gt;, wash, step 20",
    ]
    assert '<option value="10" selected>step 10</option><option value="30">' in html
    new = part("new")
    html = comparison.html([ink.run, new.run], {}, RunWatcher(tmp_path))
    assert "Curves" in html and "<img" not in html, "one that has not begun"
    same = comparison.html([ink.run, ink.run], {}, RunWatcher(tmp_path))
    assert "All settings are the same." in same
    (wash.run.folder / "settings.toml").write_text("rank = ")
    assert "notice wrong" in comparison.html([ink.run, wash.run], {}, RunWatcher(tmp_path))


def test_curves_share_one_frame():
    """A curve is drawn at the scale of its own chart, or an infinite loss empties the chart."""
    html = curves.chart("Loss", [[(0, 1.0), (10, 0.5)], [(0, 0.8), (5, float("nan")), (5, 0.6)]])
    assert 'class="one" d="M0 53.6L1000 946.4"' in html and 'class="other" d="M0 410.7L500 767.9"' in html
    assert curves.chart("Loss", [[], [(1, float("inf"))]]) == "" and "dots" not in html


def test_a_comparison_survives_a_reload(visit, studio, part):
    """The address leads to the list, or Back leads out of the studio."""
    two(part, studio.outputs)
    page = visit()
    page.locator("#open-runs").click()
    page.get_by_role("button", name="Compare: ink").click()
    page.get_by_role("button", name="With this: wash").click()
    expect(page.locator("#compared h3").first).to_have_text("ink")
    page.wait_for_function("location.hash === '#compare/ink/wash'")
    page.reload()
    expect(page.locator("#compared img")).to_have_count(4)
    page.get_by_label("Step of wash").select_option("10")
    expect(page.locator("#compared img").nth(1)).to_have_attribute("alt", "a cat, wash, step 10")
    page.get_by_label("Step of wash").focus()
    page.keyboard.press("Escape")
    expect(page.locator("#compared")).to_have_count(0)
    search = page.locator("#filter-runs").locator("input, textarea")
    expect(search).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#open-runs")).to_be_focused()
    page.go_back()
    expect(page.locator("#compared img")).to_have_count(4)
    page.go_back()
    expect(page.locator("#compared")).to_have_count(0)
    expect(page.locator("#runs li").first).to_be_visible()
    page.goto(f"{studio.url}#compare/ink/gone")
    expect(page.locator("#runs-said")).to_contain_text("There is no run named 'gone'.")
