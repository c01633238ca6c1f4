"""``masks``: makes masks for a folder of pictures, so that only what is white in them is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lora_studio.cli import datasets
from lora_studio.cli.options import AsJson, Outputs, tell
from lora_studio.errors import DatasetError, ModelError, SettingsError
from lora_studio.runs import OUTPUTS

if TYPE_CHECKING:
    from lora_studio.curation.masks import Source
    from lora_studio.dataset.items import Dataset

_SIZE = "20x8%"


def masks(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of pictures.", show_default=False)],
    alpha: Annotated[bool, typer.Option("--alpha", help="Learn what is opaque in pictures with transparency.")] = False,
    corner: Annotated[
        Literal["top-left", "top-right", "bottom-left", "bottom-right"] | None,
        typer.Option(help="Learn all but this corner, as of a signature or watermark.", show_default=False),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the corner: 20x8% of a picture, or 120x40 pixels.")
    ] = _SIZE,
    box: Annotated[
        str,
        typer.Option(metavar="L,T,R,B", help="Learn all but this box: its sides in percent of a picture."),
    ] = "",
    segment: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Learn what a U²-Net model finds: an .onnx file or the name of a model."),
    ] = "",
    keep: Annotated[
        Literal["subject", "background"], typer.Option(help="Which part of what --segment tells apart is learned.")
    ] = "subject",
    invert: Annotated[
        bool, typer.Option("--invert", help="Swap white and black; alone, of the masks that are there.")
    ] = False,
    feather: Annotated[
        float,
        typer.Option(min=0, max=50, help="Soften edges over so much of a picture's shorter side, in percent."),
    ] = 0.0,
    over: Annotated[
        bool, typer.Option("--replace", help="Replace masks that are there. Otherwise what they hide stays hidden.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove masks named like a-masklabel.png.")] = False,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="Only this picture. May be repeated.", show_default="all")
    ] = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which masks would change; write nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the last change to the folder.")] = False,
    nested: Annotated[bool, typer.Option("--nested", help="Read all folders below the folder.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow the studio to write here, without being asked.")] = False,
    outputs: Outputs = OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """List the masks of a folder's pictures, or make some. White is learned, black is not. Pictures never change."""
    given = {"--alpha": alpha, "--corner": corner, "--box": box, "--segment": segment, "--remove": remove}
    ways = [name for name, value in {**given, "--undo": undo}.items() if value]
    if len(ways) > 1:
        raise SettingsError(f"{' and '.join(ways)} are separate steps.", do="Give one of them at a time.")
    bench = datasets.workbench(folder, outputs)
    if undo:
        datasets.agree(bench, yes)
        datasets.tell_done(bench.undo(), as_json)
        return
    dataset = _chosen(datasets.scan(bench.folder, outputs, nested), only)
    from lora_studio.curation.masks import Finish

    finish = Finish(invert=invert, feather=feather / 100, replace=over)
    changed = invert or feather
    if not ways and not changed:
        _list(dataset, as_json)
    elif remove:
        _write(bench, dict.fromkeys(_written(dataset)), dry_run, yes, as_json)
    else:
        source = _source(alpha, corner, size, box, segment, keep)
        _write(bench, _made(dataset, source, finish if ways else replace(finish, replace=True)), dry_run, yes, as_json)


def _chosen(dataset: Dataset, only: Sequence[str]) -> Dataset:
    if not only:
        return dataset
    names = {dataset.name(picture) for picture in (*dataset.pictures, *dataset.left_out)}
    if missing := [name for name in only if name not in names]:
        raise DatasetError(f"There is no picture {missing[0]}.", where=dataset.folder, do="Check its name.")
    pictures, left_out = (
        [picture for picture in some if dataset.name(picture) in only] for some in (dataset.pictures, dataset.left_out)
    )
    return replace(dataset, pictures=pictures, left_out=left_out)


def _source(alpha: bool, corner: Any, size: str, box: str, segment: str, keep: Any) -> Source:
    from lora_studio.curation import masks

    if alpha:
        return masks.opacity
    if corner:
        try:
            return masks.without_corner(corner, masks.Extent.parse(size))
        except ValueError as error:
            raise SettingsError(f"{size!r} is not a size: {error}.", where="--size", do=f"Try {_SIZE}.") from None
    if box:
        return masks.without(_box(box))
    if segment:
        return masks.segmented(_segmenter(segment), keep)
    return masks.of


def _box(text: str) -> Any:
    from lora_studio.dataset.preparation import Crop

    try:
        found = Crop(*(float(part) / 100 for part in text.replace("%", "").split(",")))
    except (ValueError, TypeError):
        found = None
    if not found or not found.valid:
        raise SettingsError(
            f"{text!r} is not a box.",
            where="--box",
            do="Write its left, top, right and bottom side in percent, such as 80,90,100,100.",
        )
    return found


def _segmenter(model: str) -> Any:
    from lora_studio.vision import local
    from lora_studio.vision.catalogue import Task
    from lora_studio.vision.segmenters import U2Net

    found = local.find(model)
    if found.task is not Task.MASKS:
        raise ModelError(f"{found.name} makes no masks.", where=model, do="Choose a model of the U²-Net family.")
    return U2Net(found.path)


def _made(dataset: Dataset, source: Source, finish: Any) -> dict[str, bytes | None]:
    from lora_studio.curation import masks

    return dict(masks.make(dataset, source, finish))


def _written(dataset: Dataset) -> list[str]:
    """The pictures with a mask that is named as the studio names them, used or not."""
    from lora_studio.dataset.masks import beside

    names = [dataset.name(picture) for picture in (*dataset.pictures, *dataset.left_out)]
    return [name for name in names if (dataset.folder / beside(name)).exists()]


def _list(dataset: Dataset, as_json: bool) -> None:
    from lora_studio.curation import masks

    pictures = sorted((*dataset.pictures, *dataset.left_out), key=dataset.name)
    found = [
        {
            "picture": dataset.name(picture),
            "mask": picture.mask.path.relative_to(dataset.folder).as_posix(),
            "learned": masks.learned(mask),
        }
        for picture in pictures
        if picture.mask and (mask := masks.of(picture))
    ]
    lines = [f"{len(found):,} of {len(pictures):,} pictures have a mask."]
    lines += [f"{one['picture']}: {one['learned']:.0%} is learned ({one['mask']})" for one in found]
    tell({"pictures": len(pictures), "masks": found}, lines, as_json)


def _write(
    bench: datasets.Workbench, made: Mapping[str, bytes | None], dry_run: bool, yes: bool, as_json: bool
) -> None:
    shares = {name: _learned(data) for name, data in made.items()}
    result: dict[str, Any] = {
        "masks": [{"picture": name, "learned": share} for name, share in shares.items()],
        "written": bool(made) and not dry_run,
    }
    lines = [f"{name}: {share:.0%} is learned" for name, share in shares.items()] if dry_run else []
    if dry_run or not made:
        count = f"{len(made):,} mask{'s' * (len(made) != 1)}"
        lines.append(f"{count} would change." if made else "No mask has to be changed.")
        tell(result, lines, as_json)
        return
    datasets.agree(bench, yes)
    done = bench.set_masks(made)
    tell(result | {"notes": list(done.notes)}, [f"{done.sentence} --undo takes it back.", *done.notes], as_json)


def _learned(data: bytes | None) -> float:
    """The share of a picture that is learned with this mask; all of it without one."""
    import io

    from PIL import Image

    from lora_studio.curation import masks

    return 1.0 if data is None else masks.learned(Image.open(io.BytesIO(data)))
