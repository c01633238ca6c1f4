"""What the library lets commands do, and what it makes of their results."""

from pathlib import Path

import pytest
from PIL import Image

from lora_studio import adapters, runs
from lora_studio.config.settings import Settings
from lora_studio.errors import AdapterError, SettingsError, StudioError
from lora_studio.runs import library
from lora_studio.ui.pages.library import page, work
from lora_studio.ui.pages.library.look import Look
from lora_studio.ui.pages.library.work import Cut
from tests.adapters.adapter_samples import small

HOSTILE = "<b>x</b>"


@pytest.fixture
def outputs(tmp_path) -> Path:
    folder = (tmp_path / "outputs").resolve()
    run = runs.create(Settings(data="x", name="ink"), folder)
    adapters.write(small(), run.adapter_file)
    adapters.write(small(), run.checkpoint(50) / "adapter.safetensors")
    adapters.write(small(), runs.library_folder(folder) / "rain.safetensors")
    return folder


@pytest.fixture
def entries(outputs) -> dict[str, library.Entry]:
    return {Path(entry.path).relative_to(outputs).as_posix(): entry for entry in library.entries(outputs)}


@pytest.fixture
def asked(monkeypatch):
    """Commands are not run but noted; ``asked.answers`` holds what each gives."""

    class Asked(list):
        answers = {}

        def run(self, command, *arguments):
            self.append([command, *map(str, arguments)])
            answer = self.answers[command]
            return answer(self[-1]) if callable(answer) else answer

    noted = Asked()
    monkeypatch.setattr(work.command, "run", noted.run)
    return noted


@pytest.mark.parametrize(("cut", "option", "ending"), [
    (Cut("energy", 99), ["--energy", "0.99"], "energy-99"), (Cut("rank", 8), ["--rank", "8"], "rank-8"),
    (Cut("size", 2.5), ["--size", "2.5"], "size-2_5"),
])  # fmt: skip
def test_a_measure_is_handed_on_in_the_commands_unit(cut, option, ending):
    assert cut.option() == option and cut.ending == ending


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "cut",
    [
        Cut("rank", None),
        Cut("rank", 0),
        Cut("rank", -3),
        Cut("energy", 101),
        Cut("energy", float("nan")),
        Cut("size", 0),
        Cut("size", float("inf")),
    ],
)
def test_a_measure_out_of_bounds_is_refused_with_its_bounds(cut):
    with pytest.raises(SettingsError, match="must be from"):
        cut.option()


def test_what_is_made_from_an_adapter_lies_beside_it_and_never_over_another(outputs, entries):
    assert work.beside(entries["ink/ink.safetensors"], outputs, "rank-8") == outputs / "ink" / "ink-rank-8.safetensors"
    assert (
        work.beside(entries["ink/checkpoints/step-50/adapter.safetensors"], outputs, "rank-8")
        == outputs / "ink" / "ink-step-50-rank-8.safetensors"
    )
    rain = work.beside(entries["library/rain.safetensors"], outputs, "rank-8")
    assert rain == outputs / "library" / "rain-rank-8.safetensors"
    rain.touch()
    assert work.beside(entries["library/rain.safetensors"], outputs, "rank-8").name == "rain-rank-8-2.safetensors"


@pytest.mark.fault(23, 24, 27, 28)
def test_each_refused_file_is_named_with_its_reason(outputs, asked):
    """One bad file among many hides what came of the others, or which it was."""
    asked.answers["add"] = {
        "added": ["/x/ink.safetensors"],
        "refused": [{"file": HOSTILE, "what": "It holds NaN.", "do": "Train again."}],
    }
    shown = work.take(["/tmp/ink.safetensors", "/tmp/bad.safetensors"], outputs)
    assert (
        "1 adapter in the library." in shown
        and "&lt;b&gt;x&lt;/b&gt;: It holds NaN." in shown
        and "Train again." in shown
    )
    assert asked == [["add", "/tmp/ink.safetensors", "/tmp/bad.safetensors", "--outputs", str(outputs)]]


