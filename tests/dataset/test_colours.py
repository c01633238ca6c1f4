"""What training sees is sRGB within 4 levels, whatever way a file names its colours; what cannot be is named.

Right values come from literal matrices (W3C CSS Color 4, §17; Adobe RGB (1998), Annex; ITU-R BT.2087) and the curves'
own formulas.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from lora_studio.dataset import pictures
from lora_studio.dataset.pictures import examine, open_picture
from lora_studio.errors import DatasetError
from tests.dataset import made

P3 = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
ADOBE = np.array([[1.3983, -0.3983, 0], [0, 1, 0], [0, -0.0429, 1.0429]])
BT2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
SAME = np.eye(3)
COLOURS = [(64, 79, 193), (145, 121, 94), (12, 20, 147), (200, 200, 200), (3, 7, 11), (250, 240, 30)]


def srgb_curve(v):
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def bt709_curve(v):
    return v / 4.5 if v < 0.081 else ((v + 0.099) / 1.099) ** (1 / 0.45)


def gamma(exponent):
    return lambda v: v**exponent


def expected(colours, matrix, curve):
    """The sRGB values of ``colours``, one by one as the standards write it."""
    found = []
    for colour in colours:
        light = np.clip(matrix @ [curve(value / 255) for value in colour], 0, 1)
        found.append([255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055) for v in light])
    return np.array(found)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, *chunks, image=None):
    """A PNG of the colours, or another image, with further chunks before its data."""
    out = io.BytesIO()
    (image or Image.fromarray(np.array([COLOURS], np.uint8))).save(out, "PNG")
    data = out.getvalue()
    path.write_bytes(data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:])
    return path


def icc(profile):
    return b"iCCP", b"x\0\0" + zlib.compress(profile)


def chromaticities(*values):
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GAMMA_1, GAMMA_2_2 = (b"gAMA", struct.pack(">I", 100_000)), (b"gAMA", struct.pack(">I", 45_455))
SRGB_CHUNK, CICP_P3 = (b"sRGB", b"\0"), (b"cICP", bytes([12, 13, 0, 1]))
OF_SRGB = chromaticities(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
OF_P3 = chromaticities(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
OF_ADOBE = chromaticities(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    ("chunks", "matrix", "curve"),
    [
        ([GAMMA_1], SAME, gamma(1)),
        ([GAMMA_1, OF_P3], P3, gamma(1)),
        ([GAMMA_2_2, OF_ADOBE], ADOBE, gamma(2.2)),
        ([OF_P3], P3, srgb_curve),
        ([GAMMA_2_2], SAME, srgb_curve),  # what programs write for sRGB
        ([GAMMA_2_2, OF_SRGB], SAME, srgb_curve),
        ([(b"gAMA", struct.pack(">I", 55_556))], SAME, gamma(1.8)),
        ([CICP_P3], P3, srgb_curve),
        ([(b"cICP", bytes([9, 14, 0, 1]))], BT2020, bt709_curve),
        ([(b"cICP", bytes([1, 8, 0, 1]))], SAME, gamma(1)),
        ([(b"cICP", bytes([1, 4, 0, 1]))], SAME, gamma(2.2)),
        ([(b"cICP", bytes([2, 2, 0, 1]))], SAME, srgb_curve),
        # cICP > iCCP > sRGB > gAMA and cHRM
        ([CICP_P3, icc(made.linear_profile("RGB ")), GAMMA_1], P3, srgb_curve),
        ([icc(made.linear_profile("RGB ")), OF_P3], SAME, gamma(1)),
        ([icc(SRGB_PROFILE), GAMMA_1, OF_P3], SAME, srgb_curve),
        ([SRGB_CHUNK, GAMMA_1, OF_P3], SAME, srgb_curve),
        # impossible ones are passed over
        ([chromaticities(0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)], SAME, srgb_curve),
        ([(b"gAMA", bytes(4)), (b"cHRM", bytes(32)), (b"cICP", b"\x0c")], SAME, srgb_curve),
    ],
)
def test_a_png_is_converted_by_its_highest_mark(tmp_path, chunks, matrix, curve):
    path = png(tmp_path / "a.png", *chunks)
    assert np.abs(np.asarray(open_picture(path))[0] - expected(COLOURS, matrix, curve)).max() <= 2
    assert examine(path).notices == ()


def test_grey_palette_and_alpha_are_converted_too(tmp_path):
    """Linear 128 is sRGB 188."""
    grey = Image.new("L", (4, 4), 128)
    for mode in ("L", "LA", "P", "RGBA"):
        path = png(tmp_path / f"{mode}.png", GAMMA_1, image=grey.convert(mode))
        assert np.abs(np.asarray(open_picture(path)) - 188.0).max() <= 1


@pytest.mark.fault(74)
@pytest.mark.parametrize("mark", [(9, 16, 0, 1), (9, 18, 0, 1), (1, 13, 0, 0)])
def test_colours_without_one_right_srgb_are_named(tmp_path, mark):
    """Every program maps HDR in another way: trained as it is, it would look flat."""
    path = png(tmp_path / "a.png", (b"cICP", bytes(mark)))
    for reading in (examine, open_picture):
        with pytest.raises(DatasetError, match=r"HDR \(PQ\)|HDR \(HLG\)|narrow-range") as raised:
            reading(path)
        assert "SDR" in raised.value.do


def avif(path, primaries, transfer, profile=b""):
    flat = Image.new("RGB", (16, 16), (184, 57, 50))
    flat.save(path, quality=100, subsampling="4:4:4", icc_profile=profile)
    data = path.read_bytes()
    at = data.index(b"nclx") + 4
    path.write_bytes(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :])
    return path


@pytest.mark.fault(74)
def test_an_avif_of_display_p3_is_converted(tmp_path):
    path = avif(tmp_path / "a.avif", 12, 13)
    assert np.abs(np.asarray(open_picture(path))[8, 8] - (200, 40, 40)).max() <= 3
    plain = avif(tmp_path / "b.avif", 1, 13)
    assert np.abs(np.asarray(open_picture(plain))[8, 8] - (184.0, 57, 50)).max() <= 3


@pytest.mark.fault(74)
def test_an_avif_in_hdr_is_named(tmp_path):
    with pytest.raises(DatasetError, match="PQ"):
        open_picture(avif(tmp_path / "a.avif", 9, 16))


@pytest.mark.fault(74)
@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
@pytest.mark.parametrize(
    ("space", "index", "matrix", "curve"),
    [
        (0xFFFF, "R03", ADOBE, gamma(563 / 256)),
        (2, None, ADOBE, gamma(563 / 256)),
        (1, "R03", SAME, srgb_curve),
        (1, "R98", SAME, srgb_curve),
        (0xFFFF, None, SAME, srgb_curve),
    ],
)
def test_adobe_rgb_is_known_from_exif_alone(tmp_path, name, space, index, matrix, curve):
    """Cameras write no profile but a note (DCF 2.0)."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    path = tmp_path / name
    options = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}.get(name, {})
    Image.new("RGB", (16, 16), (145, 121, 94)).save(path, exif=exif, **options)
    assert np.abs(np.asarray(open_picture(path))[8, 8] - expected([(145, 121, 94)], matrix, curve)).max() <= 3


