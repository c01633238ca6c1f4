"""From a click to a file that other programs load: the real worker, the starter and a sample style."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect
from safetensors import safe_open

from lora_studio.events import State
from lora_studio.jobs import view
from lora_studio.runs import Run
from tests.ui import looks
from tests.ui.played import PATIENCE, until


@pytest.mark.fault(51)
def test_check_train_close_the_tab_come_back_stop_and_download(visit, studio):
    """What a first user does ends anywhere else than with a good file."""
    page = visit()
    page.locator("#tab-pictures-button").click()
    page.get_by_role("button", name="Ink icons").click()
    expect(page.locator("#folder-title")).to_contain_text("ink-icons")
    page.locator("#train-these").click()
    expect(page.locator("#set-data").locator("input, textarea")).to_have_value(re.compile("ink-icons$"))
    page.locator("#set-name").locator("input, textarea").fill("whole way")
    page.locator("#set-steps input").fill("5000")
    page.locator("#set-preview_prompts textarea").fill("apple")
    page.get_by_role("button", name="All settings").click()
    page.get_by_role("button", name="Previews").click()
    page.locator("#set-preview_steps input").fill("2")
    page.locator("#check-memory").click()
    expect(page.locator("#check")).to_contain_text("It should fit", timeout=PATIENCE)
    expect(page.locator("#check")).to_contain_text("It fits.", timeout=PATIENCE)
    expect(page.locator("#check-memory")).to_be_enabled()
    assert not (studio.outputs / "whole-way").exists()
    page.locator("#start").click()
    expect(page.locator("#check")).to_be_hidden()
    run = Run(studio.outputs / "whole-way")
    expect(page.locator(".sentence")).to_contain_text("Training step", timeout=PATIENCE)
    expect(page.locator("#start")).to_have_text("Queue after whole-way")
    page.close()

    done = len(view.fold(run).steps)
    until(lambda: len(view.fold(run).steps) > done)
    page = visit()
    expect(page.locator(".sentence")).to_contain_text("Training step")
    page.locator("#stop").click()
    expect(page.locator(".sentence")).to_contain_text("stopped by you", timeout=PATIENCE)
    expect(page.locator(".film .frame img")).to_have_count(2)
    page.set_viewport_size({"width": 390, "height": 800})
    widths = page.locator(".film .frame").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert len(widths) == 2 and min(widths) >= 88, "the base model and the first step, on a phone too"
    with page.expect_download() as download:
        page.locator(".result .download").click()

    looks.at_widths(page, "en-light", (1440, 390))

    seen = view.fold(run)
    assert seen.state is State.FINISHED and seen.finished.stopped and 0 < seen.finished.steps < 5000
    with safe_open(download.value.path(), "np") as adapter:
        keys = list(adapter.keys())
        up = [adapter.get_tensor(key) for key in keys if key.endswith("lora_up.weight")]
        assert adapter.metadata()["ss_network_module"] == "networks.lora"
    assert (
        len(keys) == 3 * len(up) > 0
        and all(np.isfinite(weight).all() for weight in up)
        and any(weight.any() for weight in up)
    )
