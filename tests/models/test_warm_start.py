"""Beginning from a finished adapter: the model answers as with that adapter, and all of the new one can learn."""

import pytest
import torch

from lora_studio import adapters
from lora_studio.adapters import Adapter, Factors, dora, formats, keys
from lora_studio.adapters.embedding import Embedding
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError
from lora_studio.models import inject, warm_start


def given(base, rank=2, targets="attention"):
    """A trained adapter of rank 2 and scale 4."""
    inject.add_adapter(base, Settings(rank=rank, alpha=4 * rank, targets=targets).adapter, seed=5)
    source = torch.Generator().manual_seed(3)
    factors = {
        path: Factors(one.down, 0.1 * torch.randn(one.up.shape, generator=source), one.alpha)
        for path, one in inject.read_adapter(base).factors.items()
    }
    inject.remove(base)
    return Adapter(factors)


def change(base, adapter):
    return {
        path: dora.change(one, inject.weight(base, path)) if one.magnitude is not None else one.delta()
        for path, one in adapter.factors.items()
    }


@pytest.mark.parametrize(
    "settings",
    [
        Settings(rank=2, alpha=2),
        Settings(rank=5, alpha=1),
        Settings(rank=4, alpha=8, rslora=True, init="kaiming"),
        Settings(rank=3, method="dora", alpha=3),
    ],
)
def test_the_first_answer_is_the_given_adapters(base, settings):
    adapter = given(base)
    wanted = change(base, adapter)
    inject.add_adapter(base, settings.adapter, seed=1)
    taken = warm_start.begin_from(base, adapter, settings.adapter.rank)
    assert (taken.modules, taken.left, taken.residual) == (len(wanted), [], 0)
    found = change(base, inject.read_adapter(base))
    assert all(torch.allclose(found[path].reshape(delta.shape), delta, atol=2e-6) for path, delta in wanted.items())
    ups = [parameter for name, parameter in inject.trainable(base).items() if "lora_A" in name]
    assert all((parameter.flatten(1).norm(dim=1) > 0).all() for parameter in ups), (
        "a row of zeros with a column of zeros would never learn"
    )


def test_a_lower_rank_begins_as_near_as_it_comes(base):
    adapter = given(base, rank=4)
    inject.add_adapter(base, Settings(rank=2, alpha=2).adapter, seed=1)
    taken = warm_start.begin_from(base, adapter, 2)
    lost = whole_sum = 0.0
    for path, one in inject.read_adapter(base).factors.items():
        whole = adapter.factors[path].delta().flatten(1)
        best = torch.linalg.svdvals(whole)[2:].norm()
        assert torch.allclose((one.delta().flatten(1) - whole).norm(), best, rtol=1e-3)
        lost, whole_sum = lost + float(best) ** 2, whole_sum + float(whole.norm()) ** 2
    assert 0.1 < taken.residual == pytest.approx((lost / whole_sum) ** 0.5, rel=1e-4)


def test_modules_without_a_place_are_counted_and_new_ones_begin_at_nothing(base):
    adapter = given(base, targets="attention")
    inject.add_adapter(base, Settings(rank=2, targets="qv").adapter, seed=1)
    taken = warm_start.begin_from(base, adapter, 2)
    assert taken.modules == len(taken.left) == len(adapter.factors) // 2
    assert {path.rpartition("attn")[2][2:] for path in taken.left} == {"to_k", "to_out.0"}
    inject.remove(base)
    inject.add_adapter(base, Settings(rank=2, targets="attention+ff").adapter, seed=1)
    assert warm_start.begin_from(base, adapter, 2).modules == len(adapter.factors)
    fresh = [one for path, one in inject.read_adapter(base).factors.items() if path not in adapter.factors]
    assert fresh and all(not one.delta().any() for one in fresh)


QUERY, KEY = (f"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_{letter}" for letter in "qk")


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def file(tmp_path, tensors, name="foreign", metadata=None):
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(formats.serialized(tensors, metadata or {}, path))
    return path


def kohya(out, into, tmp_path):
    stem, down, up = keys.to_kohya(QUERY, "sd1"), drawn(2, into), drawn(out, 2)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(3.0)}
    return file(tmp_path, tensors), 1.5 * up @ down


def onetrainer(out, into, tmp_path):
    stem, down, up = f"unet.{keys.to_ldm(QUERY.removeprefix('unet.'), 'sd1')}", drawn(2, into), drawn(out, 2)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
    return file(tmp_path, tensors), 0.5 * up @ down


