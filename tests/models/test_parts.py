"""Base models in several files, as ComfyUI's folders hold them, and what is said of tensors that nobody reads."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import files, models
from lora_studio.adapters import recipe
from lora_studio.config.settings import Settings
from lora_studio.dataset.items import Dataset
from lora_studio.errors import ModelError
from lora_studio.events import Warned
from lora_studio.families import contents, leftovers
from lora_studio.models import inspection, shapes
from lora_studio.models.pieces import Given
from lora_studio.training import devices, prepare
from tests.models import tiny

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = {"sd1": "cond_stage_model.transformer.", "sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders."}


@pytest.fixture(scope="session")
def cut(tmp_path_factory, tiny_file):
    """(family, prefix, new prefix) -> a file of that part alone."""

    @cache
    def make(family, prefix, new=""):
        path = tmp_path_factory.mktemp("parts") / "part.safetensors"
        tensors = load_file(tiny_file(family)).items()
        save_file({new + key.removeprefix(prefix): one for key, one in tensors if key.startswith(prefix)}, path)
        return path

    return make


@pytest.fixture(scope="session")
def renamed(tmp_path_factory):
    """(family, part, prefix) -> that part alone under diffusers' or transformers' names."""

    @cache
    def make(family, part, prefix=""):
        path = tmp_path_factory.mktemp("parts") / f"{part}.safetensors"
        state = tiny.parts(family)[part].state_dict()
        save_file({prefix + key: tensor.clone() for key, tensor in state.items()}, path)
        return path

    return make


def _same(base, other):
    for name, model in {"unet": base.unet, "vae": base.vae, **base.text_encoders}.items():
        theirs = {"unet": other.unet, "vae": other.vae, **other.text_encoders}[name].state_dict()
        for key, weight in model.state_dict().items():
            assert torch.equal(weight, theirs[key]), f"{name}.{key}"


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "", "diffusion_model."])
def test_parts_in_files_of_their_own_give_the_whole_model(prefix, cut, tiny_file):
    unet, vae = cut("sd1", UNET, prefix), cut("sd1", VAE, "" if prefix else VAE)
    text = cut("sd1", f"{CLIP['sd1']}text_model.", "text_model." if prefix else "")
    base = models.load(str(unet), vae=str(vae), text_encoders=[str(text)])
    assert base.family.name == "starter" and base.notices == []
    _same(base, models.load(str(tiny_file("sd1"))))


def test_sdxl_tells_its_text_encoders_apart_whatever_their_order(cut, renamed, tiny_file):
    """CLIP-L under transformers' names, CLIP-G under OpenCLIP's; a VAE and a UNet under diffusers' names."""
    unet, vae = str(renamed("sdxl", "unet")), str(renamed("sdxl", "vae"))
    first, second = str(renamed("sdxl", "text_encoder")), str(cut("sdxl", "conditioner.embedders.1.model."))
    base = models.load(unet, vae=vae, text_encoders=[second, first])
    assert base.family.name == "sdxl" and base.notices == []
    _same(base, models.load(str(tiny_file("sdxl"))))
    transformers = str(renamed("sdxl", "text_encoder_2"))
    found = shapes.read(unet, vae, [transformers, first])
    assert found.parameters["text_encoder_2"] > found.parameters["text_encoder"]
    assert found.text == shapes.read(unet, vae, [first, second]).text
    with pytest.raises(ModelError, match="both hold the second text encoder"):
        shapes.read(unet, vae, [transformers, first, second])


