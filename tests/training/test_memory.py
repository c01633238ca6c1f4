"""The estimate of memory, compared with what autograd really keeps and what models really hold."""

import contextlib
import time

import pytest
import torch

from lora_studio import models
from lora_studio.config.settings import Settings
from lora_studio.families import registry as families
from lora_studio.families.family import CONFIGS
from lora_studio.models import gradient_checkpointing, inject, quantize, shapes
from lora_studio.models.fused import triton_support
from lora_studio.models.parts import read_json
from lora_studio.models.shapes import Shapes
from lora_studio.optim import build, registry
from lora_studio.training import activations, memory, unet_activations
from lora_studio.training.activations import Activations, Step
from lora_studio.training.batches import Batch
from lora_studio.training.loss import losses
from lora_studio.training.unet_activations import Unet
from tests.benchmarks.memory import MEASURED
from tests.benchmarks.memory import shapes as exact
from tests.models import tiny
from tests.training.saved import card, measure


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return lambda family: tiny.folder(tmp_path_factory.mktemp("tiny") / family, family)


def narrow(family: str) -> Shapes:
    """The family's topology in a quarter of its widths and half of its length, SDXL's innermost level with two
    transformer blocks instead of ten.
    """
    unet = read_json(CONFIGS / family / "unet.json")
    unet["block_out_channels"] = [width // 4 for width in unet["block_out_channels"]]
    unet["norm_num_groups"], unet["layers_per_block"] = 16, 1
    if isinstance(unet["attention_head_dim"], list):
        unet["attention_head_dim"] = [heads // 2 for heads in unet["attention_head_dim"]]
    if family == "sdxl":
        unet["transformer_layers_per_block"] = [1, 1, 2]
    return Shapes(
        family, 8 * unet["sample_size"], unet, read_json(CONFIGS / family / "vae.json"), {"unet": 0, "vae": 0}
    )


@pytest.fixture
def on_a_card():
    """Triton's kernels count as working."""
    with card():
        yield


@pytest.fixture
def off_the_card(monkeypatch):
    """Triton's kernels count as missing, also on a machine that has a card."""
    monkeypatch.setattr(triton_support, "kernels", lambda: None)


CASES = [
    ("sd1", "bf16", {}),
    ("sd1", "bf16", {"targets": "attention+ff+conv", "rank": 64}),
    ("sd1", "fp32", {"targets": "attention+ff+conv", "checkpointing": "largest"}),
    ("sd1", "bf16", {"targets": "qv", "checkpointing": "all", "resolution": 768}),
    ("sd1", "fp32", {"method": "dora", "rank": 8}),
    ("sd1", "bf16", {"method": "pissa", "targets": "attention+ff+conv"}),
    ("sdxl", "bf16", {"blocks": ["style"], "checkpointing": "largest"}),
    ("sd1", "bf16", {"method": "full", "targets": "attention+ff+conv", "checkpointing": "all"}),
    ("sd1", "bf16", {"method": "loha", "rank": 8, "targets": "attention+ff+conv"}),
    ("sd1", "bf16", {"method": "lokr", "rank": 4, "targets": "attention+ff+conv"}),
    ("sd1", "bf16", {"method": "oft", "targets": "attention+ff+conv"}),
    ("sd1", "fp16", {"method": "ia3", "targets": "attention+ff"}),
    ("sd1", "bf16", {"method": "adapter-layers", "targets": "attention+ff"}),
    ("sd1", "bf16", {"dropout": 0.1}),
    ("sd2", "fp16", {"targets": "attention+ff"}),
    ("sd2", "fp32", {"batch": 4, "resolution": 256, "dropout": 0.1, "targets": "attention+ff"}),
    ("sdxl", "bf16", {}),
    ("sdxl", "bf16", {"checkpointing": "all", "batch": 2, "resolution": 768}),
    ("sdxl", "bf16", {"method": "dora", "targets": "attention+ff", "resolution": 512}),
]


@pytest.mark.parametrize(("family", "precision", "changes"), CASES, ids=str)
def test_activations_are_what_a_step_on_a_card_keeps_and_holds_at_most(on_a_card, family, precision, changes):
    """To a tenth; the exact shapes are in tests/benchmarks/memory.py."""
    settings, shape = Settings(**changes), narrow(family)
    kept, most, unet = measure(settings, shape, precision)
    estimated = walked(settings, shape, memory.BYTES[precision])
    assert estimated.saved() == pytest.approx(kept, rel=0.1) and estimated.highest() == pytest.approx(most, rel=0.1)
    assert estimated.trained == sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad), (
        "trained parameters are counted exactly"
    )


@pytest.mark.parametrize(("family", "precision", "changes"), [CASES[0], CASES[-2]], ids=str)
def test_activations_without_triton_are_those_of_plain_torch(off_the_card, family, precision, changes):
    """There a norm and its SiLU keep an input each, and under autocast the norm's is a float32 copy."""
    settings, shape = Settings(**changes), narrow(family)
    kept, most, _ = measure(settings, shape, precision, triton=False)
    estimated = walked(settings, shape, memory.BYTES[precision])
    assert estimated.saved() == pytest.approx(kept, rel=0.1) and estimated.highest() == pytest.approx(most, rel=0.1)


def walked(settings: Settings, shape: Shapes, element: int) -> Activations:
    """What one batch through the exact UNet keeps."""
    return unet_activations.walk(shape, Step.of(settings, shape, element))


def small_unet(element: int, fused: bool, **changes) -> Unet:
    """A UNet to send ten tokens through, four channels wide; a layer before has an adapter already."""
    settings = Settings(rank=1, alpha=1, **changes)
    step = Step(families.named("sd1"), settings.adapter, settings.machine, 1, side=8, element=element, fused=fused)
    return Unet({"cross_attention_dim": 6}, Activations(step, reached=True))


@pytest.mark.parametrize(
    ("e", "fused", "changes", "bytes_each"),
    [
        (2, True, {}, 4),
        (2, False, {}, 6),
        (4, True, {}, 8),
        (4, False, {}, 12),
        (2, True, {"method": "dora"}, 4),
        (2, False, {"method": "dora"}, 10),
    ],
    ids=str,
)
def test_a_resnet_keeps_each_norms_input_and_each_convolutions(e, fused, changes, bytes_each):
    """Of both its halves. What the SiLU between them read is computed again by the kernel, and kept by torch;
    autocast's norms copy theirs to float32.
    """
    unet = small_unet(e, fused, **changes)
    unet.resnet(0, "unet.down_blocks.0.resnets.0", 4, 4, 10)
    assert unet.found.blocks[0].kept == 10 * (4 + 4) * bytes_each
    assert unet.found.blocks[0].entrance == 10 * 4 * e


@pytest.mark.parametrize(
    ("fused", "targets", "elements"),
    [(True, "attention", 19), (False, "attention", 23), (True, "attention+ff", 24), (True, "qv", 19)],
    ids=str,
)
def test_a_transformer_block_keeps_the_input_of_layers_that_share_it_once(fused, targets, elements):
    """Each norm's input, queries, keys, values and answers, the projection before GEGLU; and what the adapters read:
    queries, keys and values the same, the way out the answer.
    """
    unet = small_unet(2, fused, targets=targets)
    unet.transformer(0, "unet.down_blocks.0.attentions.0", 4, 10, depth=1, heads=2)
    ranks = {"qv": 2 + 1, "attention": 4 + 2, "attention+ff": 4 + 2 + 2}[targets]
    text_ranks = {"qv": 1}.get(targets, 2)
    text = (
        2 * 4 * 2 * 77 + text_ranks * 2 * 77
    )  # keys, values and the adapters' thin products of 77 tokens; the text itself is kept once for all
    sums = 2 * 4 * 2 * 10  # float32, a head and query, twice
    assert unet.found.blocks[1].kept == 10 * 4 * 2 * elements + 10 * 2 * ranks + text + sums


def test_a_linear_projection_keeps_nothing_where_it_has_no_adapter_and_a_convolution_its_input():
    """With kernels of ours a 1 × 1 convolution is a linear layer as well."""
    for fused, linear, elements in ((True, False, 1), (False, False, 3), (False, True, 1)):
        unet = small_unet(2, fused)
        unet.config["use_linear_projection"] = linear
        unet.transformer(0, "unet.down_blocks.0.attentions.0", 4, 10, depth=0, heads=2)
        assert unet.found.blocks[0].kept == 10 * 4 * 2 * elements


def test_the_highest_is_reached_where_what_is_left_and_what_is_computed_again_meet():
    """The backward pass frees the last block's first."""
    blocks = [activations.Block(0, 100, 10, 5), activations.Block(1, 30, 10, 5)]
    kept = Activations(small_unet(2, True).found.step, blocks=blocks)
    assert kept.saved() == 130 and kept.highest() == 100 + 30 + 5
    again = Activations(small_unet(2, True, checkpointing="all").found.step, blocks=blocks)
    assert again.saved() == 20 and again.highest() == 10 + 90 + 5
    largest = Activations(small_unet(2, True, checkpointing="largest").found.step, largest=1, blocks=blocks)
    assert largest.saved() == 110 and largest.highest() == 100 + 30 + 5


@pytest.mark.parametrize(("family", "changes", "given", "reserved"), MEASURED, ids=str)
def test_a_step_takes_what_a_card_gave_and_reserved(on_a_card, family, changes, given, reserved):
    """Exact shapes on a card, to a tenth; what it gave out even to a twentieth."""
    step = memory.estimate(Settings(**changes), exact(family), "bf16").step / 2**30
    assert given is None or step / memory.RESERVED == pytest.approx(given, rel=0.05)
    assert reserved is None or step == pytest.approx(reserved, rel=0.1)


@pytest.mark.parametrize(
    ("family", "changes", "stage", "given"),
    [
        ("sd1", {}, "encoding", 4.98),
        ("sdxl", {}, "encoding", 8.25),
        ("sdxl", {"resolution": 768}, "encoding", 6.93),
        ("sdxl", {"cuda_graph": False}, "preview", 10.35),
    ],
    ids=str,
)
def test_the_vae_takes_what_a_card_gave_it(on_a_card, family, changes, stage, given):
    """Whole pictures in float32 beside the UNet: four of 512 × 512 or one larger encoded, one decoded."""
    found = memory.estimate(Settings(**changes), exact(family), "bf16", limit=2**40)
    assert getattr(found, stage) / memory.RESERVED / 2**30 == pytest.approx(given, rel=0.05)


def test_the_peak_is_what_fits_the_device_before_it_is_in_tiles(on_a_card):
    """An artist with 8 GB is not told to buy more for a preview that would be drawn in tiles; with 80 GB nothing is,
    and the recorded step keeps its memory meanwhile.
    """
    settings, gigabytes = Settings(checkpointing="all", optimizer="adamw8bit"), memory.RESERVED * 2**30

    def found(limit, **changes):
        return memory.estimate(settings.changed(**changes), exact("sdxl"), "bf16", limit * gigabytes)

    assert found(0).peak == found(0).preview < 8 * 2**30, "what it needs at least"
    assert found(7.5) == found(0) == found(0, tiled_vae=True)
    assert found(9).encoding > found(7.5).encoding and found(9).preview == found(7.5).preview
    assert found(10.4).preview == found(80, cuda_graph=False).preview > found(9).preview
    assert found(80).preview == pytest.approx(found(10.4).preview + memory.RESERVED * found(80).activations, rel=0.02)
    assert found(80, tiled_vae=True).preview < found(80).preview and found(80).step == found(0).step


def test_an_adapters_copies_stand_beside_it_only_in_a_smaller_format_without_autocast(on_a_card):
    """Float32 values, the first state to go back to, and gradients: 4 bytes each; 2 for the copies and 2 for their
    gradients. A PiSSA holds its start too.
    """
    shape = exact("sd1")
    for precision, method, adapter, gradients in (
        ("bf16", "lora", 6, 6),
        ("fp16", "lora", 6, 6),
        ("fp32", "lora", 4, 4),
        ("bf16", "pissa", 4, 4),
    ):
        settings = Settings(method=method)
        found, count = memory.estimate(settings, shape, precision), 3_188_736
        assert (found.adapter, found.gradients) == (adapter * count, gradients * count)
        assert found.weights == memory.BYTES[precision] * 859_520_964 + (4 * count if method == "pissa" else 0)


@contextlib.contextmanager
def kept_by(base):
    """The storages that are kept for the backward pass within it, weights left out, each once; whole at its end."""
    own, held = (
        {parameter.untyped_storage()._cdata for model in base.models.values() for parameter in model.parameters()},
        {},
    )

    def hold(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        yield held.values()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checkpointing": "all"},
        {"quantize": "nf4"},
        {"train_text": True, "targets": "attention+ff"},
        {"train_text": True, "checkpointing": "all"},
        {"blocks": ["up_blocks.2", "mid_block"], "targets": "attention+ff+conv"},
        {"blocks": ["*.attn2", "text_encoder.layers.8-9"], "train_text": True},
        {"method": "textual-inversion"},
        {"learned_tokens": 2, "checkpointing": "all"},
        {"by_block": ["up_blocks.2 rank=32", "mid_block rank=1"], "dropout": 0.1},
    ],
    ids=str,
)
def test_a_real_step_on_the_cpu_saves_what_is_estimated(off_the_card, tiny_folder, changes):
    """Nothing imitated: the loop's own prediction in float32. A quantized layer keeps no more than a plain one."""
    folder = str(tiny_folder("sd1"))
    settings = Settings(rank=4, alpha=4, resolution=256, **changes)
    base = models.load(folder, quantize=settings.machine.quantize)
    inject.add_adapter(base, settings.adapter, seed=0, word="ink")
    for model in base.models.values():
        model.train()
    gradient_checkpointing.enable(base.unet, settings.machine.checkpointing, base.text_encoders.values())
    with kept_by(base) as held:
        text = base.features(["a cat"]) if settings.adapter.reads_text else base.encode_text(["a cat"])
        base.predict(torch.randn(1, 4, 32, 32), torch.tensor([500]), text)
    estimated = walked(settings, shapes.read(folder), 4)
    assert estimated.saved() == pytest.approx(sum(one.nbytes() for one in held), rel=0.1)
    assert estimated.trained == sum(parameter.numel() for parameter in inject.trainable(base).values())


