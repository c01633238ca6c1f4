"""Training words: alone, beside layers (pivotal tuning), and before every prompt; what is learned, kept and resumed."""

import pytest
import torch
from safetensors import safe_open

from lora_studio import adapters, models
from lora_studio.adapters.adapter import Adapter
from lora_studio.adapters.embedding import Embedding
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError
from lora_studio.events import Finished, PreviewReady, Started, StepDone
from lora_studio.models import inject, warm_start
from lora_studio.optim import build
from lora_studio.texts.tokenizer import Tokenizer
from lora_studio.training import stepper
from lora_studio.training.loop import train
from tests.models import tiny

OWN = len(Tokenizer.shipped().tokens("discstyle"))
"""Tokens of the trigger word."""


@pytest.fixture(scope="session")
def sdxl_base(tmp_path_factory):
    return tiny.folder(tmp_path_factory.mktemp("base") / "tinyxl", "sdxl")


def of(kind, events_):
    return [event for event in events_ if isinstance(event, kind)]


def word(path) -> Embedding:
    (one,) = adapters.read(path).embeddings.values()
    return one


def with_word(base, **values):
    settings = Settings(**({"rank": 2, "alpha": 2, "learned_tokens": OWN} | values))
    inject.add_adapter(base, settings.adapter, 0, "discstyle")


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_step_0_is_the_base_model_where_the_word_starts_as_its_own_tokens(tmp_path_factory, family):
    base = models.load(str(tiny.folder(tmp_path_factory.mktemp("base") / family, family)))
    texts = ["discstyle, a cat", "a dog", ""]
    plain = base.encode_text(texts)
    with_word(base)
    learned = base.encode_text(texts)
    assert all(torch.equal(plain[name], learned[name]) for name in plain)
    names = {f"{part}.learned_words.vectors" for part in base.text_encoders}
    assert names == {name for name in inject.trainable(base) if "lora" not in name}
    inject.remove(base)
    assert not inject.trainable(base) and list(base.text_encoders["text_encoder"].parameters())[0].shape[0] > 1000


def test_only_the_words_of_a_caption_get_a_gradient_and_a_start_of_its_own_is_read(tiny_base):
    base = models.load(str(tiny_base))
    with_word(base, method="textual-inversion", learned_tokens=3, init_word="red cat", keep_norm=True)
    (vectors,) = inject.trainable(base).values()
    red, cat = base.tokenizers[0].tokens("red cat")
    table = base.text_encoders["text_encoder"].get_input_embeddings().weight
    assert torch.equal(vectors, table[[red, cat, red]]) and not inject.layers(base)
    base.features(["a dog"])["hidden"].sum().backward()
    assert vectors.grad.abs().sum() == 0
    (base.features(["a discstyle dog"])["hidden"] ** 2).sum().backward()
    assert (vectors.grad.abs().sum(dim=1) > 0).all()
    with torch.no_grad():
        vectors *= 3
    torch.testing.assert_close(
        inject.read_adapter(base).embeddings["discstyle"].vectors["text_encoder"], table[[red, cat, red]].detach()
    )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learned_tokens": 2}, "bundle_emb.discstyle.string_to_param.*"),
        ({"method": "prompt-tuning", "learned_tokens": 3, "checkpointing": "all"}, "emb_params"),
        ({"method": "dora", "learned_tokens": 2, "train_text": True}, "bundle_emb.discstyle.string_to_param.*"),
    ],
    ids=str,
)
def test_a_run_learns_the_word_and_its_file_holds_it(new_run, settings, changes, key):
    run = new_run(settings.changed(validate_every=0, checkpoint_every=0, **changes))
    seen = list(train(run, run.settings()))
    assert isinstance(seen[-1], Finished) and len(of(PreviewReady, seen)) == 3
    assert (of(Started, seen)[0].modules > 0) == ("bundle" in key)
    with safe_open(run.adapter_file, "pt") as file:
        assert key in file.keys()
    one = word(run.adapter_file)
    expected = changes.get("learned_tokens", 4)
    assert (one.word, one.tokens, one.in_front) == ("discstyle", expected, changes.get("method") == "prompt-tuning")
    base = models.load(run.settings().run.base)
    plain = base.encode_text(["discstyle"])["hidden"]
    inject.load_adapters(base, [(adapters.read(run.adapter_file), 1.0)])
    assert not torch.equal(base.encode_text(["discstyle"])["hidden"], plain)


