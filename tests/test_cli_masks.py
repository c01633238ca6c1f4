"""``masks``: made, listed, undone, and nothing written unasked."""

import hashlib
import json

import pytest
from PIL import Image

from lora_studio import cli
from lora_studio.dataset.folder import scan
from tests.dataset import made
from tests.vision import tiny


@pytest.fixture
def style(tmp_path):
    """Three pictures, one of them half transparent."""
    folder = made.style_folder(tmp_path / "style", 2)
    picture = made.painted(seed=5, mode="RGBA")
    picture.putalpha(Image.new("L", (64, 64), 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
    picture.save(folder / "clear.png")
    return folder


@pytest.fixture
def run(style, tmp_path, capfd):
    """Runs the command on ``style``: its exit status, its result, and what it said."""

    def run(*arguments):
        status = cli.main(["masks", str(style), "--outputs", str(tmp_path / "outputs"), "--json", *arguments])
        said = capfd.readouterr()
        return status, json.loads(said.out.splitlines()[-1])

    return run


def files_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def learned(style):
    return {one.path.name: one.mask.path.name if one.mask else "" for one in scan(style).pictures}


def test_nothing_is_written_unasked_or_in_a_dry_run(style, run):
    before = files_of(style)
    status, told = run("--alpha", "--dry-run")
    assert (status, told["masks"], told["written"]) == (0, [{"picture": "clear.png", "learned": 0.5}], False)
    status, told = run("--alpha")
    assert status == 2 and "--yes" in told["error"]["do"]
    assert files_of(style) == before and not (style / ".lora_studio").exists()


def test_masks_are_made_listed_combined_and_undone(style, run):
    before = files_of(style)
    assert run("--alpha", "--yes")[1]["written"]
    assert learned(style) == {"0.png": "", "1.png": "", "clear.png": "clear-masklabel.png"}
    _, told = run("--corner", "bottom-right", "--size", "50x50%")
    assert [one["learned"] for one in told["masks"]] == [0.75, 0.75, 0.25], "what was hidden stays hidden"
    _, told = run()
    assert told["pictures"] == 3
    assert told["masks"][2] == {"picture": "clear.png", "mask": "clear-masklabel.png", "learned": 0.25}
    assert run("--invert", "--only", "0.png")[1]["masks"] == [{"picture": "0.png", "learned": 0.25}]
    for names in (["0.png"], ["0.png", "1.png", "clear.png"], ["clear.png"], []):
        assert run("--undo")[1]["pictures"] == names
    assert files_of(style) == before


def test_masks_are_removed(style, run):
    run("--box", "0,0,100,50%", "--yes")
    assert run("--remove", "--only", "0.png")[1]["masks"] == [{"picture": "0.png", "learned": 1.0}]
    assert [one["picture"] for one in run()[1]["masks"]] == ["1.png", "clear.png"]


def test_a_model_of_the_u2net_kind_makes_masks(style, run, tmp_path):
    model = str(tiny.u2net(tmp_path / "u2net.onnx"))
    _, subject = run("--segment", model, "--yes")
    _, background = run("--segment", model, "--keep", "background", "--replace")
    both = zip(subject["masks"], background["masks"], strict=True)
    assert len(subject["masks"]) == 3
    assert all(one["learned"] + other["learned"] == pytest.approx(1, abs=1e-6) for one, other in both)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--alpha", "--corner", "top-left"], "--alpha and --corner are separate steps"),
        (["--corner", "top-left", "--size", "20"], "'20' is not a size"),
        (["--box", "80,90,10,100"], "not a box"),
        (["--box", "80,90"], "not a box"),
        (["--alpha", "--only", "9.png"], "There is no picture 9.png"),
        (["--segment", "/none/such.onnx"], "such.onnx"),
    ],
)
def test_a_mistake_is_said_in_one_message(run, arguments, said):
    status, told = run(*arguments)
    assert status == 2 and said in told["error"]["what"]
