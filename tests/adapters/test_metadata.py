"""The header's texts: what other programs show, hashes as they compute them, privacy, thumbnails, recipes."""

from __future__ import annotations

import hashlib
import io
import json

import pytest
import safetensors.torch
import torch
from PIL import Image

from lora_studio.adapters import Adapter, header, metadata, read, recipe, summary, write
from lora_studio.adapters.metadata import Privacy
from lora_studio.adapters.provenance import Provenance
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import Q, factors, golden, small

TRAINED = recipe.Training(
    settings={
        "data": "C:\\Users\\ann\\pictures\\ink",
        "base": "/home/ann/models/base.safetensors",
        "rank": 8,
        "seed": 3,
        "steps": 500,
    },
    base="base",
    base_sha256="ab" * 32,
    tags={"inkstyle": 2, "cat": 1},
    versions={"torch": "2.13"},
    steps=400,
    started=1.75e9,
    seconds=60.0,
    images=[
        recipe.ImageRecord(name="one.png", sha256="1" * 64, prepared="a"),
        recipe.ImageRecord(name="two.png", sha256="2" * 64),
    ],
)


def told(**more) -> dict[str, str]:
    return Provenance(TRAINED, title="Ink", prediction="epsilon", resolution=512, **more).texts


def picture(size=(900, 600)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("prediction", "zero_snr", "v", "zero"),
    [("epsilon", False, "False", "False"), ("v", True, "True", "True"), ("v", False, "True", "False")],
)
def test_the_noise_is_written_as_others_read_it(prediction, zero_snr, v, zero):
    """sd-scripts and the interfaces that show its headers know these two entries."""
    made = Provenance(TRAINED, title="Ink", prediction=prediction, zero_snr=zero_snr, resolution=512).texts
    assert (made["ss_v_parameterization"], made["ss_zero_terminal_snr"]) == (v, zero)
    assert made["modelspec.prediction_type"] == prediction


def test_every_folder_has_an_entry_with_its_repeats_and_tags():
    """Interfaces show them as trigger words, and multiply the images by the repeats."""
    folders = {
        "10_ink": recipe.FolderRecord(repeats=10, images=2, tags={"ink": 2, "cat": 1}),
        "3_gold": recipe.FolderRecord(repeats=3, images=1, tags={"gold": 1}),
        "plain": recipe.FolderRecord(repeats=1, images=4),
    }
    made = Provenance(
        TRAINED.model_copy(update={"folders": folders}), title="Ink", prediction="epsilon", resolution=512
    ).texts
    assert json.loads(made["ss_dataset_dirs"]) == {
        "10_ink": {"n_repeats": 10, "img_count": 2},
        "3_gold": {"n_repeats": 3, "img_count": 1},
        "plain": {"n_repeats": 1, "img_count": 4},
    }
    assert json.loads(made["ss_tag_frequency"]) == {"10_ink": {"ink": 2, "cat": 1}, "3_gold": {"gold": 1}}
    assert recipe.read(made).folders == folders
    assert json.loads(told()["ss_dataset_dirs"]) == {"ink": {"n_repeats": 1, "img_count": 2}}, "of an earlier version"


def test_class_pictures_are_written_as_sd_scripts_writes_them():
    own, others = recipe.FolderRecord(images=1), recipe.FolderRecord(images=1, repeats=5, regularisation=True)
    made = Provenance(
        TRAINED.model_copy(update={"folders": {"ink": own, "man": others}}),
        title="Ink",
        prediction="epsilon",
        resolution=512,
    ).texts
    assert (made["ss_num_train_images"], made["ss_num_reg_images"]) == ("1", "1")
    assert json.loads(made["ss_dataset_dirs"]) == {"ink": {"n_repeats": 1, "img_count": 1}}
    assert json.loads(made["ss_reg_dataset_dirs"]) == {"man": {"n_repeats": 5, "img_count": 1}}
    assert recipe.read(made).class_images == 1
    assert not {"ss_reg_dataset_dirs", "ss_num_reg_images"} & told().keys()


