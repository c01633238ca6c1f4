"""Power cuts at every moment of saving: the old or the new is there, whole; and what was called saved stays."""

import os
from pathlib import Path

import pytest
import torch

from lora_studio import adapters, files, runs
from lora_studio.adapters import tensors
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.runs import Run, checkpoints, library
from lora_studio.training import checkpoint
from tests.adapters.adapter_samples import assert_same, small
from tests.faults.disk import Disk, Image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows keeps names and contents by other rules")


@pytest.fixture
def disk(tmp_path):
    """Begins to watch the folder ``disk`` in ``tmp_path``."""
    (tmp_path / "disk").mkdir()
    begun = []

    def watch() -> Disk:
        begun.append(Disk(tmp_path / "disk", tmp_path / "held"))
        return begun[-1]

    yield watch
    for one in begun:
        one.close()


@pytest.fixture
def afterwards(tmp_path):
    """Every image that a disk noted, as a folder, with the number of steps done."""

    def each(watched: Disk):
        watched.close()
        assert len(watched.images) > 4, "nothing was watched"
        for number, image in enumerate(watched.images):
            yield image.restore(tmp_path / f"after-{number}"), image.done

    return each


# The watching itself: it must find what a careless program loses.


def content(image: Image, name: str) -> bytes | None:
    return image.tree.get(name)


def test_an_unsynced_rename_is_found_to_lose_the_file(disk, tmp_path):
    """Without the sync of the content an empty file bears the name: if this passed, no other test here would mean
    anything.
    """
    root = tmp_path / "disk"
    (root / "a").write_text("old")
    watched = disk()
    (root / "b").write_text("new")
    os.replace(root / "b", root / "a")
    watched.step()
    found = {content(image, "a") for image in watched.images}
    assert {b"old", b"new", b""} <= found


def test_an_unsynced_folder_is_found_to_forget_a_new_name(disk, tmp_path):
    root = tmp_path / "disk"
    watched = disk()
    with open(root / "a", "wb") as file:
        file.write(b"new")
        file.flush()
        os.fsync(file.fileno())
    watched.step()
    assert {content(image, "a") for image in watched.images if image.done} == {None, b"new"}
    files.sync_folder(root)
    watched.step()
    assert {content(image, "a") for image in watched.images if image.done == 2} == {b"new"}


# What the studio saves


@pytest.mark.fault(40)
def test_a_file_is_the_old_or_the_new_one(disk, afterwards, tmp_path):
    path = tmp_path / "disk" / "settings.toml"
    files.write(path, "old")
    watched = disk()
    files.write(path, "new")
    watched.step()
    for folder, done in afterwards(watched):
        assert (folder / "settings.toml").read_text() in (("new",) if done else ("old", "new"))


@pytest.mark.fault(40)
def test_a_file_in_folders_that_were_made_for_it_stays(disk, afterwards, tmp_path):
    """Each new folder's name has to be safe in the folder above it."""
    watched = disk()
    files.write(tmp_path / "disk" / "a" / "b" / "c.txt", "new")
    watched.step()
    for folder, done in afterwards(watched):
        path = folder / "a" / "b" / "c.txt"
        assert not path.exists() and not done or path.read_text() == "new"


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((50,), float(step)), "rates": [0.1, 0.2]}


def save(run: Run, step: int) -> None:
    checkpoint.save(run, step, state(step), lambda path: adapters.write(small(), path))


@pytest.mark.fault(39, 40)
def test_the_previous_or_the_new_checkpoint_loads(disk, afterwards, tmp_path):
    """Saved twice, then the older one removed: at every moment the newest that was called saved, or the one being
    saved, is there whole.
    """
    run = Run(tmp_path / "disk")
    run.checkpoints.mkdir()
    save(run, 10)
    watched = disk()
    save(run, 20)
    watched.step()
    save(run, 30)
    watched.step()
    checkpoints.prune(run, last=1, every=0)
    watched.step()
    for folder, done in afterwards(watched):
        found = checkpoints.latest(Run(folder))
        step = int(found.name.removeprefix("step-"))
        assert step in {0: (10, 20), 1: (20, 30), 2: (30,), 3: (30,)}[done]
        loaded = checkpoint.load(found)
        assert loaded["step"] == step and torch.equal(loaded["weights"], state(step)["weights"])
        assert_same(adapters.read(found / "adapter.safetensors"), small())


