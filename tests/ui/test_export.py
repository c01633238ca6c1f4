"""What the Export page asks the command for, and what it says of a proof."""

from pathlib import Path

import pytest
import torch

from lora_studio import adapters, runs
from lora_studio.adapters import Adapter, stored
from lora_studio.adapters.embedding import Embedding
from lora_studio.errors import AdapterError
from lora_studio.ui import exporting
from lora_studio.ui.pages import export
from lora_studio.ui.pages.export import FORMATS, NUMBERS, PRIVACY, ExportPage
from tests.adapters.adapter_samples import Q, factors, small

ROW = {
    "target": "comfyui",
    "modules": 7,
    "matched": 7,
    "ignored": 0,
    "worst": 0.0,
    "where": "",
    "tolerance": 1e-5,
    "passed": True,
    "note": "",
}


@pytest.fixture
def outputs(tmp_path) -> Path:
    folder = (tmp_path / "outputs").resolve()
    adapters.write(small(), runs.library_folder(folder) / "rain.safetensors", metadata={"modelspec.title": "Rain"})
    return folder


@pytest.fixture
def page(outputs) -> ExportPage:
    with export.gr.Blocks():
        return ExportPage(outputs)


@pytest.fixture
def asked(monkeypatch):
    """``convert`` is not run but noted; it writes something where it should and tells of ``asked.residual``."""

    class Asked(list):
        residual = 0.0

        def run(self, command, *arguments):
            self.append([command, *map(str, arguments)])
            Path(self[-1][-1]).write_bytes(b"x")
            return {"residual": self.residual, "privacy": "minimal", "proof": [ROW]}

    noted = Asked()
    monkeypatch.setattr(exporting.command, "run", noted.run)
    return noted


def exported(page, key="library/rain.safetensors", targets=("comfyui",), **more) -> str:
    """What the page shows at the end."""
    form = {
        "adapter": key,
        "format": "kohya",
        "targets": list(targets),
        "number": "",
        "privacy": "minimal",
        "name": "",
        "base": "",
        "form": "lora",
        "rank": 0,
        **more,
    }
    return list(page.export({getattr(page, name): value for name, value in form.items()}))[-1]["value"]


def test_the_form_reaches_the_command(page, outputs, asked):
    exported(
        page,
        targets=("comfyui", "peft"),
        number="fp16",
        privacy="none",
        name="../my file",
        base="ignored for a LoRA",
        rank=7,
    )
    (line,) = asked
    assert line[:2] == ["convert", str(outputs / "library" / "rain.safetensors")]
    assert line[2:-2] == [
        "--to",
        "kohya",
        "--privacy",
        "none",
        "--target",
        "comfyui",
        "--target",
        "peft",
        "--dtype",
        "fp16",
    ]
    assert Path(line[-1]).name == "my-file.safetensors" and not Path(line[-1]).exists(), "only what is offered stays"


def test_learned_words_can_be_left_out_or_exported_alone(outputs, page, asked):
    """Words that were learned beside layers can be had on the command line alone."""
    path = runs.library_folder(outputs) / "pivotal.safetensors"
    word = Adapter(
        small().factors, embeddings={"rainstyle": Embedding("rainstyle", {"text_encoder": torch.ones(2, 48)})}
    )
    adapters.write(word, path)
    offered = page.offer("library/pivotal.safetensors")
    assert offered[page.words] == export.gr.update(visible=True, value="bundled")
    assert offered[page.targets] == ["comfyui", "forge", "a1111"], "diffusers reads no file with words in it"
    assert page.offer("library/rain.safetensors")[page.words]["visible"] is False
    names = {page.adapter: "library/pivotal.safetensors", page.words: "only", page.name: "pivotal"}
    assert page.name_of(names) == "rainstyle" and page.name_of({**names, page.name: "mine"}) == "mine"
    for kept in ("bundled", "none", "only"):
        exported(page, "library/pivotal.safetensors", words=kept)
    assert [line[8:-2] for line in asked] == [[], ["--words", "none"], ["--words", "only"]]


def test_choices_are_those_of_the_command():
    """A level or a program that the command does not know is offered."""
    from lora_studio.adapters.kinds import PLAIN_READERS
    from lora_studio.adapters.metadata import Privacy
    from lora_studio.adapters.proof import TARGETS
    from lora_studio.cli.adapters import Number

    assert set(PRIVACY) == set(Privacy) and set(NUMBERS) == {"", *Number}
    assert set(FORMATS) == set(PLAIN_READERS)
    assert set(export.PROGRAMS) == set(TARGETS)


