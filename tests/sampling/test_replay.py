"""Recorded answers, with a recorder that plays a CUDA graph: it reads and writes the same memory at every replay."""

import pytest
import torch

from lora_studio import models
from lora_studio.models import inject
from lora_studio.sampling import replay, shortcuts
from lora_studio.sampling.denoise import Sampling, denoise
from lora_studio.sampling.generate import in_batches
from lora_studio.sampling.guided import PromptFeatures
from lora_studio.sampling.replay import Recording
from tests.models import tiny
from tests.ui.small_adapters import small_adapter

SMALL = Sampling("dpm++", 5, 5.0, 64, 64)


class Played:
    """Counts recordings and replays. ``work`` is done anew, and its result put where the first one was."""

    def __init__(self):
        self.recorded = self.replayed = 0
        self.error: RuntimeError | None = None

    def __call__(self, work):
        if self.error:
            raise self.error
        self.recorded += 1
        output = torch.zeros_like(work())

        def again():
            self.replayed += 1
            output.copy_(work())

        return Recording(again, output)


@pytest.fixture(scope="module")
def base(tiny_folder):
    return models.load(str(tiny_folder(tiny.SHALLOW)))


@pytest.fixture
def played(base):
    recorder = Played()
    recorder.replays = replay.enable(base, lambda: recorder)
    yield recorder
    replay.disable(base)
    inject.unload_adapters(base)


def drawn(base, seeds=(1, 2), guided=True, **how):
    avoid = base.encode_text(["blurry"]) if guided else None
    shown = PromptFeatures(base.encode_text(["a cat", "a dog"][: len(seeds)]), avoid)
    return denoise(base, shown, seeds, Sampling(**{**vars(SMALL), **how}))


def plain(base, *given, **how):
    """As without any recording."""
    kept = replay._OF.pop(base)
    try:
        return drawn(base, *given, **how)
    finally:
        replay._OF[base] = kept


@pytest.mark.parametrize("sampler", ["dpm++", "unipc", "euler_a", "lcm"])
def test_replayed_steps_draw_the_same(base, played, sampler):
    """Samplers that remember answers find them overwritten; or a step reads the first one's timestep."""
    assert torch.equal(drawn(base, sampler=sampler), plain(base, sampler=sampler))
    assert (played.recorded, played.replayed) == (1, 4), "the first step is not recorded"
    assert torch.equal(
        drawn(base, (5, 6), sampler=sampler, guidance=2.0), plain(base, (5, 6), sampler=sampler, guidance=2.0)
    )
    assert (played.recorded, played.replayed) == (1, 9)


def test_each_shape_has_a_recording_and_the_oldest_are_forgotten(base, played, monkeypatch):
    monkeypatch.setattr(replay, "MOST", 2)
    for how in ({}, {"seeds": (1,)}, {"guided": False, "guidance": 1.0}, {"width": 128}):
        assert torch.equal(drawn(base, **how), plain(base, **how))
    assert played.recorded == 4 and len(played.replays._kept) == 2
    drawn(base)
    assert played.recorded == 5, "that of the first shape was forgotten"


def test_other_weights_are_read_and_other_adapters_recorded_anew(base, played, monkeypatch):
    """A slider moves and the picture stays; or the adapter before is drawn."""
    monkeypatch.setattr(inject, "folded", lambda base: inject.nullcontext())  # as on a GPU
    inject.load_adapters(base, [(small_adapter(base, 1), 1.0)])
    first = drawn(base)
    inject.set_weights(base, [3.0])
    second = drawn(base)
    assert played.recorded == 1 and torch.equal(second, plain(base)) and not torch.allclose(first, second, atol=1e-3)
    places = [changed.increment.scale.data_ptr() for changed in base.loaded._changed]
    inject.set_weights(base, [[1.0], [3.0]])
    assert torch.equal(drawn(base), plain(base)) and played.recorded == 2
    inject.set_weights(base, [2.0])
    assert torch.equal(drawn(base), plain(base)) and played.recorded == 2
    found = [changed.increment.scale for changed in base.loaded._changed]
    assert [one.data_ptr() for one in found] == places, "those that the first recording reads"
    assert all((one == 2).all() for one in found)
    inject.load_adapters(base, [(small_adapter(base, 2), 1.0)])
    assert torch.equal(drawn(base), plain(base)) and played.recorded == 3
    inject.unload_adapters(base)
    assert torch.equal(drawn(base), plain(base)) and played.recorded == 4


