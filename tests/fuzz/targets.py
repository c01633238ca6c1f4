"""Every reader of foreign files, each as one function of bytes.

A target returns or raises a StudioError; anything else is a fault. ``test_parsers.py`` runs each with Hypothesis in
every run of the tests; ``python -m tests.fuzz`` runs a coverage-guided fuzzer for as long as you like.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save

from lora_studio import adapters, events, runs
from lora_studio.adapters import container, detect, diffusers, listing, metadata, peft, recipe
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.config.slices import DatasetSettings
from lora_studio.dataset import (
    archive,
    buckets,
    caption_tables,
    caption_variants,
    captions,
    folder,
    manifest,
    pictures,
    preparation,
)
from lora_studio.errors import StudioError
from lora_studio.jobs import runner, view
from lora_studio.models import parts
from lora_studio.runs import Run, checkpoints, library
from lora_studio.sampling import infotext, picture_file
from lora_studio.sampling.axes import Axis
from lora_studio.sampling.picture_recipe import PictureRecipe
from lora_studio.sampling.recipe import grid, read_recipe, to_png


class Target(NamedTuple):
    """``read(data, folder)`` reads the bytes, if necessary from a file in the empty ``folder``. ``seeds`` returns valid
    ones.
    """

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], list[bytes]]


_TIME = 10**18
"""When every file was last changed, in nanoseconds: some readers remember files by it."""


def _file(data: bytes, place: Path, name: str) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(_TIME, _TIME))
    return path


def _adapters() -> list[bytes]:
    stem, module = (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    )
    down, up = torch.ones(2, 4), torch.ones(4, 2)
    kohya = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(1.0)}
    loha = {
        f"{stem}.hada_{name}": (down if name.endswith("b") else up).clone() for name in ("w1_a", "w1_b", "w2_a", "w2_b")
    }
    lokr = {
        f"{stem}.lokr_w1": torch.ones(2, 2),
        f"{stem}.lokr_w2": torch.ones(2, 2),
        f"{stem}.alpha": torch.tensor(1.0),
    }
    dora = {
        f"{module}.lora_A.weight": down,
        f"{module}.lora_B.weight": up,
        f"{module}.lora_magnitude_vector": torch.ones(4),
    }
    texts = {
        "ss_tag_frequency": '{"10_x": {"ink": 9}}',
        "modelspec.thumbnail": metadata.thumbnail(_png()),
        "modelspec.trigger_phrase": "ink",
        "lora_adapter_metadata": (
            '{"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": 3}, "unet.use_rslora": true}'
        ),
        recipe.KEY: _recipes()[0].decode(),
    }
    return [save(tensors, texts) for tensors in (kohya, loha, lokr, dora)] + [
        save({f"base_model.model.{module}.lora_A.weight": down, f"base_model.model.{module}.lora_B.weight": up})
    ]


def _header(data: bytes, place: Path) -> object:
    path = _file(data, place, "a.safetensors")
    for read in (container.read_header, container.peek, adapters.summary):
        try:
            read(path)
        except StudioError:
            pass
    return None


def _adapter(data: bytes, place: Path) -> object:
    found = adapters.read(_file(data, place, "a.safetensors"))
    metadata.trigger(found.metadata), metadata.thumbnail_bytes(found.metadata), recipe.read(found.metadata)
    return found.family, found.kind, found.rank


def _json_captions(data: bytes, place: Path) -> object:
    try:
        caption_tables.of_picture(data)
    except ValueError:
        pass
    return caption_tables.read("meta_cap.json", data)


def _peft_config(data: bytes, place: Path) -> object:
    _file(
        save(
            {
                "base_model.model.conv_in.lora_A.weight": torch.ones(2, 4, 3, 3),
                "base_model.model.conv_in.lora_B.weight": torch.ones(4, 2, 1, 1),
            }
        ),
        place,
        container.PEFT_MODEL,
    )
    _file(data, place, "adapter_config.json")
    adapters.summary(place)
    return adapters.read(place)


def _recipes() -> list[bytes]:
    blend = recipe.blend(
        ingredients=[{"name": "ink", "weight": 0.5, "blocks": {"mid_block": 0.5}}, {"name": "gold"}],
        method="ties",
        rank=4,
    )
    training = recipe.Training(
        settings=Settings(data="x").flat(),
        base="b",
        images=[recipe.ImageRecord(name="a.png", sha256="ab")],
        tags={"ink": 3},
        versions={"torch": "2"},
    )
    return [recipe.dumps(blend).encode(), recipe.dumps(training).encode()]


def _recipe(data: bytes, place: Path) -> object:
    return recipe.read({recipe.KEY: data.decode("utf-8", "replace")})


def _caption(data: bytes, place: Path) -> object:
    text = captions.tidy_lines(captions.decode(data)[0])
    text.encode()
    return caption_variants.all_variants([text], "ink", DatasetSettings(shuffle_tags=True, tag_dropout=0.5))


def _presets() -> list[bytes]:
    return [path.read_bytes() for path in sorted(presets.FOLDER.glob("*.toml"))] + [
        b"\xef\xbb\xbftitle = 'x'\n[settings]\npreview_prompts = ['a', 'b']\nrank = 4\n"
    ]


def _settings() -> list[bytes]:
    import tomli_w

    return [tomli_w.dumps(Settings(data="x", preview_prompts=["a", "b"]).flat()).encode()]


def _run_settings(data: bytes, place: Path) -> object:
    return Run(_file(data, place, "settings.toml").parent).settings()


def _zips() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as packed:
            packed.writestr("5_ink/a.png", _png())
            packed.writestr("5_ink/a.txt", "ink " * 50)
        made.append(out.getvalue())
    return made


def _zip(data: bytes, place: Path) -> object:
    inside = place / "inside"
    inside.mkdir()
    packed = _file(data, inside, "a.zip")
    try:
        return archive.unpack(packed, inside / "style")
    finally:
        assert {path.name for path in place.iterdir()} == {"inside"} and {path.name for path in inside.iterdir()} <= {
            "a.zip",
            "style",
        }, "something lies beside the folder"


def _events() -> list[bytes]:
    told = [
        events.StateChanged(state=events.State.RUNNING),
        events.Started(total_steps=9, images=3, device="cpu", precision="fp32", parameters=1, modules=1),
        events.StepDone(step=1, loss=float("nan"), learning_rate=1e-4),
        events.Validated(step=1, loss=0.5),
        events.PreviewReady(step=1, index=0, prompt="é", seed=1, path="p.png"),
        events.CheckpointSaved(step=1, path="c"),
        events.RolledBack(step=1, failed_step=2, factor=0.5, what="w"),
        events.Warned(what="w"),
        events.Failed(what="f"),
        events.Finished(adapter="a", steps=1, seconds=1.0, final_loss=0.1),
    ]
    return [b"\n".join(event.line().encode() for event in told) + b"\n"]


def _log(data: bytes, place: Path) -> object:
    folded = view.fold(Run(_file(data, place, "events.jsonl").parent))
    return folded.progress, folded.last


def _worker(data: bytes, place: Path) -> object:
    return runner.alive(Run(_file(data, place, "worker.json").parent))


def _workers() -> list[bytes]:
    mine = psutil.Process()
    return [json.dumps({"pid": mine.pid, "started": mine.create_time(), "queued": 10**18}).encode()]


def _index(data: bytes, place: Path) -> object:
    _file(_adapters()[0], runs.library_folder(place), "ink.safetensors")
    _file(data, runs.cache_folder(place), "library-3.json")
    found = library.catalogue(place)
    assert len(found.entries) + len(found.unreadable) == 1
    return list(library.search(found.entries, "ink"))


def _indexes() -> list[bytes]:
    one = {
        "title": "t",
        "path": "p",
        "family": "sd1",
        "dialect": "kohya",
        "method": "lora",
        "rank": 2,
        "mixed_ranks": False,
        "alpha": 1.0,
        "modules": 1,
        "trigger": "",
        "size": 9,
        "modified": 1.5,
        "date": "",
        "has_thumbnail": False,
    }
    return [
        json.dumps(
            {"library/ink.safetensors": [len(_adapters()[0]), _TIME, one, "", ""], "gone": [1, 2, None, "what", "do"]}
        ).encode()
    ]


def _scanned(data: bytes, place: Path) -> object:
    style = place / "style"
    _file(_png(), style, "a.png")
    folder.scan(style, place / "cache")
    (memory,) = (place / "cache").iterdir()
    memory.write_bytes(data)
    return folder.scan(style, place / "cache").pictures


def _prepared(data: bytes, place: Path) -> object:
    _file(_png(), place / "10_style", "a.png")
    _file(data, place / preparation.FOLDER, "preparation.json")
    dataset = folder.scan(place)
    return dataset.pictures, dataset.left_out, buckets.problems(dataset, 512, 64, 1.5), manifest.manifest(dataset)


def _memories() -> list[bytes]:
    facts = {"width": 8, "height": 8, "sha256": "ab" * 32, "likeness": "0" * 38, "notices": ["frames"]}
    return [json.dumps({"a.png": [len(_png()), _TIME, facts]}).encode()]


def _saved(data: bytes, place: Path) -> object:
    for name in (checkpoints.MANIFEST, checkpoints.ABOUT):
        _file(data, place, name)
    return checkpoints.complete(place), checkpoints.about(place)


def _run(data: bytes, place: Path) -> object:
    run = Run(place)
    for path in (run.parent_file, run.manifest_file):
        _file(data, place, path.name)
    return run.parent(), manifest.noted(run.manifest_file)


def _texts(data: bytes, place: Path) -> object:
    """One text for every entry of a header that is more than a word."""
    text = data.decode("utf-8", "replace")
    texts = {
        "ss_tag_frequency": text,
        "modelspec.thumbnail": text,
        "ss_base_model_version": text,
        "lora_adapter_metadata": text,
    }
    found = metadata.trigger(texts), metadata.thumbnail_bytes(texts), detect.claimed(texts)
    return found, {
        component: peft.Scales(config).alpha("conv_in", {"down": torch.ones(2, 2), "up": torch.ones(2, 2)})
        for component, config in diffusers.unpack(texts).items()
    }


def _model(data: bytes, place: Path) -> object:
    return parts.read_json(_file(data, place, "unet/config.json"))


def _png(text: str = "") -> bytes:
    note, out = PngInfo(), io.BytesIO()
    if text:
        note.add_itxt("lora_studio", text)
    Image.new("RGB", (8, 8), "red").save(out, "PNG", pnginfo=note)
    return out.getvalue()


def _sheets() -> list[bytes]:
    made = grid(
        x=Axis("weight", (0.0, 0.5), "ink"),
        prompt="a cat",
        adapters=[{"name": "ink", "weight": 0.8, "sha256": "ab" * 32}],
        base="starter",
        width=64,
        height=64,
    )
    return [to_png(made, [Image.new("RGB", (64, 64))] * 2)]


def _sheet(data: bytes, place: Path) -> object:
    return read_recipe(_file(data, place, "sheet.png")).cells


def _pictures() -> list[bytes]:
    made = []
    for kind in pictures.FORMATS:
        out = io.BytesIO()
        Image.effect_noise((24, 16), 50).convert("RGB").save(out, kind)
        made.append(out.getvalue())
    return made


def _picture(data: bytes, place: Path) -> object:
    path = _file(data, place, "a.png")
    return pictures.examine(path), pictures.open_picture(path).size


TARGETS = {
    "header": Target(_header, _adapters),
    "adapter": Target(_adapter, _adapters),
    "peft-config": Target(
        _peft_config,
        lambda: [
            b'{"r": 2, "lora_alpha": 4, "use_rslora": true, "alpha_pattern": {"conv_in": 3}, "rank_pattern": {}, '
            b'"peft_type": "LORA"}'
        ],
    ),
    "recipe": Target(_recipe, _recipes),
    "caption": Target(
        _caption,
        lambda: [
            "ink, a “cat” ||| gold {red|} ||| x\n{{y}}".encode(code)
            for code in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252")
        ],
    ),
    "table": Target(
        lambda data, place: caption_tables.read("metadata.jsonl", data),
        lambda: [b'{"file_name": "a.png", "text": "ink"}\n{"file_name": "5_b/c.png", "caption": "gold"}\n'],
    ),
    "csv-table": Target(
        lambda data, place: caption_tables.read("metadata.csv", data),
        lambda: [b'file_name,text\na.png,ink\n5_b/c.png,"gold, ""old"""\n', b"text;file_name\r\nink;a.png\r\n"],
    ),
    "json-captions": Target(
        _json_captions,
        lambda: [
            b'{"a": {"caption": "ink", "tags": "x, y"}, "/b/c.png": {"tags": "gold"}}',
            b'{"caption": "ink", "tags": ["x"], "captions": {"a": "b"}}',
        ],
    ),
    "preset": Target(lambda data, place: presets.read(_file(data, place, "a.toml")), _presets),
    "settings": Target(_run_settings, _settings),
    "zip": Target(_zip, _zips),
    "events": Target(_log, _events),
    "worker": Target(_worker, _workers),
    "index": Target(_index, _indexes),
    "scan-memory": Target(_scanned, _memories),
    "preparation": Target(
        _prepared,
        lambda: [
            b'{"version": 1, "crops": {"10_style/a.png": [0, 0.5, 1, 1]}, "left_out": ["b.png"], "folders": '
            b'{"10_style": {"repeats": 3, "weight": 0.5, "prefix": "ink,", "caption": "a", "timesteps": [0, 500], '
            b'"regularisation": true}}}',
        ],
    ),
    "saved": Target(
        _saved,
        lambda: [
            b'{"adapter.safetensors": "ab", "manifest.json": "cd"}',
            b'{"settings": {"rank": 4}, "pictures": {"a.png": {}}}',
        ],
    ),
    "run": Target(
        _run,
        lambda: [
            b'{"run": "ink", "step": 20, "goes_on": true}',
            b'{"a.png": {"sha256": "ab", "caption": "ink", "repeats": 1}}',
            b'{"a.png": {"sha256": "ab", "caption": "ink", "repeats": 1, "mask": "cd", "crop": [0, 0, 0.5, 1], '
            b'"weight": 0.5, "timesteps": [0, 500], "regularisation": true}}',
        ],
    ),
    "texts": Target(
        _texts,
        lambda: [
            b'{"10_x": {"ink": 9, "gold": 2}}',
            b"data:image/jpeg;base64,/9j/4AA=",
            b'{"unet.r": 2, "unet.lora_alpha": 4, "unet.use_rslora": true, "unet.alpha_pattern": {"conv_in": 3}}',
        ],
    ),
    "model": Target(_model, lambda: [b'{"in_channels": 4, "block_out_channels": [32, 64], "act_fn": "silu"}']),
    "sheet": Target(_sheet, _sheets),
    "infotext": Target(
        lambda data, place: infotext.read(data.decode("utf-8", "replace")),
        lambda: [
            b"a cat <lora:ink:0.8>\nNegative prompt: text\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1",
            b'a\nSize: 5x7, Model: "a, b", Denoising strength: 0.5, Hires upscale: 2, Lora hashes: "ink: 01"',
        ],
    ),
    "drawn": Target(
        lambda data, place: picture_file.read(_file(data, place, "a.png")),
        lambda: [picture_file.to_png(Image.new("RGB", (4, 4)), PictureRecipe(prompt="a cat"))],
    ),
    "picture": Target(_picture, _pictures),
}


def attempt(name: str, data: bytes, place: Path) -> None:
    """Lets target ``name`` read ``data`` in the folder ``place``, which is emptied first.

    Raises:
        Exception: any but a StudioError: the fault that is looked for.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    listing._summary.cache_clear()  # it remembers files by path, time and size
    try:
        TARGETS[name].read(data, place)
    except StudioError as error:
        assert error.what and error.do, f"{error!r} does not say what to do"
