"""What the adapter's header says of its dataset."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lora_studio import adapters
from lora_studio.adapters import Adapter
from lora_studio.adapters.recipe import FolderRecord
from lora_studio.config.slices import AdapterSettings
from lora_studio.dataset.items import Dataset, Picture
from lora_studio.families import registry
from lora_studio.training import export
from tests.adapters.adapter_samples import BLOCK, factors


def test_folders_are_counted_apart_without_what_is_held_out(monkeypatch):
    monkeypatch.setattr(export.reading, "tags_seen", lambda text, settings, tokenizers: text.split(", "))
    names = {
        "10_ink/a.png": 10,
        "10_ink/b.png": 10,
        "c.png": 1,
        "10_ink/d.png": 10,
        "sub/3_gold/e.png": 3,
        "5_man/f": 5,
    }
    captions = [["ink, cat", "cat, ink"], ["ink"], ["dog"], ["held out"], ["gold"], ["man"]]
    folder = Path("pictures/mine")
    pictures = [
        Picture(folder / name, "", repeats, 64, 64, "", regularisation="man" in name) for name, repeats in names.items()
    ]
    data = SimpleNamespace(
        train=[0, 1, 2, 4, 5],
        dataset=Dataset(folder, pictures, []),
        cache=SimpleNamespace(samples=[SimpleNamespace(captions=texts) for texts in captions]),
    )
    session = SimpleNamespace(data=data, settings=None, base=SimpleNamespace(tokenizers=None))
    assert export._folders(session) == {
        "10_ink": FolderRecord(repeats=10, images=2, tags={"ink": 2, "cat": 1}),
        "mine": FolderRecord(repeats=1, images=1, tags={"dog": 1}),
        "sub/3_gold": FolderRecord(repeats=3, images=1, tags={"gold": 1}),
        "5_man": FolderRecord(repeats=5, images=1, regularisation=True),
    }


@pytest.mark.parametrize("family, version", [("starter", "lora_studio_starter_2"), ("starter1", "lora_studio_starter")])
def test_an_adapter_names_the_family_that_it_was_trained_on(tmp_path, monkeypatch, family, version):
    """Both starters have the same shapes: an adapter trained on the first one must not claim the other."""
    monkeypatch.setattr(export, "header", lambda session: {})
    session = SimpleNamespace(
        settings=SimpleNamespace(adapter=AdapterSettings()),
        base=SimpleNamespace(family=registry.named(family)),
        adapter=lambda: Adapter({f"{BLOCK}.attn1.to_q": factors("q", 64, 64)}),
    )
    export.write(session, tmp_path / "ink.safetensors")
    read = adapters.read(tmp_path / "ink.safetensors")
    assert (read.family, read.metadata["ss_base_model_version"]) == (family, version)
