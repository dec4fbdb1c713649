# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 3, the text encoder with the transformer: flow matching on normalised packed latents.

x_t = t noise + (1 - t) picture, the target is noise - picture. The time is spent first on 128-pixel pictures, then on
a mixture of sizes and shapes. Half of the batches carry a reference at time id 10, a few of them a second one at 20. A
third of all are pictures damaged as the camera loop damages them: as references, and every other time as the start too,
which must come out whole. Some captions are dropped so that the distillation can guide.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from .autoencoder import random_warp, trained
from .captions import caption
from .correction import CorrectedEncoder
from .net import TEXT_LENGTH, Net, plain_attention_on_cpu, trainable
from .optim import Masters, Muon, cast
from .pictures import Pictures
from .stage import Room, Stage, warm_up

SMALL = 0.2  # part of the time with 128-pixel pictures only
REFERENCES, DAMAGED, SECOND = 0.5, 0.6, 0.15  # of all batches; of those; of the others, which get a second one
DROPPED = 0.1  # captions
LOOPED = 6  # of a damaged batch, how many pictures go through the autoencoder, on a CPU
LEAST = 0.3  # flow time of a damaged start: below it a velocity would have to undo all the damage in no time
TOKENS = 4200  # of pictures and text in a batch that suits a CPU
RATE = 2.5e-3
SIZES = {"small": 0.08, "square": 0.52, "wide": 0.12, "tall": 0.15, "classic": 0.07, "large": 0.06}


class Example(NamedTuple):
    """A batch of latents [B, 128, h, w]. name: size and kind. start: what the noise is mixed with: x, or damaged."""

    name: str
    x: Tensor
    captions: list[str]
    references: tuple[Tensor, ...]
    start: Tensor


