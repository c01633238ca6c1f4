"""The cache: encoded once, never out of date, never torn, and drawn as it was encoded."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lora_studio.dataset import buckets, cache, encoding, entry_files
from lora_studio.dataset.cache import Cache, Limits
from lora_studio.dataset.entry_files import prune
from lora_studio.dataset.folder import scan
from lora_studio.dataset.items import PLAIN, Alteration, Bucket, Draw, Sample
from lora_studio.dataset.pictures import open_picture
from lora_studio.dataset.preparation import Crop
from lora_studio.errors import DatasetError, MachineError, ModelError
from tests.dataset import made


class FakeEncoder:
    """Latents are the picture at an eighth of its size; text features are the letters. It keeps count of what it was
    asked.
    """

    scale, inpaints = 8, False

    def __init__(self, fingerprint: str = "one", long: bool = False):
        self.fingerprint, self.images, self.texts, self.long = fingerprint, [], [], long

    sequences = ("hidden",)

    def reading(self, text, prompts=False):
        """Chunks of eight letters; of captions at most two."""
        count = max(1, -(-len(text) // 8)) if prompts else max(1, min(2, -(-len(text) // 8)))
        return (count,) if count > 1 and self.long else ()

    def encode_text(self, captions, prompts=False):
        self.texts.append(list(captions))
        [count] = {(self.reading(caption, prompts) or (1,))[-1] for caption in captions}
        letters = torch.tensor(
            [[ord(letter) for letter in caption.ljust(8 * count)[: 8 * count]] for caption in captions],
            dtype=torch.bfloat16,
        )
        return {"hidden": letters[:, :, None].repeat(1, 1, 2), "pooled": letters.float().mean(1, keepdim=True)}

    def encode_images(self, pixels):
        assert pixels.dtype == torch.float32 and pixels.min() >= -1 and pixels.max() <= 1
        self.images.append(tuple(pixels.shape))
        small = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([small, small[:, :1]], dim=1), torch.full((len(pixels), 4, *small.shape[2:]), 0.25)


@pytest.fixture
def dataset(tmp_path):
    """Two square pictures and a wide one."""
    folder = made.style_folder(tmp_path / "style", 2)
    made.painted(192, 64, seed=7).save(folder / "wide.png")
    (folder / "wide.txt").write_text("wide")
    return scan(folder)


def cached(dataset, folder, encoder, flip=False, copies=(PLAIN,), **options) -> Cache:
    samples = [
        Sample(picture, bucket, texts := [picture.caption, picture.caption[::-1]], texts * flip, copies)
        for picture, bucket in zip(dataset.pictures, buckets.assign(dataset.pictures, 128, 64, 1.5), strict=True)
    ]
    return Cache(folder, encoder, samples, **options)


def filled(*arguments, **options) -> Cache:
    made = cached(*arguments, **options)
    list(made.fill())
    return made


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_filling_tells_its_progress_and_batches_by_bucket(dataset, tmp_path):
    encoder = FakeEncoder()
    progress = list(cached(dataset, tmp_path / "cache", encoder).fill())
    assert progress == [
        ("pictures", 0, 3),
        ("pictures", 2, 3),
        ("pictures", 3, 3),
        ("captions", 0, 7),
        ("captions", 7, 7),
    ]
    assert encoder.images == [(2, 3, 64, 64), (1, 3, 64, 192)] and len(encoder.texts[0]) == 7 and "" in encoder.texts[0]


@pytest.mark.parametrize("memory", [Limits().memory, 0, 5000])
def test_what_is_drawn_is_what_was_encoded_from_memory_and_from_disk(dataset, tmp_path, memory):
    made = filled(dataset, tmp_path / "cache", FakeEncoder(), limits=Limits(memory=memory))
    picture = torch.tensor(list(folder_pixels(dataset, 0))).reshape(64, 64, 3).permute(2, 0, 1).float() / 127.5 - 1
    x0 = made.latents([Draw(0), Draw(1), Draw(0)])
    assert x0.shape == (3, 4, 8, 8) and x0.dtype == torch.float32
    assert torch.equal(x0[0, :3], torch.nn.functional.avg_pool2d(picture[None], 8)[0]) and torch.equal(x0[0], x0[2])
    text = made.text([Draw(0, variant=1), Draw(1, drop_caption=True)])
    assert (
        text["hidden"].dtype == torch.bfloat16 and text["hidden"].shape == (2, 8, 2) and text["pooled"].shape == (2, 1)
    )
    assert "".join(chr(int(letter)) for letter in text["hidden"][0, :, 0]) == dataset.pictures[0].caption[::-1][:8]
    assert (text["hidden"][1] == 32).all()
    assert made.captions([Draw(0, variant=1), Draw(1), Draw(0, drop_caption=True)]) == [
        dataset.pictures[0].caption[::-1],
        dataset.pictures[1].caption,
        "",
    ]


def test_a_short_text_is_filled_up_beside_a_long_one_and_the_zero_one_with_zeros(dataset, tmp_path):
    """Captions here have up to two chunks of eight letters, prompts as many as they need."""
    encoder = FakeEncoder(long=True)
    made = filled(dataset, tmp_path / "cache", encoder, prompts=["ink", "a prompt of thirty-two letters.."])
    words = dataset.pictures[0].caption
    assert len(words) > 16 and made.length(made.captions([Draw(0), Draw(1, drop_caption=True)])) == 2
    assert made.length([""]) == 1
    text = made.text([Draw(0), Draw(1, drop_caption=True)])
    assert text["hidden"].shape == (2, 16, 2) and text["pooled"].shape == (2, 1)
    assert "".join(map(chr, text["hidden"][0, :, 0].int())) == words[:16], "cut at the limit of captions"
    assert made.text([Draw(1, drop_caption=True)])["hidden"].shape == (1, 8, 2), "alone it is not filled up"
    prompts = made.features(["ink", "a prompt of thirty-two letters.."])
    assert "".join(map(chr, prompts["hidden"][1, :, 0].int())) == "a prompt of thirty-two letters.."
    assert "".join(map(chr, prompts["hidden"][0, :, 0].int())) == "ink" + " " * 29
    assert made.features(["ink"], 3)["hidden"].shape == (1, 24, 2)
    zero, filler = torch.zeros(8, 2), torch.ones(8, 2)
    assert not cache._lengthened(zero, filler, 16).any() and cache._lengthened(filler, filler, 24).sum() == 48
    again = FakeEncoder(long=True)
    filled(dataset, tmp_path / "cache", again, prompts=["ink", "a prompt of thirty-two letters.."])
    assert not again.texts, "all of it is kept"


def folder_pixels(dataset, index):
    return open_picture(dataset.pictures[index].path).tobytes()


def test_latents_are_sampled_with_the_given_generator(dataset, tmp_path):
    made = filled(dataset, tmp_path / "cache", FakeEncoder())
    draws = [Draw(0), Draw(1)]
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(made.latents(draws, torch.Generator().manual_seed(3)), made.latents(draws) + 0.25 * noise)


def test_mirrored_pictures_are_encoded_mirrored_and_only_if_asked(dataset, tmp_path):
    made = filled(dataset, tmp_path / "cache", FakeEncoder(), flip=True)
    assert torch.allclose(made.latents([Draw(0, flip=True)]), made.latents([Draw(0)]).flip(-1), atol=1e-6)
    assert len(entries(tmp_path / "cache" / "latents")) == 6
    with pytest.raises(KeyError):
        filled(dataset, tmp_path / "other", FakeEncoder()).latents([Draw(0, flip=True)])


CUT = Alteration(cut=0.5, across=-1, down=-1)


def test_copies_are_encoded_as_altered_and_once(dataset, tmp_path):
    """The unaltered one has the entry that it has without copies."""
    before = set(entries(tmp_path / "cache")) | set(entries(filled(dataset, tmp_path / "cache", FakeEncoder()).folder))
    copies = [PLAIN, CUT, Alteration(brightness=0.5)]
    made, encoder = filled(dataset, tmp_path / "cache", FakeEncoder(), flip=True, copies=copies), FakeEncoder()
    assert before < set(entries(tmp_path / "cache")) and len(made.encoder.images) == 2
    assert len(entries(tmp_path / "cache" / "latents")) == 3 * 3 * 2 and len(made.encoder.texts) == 0
    filled(dataset, tmp_path / "cache", encoder, flip=True, copies=copies)
    assert encoder.images == []
    plain, cut, dark, turned = made.latents([Draw(0), Draw(0, copy=1), Draw(0, copy=2), Draw(0, True, copy=1)])
    assert torch.allclose(dark, (plain + 1) / 2 - 1, atol=1e-6)
    assert torch.allclose(turned, cut.flip(-1), atol=1e-6)
    corner = open_picture(dataset.pictures[0].path).crop((0, 0, 32, 32)).resize((64, 64), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(corner)).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.allclose(cut[:3], torch.nn.functional.avg_pool2d(pixels, 8), atol=0.02)
    assert made.sizes([Draw(0, copy=1)]).tolist() == [[64, 64, 0, 0, 64, 64]]
    right = filled(dataset, tmp_path / "cache", FakeEncoder(), copies=[PLAIN, CUT._replace(across=1)])
    assert right.sizes([Draw(0, copy=1)]).tolist() == [[64, 64, 0, 64, 64, 64]]


def test_a_mirrored_picture_comes_with_its_own_captions(dataset, tmp_path):
    samples = [
        Sample(picture, Bucket(64, 64), ["left", "a"], ["right", "a"] if index else [])
        for index, picture in enumerate(dataset.pictures)
    ]
    made = Cache(tmp_path / "cache", FakeEncoder(), samples)
    list(made.fill())
    draws = [Draw(1), Draw(1, flip=True), Draw(1, flip=True, variant=1), Draw(1, flip=True, drop_caption=True)]
    assert made.captions(draws) == ["left", "right", "a", ""]
    assert chr(int(made.text(draws)["hidden"][1, 0, 0])) == "r"
    with pytest.raises(KeyError):
        made.latents([Draw(0, flip=True)])


def test_sizes_are_sdxls(dataset, tmp_path):
    """Original height and width, crop's top and left in the scaled picture, target height and width."""
    assert cached(dataset, tmp_path, FakeEncoder()).sizes([Draw(0), Draw(2)]).tolist() == [
        [64, 64, 0, 0, 64, 64],
        [64, 192, 0, 0, 64, 192],
    ]
    made.painted(400, 100, seed=9).save(dataset.folder / "long.png")
    again = scan(dataset.folder)
    one = Cache(tmp_path, FakeEncoder(), [Sample(picture, Bucket(128, 64), [""]) for picture in again.pictures])
    assert one.sizes([Draw(2)]).tolist() == [[100, 400, 0, 64, 64, 128]]


