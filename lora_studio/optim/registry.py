"""The optimizers that the studio knows, one row each. ``build`` makes them; nothing else compares their names.

Nothing here imports torch: settings, the page and the command line read the rows while they start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lora_studio.errors import SettingsError
from lora_studio.language import declared, tr
from lora_studio.optim.schedules import ScheduleSettings


class Hyperparameters(ScheduleSettings, Protocol):
    """The settings that optimizers are built from; ``OptimizerSettings`` is one."""

    @property
    def optimizer(self) -> str: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def text_learning_rate(self) -> float: ...
    @property
    def token_learning_rate(self) -> float: ...
    @property
    def lora_plus(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def _weight_decay(values: Hyperparameters, steps: int) -> dict[str, Any]:
    return {"weight_decay": values.weight_decay}


def _came(values: Hyperparameters, steps: int) -> dict[str, Any]:
    """Its averages begin at zero and are not corrected: with the decays of its long runs, an adapter would take steps
    many times the rate. These are its authors' for a β₂ of 0.95.
    """
    return {"weight_decay": values.weight_decay, "betas": (0.9, 0.95, 0.99)}


def _ademamix(values: Hyperparameters, steps: int) -> dict[str, Any]:
    """Weight and length of the slow average rise over the whole run (Pagliardini et al. 2024, §3.1). Its decay is the
    paper's smaller one: 0.9999 looks back further than an adapter trains.
    """
    return {"weight_decay": values.weight_decay, "betas": (0.9, 0.999, 0.999), "t_alpha": steps, "t_beta3": steps}


@dataclass(frozen=True)
class OptimizerSpec:
    """What the studio knows of one optimizer."""

    name: str
    """The value of the setting ``optimizer``."""
    title: str
    """Its name on the page."""
    help: str
    """What it is good for: a clause that begins with its title, without a full stop."""
    path: str
    """Where its class is; imported when it is built, since not every library works on every machine."""
    update_rule: str
    """Optimizers with the same rule take the same learning rates."""
    learning_rate: float
    """The usual one for an adapter. Each row gives its source."""
    text_learning_rate: float | None
    """The usual one for text encoders; None where one rate holds for all parameters, LoRA+ factors included."""
    sensible_rates: tuple[float, float]
    """Below the first it learns next to nothing, above the second it destroys the picture."""
    state_bytes: float
    """Bytes that it keeps for each parameter, about."""
    options: Callable[[Hyperparameters, int], dict[str, Any]] = _weight_decay
    """(settings, steps of the run) -> keyword arguments of the class, besides parameters and rate."""
    own_schedule: bool = False
    """Whether it does its own warm-up and decay, so that ``schedule`` and ``warmup`` must not change its rate."""
    flat: bool = True
    """Whether it may see a group's parameters as one long vector; False where it depends on their shapes."""
    recordable: bool = False
    """Whether its step can be captured in a CUDA graph: all of its state is on the GPU, and it is ``capturable``."""
    own_weights: bool = False
    """Whether it keeps weights of its own, beside those that are trained, which ``max_norm`` would not reach."""
    smaller: str = ""
    """The optimizer to suggest in its place where memory is short; empty where none is much smaller."""

    @property
    def one_rate(self) -> bool:
        """Whether one learning rate holds for all parameters."""
        return self.text_learning_rate is None

    @property
    def rate_can_be_found(self) -> bool:
        """Whether a short test tells its rate: it neither finds its step by itself nor lowers it by itself."""
        return not (self.one_rate or self.own_schedule)

    @property
    def package(self) -> str:
        """The library that its class comes from."""
        return self.path.partition(".")[0]


