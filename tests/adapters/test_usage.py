"""A header tells the strength to start with, and is rewritten without a change to the tensors."""

import hashlib

import pytest
import safetensors.torch

from lora_studio.adapters import header, metadata, usage, write
from lora_studio.adapters.head import relabel
from lora_studio.adapters.metadata import Privacy
from lora_studio.adapters.usage import Strength
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import small

MEASURED = Strength(0.8, 0.6, 1.0)


@pytest.fixture
def file(tmp_path):
    texts = {"modelspec.trigger_phrase": "inkstyle", "ss_output_name": "ink"}
    return write(small(), tmp_path / "ink.safetensors", metadata=texts)


def test_a_strength_is_told_to_people_and_programs_and_read_back(file):
    texts = usage.texts(MEASURED, header(file).metadata)
    assert texts == {
        "modelspec.usage_hint": "Put inkstyle into the prompt. Start at a strength of 0.8; "
        "style and subjects hold from 0.6 to 1.",
        "modelspec.lora_default_weight": "0.8",
        "lora_studio.strength": '{"recommended": 0.8, "low": 0.6, "high": 1.0}',
    }
    assert usage.strength(texts) == MEASURED
    assert metadata.at(texts, Privacy.MINIMAL) == texts and not metadata.at(texts, Privacy.NONE)
    assert usage.texts(Strength(0.5), {})["modelspec.usage_hint"] == "Start at a strength of 0.5."


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({}, None),
        ({"modelspec.lora_default_weight": "0.7"}, Strength(0.7)),
        ({"modelspec.lora_default_weight": "strong"}, None),
        ({"modelspec.lora_default_weight": "nan"}, None),
        ({"lora_studio.strength": "[]", "modelspec.lora_default_weight": "0.7"}, Strength(0.7)),
        ({"lora_studio.strength": '{"recommended": "<b>"}'}, None),
        ({"lora_studio.strength": '{"recommended": 1, "more": 2}'}, None),
        ({"lora_studio.strength": '{"recommended": null}'}, None),
        ({"lora_studio.strength": '{"recommended": 1, "low": 1%s}' % ("0" * 400)}, None),
        ({"lora_studio.strength": "[" * 100_000}, None),
    ],
)
def test_a_strangers_strength_is_a_number_or_none(texts, found):
    assert usage.strength(texts) == found


def test_a_header_is_rewritten_and_the_tensors_stay(file):
    before, tensors = header(file), safetensors.torch.load_file(file)
    data = file.read_bytes()[before.data_start :]
    relabel(file, {"modelspec.usage_hint": "Start low.", "modelspec.trigger_phrase": ""})
    after = header(file)
    assert file.read_bytes()[after.data_start :] == data and after.entries == before.entries
    assert after.metadata == {
        **{key: value for key, value in before.metadata.items() if key != "modelspec.trigger_phrase"},
        "modelspec.usage_hint": "Start low.",
    }
    again = safetensors.torch.load_file(file)
    assert all((again[name] == tensor).all() for name, tensor in tensors.items())


def test_what_is_renamed_has_the_hashes_of_its_new_header(file, tmp_path):
    """``sshs_legacy_hash`` is over a part of the file that includes the ``ss_*`` entries."""
    target = tmp_path / "other.safetensors"
    relabel(file, {"ss_output_name": "x" * 40}, target)
    found = header(target).metadata
    own = {key: value for key, value in found.items() if key.startswith("ss_")}
    whole = safetensors.torch.save(safetensors.torch.load_file(target), own)
    assert found["sshs_legacy_hash"] == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]
    assert found["sshs_model_hash"] == header(file).metadata["sshs_model_hash"]


def test_the_same_texts_leave_the_file_alone(file):
    before = file.stat()
    relabel(file, {"modelspec.trigger_phrase": "inkstyle"})
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_header_never_vouches_for_tensors_that_changed(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(AdapterError, match="not those that were saved"):
        relabel(file, {"modelspec.usage_hint": "Start low."})
    assert file.read_bytes() == data