def with_crop(dataset, crop):
    """``dataset``, whose wide picture has ``crop``."""
    *others, wide = dataset.pictures
    return replace(dataset, pictures=[*others, replace(wide, crop=crop)])


@pytest.mark.fault(95)
def test_a_crop_is_encoded_with_its_mask_and_only_what_it_changes(dataset, tmp_path):
    mask = Image.new("L", (192, 64))
    mask.paste(255, (96, 0, 192, 64))
    mask.save(dataset.folder / "wide-masklabel.png")
    dataset = scan(dataset.folder)
    filled(dataset, tmp_path / "cache", FakeEncoder())
    encoder = FakeEncoder()
    made_of = filled(with_crop(dataset, Crop(1 / 3, 0, 2 / 3, 1)), tmp_path / "cache", encoder)
    assert encoder.images == [(1, 3, 64, 64)] and not encoder.texts
    middle = np.array(open_picture(dataset.pictures[2].path).crop((64, 0, 128, 64)))
    pixels = torch.from_numpy(middle).permute(2, 0, 1).float() / 127.5 - 1
    x0 = made_of.latents([Draw(2)])
    assert torch.allclose(x0[0, :3], torch.nn.functional.avg_pool2d(pixels[None], 8)[0], atol=1e-5)
    assert made_of.masks([Draw(2)], x0)[0, 0].tolist() == [[0.0] * 4 + [1.0] * 4] * 8


