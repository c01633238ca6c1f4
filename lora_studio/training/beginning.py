"""A run that begins from a finished adapter, and what it says of what it could not take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lora_studio import adapters, models
from lora_studio.adapters.metadata import clip_skip as declared
from lora_studio.events import Event, Warned
from lora_studio.language import both, tr
from lora_studio.methods import registry as methods
from lora_studio.models import inject, warm_start
from lora_studio.optim.ema import Average
from lora_studio.training.session import Session

NEGLIGIBLE = 1e-4
"""A residual below this is rounding."""


def from_adapter(session: Session) -> Iterator[Event]:
    """Starts with an adapter from a file, or with that of another run whose state does not fit this run's settings."""
    given, own = adapters.read(session.run.start_file), session.settings.adapter.of_family(session.base.family)
    method = methods.get(own.method)
    ranks = {path: method.holds(own.at(path)) for path in inject.layers(session.base)}
    with session.stepper.flat.full_precision():
        taken = warm_start.begin_from(session.base, given, ranks)
    session.average = Average(session.parameters, session.settings.optimizer.ema)
    if taken.left:
        parts = Counter(path.partition(".")[0] for path in taken.left)
        yield Warned(
            what=tr(
                "This run starts from an adapter of {count} modules, of which it trains only {modules}. It leaves "
                "out {parts}, such as {left}.",
                count=len(given.changes),
                modules=taken.modules,
                parts=both(tr("{count} of {part}", count=count, part=part) for part, count in parts.items()),
                left=taken.left[0],
            ),
            where="targets",
            do=tr("To start from all of them, choose the same layers and blocks, and train_text for a text encoder's."),
        )
    if taken.unheard:
        yield Warned(
            what=tr(
                "The adapter that this run starts from has learned {words}, which this run leaves out, since it "
                "learns no word.",
                words=both(map(repr, taken.unheard)),
            ),
            where="learned_tokens",
            do=tr("To go on with it, set learned_tokens, and trigger to the word."),
        )
    if taken.cut:
        count = own.tokens + taken.cut
        yield Warned(
            what=tr(
                "The word that this run starts from has {count} vectors, of which it takes the first {tokens}.",
                count=count,
                tokens=own.tokens,
            ),
            where="learned_tokens",
            do=tr("Set learned_tokens to {count} to go on with all of them.", count=count),
        )
    yield from _clip_skips(session.base, declared(given.metadata))
    if taken.residual > NEGLIGIBLE:
        whole = given.kind.a_title if given.kind.needs_base else tr("of rank {rank}", rank=given.rank)
        low, high = min(ranks.values()), max(ranks.values())
        rank = str(low) if low == high else tr("{low} to {high}", low=low, high=high)
        yield Warned(
            what=tr(
                "The adapter that this run starts from is {whole}. Rank {rank} holds {share:.1%} of its change "
                "(residual {residual:.2g}).",
                whole=whole,
                rank=rank,
                share=1 - taken.residual**2,
                residual=taken.residual,
            ),
            where="rank",
            do=tr("Choose a higher rank to start closer to it."),
        )


def _clip_skips(base: models.Base, of_start: int) -> Iterator[Event]:
    """A warning where the adapter that a run starts from was trained with another clip skip; 0 is unknown."""
    if base.family.clip_skips and of_start not in (0, base.clip_skip):
        yield Warned(
            what=tr(
                "The adapter that this run starts from was trained with clip skip {start}. This run trains with "
                "{clip_skip}.",
                start=of_start,
                clip_skip=base.clip_skip,
            ),
            where="clip_skip",
            do=tr("Set clip_skip to {start} to train it further in the same way.", start=of_start)
            if of_start in base.family.clip_skips
            else tr("Nothing needs to be done: the run learns the difference."),
        )
