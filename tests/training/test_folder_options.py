"""What folders' options do to a run: weights, noise levels, class pictures."""

import shutil

import pytest
import torch

from lora_studio import adapters
from lora_studio.dataset import preparation
from lora_studio.dataset.items import Draw
from lora_studio.dataset.preparation import FolderOptions, Preparation
from lora_studio.errors import DatasetError
from lora_studio.events import Started
from lora_studio.training import reading
from lora_studio.training.loop import train
from lora_studio.training.prepare import prepare
from tests.dataset import made


@pytest.fixture
def style(tmp_path):
    """Two pictures, and two others in a folder of their own."""
    folder = made.style_folder(tmp_path / "style", 2)
    for index in (2, 3):
        (folder / "1_more").mkdir(exist_ok=True)
        made.painted(seed=index).save(folder / "1_more" / f"{index}.png")
        (folder / "1_more" / f"{index}.txt").write_text(f"more {index}")
    return folder


@pytest.fixture
def optioned(settings, style):
    """Settings of a run on ``style`` whose second folder has options."""

    def make(**options):
        preparation.write(style, Preparation(folders={"1_more": FolderOptions(**options)} if options else {}))
        return settings.changed(data=str(style), validation_share=0.0, preview_every=0, checkpoint_every=0)

    return make


def prepared(run):
    preparing = prepare(run, run.settings())
    while True:
        try:
            next(preparing)
        except StopIteration as stop:
            return stop.value


def same(one, other) -> bool:
    """Whether two batches are equal to the bit."""
    mine, theirs = one.tensors(), other.tensors()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def learned(run) -> dict[str, torch.Tensor]:
    factors = adapters.read(run.adapter_file).factors
    return {f"{path} {part}": getattr(one, part) for path, one in factors.items() for part in ("up", "down")}


def more(session, draws):
    """Which of the draws are pictures of the second folder."""
    return [session.data.dataset.pictures[draw.picture].path.parent.name == "1_more" for draw in draws]


def test_noise_levels_are_those_of_the_folder_and_nothing_else_changes(new_run, optioned):
    plain = prepared(new_run(optioned()))
    limited = prepared(new_run(optioned(timesteps=(900, 1000))))
    seen = []
    for number in range(20):
        one, other = plain.data.batches.draw(number), limited.data.batches.draw(number)
        of_more = torch.tensor(more(limited, limited.data.batches.sampler.draw(number)))
        assert same(one._replace(timesteps=other.timesteps), other)
        assert torch.equal(one.timesteps[~of_more], other.timesteps[~of_more])
        seen += other.timesteps[of_more].tolist()
    assert len(seen) > 10 and 900 <= min(seen) and max(seen) <= 999 and len(set(seen)) > 5
    at = limited.data.batches.at([Draw(0), Draw(3)], torch.tensor([500, 500]), torch.Generator().manual_seed(0))
    assert at.timesteps.tolist() in ([500, 950], [950, 500])


def test_a_folder_is_trained_at_its_noise_levels_within_those_of_the_run(new_run, optioned):
    """Validation keeps to the folder's alone."""
    settings = optioned(timesteps=(0, 500)).changed(timestep_from=0.4, timestep_to=0.9, timestep_bias="noise")
    session = prepared(new_run(settings))
    batches, seen = session.data.batches, {True: set(), False: set()}
    for number in range(20):
        of_more = more(session, batches.sampler.draw(number))
        for is_more, timestep in zip(of_more, batches.draw(number).timesteps.tolist(), strict=True):
            seen[is_more].add(timestep)
    assert 400 <= min(seen[True]) and max(seen[True]) < 500 and 400 <= min(seen[False]) and 600 < max(seen[False]) < 900
    at = batches.at([Draw(0), Draw(3)], torch.tensor([990, 990]), torch.Generator().manual_seed(0))
    assert sorted(at.timesteps.tolist()) == [495, 990]


def test_a_folder_without_a_noise_level_in_common_with_the_run_is_named(new_run, optioned):
    settings = optioned(timesteps=(0, 500)).changed(timestep_from=0.5)
    with pytest.raises(DatasetError, match=r"noise levels, 0 to 0.5 .* outside .* 0.5 to 1. \[.*1_more\]"):
        prepared(new_run(settings))


def test_a_folders_weight_multiplies_the_loss_of_its_pictures_but_not_in_validation(new_run, optioned):
    plain, weighted = prepared(new_run(optioned())), prepared(new_run(optioned(weight=0.25)))
    for number in range(4):
        one, other = plain.data.batches.draw(number), weighted.data.batches.draw(number)
        factors = [0.25 if is_more else 1.0 for is_more in more(weighted, weighted.data.batches.sampler.draw(number))]
        assert other.weights.flatten().tolist() == factors and other.weights.shape == (2, 1, 1, 1)
        assert one.weights is None and same(other._replace(weights=None), one)
    draws = [Draw(index) for index in range(4)]
    assert weighted.data.batches.at(draws, torch.tensor([1] * 4), torch.Generator()).weights is None


def test_a_folders_weight_multiplies_its_masks_too(new_run, optioned, style):
    made.painted(seed=9, mode="L").point(lambda level: 255 * (level > 128)).save(style / "1_more" / "2-masklabel.png")
    plain, weighted = prepared(new_run(optioned())), prepared(new_run(optioned(weight=3.0)))
    for number in range(4):
        factors = [3.0 if is_more else 1.0 for is_more in more(weighted, weighted.data.batches.sampler.draw(number))]
        expected = plain.data.batches.draw(number).weights * torch.tensor(factors).view(-1, 1, 1, 1)
        assert torch.equal(weighted.data.batches.draw(number).weights, expected)


def test_a_folder_without_weight_is_as_if_it_were_not_there(new_run, optioned, style):
    def result(settings):
        run = new_run(settings)
        list(train(run, run.settings()))
        return learned(run)

    weightless = result(optioned(weight=0.0))
    shutil.rmtree(style / "1_more")
    absent = result(optioned())
    assert weightless.keys() == absent.keys() and all(torch.equal(weightless[key], absent[key]) for key in absent)


def test_class_pictures_are_counted_apart_and_have_no_trigger_word(new_run, optioned):
    settings = optioned(regularisation=True, weight=0.5, prefix="photo,").changed(validation_share=0.5)
    run = new_run(settings)
    started = next(event for event in train(run, settings) if isinstance(event, Started))
    assert (started.images, started.validation_images, started.class_images) == (2, 0, 2)
    session = prepared(new_run(settings))
    texts = dict(zip(session.data.dataset.pictures, reading.variants(session.data.dataset, settings), strict=True))
    assert {picture.path.name: text for picture, [text] in texts.items()} == {
        "0.png": "discstyle, thing 0, ink, paper",
        "1.png": "discstyle, thing 1, ink, paper",
        "2.png": "photo, more 2",
        "3.png": "photo, more 3",
    }
    draws = [draw for step in range(2) for draw in session.data.batches.sampler.draw(step)]
    assert sorted(draw.picture for draw in draws) == [0, 1, 2, 3]
