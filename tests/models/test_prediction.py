"""What a base model predicts and how its noise ends, from its marks, from its own answer and from the user's choice."""

from pathlib import Path

import pytest
import torch

from lora_studio import models
from lora_studio.errors import ModelError, SettingsError
from lora_studio.families import registry
from lora_studio.models import prediction, shapes
from lora_studio.models.prediction import NoiseChoice
from lora_studio.models.weights import Weights
from lora_studio.sampling.generate import generate
from lora_studio.sampling.image_settings import ImageSettings
from tests.models import tiny

EPSILON, V = {"modelspec.prediction_type": "epsilon"}, {"modelspec.prediction_type": "v"}
SAYS_NOTHING = {"format": "pt"}


@pytest.fixture(scope="module")
def loaded(tiny_file):
    """Loads each family once, with what a test says of its marks."""
    return {family: models.load(str(tiny_file(family))) for family in ("sd1", "sdxl")}


@pytest.fixture
def settled(loaded):
    """The model of a family, settled anew by a file's marks and a choice."""

    def settle(family, marks=(), metadata=SAYS_NOTHING, **choice):
        base = loaded[family]
        base.notices = []
        prediction.settle(base, prediction.of_file(base.family, header(marks, metadata)), NoiseChoice(**choice))
        return base

    return settle


def header(marks, metadata):
    weights = Weights([])
    weights.shapes, weights.metadata = dict.fromkeys(marks, (0,)), dict(metadata)
    return weights


def answers(monkeypatch, echo, rest=0.1):
    """The model answers with ``echo`` times its input and other numbers beside it."""
    other = torch.Generator().manual_seed(1)

    def predict(self, noisy, timesteps, text, sizes=None):
        assert timesteps.tolist() == [999]
        return echo * noisy + rest * torch.randn(noisy.shape, generator=other)

    monkeypatch.setattr(models.Base, "predict", predict)


@pytest.mark.parametrize(
    ("marks", "metadata", "name", "zero_snr", "reason"),
    [
        ((), EPSILON, "epsilon", False, "the file's modelspec.prediction_type"),
        ((), V, "v", True, "the file's modelspec.prediction_type; zero terminal SNR on: as nearly all models of "),
        (("v_pred", "ztsnr"), {}, "v", True, "the file's mark v_pred; zero terminal SNR on: the file's mark ztsnr"),
        (("v_pred",), {}, "v", False, "the file's mark v_pred; zero terminal SNR off: its mark v_pred comes without"),
        ((), {"modelspec.predict_key": "v", "ss_zero_terminal_snr": "False"}, "v", False, "the file's modelspec.pred"),
        ((), {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, "v", True, "the file's ss_v_param"),
        ((), {"modelspec.prediction_type": "rectified_flow"}, "flow", False, "the file's modelspec.prediction_type"),
        (
            (),
            {"modelspec.noise_process": "flow", "modelspec.prediction_type": "velocity"},
            "flow",
            False,
            "the file's modelspec.noise_process",
        ),
    ],
)
def test_marks_of_an_sdxl_file(marks, metadata, name, zero_snr, reason, settled):
    base = settled("sdxl", marks, metadata)
    assert (base.process.name, base.process.zero_snr) == (name, zero_snr)
    assert base.reason.startswith(reason)


@pytest.mark.parametrize(
    ("metadata", "choice", "name", "zero_snr"),
    [
        (V, {}, "v", False),
        (EPSILON, {"prediction": "v"}, "v", False),
        (V, {"zero_snr": "on"}, "v", True),
    ],
)
def test_velocity_in_sd1_keeps_its_betas_unless_it_says_otherwise(metadata, choice, name, zero_snr, settled):
    base = settled("sd1", (), metadata, **choice)
    assert (base.process.name, base.process.zero_snr) == (name, zero_snr)
    assert (base.process.alpha_bar(torch.tensor([999])).item() < 1e-6) == zero_snr


@pytest.mark.parametrize(
    ("marks", "choice", "zero_snr"),
    [
        ((), {"prediction": "v"}, True),
        ((), {"prediction": "v", "zero_snr": "off"}, False),
        ((), {"prediction": "v", "zero_snr": "marked"}, False),
        (("v_pred", "ztsnr"), {"prediction": "v", "zero_snr": "marked"}, True),
        (("v_pred", "ztsnr"), {"prediction": "v"}, True),
        (("v_pred",), {"prediction": "v"}, False),
        ((), {"prediction": "epsilon"}, False),
        ((), {"prediction": "epsilon", "zero_snr": "on"}, True),
        ((), {"prediction": "flow", "zero_snr": "on"}, False),
    ],
)
def test_velocity_by_hand_in_sdxl_rescales_its_betas(marks, choice, zero_snr, settled):
    base = settled("sdxl", marks, **choice)
    assert base.process.zero_snr == zero_snr and base.reason.startswith("set by hand")


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("echo", "rest", "name", "reason", "doubts"),
    [
        (0.95, 0.1, "epsilon", "the model answered pure noise with that noise (correlation 0.99)", 0),
        (-0.05, 0.1, "v", "the model answered pure noise with something else (correlation -0.4", 0),
        (0.0, 0.1, "v", "the model answered pure noise with something else (correlation ", 0),
        (0.8, 0.6, "epsilon", "the model answered pure noise with that noise (correlation 0.8", 1),
        (0.4, 0.9, "v", "the model answered pure noise with something else (correlation 0.4", 1),
        (float("nan"), 0.1, "epsilon", "as its family", 1),
    ],
)
def test_a_file_without_marks_is_asked(family, echo, rest, name, reason, doubts, settled, monkeypatch):
    """ε at the last timestep is the noise itself; v is −x₀, hardly related to it."""
    answers(monkeypatch, echo, rest)
    base = settled(family)
    assert base.process.name == name and base.reason.startswith(reason)
    assert len(base.notices) == doubts
    assert all("uncertain" in notice.what and notice.where == "prediction" for notice in base.notices)
    assert all(("may be damaged" if echo != echo else "rectified flow") in notice.do for notice in base.notices)
    assert base.process.zero_snr == (family == "sdxl" and name == "v")


