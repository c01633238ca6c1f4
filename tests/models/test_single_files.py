"""Single files in the original trainers' layout, against diffusers' own reader of them, and against the real models'
known sizes.
"""

from functools import cache

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from lora_studio import models
from lora_studio.adapters import keys
from lora_studio.errors import ModelError
from lora_studio.families import ldm_keys, registry
from lora_studio.families.family import CONFIGS
from lora_studio.models import modules, parts
from tests.models import tiny

SIZES = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
}
"""Parameters of the published models."""
CLASSES = {"sd1": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
GOLDEN = {"sd1": "kohya-keys-sd15.tsv", "sd2": "kohya-keys-sd2.tsv", "sdxl": "kohya-keys-sdxl.tsv"}


@cache
def _empty(family: str, part: str):
    """A part without weights, not to be changed."""
    return parts.build(registry.named(family), part, parts.read_json(CONFIGS / family / f"{part}.json"), CONFIGS)


@pytest.mark.parametrize(("family", "part"), [(family, part) for family, sizes in SIZES.items() for part in sizes])
def test_shipped_configurations_give_the_published_sizes(family, part):
    assert sum(weight.numel() for weight in _empty(family, part).parameters()) == SIZES[family][part]


@pytest.mark.parametrize("family", SIZES)
def test_layers_to_train_are_those_of_the_reference_trainer(family, pytestconfig):
    """Every UNet key and shape at rank 4 that the most used trainer writes for its default layers, and no other."""
    golden = [
        line.split("\t")
        for line in (pytestconfig.rootpath / "tests" / "golden" / GOLDEN[family]).read_text().splitlines()
    ]
    expected = {key: shape for key, shape in golden if key.startswith("lora_unet_") and not key.endswith("alpha")}
    unet = _empty(family, "unet")
    found = {}
    for name in modules.targets(unet, registry.named(family).targets["attention+ff"]):
        shape = modules.weight_shape(unet.get_submodule(name))
        stem = keys.to_kohya(f"unet.{name}", family)
        found[f"{stem}.lora_down.weight"] = "x".join(map(str, (4, *shape[1:])))
        found[f"{stem}.lora_up.weight"] = "x".join(map(str, (shape[0], 4, *shape[2:])))
    assert found == expected


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_weights_are_those_that_diffusers_reads(family, tiny_folder, tiny_file, no_network):
    ours = models.load(str(tiny_file(family)))
    more = {} if family == "sdxl" else {"safety_checker": None}
    theirs = CLASSES[family].from_single_file(
        str(tiny_file(family)), config=str(tiny_folder(family)), local_files_only=True, **more
    )
    for part, model in {"unet": ours.unet, "vae": ours.vae, **ours.text_encoders}.items():
        expected = getattr(theirs, part).state_dict()
        assert model.state_dict().keys() == expected.keys()
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, expected[name]), f"{part}.{name}"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_file_and_folder_answer_alike(family, tiny_folder, tiny_file, no_network):
    """The configurations that a file lacks (heads, activation, norms) are the family's; widths are read from its
    shapes.
    """
    folder, file = models.load(str(tiny_folder(family))), models.load(str(tiny_file(family)))
    assert folder.family is file.family
    texts = [base.encode_text(["a cat", "a dog"]) for base in (folder, file)]
    for name in texts[0]:
        assert torch.allclose(texts[0][name], texts[1][name], atol=1e-5), name
    noisy, when = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    assert torch.allclose(folder.predict(noisy, when, texts[0]), file.predict(noisy, when, texts[1]), atol=1e-5)


def test_averaged_weights_are_passed_over_and_half_precision_is_widened(tmp_path, tiny_file):
    """The first full checkpoints hold both; every program that draws takes the plain ones."""
    full = models.load(str(tiny.checkpoint(tmp_path / "full.safetensors", "sd1", dtype=torch.float16, ema=True)))
    plain = models.load(str(tiny_file("sd1")))
    assert full.unet.dtype == torch.float32
    for name, weight in full.unet.state_dict().items():
        assert torch.equal(weight, plain.unet.state_dict()[name].half().float()), name


def test_clip_without_its_prefix(tmp_path, tiny_file):
    """Some merged files have lost ``text_model.`` in their text encoder's keys."""
    tensors = {
        key.replace("transformer.text_model.", "transformer."): tensor
        for key, tensor in load_file(tiny_file("sd1")).items()
    }
    save_file(tensors, tmp_path / "merged.safetensors")
    assert torch.equal(
        models.load(str(tmp_path / "merged.safetensors")).encode_text(["a cat"])["hidden"],
        models.load(str(tiny_file("sd1"))).encode_text(["a cat"])["hidden"],
    )


