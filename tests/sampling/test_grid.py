"""Many adapters in one batch, against the same cells drawn one by one; axes, cells and the recipe in the sheet."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_studio import models
from lora_studio.adapters import Adapter, Factors
from lora_studio.adapters.recipe import KEY
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.models import inject
from lora_studio.models import modules as layers
from lora_studio.sampling import generate as generating
from lora_studio.sampling import passes, picture_file
from lora_studio.sampling.axes import KINDS, Axis, Cell, parse, spread
from lora_studio.sampling.generate import generate, to_images
from lora_studio.sampling.grid import render
from lora_studio.sampling.image_settings import ImageSettings
from lora_studio.sampling.recipe import grid, read_recipe, to_png

SIZE = ImageSettings(width=64, height=64)
ATTENTION = [
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
]
EVERYWHERE = [
    *ATTENTION,
    "unet.down_blocks.1.resnets.0.conv1",
    "unet.up_blocks.1.upsamplers.0.conv",
    "unet.mid_block.attentions.0.proj_in",
    "unet.time_embedding.linear_1",
    "unet.mid_block.resnets.0.time_emb_proj",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
    "text_encoder.text_model.encoder.layers.3.mlp.fc2",
]
"""Attention, convolutions, the step's embedding, the text encoder."""


@pytest.fixture(scope="module")
def base(tiny_folder):
    """In double precision: an untrained model makes a thousand times as much of its rounding, in which a real
    difference could hide.
    """
    return models.load(str(tiny_folder("sd1")), dtype=torch.float64)


def adapter(base, places, seed, dora=False, rank=2) -> Adapter:
    """Strong enough that every cell looks different."""
    source, found = torch.Generator().manual_seed(seed), layers.adaptable(base.models)
    factors = {}
    for path in places:
        weight = layers.weight_shape(found[path])
        tall = (1,) * len(weight[2:])
        down, up = (
            torch.randn(rank, *weight[1:], generator=source),
            torch.randn(weight[0], rank, *tall, generator=source) * 0.1,
        )
        magnitude = (
            found[path].weight.detach().flatten(1).norm(dim=1) * (1 + torch.rand(weight[0], generator=source))
            if dora
            else None
        )
        factors[path] = Factors(down, up, float(rank), magnitude)
    return Adapter(factors)