def test_crops_of_one_shape_have_entries_of_their_own(dataset, tmp_path):
    left, right = (
        filled(with_crop(dataset, crop), tmp_path / "cache", FakeEncoder()).latents([Draw(2)])
        for crop in (Crop(0, 0, 1 / 3, 1), Crop(2 / 3, 0, 1, 1))
    )
    assert left.shape == right.shape and not torch.allclose(left, right, atol=0.05)


def test_sizes_take_an_artists_crop_for_a_picture_of_its_own(dataset, tmp_path):
    """SDXL would see offsets that it never trained with, or count a small crop of a large picture as sharp."""

    def sizes(crop):
        picture = replace(dataset.pictures[2], crop=crop)
        return Cache(tmp_path, FakeEncoder(), [Sample(picture, Bucket(128, 128), [""])]).sizes([Draw(0)]).tolist()

    assert sizes(Crop(0, 0, 1, 1)) == sizes(None) == [[64, 192, 0, 128, 128, 128]]
    assert sizes(Crop(1 / 3, 0, 2 / 3, 1)) == sizes(Crop(2 / 3, 0, 1, 1)) == [[64, 64, 0, 0, 128, 128]]
    assert sizes(Crop(0.5, 0.5, 1, 1)) == [[32, 96, 0, 128, 128, 128]]


