"""What ``blend`` blends: the files that its arguments name, or the saved states of a run, with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lora_studio.adapters import averaging, block_lists, keys
from lora_studio.cli.generate import parse_adapter
from lora_studio.errors import RunError, SettingsError
from lora_studio.runs import Run, keeping


class Chosen(NamedTuple):
    """One adapter of a blend, as the recipe records it."""

    name: str
    file: Path
    weight: float
    blocks: dict[str, float]


def of_files(texts: list[str], blocks: list[str], lists: list[str]) -> list[Chosen]:
    """The files that ``FILE[:WEIGHT]`` name, with the weights of their blocks, singly and in lists.

    Raises:
        AdapterError: there is no such file, or a weight is not finite.
        SettingsError: no file is named, or a block's weight has another form.
    """
    if not texts:
        raise SettingsError(
            "No adapter is named.",
            where="FILE",
            do="Write for example: python3 app.py blend a.safetensors:0.7 b.safetensors:0.3 -o ab.safetensors",
        )
    named = [parse_adapter(text, "FILE") for text in texts]
    files = [file for file, _ in named]
    listed, singly = parse_lists(lists, files), parse_blocks(blocks, len(named))
    factors = [of_list | own for of_list, own in zip(listed, singly, strict=True)]
    return [Chosen(file.stem, file, weight, own) for (file, weight), own in zip(named, factors, strict=True)]


def of_states(run: Run, width: float, until: int | None) -> list[Chosen]:
    """The saved and judged states of a run up to the step ``until``, weighed to an average of that width.

    Raises:
        SettingsError: there are fewer than two states, or the width is out of range.
        RunError: there is no state of the step ``until``.
    """
    steps = sorted(keeping.states(run))
    if until is not None:
        if until not in steps:
            known = ", ".join(map(str, steps))
            raise RunError(
                f"The run {run.name} has no state of step {until}.",
                where="--until",
                do=f"Its states: {known}." if known else "Set checkpoint_every and keep_checkpoints before training.",
            )
        steps = [step for step in steps if step <= until]
    weights = averaging.weights(steps, width)
    return [
        Chosen(run.kept_file(step).stem, keeping.state_file(run, step), weight, {})
        for step, weight in zip(steps, weights, strict=True)
    ]


def parse_blocks(texts: list[str], count: int) -> list[dict[str, float]]:
    """Each adapter's factors by block, from texts ``N:BLOCK=FACTOR`` where N counts from 1.

    Raises:
        SettingsError: a text has another form, or there is no N-th adapter.
    """
    blocks: list[dict[str, float]] = [{} for _ in range(count)]
    for text in texts:
        number, _, rest = text.partition(":")
        block, _, factor = rest.partition("=")
        try:
            index, value = int(number), float(factor)
        except ValueError:
            index, value = 0, 0.0
        if not (1 <= index <= count and block):
            raise SettingsError(
                f"{text!r} is not the weight of a block.",
                where="--block",
                do=f"Write for example 1:up_blocks.1=0.5, with a number from 1 to {count}.",
            )
        blocks[index - 1][block] = value
    return blocks


def parse_lists(texts: list[str], files: list[Path]) -> list[dict[str, float]]:
    """Each adapter's factors by block, from texts ``FILE=LIST``, where FILE is the number of an adapter, counted from
    1, or its file's name, and LIST one of ``adapters.block_lists``.

    Raises:
        SettingsError: a text has another form, or names no adapter of the blend.
        AdapterError: the adapter's header cannot be read.
    """
    from lora_studio import adapters

    blocks: list[dict[str, float]] = [{} for _ in files]
    for text in texts:
        name, equals, listed = text.rpartition("=")
        names = [{str(number), file.name, file.stem} for number, file in enumerate(files, 1)]
        found = [index for index, known in enumerate(names) if name in known or Path(name).resolve() == files[index]]
        if not equals or not found:
            raise SettingsError(
                f"{text!r} names none of the adapters.",
                where="--blocks",
                do=f"Write for example {files[0].stem}=OUTALL, or 1=1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1.",
            )
        paths, _ = keys.collect(adapters.header(files[found[0]]).shapes)
        blocks[found[0]] = block_lists.factors(listed, paths)
    return blocks