@pytest.fixture
def latents(monkeypatch):
    """The latents of every batch, instead of their pictures: 8 bits would hide a difference."""
    kept = []
    whole = passes.denoise

    def denoise(*arguments):
        kept.append(whole(*arguments))
        return kept[-1]

    monkeypatch.setattr(passes, "denoise", denoise)
    return kept


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The difference, relative to ``other``: what an untrained model draws is large."""
    return float((one - other).norm() / other.norm())


CELLS = [
    Cell("a cat", 3, (1.0, 0.0), 5.0, 2),
    Cell("a dog", 3, (0.0, 1.0), 2.0, 2),
    Cell("a cat", 9, (0.5, -0.7), 7.5, 2),
    Cell("a cat", 3, (0.0, 0.0), 5.0, 2),
]


@pytest.mark.parametrize("dora", [False, True])
def test_cells_in_one_batch_are_the_pictures_drawn_alone(base, dora, latents):
    """One row of weights for one sample, in the UNet's guided batch of twice as many and in the text encoder, whose
    features of the negative prompt differ too.
    """
    adapters = [adapter(base, EVERYWHERE, 1, dora), adapter(base, EVERYWHERE[1:], 2)]
    settings = SIZE.changed(negative="blurry", sampler="euler_a", steps=2)
    assert len(render(base, adapters, CELLS, settings)) == len(CELLS)
    (together,) = latents
    for index, cell in enumerate(CELLS):
        inject.load_adapters(base, list(zip(adapters, cell.weights, strict=True)))
        generate(base, [cell.prompt], [cell.seed], settings.changed(guidance=cell.guidance))
        assert apart(together[index], latents[-1][0]) < 1e-5, index
    inject.unload_adapters(base)
    assert apart(together[0], together[3]) > 1e-3, "same prompt and seed, so the adapter must be seen"


def test_cells_of_other_steps_or_without_guidance_have_batches_of_their_own_and_keep_their_places(base, latents):
    one = adapter(base, ATTENTION, 1)
    cells = [
        Cell("a", 1, (1.0,), 5.0, 2),
        Cell("a", 2, (1.0,), 5.0, 1),
        Cell("a", 3, (0.5,), 1.0, 2),
        Cell("a", 4, (0.0,), 3.0, 2),
    ]
    pictures = render(base, [one], cells, SIZE)
    assert [len(batch) for batch in latents] == [2, 1, 1]
    expected = [latents[0][0], latents[1][0], latents[2][0], latents[0][1]]
    assert [picture.tobytes() for picture in pictures] == [
        to_images(base.decode(latent[None]))[0].tobytes() for latent in expected
    ]
    inject.load_adapters(base, [(one, 0.5)])
    generate(base, ["a"], [3], SIZE.changed(steps=2, guidance=1.0))
    inject.unload_adapters(base)
    assert apart(latents[2], latents[-1]) < 1e-5, "without guidance no negative prompt is asked"


def test_prompts_of_any_length_are_drawn_as_alone_with_the_cells_own_text_encoder(base, latents):
    """Chunk by chunk, each with its cell's weights; and words after the first chunk count."""
    one, long = adapter(base, EVERYWHERE, 1), "ink " * 80
    cells = [
        Cell(prompt, 1, (weight,), 5.0, 1)
        for prompt, weight in [(f"{long} cat", 1.0), (f"{long} (dog:1.4)", 1.0), ("a", 1.0), (f"{long} cat", 0.2)]
    ]
    render(base, [one], cells, SIZE.changed(negative="blurry"))
    assert [len(batch) for batch in latents] == [3, 1]
    together = [latents[0][0], latents[0][1], latents[1][0], latents[0][2]]
    for cell, drawn in zip(cells, together, strict=True):
        inject.load_adapters(base, [(one, *cell.weights)])
        generate(base, [cell.prompt], [1], SIZE.changed(negative="blurry", steps=1))
        assert apart(drawn, latents[-1][0]) < 1e-5
    inject.unload_adapters(base)
    assert apart(together[0], together[1]) > 1e-3 and apart(together[0], together[3]) > 1e-3


def test_a_large_order_is_split_with_the_right_weights(base, latents, monkeypatch):
    """A second batch must not be drawn with the first one's weights."""
    one = adapter(base, ATTENTION, 1)
    cells = [Cell("a", 1, (weight,), 5.0, 1) for weight in (0.0, 0.5, 1.0)]
    render(base, [one], cells, SIZE)
    monkeypatch.setattr(generating, "IMAGES_AT_ONCE", 2)
    render(base, [one], cells, SIZE)
    assert [len(batch) for batch in latents] == [3, 2, 1]
    assert apart(latents[0], torch.cat(latents[1:])) < 1e-5


def test_nothing_stays_on_the_model(base):
    """Rows of weights of one grid must not meet the next batch, also after a mistake or an early end."""
    one = adapter(base, ATTENTION, 1)
    with pytest.raises(AdapterError, match="1 adapters and 2 weights"):
        render(base, [one], [Cell("a", 1, (1.0, 1.0), 5.0, 1)], SIZE)
    assert base.loaded is None
    with pytest.raises(SettingsError, match="sampler"):
        render(base, [one], [Cell("a", 1, (1.0,), 5.0, 1)], SIZE.changed(sampler="eular"))
    assert render(base, [one], [Cell("a", 1, (1.0,), 5.0, 1)], SIZE, cancelled=lambda: True) == []
    assert base.loaded is None and render(base, [], [Cell("a", 1, (), 5.0, 1)], SIZE)