def test_the_setting_overrides(tiny_file):
    base = models.load(str(tiny_file("sd2")), prediction="epsilon")
    assert (base.process.name, base.resolution) == ("epsilon", 512)
    assert models.load(str(tiny_file("sd1")), prediction="v").process.name == "v"


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("first_stage_model.", "holds the UNet and the text encoder of .*, but not the VAE"),
        ("cond_stage_model.", "holds the UNet and the VAE of .*, but not the text encoder"),
        ("first_stage_model.decoder.up.2.", "lacks .* weights of the VAE"),
        ("model.diffusion_model.middle_block", "lacks .* weights of the UNet"),
        ("first_stage_model.encoder.down.1", "does not hold some weights of the VAE"),
    ],
)
def test_a_missing_part_is_named(drop, message, tmp_path):
    path = tiny.checkpoint(tmp_path / "part.safetensors", "sd1", drop=drop)
    with pytest.raises(ModelError, match=message) as raised:
        models.load(str(path))
    assert "part.safetensors" in str(raised.value) and raised.value.do


@pytest.mark.fault(27)
def test_a_wrong_shape_is_named(tmp_path):
    key = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    path = tiny.checkpoint(tmp_path / "odd.safetensors", "sd1", extra={key: torch.zeros(3, 3)})
    with pytest.raises(ModelError, match=r"middle_block\.0.*shape \(3, 3\)"):
        models.load(str(path))


@pytest.mark.fault(28)
@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (1e6, torch.float16)])
def test_weights_that_are_not_finite_are_named(value, dtype, tmp_path):
    """A NaN, or a number too large for the precision asked for, would draw black pictures later."""
    key = "model.diffusion_model.out.2.bias"
    path = tiny.checkpoint(tmp_path / "nan.safetensors", "sd1", extra={key: torch.full((4,), value)})
    with pytest.raises(ModelError, match=r"out\.2\.bias.*not finite"):
        models.load(str(path), dtype=dtype)


@pytest.mark.fault(27)
def test_an_incomplete_download_is_named(tmp_path, tiny_file):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny_file("sd1").read_bytes()[:-1000])
    with pytest.raises(ModelError, match="incomplete download"):
        models.load(str(path))


@pytest.mark.fault(23)
def test_pickles_are_refused_unread(tmp_path):
    for name, content in {"model.ckpt": b"PK\x03\x04", "renamed.safetensors": b"\x80\x02}q\x00." + b"0" * 99}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="pickle"):
            models.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 8)}, "adapter"),
        ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (4, 8)}, "adapter"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "Flux"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (32, 8, 3, 3)}, "InstructPix2Pix"),
        ({"input_blocks.0.0.weight": (32, 5, 3, 3)}, "a depth model"),
        (
            {
                "model.diffusion_model.input_blocks.0.0.weight": (32, 4, 3, 3),
                "conditioner.embedders.0.model.ln_final.weight": (8,),
            },
            "refiner",
        ),
        ({"decoder.mid.block_1.norm1.weight": (8,)}, "only a VAE.*Choose a whole checkpoint or a UNet .* as --vae"),
        ({"decoder.mid_block.resnets.0.norm1.weight": (8,)}, "only a VAE"),
        ({"text_model.embeddings.token_embedding.weight": (9, 8)}, "only a text encoder.* as --text-encoders"),
        ({"model.diffusion_model.out.2.weight": (4, 32, 3, 3)}, "a UNet of no family"),
        ({"something": (1,)}, "no model that the studio knows"),
    ],
)
def test_other_files_are_called_what_they_are(tensors, message, tmp_path):
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=message):
        models.load(str(tmp_path / "other.safetensors"))


def test_every_weight_of_the_real_models_has_a_place_of_its_own():
    """No two weights of SDXL's UNet, VAE or text encoder may claim the same key (q, k and v of OpenCLIP share one on
    purpose).
    """
    unet, vae, text = (_empty("sdxl", part).state_dict() for part in ("unet", "vae", "text_encoder_2"))
    for names, source in (
        (unet, lambda name: ldm_keys.unet_source(name, 2, [True, True, False])),
        (vae, lambda name: ldm_keys.vae_source(name, 4)),
    ):
        assert len({source(name).key for name in names}) == len(names)
    shared = {ldm_keys.openclip_source(name, 1280).key for name in text}
    assert len(text) - len(shared) == 2 * 2 * 32


def test_building_a_part_takes_no_memory():
    assert all(weight.is_meta for weight in _empty("sdxl", "unet").parameters())