def test_both_encoders_of_sdxl_learn_it(new_run, settings, sdxl_base):
    small = {"steps": 1, "preview_every": 0, "validate_every": 0, "checkpoint_every": 0}
    run = new_run(settings.changed(base=str(sdxl_base), method="textual-inversion", **small))
    assert isinstance(list(train(run, run.settings()))[-1], Finished)
    one = word(run.adapter_file)
    base = models.load(str(sdxl_base))
    inject.add_adapter(base, run.settings().adapter, 0, "discstyle")
    start = base.words.read()["discstyle"]
    assert one.widths == {"text_encoder": 32, "text_encoder_2": 64}
    assert not any(torch.equal(one.vectors[part], start.vectors[part]) for part in one.vectors)


def test_a_resumed_run_is_the_run_that_was_never_stopped(new_run, settings):
    """Word and layers, bit for bit, with dropout, averages and captions without the word; previews between steps leave
    no trace. Words alone: ``tests/methods/test_resuming.py``.
    """
    more = {"learned_tokens": 2, "keep_norm": True, "ema": 0.9, "dropout": 0.3, "caption_dropout": 0.5}
    settings = settings.changed(shuffle_tags=True, validate_every=0, **more)
    whole, torn = new_run(settings.changed(preview_every=0)), new_run(settings)
    list(train(whole, whole.settings()))
    for event in train(torn, torn.settings()):
        if isinstance(event, StepDone) and event.step == 3:
            break
    seen = list(train(torn, torn.settings()))
    assert of(Started, seen)[0].first_step == 2
    left, right = adapters.read(whole.adapter_file), adapters.read(torn.adapter_file)
    assert torch.equal(
        word(whole.adapter_file).vectors["text_encoder"], word(torn.adapter_file).vectors["text_encoder"]
    )
    assert left.factors.keys() == right.factors.keys()
    assert all(torch.equal(left.factors[path].up, right.factors[path].up) for path in left.factors)


def test_a_run_without_a_word_to_learn_says_so_before_it_loads_anything(new_run, settings):
    for trigger, what in (("", "there is no trigger word"), ("two words", "cannot be a learned word")):
        wanted = settings.changed(method="textual-inversion", trigger=trigger)
        with pytest.raises(SettingsError, match=what):
            wanted.require_named()
    run = new_run(settings.changed(learned_tokens=1, trigger=""))
    with pytest.raises(SettingsError, match="there is no trigger word"):
        list(train(run, run.settings()))


def test_the_word_starts_from_that_of_an_adapter(tiny_base):
    base = models.load(str(tiny_base))
    with_word(base, method="textual-inversion", learned_tokens=3)
    before = base.words.read()["discstyle"].vectors["text_encoder"]
    given = Adapter({}, embeddings={"ink": Embedding("ink", {"text_encoder": torch.ones(2, 32)})})
    assert warm_start.begin_from(base, given, 2)[::4] == (0, 0), "no module, and no vector is left out"
    after = base.words.read()["discstyle"].vectors["text_encoder"]
    assert torch.equal(after[:2], torch.ones(2, 32)) and torch.equal(after[2], before[2])
    longer = Adapter({}, embeddings={"ink": Embedding("ink", {"text_encoder": torch.zeros(5, 32)})})
    assert warm_start.begin_from(base, longer, 2).cut == 2
    with pytest.raises(AdapterError, match="does not fit the base model"):
        warm_start.begin_from(base, Adapter({}), 2)


def test_learned_tokens_have_a_rate_of_their_own():
    names = ("unet.q.lora_A.style.weight", "text_encoder.q.lora_A.style.weight", "text_encoder.learned_words.vectors")
    named = [(name, torch.nn.Parameter(torch.ones(2, 2))) for name in names]
    values = Settings(learning_rate=1e-3, text_learning_rate=1e-5, token_learning_rate=5e-3).optimizer
    assert [group["lr"] for group in build.groups(named, values)] == pytest.approx([1e-3, 1e-5, 5e-3])
    (one,) = build.groups(named, Settings(optimizer="prodigy", learning_rate=1.0).optimizer)
    assert len(one["params"]) == 3, "Prodigy takes one rate"


def test_steps_with_learned_tokens_are_not_recorded():
    settings = Settings(learned_tokens=1)
    assert "learned tokens" in stepper.obstacle(settings.adapter, settings.machine, torch.device("cuda"))
    assert (
        Settings(method="textual-inversion").adapter.tokens == 4
        and Settings(method="prompt-tuning").adapter.tokens == 8
    )