@pytest.mark.parametrize(
    ("turned", "name", "reason", "doubts"),
    [
        (lambda v, noisy, signal, noise: v, "v", "something else (correlation 0.05)", 0),
        (lambda v, noisy, signal, noise: noise * noisy + signal * v, "epsilon", "that noise (correlation 1.00)", 0),
        (  # ε − x₀
            lambda v, noisy, signal, noise: noise * noisy + signal * v - (signal * noisy - noise * v),
            "epsilon",
            "that noise (correlation 0.92)",
            1,
        ),
    ],
)
def test_a_trained_model_is_told_by_its_answer(turned, name, reason, doubts, monkeypatch):
    """The starter, which was trained to predict v; and its answers turned into ε and a rectified flow's direction."""
    base, predict = models.load("starter"), models.Base.predict

    def answer(self, noisy, timesteps, text, sizes=None):
        alpha_bar = self.process.alpha_bar(timesteps)
        return turned(predict(self, noisy, timesteps, text), noisy, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    monkeypatch.setattr(models.Base, "predict", answer)
    prediction.settle(base, prediction.NoiseMarks(base.process.schedule), NoiseChoice())
    assert base.process.name == name and base.reason.endswith(reason)
    assert ["rectified flow" in notice.do for notice in base.notices] == [True] * doubts


@pytest.mark.parametrize(("echo", "name", "side"), [(1.0, "epsilon", 512), (-0.05, "v", 768)])
def test_sd2_is_asked_what_it_predicts(echo, name, side, tiny_file, monkeypatch):
    """A 512 px model of SD 2 predicts ε, a 768 px one v with its betas as they are."""
    answers(monkeypatch, echo)
    base = models.load(str(tiny_file("sd2")))
    assert (base.process.name, base.resolution, base.process.zero_snr) == (name, side, False)


def test_marks_and_choices_spare_the_question(tiny_file, settled, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(models.Base, "predict", asked)
    settled("sdxl", ("v_pred",))
    settled("sdxl", prediction="epsilon")
    assert shapes.read(str(tiny_file("sd2"))).resolution == 768, "shapes are read from the header alone"


@pytest.mark.parametrize(
    ("marks", "metadata", "choice", "where", "message"),
    [
        (
            ("v_pred",),
            {},
            {"prediction": "epsilon"},
            "prediction",
            "epsilon by hand, but the file's mark v_pred says v",
        ),
        ((), EPSILON, {"prediction": "flow"}, "prediction", "flow by hand, but the file's modelspec.prediction_type"),
        (("v_pred",), EPSILON, {}, "prediction", "says epsilon, the file's mark v_pred says v"),
        ((), EPSILON, {"zero_snr": "on"}, "zero_snr", "the model predicts ε"),
        (("ztsnr",), EPSILON, {}, "zero_snr", "the model predicts ε"),
        ((), EPSILON, {"flow_shift": 3.0}, "flow_shift", "no effect"),
        ((), {"modelspec.prediction_type": "flow"}, {"zero_snr": "on"}, "zero_snr", "no effect"),
    ],
)
def test_contradictions_are_said(marks, metadata, choice, where, message, settled):
    (notice,) = settled("sdxl", marks, metadata, **choice).notices
    assert notice.where == where and message in notice.what and notice.do


def test_the_shift_of_a_flow_by_hand(settled):
    assert settled("sdxl", prediction="flow").process.shift == 1
    assert settled("sdxl", prediction="flow", flow_shift=2.5).process.shift == 2.5


@pytest.mark.parametrize(
    ("schedule", "choice", "name", "zero_snr", "reason"),
    [
        ({}, {}, "epsilon", False, "its scheduler's configuration"),
        ({"prediction_type": "v_prediction"}, {}, "v", False, "its scheduler's configuration"),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, {}, "v", True, "its scheduler's "),
        ({}, {"prediction": "v"}, "v", True, "set by hand; zero terminal SNR on: as nearly all models of Stable "),
        (
            {"rescale_betas_zero_snr": True},
            {"zero_snr": "off"},
            "epsilon",
            False,
            "its scheduler's configuration; zero",
        ),
        ({"prediction_type": "flow_prediction", "flow_shift": 3.0}, {}, "flow", False, "its scheduler's configuration"),
    ],
)
def test_the_configuration_of_an_sdxl_folder(schedule, choice, name, zero_snr, reason, loaded):
    base = loaded["sdxl"]
    base.notices = []
    whole = base.family.config("scheduler") | schedule
    prediction.settle(base, prediction.of_folder(base.family, whole, "here"), NoiseChoice(**choice))
    assert (base.process.name, base.process.zero_snr) == (name, zero_snr)
    assert base.reason.startswith(reason)


@pytest.fixture(scope="module")
def cosxl(tmp_path_factory):
    ends = {"edm_vpred.sigma_max": torch.tensor(100.0), "edm_vpred.sigma_min": torch.tensor(0.01)}
    return tiny.checkpoint(tmp_path_factory.mktemp("edm") / "cosxl.safetensors", "sdxl", metadata=V, extra=ends)


def test_cosxl_is_known_by_its_ends_of_sigma(cosxl):
    base = models.load(str(cosxl))
    assert (base.process.name, base.reason) == ("edm", "the file's mark edm_vpred.sigma_max")
    assert base.process.sigmas == (pytest.approx(0.01), 100) and base.notices == []
    assert len(generate(base, ["a cat"], [1], ImageSettings(steps=2, width=64, height=64))) == 1
    with pytest.raises(SettingsError, match="another noise process.*'unipc'"):
        generate(base, ["a cat"], [1], ImageSettings(sampler="unipc"))
    epsilon = models.load(str(cosxl), prediction="epsilon").process
    last = epsilon.alpha_bar(torch.tensor([999])).item()
    assert epsilon.name == "epsilon" and last == pytest.approx(0.00466, abs=1e-5), "with its family's betas"


@pytest.mark.parametrize(
    ("end", "said"),
    [(torch.tensor(float("nan")), "nan"), (torch.ones(2), "nan"), (torch.tensor(1e30), r"1e\+30"), (torch.zeros(1), 0)],
)
def test_ends_that_make_no_sense_are_named(end, said, tmp_path):
    path = tiny.checkpoint(tmp_path / "odd.safetensors", "sdxl", extra={"edm_vpred.sigma_max": end})
    with pytest.raises(ModelError, match=rf"odd\.safetensors .*in edm_vpred.sigma_max .*from 0\.002 to {said}, "):
        shapes.read(str(path))


@pytest.mark.parametrize("ends", [{"sigma_max": 2e4}, {"sigma_min": 0.0}, {"sigma_min": 5.0, "sigma_max": 5.0}])
def test_ends_of_a_folder_that_make_no_sense_are_named(ends):
    whole = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0}
    with pytest.raises(ModelError, match="cosxl says in its scheduler's configuration"):
        prediction.of_folder(registry.named("sdxl"), whole | ends, Path("cosxl"))


