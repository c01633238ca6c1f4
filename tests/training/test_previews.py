"""Pictures of the base model alone: drawn by the first run, found by the next."""

import io
import os

import pytest
from PIL import Image

from lora_studio import files, runs
from lora_studio.config.settings import Settings
from lora_studio.events import PreviewReady
from lora_studio.models.distilled import Distilled, by_name
from lora_studio.training import base_previews, prepare, previews
from tests.training.test_stepper import prepared


@pytest.fixture(scope="module")
def plain(tiny_base, pictures) -> Settings:
    return Settings(
        data=str(pictures),
        base=str(tiny_base),
        resolution=64,
        steps=1,
        rank=2,
        alpha=2,
        device="cpu",
        preview_prompts=["a disc", "a house"],
        preview_steps=2,
        preview_every=0,
        validate_every=0,
        validation_share=0.2,
        max_upscale=1,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory, plain):
    """What takes long: one session for all of these tests."""
    return prepared(runs.create(plain, tmp_path_factory.mktemp("shared")))


@pytest.fixture
def session(shared, new_run, plain):
    """``shared`` in a run of its own, with a cache of its own."""
    shared.run, shared.settings, shared.step = new_run(plain), plain, 0
    return shared


@pytest.fixture
def asked(monkeypatch) -> list:
    """(prompt, seed) of every picture that is drawn."""
    drawn, real = [], previews.generate

    def generate(base, prompts, seeds, settings, **named):
        drawn.extend(zip(prompts, seeds, strict=True))
        return real(base, prompts, seeds, settings, **named)

    monkeypatch.setattr(previews, "generate", generate)
    return drawn


def base_pictures(session) -> list[bytes]:
    """The files that the run shows."""
    events = list(previews.draw(session, base=True))
    assert [type(event) for event in events] == [PreviewReady] * len(session.prompts) and all(
        event.base for event in events
    )
    return [(session.run.folder / event.path).read_bytes() for event in events]


def kept(session) -> list:
    return sorted((session.run.cache / "previews").iterdir())


def opened(data: bytes):
    return Image.open(io.BytesIO(data))


def close(one: bytes, other: bytes) -> bool:
    """But for a last digit's rounding."""
    return max(abs(a - b) for a, b in zip(opened(one).tobytes(), opened(other).tobytes(), strict=True)) <= 1


def test_a_second_run_finds_the_files_and_whatever_it_trains_draws_the_same(session, new_run, plain, asked):
    """A PiSSA's start, dropout or what was learned would else be shown as the base's in every later run. The kept
    pictures tell no prompt.
    """
    first = base_pictures(session)
    assert asked == [("a disc", 1), ("a house", 2)] and first[0] != first[1]
    assert all("Steps: 2" in opened(data).text["parameters"] for data in first)
    assert len(kept(session)) == 2 and all(
        set(opened(path.read_bytes()).text) == {"sha256", "seconds"} for path in kept(session)
    )

    other = prepared(new_run(plain.changed(method="pissa", dropout=0.5, rank=4, alpha=4, seed=9)))
    assert base_pictures(other) == first and len(asked) == 2
    other.stepper.flat.values.add_(0.05)
    for path in kept(other):
        path.unlink()
    assert all(close(one, again) for one, again in zip(first, base_pictures(other), strict=True)) and len(asked) == 4


def test_kept_pictures_count_as_long_as_they_took_to_draw(session):
    """Else the time left, which knows of no other round yet, would leave all previews out."""

    def clocked() -> float:
        clock = previews.PreviewTimer()
        list(clock.timed(previews.draw(session, base=True)))
        return clock.seconds

    first, second = clocked(), clocked()
    noted = sum(float(Image.open(path).text["seconds"]) for path in kept(session))
    assert 0 < noted < first and noted < second < 3 * first


def test_only_pictures_that_lack_are_drawn(session, plain, asked):
    session.settings = plain.changed(preview_prompts=["a disc"])
    (first,) = base_pictures(session)
    (path,) = kept(session)
    os.utime(path, (1, 1))
    session.settings = plain
    assert base_pictures(session)[0] == first and asked == [("a disc", 1), ("a house", 2)]
    assert path.stat().st_mtime > 1, "the cache removes first what was not used for longest"


