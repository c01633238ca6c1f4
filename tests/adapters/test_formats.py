"""Files and folders: golden key lists written, identity of reading what was written, each tool's own layout."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lora_studio.adapters import Adapter, Factors, header, keys, read, write
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import FAMILIES, TE, Q, assert_same, drawn, factors, golden, small


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_files_are_written_key_for_key(family, tmp_path):
    """One missing or misnamed key is a module that ComfyUI silently leaves out."""
    wanted = golden(family)
    save_file({key: drawn(key, shape) for key, shape in wanted.items()}, tmp_path / "theirs.safetensors")
    adapter = read(tmp_path / "theirs.safetensors")
    assert adapter.family == family
    write(adapter, tmp_path / "ours.safetensors")
    theirs, ours = load_file(tmp_path / "theirs.safetensors"), load_file(tmp_path / "ours.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in ours.items()} == wanted
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "peft"])
def test_reading_what_was_written_is_the_identity(dialect, tmp_path):
    adapter = small()
    path = write(adapter, tmp_path / "a.safetensors", dialect)
    assert_same(read(path), adapter)
    assert read(path).metadata["modelspec.title"] == "Small" and read(path).file == path.name


stems = [key.partition(".")[0] for family in FAMILIES for key in list(golden(family))[::97]]
paths = st.sampled_from([path for path in map(keys.path_of, stems) if path and ".proj_" not in path])
"""Linear layers. Of a transformer's ends, 1×1 convolutions in some families, only the family tells the kernel."""
modules = st.tuples(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(0.0625, 1024, width=32),
    st.sampled_from([0, 3]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.dictionaries(paths, modules, min_size=1, max_size=6),
    dialect=st.sampled_from(["kohya", "diffusers", "peft"]),
)
def test_identity_for_any_mixture_of_shapes_ranks_alphas_and_dtypes(shapes, dialect, tmp_path_factory):
    adapter = Adapter({path: factors(path, *shape) for path, shape in shapes.items()})
    path = write(adapter, tmp_path_factory.mktemp("a") / "a.safetensors", dialect, raw_dora=True)
    assert_same(read(path), adapter)


def test_the_same_adapter_gives_the_same_bytes_and_an_ordinary_files_mode(tmp_path):
    """The library shuffles metadata and writes 0600, so that hashes differ and another user's web UI cannot read it."""
    one, two = write(small(), tmp_path / "one.safetensors"), write(small(), tmp_path / "two.safetensors")
    assert one.read_bytes() == two.read_bytes()
    if os.name != "nt":
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(one.stat().st_mode) == 0o666 & ~umask


@pytest.mark.fault(31)
def test_missing_alpha_means_scale_one(tmp_path):
    stem = keys.to_kohya(Q, "sd1")
    save_file(
        {f"{stem}.lora_down.weight": drawn("d", (4, 6)), f"{stem}.lora_up.weight": drawn("u", (5, 4))},
        tmp_path / "a.safetensors",
    )
    assert read(tmp_path / "a.safetensors").factors[Q].scale == 1.0


def test_diffusers_alphas_come_from_the_header(tmp_path):
    """A file without the header's LoraConfig is read at scale 1 by diffusers; so by us, and with it at its alpha."""
    tensors = {
        f"{path}.lora_{side}.weight": drawn(path, shape)
        for path in (Q, TE)
        for side, shape in (("A", (4, 6)), ("B", (5, 4)))
    }
    table = {
        "unet.r": 4,
        "unet.lora_alpha": 8,
        "unet.use_rslora": True,
        "text_encoder.lora_alpha": 1,
        "text_encoder.alpha_pattern": {"encoder.layers.0.self_attn.q_proj": 6},
    }
    save_file(tensors, tmp_path / "with.safetensors", {"lora_adapter_metadata": json.dumps(table)})
    save_file(tensors, tmp_path / "without.safetensors")
    found = read(tmp_path / "with.safetensors").factors
    assert found[Q].scale == 8 / 2  # rsLoRA: alpha / sqrt(4)
    assert found[TE].alpha == 6
    assert read(tmp_path / "without.safetensors").factors[Q].scale == 1.0


def test_peft_folder_of_a_unet_alone_and_of_several_components(tmp_path):
    unet = Adapter({Q: factors(Q, 6, 6)})
    write(unet, tmp_path / "unet", "peft")
    assert sorted(os.listdir(tmp_path / "unet")) == ["adapter_config.json", "adapter_model.safetensors"]
    write(small(), tmp_path / "both", "peft")
    assert sorted(os.listdir(tmp_path / "both")) == ["text_encoder", "unet"]
    assert_same(read(tmp_path / "unet" / "adapter_model.safetensors"), unet)
    with pytest.raises(AdapterError, match="exists already"):
        write(unet, tmp_path / "unet", "peft")


def test_half_precision_that_overflows_is_refused_and_leaves_the_old_file(tmp_path):
    path = write(small(), tmp_path / "a.safetensors")
    before = path.read_bytes()
    big = Adapter({Q: Factors(torch.full((1, 2), 1e6), torch.ones(2, 1), 1.0)})
    with pytest.raises(AdapterError, match="too large for float16"):
        write(big, path, dtype=torch.float16)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_stale_texts_do_not_travel_with_changed_tensors(tmp_path):
    """After a resize the header must tell the new rank, and the old hash must be gone."""
    first = read(write(Adapter({Q: factors(Q, 6, 6, rank=4)}), tmp_path / "a.safetensors"))
    second = Adapter({Q: factors(Q, 6, 6, rank=2, alpha=1.0)}, first.metadata)
    told = header(write(second, tmp_path / "b.safetensors")).metadata
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("2", "1")
    assert told["sshs_model_hash"] != first.metadata["sshs_model_hash"]


@pytest.mark.fault(30)
def test_files_that_are_no_adapter_are_refused_with_counts(tmp_path):
    """Row 30: nothing matched must be an error that counts, not a log line."""
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(4)}, tmp_path / "base.safetensors")
    with pytest.raises(AdapterError, match="None of the 1 tensors .* whole base model"):
        read(tmp_path / "base.safetensors")
    extra = {
        f"{Q}.lora_A.weight": drawn("d", (4, 6)),
        f"{Q}.lora_B.weight": drawn("u", (5, 4)),
        f"{Q}.w_norm": torch.ones(5),
    }
    save_file(extra, tmp_path / "extra.safetensors")
    with pytest.raises(AdapterError, match="1 of 3 tensors, .*w_norm"):
        read(tmp_path / "extra.safetensors")


def test_a_dora_is_not_exported_raw_by_accident(tmp_path):
    """Each program reads dora_scale in its own way; most give another picture."""
    with pytest.raises(AdapterError, match="DoRA"):
        write(Adapter({Q: factors(Q, 6, 6, dora=True)}), tmp_path / "a.safetensors")


def test_half_a_module_is_refused_by_name(tmp_path):
    save_file({f"{Q}.lora_A.weight": drawn("d", (4, 6))}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="lacks its part 'up'"):
        read(tmp_path / "a.safetensors")
    save_file(
        {f"{Q}.lora_A.weight": drawn("d", (4, 6)), f"{Q}.lora_B.weight": drawn("u", (5, 3))}, tmp_path / "b.safetensors"
    )
    with pytest.raises(AdapterError, match="do not fit"):
        read(tmp_path / "b.safetensors")
