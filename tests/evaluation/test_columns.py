"""Further columns are measured of pictures that were kept, and kept with what was judged."""

import pytest
from PIL import Image

from lora_studio import runs
from lora_studio.config.settings import Settings
from lora_studio.errors import RunError
from lora_studio.evaluation import columns, judgements
from lora_studio.evaluation.judgements import Conditions, Judgement, JudgingPlan
from lora_studio.evaluation.value import Value
from tests.vision.test_scorers import classifier, clip

PLAN = JudgingPlan(("a boat", "a house"), seeds=2)
STYLES = (49.0, 51.0) * 500
"""As many as the columns have: every measure of a judgement is resampled alike."""


@pytest.fixture
def run(tmp_path):
    """A run whose step 5 was judged, by hand."""
    data = tmp_path / "data"
    data.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(data / f"{colour}.png")
    made = runs.create(Settings(data=str(data), name="a"), tmp_path / "outputs")
    place = judgements.folder(made)
    judgement = Judgement(5, Value(50, 40, 60), Value(0.5), Value(0.4), Value(1.0), (), {"style": STYLES})
    judgements.write(judgement, Conditions("key", PLAN), place)
    for name in ("0-0", "0-1", "1-0", "1-1"):
        Image.new("RGB", (64, 64), "green").save(place / "step-5" / f"{name}.png")
    return made


def test_columns_are_kept_with_the_judgement(run, tmp_path):
    folders = [clip(tmp_path / "clip"), classifier(tmp_path / "one" / "taste", ["score"], [6.5])]
    folders.append(classifier(tmp_path / "two" / "taste", ["score"], [2.5]))
    found, training = columns.add_to_judged(run, judgements.judged(run), folders)
    assert found[0].extra == {
        "clip text": pytest.approx((0.6, 0.6, 0.6)),
        "clip pictures": pytest.approx((1.0, 1.0, 1.0)),
        "taste score": (6.5, 6.5, 6.5),
        "two/taste score": (2.5, 2.5, 2.5),
    }
    assert training["taste score"] == 6.5 and training["clip text"] is None
    assert judgements.judged(run) == found
    assert found[0].samples["style"] == STYLES and len(found[0].samples["taste score"]) == 1000


def test_a_missing_picture_is_told(run, tmp_path):
    (judgements.folder(run) / "step-5" / "1-0.png").unlink()
    folder = classifier(tmp_path / "taste", ["score"], [6.5])
    with pytest.raises(RunError, match="cannot be read: 1-0.png") as error:
        columns.add_to_judged(run, judgements.judged(run), [folder])
    assert "it is judged again" in error.value.do
