"""A small classifier of subject and style. It measures whether generated icons show what their captions name.

    python -m lora_studio.starter.make.classifier ICONS.zip OUT --seconds 60

It is trained on the same icons as the model. It is not shipped.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from . import pictures
from .flat import FlatModel, Log, TimeBudget, captured, start, train
from .names import STYLES


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


def main() -> None:
    """Trains for the given time and writes `OUT/classifier.pt`."""
    ask = argparse.ArgumentParser()
    ask.add_argument("icons", type=Path)
    ask.add_argument("out", type=Path)
    ask.add_argument("--seconds", type=float, default=28)
    ask.add_argument("--batch", type=int, default=128, help="pictures per process and step")
    ask.add_argument("--limit", type=int, help="use about this many icons, for a trial")
    given = ask.parse_args()
    rank, world, device = start()
    index, rgba = pictures.load(given.icons, given.limit)
    subjects, truth = labels(index)
    rows = torch.tensor([i for i, e in enumerate(index) if e["split"] == "train"], device=device)
    rgba, truth = rgba.to(device), truth.to(device)
    torch.manual_seed(0)
    net = build(len(subjects)).to(device)
    flat = FlatModel(
        [net], device, torch.bfloat16 if device.type == "cuda" else torch.float32, 1e-3, average=0.995, decay=0.05
    )
    torch.manual_seed(100 + rank)
    colours, seen = pictures.COLOURS.to(device), torch.zeros((), device=device)

    def step() -> None:
        row = rows[torch.randint(0, len(rows), (given.batch,), device=device)]
        paper = torch.randint(0, len(colours), (given.batch,), device=device) * (
            torch.rand(given.batch, device=device) < 0.3
        )
        x = pictures.placed(rgba[row], colours[paper])
        out = net((x + torch.randn_like(x) * 0.05).to(flat.work.dtype)).float()
        subject = F.cross_entropy(out[:, : len(subjects)], truth[row, 0], label_smoothing=0.1)
        loss = subject + 0.5 * F.cross_entropy(out[:, len(subjects) :], truth[row, 1], label_smoothing=0.1)
        flat.backward(loss)
        seen.copy_(loss.detach())

    train(
        captured(step, device),
        flat,
        seen,
        TimeBudget(given.seconds, device, hold=0.2),
        Log("classifier", rank, given.batch * world, device),
    )
    if rank == 0:
        flat.use_average()
        held = [i for i, e in enumerate(index) if e["split"] == "held"]
        print("classifier", accuracy(net.eval(), pictures.plain(rgba[held]), truth[held], len(subjects)), flush=True)
        torch.save({k: v.half().cpu() for k, v in net.state_dict().items()}, given.out / "classifier.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
