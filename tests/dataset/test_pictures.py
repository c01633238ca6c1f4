"""Opening pictures: rows 4 to 13 of the list of faults, each on a real file."""

import contextlib
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from lora_studio.dataset import pictures
from lora_studio.dataset.pictures import NotAPicture, examine, open_picture, thumbnail
from lora_studio.errors import DatasetError
from tests.dataset import made


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path, **options):
    return np.asarray(open_picture(path, **options)).astype(int)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.avif", "a.gif"])
def test_every_promised_format_opens_with_its_colours(tmp_path, name):
    path = saved(tmp_path / name, made.painted(48, 32))
    assert open_picture(path).size == (48, 32) and open_picture(path).mode == "RGB"
    assert np.abs(pixels(path) - np.asarray(made.painted(48, 32)).astype(int)).mean() < 12
    assert (examine(path).width, examine(path).height, examine(path).notices) == (48, 32, ())


@pytest.mark.parametrize("name", ["a.jpg", "a.txt.png", "a.svg", "a"])
def test_the_content_counts_and_not_the_name(tmp_path, name):
    made.painted().save(tmp_path / "real.png")
    path = tmp_path / name
    os.rename(tmp_path / "real.png", path)
    assert np.array_equal(pixels(path), np.asarray(made.painted()))


@pytest.mark.fault(5, 13)
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"these are words\n" * 20, "not a picture"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG files are not supported"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "EPS files are not supported"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "not a picture"),
        ("a.pdf", b"%PDF-1.4\n", "PDF files are not supported"),
        ("a.jpg", b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
def test_what_is_no_picture_is_named_and_never_handed_to_another_decoder(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAPicture, match=said) as raised:
        examine(tmp_path / name)
    assert raised.value.where == name and raised.value.do


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="No such file") as raised:
        open_picture(tmp_path / "gone.png")
    assert raised.value.where.endswith("gone.png")


@pytest.mark.fault(4)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.avif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_picture_is_named(tmp_path, name, share):
    """``verify`` passes a truncated JPEG: only decoding all of it tells."""
    path = saved(tmp_path / name, made.painted(256, 256))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for reading in (examine, open_picture):
        with pytest.raises(DatasetError, match="damaged|incomplete"):
            reading(path)


@pytest.mark.fault(4)
def test_a_truncated_progressive_jpeg_is_named_although_it_shows_a_whole_picture(tmp_path):
    path = saved(tmp_path / "a.jpg", made.painted(512, 512), progressive=True, quality=95)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match="incomplete"):
        examine(path)


@pytest.mark.fault(6, 7)
@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(20000, 20000, "too large"), (11000, 11000, "121 million pixels"), (9000, 9000, "81 million pixels")],
)
def test_huge_pictures_are_refused_from_their_header(tmp_path, monkeypatch, width, height, said):
    """A 50 KB file may unpack to a gigabyte; Pillow only warns up to 179 million pixels."""
    (tmp_path / "bomb.png").write_bytes(made.claiming_png(width, height))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    assert (tmp_path / "bomb.png").stat().st_size < 60_000
    with pytest.raises(DatasetError, match=said) as raised:
        examine(tmp_path / "bomb.png")
    assert "80 million" in raised.value.do


@pytest.mark.fault(8)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.avif"])
def test_a_turned_picture_stands_upright(tmp_path, name, orientation):
    upright = made.corners(64, 32)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions, inverse of the orientation's
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / name, stored, exif=exif, **({"subsampling": 0, "quality": 95} if name == "a.jpg" else {}))
    assert open_picture(path).size == (64, 32)
    assert (examine(path).width, examine(path).height) == (64, 32)
    assert np.abs(pixels(path) - np.asarray(upright).astype(int)).mean() < 8


def test_a_turned_jpeg_of_nearly_square_sides_keeps_them_apart(tmp_path):
    """A JPEG is examined at an eighth of its size, where 993 × 1000 looks square."""
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = examine(saved(tmp_path / "a.jpg", made.painted(993, 1000), exif=exif))
    assert (facts.width, facts.height) == (1000, 993)


@pytest.mark.fault(8)
def test_damaged_exif_costs_the_turn_only(tmp_path):
    path = saved(tmp_path / "a.png", made.painted(32, 16), exif=b"Exif\0\0XX*\0\x08\0\0\0")
    assert open_picture(path).size == (32, 16) and examine(path).notices == ("exif",)