def test_given_files_of_the_same_name_are_told_apart(shared, monkeypatch, tmp_path):
    """So those of diffusers' folders are called."""
    paths = [tmp_path / part / "model.safetensors" for part in ("text_encoder", "text_encoder_2")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(path.parent.name)
    monkeypatch.setattr(shared, "given", Given.of("", [str(path) for path in paths]))
    assert shared.given_sha256() == {f"{path.parent.name}/{path.name}": files.sha256(path) for path in paths}


def test_a_given_vae_replaces_the_own_one(tmp_path, cut, tiny_folder, tiny_file):
    """In a checkpoint and in a folder; files beside the base model are in the fingerprint of its encoders."""
    tensors = load_file(cut("sd1", VAE))
    save_file({key: tensor + 0.5 for key, tensor in tensors.items()}, tmp_path / "other.safetensors")
    for path in (tiny_file("sd1"), tiny_folder("sd1")):
        plain, other = models.load(str(path)), models.load(str(path), vae=str(tmp_path / "other.safetensors"))
        assert torch.equal(other.vae.decoder.conv_in.weight, plain.vae.decoder.conv_in.weight + 0.5)
        assert other.fingerprint != plain.fingerprint and other.sha256() == plain.sha256()
        assert list(other.given_sha256()) == ["other.safetensors"] and other.notices == []


@pytest.mark.parametrize(
    ("prefix", "given", "message"),
    [
        (UNET, (), r"holds the UNet of .* and nothing else\. .* the VAE and the text encoder as vae and text_encoders"),
        (UNET, ("vae",), r"holds the UNet of .* and nothing else\. .*the text encoder as text_encoders \(--text-enc"),
        (VAE, (), "holds only a VAE"),
    ],
)
def test_messages_say_what_a_file_holds_and_lacks(prefix, given, message, cut):
    more = {"vae": str(cut("sd1", VAE))} if given else {}
    with pytest.raises(ModelError, match=message):
        models.load(str(cut("sd1", prefix)), **more)


@pytest.mark.parametrize(
    ("vae", "text", "message"),
    [
        ("nowhere.safetensors", [], "no file at nowhere"),
        (UNET, [], "holds no model that the studio knows|holds only a UNet.* Give a file with a VAE"),
        (VAE, [UNET], "holds only a UNet.* Give a file with a text encoder"),
        (VAE, ["sdxl"], r"holds a text encoder of 32 layers, but the built-in starter has 12"),
    ],
)
def test_a_file_that_is_something_else_is_named(vae, text, message, cut, renamed):
    def path(prefix):
        return str(renamed("sdxl", "text_encoder_2") if prefix == "sdxl" else cut("sd1", prefix))

    with pytest.raises(ModelError, match=message):
        vae = vae if "nowhere" in vae else path(vae)
        models.load(str(cut("sd1", UNET)), vae=vae, text_encoders=[path(one) for one in text])


def test_contents_are_told_from_keys_alone():
    found = contents.parts({"unet.out.2.weight": (4, 8), "unet.input_blocks.0.0.weight": (8, 4), "x": (1,)})
    assert [(part.kind, part.prefix, dict(part.keys)) for part in found] == [
        (
            "unet",
            "unet.",
            {"out.2.weight": "unet.out.2.weight", "input_blocks.0.0.weight": "unet.input_blocks.0.0.weight"},
        )
    ]
    bare = {"text_model.embeddings.token_embedding.weight": (9, 8), "text_model.encoder.layers.11.x.weight": (8,)}
    assert [(part.kind, part.layers) for part in contents.parts(bare)] == [("text", 12)]


# Tensors that nobody reads


def test_what_is_not_read_is_named_and_counted(tmp_path):
    extra = {f"control_model.{name}.weight": torch.zeros(1) for name in "abcde"}
    path = tiny.checkpoint(tmp_path / "odd.safetensors", "sd1", ema=True, extra=extra)
    (notice,) = models.load(str(path)).notices
    assert notice.what == (
        "odd.safetensors holds 5 tensors that the studio does not use: control_model.a.weight, "
        "control_model.b.weight, control_model.c.weight and 2 more."
    )
    assert notice.where == str(path) and notice.do
    assert [again.what for again in inspection.notices(str(path))] == [notice.what]


def test_a_run_says_what_it_does_not_use_and_takes_its_files(tmp_path, cut):
    """The events of loading; the recipe has the files' names alone."""
    tensors = load_file(cut("sd1", UNET)) | {"extra.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "unet.safetensors", {"modelspec.prediction_type": "epsilon"})
    text = str(cut("sd1", CLIP["sd1"]))
    settings = Settings(base=str(tmp_path / "unet.safetensors"), vae=str(cut("sd1", VAE)), text_encoders=[text])
    machine = devices.choose(settings.changed(device="cpu").machine)
    told = list(prepare.load(settings, machine, Dataset(tmp_path, [], [])))
    assert [event.what for event in told if isinstance(event, Warned)] == [
        "unet.safetensors holds a tensor that the studio does not use: extra.weight."
    ]
    cut_down = recipe.cut_paths(settings.flat())
    assert (cut_down["vae"], cut_down["text_encoders"]) == ("part.safetensors", ["part.safetensors"])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_usual_checkpoints_and_folders_get_no_notice(family, tiny_file, tiny_folder):
    assert inspection.notices(str(tiny_file(family))) == inspection.notices(str(tiny_folder(family))) == []


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_files_that_complete_a_model_are_looked_at_too(family, cut, tiny_file, tiny_folder, tmp_path):
    """In a checkpoint without a VAE, and in place of a folder's own."""
    save_file(load_file(cut(family, VAE)) | {"extra.weight": torch.zeros(1)}, tmp_path / "vae.safetensors")
    without = {key: one for key, one in load_file(tiny_file(family)).items() if not key.startswith(VAE)}
    save_file(without, tmp_path / "model.safetensors", {"modelspec.prediction_type": "epsilon"})
    with pytest.raises(ModelError, match="not the VAE"):
        inspection.notices(str(tmp_path / "model.safetensors"))
    for base in (tmp_path / "model.safetensors", tiny_folder(family)):
        (notice,) = inspection.notices(str(base), str(tmp_path / "vae.safetensors"))
        assert notice.what == "vae.safetensors holds a tensor that the studio does not use: extra.weight."


HARMLESS = [
    "model_ema.diffusion_modelinput_blocks00weight", "model_ema.num_updates", "alphas_cumprod", "sqrt_recip_alphas",
    "first_stage_model.loss.discriminator.main.0.weight", "betas", "log_one_minus_alphas_cumprod", "denoiser.sigmas",
    "cond_stage_model.transformer.text_model.embeddings.position_ids", "conditioner.embedders.1.model.logit_scale",
    "cond_stage_model.model.transformer.resblocks.23.ln_1.weight", "v_pred", "ztsnr", "edm_vpred.sigma_max",
    "cond_stage_model.transformer.vision_model.encoder.layers.0.mlp.fc1.weight",
]  # fmt: skip
UNKNOWN = ["cond_stage_model.model.transformer.resblocks.22.extra", "lora_unet.x", "model.diffusion_model.new.weight"]


def test_harmless_tensors_are_told_from_others():
    assert leftovers.unread([*HARMLESS, *UNKNOWN]) == UNKNOWN
    ends = ["edm_vpred.sigma_max", "edm_vpred.sigma_min"]
    assert leftovers.unread(ends) == [] and leftovers.unread(ends[1:]) == ends[1:], "it says nothing alone"
