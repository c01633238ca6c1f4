"""Measures the finished model and draws its contact sheet.

    python -m lora_studio.starter.make.evaluate ICONS.zip PARTS STARTER --pairs 96

Held-out pairs (a subject in a style, never trained on together) are generated from their captions and classified, as
are the real pictures of the same pairs. Then come the sentences of `forms.py`, and fewer steps. Writes `figures.json`
and `contact_sheet.webp`, which has one row per form and style.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image, ImageDraw

from . import classifier, forms, pictures
from .composed import main_colours
from .names import COMMON


def pipeline(model: Path, device: torch.device) -> StableDiffusionPipeline:
    """The shipped model with the sampler that its previews use: DPM-Solver++ on trailing steps."""
    pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True).to(device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(
    pipe: StableDiffusionPipeline, prompts: list[str], steps: int = 16, guidance: float = 4.0, seed: int = 0
) -> torch.Tensor:
    """Pictures (N, 3, 128, 128) in -1..1; each has noise of its own, drawn by `seed`. Eight at a time on a CPU."""
    each = 8 if pipe.device.type == "cpu" else 256
    noise = torch.randn(len(prompts), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(pipe.device)
    out = []
    for at in range(0, len(prompts), each):
        part = pipe(
            prompts[at : at + each],
            latents=noise[at : at + each],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        )
        out.append(part.images.float().cpu() * 2 - 1)
    return torch.cat(out)


def tiled(x: torch.Tensor, columns: int) -> Image.Image:
    """Pictures (N, 3, 128, 128) in -1..1 in rows of `columns`."""
    rows = [torch.cat(list(row), 2) for row in x.split(columns)]
    return Image.fromarray(((torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


class Judge:
    """The classifier, and the icons whose subjects and styles it knows."""

    def __init__(self, icons: Path, weights: Path):
        self.index, self.rgba = pictures.load(icons)
        self.subjects, self.truth = classifier.labels(self.index)
        self.net = classifier.build(len(self.subjects)).eval()
        self.net.load_state_dict({k: v.float() for k, v in torch.load(weights).items()})

    def rows(self, split: str, count: int) -> list[int]:
        """The same `count` random rows of a split each time."""
        rows = [i for i, e in enumerate(self.index) if e["split"] == split]
        return sorted(random.Random(3).sample(rows, min(count, len(rows))))

    def prompts(self, rows: list[int]) -> list[str]:
        """The captions to generate from."""
        return [f"{self.index[i]['subject'].replace('-', ' ')}, {self.index[i]['style']} style" for i in rows]

    def reads(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, subjects) of pictures (N, 3, 128, 128) in -1..1."""
        return torch.cat([self.net(part)[:, : len(self.subjects)] for part in x.split(256)])

    def says(self, x: torch.Tensor, rows: list[int]) -> dict:
        """Accuracy on pictures (N, 3, 128, 128) in -1..1 that should show those rows' subjects and styles."""
        return {
            k: round(v, 3) for k, v in classifier.accuracy(self.net, x, self.truth[rows], len(self.subjects)).items()
        } | {"pictures": len(rows)}


def accuracies(pipe: StableDiffusionPipeline, judge: Judge, count: int, out: Path) -> dict:
    """Accuracy on generated pictures of pairs held out and of pairs trained on, and on real held-out ones."""
    held, trained, every = judge.rows("held", count), judge.rows("train", count // 2), judge.rows("held", 10**9)
    made, known = generate(pipe, judge.prompts(held)), generate(pipe, judge.prompts(trained))
    tiled(made, 12).save(out)
    return {
        "generated, held-out pairs": judge.says(made, held),
        "generated, trained pairs": judge.says(known, trained),
        "real, the same held-out pairs": judge.says(pictures.plain(judge.rgba[held]), held),
        "real, all held-out pairs": judge.says(pictures.plain(judge.rgba[every]), every),
    }


def sheet(pipe: StableDiffusionPipeline) -> Image.Image:
    """The twelve common subjects in columns, the name of the row at its left; all rows begin with the same noise."""
    rows = forms.sheet_rows()
    strips = [tiled(generate(pipe, [ask(k, n) for k, n in enumerate(COMMON)]), len(COMMON)) for ask in rows.values()]
    left, side = 150, pictures.SIDE
    page = Image.new("RGB", (left + side * len(COMMON), side * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for k, (name, strip) in enumerate(zip(rows, strips, strict=True)):
        page.paste(strip, (left, k * side))
        pen.text((6, k * side + side // 2), name, fill="black", anchor="lm", font_size=13)
    return page


def sentences(pipe: StableDiffusionPipeline, judge: Judge, seeds: int) -> dict:
    """The figures of every form, and of plain names with fewer steps."""
    trained = {i: e["subject"] for i, e in enumerate(judge.index) if e["split"] == "train"}
    _, paintable = main_colours(judge.rgba, judge.rgba.device)
    counts = collections.Counter(trained.values()), collections.Counter(trained.get(i, "") for i in paintable)
    those = forms.asked(judge.subjects, *counts)
    found = forms.measure(lambda p, seed: generate(pipe, p, seed=seed), judge.reads, judge.subjects, those, seeds)
    few = {}
    for steps in (6, 8, 12, 16, 24):
        x = generate(pipe, [a.name for a in those], steps=steps)
        few[steps] = round(forms.share_right(judge.reads(x), judge.subjects, [a.right for a in those]), 3)
    return {"forms": found, "subject of plain names by steps": few}


def converged(pipe: StableDiffusionPipeline) -> dict[int, float]:
    """By number of steps: mean PSNR in dB of pictures to those of sixty steps from the same noise."""
    prompts = [*forms.FEW] * 8
    last = generate(pipe, prompts, steps=60)
    found = {}
    for steps in (8, 10, 12, 14, 16, 20):
        off = (generate(pipe, prompts, steps=steps) - last).square().mean((1, 2, 3))
        found[steps] = round(float((10 * torch.log10(4 / off)).mean()), 2)
    return found


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
    ask.add_argument("--seeds", type=int, default=2, help="pictures of each sentence")
    given = ask.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipe = pipeline(given.starter / "model", device)
    sheet(pipe).save(given.starter / "contact_sheet.webp", quality=85, method=6)
    judge = Judge(given.icons, given.parts / "classifier.pt")
    figures = {
        "autoencoder": json.loads((given.parts / "vae.json").read_text()),
        "accuracy": accuracies(pipe, judge, given.pairs, given.parts / "held_out.png"),
        **sentences(pipe, judge, given.seeds),
        "dB from 60 steps, by steps": converged(pipe),
        **sizes(pipe, given.starter / "model"),
    }
    (given.starter / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    with torch.no_grad():
        main()