@pytest.mark.fault(8)
def test_a_turn_survives_other_exif_data_that_cannot_be_written_again(tmp_path):
    """Pillow's own ``exif_transpose`` writes all tags anew, and stumbles over one of the wrong type."""
    entries = (
        b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x00\x01\x02\0\x04\0\0\0abc\0"
    )  # orientation 6; ImageWidth as text
    path = saved(
        tmp_path / "a.png", made.painted(32, 16), exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"
    )
    assert open_picture(path).size == (16, 32) and examine(path).notices == ()


@pytest.mark.fault(9)
def test_cmyk_is_converted_by_its_profile(tmp_path):
    """In this file's profile cyan ink is red; a plain conversion gives cyan, an inverted one black or white."""
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = saved(tmp_path / "a.jpg", cyan, icc_profile=made.odd_ink_profile(), quality=100)
    red, green, blue = pixels(path)[8, 8]
    assert red > 220 and green < 40 and blue < 40
    paper = saved(tmp_path / "b.tiff", Image.new("CMYK", (16, 16), (0, 0, 0, 0)), icc_profile=made.odd_ink_profile())
    assert (pixels(paper) >= 250).all()
    assert examine(path).notices == ()


@pytest.mark.fault(9)
def test_cmyk_without_a_profile_is_not_inverted_and_noted(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (255, 0, 0, 0)), quality=100)
    red, green, blue = pixels(path)[8, 8]
    assert red < 40 and green > 200 and blue > 200 and examine(path).notices == ("cmyk",)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "RGB"),
        ("a.jpg", "RGB"),
        ("a.tiff", "RGB"),
        ("a.webp", "RGB"),
        ("b.png", "RGBA"),
        ("c.png", "L"),
        ("d.png", "LA"),
        ("e.png", "P"),
    ],
)
def test_colours_are_converted_to_srgb(tmp_path, name, mode):
    """Linear 128 is sRGB 188; without its profile such a picture comes out dark."""
    space = "GRAY" if mode[0] == "L" else "RGB "
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    grey = grey.quantize() if mode == "P" else grey.convert(mode)
    path = saved(
        tmp_path / name, grey, icc_profile=made.linear_profile(space), **({"lossless": True} if "webp" in name else {})
    )
    assert np.abs(pixels(path) - 188).max() <= 3
    assert "icc_profile" not in open_picture(path).info


def test_an_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path / "a.png", made.painted(), icc_profile=profile)
    assert np.abs(pixels(path) - np.asarray(made.painted()).astype(int)).max() <= 1


@pytest.mark.parametrize("profile", [b"no profile at all", made.linear_profile("GRAY"), made.odd_ink_profile()])
def test_a_profile_that_does_not_fit_is_noted_and_passed_over(tmp_path, profile):
    path = saved(tmp_path / "a.png", made.painted(), icc_profile=profile)
    assert np.array_equal(pixels(path), np.asarray(made.painted())) and examine(path).notices == ("profile",)


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, name):
    ramp = Image.fromarray(np.array([[0, 257, 32896, 65535]] * 4, np.uint16))
    assert pixels(saved(tmp_path / name, ramp))[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


@pytest.mark.fault(10)
def test_big_endian_sixteen_bit_grey_is_scaled(tmp_path):
    picture = Image.frombytes("I;16B", (2, 1), b"\x80\x80\xff\xff")
    assert pixels(saved(tmp_path / "a.tiff", picture))[0, :, 0].tolist() == [128, 255]


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("F", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("F", [0.0, 128.0, 255.0], [0, 128, 255]),
        ("F", [float("nan"), -1.0, 1.0], [0, 0, 255]),
        ("I", [0, 128, 255], [0, 128, 255]),
        ("I", [-5, 32896, 65535], [0, 128, 255]),
    ],
)
def test_float_and_integer_tiffs_are_scaled_to_what_they_hold(tmp_path, mode, values, expected):
    picture = Image.fromarray(np.array([values], np.float32 if mode == "F" else np.int32))
    assert pixels(saved(tmp_path / "a.tiff", picture))[0, :, 0].tolist() == expected