def test_a_second_fill_encodes_nothing_and_another_model_everything(dataset, tmp_path):
    filled(dataset, tmp_path / "cache", FakeEncoder())
    again, other = FakeEncoder(), FakeEncoder("two")
    x0 = filled(dataset, tmp_path / "cache", again).latents([Draw(2)])
    assert again.images == again.texts == [] and x0.shape == (1, 4, 8, 24)
    filled(dataset, tmp_path / "cache", other)
    assert len(other.images) == 2 and len(entries(tmp_path / "cache")) == 20


def test_only_what_is_new_is_encoded_and_names_do_not_count(dataset, tmp_path):
    filled(dataset, tmp_path / "cache", FakeEncoder())
    os.rename(dataset.folder / "0.png", dataset.folder / "renamed.png")
    made.painted(seed=30).save(dataset.folder / "new.png")
    encoder = FakeEncoder()
    filled(scan(dataset.folder), tmp_path / "cache", encoder)
    assert encoder.images == [(1, 3, 64, 64)]


def test_copies_of_a_picture_and_equal_captions_are_encoded_once(tmp_path):
    folder = made.style_folder(tmp_path / "style", 1)
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "copy.txt").write_text((folder / "0.txt").read_text())
    encoder = FakeEncoder()
    one = filled(scan(folder), tmp_path / "cache", encoder)
    assert encoder.images == [(1, 3, 64, 64)] and len(encoder.texts[0]) == 3
    assert torch.equal(one.latents([Draw(0)]), one.latents([Draw(1)]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-3] + bytes((data[-3] ^ 1,)) + data[-2:],
        lambda data: b"\xff" * len(data),
        lambda data: data.replace(b"sha256", b"sha255"),
    ],
)
def test_damaged_entries_are_made_again(dataset, tmp_path, damage):
    """Torn, cut, grown or with one bit flipped: each is noticed by its own hash."""
    before = filled(dataset, tmp_path / "cache", FakeEncoder()).latents([Draw(0)])
    for path in entries(tmp_path / "cache"):
        path.write_bytes(damage(path.read_bytes()))
    encoder = FakeEncoder()
    again = filled(dataset, tmp_path / "cache", encoder, limits=Limits(memory=0))
    assert len(encoder.images) == 2 and len(encoder.texts[0]) == 7
    assert torch.equal(again.latents([Draw(0)]), before)


@pytest.mark.fault(21)
def test_a_picture_that_changed_since_the_scan_is_not_encoded_under_its_old_hash(dataset, tmp_path):
    made.painted(seed=99).save(dataset.folder / "1.png")
    with pytest.raises(DatasetError, match="changed") as raised:
        filled(dataset, tmp_path / "cache", FakeEncoder())
    assert raised.value.where.endswith("1.png")


def test_a_picture_that_vanished_is_named(dataset, tmp_path):
    (dataset.folder / "1.png").unlink()
    with pytest.raises(DatasetError, match="cannot be read") as raised:
        filled(dataset, tmp_path / "cache", FakeEncoder())
    assert raised.value.where.endswith("1.png")


def test_an_entry_that_vanishes_while_training_is_said(dataset, tmp_path):
    one = filled(dataset, tmp_path / "cache", FakeEncoder(), limits=Limits(memory=0))
    for path in entries(tmp_path / "cache"):
        path.unlink()
    with pytest.raises(DatasetError, match="missing or damaged"):
        one.latents([Draw(0)])