class Examples:
    """Batches of normalised latents with captions, from the pictures of a run."""

    def __init__(self, room: Room) -> None:
        self.room, self.pictures = room, Pictures(room.folder)
        net = trained(room.folder)
        self.mean = net.bn.running_mean.view(1, -1, 1, 1).to(room.device)
        self.deviation = (net.bn.running_var + 1e-4).sqrt().view(1, -1, 1, 1).to(room.device)
        self.encoder = CorrectedEncoder(net, load_file(room.folder / "encoder.safetensors")).to(room.device)
        cast(self.encoder, room.dtype)  # bfloat16 errs by 1 % of a deviation, and takes half the time
        self.decoder = net.decoder.to(room.device, room.dtype, memory_format=torch.channels_last)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        """Pictures of -1..1 to normalised packed latents [B, 128, H/16, W/16]."""
        packed = rearrange(self.encoder(x), "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)
        return (packed - self.mean) / self.deviation

    def draw(self, rng: np.random.Generator, small_only: bool, dropped: float) -> Example:
        """A batch of about TOKENS tokens, times the room's batch. dropped: share of empty captions."""
        names = list(SIZES)
        size = "small" if small_only else names[rng.choice(len(names), p=list(SIZES.values()))]
        kind = ("damaged" if rng.random() < DAMAGED else "pair") if rng.random() < REFERENCES else ""
        second = kind == "pair" and rng.random() < SECOND
        if kind == "pair" and size in ("classic", "large"):
            size = "square"  # there are no pairs of these
        group = ("square" if size == "small" else size) + ("-pairs" if kind == "pair" else "")
        first = {"small": 64, "square": 256, "wide": 220, "tall": 220, "classic": 252, "large": 1024}[size]
        tokens = first * (1 + bool(kind) + second) + TEXT_LENGTH
        count = max(round(TOKENS * self.room.batch / tokens), 1 if self.room.batch <= 1 else 2)
        pictures, specs, reference = self.pictures.take(group, count, rng, self.room.device)
        if size == "small":
            pictures, reference = F.avg_pool2d(pictures, 2), None if reference is None else F.avg_pool2d(reference, 2)
        if kind == "damaged":
            reference = self.damaged(pictures, rng)
        shown = [] if reference is None else [self.latents(reference)]
        if second and reference is not None:
            shown.insert(int(rng.integers(2)), self.latents(self.damaged(reference, rng)))
        words = ["" if rng.random() < dropped else caption(rng, spec) for spec in specs]
        x = self.latents(pictures)
        start = shown[0] if kind == "damaged" and rng.random() < 0.5 else x
        kind = kind if start is x else "loop"
        return Example(f"{size}{' ' + kind if kind else ''}", x, words, tuple(shown), start)

    def damaged(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """What a feedback loop makes of pictures: rounds of the autoencoder, or gains, blur, blocks and noise."""
        # Rounds are dear: a CPU makes them for a few pictures of a batch only.
        some = max(1, round(LOOPED * self.room.batch)) if rng.random() < 0.7 else 0
        plain = [damage(v, rng) for v in x[some:].permute(0, 2, 3, 1).cpu().numpy()]
        parts = [self.rounds(x[:some], rng)] if some else []
        if plain:
            parts.append(torch.from_numpy(np.stack(plain)).permute(0, 3, 1, 2).to(x))
        return torch.cat(parts)

    @torch.no_grad()
    def rounds(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """One to three times through the autoencoder, with small changes of contrast and the blur of resampling."""
        for _ in range(int(rng.integers(1, 4))):
            z = self.encoder(x).to(self.room.dtype, memory_format=torch.channels_last)
            x = self.decoder(z).float().clamp(-1, 1)
            mean = x.mean((1, 2, 3), keepdim=True)
            x = (mean + (x - mean) * float(rng.uniform(0.93, 1.10))).clamp(-1, 1)
            if rng.random() < 0.5:
                x = random_warp([x], rng, zoom=1.0, tilt=0.0, pan=0.006)[0]
        return x


def damage(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One picture [H, W, 3] of -1..1 with wrong contrast and colour, too soft or sharp, with blocks, noise or holes."""
    if rng.random() < 0.7:
        x = x.mean((0, 1)) + (x - x.mean((0, 1))) * rng.uniform(0.8, 1.35)
    if rng.random() < 0.7:
        grey = x.mean(2, keepdims=True)
        x = grey + (x - grey) * rng.uniform(0.75, 1.4)
    if rng.random() < 0.4:
        x = x * rng.uniform(0.88, 1.12, 3) + rng.uniform(-0.1, 0.1)
    soft = cv2.GaussianBlur(x.astype(np.float32), (0, 0), rng.uniform(0.7, 1.8))
    way = rng.random()
    x = soft if way < 0.4 else x + (x - soft) * rng.uniform(0.3, 1.2) if way < 0.75 else x
    height, width = x.shape[:2]
    if rng.random() < 0.35:
        cell = int(rng.choice([8, 16]))
        blocks = rng.normal(0, rng.uniform(0.02, 0.10), (height // cell, width // cell, 3)).astype(np.float32)
        x = x + cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.4:
        x = x + rng.normal(0, rng.uniform(0.01, 0.08), x.shape)
    if rng.random() < 0.25:  # a border that the camera uncovered
        edge = int(rng.integers(4, max(height // 8, 5)))
        turns = int(rng.integers(4))
        x = np.rot90(x, turns).copy()
        x[:edge] = x[edge] if rng.random() < 0.5 else 0
        x = np.rot90(x, -turns)
    return np.ascontiguousarray(np.clip(x, -1, 1), dtype=np.float32)


def flow_times(count: int, rng: np.random.Generator, mean: float = 1.0, deviation: float = 1.2) -> Tensor:
    """Times of 0..1, evenly spread over a logit-normal law, shuffled."""
    u = torch.tensor((rng.permutation(count) + rng.random(count)) / count).clamp(1e-4, 1 - 1e-4)
    return torch.sigmoid(mean + deviation * torch.special.ndtri(u)).float()


def train_transformer(room: Room) -> None:
    """Train the net of `room.folder`, or go on with it."""
    if room.device.type == "cpu":
        plain_attention_on_cpu()
    examples = Examples(room)
    torch.manual_seed(room.seed)
    net = Net(room.compile).to(room.device)
    masters = Masters(net, room.dtype, trainable)
    optimiser = Muon(
        masters.master.items(),
        RATE,
        adam=("embed_tokens", "final_layer.linear", "img_in"),
        decay=0.02,
        dtype=room.dtype,
    )

    def load(state: dict) -> None:
        masters.load(state["net"])
        optimiser.load_state_dict(state["optimiser"])

    parameters = sum(p.numel() for p in net.transformer.parameters())
    stage = Stage(
        room, "transformer", lambda: {"net": masters.state(), "optimiser": optimiser.state_dict()}, load,
        rate=RATE, parameters=parameters,
    )  # fmt: skip
    for step, part in stage:
        rng = stage.rng()
        name, x, words, references, start = examples.draw(rng, part < SMALL, DROPPED)
        t, noise = flow_times(len(x), rng).to(room.device), torch.randn_like(x)
        if start is not x:
            t = t.clamp_min(LEAST)
        at = t.view(-1, 1, 1, 1)
        mixed = at * noise + (1 - at) * start
        v = net(mixed, t, net.embed(words), references)
        loss = (v - (mixed - x) / at).square().mean() if start is not x else (v - (noise - x)).square().mean()
        loss.backward()
        masters.pull()
        optimiser.step(warm_up(step, part, 100, 0.45))
        masters.push(keep=min(0.998, (step + 1) / (step + 12)))
        stage.note(**{name: loss})
