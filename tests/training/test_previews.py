"""Pictures of the base model alone: drawn by the first run, found by the next."""

import io

import pytest
from PIL import Image

from lora_studio import files, runs
from lora_studio.events import PreviewReady
from lora_studio.models import inject
from lora_studio.training import previews
from tests.training.test_engine import prepared


@pytest.fixture
def settings(settings):
    return settings.changed(preview_prompts=["a disc", "a house"], steps=1, preview_every=0, validate_every=0)


@pytest.fixture
def asked(monkeypatch) -> list:
    """(prompt, seed) of every picture that is drawn."""
    drawn, real = [], previews.generate

    def generate(base, prompts, seeds, **named):
        drawn.extend(zip(prompts, seeds, strict=True))
        return real(base, prompts, seeds, **named)

    monkeypatch.setattr(previews, "generate", generate)
    return drawn


def base_pictures(session) -> list[bytes]:
    """The files that the run shows."""
    events = list(previews.draw(session, base=True))
    assert [type(event) for event in events] == [PreviewReady] * len(session.prompts) and all(event.base for event in events)
    return [(session.run.folder / event.path).read_bytes() for event in events]


def kept(session) -> list:
    return sorted((session.run.cache / "previews").iterdir())


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


def test_a_second_run_draws_nothing_and_shows_the_same_files(new_run, settings, asked):
    """With their parameters, as if it had drawn them; the kept ones tell no prompt."""
    first = base_pictures(prepared(new_run(settings)))
    assert asked == [("a disc", 1), ("a house", 2)]
    session = prepared(new_run(settings.changed(rank=4, alpha=4, seed=9, learning_rate=1e-3)))
    assert base_pictures(session) == first and len(asked) == 2
    assert first[0] != first[1] and all("Steps: 2" in Image.open(io.BytesIO(data)).text["parameters"] for data in first)
    assert len(kept(session)) == 2 and all(set(Image.open(path).text) == {"sha256"} for path in kept(session))


@pytest.mark.parametrize("method", [{"method": "pissa"}, {"method": "dora", "dropout": 0.5}])
def test_whatever_is_trained_the_base_is_drawn_without_it(new_run, settings, asked, method):
    """A PiSSA's start or an adapter under way in a kept picture would be shown as the base's in every later run."""
    plain = base_pictures(prepared(new_run(settings)))
    session = prepared(new_run(settings.changed(**method)))
    learned(session)
    for path in kept(session):
        path.unlink()
    again = base_pictures(session)
    assert len(asked) == 4 and all(close(one, other) for one, other in zip(plain, again, strict=True))


def learned(session) -> None:
    """Stands for some training."""
    session.engine.flat.values.add_(0.05)
    session.engine.flat.spread()


def close(one: bytes, other: bytes) -> bool:
    return max(abs(a - b) for a, b in zip(pixels(one), pixels(other), strict=True)) <= 1


def test_trained_text_encoders_draw_a_base_picture_of_their_own(new_run, settings, asked):
    """They encode the prompt again, by other arithmetic; it is the same picture but for that."""
    plain = base_pictures(prepared(new_run(settings)))
    session = prepared(new_run(settings.changed(train_text=True, dropout=0.5)))
    learned(session)
    assert all(close(one, other) for one, other in zip(plain, base_pictures(session), strict=True)) and len(asked) == 4 == len(kept(session))


def test_only_pictures_that_lack_are_drawn(new_run, settings, asked):
    session = prepared(new_run(settings.changed(preview_prompts=["a disc"])))
    (first,) = base_pictures(session)
    both = base_pictures(prepared(new_run(settings)))
    assert asked == [("a disc", 1), ("a house", 2)] and both[0] == first


def test_what_decides_the_picture_is_in_its_name(new_run, settings, monkeypatch):
    """A picture drawn otherwise would be shown for this one."""
    session = prepared(new_run(settings))
    base, plain = session.base, previews._kept_file(session, 0)
    given = session.settings
    changes = [{"preview_prompts": ["a cat"]}, {"negative": "blur"}, {"preview_seed": 5}, {"preview_steps": 3}, {"guidance": 2.0}, {"sampler": "euler"}, {"resolution": 128},
               {"quantize": "nf4"}, {"train_text": True}, {"deterministic": True}]
    names = {plain, previews._kept_file(session, 1)}
    for change in changes:
        session.settings = given.changed(**change)
        names.add(previews._kept_file(session, 0))
    session.settings = given
    for owner, name, value in [(base, "checksum", "another"), (base, "fingerprint", "another"), (base, "schedule", base.schedule | {"beta_end": 0.5}), (previews, "VERSION", 2),
                               (previews, "version", lambda _: "9.9")]:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value)
            names.add(previews._kept_file(session, 0))
    assert len(names) == 2 + len(changes) + 5 and previews._kept_file(session, 0) == plain
    session.settings = given.changed(rank=4, learning_rate=1e-3, preview_every=7, name="other")
    assert previews._kept_file(session, 0) == plain


@pytest.mark.fault(14)
@pytest.mark.parametrize("damage", ["torn", "rotten", "swapped", "empty", "other"])
def test_a_damaged_kept_picture_is_drawn_again(new_run, settings, asked, damage):
    session = prepared(new_run(settings.changed(preview_prompts=["a disc"])))
    first = base_pictures(session)
    (path,) = kept(session)
    sound = path.read_bytes()
    other = io.BytesIO()
    Image.new("RGB", (64, 64)).save(other, "PNG")
    path.write_bytes({"torn": sound[:-200], "rotten": sound[:300] + b"\0\1\2\3" + sound[304:], "swapped": rewritten(sound), "empty": b"", "other": other.getvalue()}[damage])
    assert base_pictures(session) == first and len(asked) == 2 and path.read_bytes() == sound


def rewritten(data: bytes) -> bytes:
    """Another picture under the same sum."""
    image, made = Image.open(io.BytesIO(data)), io.BytesIO()
    texts = previews.PngInfo()
    texts.add_text("sha256", image.text["sha256"])
    Image.new("RGB", image.size).save(made, "PNG", pnginfo=texts)
    return made.getvalue()


@pytest.mark.fault(50)
def test_a_cache_that_takes_no_picture_costs_none(new_run, settings, monkeypatch):
    real = files.write

    def full(path, content):
        if path.parent.parent == runs.cache_folder(path.parents[2]):
            raise OSError(28, "No space left on device")
        real(path, content)

    session = prepared(new_run(settings))
    monkeypatch.setattr(files, "write", full)
    assert len(base_pictures(session)) == 2 and not (session.run.cache / "previews").exists()


def test_the_adapters_own_pictures_are_neither_kept_nor_taken_from_there(new_run, settings, asked):
    session = prepared(new_run(settings))
    before = base_pictures(session)
    session.step = 1
    learned(session)
    events = list(previews.draw(session))
    assert len(asked) == 4 and len(kept(session)) == 2 and not any(event.base for event in events)
    assert [(session.run.folder / event.path).read_bytes() for event in events] != before
    with inject.without_adapter(session.base):
        assert not any(parameter.requires_grad for parameter in session.base.unet.parameters())
