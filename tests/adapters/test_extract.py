"""An adapter of two checkpoints: what was folded in comes out again, from folders and single files."""

from __future__ import annotations

import json
import shutil
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import adapters, cli, starter
from lora_studio.adapters import Adapter, extract, keys, merge
from lora_studio.errors import AdapterError, ModelError
from tests.adapters.adapter_samples import BLOCK, TE, factors

CONV, MIDDLE, Q = "unet.down_blocks.0.resnets.1.conv1", "unet.mid_block.attentions.0.proj_in", f"{BLOCK}.attn1.to_q"
UNET = starter.MODEL / "unet" / "diffusion_pytorch_model.safetensors"


def sized(path: str) -> adapters.Factors:
    """Factors of rank 4 for the starter's layer at ``path``."""
    out, into, *kernel = merge.weight_reader(starter.MODEL, "starter")(path).shape
    return factors(path, out, into, kernel=kernel[0] if kernel else 0)


PATHS = (Q, CONV, MIDDLE, TE)
STYLE = Adapter({path: sized(path) for path in PATHS})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The starter with an adapter folded in."""
    folder = tmp_path_factory.mktemp("models") / "tuned"
    list(merge.merge(starter.MODEL, folder, [(STYLE, 0.5)]))
    return folder


def found(base, model, ranks=(4, 4), **more) -> extract.Extraction:
    result = extract.Extraction()
    steps = list(extract.extract(base, model, extract.Ranks(*ranks), result, **more))
    assert steps[-1].done == steps[-1].total == len(steps)
    return result


def test_what_was_folded_in_comes_out_at_its_rank(tuned):
    result = found(starter.MODEL, tuned)
    assert result.family == "starter" and set(result.factors) == set(PATHS)
    for path, one in STYLE.factors.items():
        true = 0.5 * one.delta()
        assert result.factors[path].rank == 4 and result.factors[path].shape == one.shape
        assert float((result.factors[path].delta() - true).norm() / true.norm()) < 2e-3, "the rounding of fp16"
    assert 0.99999 < result.kept <= 1 and result.others == {} and result.beyond == 0
    assert set(result.kept_by_block) == {"down_blocks.0", "mid_block", "text_encoder"}


def test_what_a_lower_rank_keeps_is_told(tuned):
    """By the singular values of what was folded in, block by block."""
    result = found(starter.MODEL, tuned, (2, 0))
    energy = {path: torch.linalg.svdvals(0.5 * one.delta().flatten(1)).square() for path, one in STYLE.factors.items()}
    kept = {path: float(energy[path][:2].sum()) if path != CONV else 0.0 for path in PATHS}
    whole = {path: float(energy[path].sum()) for path in PATHS}
    assert CONV not in result.factors and result.adapter.rank == 2
    assert result.kept == pytest.approx(sum(kept.values()) / sum(whole.values()), rel=1e-3)
    assert result.kept_by_block["mid_block"] == pytest.approx(kept[MIDDLE] / whole[MIDDLE], rel=1e-3)
    below = (kept[Q] + kept[CONV]) / (whole[Q] + whole[CONV])
    assert result.kept_by_block["down_blocks.0"] == pytest.approx(below, rel=1e-3)


def single(folder, path) -> None:
    """The denoiser of a folder as a single file in the original layout."""
    names = {}
    for name, tensor in load_file(folder / "unet" / UNET.name).items():
        stem, _, kind = name.rpartition(".")
        names[f"model.diffusion_model.{keys.to_ldm(stem, 'starter')}.{kind}"] = tensor
    save_file(names, path)


def test_a_single_file_and_a_folder_are_compared(tuned, tmp_path):
    single(tuned, tmp_path / "tuned.safetensors")
    result = found(starter.MODEL, tmp_path / "tuned.safetensors")
    assert set(result.factors) == {Q, CONV, MIDDLE}
    single(starter.MODEL, tmp_path / "base.safetensors")
    files = found(tmp_path / "base.safetensors", tmp_path / "tuned.safetensors")
    assert all(torch.equal(files.factors[path].up, one.up) for path, one in result.factors.items())


def test_another_number_format_is_no_change_and_norms_are_told(tuned, tmp_path):
    """A base model in fp32 makes an adapter of rounding errors; or what no adapter holds is lost without a word."""
    base = tmp_path / "base"
    shutil.copytree(starter.MODEL, base)
    tensors = {name: tensor.float() for name, tensor in load_file(UNET).items()}
    tensors["conv_norm_out.bias"] = tensors["conv_norm_out.bias"] + 1
    save_file(tensors, base / "unet" / UNET.name)
    result = found(base, tuned, text=False)
    assert set(result.factors) == {Q, CONV, MIDDLE}
    assert result.others == {"conv_norm_out.bias": pytest.approx(tensors["conv_norm_out.bias"].numel(), rel=0.01)}
    assert 0 < result.beyond < 1


def test_layers_that_only_one_model_has_are_named(tuned, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(starter.MODEL, base)
    save_file(
        {name: tensor for name, tensor in load_file(UNET).items() if f"unet.{name}" != f"{MIDDLE}.weight"},
        base / "unet" / UNET.name,
    )
    assert found(base, tuned).alone == [MIDDLE]
    assert found(starter.MODEL, tuned).alone == []


def test_no_two_models_are_in_memory(tuned):
    """The peak of what is read is a few of the largest layer."""
    sizes = [tensor.numel() * tensor.element_size() for tensor in load_file(UNET).values()]
    tracemalloc.start()
    found(starter.MODEL, tuned)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * max(sizes) + 6_000_000 < sum(sizes)


def test_models_without_a_difference_or_of_two_kinds_are_refused(tmp_path):
    with pytest.raises(AdapterError, match="does not differ from"):
        found(starter.MODEL, starter.MODEL)
    save_file({"model.weight": torch.ones(3, 3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="none of the models that the studio knows"):
        found(starter.MODEL, tmp_path / "odd.safetensors")
    other = {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(1280, 2816, dtype=torch.float16)}
    save_file(other, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match="is the built-in starter and wide.safetensors is Stable Diffusion XL"):
        found(starter.MODEL, tmp_path / "wide.safetensors")


def changed(tensor, value):
    """``tensor`` with its first entry set; in whole numbers where ``value`` is None."""
    if value is None:
        return (tensor * 100).to(torch.int8)
    copy = tensor.clone()
    copy.view(-1)[0] = value
    return copy


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None], ids=["nan", "infinite", "int8"])
@pytest.mark.parametrize("layer", [True, False], ids=["layer", "norm"])
def test_models_with_nan_or_whole_numbers_are_refused_by_the_tensors_name(tmp_path, value, layer):
    """The factorization failed in its own words, and a norm with NaN gave a share of NaN."""
    name = f"{Q.removeprefix('unet.')}.weight" if layer else "conv_norm_out.weight"
    broken, unet = tmp_path / "broken", load_file(UNET)
    shutil.copytree(starter.MODEL, broken)
    save_file(
        {key: changed(one, value) if key == name else one for key, one in unet.items()}, broken / "unet" / UNET.name
    )
    if value is None and not layer:
        with pytest.raises(AdapterError, match="does not differ from"):  # such as the positions of a text encoder
            found(starter.MODEL, broken)
        return
    told = (
        "holds whole numbers in one of the models" if value is None else "contains NaN or infinity in one of the models"
    )
    with pytest.raises(ModelError, match=told) as caught:
        found(starter.MODEL, broken)
    assert str(caught.value.where) in (Q, name)


def test_the_command_saves_a_proved_file_that_tells_its_origin(tuned, tmp_path, capfd):
    out = tmp_path / "style.safetensors"
    assert cli.main(["extract", "starter", str(tuned), "--rank", "4", "-o", str(out), "--json"]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["modules"] == 4 and result["rank"] == 4 and 0.999 < result["kept"] <= 1
    assert [row["passed"] for row in result["proof"]] == [True, True]
    header = adapters.header(out).metadata
    assert header["modelspec.description"] == "Extracted from tuned, which was trained from model."
    assert f"lora_unet_{Q.removeprefix('unet.').replace('.', '_')}.alpha" in adapters.header(out).entries
    assert cli.main(["extract", "starter", str(tuned), "--conv-rank", "0", "--no-text"]) == 0
    said = capfd.readouterr().out
    assert "Rank 32, 2 layers" in said and "mid_block" in said and "Nothing is saved without -o." in said