# Axes


@pytest.mark.parametrize(("text", "axis"), [
    ("weight=0,0.5,1", Axis("weight", (0.0, 0.5, 1.0))),
    ("seed=1, 2", Axis("seed", (1, 2))),
    ('prompt="a cat, asleep",a=b', Axis("prompt", ("a cat, asleep", "a=b"))),
    (r"weight:C:\a.safetensors=-1,1", Axis("weight", (-1.0, 1.0), r"C:\a.safetensors")),
    ("adapter=a.safetensors:0.5,b.safetensors", Axis("adapter", ("a.safetensors:0.5", "b.safetensors"))),
])  # fmt: skip
def test_axes(text, axis):
    assert parse(text) == axis


@pytest.mark.parametrize(("text", "said"), [
    ("weight", "no axis.*--x weight=0"), ("wieght=1", "Did you mean weight"), ("seed:a=1", "behind a colon"),
    ("weight=", "lacks a value"), ("weight=1,,2", "lacks a value"), ("seed=1.5", "whole numbers from 0"),
    ("steps=0", "from 1 to 200"), ("weight=nan", "from -10 to 10"), ("weight=1e9", "from -10"),
    ("guidance=strong", "no guidance"), ("=1", "axis ''"),
])  # fmt: skip
def test_mistakes_in_an_axis_are_explained(text, said):
    with pytest.raises(SettingsError, match=said):
        parse(text, "--x")


@given(st.text(max_size=40) | st.tuples(st.sampled_from(KINDS), st.text(max_size=30)).map("=".join))
def test_any_text_is_an_axis_or_a_mistake(text):
    try:
        axis = parse(text)
    except SettingsError:
        return
    assert axis.kind in KINDS and axis.values and len(axis.labels) == len(axis.values)