def test_what_decides_the_picture_is_in_its_name(session, plain, monkeypatch):
    """A picture drawn otherwise would be shown for this one."""
    base, expected = session.base, base_previews.kept_file(session, 0)
    found = {expected, base_previews.kept_file(session, 1)}
    changes = [
        {"preview_prompts": ["a cat"]},
        {"negative": "blur"},
        {"preview_seed": 5},
        {"preview_steps": 3},
        {"guidance": 2.0},
        {"guidance_rescale": 0.5},
        {"sampler": "euler"},
        {"resolution": 128},
        {"quantize": "nf4"},
        {"train_text": True},
        {"deterministic": True},
    ]
    for change in changes:
        session.settings = plain.changed(**change)
        found.add(base_previews.kept_file(session, 0))
    session.settings = plain
    for owner, name, value in [
        (base, "checksum", "another"),
        (base, "fingerprint", "another"),
        (base.process, "schedule", base.process.schedule | {"beta_end": 0.5}),
        (base_previews, "VERSION", 99),
        (base_previews, "version", lambda _: "9.9"),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value)
            found.add(base_previews.kept_file(session, 0))
    assert len(found) == 2 + len(changes) + 5
    session.settings = plain.changed(rank=4, learning_rate=1e-3, preview_every=7, name="other")
    assert base_previews.kept_file(session, 0) == expected


def test_a_distilled_model_has_its_own_steps_in_the_name(session, plain, monkeypatch):
    session.settings = plain.changed(preview_steps=20, guidance=5.0)
    before = base_previews.kept_file(session, 0)
    monkeypatch.setattr(session.base, "distilled", Distilled(by_name("ink_turbo"), "its name says so"))
    assert (session.previews.preview_steps, session.previews.guidance) == (6, 1)
    assert base_previews.kept_file(session, 0) != before


@pytest.mark.parametrize("damage", ["torn", "rotten", "another", "bare", "empty"])
def test_a_damaged_kept_picture_is_drawn_again(session, plain, asked, damage):
    session.settings = plain.changed(preview_prompts=["a disc"])
    first = base_pictures(session)
    (path,) = kept(session)
    sound, black = path.read_bytes(), Image.new("RGB", (64, 64))
    path.write_bytes(
        {
            "torn": sound[:-200],
            "rotten": sound[:300] + bytes(4) + sound[304:],
            "another": base_previews.png(black, **opened(sound).text),
            "bare": base_previews.png(black),
            "empty": b"",
        }[damage]
    )
    assert (
        base_pictures(session) == first
        and len(asked) == 2
        and opened(path.read_bytes()).tobytes() == opened(sound).tobytes()
    )


@pytest.mark.fault(50)
def test_a_cache_that_takes_no_picture_costs_none(session, monkeypatch):
    real = files.write

    def full(path, content):
        if path.is_relative_to(session.run.cache):
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(files, "write", full)
    assert len(base_pictures(session)) == 2 and not (session.run.cache / "previews").exists()


def test_the_adapters_own_pictures_are_neither_kept_nor_taken_from_there(session, asked):
    before, start = base_pictures(session), session.stepper.flat.values.clone()
    session.stepper.flat.values.add_(0.05)
    events = list(previews.draw(session))
    session.stepper.flat.values.copy_(start)
    assert len(asked) == 4 and len(kept(session)) == 2 and not any(event.base for event in events)
    assert all(
        (session.run.folder / event.path).read_bytes() != picture for event, picture in zip(events, before, strict=True)
    )


@pytest.mark.parametrize(("resolution", "side"), [(70, 72), (64, 64), (3, 8)])
def test_previews_are_drawn_at_the_nearest_size(session, plain, resolution, side):
    """Every preview failed, and the run trained blind; the warning comes once, before the first step."""
    session.settings = plain.changed(resolution=resolution)
    told = list(prepare.rounded(resolution, session.base))
    assert [event.where for event in told] == ["resolution"] * (side != resolution)
    assert all(f"{side} × {side}" in event.what for event in told)
    if resolution > 8:
        events = list(previews.draw(session))
        assert [type(event) for event in events] == [PreviewReady] * 2
        with Image.open(session.run.folder / events[0].path) as image:
            assert image.size == (side, side)
    assert session.preview_side == side and list(prepare.rounded(0, session.base)) == []
