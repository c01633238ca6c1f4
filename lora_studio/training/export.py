"""The trained adapter as a file: kohya's layout, which ComfyUI, Forge and A1111 load, with the run's recipe in its
header.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from lora_studio import adapters, files
from lora_studio.adapters import metadata, recipe
from lora_studio.adapters.provenance import Provenance
from lora_studio.dataset import manifest
from lora_studio.errors import AdapterError
from lora_studio.language import tr
from lora_studio.methods import registry as methods
from lora_studio.models import inject
from lora_studio.training import reading
from lora_studio.training.session import Session

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "bitsandbytes")


def write(session: Session, path: Path) -> float:
    """Writes the adapter as of now to ``path`` and reads it back.

    What other programs would not read as it is, such as a DoRA, is written as the nearest plain LoRA
    (``methods.Method.plain``).

    Returns:
        ‖ΔW − ΔW written‖ / ‖ΔW‖ over all modules: 0 where the adapter is written as it is.

    Raises:
        AdapterError: the file does not hold what was trained.
        OSError: the disk refuses; no half-written file is left.
    """
    settings = session.settings.adapter
    plain = methods.get(settings.method).plain(session.adapter(), partial(inject.weight, session.base), settings)
    # the base model's family decides where the shapes leave it open
    made_for = {"ss_base_model_version": session.base.family.version}
    adapter = replace(plain.adapter, metadata={**plain.adapter.metadata, **made_for})
    adapters.write(adapter, path, dialect="kohya", metadata=header(session))
    again = adapters.read(path)
    if set(again.embeddings) != set(plain.adapter.embeddings):
        raise AdapterError(
            tr("The file does not hold the learned word after writing."),
            where=path,
            do=tr("Check the disk and export again."),
        )
    if set(again.changes) != set(plain.adapter.changes):
        raise AdapterError(
            tr(
                "The file holds {found} of {modules} modules after writing.",
                found=len(again.changes),
                modules=len(plain.adapter.changes),
            ),
            where=path,
            do=tr("Check the disk and export again."),
        )
    return plain.residual


def header(session: Session) -> dict[str, str]:
    """The file's texts: what other programs show, and the recipe that the run can be repeated from."""
    settings, base = session.settings, session.base
    return Provenance(
        training(session),
        title=session.run.name,
        prediction=base.process.written or base.process.name,
        zero_snr=base.process.zero_snr,
        clip_skip=base.clip_skip if base.family.clip_skips else 0,
        resolution=settings.dataset.resolution or base.resolution,
        trigger=settings.run.trigger,
        thumbnail=_thumbnail(session),
    ).texts


def training(session: Session) -> recipe.Training:
    """How the adapter came to be, as data."""
    pictures = [session.data.dataset.pictures[index] for index in session.data.train]
    folders = _folders(session)
    return recipe.Training(
        settings=recipe.cut_paths(session.settings.flat()),
        base=session.base.name,
        base_sha256=session.base_sha256,
        predicts=session.base.loaded_event.finding,
        parts=session.given_sha256,
        images=[
            recipe.ImageRecord(name=picture.path.name, sha256=picture.sha256, prepared=manifest.prepared(picture))
            for picture in pictures
        ],
        tags=dict(sum((Counter(one.tags) for one in folders.values()), Counter[str]())),
        folders=folders,
        pairs=[recipe.PairRecord(**asdict(pair)) for pair in session.data.dataset.pairs],
        versions=versions(),
        parent=_parent(session),
        steps=session.step,
        started=session.started,
        seconds=session.seconds,
    )


def _folders(session: Session) -> dict[str, recipe.FolderRecord]:
    """Every folder that is trained on, by its name in the dataset (the dataset's own for what is in no other), with the
    tags that training sees, the trigger word included. Those of class pictures say nothing of what was learned.
    """
    data, counts = session.data, dict[str, Counter[str]]()
    found: dict[str, recipe.FolderRecord] = {}
    for index in data.train:
        picture = data.dataset.pictures[index]
        name = data.dataset.name(picture).rpartition("/")[0] or data.dataset.folder.name or "pictures"
        texts = dict.fromkeys([] if picture.regularisation else data.cache.samples[index].captions)
        seen = [reading.tags_seen(text, session.settings, session.base.tokenizers) for text in texts]
        counts.setdefault(name, Counter()).update(list(dict.fromkeys(tag for tags in seen for tag in tags)))
        images = found[name].images + 1 if name in found else 1
        found[name] = recipe.FolderRecord(repeats=picture.repeats, images=images, regularisation=picture.regularisation)
    return {name: one.model_copy(update={"tags": dict(counts[name])}) for name, one in found.items()}


def _parent(session: Session) -> str:
    """What the run started from: a state of another run, or an adapter's file with its SHA-256; empty if nothing."""
    run, given = session.run, session.settings.run.start_from
    if parent := run.parent():
        return f"{parent['run']}, step {parent['step']}"
    return f"{Path(given).name}, sha256 {files.sha256(run.start_file)}" if given and run.start_file.exists() else ""


def versions() -> dict[str, str]:
    """Versions of all that shapes a run's numbers."""
    from lora_studio import __version__

    return {
        "lora_studio": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _thumbnail(session: Session) -> str:
    """The latest preview of the first prompt; a run without one has no thumbnail."""
    drawn = sorted(session.run.previews.glob("step-*-0.png"), key=lambda path: path.stat().st_mtime_ns)
    return metadata.thumbnail(drawn[-1].read_bytes()) if drawn else ""
