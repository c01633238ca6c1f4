"""Where an adapter learns, through whole runs: blocks, and their ranks, alphas and rates."""

import pytest

from lora_studio import adapters, runs
from lora_studio.adapters import block_names, recipe
from lora_studio.events import Started, StepDone, Warned
from lora_studio.runs import branching
from lora_studio.training.loop import train
from tests.training.conftest import tiny_settings
from tests.training.test_loop import assert_same, collect, of, state_tensors, tensors

QUIET = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 2}
BLOCKS = {
    "blocks": ["mid_block", "up_blocks.1.attentions.0-1", "text_encoder.layers.1"],
    "by_block": ["up_blocks.1 rank=4", "mid_block alpha=6 rate=0.5", "text_encoder rate=3"],
    "train_text": True,
}
ATTENTION = "transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def whole(tiny_base, pictures, tmp_path_factory):
    """A finished run over some blocks, with what moves between steps."""
    settings = tiny_settings(tiny_base, pictures).changed(**QUIET, **BLOCKS, dropout=0.3, lora_plus=4)
    run = runs.create(settings, tmp_path_factory.mktemp("blocks") / "outputs")
    return run, collect(run)


def test_a_resumed_run_of_some_blocks_is_the_run_that_was_never_stopped(new_run, whole):
    run, seen = whole
    torn = new_run(run.settings())
    for event in train(torn, torn.settings()):
        if isinstance(event, StepDone) and event.step == 3:
            break
    again = collect(torn)
    assert of(Started, again)[0].first_step == 2 and of(StepDone, again) != []
    assert_same(tensors(run.adapter_file), tensors(torn.adapter_file))
    assert_same(state_tensors(run), state_tensors(torn))
    assert of(StepDone, seen)[0].learning_rate == pytest.approx(1e-2), "the setting's, not a block's"


def test_the_file_holds_the_blocks_at_their_ranks_and_the_next_run_begins_from_them(new_run, whole, tmp_path):
    run, _ = whole
    made = adapters.read(run.adapter_file)
    assert {block_names.block_of(path) for path in made.factors} == {"mid_block", "up_blocks.1", "text_encoder"}
    middle, above = (
        made.factors[f"unet.{place}.{ATTENTION}"] for place in ("mid_block.attentions.0", "up_blocks.1.attentions.0")
    )
    assert (middle.rank, middle.alpha, above.rank, above.alpha) == (2, 6, 4, 2)
    header = adapters.header(run.adapter_file).metadata
    assert header["ss_network_dim"] == "Dynamic" and recipe.read(header).settings["by_block"] == BLOCKS["by_block"]
    child = branching.branch(
        run, 4, run.settings().changed(by_block=["up_blocks.1 rank=3"], steps=1, name="next"), tmp_path / "outputs"
    )
    (told,) = (event for event in of(Warned, collect(child)) if event.where == "rank")
    assert "is of rank 4. Rank 2 to 3 holds" in told.what
