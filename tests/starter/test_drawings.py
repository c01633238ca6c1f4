"""The autoencoder's two-coloured drawings, and the optimizer that it learns with."""

import pytest

torch = pytest.importorskip("torch")

from lora_studio.starter.make import drawings, muon  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def icons():
    """Three discs with a bar across, each 160 x 160 RGBA."""
    axis = torch.linspace(-1, 1, 160)
    disc = axis[:, None] ** 2 + axis**2 < 0.8
    out = torch.zeros(3, 4, 160, 160, dtype=torch.uint8)
    out[:, 3] = disc * 255
    out[:, 0, 60:100] = 250
    return out


def test_shapes_are_ink_or_paper_with_smooth_edges():
    """Nearly every pixel is one of the two; the rest are edges, half a pixel wide in the picture."""
    ink = drawings.shapes(8, CPU)
    between = ((ink > 0.01) & (ink < 0.99)).float().mean()
    assert ink.shape == (8, 1, 256, 256) and 0 < between < 0.1
    assert 0.05 < ink.mean() < 0.95


def test_screens_reach_both_ends_at_every_period():
    found = drawings.screen(16, CPU)
    assert (found.amin((1, 2, 3)) < 0.05).all() and (found.amax((1, 2, 3)) > 0.95).all()


def test_outlines_stand_where_the_colour_changes(icons):
    """A white square on black: its edge is ink, its middle and the corner of the paper are not."""
    x = torch.zeros(6, 3, 256, 256)
    x[:, :, 64:192, 64:192] = 1
    lines = drawings.outlines(x)
    assert (lines[:, 0, 128, 64] > 0.9).all() and not lines[:, 0, 128, 128].any() and not lines[:, 0, 8, 8].any()


def test_a_drawing_has_two_colours(icons):
    """Along the line between the two: what is off it is rounding."""
    x = drawings.drawn(icons, 16)
    assert x.shape == (16, 3, 128, 128) and x.min() >= -1 and x.max() <= 1
    off = x.flatten(2) - x.flatten(2).mean(2, keepdim=True)
    assert (torch.linalg.svdvals(off)[:, 1] < 0.1).all()


@pytest.mark.parametrize("shape", [(3, 8, 32), (2, 32, 8)])
def test_an_update_is_nearly_orthogonal(shape):
    values = torch.linalg.svdvals(muon.orthogonal(torch.randn(shape)).float())
    assert values.min() > 0.5 and values.max() < 1.3


def test_matrices_move_by_muon_and_the_rest_by_adamw():
    """Twenty steps downhill; a bias of the same model is not orthogonalised."""
    layer = torch.nn.Linear(16, 12)
    goal, x = torch.randn(64, 12), torch.randn(64, 16)
    flat = muon.FlatMuon([layer], CPU, torch.float32, 0.05, average=0.9)
    assert int(flat.mine.sum()) == 16 * 12
    losses = []
    for _ in range(20):
        loss = (layer(x) - goal).square().mean()
        flat.backward(loss)
        flat.step(1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0] and not torch.equal(flat.average, flat.master.data)
