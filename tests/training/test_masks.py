"""A run learns only what is white in its pictures' masks, in training and validation. Inpainting models see the
rest.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_studio import adapters
from lora_studio.dataset.items import Draw
from lora_studio.training.loop import train
from lora_studio.training.loss import losses
from lora_studio.training.prepare import prepare
from tests.dataset import made
from tests.models import tiny


@pytest.fixture
def masked(settings, tmp_path):
    """Settings of a run on two pictures, the first with a mask whose left half is white."""
    folder = made.style_folder(tmp_path / "style", 2)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(folder / "0-masklabel.png")
    return settings.changed(data=str(folder), validation_share=0.0)


def prepared(run):
    preparing, told = prepare(run, run.settings()), []
    while True:
        try:
            told.append(next(preparing))
        except StopIteration as stop:
            return stop.value, told


@pytest.mark.fault(83)
def test_the_loss_of_a_run_counts_what_is_white(new_run, masked):
    session, _ = prepared(new_run(masked))
    draws, timesteps = [Draw(0), Draw(1)], session.base.process.draw(2, torch.Generator().manual_seed(0))
    batch = session.data.batches.at(draws, timesteps, torch.Generator().manual_seed(0))
    scale = batch.weights.max().item()
    assert scale == pytest.approx(1 / 0.75), "a half and a whole picture are learned, on average three quarters"
    assert batch.weights[:, 0, 0].tolist() == [[scale] * 4 + [0] * 4, [scale] * 8]
    assert session.data.batches.draw(0).weights.shape == (2, 1, 8, 8) and batch.inpainting is None
    with torch.no_grad():
        found = losses(session.base, batch, batch.text, masked.loss)
        halves = [batch._replace(weights=mask) for mask in (scale - batch.weights, None)]
        rest, whole = (losses(session.base, one, batch.text, masked.loss) for one in halves)
    whole = scale * whole
    assert found[0] + rest[0] == pytest.approx(whole[0]) and 0 < found[0] < whole[0]
    assert found[1] == pytest.approx(whole[1]) and rest[1] == 0


def test_a_run_with_masks_off_learns_whole_pictures(new_run, masked):
    session, _ = prepared(new_run(masked.changed(masks=False)))
    assert session.data.batches.draw(0).weights is None


def test_an_inpainting_model_sees_what_is_black(new_run, masked, tiny_base, tmp_path):
    """Its nine channels: noisy latents, the mask, and the latents of the picture with grey where the mask is white."""
    wide = tiny.inpainting(tmp_path / "inpainting", tiny_base)
    session, _ = prepared(new_run(masked.changed(base=str(wide), flip=True)))
    base, seen = session.base, []
    draws, timesteps = [Draw(0), Draw(0, flip=True), Draw(1)], torch.tensor([20, 500, 900])
    batch = session.data.batches.at(draws, timesteps, torch.Generator().manual_seed(0))
    base.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        losses(base, batch, batch.text, masked.loss)
        picture = torch.from_numpy(np.array(Image.open(tmp_path / "style" / "0.png"))).permute(2, 0, 1) / 127.5 - 1
        picture[:, :, :32] = 0
        pixels = torch.stack([picture, picture.flip(-1), torch.zeros_like(picture)])
        hidden = base.vae.encode(pixels).latent_dist.mode() * base.vae.config.scaling_factor
    [given] = seen
    assert given.shape == (3, 9, 8, 8)
    assert torch.equal(given[:, :4], base.process.add_noise(batch.x0, batch.noise, timesteps))
    assert given[:, 4, 0].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1] * 8]
    assert torch.allclose(given[:, 5:], hidden, atol=1e-5) and not torch.allclose(hidden[0], hidden[2], atol=0.01)
    assert torch.equal(batch.weights > 0, given[:, 4:5] > 0)


def test_nothing_is_learned_of_what_is_black(new_run, masked):
    """The target there does not matter: with the model's input held equal, another target under the mask gives the
    same gradient to the bit, and another one beside it does not.
    """
    session, _ = prepared(new_run(masked))
    flat, batch = session.stepper.flat, session.data.batches.draw(0)
    flat.values.add_(0.05 * torch.randn(len(flat.values), generator=torch.Generator().manual_seed(1)))
    flat.sync_copies()
    process, given = session.base.process, session.base.process.target

    def gradient(changed):
        """With the target changed where ``changed``, (B, 1, h, w), is 1."""
        process.target = lambda *parts: given(*parts) + 3 * changed
        flat.zero_grad()
        session.stepper.backward(batch)
        return flat.gradients.clone()

    black = (batch.weights == 0).float()
    assert 0 < black.mean() < 1
    before = gradient(torch.zeros_like(black))
    assert before.any() and torch.equal(gradient(black), before)
    assert not torch.equal(gradient(1 - black), before)


@pytest.mark.parametrize("balance", ["area", "picture"])
def test_white_masks_change_no_bit_of_a_run(new_run, masked, tmp_path, balance):
    for name in ("0", "1"):
        Image.new("L", (64, 64), 255).save(tmp_path / "style" / f"{name}-masklabel.png")
    settings = masked.changed(preview_every=0, checkpoint_every=0, mask_balance=balance, mask_outside=0.3)

    def learned(settings):
        run = new_run(settings)
        list(train(run, run.settings()))
        return torch.cat([one.up.flatten() for one in adapters.read(run.adapter_file).factors.values()])

    with_masks = learned(settings)
    assert with_masks.any() and torch.equal(with_masks, learned(settings.changed(masks=False)))


def test_pictures_have_the_weight_of_whole_ones_on_average_or_each(new_run, masked):
    """Half of the first is learned and all of the second, which comes up three times as often."""
    folder = Path(masked.run.data)
    (folder / "3_more").mkdir()
    for name in ("1.png", "1.txt"):
        (folder / name).rename(folder / "3_more" / name)

    def means(**changes):
        session, _ = prepared(new_run(masked.changed(**changes)))
        names = [picture.path.name for picture in session.data.dataset.pictures]
        draws = [Draw(names.index("0.png")), Draw(names.index("1.png"))]
        batch = session.data.batches.at(draws, torch.tensor([5, 5]), torch.Generator())
        return batch.weights.mean(dim=(1, 2, 3)).tolist()

    average = (3 * 1 + 0.5) / 4
    assert means(mask_balance="area") == pytest.approx([0.5 / average, 1 / average])
    assert means(mask_balance="area", mask_outside=1) == [1, 1]
    assert means(mask_balance="picture") == pytest.approx([1, 1])
