"""The real code of transformers on tiny random models: what goes in, what comes out, what is refused."""

import json
import pickle

import pytest
import torch
from PIL import Image

from lora_studio.errors import ModelError
from lora_studio.vision import captioners
from lora_studio.vision.captioners import tidy
from lora_studio.vision.options import Detail, SentenceOptions
from tests.vision import tiny

PICTURES = [
    Image.new("RGB", size, colour) for size, colour in (((50, 40), "red"), ((40, 90), "blue"), ((8, 8), "white"))
]
KINDS = {"blip": tiny.blip, "florence2": tiny.florence2, "qwen2": tiny.qwen2, "qwen3": tiny.qwen3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    where = tmp_path_factory.mktemp("captioners")
    return {kind: make(where / kind) for kind, make in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_writes_one_line_for_each_picture(folders, kind):
    writer = captioners.load(folders[kind], SentenceOptions(max_tokens=12))
    told = writer.caption(PICTURES)
    assert len(told) == 3
    for text, _ in told:
        assert text == tidy(text) and "\n" not in text
    assert len({text for text, _ in told}) > 1, "the picture decides"


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_its_pictures_give_alone(folders, kind):
    """Pictures of different shapes have prompts of different lengths in some models: padding must not show."""
    writer = captioners.load(folders[kind], SentenceOptions(max_tokens=8))
    assert writer.caption(PICTURES) == [writer.caption([picture])[0] for picture in PICTURES]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_prompt_is_not_repeated(folders, kind, monkeypatch):
    """A decoder gives its input back, and behind it what it writes."""
    writer = captioners.load(folders[kind], SentenceOptions(instruction="a boat in the harbour"))
    said = writer.processor.tokenizer("a red boat", return_tensors="pt").input_ids

    def generate(input_ids, **_):
        return torch.cat([input_ids, said.repeat(len(input_ids), 1)], 1)

    monkeypatch.setattr(writer.model, "generate", generate)
    assert [text for text, _ in writer.caption(PICTURES)] == ["a red boat"] * 3


@pytest.mark.parametrize("error, package", [
    (ImportError("Package `num2words` is required. Install it with `pip install num2words`."), "num2words"),
    (ImportError("\nAProcessor requires the SentencePiece library but it was not found."), "sentencepiece"),
    (ModuleNotFoundError("No module named 'einops.layers'", name="einops.layers"), "einops"),
])  # fmt: skip
def test_a_missing_package_is_named_with_what_to_do(folders, monkeypatch, error, package):
    def missing(*_, **__):
        raise error

    monkeypatch.setattr(captioners.transformers.AutoConfig, "from_pretrained", missing)
    with pytest.raises(ModelError, match=f"florence2 needs the package {package}, which is not installed") as told:
        captioners.load(folders["florence2"])
    assert f"-m pip install {package}" in told.value.do


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_takes_the_pictures_along(folders, kind):
    """As on a graphics card: pictures in another format than the weights would be refused."""
    writer = captioners.load(folders[kind], SentenceOptions(max_tokens=4), dtype=torch.bfloat16)
    assert len(writer.caption(PICTURES)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_more_beams_follow_other_texts(folders, kind):
    one, four = (captioners.load(folders[kind], SentenceOptions(max_tokens=8, beams=beams)) for beams in (1, 4))
    assert one.caption(PICTURES) != four.caption(PICTURES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_that_ends_at_its_limit_is_marked(folders, kind):
    """The tiny ones write more than three tokens. Florence-2 is made to write the end there and is cut all the same."""
    writer = captioners.load(folders[kind], SentenceOptions(max_tokens=3))
    assert all(sentence.cut for sentence in writer.caption(PICTURES))


@pytest.mark.parametrize("kind", ["blip", "florence2"])
def test_a_caption_that_the_model_ended_is_not(folders, kind):
    told = captioners.load(folders[kind], SentenceOptions(max_tokens=40)).caption(PICTURES)
    assert any(sentence.text and not sentence.cut for sentence in told)


def test_the_detail_that_is_asked_for_is_the_task_that_the_model_gets(folders):
    writer = captioners.load(folders["florence2"], SentenceOptions(detail=Detail.LONG))
    seen = []
    real = writer.processor._construct_prompts
    writer.processor._construct_prompts = lambda text: seen.extend(text) or real(text)
    writer.caption(PICTURES[:2])
    assert seen == ["<MORE_DETAILED_CAPTION>"] * 2


@pytest.mark.parametrize("said, shown", [
    ("  a boat\n\non the\tsea ", "a boat on the sea"),
    ("A boat\u200b.\x00", "A boat ."),
    ("", ""),
])  # fmt: skip
def test_a_caption_is_tidied(said, shown):
    assert tidy(said) == shown


@pytest.mark.fault(102)
def test_pickled_weights_are_refused_and_not_opened(folders, tmp_path):
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text((folders["blip"] / "config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="pickled weights, which can run code"):
        captioners.load(folder)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.fault(102)
def test_a_model_that_needs_code_of_its_own_is_refused(folders, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((folders["blip"] / "model.safetensors").read_bytes())
    (folder / "modeling_own.py").write_text("raise SystemExit('code was run')")
    config = {"model_type": "own", "auto_map": {"AutoModelForImageTextToText": "modeling_own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="code of its own, which the studio never runs"):
        captioners.load(folder)


@pytest.mark.fault(102)
def test_a_known_kind_never_runs_the_code_beside_it(folders, tmp_path):
    """As microsoft's Florence-2 has it."""
    folder = tmp_path / "both"
    folder.mkdir()
    for path in folders["blip"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text("raise SystemExit('code was run')")
    assert captioners.load(folder, SentenceOptions(max_tokens=3)).caption(PICTURES[:1])


@pytest.mark.parametrize("harm, said", [
    (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text("[]"), "cannot be loaded"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "clip"}'), "cannot be loaded"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
    (lambda folder: (folder / "config.json").unlink(), "is no model"),
])  # fmt: skip
@pytest.mark.fault(102)
def test_a_damaged_model_is_told(folders, tmp_path, harm, said):
    folder = tmp_path / "harmed"
    folder.mkdir()
    for path in folders["florence2"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    harm(folder)
    with pytest.raises(ModelError, match=said):
        captioners.load(folder)


@pytest.mark.fault(102)
def test_missing_weights_are_not_left_random(folders, tmp_path):
    """transformers fills them at random and only prints a note."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    folder.mkdir()
    for path in folders["blip"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["vision_model.post_layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights: vision_model.post_layernorm.weight"):
        captioners.load(folder)
