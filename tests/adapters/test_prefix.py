"""Prefixes: rows behind keys and values, their file, and where they are left out."""

import pytest
import torch
from torch import nn

from lora_studio import adapters, models
from lora_studio.adapters import formats
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.output_change import Pass
from lora_studio.adapters.prefix import KEYS, VALUES, Prefix
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.methods import registry
from lora_studio.methods.method import LayerShape
from lora_studio.methods.prefix_layer import PrefixLayer
from lora_studio.models import inject
from lora_studio.sampling.axes import Cell
from lora_studio.sampling.generate import generate
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from tests.models import tiny

ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"
SMALL = ImageSettings(steps=1, guidance=3.0, width=64, height=64)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return models.load(str(tiny.folder(tmp_path_factory.mktemp("base") / "tiny", "sd1")))


def prefix(width: int = 32, count: int = 2, seed: int = 0) -> Adapter:
    torch.manual_seed(seed)
    rows = {name: 3 * torch.randn(count, width) for name in ("to_k", "to_v")}
    roles = {"to_k": KEYS, "to_v": VALUES}
    return Adapter({}, outputs={f"{ATTENTION}.{name}": Prefix(rows[name], roles[name]) for name in rows})


def test_rows_go_behind_the_output_and_the_weight_multiplies_values_alone():
    """Two samples of one token, weights 1 and −2; rows [1, 2]."""
    output, rows = torch.tensor([[[5.0, 5.0]], [[6.0, 6.0]]]), torch.tensor([[1.0, 2.0]])
    given = Pass(output, output, None, output, torch.tensor([1.0, -2.0]), lambda x: x)
    assert Prefix(rows, VALUES).apply(given).tolist() == [[[5, 5], [1, 2]], [[6, 6], [-2, -4]]]
    assert Prefix(rows, KEYS).apply(given).tolist() == [[[5, 5], [1, 2]], [[6, 6], [1, 2]]]


def test_a_file_holds_the_rows_and_gives_them_back(tmp_path):
    path = formats.write(prefix(320), tmp_path / "a.safetensors")
    found, listed = adapters.read(path), adapters.summary(path)
    assert (found.kind.name, listed.method, listed.modules, listed.family) == ("prefix", "prefix", 2, "sd1")
    for place, one in prefix(320).outputs.items():
        assert torch.equal(found.outputs[place].rows, one.rows) and found.outputs[place].role == one.role
    for act in (found.require_factors, found.require_weight_changes):
        with pytest.raises(AdapterError, match="is a prefix, which cannot be blended"):
            act("blended")


def test_an_adapter_changes_the_answer_and_none_at_a_weight_of_zero(base):
    noise, text = torch.randn(1, 4, 8, 8), base.encode_text(["a cat"])
    plain = base.predict(noise, torch.tensor([500]), text)
    inject.load_adapters(base, [(prefix(), 1.0)])
    changed = base.predict(noise, torch.tensor([500]), text)
    first = base.loaded.form
    inject.set_weights(base, (0.0,))
    assert torch.equal(base.predict(noise, torch.tensor([500]), text), plain) and base.loaded.form != first
    assert not torch.equal(changed, plain)
    with pytest.raises(AdapterError, match="which a whole batch has or has not"):
        inject.set_weights(base, [(0.0,), (1.0,)])
    inject.unload_adapters(base)


def test_a_sheet_draws_cells_with_it_and_without_it_apart(base):
    cells = [Cell("a cat", 3, (weight,), 3.0, 1) for weight in (1.0, 0.0, 0.5)]
    drawn = render(base, [prefix()], cells, SMALL)
    plain = generate(base, ["a cat"], [3], SMALL)[0]
    assert drawn[1].tobytes() == plain.tobytes() != drawn[0].tobytes() != drawn[2].tobytes()


def test_values_begin_at_zero_and_keys_differ_so_that_step_0_is_near_the_base_model(base):
    """Rows of zeros take n / (Z + n) of the attention: here of 77 keys of about the same score."""
    method = registry.get("prefix-tuning")
    noise, text = torch.randn(1, 4, 8, 8), base.encode_text(["a cat"])
    plain = base.predict(noise, torch.tensor([500]), text)
    inject.add_adapter(base, Settings(method="prefix-tuning", rank=2).adapter, seed=0)
    layers = inject.layers(base)
    assert len(layers) == 32 and all(".attn2." in path for path in layers)
    for path, layer in layers.items():
        assert layer.module.rows.any() == path.endswith("to_k") and layer.module.rows.shape[0] == 2
    begun = base.predict(noise, torch.tensor([500]), text)
    assert 0 < float((begun - plain).norm().detach() / plain.norm()) < 0.02
    assert inject.read_adapter(base).parameters == sum(one.numel() for one in inject.trainable(base).values())
    inject.remove(base)
    assert method.parameters(Settings(rank=2).adapter, LayerShape(6, 4)) == 2 * 4
    with pytest.raises(SettingsError, match="needs the keys and the values"):
        inject.add_adapter(base, Settings(method="prefix-tuning", targets="qv").adapter, seed=0)
    inject.remove(base)


def test_a_layer_around_a_projection_appends_its_rows():
    layer = PrefixLayer(nn.Linear(1, 1, bias=False), 2, KEYS)
    with torch.no_grad():
        layer.base_layer.weight.fill_(2.0)
        layer.rows.copy_(torch.tensor([[7.0], [8.0]]))
    assert layer(torch.tensor([[[3.0]]])).tolist() == [[[6], [7], [8]]]
    layer.enable_adapters(False)
    assert layer(torch.tensor([[[3.0]]])).tolist() == [[[6]]]