def test_playground_is_refused_by_name(tmp_path):
    path = tiny.checkpoint(tmp_path / "pg.safetensors", "sdxl", extra=dict.fromkeys(["edm_mean"], torch.ones(4)))
    for read in (models.load, shapes.read):
        with pytest.raises(ModelError, match=r"pg\.safetensors is Playground 2\.5.*Karras"):
            read(str(path))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon"}, "Playground 2.5"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0}, ""),
    ],
)
def test_edm_folders_are_read_or_refused_by_name(scheduler, message, loaded):
    family, where = loaded["sdxl"].family, Path("pg")
    if message:
        with pytest.raises(ModelError, match=f"pg is {message}"):
            prediction.of_folder(family, scheduler, where)
    else:
        assert prediction.of_folder(family, scheduler, where).prediction == "edm"


def test_a_prediction_that_cannot_be_trained_is_refused_before_anything_is_read():
    with pytest.raises(SettingsError, match="'sample'"):
        models.load("no such model", prediction="sample")


def test_every_family_that_reads_files_says_what_it_predicts():
    """Of the shipped configurations, which a file that says nothing falls back to."""
    told = {f.name: f.process(f.config("scheduler")).name for f in registry.FAMILIES if f.configs}
    assert told == {"sd1": "epsilon", "sd2": "v", "sdxl": "epsilon", "starter": "epsilon", "starter1": "epsilon"}
