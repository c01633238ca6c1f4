"""The catalogue: all adapters from their headers, quickly, whatever lies among them; imports and deletions that lose
nothing.
"""

import json
import time
from pathlib import Path

import pytest

from lora_studio import adapters, runs
from lora_studio.adapters import Adapter
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, MachineError
from lora_studio.runs import library
from lora_studio.runs.library import Origin
from tests.adapters.adapter_samples import TE, factors, small


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Two runs and an import: ``ink`` with its adapter and one checkpoint, ``gold`` that has none yet, ``rain`` from
    elsewhere.
    """
    folder = tmp_path / "outputs"
    ink, _ = (runs.create(Settings(data="x", name=name), folder) for name in ("ink", "gold"))
    adapters.write(
        small(), ink.adapter_file, metadata={"modelspec.title": "Ink on paper", "modelspec.trigger_phrase": "inkstyle"}
    )
    adapters.write(small(), ink.checkpoint(250) / "adapter.safetensors", metadata={"modelspec.title": "Ink on paper"})
    (ink.checkpoint(250) / "state.safetensors").write_bytes(b"not for the catalogue")
    (ink.checkpoint(250) / "manifest.json").write_text('{"adapter.safetensors": ""}')
    adapters.write(
        small(), runs.library_folder(folder) / "rain.safetensors", "diffusers", metadata={"modelspec.title": "Rain"}
    )
    return folder


def named(entries) -> dict[str, library.Entry]:
    return {Path(entry.path).name: entry for entry in entries}


@pytest.fixture
def no_reading(monkeypatch):
    """From here on, looking into a file fails."""

    def refused(path):
        pytest.fail(f"{path} was read again")

    return lambda: monkeypatch.setattr(library.adapters, "summary", refused, raising=False)


def test_every_adapter_is_listed_with_what_its_header_and_shapes_say(outputs):
    found = named(library.entries(outputs))
    assert set(found) == {"ink.safetensors", "adapter.safetensors", "rain.safetensors"}
    ink, state, rain = found["ink.safetensors"], found["adapter.safetensors"], found["rain.safetensors"]
    assert (ink.title, ink.trigger, ink.family, ink.dialect, ink.method, ink.rank, ink.origin, ink.run, ink.step) == (
        "Ink on paper",
        "inkstyle",
        "starter",
        "kohya",
        "locon",
        4,
        Origin.RUN,
        "ink",
        None,
    )
    assert ink.size == Path(ink.path).stat().st_size and ink.has_thumbnail is False and ink.mixed_ranks
    assert (state.origin, state.run, state.step) == (Origin.CHECKPOINT, "ink", 250)
    assert (rain.origin, rain.run, rain.dialect, rain.title) == (Origin.IMPORTED, "", "diffusers", "Rain")


def test_judged_states_are_listed_once_and_files_know_which_state_they_are(outputs):
    """Step 250 is saved and judged; step 500 was judged, deleted and kept; the run's adapter is step 250's."""
    ink = runs.Run(outputs / "ink")
    adapters.write(small(), ink.judged_adapter(250))
    for path in (ink.judged_adapter(500), ink.kept_file(500)):
        adapters.write(Adapter({TE: factors(TE, 48, 48)}), path)
    (ink.evaluation / "base").mkdir()
    (ink.evaluation / "step-750").mkdir()
    found = {Path(entry.path).relative_to(outputs).as_posix(): entry for entry in library.entries(outputs)}
    assert {key: (entry.step, entry.state) for key, entry in found.items()} == {
        "ink/ink.safetensors": (None, 250),
        "ink/ink-step-500.safetensors": (None, 500),
        "ink/checkpoints/step-250/adapter.safetensors": (250, 250),
        "ink/evaluation/step-500/adapter.safetensors": (500, 500),
        "library/rain.safetensors": (None, None),
    }
    assert found["ink/evaluation/step-500/adapter.safetensors"].origin is Origin.CHECKPOINT


def test_the_latest_come_first(outputs):
    import os

    rain = runs.library_folder(outputs) / "rain.safetensors"
    os.utime(rain, (1, 1))
    assert library.entries(outputs)[-1].path == str(rain)


def test_without_outputs_there_is_nothing_and_nothing_is_made(tmp_path):
    assert library.catalogue(tmp_path / "none") == ([], []) and not (tmp_path / "none").exists()


@pytest.mark.fault(23, 33)
def test_a_bad_file_is_named_and_hides_no_other(outputs):
    """Faults 23 to 33 met while listing: each file for itself."""
    folder = runs.library_folder(outputs)
    (folder / "empty.safetensors").touch()
    (folder / "pickle.safetensors").write_bytes(b"PK\x03\x04" + b"x" * 50)
    head = json.dumps(
        {
            "lora_unet_mid_block_attentions_0_proj_in.alpha": {
                "dtype": "F32",
                "shape": ["x"],
                "data_offsets": [-9e99, 4],
            },
            "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": {
                "dtype": "F32",
                "shape": [None, {}],
                "data_offsets": [0, 4],
            },
        }
    ).encode()
    (folder / "hostile.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"0000")
    found = library.catalogue(outputs)
    assert len(found.entries) == 3
    assert {Path(one.path).name for one in found.unreadable} == {
        "empty.safetensors",
        "pickle.safetensors",
        "hostile.safetensors",
    }
    assert all(one.what and one.do for one in found.unreadable)


def test_a_second_listing_reads_no_file(outputs, no_reading):
    (runs.library_folder(outputs) / "broken.safetensors").write_bytes(b"x" * 20)
    first = library.catalogue(outputs)
    no_reading()
    assert library.catalogue(outputs) == first


def test_the_index_goes_with_the_folder(outputs, tmp_path, no_reading):
    library.entries(outputs)
    moved = outputs.rename(tmp_path / "moved")
    no_reading()
    assert named(library.entries(moved))["ink.safetensors"].path == str(moved / "ink" / "ink.safetensors")


def test_a_changed_file_is_read_again_and_a_deleted_one_forgotten(outputs):
    library.entries(outputs)
    path = runs.library_folder(outputs) / "rain.safetensors"
    adapters.write(small(), path, metadata={"modelspec.title": "Snow"})
    (outputs / "ink" / "ink.safetensors").unlink()
    assert [entry.title for entry in library.entries(outputs) if entry.origin is not Origin.CHECKPOINT] == ["Snow"]
    assert "ink/ink.safetensors" not in json.loads(next(runs.cache_folder(outputs).glob("library-*.json")).read_text())


@pytest.mark.fault(57)
@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"ink/ink.safetensors": [1, 2, {"path": 3}, "", ""]}']
)
def test_a_corrupt_index_is_rebuilt(outputs, damage):
    before = library.entries(outputs)
    index = next(runs.cache_folder(outputs).glob("library-*.json"))
    whole = index.read_bytes()
    index.write_bytes(damage)
    assert library.entries(outputs) == before and index.read_bytes() == whole


def test_a_disk_that_cannot_be_written_is_still_listed(outputs, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(library.files, "write", full)
    assert len(library.entries(outputs)) == 3


def test_a_thousand_adapters_are_listed_within_a_second(outputs):
    data = (runs.library_folder(outputs) / "rain.safetensors").read_bytes()
    for number in range(1000):
        (runs.library_folder(outputs) / f"rain{number}.safetensors").write_bytes(data)
    library.entries(outputs)
    began = time.process_time()
    assert len(library.entries(outputs)) == 1003
    assert time.process_time() - began < 1


# Search


@pytest.mark.parametrize(("words", "found"), [
    ("", {"ink.safetensors", "adapter.safetensors", "rain.safetensors"}),
    ("PAPER", {"ink.safetensors", "adapter.safetensors"}),
    ("inkstyle", {"ink.safetensors"}),
    ("ink step-250", {"adapter.safetensors"}),
    ("rain diffusers", {"rain.safetensors"}),
    ("rain kohya", set()),
    ("imported rank4 starter", {"rain.safetensors"}),
    ("paper\nnothing", set()),
])  # fmt: skip
def test_every_word_must_occur_somewhere(outputs, words, found):
    assert {Path(entry.path).name for entry in library.search(library.entries(outputs), words)} == found


# Import


@pytest.mark.fault(62)
def test_an_import_is_a_copy_under_a_safe_name(outputs, tmp_path):
    file = adapters.write(small(), tmp_path / "My été: 50% .safetensors")
    path = library.add(file, outputs)
    assert path.parent == runs.library_folder(outputs) and path.name == "My-été-50.safetensors"
    assert path.read_bytes() == file.read_bytes() and file.exists()


@pytest.mark.fault(62)
def test_an_import_never_overwrites(outputs, tmp_path):
    kept = (runs.library_folder(outputs) / "rain.safetensors").read_bytes()
    path = library.add(adapters.write(small(), tmp_path / "rain.safetensors"), outputs)
    assert (
        path.name == "rain-2.safetensors" and (runs.library_folder(outputs) / "rain.safetensors").read_bytes() == kept
    )
    assert not list(runs.library_folder(outputs).glob("*.partial"))


def test_the_same_file_twice_stays_one(outputs, tmp_path):
    first = library.add(adapters.write(small(), tmp_path / "new.safetensors"), outputs)
    assert library.add(first.rename(tmp_path / "other.safetensors"), outputs).name == "other.safetensors"
    assert library.add(tmp_path / "other.safetensors", outputs).name == "other.safetensors"
    assert len(list(runs.library_folder(outputs).iterdir())) == 2


def test_a_peft_folder_becomes_one_file_of_the_same_change(outputs, tmp_path):
    folder = adapters.write(small(), tmp_path / "of-peft", "peft")
    again = adapters.read(library.add(folder, outputs))
    for path, one in small().factors.items():
        assert float((again.factors[path].delta() - one.delta()).norm()) <= 1e-6 * float(one.delta().norm())


@pytest.mark.parametrize(("name", "content", "says"), [
    ("a.ckpt", b"\x80\x02}", "pickle"),
    ("a.safetensors", b"\x80\x02}q\x00" + b"x" * 40, "pickle"),
    ("b.safetensors", b"nonsense" * 9, "header"),
    ("c.safetensors", b"", "damaged"),
])  # fmt: skip
def test_what_is_no_adapter_is_refused_and_not_kept(outputs, tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdapterError, match=says):
        library.add(tmp_path / name, outputs)
    assert [path.name for path in runs.library_folder(outputs).iterdir()] == ["rain.safetensors"]


@pytest.mark.fault(28)
def test_numbers_that_are_none_are_found_by_reading_them(outputs, tmp_path):
    """A header alone would look well."""
    from safetensors.torch import save_file

    one = factors(TE, 48, 48)
    one.up[3, 2] = float("nan")
    stem = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    save_file({f"{stem}.lora_down.weight": one.down, f"{stem}.lora_up.weight": one.up}, tmp_path / "nan.safetensors")
    with pytest.raises(AdapterError, match="NaN"):
        library.add(tmp_path / "nan.safetensors", outputs)


def test_a_library_that_cannot_be_written_is_named(outputs, tmp_path):
    file = adapters.write(small(), tmp_path / "new.safetensors")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(MachineError, match="cannot be added to the library"):
        library.add(file, blocked)


def test_no_run_takes_the_librarys_folder(tmp_path):
    assert runs.create(Settings(data="x", name="Library"), tmp_path).folder != runs.library_folder(tmp_path)
    assert runs.create(Settings(data="x", name="library"), tmp_path).folder != runs.library_folder(tmp_path)


# The trash


@pytest.fixture
def trashed(monkeypatch):
    """Stands in for the system's trash; no test may touch the real one."""
    paths = []

    def take(path):
        paths.append(Path(path))
        Path(path).unlink()

    monkeypatch.setattr("send2trash.send2trash", take)
    return paths


def test_a_deleted_adapter_goes_to_the_trash_and_out_of_the_list(outputs, trashed):
    path = runs.library_folder(outputs) / "rain.safetensors"
    library.trash(path)
    assert trashed == [path] and "rain.safetensors" not in named(library.entries(outputs))


def test_what_a_run_resumes_from_is_not_deleted(outputs, trashed):
    with pytest.raises(AdapterError, match="saved state"):
        library.trash(outputs / "ink" / "checkpoints" / "step-250" / "adapter.safetensors")
    assert not trashed


@pytest.mark.parametrize("name", ["none.safetensors", "settings.toml", "."])
def test_nothing_but_an_adapter_is_deleted(outputs, trashed, name):
    with pytest.raises(AdapterError, match="no adapter"):
        library.trash(outputs / "ink" / name)
    assert not trashed and (outputs / "ink" / "settings.toml").exists()


def test_a_disk_without_a_trash_keeps_the_file(outputs, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("send2trash.send2trash", refuse)
    path = runs.library_folder(outputs) / "rain.safetensors"
    with pytest.raises(MachineError, match="file manager"):
        library.trash(path)
    assert path.exists()
