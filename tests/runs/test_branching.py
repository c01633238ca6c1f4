"""Resuming from a saved state: what has changed since, and new runs that begin there."""

import json
import shutil

import pytest
import torch
from PIL import Image

from lora_studio import adapters, files, runs, starter
from lora_studio.adapters import Adapter, Factors, recipe, stored
from lora_studio.adapters.embedding import Embedding
from lora_studio.config.settings import Settings
from lora_studio.dataset import folder, manifest
from lora_studio.errors import (
    AdapterError,
    DatasetError,
    MachineError,
    ModelError,
    RunError,
    SettingsError,
    StudioError,
)
from lora_studio.families.weights import sha256_of
from lora_studio.runs import branching, checkpoints
from tests.adapters.adapter_samples import small


@pytest.fixture
def parent(tmp_path):
    """A run with two saved states and the folder of two pictures that they were saved on."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "red" if name == "a" else "blue").save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(f"the letter {name}")
    run = runs.create(Settings(data=str(pictures), name="ink", steps=1000), tmp_path / "outputs")
    about = {"settings": run.settings().flat(), "pictures": manifest.manifest(folder.scan(pictures))}
    for step in (250, 500):
        content = {
            "adapter.safetensors": b"adapter %d" % step,
            "state.json": b"{}",
            checkpoints.ABOUT: json.dumps(about).encode(),
        }
        for name, data in content.items():
            files.write(run.checkpoint(step) / name, data)
        hashes = {name: files.sha256(run.checkpoint(step) / name) for name in content}
        files.write(run.checkpoint(step) / checkpoints.MANIFEST, json.dumps(hashes))
    return run


def branch(parent, step=250, **changes):
    return branching.branch(parent, step, parent.settings().changed(**changes), parent.folder.parent)


def test_a_branch_has_the_state_and_leaves_the_parent_alone(parent):
    checkpoints.star(parent, 250)
    before = {path: path.read_bytes() for path in parent.folder.rglob("*") if path.is_file()}
    run = branch(parent, learning_rate=1e-5, batch=4, caption_dropout=0.5)
    assert (run.name, run.settings().optimizer.learning_rate, run.parent()) == (
        "ink-from-250",
        1e-5,
        {"run": "ink", "step": 250, "goes_on": True},
    )
    assert checkpoints.latest(run) == run.checkpoint(250) and not checkpoints.find(run, 250).starred
    assert {path: path.read_bytes() for path in parent.folder.rglob("*") if path.is_file()} == before
    assert branch(parent, name="bold").name == "bold" and branch(parent).name == "ink-from-250-2"
    assert parent.parent() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 8},
        {"alpha": 8},
        {"method": "dora"},
        {"targets": "qv"},
        {"blocks": ["mid_block"]},
        {"by_block": ["mid_block rate=2"]},
        {"optimizer": "lion"},
        {"lora_plus": 4},
        {"ema": 0.9},
        {"base": str(starter.MODEL)},
        {"rslora": True},
        {"train_text": True},
    ],
)
def test_where_the_state_does_not_fit_the_settings_a_branch_begins_from_the_adapter(parent, changes):
    """Moments of another optimizer, or of factors with another scale, would push the adapter somewhere at random."""
    run = branch(parent, **changes, steps=100)
    assert run.parent()["goes_on"] is False and checkpoints.listed(run) == []
    assert branching.taken_over(run).startswith("It starts at step 0 from the adapter of ink, step 250; the optimizer")
    assert run.start_file.read_bytes() == b"adapter 250"
    assert branching.hindrances(parent.settings(), run.settings()) == [next(iter(changes))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"steps": 250}, "at step 250, and the run would end"), ({"method": "pissa"}, "PiSSA begins from")],
)
def test_a_branch_that_cannot_train_is_refused_and_leaves_nothing(parent, changes, said):
    with pytest.raises(SettingsError, match=said):
        branch(parent, **changes)
    assert [run.name for run in runs.existing(parent.folder.parent)] == ["ink"]


def test_a_state_whose_adapter_alone_was_kept_is_the_start_of_a_branch(parent):
    """She sees the look that she wants in a preview, and cannot go on from it."""
    alone = parent.judged_adapter(300)
    files.write(alone, b"adapter of a preview")
    assert branching.branch_point("ink@300", parent.folder.parent).step == 300
    run = branch(parent, 300, steps=100)
    assert run.start_file.read_bytes() == b"adapter of a preview"
    assert run.parent() == {"run": "ink", "step": 300, "goes_on": False} and checkpoints.listed(run) == []
    (parent.checkpoint(250) / "adapter.safetensors").write_bytes(b"damaged")
    files.write(parent.judged_adapter(250), b"adapter of a preview")
    with pytest.raises(RunError, match="state of step 250 is damaged"):
        branch(parent, 250)


@pytest.mark.fault(41)
def test_a_full_disk_leaves_no_half_of_a_branch(parent, monkeypatch):
    def full(saved, run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "copy", full)
    with pytest.raises(MachineError, match="disk is full"):
        branch(parent)
    assert [run.name for run in runs.existing(parent.folder.parent)] == ["ink"]


@pytest.mark.parametrize(("text", "step"), [("ink", 500), ("ink@250", 250)])
def test_a_state_is_named_by_its_run_and_step(parent, text, step):
    assert branching.branch_point(text, parent.folder.parent) == (runs.find("ink", parent.folder.parent), step)


def test_a_state_that_is_not_there_is_refused_with_what_there_is(parent, tmp_path):
    with pytest.raises(RunError, match="Its saved states: 250, 500"):
        branching.branch_point("ink@300", parent.folder.parent)
    with pytest.raises(RunError, match="no run named 'imk'"):
        branching.branch_point("imk@250", parent.folder.parent)
    fresh = runs.create(Settings(data=parent.settings().run.data, name="fresh"), parent.folder.parent)
    with pytest.raises(RunError, match="no saved state to branch from"):
        branching.branch_point("fresh", parent.folder.parent)
    assert branching.changes(fresh) == []


@pytest.mark.fault(46)
def test_what_changed_since_the_newest_state_is_named(parent):
    """A run that resumes with other pictures or another rate is another run: nobody should find that out afterwards."""
    assert branching.changes(parent) == []
    branching.with_changes(parent, {"learning_rate": 1e-5, "preview_every": 7, "keep_checkpoints": 9})
    pictures = folder.Path(parent.settings().run.data)
    (pictures / "a.txt").write_text("another caption")
    shutil.copy(pictures / "a.png", pictures / "c.png")
    assert branching.changes(parent) == [
        "Learning rate was 0.0003 and is now 1e-05.",
        "a.png has a different caption.",
        "c.png was added.",
    ]
    shutil.rmtree(pictures)
    with pytest.raises(DatasetError, match="There is no folder .*--data FOLDER"):
        branching.changes(parent)


def test_changes_that_the_state_goes_with_change_the_run_itself_and_others_make_a_branch(parent):
    """What the page does with the setting that would fit into the memory."""
    assert branching.with_changes(parent, {"batch": 2}) == parent and parent.settings().optimizer.batch == 2
    other = branching.with_changes(parent, {"optimizer": "adamw8bit"})
    assert (
        other.name == "ink-from-500"
        and (other.settings().optimizer.optimizer, other.settings().run.steps) == ("adamw8bit", 500)
        and parent.settings().optimizer.optimizer == "adamw"
    )


def test_an_offer_of_an_earlier_version_does_not_hand_prodigys_rate_to_adamw(tmp_path):
    """It named the optimizer alone."""
    values = {"data": "x", "name": "ink", "optimizer": "prodigy", "learning_rate": 1.0}
    run = branching.with_changes(runs.create(Settings(**values), tmp_path), {"optimizer": "adamw8bit"})
    assert run.settings().optimizer.learning_rate == 2e-4


PATH = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def adapter():
    return Adapter({PATH: Factors(torch.ones(2, 320), torch.ones(320, 2), 3.0)})


def loha():
    sides = {"hada_w1_a": (320, 2), "hada_w1_b": (2, 320), "hada_w2_a": (320, 2), "hada_w2_b": (2, 320)}
    parts = {role: torch.ones(shape) for role, shape in sides.items()}
    return Adapter({PATH: stored.factors({**parts, "alpha": torch.tensor(2.0)}, "")})


def test_an_adapter_of_the_methods_kind_and_rank_begins_a_run(tmp_path):
    """Also where only some blocks have its rank."""
    file = adapters.write(loha(), tmp_path / "loha.safetensors")
    for ranks in ({"rank": 2}, {"rank": 3, "by_block": ["down_blocks.0 rank=2"]}):
        settings = Settings(data="x", start_from=str(file), method="loha", **ranks)
        assert branching.create(settings, tmp_path / "outputs").start_file.is_file()


def test_a_base_model_that_is_not_there_leaves_no_run(tmp_path):
    with pytest.raises(ModelError, match="There is no base model at gone") as caught:
        branching.create(Settings(data="x", base="gone"), tmp_path)
    assert caught.value.where == "base" and runs.existing(tmp_path) == []


def test_a_run_keeps_its_own_copy_of_the_adapter_that_it_starts_from(tmp_path):
    file = adapters.write(adapter(), tmp_path / "ink.safetensors")
    run = branching.create(Settings(data="x", name="more", start_from=str(file)), tmp_path / "outputs")
    assert run.start_file.read_bytes() == file.read_bytes()
    assert run.settings().run.start_from == str(file) and run.parent() == {}


def test_a_folder_of_pefts_is_copied_with_its_alpha(tmp_path):
    folder = adapters.write(adapter(), tmp_path / "ink", "peft")
    for named in (folder, folder / "adapter_model.safetensors"):
        run = branching.create(Settings(data="x", name="more", start_from=str(named)), tmp_path / "outputs")
        assert adapters.read(run.start_file).factors[PATH].alpha == 3.0


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), AdapterError("The adapter is empty.")])
def test_a_run_that_cannot_have_its_adapter_leaves_no_folder(tmp_path, monkeypatch, fault):
    folder = adapters.write(adapter(), tmp_path / "ink", "peft")

    def write(*_, **__):
        raise fault

    monkeypatch.setattr(branching.adapters, "write", write)
    with pytest.raises(StudioError, match="disk is full|is empty"):
        branching.create(Settings(data="x", start_from=str(folder)), tmp_path / "outputs")
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("ink", False), ("ink@250", False), ("ink.safetensors", True), ("no/such.SAFETENSORS", True), ("ink.pt", True)],
)
def test_a_name_with_an_adapters_ending_is_a_file_and_another_a_run(text, is_one):
    assert branching.is_adapter(text) is is_one


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("missing.safetensors", {}, "cannot be read"),
        ("ink.pt", {}, "is a pickle"),
        ("ink.safetensors", {"method": "pissa"}, "PiSSA begins from"),
        ("ink.safetensors", {"method": "loha"}, "A LoHa begins from"),
        ("loha.safetensors", {"method": "loha", "rank": 3}, "The adapter is of rank 2, and this run's rank is 3"),
        ("word.safetensors", {}, "holds the learned word ink alone"),
        ("ink.safetensors", {"base": "no/such/model.safetensors"}, "no base model at no/such/model.safetensors"),
        ("ink.safetensors", {"base": "nobody/model"}, "nobody/model is neither a file or folder"),
    ],
)
def test_what_cannot_be_started_from_is_refused_and_leaves_nothing(name, changes, said, tmp_path):
    adapters.write(adapter(), tmp_path / "ink.safetensors")
    adapters.write(loha(), tmp_path / "loha.safetensors")
    word = Embedding("ink", {"text_encoder": torch.ones(2, 768)})
    adapters.write(Adapter({}, embeddings={"ink": word}), tmp_path / "word.safetensors")
    (tmp_path / "ink.pt").write_bytes(b"x")
    with pytest.raises(StudioError, match=said):
        branching.create(Settings(data="x", start_from=str(tmp_path / name), **changes), tmp_path / "outputs")
    assert runs.existing(tmp_path / "outputs") == []


def test_a_branch_does_not_start_from_another_adapter_as_well(parent):
    with pytest.raises(SettingsError, match="not from another adapter"):
        branch(parent, start_from="ink.safetensors")


DAMAGES = {
    "a changed file": (lambda folder: (folder / "state.json").write_bytes(b"{]"), "state.json is not as it was saved"),
    "a missing file": (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
    "a cut manifest": (
        lambda folder: (folder / "manifest.json").write_bytes(b"{"),
        "manifest.json is not as it was saved",
    ),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "an empty manifest": (lambda folder: (folder / "manifest.json").write_bytes(b"{}"), "manifest.json is empty"),
}


@pytest.mark.fault(90)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_state_is_named_before_the_run_goes_back(parent, how):
    """It went back to the state before, or to step 0, and nobody heard of it."""
    damage, why = DAMAGES[how]
    damage(parent.checkpoint(500))
    assert branching.changes(parent) == [
        f"The saved state of step 500 is damaged: {why}.",
        "The run goes back to step 250.",
    ]
    assert checkpoints.damaged(parent) == [(500, parent.checkpoint(500), why)]
    with pytest.raises(RunError, match="step 500"):
        checkpoints.find(parent, 500)


@pytest.mark.fault(90)
def test_where_all_states_are_damaged_the_run_does_not_begin_anew_unasked(parent):
    for step in (250, 500):
        (parent.checkpoint(step) / "state.json").unlink()
    assert branching.changes(parent)[1:] == [
        "The saved state of step 500 is damaged: state.json is missing.",
        "The run begins again at step 0.",
    ]
    assert [one.step for one in checkpoints.damaged(parent, quick=True)] == [250, 500]


@pytest.mark.fault(90)
def test_an_older_damaged_state_keeps_nobody_from_resuming(parent):
    (parent.checkpoint(250) / "state.json").unlink()
    assert branching.changes(parent) == []


@pytest.mark.fault(91)
def test_another_rank_in_the_settings_of_a_run_is_named_and_makes_a_new_run(parent):
    """The worker met tensors of other shapes, and ended with a traceback."""
    text = parent.settings_file.read_text()
    parent.settings_file.write_text(text.replace("rank = 16", "rank = 8"))
    assert branching.changes(parent) == [
        "Rank was 16 and is now 8.",
        "With another rank the saved state does not fit: a new run would begin at step 0, from the adapter of step "
        "500.",
    ]
    made = branching.with_changes(parent, {})
    assert (made.name, made.settings().adapter.rank, made.parent()["goes_on"]) == ("ink-from-500", 8, False)


@pytest.mark.fault(91)
def test_emptied_settings_are_named(parent):
    """An empty path is the folder that the command was started in."""
    parent.settings_file.write_text("")
    with pytest.raises(DatasetError, match="settings of ink name no folder of pictures"):
        branching.changes(parent)


@pytest.mark.fault(92)
def test_pictures_that_moved_are_the_same_pictures(parent, tmp_path):
    """A project that was moved to another drive is the project that it was."""
    old = parent.settings().run.data
    shutil.move(old, tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=f"There is no folder {old}, .*resume ink --data FOLDER"):
        branching.changes(parent)
    with pytest.raises(DatasetError, match="There is no folder mistyped, "):
        branching.changes(parent, parent.settings().changed(data="mistyped"))
    moved = parent.settings().changed(data=str(tmp_path / "elsewhere"))
    assert branching.changes(parent, moved) == []
    assert branching.with_changes(parent, {"data": str(tmp_path / "elsewhere")}) == parent
    assert branching.changes(parent) == [] and parent.settings() == moved
    (tmp_path / "elsewhere" / "a.txt").write_text("another caption")
    assert branching.changes(parent) == ["a.png has a different caption."]


@pytest.mark.fault(92)
@pytest.mark.parametrize("same", [True, False])
def test_a_base_model_that_moved_is_known_by_its_content(tmp_path, same):
    """By its path alone it was another model: the run would have begun anew."""
    old, new, pictures = tmp_path / "old", tmp_path / "new", tmp_path / "pictures"
    shutil.copytree(starter.MODEL, old)
    pictures.mkdir()
    Image.new("RGB", (64, 64), "red").save(pictures / "a.png")
    run = runs.create(Settings(data=str(pictures), base=str(old), name="ink"), tmp_path / "outputs")
    told = recipe.dumps(recipe.Training(base=str(old), base_sha256=sha256_of(old), settings={}, images=[], steps=9))
    adapters.write(small(), run.checkpoint(9) / "adapter.safetensors", metadata={recipe.KEY: told})
    files.write(run.checkpoint(9) / checkpoints.ABOUT, json.dumps({"settings": run.settings().flat()}))
    names = ("adapter.safetensors", checkpoints.ABOUT)
    hashes = {name: files.sha256(run.checkpoint(9) / name) for name in names}
    files.write(run.checkpoint(9) / checkpoints.MANIFEST, json.dumps(hashes))
    old.rename(new)
    if not same:
        weights = next((new / "unet").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match="resume ink --base PATH"):
        branching.changes(run)
    found = branching.changes(run, run.settings().changed(base=str(new)))
    assert found == [] if same else "Base model was" in found[0] and "does not fit" in found[1]
    made = branching.with_changes(run, {"base": str(new)})
    assert (made == run) is same and made.settings().run.base == str(new)


@pytest.mark.fault(92)
def test_parts_of_a_base_model_that_moved_are_known_by_their_content(tmp_path):
    pictures, old, new = tmp_path / "pictures", tmp_path / "old", tmp_path / "new"
    pictures.mkdir()
    Image.new("RGB", (64, 64), "red").save(pictures / "a.png")
    old.mkdir()
    vae, clips = old / "vae.safetensors", [old / "l.safetensors", old / "g.safetensors"]
    for path in (vae, *clips):
        path.write_text(path.name)
    paths = {"vae": str(vae), "text_encoders": [str(clip) for clip in clips]}
    run = runs.create(Settings(data=str(pictures), name="ink", **paths), tmp_path / "outputs")
    parts = {path.name: files.sha256(path) for path in (vae, *clips)}
    told = recipe.dumps(recipe.Training(parts=parts, settings={}, images=[], steps=9))
    adapters.write(small(), run.checkpoint(9) / "adapter.safetensors", metadata={recipe.KEY: told})
    files.write(run.checkpoint(9) / checkpoints.ABOUT, json.dumps({"settings": run.settings().flat()}))
    hashes = {one: files.sha256(run.checkpoint(9) / one) for one in ("adapter.safetensors", checkpoints.ABOUT)}
    files.write(run.checkpoint(9) / checkpoints.MANIFEST, json.dumps(hashes))
    old.rename(new)
    with pytest.raises(ModelError, match="resume ink --vae FILE"):
        branching.changes(run)
    moved = {"vae": str(new / vae.name), "text_encoders": [str(new / clip.name) for clip in clips]}
    with pytest.raises(ModelError, match="resume ink --text-encoders FILE --text-encoders FILE"):
        branching.changes(run, run.settings().changed(vae=moved["vae"]))
    assert branching.changes(run, run.settings().changed(**moved)) == []
    turned = moved | {"text_encoders": moved["text_encoders"][::-1]}
    assert branching.changes(run, run.settings().changed(**turned)) == []  # each is known by what it holds
    (new / "other.safetensors").write_text("another VAE")
    other = run.settings().changed(**moved | {"vae": str(new / "other.safetensors")})
    assert "does not fit" in branching.changes(run, other)[1]
    assert branching.with_changes(run, moved) == run and run.settings().run.vae == moved["vae"]


@pytest.mark.parametrize(("name", "message"), [("gone.safetensors", "There is no file at"), ("", "is a folder")])
def test_no_run_is_created_whose_base_model_lacks_a_file_that_was_named(tmp_path, name, message):
    settings = Settings(data=str(tmp_path), vae=str(tmp_path / name))
    with pytest.raises(ModelError, match=message) as refused:
        branching.create(settings, tmp_path / "outputs")
    assert refused.value.where == "vae" and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"base": " "}, "No base model is named"),
        ({"learned_tokens": 2}, "there is no trigger word"),
        ({"method": "prompt-tuning", "trigger": "two words"}, "cannot be a learned word"),
    ],
)
def test_what_a_run_needs_is_asked_for_before_it_has_a_folder(parent, tmp_path, changes, what):
    with pytest.raises(SettingsError, match=what):
        branching.create(Settings(**{"data": str(tmp_path), "name": "new", **changes}), tmp_path / "outputs")
    with pytest.raises(SettingsError, match=what):
        branch(parent, **changes)
    assert [one.name for one in runs.existing(tmp_path / "outputs")] == ["ink"]
