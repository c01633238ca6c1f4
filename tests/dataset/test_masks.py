"""Masks beside pictures: never trained on as pictures, and scaled, cropped and mirrored as their pictures are."""

import pytest
import torch
from PIL import Image

from lora_studio.dataset import framing, masks, preparation
from lora_studio.dataset.cache import Cache
from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import PLAIN, Alteration, Bucket, Draw, Sample
from lora_studio.dataset.manifest import changes, manifest
from lora_studio.dataset.preparation import Crop, Preparation
from lora_studio.errors import DatasetError
from tests.dataset import made
from tests.dataset.test_cache import FakeEncoder, entries


def halves(path, width=64, height=64, left=255, right=0, mode="L"):
    """A mask of two values."""
    mask = Image.new("L", (width, height), right)
    mask.paste(left, (0, 0, width // 2, height))
    mask.convert(mode).save(path)
    return path


@pytest.fixture
def style(tmp_path):
    """Two captioned pictures, the first with a mask."""
    folder = made.style_folder(tmp_path / "style", 2)
    halves(folder / "0-masklabel.png")
    return folder


def told(dataset):
    return {problem.what: problem.severity for problem in dataset.problems}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("a-masklabel.png", {"a": ["a-masklabel.png"]}),
        ("10_x/a.b-MaskLabel.PNG", {"10_x/a.b": ["10_x/a.b-MaskLabel.PNG"]}),
        ("-masklabel.png masklabel.png a-masklabel-2.png", {}),
        ("a.jpg a_mask.png", {"a": ["a_mask.png"]}),
        ("a.psd a-mask.webp", {"a": ["a-mask.webp"]}),
        ("a_mask.png b/a.png -mask.png", {}),
        ("a.png a_mask.png a_mask_mask.png", {"a": ["a_mask.png"]}),
        ("a.png masks/a.webp 3_x/Mask/b.png", {"a": ["masks/a.webp"], "3_x/b": ["3_x/Mask/b.png"]}),
        ("a.png masks/a_mask.png masks/b-masklabel.png", {"a": ["masks/a_mask.png"], "b": ["masks/b-masklabel.png"]}),
        ("a_mask.png masks/a_mask.png", {"a_mask": ["masks/a_mask.png"]}),
        (
            "a.png mask/a.png masks/a.png a-mask.png a_mask.png a-masklabel.png a-masklabel.webp",
            {
                "a": "a-masklabel.png a-masklabel.webp a_mask.png a-mask.png masks/a.png mask/a.png".split(),
            },
        ),
    ],
)
def test_masks_are_known_by_the_names_of_three_programs(names, found):
    """Of several the one that counts comes first."""
    for order in (1, -1):
        assert masks.find(names.split()[::order]) == found


@pytest.mark.parametrize("picture", ["a.png", "3_x/a.b.jpeg"])
def test_the_mask_that_the_studio_writes_counts_before_others(picture):
    beside = masks.beside(picture)
    stem = picture.rpartition(".")[0]
    assert masks.find([picture, f"{stem}_mask.png", beside])[stem] == [beside, f"{stem}_mask.png"]


def test_masks_of_other_programs_are_used_and_named_where_there_are_several(tmp_path):
    for place in (tmp_path, tmp_path / "2_ink"):
        made.style_folder(place, 3)
        (place / "masks").mkdir()
        halves(place / "0_mask.png")
        halves(place / "masks" / "0.png")
        halves(place / "masks" / "1.jpg", 640, 640)
        halves(place / "masks" / "8.png")
    dataset = scan(tmp_path)
    assert [one.mask.path.relative_to(tmp_path).as_posix() if one.mask else "" for one in dataset.pictures] == [
        "0_mask.png", "masks/1.jpg", "", "2_ink/0_mask.png", "2_ink/masks/1.jpg", "",
    ]  # fmt: skip
    assert {what: severity for what, severity in told(dataset).items() if "mask" in what} == {
        "2 pictures have several masks, of which those in brackets are used: 0.png (0_mask.png), "
        "2_ink/0.png (2_ink/0_mask.png).": "warning",
        "2 masks have no picture: masks/8.png, 2_ink/masks/8.png.": "left out",
    }