_ROWS = (
    OptimizerSpec(
        name="adamw",
        title="AdamW",
        help="AdamW is the usual choice",
        path="torch.optim.AdamW",
        update_rule="AdamW",
        learning_rate=2e-4,  # what style LoRAs for Stable Diffusion are commonly trained with: 1e-4 … 5e-4
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 2e-2),
        state_bytes=8,
        options=lambda values, steps: {"weight_decay": values.weight_decay, "fused": True},
        recordable=True,
        smaller="adamw8bit",
    ),
    OptimizerSpec(
        name="adamw8bit",
        title="8-bit AdamW",
        help="8-bit AdamW keeps its moments in a quarter of the memory (Dettmers et al. 2022)",
        path="bitsandbytes.optim.AdamW8bit",
        update_rule="AdamW",
        learning_rate=2e-4,
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 2e-2),
        state_bytes=2 + 8 / 256,  # two moments of a byte, and a float32 scale for each for every 256 parameters
    ),
    OptimizerSpec(
        name="stableadamw",
        title="StableAdamW",
        help="StableAdamW takes shorter steps where a gradient is suddenly large (Wortsman et al. 2023)",
        path="pytorch_optimizer.StableAdamW",
        update_rule="AdamW",
        learning_rate=2e-4,
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 2e-2),
        state_bytes=8,
        flat=False,  # each parameter's step is held back by the mean over its own elements
        smaller="adamw8bit",
    ),
    OptimizerSpec(
        name="ademamix",
        title="AdEMAMix",
        help="AdEMAMix also follows an average of old gradients, for long runs (Pagliardini et al. 2024)",
        path="bitsandbytes.optim.AdEMAMix",
        update_rule="AdEMAMix",
        learning_rate=2e-4,  # Pagliardini et al. 2024, §4: AdamW's
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 1e-2),
        state_bytes=12,
        options=_ademamix,
        smaller="ademamix8bit",
    ),
    OptimizerSpec(
        name="ademamix8bit",
        title="8-bit AdEMAMix",
        help="8-bit AdEMAMix keeps its moments in a quarter of the memory",
        path="bitsandbytes.optim.AdEMAMix8bit",
        update_rule="AdEMAMix",
        learning_rate=2e-4,
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 1e-2),
        state_bytes=3 + 12 / 256,
        options=_ademamix,
    ),
    OptimizerSpec(
        name="prodigy",
        title="Prodigy",
        help="Prodigy finds its own step size, which the learning rate scales (Mishchenko & Defazio 2024)",
        path="prodigyopt.Prodigy",
        update_rule="Prodigy",
        learning_rate=1.0,  # its authors': "Leave LR set to 1 unless you encounter instability."
        text_learning_rate=None,
        sensible_rates=(0.1, 10.0),
        state_bytes=16,
        options=lambda values, steps: {
            "weight_decay": values.weight_decay,
            "safeguard_warmup": True,
            "use_bias_correction": True,
        },
        smaller="adamw8bit",
    ),
    OptimizerSpec(
        name="schedulefree",
        title="Schedule-free AdamW",
        help="schedule-free AdamW averages its steps instead of lowering the rate (Defazio et al. 2024)",
        path="schedulefree.AdamWScheduleFree",
        update_rule="Schedule-free AdamW",
        learning_rate=4e-4,  # its authors': 1 to 10 times that of AdamW with a schedule
        text_learning_rate=1e-4,
        sensible_rates=(1e-6, 5e-2),
        state_bytes=8,
        options=lambda values, steps: {
            "weight_decay": values.weight_decay,
            "warmup_steps": round(steps * values.warmup),
        },
        own_schedule=True,
        own_weights=True,
        smaller="adamw8bit",
    ),
    OptimizerSpec(
        name="prodigy-schedulefree",
        title="Schedule-free Prodigy",
        help="schedule-free Prodigy finds its own step size, and averages its steps instead of lowering the rate",
        path="prodigyplus.ProdigyPlusScheduleFree",
        update_rule="Schedule-free Prodigy",
        learning_rate=1.0,  # its author's: "Leave lr set to 1 unless you encounter instability."
        text_learning_rate=None,
        sensible_rates=(0.1, 10.0),
        state_bytes=8 + 4 / 11,  # two numbers, and two of two bytes for every eleventh parameter
        # Its own clipping must be off where gradients are clipped already, as its author says.
        options=lambda values, steps: {
            "weight_decay": values.weight_decay,
            "factored": False,
            "use_stableadamw": False,
            "split_groups": False,
        },
        own_schedule=True,
        own_weights=True,
        smaller="adamw8bit",
    ),
    OptimizerSpec(
        name="lion",
        title="Lion",
        help="Lion follows the sign of the gradient alone, with half of AdamW's memory (Chen et al. 2023)",
        path="bitsandbytes.optim.Lion",
        update_rule="Lion",
        learning_rate=5e-5,  # Chen et al. 2023, §5: 3 to 10 times below AdamW's, as every step has full length
        text_learning_rate=1e-5,
        sensible_rates=(1e-7, 5e-3),
        state_bytes=4,
    ),
    OptimizerSpec(
        name="muon",
        title="Muon",
        help="Muon moves a factor in all its directions alike, with half of AdamW's memory (Jordan et al. 2024)",
        path="lora_studio.optim.muon.Muon",
        update_rule="Muon",
        # AdamW's by Liu et al. 2025, §2.2, as its steps are scaled; on the starter three times that learned as much
        learning_rate=5e-4,
        text_learning_rate=1e-4,
        sensible_rates=(1e-6, 2e-2),
        state_bytes=4,
        flat=False,
    ),
    OptimizerSpec(
        name="came",
        title="CAME",
        help="CAME adds a moment to Adafactor's sums, and takes short steps where updates disagree (Luo et al. 2023)",
        path="pytorch_optimizer.CAME",
        update_rule="CAME",
        learning_rate=1e-4,  # its authors': 0.5 to 0.9 times AdamW's
        text_learning_rate=2.5e-5,
        sensible_rates=(5e-7, 1e-2),
        state_bytes=5,
        options=_came,
        flat=False,
    ),
    OptimizerSpec(
        name="adafactor",
        title="Adafactor",
        help="Adafactor keeps sums of rows and columns instead of moments, hardly any memory (Shazeer & Stern 2018)",
        path="torch.optim.Adafactor",
        update_rule="Adafactor",
        learning_rate=2e-4,  # with ε₂ = 1 a step's RMS is at most the rate, as AdamW's is about
        text_learning_rate=5e-5,
        sensible_rates=(1e-6, 2e-2),
        state_bytes=0.5,
        # Steps are scaled by max(ε₂, RMS of the weight): with the usual ε₂ of 1e-3 a B that starts at zero would
        # hardly move.
        options=lambda values, steps: {"weight_decay": values.weight_decay, "eps": (None, 1.0)},
        flat=False,
    ),
    OptimizerSpec(
        name="adafactor-relative",
        title="Adafactor with relative steps",
        help="Adafactor with relative steps makes each step a share of the weights, and lowers that share by itself",
        path="torch.optim.Adafactor",
        update_rule="Adafactor with relative steps",
        # Shazeer & Stern 2018, §8, take min(0.01, 1/√t) of a weight's RMS in step t. A B begins at zero: on the
        # starter, which learns at ten times the usual rates, 0.01 hardly moved it, 0.1 to 0.5 taught it as AdamW does.
        learning_rate=3e-2,
        text_learning_rate=None,
        sensible_rates=(1e-4, 1.0),
        state_bytes=0.5,
        options=lambda values, steps: {"weight_decay": values.weight_decay, "eps": (None, 1e-3)},
        own_schedule=True,
        flat=False,
    ),
)
OPTIMIZERS: dict[str, OptimizerSpec] = {spec.name: spec for spec in _ROWS}
"""Name -> row, in the order in which they are offered. Another one may be added while the studio runs: everything looks
a row up when it needs it.
"""