def diffusers(out, into, tmp_path):
    down, up = drawn(2, into), drawn(out, 2)
    tensors = {f"{QUERY}.lora_A.weight": down, f"{QUERY}.lora_B.weight": up}
    config = {"lora_adapter_metadata": '{"unet.r": 2, "unet.lora_alpha": 8}'}
    return file(tmp_path, tensors, metadata=config), 4 * up @ down


def peft_folder(out, into, tmp_path):
    one = Factors(drawn(2, into), drawn(out, 2), 5.0)
    return formats.write(Adapter({QUERY: one}), tmp_path / "folder", "peft"), 2.5 * one.up @ one.down


def loha(out, into, tmp_path):
    parts = {
        "w1_a": drawn(out, 2),
        "w1_b": drawn(2, into),
        "w2_a": drawn(out, 2, seed=1),
        "w2_b": drawn(2, into, seed=1),
    }
    stem = keys.to_kohya(QUERY, "sd1")
    tensors = {f"{stem}.hada_{name}": tensor for name, tensor in parts.items()} | {f"{stem}.alpha": torch.tensor(1.0)}
    return file(tmp_path, tensors), 0.5 * (parts["w1_a"] @ parts["w1_b"]) * (parts["w2_a"] @ parts["w2_b"])


def lokr(out, into, tmp_path):
    first, a, b = drawn(2, 2), drawn(out // 2, 2), drawn(2, into // 2)
    stem = keys.to_kohya(QUERY, "sd1")
    tensors = {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(4.0)}
    return file(tmp_path, {f"{stem}.{role}": tensor for role, tensor in tensors.items()}), 2 * torch.kron(first, a @ b)


@pytest.mark.parametrize("writer", [kohya, onetrainer, diffusers, peft_folder, loha, lokr])
def test_the_first_change_is_the_files_whoever_wrote_it(base, writer, tmp_path):
    path, wanted = writer(*inject.weight(base, QUERY).shape, tmp_path)
    inject.add_adapter(base, Settings(rank=5, alpha=3).adapter, seed=1)
    taken = warm_start.begin_from(base, adapters.read(path), 5)
    found = inject.read_adapter(base).factors
    assert (taken.modules, taken.residual) == (1, 0)
    assert torch.allclose(found[QUERY].delta(), wanted, atol=1e-5 * float(wanted.abs().max()))
    assert not found[KEY].delta().any()


def doras(base, path, rank=2):
    """A DoRA's factors, and its change m (W + V) / ‖W + V‖ − W by the paper's formula."""
    W = inject.weight(base, path)
    one = Factors(drawn(rank, W.shape[1]), drawn(W.shape[0], rank), 0.2, 1.5 * W.norm(dim=1))
    moved = W + 0.2 / rank * one.up @ one.down
    return one, one.magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True) - W


@pytest.mark.parametrize(("method", "rank"), [("dora", 2), ("lora", 2), ("dora", 1), ("lora", 96)])
def test_a_dora_stays_one_or_is_approximated_and_what_is_lost_is_known(base, method, rank):
    one, wanted = doras(base, QUERY)
    inject.add_adapter(base, Settings(rank=rank, alpha=2, method=method).adapter, seed=1)
    taken = warm_start.begin_from(base, Adapter({QUERY: one}), rank)
    found = dora.change(inject.read_adapter(base).factors[QUERY], inject.weight(base, QUERY))
    assert float((found - wanted).norm() / wanted.norm()) == pytest.approx(taken.residual, abs=1e-5)
    S = torch.linalg.svdvals(wanted)
    best = 0 if (method, rank) == ("dora", 2) else float(S[rank:].norm() / S.norm())
    assert taken.residual == pytest.approx(best, abs=1e-5)


def test_an_adapter_for_other_layers_or_another_model_is_refused(base):
    adapter = given(base, targets="qv")
    width = inject.weight(base, "text_encoder.text_model.encoder.layers.0.self_attn.q_proj").shape[0]
    text = Factors(torch.ones(1, width), torch.ones(width, 1), 1.0)
    inject.add_adapter(base, Settings(rank=2).adapter, seed=1)
    with pytest.raises(AdapterError, match="None of the adapter's 1 modules is among the layers"):
        warm_start.begin_from(base, Adapter({"text_encoder.text_model.encoder.layers.0.self_attn.q_proj": text}), 2)
    wide = {path: Factors(torch.ones(1, 640), torch.ones(640, 1), 1.0) for path in list(adapter.factors)[:1]}
    with pytest.raises(AdapterError, match="0 of its 1 modules match"):
        warm_start.begin_from(base, Adapter(wide), 2)
    xl = "unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q"
    sdxl = {xl: Factors(torch.ones(1, 1280), torch.ones(1280, 1), 1.0)}
    with pytest.raises(AdapterError, match=r"made for Stable Diffusion XL.*loaded is the built-in starter"):
        warm_start.begin_from(base, Adapter(sdxl), 2)


