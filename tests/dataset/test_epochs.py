"""A length in epochs as a number of steps."""

from pathlib import Path

import pytest
from PIL import Image

from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.dataset import epochs
from lora_studio.dataset.items import Picture
from lora_studio.errors import SettingsError
from lora_studio.runs import branching


def pictures(count: int, repeats: int = 1, class_pictures: int = 0) -> list[Picture]:
    return [
        Picture(Path(str(index)), "", repeats, 64, 64, str(index), regularisation=index >= count)
        for index in range(count + class_pictures)
    ]


@pytest.mark.parametrize(
    ("given", "changes", "steps"),
    [
        (pictures(20, 3), {"validation_share": 0}, 12 * 60),
        (pictures(20, 3), {"validation_share": 0.1}, 12 * 54),
        (pictures(20, 3), {"validation_share": 0, "batch": 2, "accumulate": 4}, 12 * 60 // 8),
        (pictures(5), {"validation_share": 0, "batch": 8}, 8),  # 60 / 8 = 7.5
        (pictures(5, class_pictures=2), {"validation_share": 0}, 12 * 10),  # as many class pictures as others
        (pictures(5, class_pictures=2), {"epochs": 0}, 1000),
    ],
)
def test_twelve_epochs(given, changes, steps):
    """epochs × pictures × repeats / (batch × accumulate), rounded up."""
    settings = epochs.settled(Settings(**{"epochs": 12} | changes), given)
    assert settings.run.steps == steps and settings.run.epochs == (0 if steps == 1000 else 12)
    assert epochs.settled(settings, given) == settings
    assert epochs.told(settings) == ("" if steps == 1000 else f"12 epochs are {steps} steps.")


def test_one_epoch_of_many_is_told_as_one():
    assert epochs.told(Settings(epochs=1, steps=1080)) == "1 epoch is 1,080 steps."


def test_more_steps_than_a_run_may_have_are_refused():
    with pytest.raises(SettingsError, match="epochs of these pictures are [0-9,]+ steps; a run has at most 1,000,000"):
        epochs.settled(Settings(epochs=100_000, validation_share=0), pictures(20))


def test_a_number_of_steps_takes_the_place_of_epochs():
    """For whoever resumes with other steps, tries a few, or lays a preset over a run's settings."""
    twelve = Settings(epochs=12, steps=1080)
    assert twelve.changed(steps=5).run.epochs == 0 and twelve.changed(rank=4).run.epochs == 12
    assert presets.layered("quick-look", [], twelve).run.epochs == 0
    assert presets.layered("quick-look", ["epochs=3"]).run.epochs == 3


def test_a_run_is_created_with_the_steps_of_its_epochs(tmp_path):
    """They stay those, whatever becomes of the pictures; a branch counts anew."""
    folder = tmp_path / "4_ink"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (64, 64), (80 * index, 0, 0)).save(folder / f"{index}.png")
    settings = Settings(data=str(tmp_path), epochs=5, validation_share=0, batch=2)
    run = branching.create(settings, tmp_path / "outputs")
    assert (run.settings().run.steps, run.settings().run.epochs) == (30, 5)
    assert branching.with_changes(run, {"device": "cpu"}).settings().run.steps == 30
