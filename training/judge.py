# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: a small classifier, trained on the world's real pictures only, that reads scene, time and style off a
picture. Its last layer but one gives the features in which sets of pictures are compared.

It is kept in the run's folder (`judge.pt`), never in the model that is judged, and made anew when the world has
changed since.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, Spec
from .reality import Wish, as_tensor, classes, real_pictures, wishes
from .stage import TELL_SECONDS, Room, Stage, warm_up
from .world import render

SIDE = 128  # pixels: pictures are reduced to the area of a square of this side before they are looked at
FEATURES = 128
CLASSES = (len(SCENES), len(TIMES), len(STYLES))
NAMES = ("scene", "time", "style")
WORDS = (SCENES, TIMES, STYLES)
PICTURES, STEPS, BATCH, RATE = 6000, 1500, 48, 2e-3
SHAPED = 0.25  # of the pictures it learns from, those that are not square
TRAINED, HELD_OUT = 11, 12  # seeds of the lists of pictures
SAME_WORLD = 2e-3


class Block(nn.Module):
    """Half the size, then two convolutions beside a straight way."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width_in, width, 3, 2, 1)
        self.way = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.way(x)


class Judge(nn.Module):
    """Pictures [B, 3, H, W] of 0..1, about 128 x 128, to features [B, 128]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 64, 96, 128)
        self.body = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4))
        self.body.extend(Block(a, b) for a, b in itertools.pairwise(widths))
        self.body.extend([nn.GroupNorm(8, widths[-1]), nn.SiLU()])
        self.body.extend([nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * widths[-1], FEATURES), nn.SiLU()])
        self.heads = nn.Linear(FEATURES, sum(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of every scene, time and style."""
        return self.heads(self(x)).split(CLASSES, 1)

    @torch.inference_mode()
    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 128], and the numbers of scene, time and style [B, 3], of pictures of any one size."""
        features = self(shrink(pictures).to(self.heads.weight))
        return features.cpu(), torch.stack([s.argmax(1) for s in self.heads(features).split(CLASSES, 1)], 1).cpu()

    def name(self) -> str:
        """A hash of the weights: figures of two judges are not to be compared."""
        whole = hashlib.sha256()
        for tensor in self.state_dict().values():
            whole.update(tensor.cpu().numpy().tobytes())
        return whole.hexdigest()[:12]


def shrink(x: Tensor) -> Tensor:
    """Pictures reduced to the area of 128 x 128 pixels, whatever their shape; smaller ones are enlarged."""
    height, width = x.shape[-2:]
    factor = SIDE / (height * width) ** 0.5
    size = (round(height * factor), round(width * factor))
    return F.interpolate(x, size, mode="area") if factor <= 1 else F.interpolate(x, size, mode="bicubic").clamp(0, 1)


def probe() -> Tensor:
    """What the world looks like today: mean colours of 160 small pictures. Tells whether an older judge still fits."""
    every = itertools.product(SCENES, TIMES, STYLES)
    specs = [Spec(s, t, k, ADJECTIVES[s][n % 2]) for n, (s, t, k) in enumerate(every)]
    small = [cv2.resize(render(n, spec, 48), (3, 3), interpolation=cv2.INTER_AREA) for n, spec in enumerate(specs)]
    return torch.from_numpy(np.stack(small))


def shown(wished: list[Wish], told: str) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Real pictures as the judge sees them, uint8, and their classes, by size. Tells how far it is."""
    found: dict[tuple[int, int], list[Tensor]] = {}
    begin = last = time.monotonic()
    for k, picture in enumerate(real_pictures(wished)):
        found.setdefault(wished[k].size, []).append((shrink(as_tensor([picture]))[0] * 255 + 0.5).byte())
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            print(f"{told} {100 * (k + 1) / len(wished):5.1f} %  {(k + 1) / (last - begin):.0f}/s", flush=True)
    by_size = {size: classes([w for w in wished if w.size == size]) for size in found}
    return {size: (torch.stack(pictures), by_size[size]) for size, pictures in found.items()}


def augmented(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures of 0..1 as a model might draw them: mirrored, moved a little, softer, with a little noise."""
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5).view(-1, 1, 1, 1).to(x.device)
    x = torch.where(mirrored, x.flip(3), x)
    if rng.random() < 0.5:
        x = torch.roll(x, tuple(rng.integers(-8, 9, 2).tolist()), (2, 3))
    if rng.random() < 0.3:
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x + 0.02 * float(rng.random()) * torch.randn_like(x)


def train_judge(room: Room, steps: int = STEPS, pictures: int = PICTURES) -> Judge:
    """Train the judge of `room.folder`, or go on with it, or take it as it is."""
    torch.manual_seed(room.seed)
    net, today = Judge().to(room.device), probe()
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02)
    kept = room.folder / "judge.pt"
    if kept.is_file():
        known = torch.load(kept, map_location="cpu", weights_only=True)["state"].get("probe")
        if known is None or known.shape != today.shape or float((known - today).abs().max()) > SAME_WORLD:
            print("judge: the world has changed since this judge was trained; a new one is made", flush=True)
            kept.unlink()

    def state() -> dict:
        return {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "probe": today}

    def load(saved: dict) -> None:
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])

    stage = Stage(dataclasses.replace(room, steps=steps), "judge", state, load, pictures=pictures)
    if stage.part() < 1:
        groups = list(shown(wishes(pictures, TRAINED, SHAPED), "judge's pictures").values())
        share = np.array([len(y) for _, y in groups]) / pictures
        for step, part in stage:
            rng = stage.rng()
            x, y = groups[rng.choice(len(groups), p=share)]
            chosen = torch.from_numpy(rng.integers(len(x), size=BATCH))
            seen, truth = augmented(x[chosen].to(room.device).float() / 255, rng), y[chosen].to(room.device)
            loss = sum(
                F.cross_entropy(scores, truth[:, k], label_smoothing=0.02) for k, scores in enumerate(net.scores(seen))
            )
            optimiser.zero_grad()
            loss.backward()
            for group in optimiser.param_groups:
                group["lr"] = RATE * warm_up(step, part, 50, 0.7)
            optimiser.step()
            stage.note(loss=loss)
    return net.eval().requires_grad_(False)


def right(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Shares of right answers for scene, time and style; both [N, 3]."""
    return dict(zip(NAMES, (found == truth).float().mean(0).tolist(), strict=True))


def held_out_accuracy(net: Judge, count: int) -> tuple[dict[str, float], list[str]]:
    """Shares of right answers on real pictures it never saw, and its most frequent mistakes in words."""
    found, truth = [], []
    for x, y in shown(wishes(count, HELD_OUT, SHAPED), "held-out pictures").values():
        found += [net.look(part.float() / 255)[1] for part in x.split(64)]
        truth.append(y)
    a, b = torch.cat(found), torch.cat(truth)
    mistakes: dict[str, int] = {}
    for saw, was in zip(a.tolist(), b.tolist(), strict=True):
        for k in range(3):
            if saw[k] != was[k]:
                where = " ".join(WORDS[n][was[n]] for n in range(3))
                text = f"{where}: {NAMES[k]} read as {WORDS[k][saw[k]]}"
                mistakes[text] = mistakes.get(text, 0) + 1
    often = sorted(mistakes, key=lambda text: -mistakes[text])[:10]
    return right(a, b), [f"{mistakes[text]} x {text}" for text in often]
