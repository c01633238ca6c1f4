"""Models in diffusers' folders and in the hub's local cache, whole and damaged; never a question to the network."""

import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import models, starter
from lora_studio.errors import ModelError, SettingsError
from lora_studio.families import registry as families
from tests.models import tiny


@pytest.fixture
def damaged(tmp_path, tiny_folder):
    """A copy of the tiny SD 1 folder that a test may change."""
    return shutil.copytree(tiny_folder("sd1"), tmp_path / "broken")


def test_a_folder_is_read_whole(tiny_folder, no_network):
    base = models.load(str(tiny_folder("sd1")))
    assert (base.family.name, base.name, base.resolution, base.process.name) == ("starter", "sd1", 128, "epsilon")
    expected = tiny.parts("sd1")
    for part, model in {"unet": base.unet, "vae": base.vae, **base.text_encoders}.items():
        for name, weight in expected[part].state_dict().items():
            assert torch.equal(model.state_dict()[name], weight), f"{part}.{name}"
        assert not model.training and not any(weight.requires_grad for weight in model.parameters())


def test_noise_schedule_is_the_published_one(tiny_folder):
    """√β rises linearly from √0.00085 to √0.012 over 1000 steps: ᾱ starts at 0.99915 and ends at 0.0047."""
    process = models.load(str(tiny_folder("sd1"))).process
    assert process.timesteps == 1000
    first, last = process.alpha_bar(torch.tensor([0, 999])).tolist()
    assert first == pytest.approx(0.99915, abs=1e-6) and last == pytest.approx(0.00466, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_vae_stays_in_full_precision(dtype, tiny_folder):
    """SDXL's overflows in fp16; and latents are encoded once, so they may have all their digits. Not even autocast may
    change that.
    """
    base = models.load(str(tiny_folder("sd1")), dtype=dtype)
    assert (base.unet.dtype, base.text_encoders["text_encoder"].dtype, base.vae.dtype) == (dtype, dtype, torch.float32)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    plain = base.encode_images(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, std = base.encode_images(pixels)
        decoded = base.decode(mean)
    assert mean.dtype == std.dtype == decoded.dtype == torch.float32
    assert torch.equal(mean, plain[0]) and torch.equal(decoded, base.decode(plain[0]))


def test_latents_and_pixels_have_the_promised_shapes_and_scale(tiny_folder):
    base = models.load(str(tiny_folder("sd1")))
    pixels = torch.rand(2, 3, 64, 128) * 2 - 1
    mean, std = base.encode_images(pixels)
    posterior = base.vae.encode(pixels).latent_dist
    assert mean.shape == std.shape == (2, 4, 8, 16)
    assert torch.allclose(mean, posterior.mean * 0.18215) and torch.allclose(std, posterior.std * 0.18215)
    decoded = base.decode(mean)
    assert decoded.shape == (2, 3, 64, 128) and 0 <= decoded.min() and decoded.max() <= 1


def test_sizes_say_whole_picture_unless_told(tiny_folder):
    """SDXL is told size, crop and target size as height before width."""
    base = models.load(str(tiny_folder("sdxl")))
    assert base.whole(torch.zeros(2, 4, 8, 16)).tolist() == [[64, 128, 0, 0, 64, 128]] * 2
    text, noisy = base.encode_text(["a cat"]), torch.randn(1, 4, 8, 16)
    plain = base.predict(noisy, torch.tensor([10]), text)
    assert torch.equal(plain, base.predict(noisy, torch.tensor([10]), text, torch.tensor([[64.0, 128, 0, 0, 64, 128]])))
    assert not torch.equal(
        plain, base.predict(noisy, torch.tensor([10]), text, torch.tensor([[640.0, 128, 9, 0, 64, 128]]))
    )


def test_the_empty_caption_of_sdxl_is_zero(tiny_folder):
    """What SDXL was trained to take for no caption; a caption beside it must not change."""
    base = models.load(str(tiny_folder("sdxl")))
    both, alone = base.encode_text(["", "a cat"]), base.encode_text(["a cat"])
    assert both["hidden"].shape == (2, 77, 96) and both["pooled"].shape == (2, 64)
    assert not both["hidden"][0].any() and not both["pooled"][0].any()
    assert torch.allclose(both["hidden"][1], alone["hidden"][0], atol=1e-5)


def test_fingerprint_is_of_the_encoders_and_sum_of_the_files(tmp_path, tiny_folder):
    """The cache of latents must survive another UNet or place, but not another VAE, text encoder or precision."""
    base = models.load(str(tiny_folder("sd1")))
    moved = shutil.copytree(tiny_folder("sd1"), tmp_path / "moved")
    again = models.load(str(moved))
    assert again.fingerprint == base.fingerprint and again.sha256() == base.sha256() and again.checksum == base.checksum
    rounded = models.load(str(moved), dtype=torch.bfloat16)
    assert rounded.fingerprint != base.fingerprint and rounded.checksum != base.checksum
    checksums = {}
    for part, same in {"unet": True, "vae": False}.items():
        weights = moved / part / "diffusion_pytorch_model.safetensors"
        save_file({name: tensor + 1e-3 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
        changed = models.load(str(moved))
        assert (changed.fingerprint == base.fingerprint) == same
        assert changed.sha256() != base.sha256()
        checksums[part] = changed.checksum
    assert checksums["unet"] == checksums["vae"] != base.checksum, "it is of the UNet alone"


def test_half_precision_variant_shards_and_old_names(damaged, no_network):
    """Layouts that real folders have: only ``.fp16`` files; weights in several files; the VAE's attention under its
    names of 2022.
    """
    unet, vae = damaged / "unet", damaged / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(unet / "diffusion_pytorch_model.safetensors")
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    names = sorted(tensors)
    places = {
        name: f"diffusion_pytorch_model-0000{1 + (index % 2)}-of-00002.safetensors" for index, name in enumerate(names)
    }
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, unet / shard)
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (damaged / "text_encoder" / "model.safetensors").rename(damaged / "text_encoder" / "model.fp16.safetensors")
    old = {
        name.replace("0.to_q.", "0.query.")
        .replace("0.to_k.", "0.key.")
        .replace("0.to_v.", "0.value.")
        .replace("0.to_out.0.", "0.proj_attn."): tensor
        for name, tensor in load_file(vae).items()
    }
    save_file(old, vae)
    base = models.load(str(damaged))
    assert torch.equal(base.unet.conv_in.weight, tensors["conv_in.weight"])
    assert torch.equal(
        base.vae.encoder.mid_block.attentions[0].to_q.weight, old["encoder.mid_block.attentions.0.query.weight"]
    )
    (unet / places[names[0]]).unlink()
    with pytest.raises(ModelError, match="00001-of-00002"):
        models.load(str(damaged))


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "missing",
    [
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "unet",
        "vae/config.json",
        "tokenizer/vocab.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ],
)
def test_a_missing_part_is_named(missing, damaged, no_network):
    target = damaged / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(ModelError, match=missing) as raised:
        models.load(str(damaged))
    assert raised.value.do


@pytest.mark.fault(27)
def test_damage_is_named(damaged):
    weights = damaged / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors is an incomplete download"):
        models.load(str(damaged))
    weights.write_bytes(whole)
    (damaged / "vae" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        models.load(str(damaged))


@pytest.mark.fault(23)
def test_a_pickle_in_a_folder_is_refused_unread(damaged):
    weights = damaged / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="only as a pickle"):
        models.load(str(damaged))


@pytest.mark.parametrize(
    ("index", "unet", "message"),
    [
        ({"_class_name": "StableDiffusion3Pipeline"}, None, "Stable Diffusion 3"),
        ({"_class_name": "FluxPipeline"}, None, "Flux"),
        ({"_class_name": "StableDiffusionInstructPix2PixPipeline"}, {}, "image-editing"),
        ({}, {"in_channels": 8, "block_out_channels": [1] * 4}, "InstructPix2Pix"),
        (
            {"_class_name": "StableDiffusionXLImg2ImgPipeline"},
            {"block_out_channels": [1] * 4, "addition_embed_type": "text_time"},
            "XLImg2Img",
        ),
        ({}, None, "no unet folder.*the folder that holds unet and model_index.json"),
    ],
)
def test_other_models_are_called_what_they_are(index, unet, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        families.of_folder(index, {} if unet is None else {"unet": unet}, tmp_path)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_real_configurations_are_told_apart(name, tmp_path):
    """SD 1.5's topology is the starter's; the width of its text features tells them apart."""
    from lora_studio.families.family import CONFIGS
    from lora_studio.models import parts

    assert families.of_folder({}, {"unet": parts.read_json(CONFIGS / name / "unet.json")}, tmp_path).name == name


@pytest.mark.fault(34)
def test_names_of_no_model_are_refused(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("someone/some-model", str(tmp_path / "nothing.safetensors"), "sdxl"):
        with pytest.raises(ModelError, match="base"):
            models.load(name)


def test_a_downloaded_hub_model_is_found_by_its_name(tmp_path, tiny_folder, monkeypatch, no_network):
    cache = tmp_path / "models--someone--tiny-model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny_folder("sd1"), cache / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert models.load("someone/tiny-model").name == "tiny-model"


def test_an_unknown_prediction_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="sample"):
        models.load(str(tiny.folder(tmp_path / "odd", "sd1", prediction="sample")))


def test_encoders_move_together(tiny_folder):
    base = models.load(str(tiny_folder("sd1")))
    base.encoders_to("meta")
    assert base.vae.device.type == base.text_encoders["text_encoder"].device.type == "meta"
    assert base.unet.device.type == "cpu"


@pytest.mark.skipif(not (starter.MODEL / "unet").is_dir(), reason="the starter's weights are not made yet")
def test_the_starter_loads(no_network):
    base = models.load("starter")
    assert (base.family.name, base.name, base.resolution, base.process.name) == ("starter", "starter", 128, "v")


ODD = [
    ("unet/config.json", "block_out_channels", "x"), ("unet/config.json", "encoder_hid_dim", -1),
    ("text_encoder/config.json", "projection_dim", {}),
    ("scheduler/scheduler_config.json", "prediction_type", {}), ("tokenizer/vocab.json", "a</w>", []),
]  # fmt: skip


@pytest.mark.parametrize(("file", "key", "value"), ODD)
def test_a_configuration_that_makes_no_sense_is_named(file, key, value, damaged):
    """The libraries raise nearly every kind of exception over one, and none of them names the file."""
    table = json.loads((damaged / file).read_text())
    (damaged / file).write_text(json.dumps({**table, key: value}))
    with pytest.raises((ModelError, SettingsError)) as raised:
        models.load(str(damaged))
    assert raised.value.do


@pytest.mark.parametrize("names", [None, [], {"conv_in.weight": 3}, {"conv_in.weight": "../../../etc/passwd"}])
def test_an_index_of_shards_leads_nowhere_else(names, damaged):
    unet = damaged / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelError, match="index.json is damaged|passwd") as raised:
        models.load(str(damaged))
    assert "/etc/" not in str(raised.value)