@pytest.mark.fault(39, 40)
def test_a_damaged_checkpoint_is_replaced_by_a_whole_one(disk, afterwards, tmp_path):
    run = Run(tmp_path / "disk")
    run.checkpoints.mkdir()
    save(run, 10)
    save(run, 20)
    (run.checkpoint(20) / "state.json").write_text("{}")
    watched = disk()
    save(run, 20)
    watched.step()
    for folder, done in afterwards(watched):
        found = checkpoints.latest(Run(folder))
        assert found.name in (("step-20",) if done else ("step-10", "step-20")) and checkpoint.load(found)[
            "step"
        ] == int(found.name[5:])


@pytest.mark.fault(40)
@pytest.mark.parametrize("name", ["ink.safetensors", "peft"])
def test_an_export_is_the_old_the_new_or_none(disk, afterwards, tmp_path, name):
    path = tmp_path / "disk" / name
    other = adapters.Adapter(dict(list(small().factors.items())[:2]))
    if name != "peft":
        adapters.write(other, path)
    watched = disk()
    adapters.write(small(), path, "peft" if name == "peft" else "kohya")
    watched.step()
    for folder, done in afterwards(watched):
        if not done and name == "peft" and not (folder / name).exists():
            continue
        found = adapters.read(folder / name)
        assert len(found.factors) in ({len(small().factors)} if done else {len(small().factors), 2})
        if len(found.factors) > 2:
            assert all(
                torch.allclose(found.factors[key].delta(), one.delta(), atol=1e-5)
                for key, one in small().factors.items()
            )


@pytest.mark.fault(40)
def test_a_merged_model_is_whole_or_none(disk, afterwards, tmp_path):
    """Gigabytes, written tensor by tensor."""
    weights = {name: torch.full((300,), float(index)) for index, name in enumerate("abc")}
    entries = tensors.laid_out({name: (one.dtype, tuple(one.shape)) for name, one in weights.items()})
    watched = disk()
    list(tensors.stream(tmp_path / "disk" / "model.safetensors", entries, {}, weights.__getitem__))
    watched.step()
    for folder, done in afterwards(watched):
        path = folder / "model.safetensors"
        assert (
            not done
            and not path.exists()
            or all(torch.equal(tensors.load(path)[0][name], one) for name, one in weights.items())
        )


@pytest.mark.fault(40)
def test_a_new_run_has_its_settings_or_is_none(disk, afterwards, tmp_path):
    wanted = Settings(data="pictures", name="ink", rank=7)
    watched = disk()
    runs.create(wanted, tmp_path / "disk" / "outputs")
    watched.step()
    for folder, done in afterwards(watched):
        found = runs.existing(folder / "outputs")
        assert [run.settings() for run in found] == ([wanted] if done else [wanted][: len(found)])


@pytest.mark.fault(40)
def test_changed_settings_are_the_old_or_the_new_ones(disk, afterwards, tmp_path):
    run = runs.create(Settings(data="pictures", name="ink", rank=7), tmp_path / "disk")
    watched = disk()
    presets.save_settings(run.settings().changed(rank=9), run.settings_file)
    watched.step()
    for folder, done in afterwards(watched):
        assert Run(folder / "ink").settings().adapter.rank in ((9,) if done else (7, 9))


@pytest.mark.fault(40)
def test_an_import_is_whole_or_none(disk, afterwards, tmp_path):
    file = adapters.write(small(), tmp_path / "ink.safetensors")
    watched = disk()
    library.add(file, tmp_path / "disk")
    watched.step()
    for folder, done in afterwards(watched):
        entries, unreadable = library.catalogue(folder)
        assert not unreadable and len(entries) in ((1,) if done else (0, 1))
        for entry in entries:
            assert Path(entry.path).read_bytes() == file.read_bytes()