def test_a_picture_that_is_called_a_mask_is_one_once_its_picture_lies_beside_it(tmp_path):
    """What is remembered of it from the first scan is enough for the second."""
    folder, cache = made.style_folder(tmp_path / "style", 1), tmp_path / "cache"
    Image.new("L", (64, 64)).save(folder / "venice_mask.png")
    assert [one.path.name for one in scan(folder, cache).pictures] == ["0.png", "venice_mask.png"]
    made.painted(seed=3).save(folder / "venice.png")
    dataset = scan(folder, cache)
    assert [one.path.name for one in dataset.pictures] == ["0.png", "venice.png"]
    assert "1 mask is all black, so nothing of its picture is learned: venice_mask.png." in told(dataset)


@pytest.mark.fault(83)
@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (64, 64)), True),
        (Image.new("RGBA", (64, 64), (255, 255, 255, 0)), True),
        (Image.new("L", (64, 64), 1), True),
        (Image.new("L", (64, 64), 16), False),
    ],
    ids=["black", "transparent", "1 for white", "dark"],
)
def test_a_mask_that_hides_all_of_its_picture_is_named(style, tmp_path, mask, said):
    """A picture of which nothing is learned takes part in training, at a loss of zero."""
    mask.save(style / "1-masklabel.png")
    what = "1 mask is all black, so nothing of its picture is learned: 1-masklabel.png."
    for _ in ("read", "remembered"):
        assert (told(scan(style, tmp_path / "cache")).get(what) == "warning") is said


@pytest.mark.fault(83)
def test_masks_are_no_pictures_and_those_of_none_are_named(style):
    halves(style / "0-condlabel.png")
    halves(style / "9-masklabel.png")
    dataset = scan(style)
    assert [dataset.name(picture) for picture in dataset.pictures] == ["0.png", "1.png"]
    assert dataset.pictures[0].mask.path.name == "0-masklabel.png" and dataset.pictures[1].mask is None
    assert told(dataset) == {
        "1 mask has no picture: 9-masklabel.png.": "left out",
        "1 conditioning picture is not used: 0-condlabel.png.": "left out",
    }


def test_a_folder_of_masks_alone_holds_no_picture(tmp_path):
    halves(tmp_path / "0-masklabel.png")
    assert "no picture" in scan(tmp_path).blocking[0].what


@pytest.mark.fault(83)
def test_a_mask_that_cannot_be_used_is_named(style):
    halves(style / "0-masklabel.png", 64, 32)
    (style / "1-masklabel.png").write_bytes(b"words")
    dataset = scan(style)
    assert [picture.mask for picture in dataset.pictures] == [None, None]
    said = " ".join(told(dataset))
    assert "1 mask has another shape than its picture and is not used: 0-masklabel.png." in said
    assert "1 picture's mask cannot be read, so all of it is learned: 1.png." in said


def test_masks_in_repeat_folders_belong_to_their_pictures(tmp_path):
    for name in ("3_a", "2_b"):
        made.style_folder(tmp_path / name, 1)
    halves(tmp_path / "3_a" / "0-masklabel.png")
    dataset = scan(tmp_path)
    assert {dataset.name(one): one.mask is not None for one in dataset.pictures} == {
        "2_b/0.png": False,
        "3_a/0.png": True,
    }


def test_accents_of_a_mask_may_be_spelled_in_two_ways(tmp_path):
    """macOS decomposes the names of files."""
    made.painted().save(tmp_path / "café.png")
    halves(tmp_path / "cafe\u0301-masklabel.png")
    assert scan(tmp_path).pictures[0].mask is not None


def test_another_mask_is_a_change(style):
    before = manifest(scan(style))
    assert changes(before, manifest(scan(style))) == []
    halves(style / "0-masklabel.png", left=128)
    halves(style / "1-masklabel.png")
    assert changes(before, manifest(scan(style))) == ["0.png has a different mask.", "1.png has a different mask."]