def get(name: str) -> OptimizerSpec:
    """The optimizer that the setting ``optimizer`` names.

    Raises:
        SettingsError: there is none.
    """
    if name not in OPTIMIZERS:
        raise SettingsError(
            tr("There is no optimizer named {name!r}.", name=name),
            where="optimizer",
            do=tr("Choose one of: {names}.", names=", ".join(OPTIMIZERS)),
        )
    return OPTIMIZERS[name]


def require_one_rate(optimizer: str, lora_plus: float = 1.0, by_block: bool = False) -> None:
    """Raises SettingsError where an optimizer has one learning rate for all parameters, and LoRA+ or blocks want more.

    Args:
        by_block: whether blocks have rates of their own.
    """
    spec = get(optimizer)
    if spec.one_rate and by_block:
        raise SettingsError(
            tr(
                "{optimizer} has one learning rate for all parameters, so blocks cannot have others.",
                optimizer=declared(spec.title),
            ),
            where="by_block",
            do=tr("Remove the rates by block, or choose another optimizer."),
        )
    if spec.one_rate and lora_plus != 1:
        raise SettingsError(
            tr(
                "{optimizer} has one learning rate for all parameters, so LoRA+ cannot give the second factor another.",
                optimizer=declared(spec.title),
            ),
            where="lora_plus",
            do=tr("Set lora_plus to 1, or choose another optimizer."),
        )


RATES = ("learning_rate", "text_learning_rate", "lora_plus")
"""The settings that mean something else under another update rule."""


def usual_rates(name: str) -> dict[str, float]:
    """The settings that a choice of the optimizer ``name`` brings with it: its usual rates. LoRA+ is switched off where
    one rate holds for all parameters.
    """
    spec = get(name)
    if spec.text_learning_rate is None:
        return {"learning_rate": spec.learning_rate, "lora_plus": 1.0}
    return {"learning_rate": spec.learning_rate, "text_learning_rate": spec.text_learning_rate}


def rates_after(before: str, after: str) -> dict[str, float]:
    """The rates that a change of optimizer brings with it: the usual ones of ``after``, or none where those of
    ``before`` mean the same to it.
    """
    return {} if get(before).update_rule == get(after).update_rule else usual_rates(after)


def smaller(name: str) -> dict[str, Any]:
    """The settings with which the optimizer ``name`` gives way to a smaller one, its rates included; empty where there
    is none.
    """
    other = get(name).smaller
    return {"optimizer": other, **rates_after(name, other)} if other else {}


def rate_warning(values: Hyperparameters) -> str:
    """What is to be feared of a learning rate that makes no sense for the optimizer; empty where it does."""
    spec = get(values.optimizer)
    low, high = spec.sensible_rates
    parts = {"optimizer": declared(spec.title), "rate": values.learning_rate, "usual": spec.learning_rate}
    if values.learning_rate < low:
        return tr(
            "{optimizer} will learn next to nothing at a learning rate of {rate:g}. Its usual learning rate is "
            "{usual:g}.",
            **parts,
        )
    if values.learning_rate > high:
        return tr(
            "{optimizer} is likely to diverge at a learning rate of {rate:g}. Its usual learning rate is {usual:g}.",
            **parts,
        )
    return ""
