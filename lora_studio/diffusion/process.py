"""What a noise process must say, so that nobody else has to ask which one a model was trained with.

Legend, for all of this room:

- x₀: clean latents (B, C, h, w), scaled to unit variance. ε: noise of the same shape, standard normal.
- t: a timestep as the denoiser takes it. T: how many the model was trained with.
- x_t: latents with noise added, from x₀ (no noise) to ε (nothing else).
- SNR(t): the signal's variance in x_t divided by the noise's.
- ᾱ_t: the share of the signal's variance that a Gaussian diffusion keeps (Ho et al. 2020, eq. 4).
- γ: the largest SNR that still gains weight (Hang et al. 2023, *Efficient Diffusion Training via Min-SNR Weighting
  Strategy*, §3.4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lora_studio.diffusion.samplers import DECLARED, SAMPLERS
from lora_studio.errors import SettingsError
from lora_studio.language import declared, tr

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Process(ABC):
    """How noise is drawn and added, what the model predicts, and how samplers undo it. Holds no weights.

    Args:
        schedule: the model's scheduler configuration, as diffusers writes it.
    """

    name: ClassVar[str]
    """As the setting ``prediction`` and a file's header give it."""
    title: ClassVar[str]
    """What the model predicts, for people."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """What else schedulers' configurations and files' headers call it."""
    written: ClassVar[str] = ""
    """As an adapter's header names what is predicted, where others do not know ``name``."""
    samplers: ClassVar[Mapping[str, str]] = SAMPLERS
    """Of the samplers' names, those that can remove its noise -> diffusers' class."""

    def __init__(self, schedule: Mapping[str, Any]):
        self.schedule = dict(schedule)

    @property
    def timesteps(self) -> int:
        """T."""
        return self.schedule.get("num_train_timesteps", 1000)

    @property
    def zero_snr(self) -> bool:
        """Whether its noise ends without any signal, in a schedule that was rescaled for it (Lin et al. 2024, *Common
        Diffusion Noise Schedules and Sample Steps are Flawed*, §3.1).
        """
        return False

    @property
    def describe(self) -> str:
        """What the model predicts, for people, and whether its noise ends without any signal."""
        title = declared(self.title)
        return tr("{process}, zero terminal SNR", process=title) if self.zero_snr else title

    @property
    def guidance_rescale(self) -> float:
        """φ of ``sampling.generate`` that suits the process where nobody chose one."""
        return 0.0

    @classmethod
    @abstractmethod
    def owns(cls, schedule: Mapping[str, Any]) -> bool:
        """Whether a model with this scheduler configuration was trained with this process."""

    # Training

    @abstractmethod
    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """(count,) random timesteps to train at, on the CPU."""

    @abstractmethod
    def evenly(self, count: int) -> Tensor:
        """(count,) fixed timesteps spread over the whole process, on the CPU: the middles of equal parts."""

    def within(self, timesteps: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Timesteps of the whole process, moved into parts of it: the order of their noise stays, and so does how they
        are spread. Those whose part is the whole process stay as they are, to the bit.

        Args:
            timesteps: (B,) as ``draw`` gives them.
            low: (B,) float64, where each part begins: 0 is no noise, 1 nothing else.
            high: (B,) float64, where it ends; above ``low``.
        """
        moved = self.timesteps * low + timesteps * (high - low)
        return unless_whole(timesteps, moved, low, high)

    @abstractmethod
    def ends(self) -> tuple[Tensor, Tensor]:
        """The timesteps () of the least and of the most noise, on the CPU."""

    @abstractmethod
    def log_snr(self, timesteps: Tensor) -> Tensor:
        """ln SNR(t) (B,) at ``timesteps`` (B,); infinite where there is no noise or no signal."""

    @abstractmethod
    def at_log_snr(self, log_snr: Tensor) -> Tensor:
        """The timesteps (B,) at which ln SNR(t) is nearest to ``log_snr`` (B,), as ``draw`` gives them; on the CPU."""

    @abstractmethod
    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, of the shape of ``x0``; ``timesteps`` (B,)."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should predict at x_t, of the shape of ``x0``."""

    @abstractmethod
    def weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """(B,) finite weights of the squared errors at ``timesteps``; ``gamma`` 0 weights all of them by 1."""

    @abstractmethod
    def x0_ratio(self, snr: Tensor) -> Tensor:
        """(B,) by what a squared error of the prediction is multiplied to be one of x₀, where the ratio of signal to
        noise is ``snr`` (B,), positive and finite.
        """

    @abstractmethod
    def share(self, timesteps: Tensor) -> Tensor:
        """How far ``timesteps`` (B,) are into the process, as ``within`` measures it: 0 is no noise, 1 nothing else."""

    @abstractmethod
    def x0(self, predicted: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that the prediction for ``noisy`` (B, C, h, w) implies."""

    # Sampling

    def scheduler(self, sampler: str, steps: int, device: torch.device | str) -> Any:
        """A fresh diffusers scheduler.

        Args:
            sampler: a key of ``samplers``.
            steps: denoising steps; its ``timesteps`` are on ``device``.

        Raises:
            SettingsError: ``sampler`` cannot take so many steps, or not of this process.
        """
        import diffusers

        if steps > (most := DECLARED[sampler].most_steps):
            title = declared(DECLARED[sampler].title)
            what = tr("{sampler} takes at most {most} steps.", sampler=title, most=most)
            raise SettingsError(what, where="steps", do=tr("{steps} are usual.", steps=DECLARED[sampler].steps))
        name = self.samplers[sampler]
        made = getattr(diffusers, name).from_config(self.configuration(name), **self.options(sampler))
        made.set_timesteps(steps, device=device)
        return made

    @abstractmethod
    def configuration(self, scheduler: str) -> dict[str, Any]:
        """The options of diffusers' class ``scheduler``."""

    def options(self, sampler: str) -> Mapping[str, Any]:
        """Those of its options that ``sampler`` has otherwise."""
        return {}

    @abstractmethod
    def first(self, scheduler: Any, noise: Tensor) -> Tensor:
        """Where sampling starts: ``noise`` (B, C, h, w) as ``scheduler`` scales it."""

    def begin(self, scheduler: Any, skipped: int) -> Tensor:
        """Has ``scheduler`` begin behind its first ``skipped`` steps; the timesteps that are left."""
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped * scheduler.order)
        return scheduler.timesteps[skipped * scheduler.order :]

    def noised(self, scheduler: Any, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """``x0`` (B, C, h, w) with as much of ``noise`` as ``scheduler`` expects at its ``timestep`` (1,)."""
        return scheduler.add_noise(x0, noise, timestep)

    @abstractmethod
    def model_input(self, scheduler: Any, latents: Tensor, timestep: Tensor) -> Tensor:
        """What the denoiser sees of the sampler's ``latents`` (B, C, h, w) at ``timestep`` ()."""

    def estimate(self, predicted: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """The clean latents that the prediction for a ``model_input`` (B, C, h, w) at a sampler's ``timestep`` ()
        implies.
        """
        return self.x0(predicted, noisy, timestep.expand(len(noisy)))


def unless_whole(timesteps: Tensor, moved: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``moved`` in the format of ``timesteps``, which stay where the part is the whole process."""
    return moved.to(timesteps.dtype).where((low > 0) | (high < 1), timesteps)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (B,) shaped (B, 1, …) to broadcast over ``like`` (B, …)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
