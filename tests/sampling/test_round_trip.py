"""What of a picture reaches the model."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from lora_studio import models
from lora_studio.dataset.items import Bucket, Picture
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import DatasetError
from lora_studio.models.load import autoencoder
from lora_studio.sampling.round_trip import VaeRoundTrip
from tests.models import tiny


@pytest.fixture(scope="module")
def vae():
    return VaeRoundTrip("starter", torch.device("cpu"))


@pytest.fixture
def picture(tmp_path):
    """Red on the left, blue on the right, of which the blue half is trained on."""
    path = tmp_path / "a.png"
    image = Image.new("RGB", (256, 128), "red")
    ImageDraw.Draw(image).rectangle((128, 0, 255, 127), fill="blue")
    image.save(path)
    return Picture(path, "", 1, 256, 128, hashlib.sha256(path.read_bytes()).hexdigest(), crop=Crop(0.5, 0, 1, 1))


def test_the_crop_comes_back_nearly_as_it_was(vae, picture):
    """The page shows another part, or colours that the VAE did not make."""
    seen = vae.seen(picture, Bucket(128, 128))
    assert (seen.size, seen.mode) == ((128, 128), "RGB")
    assert np.abs(np.asarray(seen, float)[16:-16, 16:-16] - (0, 0, 255)).mean() < 12


def test_a_picture_that_changed_is_not_shown_as_the_old_one(vae, picture):
    Image.new("RGB", (256, 128)).save(picture.path)
    with pytest.raises(DatasetError, match="changed"):
        vae.seen(picture, Bucket(128, 128))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_vae_alone_is_that_of_the_whole_model(kind, tmp_path):
    """The page shows what another VAE makes of pictures than the one that trains."""
    make = tiny.folder if kind == "folder" else tiny.checkpoint
    path = str(make(tmp_path / ("model" if kind == "folder" else "model.safetensors"), "sd1"))
    whole, alone = models.load(path).vae, autoencoder(path)
    assert all(torch.equal(one, alone.state_dict()[key]) for key, one in whole.state_dict().items())
    assert not any(weight.requires_grad for weight in alone.parameters())