def test_a_strip_is_spread_evenly():
    assert spread(0, 1.5, 7) == (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
    assert spread(0, 1, 4) == (0, 0.3333, 0.6667, 1)
    assert spread(0.5, 1, 1) == (0.5,)


def weights(recipe) -> list[list[tuple[float, ...]]]:
    return [[cell.weights for cell in row] for row in recipe.cells]


AB = ({"name": "A", "weight": 0.8}, {"name": "B", "weight": 0.5})


def test_adapters_take_turns_and_the_others_stay():
    recipe = grid(x=Axis("adapter", ("A", "B")), adapters=[*AB, {"name": "C", "weight": 0.3}], prompt="a", seed=4)
    assert weights(recipe) == [[(0.8, 0, 0.3), (0, 0.5, 0.3)]]
    assert {(cell.prompt, cell.seed) for cell in recipe.cells[0]} == {("a", 4)}


def test_adapters_by_weights():
    """The weight is that of the adapter whose turn it is; the bystander keeps its own."""
    recipe = grid(
        x=Axis("weight", (0.25, 1.0)), y=Axis("adapter", ("A", "B")), adapters=[*AB, {"name": "C", "weight": 0.3}]
    )
    assert weights(recipe) == [[(0.25, 0, 0.3), (1, 0, 0.3)], [(0, 0.25, 0.3), (0, 1, 0.3)]]


def test_two_adapters_crossed():
    recipe = grid(x=Axis("weight", (0.0, 1.0), "A"), y=Axis("weight", (0.5, -1.0), "B"), adapters=AB)
    assert weights(recipe) == [[(0, 0.5), (1, 0.5)], [(0, -1), (1, -1)]]
    assert recipe.x.labels == ["A 0", "A 1"]


def test_each_of_one_row_with_each_of_another():
    recipe = grid(x=Axis("adapter", ("A",)), y=Axis("checkpoint", ("B", "C")), adapters=[*AB, {"name": "C"}])
    assert weights(recipe) == [[(0.8, 0.5, 0)], [(0.8, 0, 1)]]


def test_the_other_axes():
    recipe = grid(x=Axis("steps", (2, 4)), y=Axis("guidance", (1.0, 7.0)), prompt="a")
    assert [[(cell.steps, cell.guidance) for cell in row] for row in recipe.cells] == [
        [(2, 1), (4, 1)],
        [(2, 7), (4, 7)],
    ]
    recipe = grid(x=Axis("prompt", ("a", "b")), y=Axis("seed", (5, 6)))
    assert [[(cell.prompt, cell.seed) for cell in row] for row in recipe.cells] == [
        [("a", 5), ("b", 5)],
        [("a", 6), ("b", 6)],
    ]
    assert recipe.x.labels + recipe.y.labels == ["a", "b", "seed 5", "seed 6"]


@pytest.mark.parametrize(("named", "said"), [
    ({"x": Axis("seed", (1,)), "y": Axis("seed", (2,))}, "both axes vary the same seed"),
    ({"x": Axis("weight", (1.0,)), "y": Axis("weight", (1.0,)), "adapters": AB[:1]}, "both axes vary the same weight"),
    ({"x": Axis("weight", (1.0,)), "adapters": AB}, "whose weight"),
    ({"x": Axis("weight", (1.0,))}, "no adapter whose weight"),
    ({"x": Axis("adapter", ("D",)), "adapters": AB}, "'D', but there is no such"),
    ({"x": Axis("weight", (1.0,), "D"), "adapters": AB}, "'D', but there is no such"),
    ({"x": Axis("seed", (1,)), "adapters": AB[:1] * 2}, "two adapters are called 'A'"),
    ({"x": Axis("seed", tuple(range(40))), "y": Axis("guidance", (2.0,) * 26)}, "more than 1000"),
])  # fmt: skip
def test_axes_that_do_not_go_together(named, said):
    with pytest.raises(SettingsError, match=said):
        grid(**named)


# The sheet


def test_a_sheet_carries_its_recipe(tmp_path):
    """Whoever finds the picture can draw it again: all of it comes back, also beyond ASCII."""
    recipe = grid(
        x=Axis("weight", (0.0, 0.5), "été"),
        y=Axis("prompt", ("a “cat”", "b")),
        adapters=[{"name": "été", "weight": 0.8, "sha256": "ab" * 32}],
        base="starter",
        negative="猫",
        guidance=4.5,
        steps=7,
        sampler="euler",
        width=64,
        height=128,
        version="1",
    )
    path = tmp_path / "sheet.png"
    path.write_bytes(
        to_png(recipe, [Image.new("RGB", (64, 128), colour) for colour in ("red", "green", "blue", "white")])
    )
    assert read_recipe(path) == recipe
    assert read_recipe(path).cells == recipe.cells
    smaller = path.with_suffix(".webp")
    smaller.write_bytes(picture_file.to_webp(path.read_bytes()))
    assert read_recipe(smaller) == recipe
    with Image.open(path) as image:
        assert image.width > 2 * 64 and image.height > 2 * 128
        colours = [colour for _, colour in sorted(image.convert("RGB").getcolors(1 << 20), reverse=True)]
        assert {(255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)} < set(colours[:5])


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "sheet.png"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="sheet.png"):
        read_recipe(path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "grid"}', '{"kind": "grid", "x": {"kind": "steps", "values": ["many"]}}']
)
def test_a_damaged_recipe_is_refused(tmp_path, text):
    from PIL.PngImagePlugin import PngInfo

    note, path = PngInfo(), tmp_path / "sheet.png"
    note.add_text(KEY, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=note)
    with pytest.raises(SettingsError, match="damaged"):
        read_recipe(path)


def test_a_picture_without_recipe_says_so(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(SettingsError, match="plain.png holds no recipe"):
        read_recipe(tmp_path / "plain.png")
    with pytest.raises(SettingsError, match="none.png"):
        read_recipe(tmp_path / "none.png")
