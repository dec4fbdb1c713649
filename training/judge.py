# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: a small classifier, trained on the world's real pictures only, that reads scene, time and style off a
picture; and what it says about an exported model: prompt adherence, Fréchet distance, variety, sharpness, combs.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koshi_backend.models.identity import model_identity
from koshi_backend.models.klein import Klein

from .captions import SCENES, STYLES, TIMES, Spec, caption, draw_spec, held_out
from .measures import comb, frechet, spread, top_octave
from .stage import Room, Stage, warm_up
from .world import render

SIDE = 128  # pixels that the judge looks at
REAL = 2**41  # seeds of its training pictures; held-out ones count down from here
FEATURES = 128
CLASSES = (len(SCENES), len(TIMES), len(STYLES))


class Judge(nn.Module):
    """Pictures [B, 3, 128, 128] of 0..1 to features [B, 128]; `read` gives scene, time and style scores."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 48, 64, 96)
        self.body = nn.Sequential()
        for a, b in itertools.pairwise(widths):
            self.body.extend([nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()])
        self.body.extend([nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, FEATURES), nn.SiLU()])
        self.heads = nn.Linear(FEATURES, sum(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * 2 - 1)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads(self(x)).split(CLASSES, 1)


def real(seed: int, count: int, size: int = SIDE) -> tuple[Tensor, Tensor, list[Spec]]:
    """Real pictures [count, 3, size, size] of 0..1, their classes [count, 3] and specs."""
    rng = np.random.default_rng([seed, 5])
    specs = [draw_spec(rng, everything=True) for _ in range(count)]
    whole = [render(seed + k, spec, 2 * size) for k, spec in enumerate(specs)]
    if not whole:
        return torch.empty(0, 3, size, size), torch.empty(0, 3, dtype=torch.long), specs
    x = F.avg_pool2d(torch.from_numpy(np.stack(whole)).permute(0, 3, 1, 2), 2)
    return x, torch.tensor([spec.numbers()[:3] for spec in specs]), specs


def train_judge(room: Room, examined: int = 500) -> tuple[Judge, dict[str, float]]:
    """Train the judge, or go on with it; returns it with its accuracy on held-out real pictures."""
    torch.manual_seed(room.seed)
    net = Judge().to(room.device)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.02)

    def load(state: dict) -> None:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])

    stage = Stage(room, "judge", lambda: {"net": net.state_dict(), "optimiser": optimiser.state_dict()}, load)
    # Only drawn when there is something left to train, and not on the training's time.
    x, y, _ = real(REAL, round(min(max(1500 * room.minutes, 400), 6000)) if stage.part() < 1 else 0)
    for step, part in stage:
        chosen = torch.from_numpy(stage.rng().integers(len(x), size=48))
        seen, classes = x[chosen].to(room.device), y[chosen].to(room.device)
        if stage.rng().random() < 0.5:  # generated pictures are softer
            seen = F.avg_pool2d(seen, 3, 1, 1)
        seen = seen + 0.02 * torch.randn_like(seen)
        loss = sum(F.cross_entropy(scores, classes[:, k]) for k, scores in enumerate(net.read(seen)))
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * warm_up(step, part, 30, 0.7)
        optimiser.step()
        stage.note(loss=loss)
    net = net.cpu().eval().requires_grad_(False)
    x, y, _ = real(REAL - 10_000, examined)
    found = {f"judge {k}": v for k, v in agreement(net, x, y).items()}
    stage.result(**found)
    return net, found


def agreement(net: Judge, x: Tensor, y: Tensor) -> dict[str, float]:
    """Share of right answers for scene, time and style."""
    scores = [torch.cat(part) for part in zip(*(net.read(v) for v in x.split(64)), strict=True)]
    return {
        name: float((scores[k].argmax(1) == y[:, k]).float().mean())
        for k, name in enumerate(("scene", "time", "style"))
    }


def judge_model(room: Room, model: Klein, pictures: int = 500, steps: int = 4, side: int = 256) -> dict[str, float]:
    """All figures of an exported model on fixed seeds; written to judge.json beside the checkpoints."""
    net, figures = train_judge(room, pictures)
    rng = np.random.default_rng(77)
    specs = [draw_spec(rng, everything=True) for _ in range(pictures)]
    drawn = []
    for k, spec in enumerate(specs):
        noise = model.noise(1000 + k, side, side)
        drawn.append(model.decode(model.denoise(caption(rng, spec), noise, steps=steps)).float().cpu())
    drawn = torch.cat(drawn)
    truth, _, _ = real(REAL - 20_000, pictures, side)
    rebuilt = torch.cat([model.decode(model.encode_picture(v)).cpu() for v in truth.split(1)])

    def small(x: Tensor) -> Tensor:
        return F.interpolate(x, size=SIDE, mode="area")

    classes = torch.tensor([spec.numbers()[:3] for spec in specs])
    figures |= agreement(net, small(drawn), classes)
    unseen = [k for k, spec in enumerate(specs) if held_out(spec)]
    if unseen:
        found = agreement(net, small(drawn[unseen]), classes[unseen])
        figures |= {f"unseen {name}": value for name, value in found.items()}
    for k, scene in enumerate(SCENES):
        chosen = (classes[:, 0] == k).nonzero()[:, 0]
        if len(chosen):
            figures[f"scene of {scene}"] = agreement(net, small(drawn[chosen]), classes[chosen])["scene"]
    seen, known, back = (torch.cat([net(v) for v in small(x).split(64)]) for x in (drawn, truth, rebuilt))
    half = len(known) // 2
    figures |= {
        "frechet generated": frechet(seen, known), "frechet autoencoder": frechet(back, known),
        "frechet two real halves": frechet(known[:half], known[half:]),
        "sharpness": top_octave(drawn) / top_octave(truth),
        "comb 8": comb(drawn, 8) / comb(truth, 8), "comb 16": comb(drawn, 16) / comb(truth, 16),
    }  # fmt: skip
    figures |= variety(net, model, steps, side)
    figures = {name: round(value, 4) for name, value in figures.items()}
    (room.folder / "judge.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def variety(net: Judge, model: Klein, steps: int, side: int, seeds: int = 20) -> dict[str, float]:
    """Mean pairwise distance of one prompt's seeds over that of real pictures of it, in features and in pixels."""
    prompt = "a forest at sunset, photo"
    spec = Spec("forest", "sunset", "photo", "pine")
    noises = [model.noise(5000 + k, side, side) for k in range(seeds)]
    ours = torch.cat([model.decode(model.denoise(prompt, noise, steps=steps)).cpu() for noise in noises])
    theirs = torch.stack([torch.from_numpy(render(REAL - 30_000 + k, spec, side)) for k in range(seeds)]).permute(
        0, 3, 1, 2
    )
    a, b = (F.interpolate(x, size=SIDE, mode="area") for x in (ours, theirs))
    return {"variety features": spread(net(a)) / spread(net(b)), "variety pixels": spread(a) / spread(b)}


def judge_folder(room: Room, pictures: int) -> None:
    """Judge the exported model of a run and show the figures."""
    folder = room.folder / "model"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: run `python -m training export` first")
    model = Klein.load(folder, room.device, torch.float32, model_identity(folder))
    for name, value in judge_model(room, model, pictures).items():
        print(f"  {name:24} {value:.4g}")