def test_where_none_can_be_taken_each_still_has_its_reason(outputs, asked):
    def refuse(_):
        raise AdapterError(
            "a is a pickle.",
            details={
                "refused": [
                    {"file": "a.ckpt", "what": "A pickle.", "do": ""},
                    {"file": "b.bin", "what": "Another.", "do": ""},
                ]
            },
        )

    asked.answers["add"] = refuse
    shown = work.take(["a.ckpt", "b.bin"], outputs)
    assert "a.ckpt: A pickle." in shown and "b.bin: Another." in shown and "in the library" not in shown


def test_a_full_disk_is_not_a_refused_file(outputs, asked):
    def refuse(_):
        raise AdapterError("The disk is full.")

    asked.answers["add"] = refuse
    with pytest.raises(StudioError, match="disk is full"):
        work.take(["a"], outputs)


def test_many_files_go_in_several_calls(outputs, asked):
    """Windows takes no line of more than 32,767 letters."""
    asked.answers["add"] = lambda line: {"added": line[1:-2], "refused": []}
    assert "250 adapters in the library." in work.take([f"/tmp/{number}" for number in range(250)], outputs)
    assert [len(line) - 3 for line in asked] == [100, 100, 50]


TOLD = {
    "rank_before": 16,
    "rank": 8,
    "size_before": 2_000_000,
    "size": 1_000_000,
    "kept": 0.991,
    "residual": 0.09487,
    "proof": [],
}


def test_what_shrinking_costs_is_told_before_anything_is_saved(entries, asked):
    asked.answers["resize"] = TOLD
    shown = work.tried(entries["ink/ink.safetensors"], Cut("rank", 8))
    for part in ("rank 16 → 8", "2.0 MB → 1.0 MB", "99.1 % of the change kept (residual 0.0949)"):
        assert part in shown
    assert asked == [["resize", entries["ink/ink.safetensors"].path, "--rank", "8"]], "nothing may be saved"


def test_a_comparison_is_drawn_with_the_same_seeds(outputs, entries, asked):
    """Before and after differ by more than the shrinking."""

    def drawn(line):
        Image.new("RGB", (64, 64)).save(line[-1])
        return {"sheet": line[-1]}

    asked.answers = {"resize": TOLD, "grid": drawn}
    entry = entries["ink/ink.safetensors"].model_copy(update={"path": '/a, "b"/ink.safetensors'})
    shown = work.drawn(entry, Cut("rank", 8), "starter", "a cat, asleep", outputs)
    small_file, grid = asked[0][-1], asked[1]
    assert (
        grid[2] == f'adapter="/a, ""b""/ink.safetensors","{small_file}"'
        and grid[4] == 'seed="1","2"'
        and "a cat, asleep" in grid
    )
    assert 'class="sheet" src="/gradio_api/file=' in shown
    assert not [path for path in (outputs / ".cache" / "page").iterdir() if path.name.startswith(".work-")], (
        "what was drawn aside stays"
    )


def test_a_comparison_reads_the_base_model_as_the_run_did(outputs, entries, asked, tmp_path):
    """A run on a base model in several files cannot be compared, or is drawn with another VAE."""
    base = {"base": "/models/unet.safetensors", "vae": "/v", "text_encoders": ["/a", "/b"], "clip_skip": 2}
    run = runs.create(Settings(data="x", name="anime", **base), outputs)
    entry = entries["ink/ink.safetensors"].model_copy(update={"run": run.name})

    def drawn(line):
        Image.new("RGB", (64, 64)).save(line[-1])
        return {"sheet": line[-1]}

    asked.answers = {"resize": TOLD, "grid": drawn}
    for named in (base["base"], "starter"):
        work.drawn(entry, Cut("rank", 8), named, "a cat", outputs)
    given, other = (line[line.index("--base") : line.index("-o")] for line in asked[1::2])
    options = ["--vae", "/v", "--text-encoders", "/a", "--text-encoders", "/b", "--clip-skip", "2"]
    assert given == ["--base", "/models/unet.safetensors", *options] and other == ["--base", "starter"]


