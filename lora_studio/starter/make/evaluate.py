"""Measures the finished model and draws its contact sheet.

    python -m lora_studio.starter.make.evaluate ICONS.zip PARTS STARTER --pairs 96

Held-out pairs (a subject in a style that training never showed together) are generated from their captions and
given to the classifier, beside the real pictures of the same pairs. Writes `figures.json` and `contact_sheet.png`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from . import classifier, pictures
from .names import COMMON, STYLES


def pipeline(model: Path, device: torch.device) -> StableDiffusionPipeline:
    """The shipped model with the sampler that its previews use: DPM-Solver++ on trailing steps."""
    pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True, torch_dtype=torch.float32).to(device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe: StableDiffusionPipeline, prompts: list[str], steps: int = 16, guidance: float = 4.0, seed: int = 0) -> torch.Tensor:
    """Pictures (N, 3, 128, 128) in -1..1, eight at a time; each has noise of its own, drawn by `seed`."""
    noise = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(pipe.device)
    out = []
    for at in range(0, len(prompts), 8):
        part = pipe(prompts[at : at + 8], latents=noise[at : at + 8], num_inference_steps=steps, guidance_scale=guidance, output_type="pt")
        out.append(part.images.float().cpu() * 2 - 1)
        print(f"{at + len(part.images)} of {len(prompts)}", flush=True)
    return torch.cat(out)


def tiled(x: torch.Tensor, columns: int) -> Image.Image:
    """Pictures (N, 3, 128, 128) in -1..1 in rows of `columns`."""
    rows = [torch.cat(list(row), 2) for row in x.split(columns)]
    return Image.fromarray(((torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def judge(pipe: StableDiffusionPipeline, icons: Path, parts: Path, count: int) -> tuple[dict, torch.Tensor]:
    """The classifier's accuracy on generated and on real held-out pairs, and the generated pictures."""
    index, rgba = pictures.load(icons)
    subjects, truth = classifier.labels(index)
    net = classifier.build(len(subjects)).eval()
    net.load_state_dict({k: v.float() for k, v in torch.load(parts / "classifier.pt").items()})
    held = [i for i, e in enumerate(index) if e["split"] == "held"]
    few = random.Random(3).sample(held, count)
    prompts = [f"{index[i]['subject'].replace('-', ' ')}, {index[i]['style']} style" for i in few]
    made = generate(pipe, prompts)
    figures = {
        "generated held-out pairs": classifier.accuracy(net, made, truth[few], len(subjects)) | {"pairs": count},
        "real pictures of the same pairs": classifier.accuracy(net, pictures.plain(rgba[few]), truth[few], len(subjects)),
        "real pictures of all held-out pairs": classifier.accuracy(net, pictures.plain(rgba[held]), truth[held], len(subjects)) | {"pairs": len(held)},
    }
    return figures, made


def sheet(pipe: StableDiffusionPipeline) -> Image.Image:
    """The twelve common subjects in columns; without a style word in the first row, then one row per style."""
    styles = [None, *STYLES.values()]
    prompts = [word if style is None else f"{word}, {style} style" for style in styles for word in COMMON]
    return tiled(generate(pipe, prompts), len(COMMON))


def sizes(pipe: StableDiffusionPipeline, model: Path) -> dict:
    """Parameters of each part, and bytes on disk."""
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    return {
        "parameters": {k: sum(p.numel() for p in m.parameters()) for k, m in parts.items()},
        "bytes": sum(f.stat().st_size for f in model.rglob("*") if f.is_file()),
    }


def main() -> None:
    """Writes the contact sheet first, then the figures."""
    ask = argparse.ArgumentParser()
    ask.add_argument("icons", type=Path)
    ask.add_argument("parts", type=Path)
    ask.add_argument("starter", type=Path)
    ask.add_argument("--pairs", type=int, default=96)
    given = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipe = pipeline(given.starter / "model", device)
    sheet(pipe).quantize(128, dither=Image.Dither.NONE).save(given.starter / "contact_sheet.png", optimize=True)
    accuracies, made = judge(pipe, given.icons, given.parts, given.pairs)
    tiled(made, 12).save(given.parts / "held_out.png")
    figures = {"psnr_db": json.loads((given.parts / "vae.json").read_text()), "accuracy": accuracies, **sizes(pipe, given.starter / "model")}
    (given.starter / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    with torch.no_grad():
        main()