@pytest.mark.parametrize(
    ("family", "version", "architecture"),
    [
        ("sd1", "sd_v1", "stable-diffusion-v1/lora"),
        ("sd2", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_what_readers_decide_on_is_always_there(family, version, architecture, tmp_path):
    """Forge sorts files by modelspec.architecture, A1111 by ss_base_model_version; even the most private file needs
    both.
    """
    safetensors.torch.save_file(
        {key: torch.zeros(shape) for key, shape in list(golden(family).items())[-30:]}, tmp_path / "a.safetensors"
    )
    texts = header(write(read(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", privacy=Privacy.NONE)).metadata
    assert (texts["ss_base_model_version"], texts["modelspec.architecture"]) == (version, architecture)
    assert (
        texts["ss_network_module"] == "networks.lora"
        and texts["ss_network_dim"] == "4"
        and texts["modelspec.sai_model_spec"]
    )
    assert texts["modelspec.title"] == "b" and texts["modelspec.resolution"] and texts["modelspec.implementation"]


def test_mixed_ranks_are_dynamic(tmp_path):
    assert header(write(small(), tmp_path / "a.safetensors")).metadata["ss_network_dim"] == "Dynamic"


def test_hashes_as_the_reference_trainer_computes_them(tmp_path):
    """Its way, step by step: serialize with the ss_ texts alone; hash what follows the header; hash 64 KiB at 1 MiB."""
    path = write(
        Adapter({Q: factors(Q, 1300, 1300, rank=256)}), tmp_path / "a.safetensors", metadata={"ss_output_name": "x"}
    )
    texts = header(path).metadata
    tensors = safetensors.torch.load_file(path)
    own = {key: value for key, value in texts.items() if key.startswith("ss_")}
    data = safetensors.torch.save(tensors, own)
    start = 8 + int.from_bytes(data[:8], "little")
    assert texts["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    assert texts["sshs_legacy_hash"] == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert texts["modelspec.hash_sha256"] == "0x" + texts["sshs_model_hash"]


def test_privacy_levels():
    """A private file must not tell pictures, tags, settings or times; a full one all but the machine's folders."""
    full = told(trigger="inkstyle", author="Ann", thumbnail=metadata.thumbnail(picture()))
    assert recipe.read(metadata.at(full, Privacy.FULL)) is not None
    minimal, none = metadata.at(full, Privacy.MINIMAL), metadata.at(full, Privacy.NONE)
    assert (
        minimal["modelspec.trigger_phrase"] == "inkstyle"
        and minimal["modelspec.thumbnail"]
        and minimal["ss_sd_model_name"] == "base"
    )
    assert not [key for key in minimal if key in ("ss_tag_frequency", "ss_dataset_dirs", recipe.KEY, "ss_seed")]
    assert set(none) == {"modelspec.title", "modelspec.resolution", "modelspec.prediction_type"}
    assert "ann" not in json.dumps({key: value for key, value in full.items() if key.startswith("ss_")})


def test_what_other_programs_show():
    full = told()
    assert json.loads(full["ss_tag_frequency"]) == {"ink": {"inkstyle": 2, "cat": 1}}
    assert (
        full["ss_output_name"] == "Ink"
        and full["ss_new_sd_model_hash"] == "ab" * 32
        and full["ss_steps"] == "400"
        and full["ss_num_train_images"] == "2"
    )
    assert full["modelspec.date"] == "2025-06-15T15:06:40Z"
    assert all(isinstance(value, str) for value in full.values())


def test_thumbnail_is_small_and_comes_back():
    url = metadata.thumbnail(picture())
    with Image.open(io.BytesIO(metadata.thumbnail_bytes({"modelspec.thumbnail": url}))) as image:
        assert image.size == (256, 171) and image.format == "JPEG"
    with pytest.raises(AdapterError, match="not an image"):
        metadata.thumbnail(b"<svg/>")


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    "url",
    [
        "",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,PGI+",
        "data:image/png;base64,***",
        "http://x/y.png",
        "data:image/png;base64," + "A" * 3_000_000,
    ],
)
def test_thumbnails_that_are_no_plain_picture_are_not_shown(url):
    assert metadata.thumbnail_bytes({"modelspec.thumbnail": url}) is None


AI_TOOLKIT = '{"name": "ai-toolkit", "version": "0.7.8"}'


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        ({"modelspec.trigger_phrase": "inkstyle"}, "inkstyle"),
        ({"lora_studio.recipe": "{}", "ss_tag_frequency": '{"a": {"anchor": 9, "cat": 1}}'}, ""),
        ({"ss_tag_frequency": '{"10_x": {"a": 3, "ink": 9}}'}, ""),
        ({"ss_tag_frequency": '{"10_ink": {"ink": 9}, "5_gold": {"gold": 2}}'}, ""),
        ({"ss_tag_frequency": '{"1_ink": {"ink": 1}}'}, ""),
        ({"software": AI_TOOLKIT, "ss_tag_frequency": '{"1_ink": {"ink": 1}}'}, "ink"),
        ({"software": AI_TOOLKIT, "ss_tag_frequency": r'{"1_\ud800": {"\ud800": 1}}'}, ""),
        ({"software": AI_TOOLKIT, "ss_tag_frequency": '{"1_ink": {"ink": 4, "cat": 9}}'}, ""),
        ({"software": AI_TOOLKIT, "ss_tag_frequency": '{"1_ink": {"ink": 1}, "1_b": {"b": 1}}'}, ""),
        ({"software": "[" * 100_000, "ss_tag_frequency": "[1]"}, ""),
        ({"software": AI_TOOLKIT, "ss_tag_frequency": "{{{"}, ""),
        ({"ss_trigger_words": "ink, gold"}, "ink, gold"),
        ({"trigger_words": '["ink", " gold", 3]'}, "ink, gold"),
        ({"trained_words": "[ink] style"}, "[ink] style"),
        ({"modelspec.trigger_phrase": " ", "ss_trigger_words": "ink"}, "ink"),
        ({}, ""),
    ],
)
def test_a_trigger_word_is_read_and_never_guessed(texts, word):
    assert metadata.trigger(texts) == word


def test_recipe_comes_back_and_tells_what_differs():
    back = recipe.read(told())
    assert back == TRAINED
    one, two, three = (recipe.ImageRecord(name="x.png", sha256=digit * 64, prepared="a") for digit in "123")
    same = {"base_sha256": "ab" * 32, "images": [two, one], "versions": {"torch": "2.13", "python": "3.11"}}
    assert recipe.compare(back, **same) == []
    changed = recipe.compare(back, base_sha256="cd" * 32, images=[two, three], versions={"torch": "2.11"})
    assert [difference.what for difference in changed] == [
        "base model",
        "pictures missing or changed",
        "pictures added",
        "torch",
    ]
    assert changed[1].recorded == "one.png"
    others = [image.model_copy(update={"prepared": "b"}) for image in (one, two)]
    assert recipe.compare(back, **same | {"images": others}) == [
        ("captions, masks, crops or weights", "one.png", "changed")
    ], "of the second it is not known"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "training"}', '{"kind": "magic"}', "\x00"])
def test_a_recipe_that_cannot_be_read_is_none(text):
    assert recipe.read({recipe.KEY: text}) is None


def test_recipes_do_not_tell_the_machines_folders():
    cut = recipe.cut_paths(TRAINED.settings)
    assert (cut["data"], cut["base"], cut["rank"]) == ("ink", "base.safetensors", 8)


def test_summary_of_each_dialect(tmp_path):
    for dialect in ("kohya", "diffusers", "peft"):
        adapter = Adapter({Q: factors(Q, 128, 128, rank=8, alpha=2.0)}, told(trigger="inkstyle"))
        card = summary(write(adapter, tmp_path / f"a{dialect}", dialect))
        assert (card.dialect, card.family, card.method, card.rank, card.alpha, card.modules) == (
            dialect,
            "starter",
            "lora",
            8,
            2.0,
            1,
        )
        assert (card.title, card.trigger, card.mixed_ranks, card.date[:10]) == ("Ink", "inkstyle", False, "2025-06-15")


def test_a_changed_file_gets_a_new_card(tmp_path):
    path = write(Adapter({Q: factors(Q, 128, 128, rank=8)}), tmp_path / "a.safetensors", dtype=torch.bfloat16)
    assert summary(path).rank == 8
    write(Adapter({Q: factors(Q, 128, 128, rank=2)}), path)
    assert summary(path).rank == 2
    with pytest.raises(AdapterError):
        summary(tmp_path / "none.safetensors")
