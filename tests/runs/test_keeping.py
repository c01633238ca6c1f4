"""A judged or saved state is kept as a file of its own, once, and told its strength."""

import pytest

from lora_studio import adapters, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, RunError
from lora_studio.runs import checkpoints, keeping
from tests.adapters.adapter_samples import BLOCK, factors, small


@pytest.fixture
def run(tmp_path):
    """It saved step 40, judged steps 40 and 80, and ended with step 80."""
    made = runs.create(Settings(data="x", name="ink"), tmp_path)
    other = adapters.Adapter({f"{BLOCK}.attn1.to_q": factors("other", 64, 64)})
    texts = {"modelspec.title": "ink"}
    for path, adapter in (
        (made.checkpoint(40) / "adapter.safetensors", other),
        (made.judged_adapter(40), other),
        (made.judged_adapter(80), small()),
        (made.adapter_file, small()),
    ):
        adapters.write(adapter, path, metadata=texts)
    (made.checkpoint(40) / checkpoints.MANIFEST).write_text('{"adapter.safetensors": ""}')
    return made


def test_a_state_is_kept_and_its_checkpoint_starred_and_twice_changes_nothing(run):
    assert keeping.kept(run, 40) is None
    file = keeping.keep(run, 40)
    assert file == keeping.kept(run, 40) == run.folder / "ink-step-40.safetensors"
    texts, own = adapters.header(file).metadata, adapters.header(run.judged_adapter(40)).metadata
    assert texts["modelspec.title"] == texts["ss_output_name"] == "ink-step-40"
    assert texts["sshs_model_hash"] == own["sshs_model_hash"]
    assert [saved.starred for saved in checkpoints.listed(run)] == [True]
    before = file.stat()
    assert keeping.keep(run, 40) == file and file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_checkpoint_that_a_rollback_left_behind_is_not_starred(run):
    """It would never be removed, and the run would resume from it."""
    assert checkpoints.abandon(run, 30) == [run.checkpoint(40)] and checkpoints.abandon(run, 40) == []
    assert keeping.keep(run, 40).is_file()
    assert [saved.starred for saved in checkpoints.listed(run)] == [False]


def test_a_checkpoint_of_another_state_of_that_step_is_not_starred(run):
    """After a rollback the run saved step 40 anew, and the one that was judged is kept."""
    adapters.write(small(), run.checkpoint(40) / "adapter.safetensors", metadata={})
    keeping.keep(run, 40)
    assert [saved.starred for saved in checkpoints.listed(run)] == [False]


def test_a_state_is_kept_whose_checkpoint_or_judgement_is_gone(run):
    assert keeping.keep(run, 80).is_file()
    run.judged_adapter(40).unlink()
    assert keeping.keep(run, 40).is_file()


def test_what_cannot_be_kept_is_refused_in_words(run):
    with pytest.raises(RunError, match="no state of step 60 to keep") as error:
        keeping.keep(run, 60)
    assert error.value.do == "Its states: 40, 80."
    run.kept_file(80).write_bytes(run.judged_adapter(40).read_bytes())
    with pytest.raises(RunError, match="holds another adapter"):
        keeping.keep(run, 80)
    run.judged_adapter(40).write_bytes(b"PK")
    with pytest.raises(AdapterError):
        keeping.keep(run, 40)
    assert not run.kept_file(40).exists()


def test_every_adapter_of_the_state_is_labelled_but_not_its_checkpoint(run):
    """A checkpoint's files are compared with its manifest before a run resumes."""
    kept = keeping.keep(run, 80)
    saved = (run.checkpoint(40) / "adapter.safetensors").read_bytes()
    for step, files in ((80, {run.judged_adapter(80), kept, run.adapter_file}), (40, {run.judged_adapter(40)})):
        assert set(keeping.label(run, step, {"modelspec.usage_hint": f"Of {step}."})) == files
        assert {adapters.header(file).metadata["modelspec.usage_hint"] for file in files} == {f"Of {step}."}
    assert (run.checkpoint(40) / "adapter.safetensors").read_bytes() == saved
    assert adapters.header(kept).metadata["modelspec.title"] == "ink-step-80"
    labelled = keeping.keep(run, 40)
    assert adapters.header(labelled).metadata["modelspec.usage_hint"] == "Of 40."
