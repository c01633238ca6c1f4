"""Blend methods are declared once: what reads the declarations agrees, and a new method needs this file alone."""

from __future__ import annotations

import inspect
import json

import gradio as gr
import pytest
import torch
import typer

from lora_studio.adapters import Adapter, Factors, blend, blend_methods, blend_table, read, recipe, write
from lora_studio.adapters.blend_methods import METHODS, RANK, BlendMethod, BlendParameter, parameters
from lora_studio.cli import blend as command_line
from lora_studio.cli import recipe as recipe_command
from lora_studio.errors import SettingsError
from lora_studio.ui.pages.mix import image_specs, saving
from lora_studio.ui.pages.mix.blend_form import BlendForm
from lora_studio.ui.scene.mixture import Mix, MixRow
from tests.adapters.adapter_samples import Q, factors

POWER = BlendParameter("power_of_norm", "Power", "How much the longer one leads.", default=1.0, low=0, high=4, step=0.5)
ROUNDS = BlendParameter("rounds", "Rounds", "How often it is done.", default=2, low=1, high=9)


def led(parts, path, *, power_of_norm, rounds):
    """The adapter with the larger weight, times the parameters: a rule that is easy to check."""
    largest, weight = max(parts, key=lambda part: abs(part[1]))
    return Factors(largest.down, largest.up * weight * power_of_norm * rounds, largest.alpha)


@pytest.fixture
def leading(monkeypatch):
    """A method of this file alone."""
    monkeypatch.setattr(blend_methods, "METHODS", METHODS)
    before = dict(METHODS)
    method = BlendMethod("lead", "Leader", "Takes the adapter that leads.", (POWER, ROUNDS), led)
    blend_methods.register(method)
    yield method
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def pair(tmp_path):
    """Two adapter files, ``a`` and ``b``."""
    made = {name: Adapter({Q: factors(name, 64, 64)}) for name in "ab"}
    return [write(adapter, tmp_path / f"{name}.safetensors") for name, adapter in made.items()]


def run(*words: object) -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(command_line.command())
    app([str(word) for word in words], standalone_mode=False)


def test_a_new_method_blends_from_a_recipe_the_command_line_and_the_page(leading, pair, tmp_path, capsys, monkeypatch):
    """Each of them knows the methods by itself, and one refuses what another offers."""
    made = recipe.blend(method="lead", ingredients=[{"name": "a"}, {"name": "b", "weight": 2}], power_of_norm=0.5)
    assert made.parameters == {"power_of_norm": 0.5, "rounds": 2}
    assert recipe.read({recipe.KEY: recipe.dumps(made)}) == made
    result = blend.blend(made, [read(path) for path in pair]).adapter.factors[Q]
    assert torch.equal(result.up, read(pair[1]).factors[Q].up * 2)

    with gr.Blocks():
        form = BlendForm()
    assert ("Leader", "lead") in form.method.choices
    shown = form.show("lead")
    assert "Takes the adapter that leads." in shown[form.about]
    assert shown[form.parameters["rounds"]]["visible"] and not form.show("ties")[form.parameters["rounds"]]["visible"]
    assert form.parameters["power_of_norm"].step == 0.5 and form.parameters["rounds"].label == "Rounds"
    typed = {field: field.value for field in form.inputs} | {form.method: "lead", form.parameters["power_of_norm"]: 0.5}
    chosen = form.chosen(typed)
    assert image_specs.blending(chosen).parameters == {"power_of_norm": 0.5, "rounds": 2}

    monkeypatch.chdir(tmp_path)
    row = MixRow("", "", "", "", 4, "", (), 0, "", False, "")
    mix = Mix([MixRow(**{**vars(row), "path": str(path), "weight": weight}) for path, weight in zip(pair, (1.0, 2.0))])
    monkeypatch.setattr(command_line.shared, "save", lambda adapter, path, number: write(adapter, path) and None)
    run(*saving.arguments(mix, chosen), "-o", "page.safetensors")
    assert torch.equal(read("page.safetensors").factors[Q].delta(), result.delta())

    lines = recipe_command._blend(recipe_command.found_in(tmp_path / "page.safetensors"))
    assert "--method lead --power-of-norm 0.5 --rounds 2" in lines[1]
    run(*lines[1].split()[3:-1], "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "page.safetensors").read_bytes()
    assert "| `lead` | Leader | Takes the adapter that leads. |" in blend_table.markdown()
    assert "| `--rounds` | `lead` | `2` |" in blend_table.markdown()


def test_the_docs_have_the_tables_that_the_declarations_make():
    text = blend_table.PATH.read_text("utf-8")
    assert text == blend_table.inserted(text), "run: python -m lora_studio.adapters.blend_table"
    assert all(f"| `{key}` |" in text for key in METHODS)


@pytest.mark.parametrize("key", METHODS)
def test_what_computes_a_method_takes_what_it_declares(key):
    """A declared parameter changes nothing, or the blend ends in a TypeError."""
    method = METHODS[key]
    declared = {one.key for one in (*method.parameters, *([RANK] if method.compresses else []))}
    named = inspect.signature(method.combine).parameters.values() if method.combine else ()
    assert {one.name for one in named if one.kind is one.KEYWORD_ONLY} == declared


def test_a_name_means_one_thing(leading):
    with pytest.raises(ValueError, match="declared twice"):
        blend_methods.register(leading)
    other = BlendMethod("other", "Other", "", (BlendParameter("rounds", "Rounds", "", 3, 1, 9),))
    with pytest.raises(ValueError, match="rounds of other is declared differently"):
        blend_methods.register(other)
    assert "other" not in METHODS


@pytest.mark.parametrize("parameter", parameters().values(), ids=lambda one: one.key)
def test_a_parameter_is_held_to_its_range(parameter):
    assert parameter.check(parameter.default) == parameter.default and parameter.check(parameter.high) == parameter.high
    assert (RANK.check(4.0), type(RANK.check(4.0))) == (4, int)
    below = parameter.low if parameter.above_low else parameter.low - 1
    for wrong in (below, parameter.high + 1, float("nan"), float("inf"), None, "1", True):
        with pytest.raises(SettingsError, match=f"{parameter.label} must be a .*number") as error:
            parameter.check(wrong)
        assert error.value.where == parameter.key


OLD = (
    '{"kind":"blend","method":"%s","ingredients":[{"name":"A0","weight":0.7,"sha256":"","blocks":{"mid_block":0.5}}],'
    '"rank":3,"density":0.25,"seed":7}'
)
"""As recipes were written when each had all parameters."""


@pytest.mark.parametrize("method", ["exact", "svd", "ties", "dare", "prune", "subtract"])
def test_a_recipe_of_an_earlier_version_means_the_same(method):
    """It cannot be opened, or is written anew with other bytes."""
    found = recipe.read({recipe.KEY: OLD % method})
    assert isinstance(found, recipe.Blend) and (found.method, found.rank) == (method, 3)
    assert recipe.dumps(found) == OLD % method
    own = {"ties": ["density"], "dare": ["density", "seed"], "prune": ["density"]}.get(method, [])
    assert found.parameters == {key: {"density": 0.25, "seed": 7}[key] for key in own}


def test_a_recipe_has_its_own_parameters_and_no_others():
    ties = json.loads(recipe.dumps(recipe.blend(method="ties", ingredients=[{"name": "a"}])))
    assert list(ties) == ["kind", "method", "ingredients", "rank", "density"]
    for wrong in ({"method": "gone"}, {"method": ["ties"]}, {"power": 1}, {"density": 0}, {"rank": 0.5}):
        assert recipe.read({recipe.KEY: json.dumps({**ties, **wrong})}) is None
