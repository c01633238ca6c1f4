"""A judged state is measured at several strengths, once; a cancelled sweep goes on where it was."""

import pytest

from lora_studio import adapters
from lora_studio.adapters import usage
from lora_studio.evaluation import judging, strength, strength_sweep
from lora_studio.evaluation.bench import Cancelled
from lora_studio.runs import keeping
from lora_studio.training.loop import train

# its folder's conftest makes runs on a tiny model
from tests.training.conftest import new_run, pictures, settings, tiny_base  # noqa: F401

PROMPTS = ("a cat", "a house")


def result(events):
    """What a generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            return done.value


def test_a_cancelled_sweep_goes_on_and_every_header_tells_the_result(new_run, settings, monkeypatch):  # noqa: F811
    run = new_run(settings.changed(keep_checkpoints=9))
    for _ in train(run, run.settings()):
        pass
    bench = result(judging.bench_of(run, PROMPTS))
    list(bench.prepare())
    judgement = bench.judge(4, run.checkpoint(4) / "adapter.safetensors")
    kept, drawn, draw = keeping.keep(run, 4), [], strength_sweep.render

    def counted(base, adapters, cells, *settings, **how):
        drawn.extend(cells)
        return draw(base, adapters, cells, *settings, **how)

    monkeypatch.setattr(strength_sweep, "render", counted)
    monkeypatch.setattr(strength_sweep, "SEEDS", 2)
    monkeypatch.setattr(strength_sweep, "_AT_ONCE", 1)
    events = strength_sweep.measure(bench, run, 4)
    assert [next(events).done, next(events).done] == [0, 1] and len(drawn) == 2 * 8
    bench.cancelled = lambda: True
    with pytest.raises(Cancelled):
        next(events)
    bench.cancelled = lambda: False
    drawn.clear()
    damaged = strength.picture(run, 4, 0, 1, 0.4)
    damaged.write_bytes(damaged.read_bytes()[:40])
    found = result(strength_sweep.measure(bench, run, 4))
    assert [(cell.prompt, cell.weights) for cell in drawn] == [
        ("discstyle, a cat", (0.4,)),
        *(("discstyle, a house", (at,)) for at in strength_sweep.STRENGTHS * 2),
    ]

    assert [row.strength for row in found.rows] == list(strength_sweep.STRENGTHS)
    assert found.low <= found.recommended <= found.high
    (whole,) = [row for row in found.rows if row.strength == 1]  # as it was judged, up to the rounding of another batch
    assert whole.style.value == pytest.approx(judgement.style.value, abs=5)
    assert whole.subject.value == pytest.approx(judgement.subject.value, abs=0.05)
    for file in (run.judged_adapter(4), kept, run.adapter_file):
        assert usage.strength(adapters.header(file).metadata) == found.usage

    drawn.clear()
    assert result(strength_sweep.measure(bench, run, 4)) == strength.known(run, 4) == found and not drawn