def test_features_that_are_not_numbers_are_refused_and_not_kept(dataset, tmp_path):
    """SDXL's own VAE overflows in fp16: training on such latents would only show a broken loss."""

    class Overflowing(FakeEncoder):
        def encode_images(self, pixels):
            mean, deviation = super().encode_images(pixels)
            return mean / 0, deviation

    with pytest.raises(ModelError, match="NaN or infinite") as raised:
        filled(dataset, tmp_path / "cache", Overflowing())
    assert raised.value.where.endswith(".png") and entries(tmp_path / "cache") == []


def test_a_full_disk_is_reported(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entry_files.files, "write", full)
    with pytest.raises(MachineError, match="disk is full"):
        filled(dataset, tmp_path / "cache", FakeEncoder())


def test_a_fill_that_is_left_in_the_middle_continues_later(dataset, tmp_path):
    for stage, done, _ in cached(dataset, tmp_path / "cache", FakeEncoder()).fill():
        if (stage, done) == ("pictures", 2):
            break
    encoder = FakeEncoder()
    filled(dataset, tmp_path / "cache", encoder)
    assert encoder.images == [(1, 3, 64, 192)]


def test_many_pictures_come_in_batches_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_PIXELS_AT_ONCE", 64 * 64 * 3)
    encoder = FakeEncoder()
    filled(scan(made.style_folder(tmp_path / "style", 8)), tmp_path / "cache", encoder)
    assert [shape[0] for shape in encoder.images] == [3, 3, 2]


def entry(folder, name, size, age, kind="latents"):
    path = folder / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_pruning_removes_the_least_recently_used_and_keeps_what_is_in_use(tmp_path):
    oldest, old, new = (
        entry(tmp_path, f"{name}.safetensors", 100, age) for name, age in (("a", 300), ("b", 200), ("c", 100))
    )
    assert prune(tmp_path, limit=300) == 0 and prune(tmp_path, limit=250, keep=[oldest]) == 100
    assert [path.exists() for path in (oldest, old, new)] == [True, False, True]
    assert prune(tmp_path, limit=0) == 200 and entries(tmp_path) == []


def test_the_base_models_pictures_count_and_go_with_the_rest(tmp_path):
    """Or the cache would grow beyond its limit with every prompt that is tried."""
    picture = entry(tmp_path, "a.png", 100, 300, kind="previews")
    used, text = (
        entry(tmp_path, "b.png", 100, 100, kind="previews"),
        entry(tmp_path, "c.safetensors", 100, 200, kind="text"),
    )
    assert prune(tmp_path, limit=200) == 100 and not picture.exists()
    assert prune(tmp_path, limit=100) == 100 and used.exists() and not text.exists()


@pytest.mark.fault(43)
def test_pruning_sweeps_what_a_killed_process_left_but_not_what_one_is_writing(tmp_path):
    (tmp_path / "latents").mkdir()
    orphan, held = (tmp_path / "latents" / f"a.safetensors.{process}.partial" for process in (2**22 + 1, os.getpid()))
    other = tmp_path / "scan.json"
    orphan.touch(), held.touch(), other.touch()
    prune(tmp_path, 100)
    assert held.exists() and other.exists() and not orphan.exists()


def test_a_fill_prunes_other_entries_and_never_its_own(dataset, tmp_path):
    filled(dataset, tmp_path / "cache", FakeEncoder("old"))
    filled(dataset, tmp_path / "cache", FakeEncoder("new"), limits=Limits(disk=0))
    assert len(entries(tmp_path / "cache")) == 10
    encoder = FakeEncoder("new")
    filled(dataset, tmp_path / "cache", encoder)
    assert encoder.images == []


def test_using_an_entry_makes_it_recent(dataset, tmp_path):
    filled(dataset, tmp_path / "cache", FakeEncoder())
    for path in entries(tmp_path / "cache"):
        os.utime(path, (1, 1))
    filled(dataset, tmp_path / "cache", FakeEncoder())
    assert all(time.time() - path.stat().st_mtime < 60 for path in entries(tmp_path / "cache"))
