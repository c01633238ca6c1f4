"""The analysis says of literal matrices what can be worked out by hand, and says it in words."""

from __future__ import annotations

import math

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, analysis
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, TE, Q, factors, small

KEY = f"{BLOCK}.attn1.to_k"


def diagonal(*values: float) -> Factors:
    return Factors(torch.eye(len(values)), torch.diag(torch.tensor(values)), float(len(values)))


def test_literal_module():
    result = analysis.analyze(Adapter({Q: diagonal(3.0, 0.0, 4.0)}), {Q: torch.full((3, 3), 10 / 3)})
    module = result.modules[0]
    assert (
        module.spectrum == pytest.approx([4, 3, 0], abs=1e-6)
        and module.norm == pytest.approx(5)
        and module.relative == pytest.approx(0.5)
    )
    p, q = 4 / 7, 3 / 7
    assert module.effective_rank == pytest.approx(math.exp(-p * math.log(p) - q * math.log(q)))
    assert result.spectrum == pytest.approx([16 / 25, 9 / 25, 0]) and result.rank_99 == 2 == module.rank_99


@pytest.mark.parametrize(("values", "rank"), [([1, 1, 1, 1], 4.0), ([5, 0, 0], 1.0), ([0, 0], 0.0)])
def test_effective_rank(values, rank):
    assert analysis.effective_rank(torch.tensor(values, dtype=torch.float64)) == pytest.approx(rank)


def test_literal_shares_of_blocks_in_the_order_of_the_forward_pass():
    adapter = Adapter({Q: diagonal(0.0, 6.0), TE: diagonal(8.0, 0.0)})
    shares = analysis.analyze(adapter).blocks
    assert list(shares) == ["text_encoder", "down_blocks.1"] and list(shares.values()) == pytest.approx([0.64, 0.36])
    assert analysis.analyze(Adapter({Q: diagonal(0.0, 0.0)})).blocks == {"down_blocks.1": 0}


def test_heatmap_and_histogram():
    adapter = Adapter({Q: diagonal(3.0, 4.0), KEY: diagonal(1.0, 0.0), TE: diagonal(0.01, 0.01)})
    result = analysis.analyze(adapter)
    heat = result.heatmap
    assert heat.rows == ["text_encoder", "down_blocks.0", "down_blocks.1"] and heat.columns == [
        "attn1.to_k",
        "attn1.to_q",
        "self_attn.q_proj",
    ]
    assert (
        heat.values[2][1] == pytest.approx(5)
        and heat.values[1][0] == pytest.approx(1)
        and heat.values[0][0] is None
        and not heat.relative
    )
    edges, counts = result.histogram.edges, result.histogram.counts
    assert sum(counts) == 12 and counts[0] == 7  # zeros count in the first bin
    assert counts[next(i for i in range(len(counts)) if edges[i + 1] > -2 + 1e-6)] >= 2 and counts[-1] == 3
    relative = analysis.analyze(adapter, {path: torch.eye(2) * 10 for path in adapter.factors}).heatmap
    assert relative.relative and relative.values[2][1] == pytest.approx(5 / math.sqrt(200))


def test_words_say_what_to_do():
    words = analysis.analyze(Adapter({Q: diagonal(10.0, 1.0, 0.01, 0.01), KEY: diagonal(1e-9, 0.0, 0.0, 0.0)})).words
    assert words[0].startswith("Rank 1 of 4 holds 99 % of the change: shrink from")
    assert "100% of the change is in down_blocks.1." in words and "1 of 2 modules change next to nothing." in words
    assert analysis.analyze(Adapter({Q: diagonal(1.0, 1.0)})).words == [
        "All of its rank 2 is used; a larger rank might hold more of the style."
    ]
    assert "changes nothing" in analysis.analyze(Adapter({Q: diagonal(0.0, 0.0)})).words[0]
    assert (
        "by 7.1% on average"
        in analysis.analyze(Adapter({Q: diagonal(1.0, 0.0)}), {Q: torch.full((2, 2), 7.0711)}).words[-1]
    )


def test_all_kinds_of_modules_and_a_dora():
    assert len(analysis.analyze(small()).modules) == 7
    assert "DoRA" in analysis.analyze(Adapter({Q: factors(Q, 8, 8, dora=True)})).words[0]
    assert analysis.Analysis.model_validate_json(analysis.analyze(small()).model_dump_json()).rank == 8
    with pytest.raises(AdapterError, match="empty"):
        analysis.analyze(Adapter({}))


def test_an_adapter_and_itself_its_opposite_and_a_stranger():
    one, opposite, stranger = (
        Adapter({Q: diagonal(3.0, 4.0, 0.0)}),
        Adapter({Q: diagonal(-3.0, -4.0, 0.0)}),
        Adapter({Q: diagonal(0.0, 0.0, 5.0)}),
    )
    same, against, apart = analysis.compare(one, one), analysis.compare(one, opposite), analysis.compare(one, stranger)
    assert (same.cosine, same.interference, same.overlap) == pytest.approx((1, -1, 1))
    assert (against.cosine, against.interference) == pytest.approx((-1, 1))
    assert apart.cosine == pytest.approx(0, abs=1e-9)
    assert "add up" in same.words[0] and "against each other" in against.words[0] and "independent" in apart.words[0]


def test_partly_shared_modules_count_in_the_whole():
    one, other = Adapter({Q: diagonal(3.0, 0.0), KEY: diagonal(4.0, 0.0)}), Adapter({Q: diagonal(3.0, 0.0)})
    result = analysis.compare(one, other)
    assert result.cosine == pytest.approx(9 / 15) and result.shared == 1 and result.pairs[0].cosine == pytest.approx(1)
    assert "mixed freely" in analysis.compare(Adapter({KEY: diagonal(1.0, 0.0)}), other).words[0]


def test_different_families_are_refused():
    with pytest.raises(AdapterError, match="Ink was made for Stable Diffusion 1.5"):
        analysis.compare(Adapter({Q: factors(Q, 640, 640)}), Adapter({Q: factors(Q, 8, 8)}), ("Ink", "Wash"))