def test_a_dora_asks_for_its_base_and_says_what_the_plain_lora_lacks(outputs, page, asked):
    """The page claims that a program reads a DoRA unchanged, which no two programs do alike."""
    dora = Adapter({Q: factors(Q, 64, 64, dora=True)})
    adapters.write(dora, runs.library_folder(outputs) / "dora.safetensors", raw_dora=True)
    offered = page.offer("library/dora.safetensors")
    assert offered[page.converted]["visible"] and offered[page.base]["value"] == "starter"
    assert offered[page.form]["value"] == "lora" and offered[page.base]["visible"] and offered[page.rank]["visible"]
    asked.residual = 0.0312
    shown = exported(page, "library/dora.safetensors", base="starter", rank=12.0)
    assert asked[0][-8:-2] == ["--form", "lora", "--base", "starter", "--rank", "12"]
    assert "reads this plain LoRA as it was written" in shown and "s by 3.1 %." in shown
    assert "reads the adapter as it is here" not in shown and "warned" not in shown
    asked.residual = 0.45
    assert "warned" in exported(page, "library/dora.safetensors", base="starter")
    assert "The rank must be from 0 to 4,096; it is -3." in exported(
        page, "library/dora.safetensors", base="starter", rank=-3
    )
    assert page.offer("library/rain.safetensors")[page.converted]["visible"] is False


def test_a_loha_is_kept_unless_another_form_is_chosen(outputs, page, asked):
    """Its file would be larger for nothing, or be proved for a program that does not read it."""
    parts = {
        f"hada_w{side}_{end}": torch.ones(*shape) for side in "12" for end, shape in (("a", (64, 2)), ("b", (2, 64)))
    }
    adapters.write(Adapter({Q: stored.factors(parts, Q)}), runs.library_folder(outputs) / "ha.safetensors")
    key = "library/ha.safetensors"
    offered = page.offer(key)
    assert offered[page.form]["value"] == "own" and ("Keep the LoHa", "own") in offered[page.form]["choices"]
    assert not offered[page.base]["visible"] and not offered[page.rank]["visible"]
    chosen = page.choose({page.adapter: key, page.format: "kohya", page.form: "own"})
    assert chosen[page.targets] == ["comfyui", "forge", "a1111"]
    chosen = page.choose({page.adapter: key, page.format: "kohya", page.form: "lora"})
    assert "diffusers" in chosen[page.targets] and chosen[page.rank]["visible"]
    chosen = page.choose({page.adapter: key, page.format: "peft", page.form: "own"})
    assert chosen[page.targets] == ["peft"] and chosen[page.form]["value"] == "lora"
    exported(page, key, form="own", rank=5)
    exported(page, key, form="lora", rank=5)
    assert asked[0][-4:-2] == ["--form", "own"] and asked[1][-6:-2] == ["--form", "lora", "--rank", "5"]


def test_a_failed_proof_offers_no_file(page, monkeypatch):
    def refuse(*_):
        raise AdapterError(
            "ComfyUI would not read it.",
            details={"proof": [{**ROW, "passed": False, "worst": None, "note": "It finds 0 of 7 modules."}]},
        )

    monkeypatch.setattr(exporting.command, "run", refuse)
    shown = exported(page)
    assert (
        "It finds 0 of 7 modules." in shown
        and 'class="failed"' in shown
        and "download" not in shown
        and "Proved" not in shown
    )


@pytest.mark.fault(41)
def test_a_full_disk_is_reported(page, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(exporting.tempfile, "TemporaryDirectory", refuse)
    assert "No space left on device" in exported(page)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"key": None}, "No adapter is chosen."),
        ({"key": "../x"}, "No adapter is chosen."),
        ({"targets": ()}, "No program is chosen"),
    ],
)
def test_half_an_order_is_not_run(page, asked, order, says):
    assert says in exported(page, **order) and not asked


def test_the_latest_adapter_is_offered_where_none_is_named(page, outputs):
    offered = page.offer(None)
    assert offered[page.adapter]["value"] == "library/rain.safetensors" and offered[page.name] == "rain"
    assert "Built-in starter" in offered[page.facts]
    (outputs / "library" / "rain.safetensors").unlink()
    offered = page.offer("library/rain.safetensors")
    assert offered[page.adapter]["value"] is None and "There is no adapter yet" in offered[page.facts]
