"""``blend --states``: the average of a run's saved states, which opens again in Mix."""

import json
from pathlib import Path

import gradio as gr
import pytest
import torch

from lora_studio import adapters, cli, runs
from lora_studio.adapters import Adapter, averaging, recipe
from lora_studio.config.settings import Settings
from lora_studio.runs import library
from lora_studio.ui.pages.mix.states_form import StatesForm
from lora_studio.ui.scene import mixture
from lora_studio.ui.scene.mixture import Mix
from tests.adapters.adapter_samples import Q, factors

STEPS = (20, 40, 60, 80)


@pytest.fixture
def run(tmp_path) -> runs.Run:
    """A run with three saved states and one that was judged and is no longer saved."""
    made = runs.create(Settings(data="x", name="ink"), tmp_path)
    for step in STEPS:
        file = made.judged_adapter(step) if step == 40 else made.checkpoint(step) / "adapter.safetensors"
        adapters.write(state(step), file)
    return made


def state(step: int) -> Adapter:
    header = {"modelspec.title": "ink", "modelspec.trigger_phrase": "inkstyle"}
    return Adapter({Q: factors(f"ink{step}", 64, 64, 4, alpha=2.0)}, header)


def blended(capfd, *words: object) -> dict:
    status = cli.main(["blend", *map(str, words), "--json"])
    out, err = capfd.readouterr()
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_it_averages_changes_and_not_factors(run, tmp_path, capfd):
    """An average of A and of B has cross terms of states that never were together."""
    whole = blended(capfd, "--states", "ink", "--outputs", tmp_path, "--method", "exact", "-o", tmp_path / "whole")
    weights = averaging.weights(STEPS, 0.1)
    true = sum(weight * state(step).factors[Q].delta() for step, weight in zip(STEPS, weights, strict=True))
    made = adapters.read(tmp_path / "whole.safetensors")
    assert torch.allclose(made.factors[Q].delta(), true, atol=1e-5) and (whole["rank"], whole["residual"]) == (16, 0)

    trimmed = blended(capfd, "--states", "ink", "--outputs", tmp_path, "-o", tmp_path / "average")
    S = torch.linalg.svdvals(true.double())
    assert trimmed["rank"] == 4 and trimmed["residual"] == pytest.approx(float(S[4:].norm() / S.norm()), rel=1e-4)
    header = adapters.header(tmp_path / "average.safetensors").metadata
    assert header["modelspec.title"] == "Average of ink, width 0.1"
    assert header["modelspec.trigger_phrase"] == "inkstyle"
    named = [(one.name, one.weight) for one in recipe.read(header).ingredients]
    assert named == [(f"ink-step-{step}", weight) for step, weight in zip(STEPS, weights, strict=True)]


def test_width_and_last_state_are_chosen_after_training(run, tmp_path, capfd):
    narrow = blended(capfd, "--states", run.folder, "--width", "0.02", "--until", "60")
    assert [one["name"] for one in narrow["recipe"]["ingredients"]] == ["ink-step-20", "ink-step-40", "ink-step-60"]
    assert narrow["recipe"]["ingredients"][-1]["weight"] > 0.9 and narrow["file"] is None


def test_an_average_is_taken_apart_into_the_states_with_their_weights(run, tmp_path, capfd):
    out = runs.library_folder(tmp_path) / "average.safetensors"
    blended(capfd, "--states", "ink", "--outputs", tmp_path, "-o", out)
    one = Mix()
    one.add(next(entry for entry in library.entries(tmp_path) if Path(entry.path) == out), tmp_path)
    mixture.apart(one, one.rows[0].key, tmp_path)
    assert [row.key.split("/")[-2] for row in one.rows] == [f"step-{step}" for step in STEPS]
    assert [row.weight for row in one.rows] == [round(weight, 4) for weight in averaging.weights(STEPS, 0.1)]


def test_the_page_shows_what_an_average_keeps_and_saves_it(run, tmp_path):
    """Its loss is known only when the file is there; or a run with one state is offered."""
    one = runs.create(Settings(data="x", name="single"), tmp_path)
    adapters.write(state(20), one.checkpoint(20) / "adapter.safetensors")
    with gr.Blocks():
        form = StatesForm(tmp_path)
    assert form.offer()["choices"] == ["ink"]
    shown = list(form.shown("ink", 0.1))[-1]["value"]
    assert "residual" in shown and "rank 4" in shown and "step 71 on average" in shown and "60: 38 %" in shown
    assert not runs.library_folder(tmp_path).exists()
    saved = list(form.saved("ink", 0.1))[-1]["value"]
    assert "ink-average-0.1.safetensors" in saved and "residual" in saved and "passed" in saved
    assert "No run is chosen" in list(form.saved(None, 0.1))[-1]["value"]
    assert "Width must be" in list(form.shown("ink", None))[-1]["value"]


@pytest.mark.parametrize(("words", "said"), [
    (["--states", "ink", "--until", "50"], "no state of step 50"), (["--states", "inc"], "no run named 'inc'"),
    (["--states", "ink", "a.safetensors"], "takes the place"),
    (["--states", "ink", "--until", "20"], "two saved states"),
    (["--states", "ink", "--width", "0.5"], "less than or equal to 0.28"), ([], "No adapter is named"),
])  # fmt: skip
def test_what_makes_no_average_is_said(run, tmp_path, capfd, words, said):
    assert cli.main(["blend", *words, "--outputs", str(tmp_path)]) == 2
    assert said in capfd.readouterr().err


def test_what_makes_no_average_is_refused(run, tmp_path, capfd):
    """It would be called one in the file's title."""
    assert cli.main(["blend", "--states", "ink", "--outputs", str(tmp_path), "--method", "ties"]) == 2
    assert "TIES makes no average of states." in capfd.readouterr().err
