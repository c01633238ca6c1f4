"""The command ``pictures``."""

import json

import pytest
from PIL import Image

from lora_studio import cli
from lora_studio.config.settings import Settings
from lora_studio.curation.collection import Collection
from lora_studio.curation.target import Target
from lora_studio.dataset import preparation
from lora_studio.dataset.folder import scan
from lora_studio.dataset.preparation import FolderOptions, Preparation
from lora_studio.ui.pages.pictures import picture_list
from lora_studio.ui.pages.pictures.look import PicturesLook
from lora_studio.ui.pages.train import pictures as train_page


@pytest.fixture
def folder(tmp_path):
    for name, size, caption in (("a", (256, 256), "boat, evening"), ("b", (300, 100), "boat"), ("c", (64, 64), "")):
        Image.effect_noise(size, 80).convert("RGB").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    (tmp_path / ".lora_studio").mkdir()
    (tmp_path / ".lora_studio" / "preparation.json").write_text(
        '{"version": 1, "left_out": ["c.png"], "crops": {"a.png": [0, 0, 0.5, 1]}}'
    )
    return tmp_path


def test_a_folder_is_told_as_it_will_be_trained(folder, capfd, tmp_path):
    """The terminal says something else than the page and the training do."""
    before = sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    arguments = ["pictures", str(folder), "--outputs", str(tmp_path / "outputs")]
    assert cli.main([*arguments, "--json", "--trigger", "zorp"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["pictures"], told["trained"], told["left_out"]) == (3, 2, ["c.png"])
    assert told["resolution"] == 128 and told["buckets"] == {"64 × 128": 1, "192 × 64": 1}
    assert told["tags"] == {"boat": 2, "evening": 1}
    first, second, _ = told["cards"]
    assert (first["bucket"], first["box"], first["marks"]) == ([64, 128], [0, 0, 128, 256], ["own crop"])
    assert second["seen"] == 1 and second["tokens"] > 1
    assert {one["kind"] for one in told["problems"]} == {"left out"}
    assert cli.main(arguments) == 0
    lines = capfd.readouterr().out
    assert "3 pictures: 2 train, 1 left out. Prepared for 128 × 128." in lines and "boat     2" in lines
    now = sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and "outputs" not in path.parts)
    assert now == before


def test_sizes_follow_the_resolution(folder, capfd, tmp_path):
    assert cli.main(["pictures", str(folder), "--resolution", "64", "--json", "--outputs", str(tmp_path / "o")]) == 0
    assert json.loads(capfd.readouterr().out)["resolution"] == 64


@pytest.mark.parametrize(("name", "said"), [("none", "There is no folder"), ("empty", "no picture")])
def test_a_folder_without_pictures_is_a_mistake(tmp_path, capfd, name, said):
    (tmp_path / "empty").mkdir()
    assert cli.main(["pictures", str(tmp_path / name), "--outputs", str(tmp_path / "outputs")]) == 2
    assert said in capfd.readouterr().err


def test_class_pictures_are_counted_apart_wherever_a_folder_is_told(folder, capfd, tmp_path):
    """In the terminal and on both pages."""
    (folder / "1_man").mkdir()
    for index in range(2):
        Image.effect_noise((64, 64), 50 + index).convert("RGB").save(folder / "1_man" / f"{index}.png")
    preparation.write(folder, Preparation(folders={"1_man": FolderOptions(regularisation=True)}))
    assert cli.main(["pictures", str(folder), "--outputs", str(tmp_path / "outputs")]) == 0
    assert "5 pictures: 5 train (2 class pictures), 0 left out." in capfd.readouterr().out
    dataset = scan(folder)
    assert train_page._sentence(dataset, Settings(data=str(folder))) == "3 pictures train, 2 class pictures."
    settings = Settings(data=str(folder), trigger="zorp")
    collection = Collection.of(dataset, Target.of(settings))
    assert "2 class pictures" in picture_list._title(PicturesLook(settings), collection)
    tokens = {name: card.tokens for name, card in collection.cards.items()}
    assert tokens["c.png"] > tokens["1_man/0.png"], "the trigger word, which class pictures have not"


def test_choices_about_what_is_gone_are_removed_on_request(folder, capfd, tmp_path):
    (folder / "a.png").unlink()
    arguments = ["pictures", str(folder), "--outputs", str(tmp_path / "outputs")]
    assert cli.main(arguments) == 0
    assert "or with python3 app.py pictures DIR --tidy" in capfd.readouterr().out
    assert cli.main([*arguments, "--tidy"]) == 0
    assert capfd.readouterr().out.startswith("Choices about a.png removed.")
    assert cli.main(arguments) == 0
    assert "--tidy" not in capfd.readouterr().out
    assert preparation.read(folder)[0] == Preparation(left_out=frozenset({"c.png"}))