def test_masks_take_too_little_to_be_estimated(tiny_folder):
    """A step keeps them beside the loss: one number of four bytes for each latent pixel of a picture."""
    base = models.load(str(tiny_folder("sd1")))
    inject.add_adapter(base, Settings(rank=4, alpha=4).adapter, seed=0)
    latents, text = torch.randn(2, 4, 32, 32), base.encode_text(["a cat", "a dog"])
    plain = Batch(latents, latents, torch.tensor([500, 20]), torch.zeros(2, 6), text, [])
    kept = []
    for batch in (plain, plain._replace(weights=torch.rand(2, 1, 32, 32))):
        with kept_by(base) as held:
            losses(base, batch, text, Settings().loss)
        kept.append(sum(one.nbytes() for one in held))
    assert kept[1] - kept[0] == 4 * 2 * 32 * 32 < 0.001 * kept[0]


def test_text_encoders_keep_what_is_estimated_in_a_smaller_format_too(tiny_folder):
    """Queries, keys and values read the same input: it is kept once."""
    folder, settings = str(tiny_folder("sd1")), Settings(rank=4, alpha=4, train_text=True, targets="attention+ff")
    base = models.load(folder, dtype=torch.bfloat16)
    inject.add_adapter(base, settings.adapter, seed=0)
    for parameter in inject.trainable(base).values():
        parameter.data = parameter.data.bfloat16()
    with kept_by(base) as held:
        features = base.features(["a cat"])
    assert features["hidden"].requires_grad
    estimated = walked(settings, shapes.read(folder), 2)
    assert sum(block.kept for block in estimated.blocks if block.level == activations.TEXT) == pytest.approx(
        sum(one.nbytes() for one in held), rel=0.1
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shapes_are_the_models_own_in_either_layout(tiny_folder, tmp_path, family):
    """Counted from headers, without a weight; a whole SD 2 says only when asked what it was trained at."""
    folder = tiny_folder(family)
    base, found = models.load(str(folder)), shapes.read(str(folder))
    assert (found.family, found.resolution, found.scale) == (base.family.name, base.resolution, base.scale)
    parts = {"unet": base.unet, "vae": base.vae, **base.text_encoders}
    assert [encoder.layers for encoder in found.text] == [
        encoder.config.num_hidden_layers for encoder in base.text_encoders.values()
    ]
    assert found.parameters == {
        part: sum(parameter.numel() for parameter in model.parameters()) for part, model in parts.items()
    }
    file = shapes.read(str(tiny.checkpoint(tmp_path / "one.safetensors", family)))
    assert (
        file.family == found.family and file.text == found.text and file.parameters["unet"] == found.parameters["unet"]
    )
    assert {key: file.unet[key] for key in ("block_out_channels", "cross_attention_dim")} == {
        key: found.unet[key] for key in ("block_out_channels", "cross_attention_dim")
    }
    estimated = walked(Settings(), found, 4)
    assert estimated.packable == sum(
        base.unet.get_submodule(name).weight.numel() for name in quantize.packed(base.unet)
    )


def test_the_estimate_of_a_large_model_takes_no_time_and_adds_up():
    """Under a second is asked; it takes milliseconds, since nothing is built."""
    shape = exact("sdxl")
    began = time.process_time()
    found = memory.estimate(Settings(), shape, "bf16")
    assert time.process_time() - began < 1
    assert found.weights == 2 * 2_567_463_684 and (found.adapter, found.gradients) == (6 * 23_224_320, 6 * 23_224_320)
    assert (
        found.step
        == found.weights + found.adapter + found.gradients + found.optimizer + found.activations + found.working
        <= found.peak
    )
    packed = memory.estimate(Settings(quantize="nf4"), shape, "bf16")
    assert 0.25 * found.weights < packed.weights < 0.4 * found.weights


@pytest.mark.parametrize("name", sorted(set(registry.OPTIMIZERS) - {"adafactor", "adafactor-relative", "came"}))
def test_the_optimizers_state_is_as_large_as_estimated(name):
    """To a tenth, over a hundred thousand parameters. Sums of rows and columns go by shapes."""
    parameters = {"x.lora_A.weight": torch.nn.Parameter(torch.randn(1000, 100))}
    settings = Settings(optimizer=name)
    optimizer, flat, _ = build.flat_optimizer(parameters.items(), settings.optimizer, settings.run.steps)
    build.mode(optimizer, training=True)
    flat.gradients.fill_(1.0)
    optimizer.step()
    held = sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    assert held == pytest.approx(100_000 * registry.get(name).state_bytes, rel=0.1)


def test_savings_are_single_changes_or_all_that_are_needed_together():
    shape, settings, gigabytes = exact("sdxl"), Settings(batch=2, accumulate=3), 2**30
    easy = memory.savings(settings, shape, "bf16", 16 * gigabytes)
    assert {"batch": 1, "accumulate": 6} in [saving.changes for saving in easy] and all(
        saving.peak <= 16 * gigabytes for saving in easy
    )
    (hard,) = memory.savings(settings, shape, "bf16", 6 * gigabytes)
    assert hard.changes["checkpointing"] == "all" and hard.changes["quantize"] == "nf4" and hard.peak <= 6 * gigabytes
    assert memory.savings(settings, shape, "bf16", gigabytes / 4) == []
