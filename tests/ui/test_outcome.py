"""What the page says of an order: never markup from a file, never a traceback for what a user can fix."""

import pytest

from lora_studio.errors import AdapterError
from lora_studio.ui import outcome

HOSTILE = "<img src=x onerror=alert(1)>"


def row(target="comfyui", passed=True, worst=0.0, matched=128, note=""):
    return {
        "target": target,
        "modules": 128,
        "matched": matched,
        "ignored": 0,
        "worst": worst,
        "where": "unet.x",
        "tolerance": 1e-5,
        "passed": passed,
        "note": note,
    }


def test_a_program_that_fails_says_why_and_the_others_stay_in_the_table():
    """Issue: a failing proof shows the table with the failing row."""
    error = AdapterError(
        "ComfyUI would not read it.",
        details={"proof": [row("comfyui", False, None, 0, f"It finds 0 {HOSTILE}"), row("diffusers")]},
    )
    shown = outcome.wrong(error)
    assert shown.index("ComfyUI would not read it.") < shown.index('class="proof"')
    assert (
        'class="failed">failed</td><td>0 of 128</td><td>not read</td>' in shown
        and 'class="passed">passed</td><td>128 of 128</td><td>nothing</td>' in shown
    )
    assert '<tr class="why"><td colspan="4">It finds 0 &lt;img' in shown and HOSTILE not in shown
    assert shown.count('class="why"') == 1


def test_no_text_from_outside_is_markup():
    for shown in (
        outcome.busy(HOSTILE),
        outcome.done(HOSTILE, HOSTILE),
        outcome.wrong(AdapterError(HOSTILE, where=HOSTILE, do=HOSTILE)),
        outcome.proof([row(HOSTILE)]),
    ):
        assert "<img" not in shown and "&lt;img" in shown


def refuse():
    raise AdapterError("It is damaged.", where="a.safetensors", do="Copy it again.")


def full():
    raise OSError(28, "No space left on device", "/x")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (refuse, "Copy it again."),
        (full, "The disk reports an error: No space left on device."),
        (lambda: "<b>made</b>", "<b>made</b>"),
    ],
)
def test_it_tells_that_it_works_and_then_what_came_of_it(act, says):
    """A press on a button that seems to do nothing, or that ends in gradio's own "Error"."""
    meanwhile, end = outcome.told("Trying…", act)
    assert "Trying…" in meanwhile["value"] and says in end["value"]
    assert meanwhile["visible"] is end["visible"] is True


def test_a_fault_of_the_studio_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(outcome.told("Trying…", lambda: 1 / 0))
