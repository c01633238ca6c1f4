"""Prompt pairs: a file of them says exactly what a slider learns, or exactly what is wrong with it."""

import pytest
import tomli_w
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from lora_studio.config.settings import Settings
from lora_studio.dataset import folder, manifest, slider_pairs, sources
from lora_studio.dataset.items import PromptPair
from lora_studio.errors import DatasetError, SettingsError, StudioError

SIZE = '[[pair]]\nprompt = "a house"\ntowards = "a large house"\naway = "a small house"\n'
WEIGHT = "weight must be a number above 0 and at most 100;"
SNOW = '[[pair]]\nerase = "snow"\n'


def read(folder, text):
    path = folder / "size.toml"
    path.write_text(text, "utf-8")
    return slider_pairs.read(path)


def refused(folder, text) -> str:
    with pytest.raises(StudioError) as told:
        read(folder, text)
    return str(told.value)


def test_a_pair_moves_a_concept_at_its_prompt(tmp_path):
    assert read(tmp_path, f"{SIZE}weight = 2\n") == [
        PromptPair("a house", "a house", "a large house", "a small house", 2.0)
    ]


def test_a_concept_is_erased_into_the_empty_prompt_or_another(tmp_path):
    found = read(tmp_path, f'{SNOW}{SNOW}prompt = " rain "')
    assert found == [PromptPair("snow", "", "", "snow"), PromptPair("snow", "rain", "rain", "snow")]
    assert all(pair.erases for pair in found)
    assert read(tmp_path, slider_pairs.written(found)) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "The file has no pair. [size.toml] Write [[pair]], and below it prompt, towards and away; or two"),
        ("[pairs]", "There is no table named 'pairs'. [size.toml] Write [[pair]] before each pair."),
        ("[pair]", "pair is not a list of tables. [size.toml: pair] Write [[pair]] before each pair, in two brackets"),
        (f"{SIZE}[[pair]]\n", "prompt is missing. [size.toml: pair 2] A pair needs prompt, towards and away;"),
        (f"{SIZE}toward = 'x'", "A pair has no 'toward'. [size.toml: pair 1] Did you mean towards?"),
        ("[[pair]]\nprompt = 3", "prompt must be text; it is 3. [size.toml: pair 1, prompt] Write it in quotes:"),
        (SIZE.replace("small", "large"), "towards and away are the same prompt. [size.toml: pair 1] Write in which"),
        (f"{SIZE}weight = 0", f"{WEIGHT} it is 0. [size.toml: pair 1, weight] 1 is usual; 2 counts twice as much."),
        (f"{SIZE}weight = true", f"{WEIGHT} it is True. [size.toml: pair 1, weight]"),
        (f"{SIZE}weight = nan", f"{WEIGHT} it is nan. [size.toml: pair 1, weight]"),
        (f'{SNOW}away = "x"', "erase stands beside away. [size.toml: pair 1, away] Leave one of the two out:"),
        ('[[pair]]\nerase = " "', "erase is empty. [size.toml: pair 1, erase] Write in erase what is to be erased,"),
        (f'{SNOW}prompt = "snow"', "erase and prompt are the same. [size.toml: pair 1, erase] Write in erase"),
        (SIZE + SNOW, "Some pairs move a concept and others erase one. [size.toml] Put them into two files,"),
        (SNOW * 1001, "The file has 1,001 pairs; the limit is 1,000. [size.toml] Keep the best of them"),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_file_pair_and_field(tmp_path, text, told):
    assert refused(tmp_path, text).startswith(told)


def test_a_file_that_is_no_toml_or_not_there_is_told(tmp_path):
    assert "size.toml is not valid TOML" in refused(tmp_path, "[[pair]")
    with pytest.raises(SettingsError, match="gone.toml cannot be read: No such file"):
        slider_pairs.read(tmp_path / "gone.toml")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANY = st.recursive(
    TEXTS | st.booleans() | st.integers(-5, 200) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*slider_pairs.FIELDS, "x"]), inner),
    max_leaves=6,
)
PAIRS = st.fixed_dictionaries(
    {"prompt": TEXTS, "towards": TEXTS, "away": TEXTS}, optional={"weight": st.integers(1, 100)}
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path, pairs):
    text = tomli_w.dumps({"pair": pairs})
    if any(one["towards"].strip() == one["away"].strip() for one in pairs):
        assert "towards and away are the same prompt." in refused(tmp_path, text)
        return
    own = ((one["prompt"].strip(), one["towards"].strip(), one["away"].strip(), one.get("weight", 1)) for one in pairs)
    found = read(tmp_path, text)
    assert found == [PromptPair(plain, plain, *others) for plain, *others in own]
    assert read(tmp_path, slider_pairs.written(found)) == found


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["pair", "pairs"]), ANY) | st.fixed_dictionaries({"pair": st.lists(ANY)}))
def test_whatever_a_file_holds_it_is_pairs_or_an_error_that_names_it(tmp_path, table):
    try:
        found = read(tmp_path, tomli_w.dumps(table))
    except StudioError as error:
        assert "size.toml" in str(error)
    else:
        assert found and all(0 < pair.weight <= 100 and pair.towards != pair.away for pair in found)


