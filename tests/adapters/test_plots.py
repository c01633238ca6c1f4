"""The plots: darker means more, empty cells stay empty, the mark stands at the rank that the words name."""

from __future__ import annotations

import io

import torch
from PIL import Image

from lora_studio.adapters import Adapter, Factors, analysis, plots
from tests.adapters.adapter_samples import BLOCK, TE, Q, small


def diagonal(*values: float) -> Factors:
    return Factors(torch.eye(len(values)), torch.diag(torch.tensor(values)), float(len(values)))


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return image.convert("RGB")


def test_the_strongest_cell_is_the_darkest():
    result = analysis.analyze(
        Adapter({Q: diagonal(3.0, 4.0), f"{BLOCK}.attn1.to_k": diagonal(1.0, 0.0), TE: diagonal(0.01, 0.01)})
    )
    image = opened(plots.heatmap(result.heatmap))
    assert (178, 58, 36) in {color for _, color in image.getcolors(100_000)}, "the largest value has the full colour"
    assert (240, 240, 243) in {color for _, color in image.getcolors(100_000)}, "a missing layer is grey, not zero"


def test_spectrum_marks_the_rank():
    result = analysis.analyze(Adapter({Q: diagonal(10.0, 3.0, 0.01, 0.01)}))
    image = opened(plots.spectrum(result))
    red = [x for x in range(image.width) if image.getpixel((x, 40)) == (178, 58, 36)]
    assert result.rank_99 == 2 and red and abs(red[0] - image.width / 2) < 4


def test_all_plots_of_any_adapter():
    result = analysis.analyze(small())
    for png in (plots.heatmap(result.heatmap), plots.spectrum(result), plots.histogram(result.histogram)):
        assert opened(png).width > 100
    untrained = analysis.analyze(Adapter({Q: diagonal(0.0, 0.0)}))
    assert (
        opened(plots.spectrum(untrained))
        and opened(plots.heatmap(untrained.heatmap))
        and opened(plots.histogram(untrained.histogram))
    )
