"""A small classifier of subject and style. It measures whether generated pictures show what their captions name.

    python -m lora_studio.starter.make.classifier ICONS.zip OUT --seconds 60

It is trained on the same icons as the model: half of its pictures show one icon on plain paper, half are scenes, in
which both subjects of a pair are right. It is not shipped.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from . import pictures
from .composed import compose, main_colours
from .flat import FlatModel, Log, TimeBudget, captured, start, train
from .names import STYLES
from .scenes import Scenes


def build(subjects: int) -> nn.Sequential:
    """(B, 3, 128, 128) in -1..1 -> (B, subjects + styles) logits."""
    widths = (3, 32, 64, 128, 256, 384)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            nn.GroupNorm(8, b),
            nn.GELU(),
            nn.Conv2d(b, b, 3, padding=1),
            nn.GroupNorm(8, b),
            nn.GELU(),
        ]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4 * widths[-1], subjects + len(STYLES)),
    )


def labels(index: list[dict]) -> tuple[list[str], torch.Tensor]:
    """Subjects by number, and (N, 2) numbers of each picture's subject and style; style -1 is one that was not trained
    on.
    """
    subjects = sorted({e["subject"] for e in index})
    number = {s: i for i, s in enumerate(subjects)}
    styles = list(STYLES.values())
    return subjects, torch.tensor(
        [[number[e["subject"]], styles.index(e["style"]) if e["style"] in styles else -1] for e in index]
    )


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor, truth: torch.Tensor, subjects: int) -> dict[str, float]:
    """Share of pictures (N, 3, 128, 128) whose subject is first, is among the first five, and whose style is right."""
    dtype = next(net.parameters()).dtype
    out = torch.cat([net(part.to(dtype)).float() for part in x.split(256)])
    subject, style = truth[:, :1].to(out.device), truth[:, 1].to(out.device)
    best = out[:, :subjects].topk(5).indices
    return {
        "subject": float((best[:, :1] == subject).any(1).float().mean()),
        "subject in five": float((best == subject).any(1).float().mean()),
        "style": float((out[:, subjects:].argmax(1) == style).float().mean()),
    }


class Pool:
    """Scenes painted once: pictures (N, 3, 128, 128) uint8 with the numbers of their subjects (N, 2) and styles (N,);
    one subject stands twice.
    """

    def __init__(self, index: list[dict], rgba: torch.Tensor, truth: torch.Tensor, each: int, seed: int):
        draw = random.Random(seed)
        rows = [i for i, e in enumerate(index) if e["split"] == "train"]
        mains, paintable = main_colours(rgba, rgba.device)
        scenes = Scenes(index, rows, paintable)
        found = [scenes.draw(i, draw, composed=1.0) for i in rows for _ in range(each)]
        parts = (compose(rgba, mains, found[at : at + 256], draw) for at in range(0, len(found), 256))
        self.pictures = torch.cat([((x + 1) * 127.5).round().to(torch.uint8) for x in parts])
        ends = torch.tensor([(scene.icons[0], scene.icons[-1]) for scene in found], device=rgba.device)
        self.subjects, self.styles = truth[ends, 0], truth[ends[:, 0], 1]

    def draw(self, b: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(b, 3, 128, 128) in -1..1, (b, 2) subjects, (b,) styles."""
        at = torch.randint(0, len(self.pictures), (b,), device=self.pictures.device)
        return self.pictures[at].float() / 127.5 - 1, self.subjects[at], self.styles[at]


def single(
    rgba: torch.Tensor, truth: torch.Tensor, rows: torch.Tensor, papers: torch.Tensor, b: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `Pool.draw`, of one icon each, three in ten on a paper of another colour than white."""
    row = rows[torch.randint(0, len(rows), (b,), device=rgba.device)]
    paper = torch.randint(0, len(papers), (b,), device=rgba.device) * (torch.rand(b, device=rgba.device) < 0.3)
    return pictures.placed(rgba[row], papers[paper]), truth[row, :1].expand(-1, 2), truth[row, 1]


def wrong(net: nn.Module, x: torch.Tensor, both: torch.Tensor, style: torch.Tensor, subjects: int) -> torch.Tensor:
    """The loss, a scalar: cross-entropy of the subjects, and half as much of the style."""
    out = net(x).float()
    first, second = (F.cross_entropy(out[:, :subjects], both[:, k], label_smoothing=0.1) for k in (0, 1))
    return (first + second) / 2 + 0.5 * F.cross_entropy(out[:, subjects:], style, label_smoothing=0.1)


def options() -> argparse.Namespace:
    """The parsed command line."""
    ask = argparse.ArgumentParser()
    ask.add_argument("icons", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--seconds", type=float, default=60)
    ask.add_argument("--batch", type=int, default=256, help="pictures per process and step")
    ask.add_argument("--each", type=int, default=8, help="scenes of each icon")
    ask.add_argument("--limit", type=int, help="use about this many icons, for a trial")
    return ask.parse_args()


def main() -> None:
    """Trains for the given time and writes `OUT/classifier.pt`."""
    given = options()
    rank, world, device = start()
    index, rgba = pictures.load(given.icons, given.limit)
    subjects, truth = labels(index)
    rows = torch.tensor([i for i, e in enumerate(index) if e["split"] == "train"], device=device)
    rgba, truth = rgba.to(device), truth.to(device)
    pool = Pool(index, rgba, truth, given.each, 2000 + rank)
    torch.manual_seed(0)
    net = build(len(subjects)).to(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    flat = FlatModel([net], device, dtype, 1e-3, average=0.995, decay=0.05)
    torch.manual_seed(100 + rank)
    papers, seen = pictures.COLOURS.to(device), torch.zeros((), device=device)

    def step() -> None:
        halves = pool.draw(given.batch // 2), single(rgba, truth, rows, papers, given.batch // 2)
        x, both, style = (torch.cat(pair) for pair in zip(*halves, strict=True))
        loss = wrong(net, (x + torch.randn_like(x) * 0.05).to(dtype), both, style, len(subjects))
        flat.backward(loss)
        seen.copy_(loss.detach())

    clock = TimeBudget(given.seconds, device, hold=0.2)
    train(captured(step, device), flat, seen, clock, Log("classifier", rank, given.batch * world, device))
    if rank == 0:
        flat.use_average()
        held = [i for i, e in enumerate(index) if e["split"] == "held"]
        print("classifier", accuracy(net.eval(), pictures.plain(rgba[held]), truth[held], len(subjects)), flush=True)
        given.out.mkdir(parents=True, exist_ok=True)
        torch.save({k: v.half().cpu() for k, v in net.state_dict().items()}, given.out / "classifier.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