def test_a_profile_goes_before_the_note_of_a_camera(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    Image.new("RGB", (16, 16), (145, 121, 94)).save(tmp_path / "a.png", exif=exif, icc_profile=SRGB_PROFILE)
    assert np.abs(np.asarray(open_picture(tmp_path / "a.png"))[8, 8] - (145.0, 121, 94)).max() <= 1


def raw_png(path, depth, colour_type, rows, key):
    head = struct.pack(">IIBBBBB", 2, 1, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(b"\0" + rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    return path


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    ("depth", "colour_type", "rows", "key", "second"),
    [
        (16, 0, b"\xc0\x00\x40\x40", b"\xc0\x00", (64, 64, 64)),
        (8, 0, b"\xc0\x40", b"\0\xc0", (64, 64, 64)),
        (4, 0, b"\xc4", b"\0\x0c", (68, 68, 68)),
        (2, 0, b"\x60", b"\0\x01", (170, 170, 170)),
        (1, 0, b"\x40", b"\0\x00", (255, 255, 255)),
        (1, 0, b"\x80", b"\0\x01", (0, 0, 0)),
        (8, 2, b"\x10\x20\x30\x40\x50\x60", b"\0\x10\0\x20\0\x30", (64, 80, 96)),
        (16, 2, b"\x10\0\x20\0\x30\0\x40\0\x50\0\x60\0", b"\x10\0\x20\0\x30\0", (64, 80, 96)),
    ],
)
def test_one_transparent_colour_shows_the_background_at_every_depth(tmp_path, depth, colour_type, rows, key, second):
    """The first pixel has the transparent colour, the second another."""
    path = raw_png(tmp_path / "a.png", depth, colour_type, rows, key)
    assert np.asarray(open_picture(path, background=(1, 2, 3)))[0].tolist() == [[1, 2, 3], list(second)]
    assert examine(path).notices == (("key", "alpha") if (depth, colour_type) == (16, 2) else ("alpha",))


@pytest.mark.fault(75)
def test_a_megabyte_of_compressed_text_or_profile_is_read(tmp_path):
    """Photoshop's XMP and printers' profiles are larger than Pillow's limit of 1 MB."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x/>" * 300_000, zip=True)
    made.painted().save(tmp_path / "text.png", pnginfo=info)
    profile = made.linear_profile("RGB ") + bytes(1_200_000)
    path = png(tmp_path / "profile.png", icc(struct.pack(">I", len(profile)) + profile[4:]))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "text.png")), np.asarray(made.painted()))
    assert np.abs(np.asarray(open_picture(path))[0] - expected(COLOURS, SAME, gamma(1))).max() <= 2


@pytest.mark.fault(75)
def test_text_without_end_is_refused_as_what_it_is(tmp_path, monkeypatch):
    """Not as damage, which another download would not repair."""
    assert PngImagePlugin.MAX_TEXT_CHUNK == PngImagePlugin.MAX_TEXT_MEMORY == 64 * 1024**2
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1000)
    path = png(tmp_path / "a.png", (b"zTXt", b"x\0\0" + zlib.compress(bytes(2000))))
    with pytest.raises(DatasetError, match="text in the picture unpacks") as raised:
        examine(path)
    assert raised.value.do == "Save it without metadata."


@pytest.mark.parametrize("name", ["a.ppm", "a.qoi", "a.pgm", "a.pbm", "a.pnm"])
def test_formats_of_other_programs_open_with_their_colours(tmp_path, name):
    mode = {"a.pgm": "L", "a.pbm": "1"}.get(name, "RGB")
    made.painted(48, 32, mode=mode).save(tmp_path / name, "QOI" if name == "a.qoi" else "PPM")
    assert np.array_equal(
        np.asarray(open_picture(tmp_path / name)), np.asarray(made.painted(48, 32, mode=mode).convert("RGB"))
    )
    assert pictures.promises(name)


def test_a_dark_grey_map_of_16_bits_stays_dark(tmp_path):
    """Its range is known from its header, not to be guessed from its brightest value."""
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + b"\0\xff\0\x80")
    assert np.asarray(open_picture(tmp_path / "a.pgm"))[0].tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("a.png", b"\xff\x0a" + bytes(20), "JPEG XL"),
        ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("a.jpg", b"8BPS\0\x01", "Photoshop"),
        ("a.pfm", b"PF\n1 1\n-1.0\n" + bytes(12), "PFM"),
    ],
)
def test_a_format_that_is_not_read_is_named_by_its_content(tmp_path, name, content, kind):
    """A phone's HEIC under the name of a JPEG was called damaged."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(pictures.NotAPicture, match=f"{kind} files are not supported") as raised:
        examine(tmp_path / name)
    assert "Export it as PNG" in raised.value.do