@pytest.mark.fault(106)
def test_what_cannot_be_recorded_is_computed(base, played):
    played.error = RuntimeError("operation not permitted when stream is capturing\nmore")
    assert torch.equal(drawn(base), plain(base))
    assert played.replays.failed == "operation not permitted when stream is capturing" and played.recorded == 0


@pytest.mark.fault(106)
def test_memory_that_is_too_short_to_record_is_told_once_and_freed(base, played):
    drawn(base)
    played.error = torch.OutOfMemoryError("no memory")
    assert torch.equal(drawn(base, (1,)), plain(base, (1,))), "it is drawn without"
    assert not played.replays._kept and not base.make_room()
    said = shortcuts.warning(base)
    assert said and said.what == (
        "Denoising steps could not be recorded as a CUDA graph: there was not enough memory for it."
    )
    assert shortcuts.warning(base) is None
    played.error = None
    drawn(base)
    assert played.recorded == 1, "nothing is recorded any more"


@pytest.mark.fault(106)
def test_recordings_give_way_where_memory_is_short_elsewhere(base, played, monkeypatch):
    """The batch is halved, or a picture is decoded in tiles, though the memory of recordings could be had."""
    drawn(base)
    refused, asked = [torch.OutOfMemoryError("no memory")], []

    def draw(rows):
        asked.append(rows)
        if refused:
            raise refused.pop()
        return torch.zeros(2, 4, 8, 8)

    assert len(in_batches(base, 2, SMALL, draw)) == 2
    assert asked == [slice(0, 2)] * 2 and played.replays.failed == replay.NO_MEMORY
    assert not played.replays._kept


@pytest.mark.fault(106)
def test_a_picture_is_decoded_whole_once_recordings_gave_way(base, played, monkeypatch):
    drawn(base)
    decoder, tried = base.vae.decoder, []

    def forward(x, *rest, real=decoder.forward):
        tried.append(tuple(x.shape))
        if played.replays._kept:
            raise torch.OutOfMemoryError("no memory")
        return real(x, *rest)

    monkeypatch.setattr(decoder, "forward", forward)
    base.decode(torch.zeros(2, 4, 8, 8))
    assert [shape[0] for shape in tried] == [2, 1, 1, 1] and tried[-1][2:] == (8, 8)


def test_a_base_model_given_up_keeps_nothing(base, played):
    drawn(base)
    shortcuts.save_memory(base)
    assert not played.replays._kept and not base.make_room()
    drawn(base)
    assert played.recorded == 1


def test_without_a_gpu_nothing_is_recorded(base):
    assert replay.enable(base) is None and base not in replay._OF


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_graphs_that_share_memory_draw_as_single_operations(base, tiny_folder, dtype):
    """Recordings overwrite each other's results; or read weights where others lie by now."""
    on_card = models.load(str(tiny_folder(tiny.SHALLOW)), "cuda", dtype)
    inject.load_adapters(on_card, [(small_adapter(base, 1), 1.0)])
    one, two = (1,), (1, 2)
    wanted = [(one, [1.0]), (two, [[0.5], [2.0]]), (one, [3.0]), (two, [[1.0], [0.0]]), (two, [1.0]), (one, [-1.0])]

    def all_of_them():
        for seeds, weights in wanted:
            inject.set_weights(on_card, weights)
            yield drawn(on_card, seeds)

    expected = list(all_of_them())
    replays = replay.enable(on_card)
    try:
        list(all_of_them())
        for one, other in zip(all_of_them(), expected, strict=True):
            assert (one - other).norm() < 1e-2 * other.norm()
        assert not replays.failed and len(replays._kept) == 3
    finally:
        replay.disable(on_card)
