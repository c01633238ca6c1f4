"""Every way to blend adapters, declared once: its name and help, its parameters with their ranges, what it computes.

Recipes, the Mix page, the command line and the table in ``docs/adapters.md`` are made from these declarations. A new
method is one ``register`` call. This module imports no torch: the arithmetic in ``combine``, ``combine_sums`` and
``combine_cores`` loads when a blend is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_studio.adapters.blend_parameter import BlendParameter
from lora_studio.errors import SettingsError
from lora_studio.language import tr

if TYPE_CHECKING:
    from lora_studio.adapters.adapter import Factors
    from lora_studio.adapters.combine import Part


@dataclass(frozen=True)
class BlendMethod:
    """A way to make one adapter of several."""

    key: str
    """Its name in a recipe and on the command line."""
    title: str
    """Its name on the page."""
    help: str
    parameters: tuple[BlendParameter, ...] = ()
    """What it takes besides ``RANK``, to which every result can be trimmed."""
    combine: Callable[..., Factors | None] | None = None
    """``combine(parts, path, **parameters)`` gives one module's factors, or None where it leaves no change. Without it
    the method is the weighted sum, and a single adapter at weight 1 stays as it is."""
    compresses: bool = False
    """Whether ``combine`` takes the ``rank`` too and keeps to it by itself. The loss is then told against the sum."""
    fills: bool = False
    """Whether an adapter that leaves a module as it is counts there as a change of zero, instead of being left out."""
    takes: int = 0
    """How many adapters it takes; 0 for any number."""
    trims: bool = False
    """Whether rank 0 means the largest rank of the adapters. Other methods keep the whole result at rank 0."""
    subtracts: bool = False
    """Whether every adapter but the first counts with the opposite sign."""

    @property
    def is_plain_sum(self) -> bool:
        """Whether it only adds the adapters up, which a model does by itself with several adapters."""
        return not (self.combine or self.trims or self.subtracts)

    def sign(self, index: int) -> int:
        """The sign of adapter number ``index``, counted from 0."""
        return -1 if self.subtracts and index else 1


RANK = BlendParameter(
    "rank",
    "Rank",
    "Trims the result to this rank. 0 keeps it whole; Trimmed (svd) and Compressed first (ctm) then take the adapters' "
    "largest rank.",
    default=0,
    low=0,
    high=4096,
)
DENSITY = BlendParameter(
    "density",
    "Share kept",
    "Share of each adapter's entries that is kept.",
    default=0.5,
    low=0,
    high=1,
    above_low=True,
    step=0.05,
)
SEED = BlendParameter("seed", "Random seed", "Decides which entries are dropped.", default=0, low=0, high=2**31 - 1)
SHARE = BlendParameter(
    "share",
    "Way",
    "How far it goes from the first adapter, 0, to the second, 1.",
    default=0.5,
    low=0,
    high=1,
    step=0.05,
)
BALANCE = BlendParameter(
    "balance",
    "Balance",
    "1 gives an adapter with a small change as much of the rank as one with a large change, 0 gives it less.",
    default=0.75,
    low=0,
    high=1,
    step=0.05,
)

METHODS: dict[str, BlendMethod] = {}
"""Every method by its key, in the order in which surfaces list them."""


def register(method: BlendMethod) -> None:
    """Makes ``method`` known to recipes and surfaces.

    Raises:
        ValueError: its key is taken, or one of its parameters is declared differently by another method.
    """
    known = parameters()
    if method.key in METHODS:
        raise ValueError(f"the blend method {method.key} is declared twice")
    for one in method.parameters:
        if known.get(one.key, one) != one:
            raise ValueError(f"the parameter {one.key} of {method.key} is declared differently by another method")
    METHODS[method.key] = method


def parameters() -> dict[str, BlendParameter]:
    """Every parameter by its key: ``RANK``, then those of the methods."""
    declared = (one for method in METHODS.values() for one in method.parameters)
    return {one.key: one for one in (RANK, *declared)}


def option(key: str) -> str:
    """The command line's option for the parameter ``key``."""
    return f"--{key.replace('_', '-')}"


def takers(parameter: BlendParameter) -> list[str]:
    """Keys of the methods that take ``parameter``; empty for ``RANK``, which works with all of them."""
    return [method.key for method in METHODS.values() if parameter in method.parameters]


def named(key: object) -> BlendMethod:
    """The method ``key``.

    Raises:
        SettingsError: there is none.
    """
    if isinstance(key, str) and key in METHODS:
        return METHODS[key]
    names = ", ".join(METHODS)
    raise SettingsError(
        tr("There is no blend method {key!r}.", key=key),
        where="method",
        do=tr("Choose one of {names}.", names=names),
    )