@pytest.mark.parametrize(
    ("base", "prompt", "missing"), [("", "a cat", "base model is missing"), ("starter", "", "prompt is missing")]
)
def test_there_must_be_something_to_draw_with(outputs, entries, asked, base, prompt, missing):
    with pytest.raises(SettingsError, match=missing):
        work.drawn(entries["ink/ink.safetensors"], Cut("rank", 8), base, prompt, outputs)
    assert not asked


def test_the_analysis_is_words_and_three_plots_and_markup_only_of_ours(outputs, entries, asked):
    def analysed(line):
        paths = [str(Path(line[line.index("--plots") + 1], f"{name}.png")) for name in "abc"]
        for path in paths:
            Image.new("RGB", (64, 64)).save(path)
        return {"words": [HOSTILE], "plots": paths, "blocks": {"mid_block": 1.0}}

    asked.answers["analyze"] = analysed
    shown, blocks = work.analyzed(entries["ink/ink.safetensors"], "starter", outputs)
    assert blocks == {"mid_block": 1.0}
    assert (
        shown.count('class="diagram"') == 3
        and "&lt;b&gt;" in shown
        and HOSTILE not in shown
        and asked[0][-2:] == ["--base", "starter"]
    )
    work.analyzed(entries["ink/ink.safetensors"], "", outputs)
    assert "--base" not in asked[1]


def test_what_was_asked_of_one_adapter_is_not_shown_under_another(outputs, asked):
    """An analysis that took long appears below the adapter that was chosen meanwhile."""
    with page.gr.Blocks():
        room = page.LibraryPage(outputs)
    look = Look(chosen="library/rain.safetensors")
    asked.answers["resize"] = TOLD
    nothing, busy, priced = list(room.shrink.estimate(look, "rank", 8))
    assert not nothing[room.shrink.save]["visible"] and "Trying…" in busy[room.shrink.result]["value"]
    assert "rank 16 → 8" in priced[room.shrink.result]["value"] and priced[room.shrink.save]["visible"]
    still = room.shrink.estimate(look, "rank", 8)
    next(still), next(still)
    look.chosen = "ink/ink.safetensors"
    assert all(update == page.gr.skip() for update in next(still).values())
    saving = room.save_smaller(look, "rank", 8)
    next(saving)
    asked.answers["resize"] = {**TOLD, "file": str(outputs / "ink" / "x.safetensors")}
    look.chosen = "library/rain.safetensors"
    saved = next(saving)
    assert saved[room.shrink.result] == page.gr.skip()
    assert "2 adapters" in saved[room.shelf.cards], "what was made is still on the shelf"


def test_without_a_known_cost_nothing_can_be_saved(outputs, asked):
    with page.gr.Blocks():
        shrink = page.LibraryPage(outputs).shrink
    *_, seen = shrink.estimate(Look(chosen="library/rain.safetensors"), "rank", 0)
    assert "must be from 1" in seen[shrink.result]["value"]
    assert not seen[shrink.save]["visible"] and not seen[shrink.comparison]["visible"]
    *_, seen = shrink.estimate(Look(chosen="library/gone.safetensors"), "rank", 8)
    assert "is gone" in seen[shrink.result]["value"] and not seen[shrink.save]["visible"] and not asked


def test_a_refusal_that_names_its_file_does_not_name_it_twice(outputs, asked):
    asked.answers["add"] = {"added": [], "refused": [{"file": "old.ckpt", "what": "old.ckpt is a pickle.", "do": ""}]}
    assert "<b>old.ckpt is a pickle.</b>" in work.take(["old.ckpt"], outputs)
