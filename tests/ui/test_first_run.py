"""A first run is guided, and never more than a few presses away."""

import os
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from lora_studio import runs
from lora_studio.starter import sample_styles
from tests.ui.conftest import ROOT
from tests.ui.played import until

_COMMAND = """
from pathlib import Path
from lora_studio.jobs import runner
from lora_studio.ui.studio import launch
runner.start = lambda run: None  # what is started is looked at in its folder
launch(7990, False, Path({outputs!r}))
"""


@pytest.fixture
def page(browser, tmp_path):
    """The page of a studio that was never used."""
    command, env = _COMMAND.format(outputs=str(tmp_path / "outputs")), {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        context.set_default_timeout(90_000)
        opened = context.new_page()
        opened.goto(process.stdout.readline().split()[-1])
        opened.wait_for_selector("#start")
        yield opened
    finally:
        context.close()
        process.terminate()
        process.wait(60)


def test_a_first_style_is_one_press_away_and_ones_own_three(page, tmp_path, pictures):
    """A new user looks for what to do, among a hundred fields."""
    presses = []

    def press(name):
        page.get_by_role("button", name=name).click()
        presses.append(name)

    def started(name):
        until(lambda: any(run.name == name for run in runs.existing(tmp_path / "outputs")))
        return runs.find(name, tmp_path / "outputs").settings()

    guide = page.get_by_role("heading", name="Your first style")
    expect(guide).to_be_visible()
    page.get_by_role("button", name="Hide this").click()
    expect(guide).to_be_hidden()
    page.reload()
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    page.evaluate("localStorage.removeItem('lora-studio-guided')")
    page.reload()

    press("Train the sample")
    first = started("blueprint")
    assert first.run.data == str(sample_styles()[0]) and first.run.base == "starter" and len(presses) == 1
    expect(page.locator("#guide")).to_have_count(0)

    presses.clear()
    page.get_by_role("tab", name="Pictures").click()
    page.locator("#pictures-path").locator("input, textarea").fill(str(pictures))
    press("Open")
    expect(page.locator("#folder-title")).to_contain_text("10 pictures")
    press("Train on these")
    expect(page.locator("#set-data").locator("input, textarea")).to_have_value(str(pictures))
    press("Start training")
    assert started(pictures.name).run.data == str(pictures) and len(presses) <= 5