def test_a_run_reads_them_where_data_names_a_toml_file_and_notes_what_changed(tmp_path):
    path = tmp_path / "size.toml"
    path.write_text(SIZE, "utf-8")
    dataset = sources.scan(Settings(data=str(path)))
    assert (dataset.folder, len(dataset.pairs), dataset.pictures, dataset.blocking) == (path, 1, [], [])
    before = manifest.manifest(dataset)
    path.write_text(SIZE.replace("large", "huge") + "weight = 3\n" + SIZE, "utf-8")
    assert manifest.changes_since(before, sources.scan(Settings(data=str(path)))) == [
        "pair 1 has other prompts.",
        "pair 1 has the weight 3 instead of 1.",
        "pair 2 was added.",
    ]
    assert sources.scan(Settings(data=str(tmp_path))).blocking[0].kind == "no pictures"
    with pytest.raises(DatasetError, match="no pair"):
        path.write_text("", "utf-8")
        sources.scan(Settings(data=str(path)))


PICTURES = '[[pair]]\nprompt = "anna"\ntowards_picture = "a.png"\naway_picture = "sub/b.png"\n'


def painted(folder, **sizes):
    for name, size in sizes.items():
        path = folder / (f"sub/{name}.png" if name == "b" else f"{name}.png")
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, f"#{'0a'[name == 'b']}08040").save(path)


def test_a_pair_of_pictures_is_found_beside_its_file_with_the_prompt_as_caption(tmp_path):
    painted(tmp_path, a=(64, 48), b=(64, 48), c=(9, 9))
    (tmp_path / "a.txt").write_text("another caption")
    found = sources.scan(Settings(data=str(tmp_path / "size.toml"))) if read(tmp_path, PICTURES) else None
    assert found.pairs == [PromptPair("anna", "anna", "anna", "anna", 1.0, ("a.png", "sub/b.png"))]
    assert [found.name(one) for one in found.pictures] == ["a.png", "sub/b.png"]
    assert {one.full_caption for one in found.pictures} == {"anna"} and not found.pairs[0].erases
    assert read(tmp_path, slider_pairs.written(found.pairs)) == found.pairs
    assert manifest.manifest(found)["pair 1"]["pictures"] == ["a.png", "sub/b.png"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PICTURES.replace("away_picture", "# "), "away_picture is missing. [size.toml: pair 1] Write beside the other"),
        (f'{PICTURES}away = "x"', "away stands beside pictures. [size.toml: pair 1, away] Leave one of the two out:"),
        (f'{PICTURES}erase = "x"', "erase stands beside towards_picture. [size.toml: pair 1, towards_picture] Leave"),
        (PICTURES.replace("sub/b", "a"), "Both pictures are the same file. [size.toml: pair 1] Name the picture"),
        (PICTURES + SIZE, "Some pairs are of prompts and others of pictures. [size.toml] Put them into two files,"),
        (PICTURES.replace("a.png", "../a.png"), "There is no picture ../a.png beside the file. [size.toml: pair 1]"),
        (PICTURES.replace("a.png", "d.png"), "There is no picture d.png beside the file. [size.toml: pair 1] Put it"),
        (PICTURES.replace("a.png", "c.png"), "The two pictures do not show the same part: 9 × 9 and 64 × 48 pixels."),
        (PICTURES.replace("a.png", "bad.png"), "[size.toml: pair 1, bad.png]"),
    ],
)
def test_what_is_wrong_with_a_pair_of_pictures_is_said(tmp_path, text, told):
    painted(tmp_path, a=(64, 48), b=(64, 48), c=(9, 9))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "size.toml").write_text(text, "utf-8")
    with pytest.raises(StudioError) as error:
        slider_pairs.scan(tmp_path / "size.toml")
    assert told in str(error.value)


def test_only_the_folders_of_named_pictures_are_read(tmp_path, monkeypatch):
    """A file in a home folder takes minutes, since all pictures below it are read."""
    painted(tmp_path, a=(64, 48), b=(64, 48))
    (tmp_path / "other").mkdir()
    seen, scan = [], folder.scan
    monkeypatch.setattr(folder, "scan", lambda place, *given, **more: seen.append(place) or scan(place, *given, **more))
    (tmp_path / "size.toml").write_text(PICTURES, "utf-8")
    assert len(slider_pairs.scan(tmp_path / "size.toml").pictures) == 2
    assert seen == [tmp_path.resolve(), (tmp_path / "sub").resolve()]
