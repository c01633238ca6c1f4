"""Segmenters of the U²-Net kind: the map of a tiny one that finds what is red."""

import numpy as np
import pytest
from PIL import Image

from lora_studio.errors import ModelError
from lora_studio.vision.segmenters import U2Net, prepare
from tests.vision import tiny


def test_the_picture_is_normalized_as_in_training():
    shown = prepare(Image.new("RGB", (7, 3), (200, 100, 0)), (4, 2))
    assert shown.shape == (3, 2, 4) and shown.dtype == np.float32
    assert shown[:, 0, 0] == pytest.approx([(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225], abs=1e-4)


def test_a_black_picture_is_no_division_by_nothing():
    assert np.isfinite(prepare(Image.new("RGB", (4, 4)), (4, 4))).all()


def test_what_is_found_is_white_in_the_pictures_size(tmp_path):
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste("red", (0, 0, 30, 40))
    mask = U2Net(tiny.u2net(tmp_path / "u2net.onnx")).mask(picture)
    assert mask.size == picture.size and mask.mode == "L"
    assert mask.getpixel((10, 20)) == 255 and mask.getpixel((50, 20)) == 0


def test_a_picture_of_one_colour_has_an_empty_mask(tmp_path):
    mask = U2Net(tiny.u2net(tmp_path / "u2net.onnx")).mask(Image.new("RGB", (20, 20), "blue"))
    assert mask.getextrema() == (0, 0)


def test_a_tagger_is_no_segmenter(tmp_path):
    with pytest.raises(ModelError, match="no segmenter of the U²-Net kind"):
        U2Net(tiny.wd14(tmp_path / "wd"))


def test_a_file_that_is_no_model_is_told(tmp_path):
    (tmp_path / "u2net.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"u2net.onnx cannot be loaded"):
        U2Net(tmp_path / "u2net.onnx")