def checked(method: object, values: Mapping[str, object]) -> dict[str, int | float]:
    """The rank and the parameters of the method with that key, complete; then those of ``values`` for other methods.

    Raises:
        SettingsError: there is no such method or parameter, or a value is out of range.
    """
    declared = parameters()
    for key in values:
        if key not in declared:
            raise SettingsError(tr("A blend has no parameter {key!r}.", key=key), where=key, do=tr("Leave it out."))
    given = {one.key: one.default for one in (RANK, *named(method).parameters)} | dict(values)
    return {key: declared[key].check(value) for key, value in given.items()}


def _register_all(methods: Iterable[BlendMethod]) -> None:
    for method in methods:
        register(method)


def _ties(parts: Sequence[Part], path: str, *, density: float) -> Factors:
    from lora_studio.adapters import combine

    return combine.entrywise(parts, lambda changes: combine.ties(changes, density))


def _dare(parts: Sequence[Part], path: str, *, density: float, seed: int) -> Factors:
    from lora_studio.adapters import combine

    generator = combine.generator(seed, path)
    return combine.entrywise(parts, lambda changes: combine.dare(changes, density, generator))


def _prune(parts: Sequence[Part], path: str, *, density: float) -> Factors:
    from lora_studio.adapters import combine

    return combine.entrywise(parts, lambda changes: combine.prune(changes, density))


def _svc(parts: Sequence[Part], path: str) -> Factors:
    from lora_studio.adapters import combine_cores

    return combine_cores.calibrated(parts)


def _ctm(parts: Sequence[Part], path: str, *, balance: float, rank: int) -> Factors:
    from lora_studio.adapters import combine_cores

    return combine_cores.compressed(parts, rank, balance)


def _stock(parts: Sequence[Part], path: str) -> Factors | None:
    from lora_studio.adapters import combine_sums

    return combine_sums.reweighed(parts, combine_sums.model_stock)


def _median(parts: Sequence[Part], path: str) -> Factors | None:
    from lora_studio.adapters import combine_sums

    return combine_sums.reweighed(parts, combine_sums.geometric_median)


def _slerp(parts: Sequence[Part], path: str, *, share: float) -> Factors | None:
    from lora_studio.adapters import combine_sums

    return combine_sums.reweighed(parts, lambda gram: combine_sums.slerp(gram, share))


_register_all(
    (
        BlendMethod(
            "exact",
            "Exact sum",
            "Adds the adapters up, each times its weight. Nothing is lost. The rank is the sum of their ranks, and the "
            "file is as large as all of them together.",
        ),
        BlendMethod(
            "svd",
            "Trimmed",
            "The nearest adapter of a chosen rank to that sum: a small file that loses a little.",
            trims=True,
        ),
        BlendMethod(
            "ties",
            "TIES",
            "Keeps each adapter's strongest entries, takes a vote on the sign of each entry, and averages those that "
            "agree, so that the adapters disturb each other less (Yadav et al. 2023).",
            (DENSITY,),
            _ties,
        ),
        BlendMethod(
            "dare",
            "DARE",
            "Drops entries at random, scales up the rest to compensate, and adds them up (Yu et al. 2024).",
            (DENSITY, SEED),
            _dare,
        ),
        BlendMethod("prune", "Pruned", "Keeps each adapter's strongest entries and adds them up.", (DENSITY,), _prune),
        BlendMethod(
            "svc",
            "Calibrated sum (SVC)",
            "Adds the adapters up, then weakens the directions that several of them count in common (singular value "
            "calibration, Li et al. 2026). Two copies of an adapter give it once instead of at twice its strength.",
            combine=_svc,
        ),
        BlendMethod(
            "stock",
            "Model Stock",
            "The average, drawn towards the base model where the adapters disagree (Jang et al. 2024). For several "
            "trainings of one style: of different styles it leaves little.",
            combine=_stock,
            fills=True,
        ),
        BlendMethod(
            "median",
            "Geometric median",
            "The change with the least sum of distances to all adapters, found by Weiszfeld's algorithm. One bad "
            "adapter among three or more hardly moves it; of two it is the average.",
            combine=_median,
            fills=True,
        ),
        BlendMethod(
            "slerp",
            "Slerp",
            "Turns from one adapter to another on an arc, which keeps the strength that an average of different "
            "adapters loses (Shoemake 1985). Takes two adapters.",
            (SHARE,),
            _slerp,
            fills=True,
            takes=2,
        ),
        BlendMethod(
            "ctm",
            "Compressed first",
            "Compresses all adapters to directions that they share, as many as the rank, and adds them up there "
            "(Compress then Merge, He et al. 2026). Loses more of the sum than Trimmed, and less of the adapter with "
            "the smaller change.",
            (BALANCE,),
            _ctm,
            trims=True,
            compresses=True,
        ),
        BlendMethod(
            "subtract",
            "Subtraction",
            "The first adapter minus the others, which removes their look from it.",
            subtracts=True,
        ),
    )
)
