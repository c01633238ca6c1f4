"""What the header of a single file says of what its model predicts: metadata and empty tensors. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from lora_studio.diffusion import registry as processes
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Velocity
from lora_studio.language import tr

V_MARK, ZERO_SNR_MARK = "v_pred", "ztsnr"
"""Empty tensors that SDXL's v-predicting descendants carry, the second where their schedule ends in pure noise (Lin et
al. 2024).
"""
EDM_MARKS = {"sigma_max": "edm_vpred.sigma_max", "sigma_min": "edm_vpred.sigma_min"}
"""The ends of σ in a scheduler's configuration -> the tensors of one number in which CosXL's descendants carry them."""
PLAYGROUND_MARK = "edm_mean"


def claims(keys: Collection[str], metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The name of a prediction, and the mark in the file that says so; the most explicit mark first.

    Args:
        keys: the names of the file's tensors.
    """
    if metadata.get("modelspec.noise_process", "").lower() == RectifiedFlow.name:
        yield RectifiedFlow.name, _said_by("modelspec.noise_process")
    name = metadata.get("modelspec.prediction_type", "").lower()
    if processes.known(name):
        yield processes.named(name).name, _said_by("modelspec.prediction_type")
    if V_MARK in keys:
        yield Velocity.name, tr("the file's mark {mark}", mark=V_MARK)
    # ComfyUI writes "epsilon" into every model that it took for one, so only v is worth something
    if metadata.get("modelspec.predict_key", "").lower() == Velocity.name:
        yield Velocity.name, _said_by("modelspec.predict_key")
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        yield Velocity.name, _said_by("ss_v_parameterization")
    if metadata.get("modelspec.architecture", "").endswith("-v"):
        yield Velocity.name, _said_by("modelspec.architecture")


def _said_by(entry: str) -> str:
    return tr("the file's {entry}", entry=entry)