@pytest.mark.parametrize("method", ["prefix-tuning", "adapter-layers"])
def test_prefixes_and_adapter_layers_go_on_from_their_own_of_the_same_rank(base, method, tmp_path):
    inject.add_adapter(base, Settings(method=method, rank=2).adapter, seed=5)
    with torch.no_grad():
        for number, parameter in enumerate(inject.trainable(base).values()):
            parameter.fill_(0.1 + number)
    trained = adapters.read(adapters.write(inject.read_adapter(base), tmp_path / "a.safetensors"))
    inject.remove(base)
    inject.add_adapter(base, Settings(method=method, rank=2).adapter, seed=1)
    assert warm_start.begin_from(base, trained, 2).modules == len(trained.outputs)
    found = inject.read_adapter(base).outputs
    assert found.keys() == trained.outputs.keys()
    for path, one in trained.outputs.items():
        assert all(torch.equal(tensor, found[path].tensors()[role]) for role, tensor in one.tensors().items())
    inject.remove(base)
    inject.add_adapter(base, Settings(method=method, rank=3).adapter, seed=1)
    with pytest.raises(AdapterError, match="are of another kind or size"):
        warm_start.begin_from(base, trained, 3)


def test_words_that_a_run_cannot_begin_with_are_told(base):
    """Or an adapter's word is dropped without a sound."""
    width = base.text_encoders["text_encoder"].get_input_embeddings().embedding_dim
    words = {"ink": Embedding("ink", {"text_encoder": torch.ones(1, width)})}
    adapter = given(base)
    inject.add_adapter(base, Settings(rank=2).adapter, seed=1)
    assert warm_start.begin_from(base, Adapter(adapter.factors, embeddings=words), 2).unheard == ("ink",)
    with pytest.raises(AdapterError, match="holds the learned word ink alone") as caught:
        warm_start.begin_from(base, Adapter({}, embeddings=words), 2)
    assert "learned_tokens" in caught.value.do


@pytest.mark.parametrize("method", ["loha", "lokr", "oft", "ia3"])
def test_products_and_rotations_go_on_from_their_own_kind_and_from_no_other(base, method, tmp_path):
    """Through a file, at another alpha."""
    chosen = Settings(method=method, rank=2, alpha=2, lokr_factor=4, oft_block_size=8, targets="attention+ff")
    inject.add_adapter(base, chosen.adapter, seed=5)
    with torch.no_grad():
        for parameter in inject.trainable(base).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    trained = adapters.read(adapters.write(inject.read_adapter(base), tmp_path / "a.safetensors"))
    inject.remove(base)
    plain = given(base, targets="attention+ff")
    inject.add_adapter(base, chosen.adapter.model_copy(update={"alpha": 1.0}), seed=1)
    taken = warm_start.begin_from(base, trained, 2)
    found = inject.read_adapter(base)
    assert (taken.modules, taken.left, taken.residual) == (len(trained.changes), [], 0)
    for path, one in trained.changes.items():
        weight = inject.weight(base, path)
        assert torch.allclose(dora.change(found.changes[path], weight), dora.change(one, weight), atol=1e-5)
    with pytest.raises(AdapterError, match="are of another kind or size"):
        warm_start.begin_from(base, plain, 2)


def test_a_lora_begins_from_the_nearest_to_an_oft(base):
    inject.add_adapter(base, Settings(method="oft", oft_block_size=2).adapter, seed=5)
    with torch.no_grad():
        for parameter in inject.trainable(base).values():
            parameter.fill_(0.2)
    rotation = inject.read_adapter(base)
    inject.remove(base)
    inject.add_adapter(base, Settings(rank=64, alpha=64).adapter, seed=1)
    taken = warm_start.begin_from(base, rotation, 64)
    assert taken.residual < 1e-3
    found = change(base, inject.read_adapter(base))
    path = next(iter(found))
    wanted = dora.change(rotation.outputs[path], inject.weight(base, path))
    assert torch.allclose(found[path].reshape(wanted.shape), wanted, atol=1e-3)
