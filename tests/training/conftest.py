"""A tiny random model and six pictures, on which the real loop takes seconds."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lora_studio import runs
from lora_studio.config.settings import Settings
from tests.models import tiny


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A diffusers folder with SD 1.5's blocks and narrow layers."""
    return tiny.folder(tmp_path_factory.mktemp("base") / "tiny", tiny.SHALLOW)


@pytest.fixture(scope="session")
def deep_base(tmp_path_factory) -> Path:
    """A diffusers folder with SD 1.5's topology and narrow layers."""
    return tiny.folder(tmp_path_factory.mktemp("base") / "deep", "sd1")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Six captioned pictures of discs, two of them wide."""
    folder = tmp_path_factory.mktemp("pictures") / "discs"
    folder.mkdir()
    for index in range(6):
        size = (128, 64) if index > 3 else (64, 64)
        image = Image.new("RGB", size, (20 * index, 90, 200))
        ImageDraw.Draw(image).ellipse((8, 8, 56, 40 + 2 * index), fill=(250, 40 * index, 30))
        image.save(folder / f"disc{index}.png")
        (folder / f"disc{index}.txt").write_text(f"disc number {index}, blue paper")
    return folder


@pytest.fixture
def settings(tiny_base, pictures) -> Settings:
    """Four steps of the whole machinery."""
    return tiny_settings(tiny_base, pictures)


def tiny_settings(tiny_base: Path, pictures: Path) -> Settings:
    """The same, for runs that several tests share."""
    return Settings(
        data=str(pictures),
        base=str(tiny_base),
        name="discs",
        trigger="discstyle",
        resolution=64,
        steps=4,
        rank=2,
        alpha=2,
        batch=2,
        device="cpu",
        preview_prompts=["a disc"],
        preview_steps=1,
        preview_every=2,
        validate_every=2,
        checkpoint_every=2,
        validation_share=0.2,
        learning_rate=1e-2,
        max_upscale=1,
    )


@pytest.fixture
def new_run(tmp_path):
    """Makes runs in a fresh outputs folder."""
    return lambda settings: runs.create(settings, tmp_path / "outputs")