@pytest.mark.parametrize(
    ("bucket", "flip", "row"),
    [
        (Bucket(64, 64), False, [255, 255, 255, 255, 0, 0, 0, 0]),
        (Bucket(64, 64), True, [0, 0, 0, 0, 255, 255, 255, 255]),
        # 128 × 64 is cropped to its middle: the seam stays in the middle
        (Bucket(32, 32), False, [255, 255, 0, 0]),
    ],
)
@pytest.mark.parametrize("size", [(128, 64), (1280, 640)])
def test_a_mask_is_cropped_as_its_picture(bucket, flip, row, size):
    """Whatever its own resolution."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    fitted = framing.fit_mask(mask, bucket, (bucket.width // 8, bucket.height // 8), Alteration(flip))
    assert [fitted.getpixel((x, 1)) for x in range(fitted.width)] == row


class Inpainting(FakeEncoder):
    """A mask is shown as it is, in place of the first of three colours."""

    inpaints = True

    def encode_masked(self, pixels, masks):
        self.images.append(tuple(pixels.shape))
        return torch.nn.functional.avg_pool2d(torch.cat([masks, pixels[:, 1:]], dim=1), 8)


def cache_of(style, folder, encoder=FakeEncoder, copies=(PLAIN,), **options):
    samples = [
        Sample(picture, Bucket(64, 64), [picture.caption], [picture.caption], copies)
        for picture in scan(style).pictures
    ]
    cache = Cache(folder, encoder(), samples, **options)
    stages = [stage for stage, done, _ in cache.fill() if not done]
    return cache, stages


@pytest.mark.fault(83)
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "1"])
def test_the_cache_gives_masks_at_the_size_of_the_latents(style, tmp_path, mode):
    halves(style / "0-masklabel.png", 128, 128, mode=mode)
    cache, stages = cache_of(style, tmp_path / "cache")
    draws = [Draw(0), Draw(0, flip=True), Draw(1)]
    found = cache.masks(draws, cache.latents(draws))
    assert stages == ["pictures", "masks", "captions"] and found.dtype == torch.float32 and found.shape == (3, 1, 8, 8)
    assert found[:, 0, 5].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1] * 8]


def test_masks_follow_their_copies_and_colours_need_no_masks_of_their_own(style, tmp_path):
    """Its left half is white; of its middle half, moved to the left, three quarters."""
    halves(style / "0-masklabel.png", 128, 128)
    copies = [PLAIN, Alteration(cut=0.5, across=-0.5), Alteration(hue=90), Alteration(rotation=45)]
    cache, _ = cache_of(style, tmp_path / "cache", copies=copies)
    draws = [Draw(0, copy=copy) for copy in range(4)]
    found = cache.masks([*draws, Draw(0, flip=True, copy=1)], cache.latents([*draws, draws[0]]))[:, 0]
    assert found[1, 5].tolist() == [1, 1, 1, 1, 1, 1, 0, 0] and torch.equal(found[2], found[0])
    assert found[4, 5].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert (found[3, 0, 0], found[3, 7, 7]) == (pytest.approx(0.5, abs=0.2),) * 2
    assert (found[3, 7, 0], found[3, 0, 7]) == (1, 0)
    assert len(entries(tmp_path / "cache" / "masks")) == 3 * 2


def test_grey_is_a_share_and_what_is_transparent_is_not_learned(style, tmp_path):
    halves(style / "0-masklabel.png", left=51)
    clear = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    clear.save(style / "1-masklabel.png")
    cache, _ = cache_of(style, tmp_path / "cache")
    found = cache.masks([Draw(0), Draw(1)], torch.zeros(2, 4, 8, 8))
    assert found[0, 0, 0].tolist() == pytest.approx([0.2] * 4 + [0] * 4) and found[1].sum() == 0


def test_without_masks_nothing_is_encoded_or_drawn(style, tmp_path):
    cache, stages = cache_of(style, tmp_path / "cache", masks=False)
    assert stages == ["pictures", "captions"] and cache.masks([Draw(0)], torch.zeros(1, 4, 8, 8)) is None
    (style / "0-masklabel.png").unlink()
    assert cache_of(style, tmp_path / "cache")[0].masks([Draw(0)], torch.zeros(1, 4, 8, 8)) is None


def test_a_changed_mask_is_encoded_again_and_its_picture_is_not(style, tmp_path):
    cache_of(style, tmp_path / "cache")
    before = len(entries(tmp_path / "cache"))
    halves(style / "0-masklabel.png", left=102)
    cache, _ = cache_of(style, tmp_path / "cache")
    assert cache.encoder.images == [] and len(entries(tmp_path / "cache")) == before + 2
    assert cache.masks([Draw(0)], torch.zeros(1, 4, 8, 8))[0, 0, 0, 0] == pytest.approx(0.4)


def test_models_that_inpaint_are_shown_masked_pictures(style, tmp_path):
    """Mirrored with their pictures; what has no mask is white."""
    cache, stages = cache_of(style, tmp_path / "cache", Inpainting)
    draws = [Draw(0), Draw(0, flip=True), Draw(1)]
    shown, latents = cache.inpainting(draws), cache.latents(draws)
    assert stages == ["pictures", "masks", "masked pictures", "captions"] and shown.dtype == torch.float32
    assert shown[:, 0, 5].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1] * 8]
    assert torch.allclose(shown[:2, 1:], latents[:2, 1:3], atol=1e-6)


def test_masked_pictures_are_encoded_once_for_each_picture_and_mask(style, tmp_path):
    """Pictures without a mask share one for each bucket, which says the same of all."""
    cache, _ = cache_of(style, tmp_path / "cache", Inpainting)
    assert cache.encoder.images == [(4, 3, 64, 64), (3, 3, 64, 64)]
    assert cache_of(style, tmp_path / "cache", Inpainting)[0].encoder.images == []
    halves(style / "0-masklabel.png", left=204, right=255)
    again, _ = cache_of(style, tmp_path / "cache", Inpainting)
    assert again.encoder.images == [(2, 3, 64, 64)]
    assert again.inpainting([Draw(0)])[0, 0, 0].tolist() == pytest.approx([0.8] * 4 + [1] * 4)


def test_masked_pictures_follow_the_crop(style, tmp_path):
    """The left half of the mask is white, and of the crop of its middle half too."""
    before, _ = cache_of(style, tmp_path / "cache", Inpainting)
    preparation.write(style, Preparation({"0.png": Crop(0.25, 0.25, 0.75, 0.75), "1.png": Crop(0, 0, 0.5, 0.5)}))
    after, _ = cache_of(style, tmp_path / "cache", Inpainting)
    assert after.encoder.images == [(4, 3, 64, 64), (2, 3, 64, 64)], "without a mask nothing of a picture is shown"
    draws = [Draw(0), Draw(0, flip=True)]
    shown, latents = after.inpainting(draws), after.latents(draws)
    assert shown[:, 0, 5].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]
    assert torch.allclose(shown[:, 1:], latents[:, 1:3], atol=1e-6)
    assert not torch.allclose(shown[:, 1:], before.inpainting(draws)[:, 1:], atol=0.05)


@pytest.mark.parametrize(("encoder", "masks"), [(FakeEncoder, True), (Inpainting, False)])
def test_no_masked_picture_is_encoded_for_other_models_and_without_masks(style, tmp_path, encoder, masks):
    cache, stages = cache_of(style, tmp_path / "cache", encoder, masks=masks)
    assert "masked pictures" not in stages and cache.inpainting([Draw(0)]) is None


def test_a_mask_that_changes_while_the_run_begins_stops_it(style, tmp_path):
    samples = [Sample(picture, Bucket(64, 64), [""]) for picture in scan(style).pictures]
    halves(style / "0-masklabel.png", left=102)
    with pytest.raises(DatasetError, match="changed after the folder was read"):
        list(Cache(tmp_path / "cache", FakeEncoder(), samples).fill())