@pytest.mark.fault(11)
def test_alpha_is_composited_and_hides_what_it_hid(tmp_path):
    """A plain conversion shows the colour beneath full transparency."""
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    for name in ("a.png", "a.webp", "a.tiff", "a.avif"):
        path = saved(tmp_path / name, picture.resize((32, 16), 0), **({"lossless": True} if name == "a.webp" else {}))
        assert np.abs(pixels(path)[8, 4] - 255).max() <= 2 and np.abs(pixels(path)[8, 28] - 127).max() <= 4
        assert np.abs(pixels(path, background=(0, 0, 255))[8, 4] - (0, 0, 255)).max() <= 2


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("image", "options"),
    [
        (made.corners().convert("P"), {"transparency": 0}),
        (Image.new("L", (4, 4), 7), {"transparency": 7}),
        (Image.new("RGB", (4, 4), (9, 9, 9)), {"transparency": (9, 9, 9)}),
        (Image.new("LA", (4, 4), (7, 0)), {}),
    ],
)
def test_every_kind_of_transparency_shows_the_background(tmp_path, image, options):
    if image.mode == "P":
        image.paste(0, (0, 0, 32, 16))
    assert (pixels(saved(tmp_path / "a.png", image, **options)) == 255).all()


@pytest.mark.fault(11)
@pytest.mark.parametrize(("lowest", "notices"), [(255, ()), (254, ("alpha",))])
def test_transparency_is_noticed_where_there_is_any(tmp_path, lowest, notices):
    """White shows through, and sd-scripts may have taken it for a mask."""
    alpha = Image.new("L", (16, 16), 255)
    alpha.putpixel((3, 3), lowest)
    picture = made.painted(16, 16)
    picture.putalpha(alpha)
    assert examine(saved(tmp_path / "a.png", picture)).notices == notices


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff", "a.avif"])
def test_of_an_animation_the_first_frame_is_used_with_a_notice(tmp_path, name):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    red, _, blue = pixels(path)[16, 16]
    assert red > 240 and blue < 20 and examine(path).notices == ("frames",)


def test_black_and_white_and_palettes_open(tmp_path):
    bits = Image.new("1", (4, 4), 1)
    assert (pixels(saved(tmp_path / "a.png", bits)) == 255).all()
    assert np.array_equal(
        pixels(saved(tmp_path / "b.png", made.corners().convert("P"))),
        np.asarray(made.corners().convert("P").convert("RGB")),
    )


def test_lab_pictures_open(tmp_path):
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 30, 30)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert np.abs(pixels(saved(tmp_path / "a.tiff", lab))[4, 4] - (200, 30, 30)).max() < 6


def test_a_thumbnail_is_small_named_by_content_and_made_once(tmp_path):
    path = saved(tmp_path / "some name.png", made.painted(400, 200))
    copy = tmp_path / "other.png"
    copy.write_bytes(path.read_bytes())
    small = thumbnail(path, tmp_path / "cache", side=100)
    with Image.open(small) as image:
        assert image.size == (100, 50) and image.format == "JPEG"
    made_at = small.stat().st_mtime_ns
    assert thumbnail(copy, tmp_path / "cache", side=100) == small and small.stat().st_mtime_ns == made_at
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [small.name]


@pytest.mark.fault(63)
def test_a_thumbnail_carries_nothing_of_the_file_but_its_look(tmp_path):
    """The page serves thumbnails: a photo's place and an appended script stay behind."""
    exif = Image.Exif()
    exif[0x010E] = "at home"
    path = saved(tmp_path / "a.jpg", made.painted(300, 300), exif=exif, comment=b"secret")
    path.write_bytes(path.read_bytes() + b"<script>alert(1)</script>")
    data = thumbnail(path, tmp_path / "cache").read_bytes()
    assert b"at home" not in data and b"secret" not in data and b"script" not in data


def test_a_thumbnail_of_a_turned_large_jpeg_stands_upright_and_is_sharp_enough(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    path = saved(tmp_path / "a.jpg", made.corners(2000, 1000), exif=exif)
    with Image.open(thumbnail(path, tmp_path / "cache", side=128)) as image:
        assert image.size == (64, 128)
        assert 0x0112 not in image.getexif()


@given(
    st.sampled_from(pictures.FORMATS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=150)
def test_no_damage_raises_anything_but_a_dataset_error(kind, changes):
    """Decoders raise nearly every exception there is on garbled files; a scan must survive them all."""
    out = io.BytesIO()
    made.painted(24, 16).save(out, kind)
    data = bytearray(out.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(DatasetError):
        assert pictures.decode(io.BytesIO(data), "a").mode == "RGB"


def test_the_same_look_gives_the_same_facts_from_bytes_and_from_a_file(tmp_path):
    path = saved(tmp_path / "a.png", made.painted(mode="RGBA"))
    assert np.array_equal(np.asarray(pictures.decode(io.BytesIO(path.read_bytes()), "a.png")), pixels(path))
