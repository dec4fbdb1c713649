# SPDX-License-Identifier: GPL-3.0-or-later
"""The autoencoder's last part: the encoder's correction learns to bring back what many rounds have changed.

The decoder stands still now, and with it what a latent means. So the target is known: the latent that was decoded, or,
for a picture that went round many times, the one it began as. Nothing has to flow back through the decoder, which
makes a step cheap enough for a large pool of pictures on their way round and round (a sample pool, as in Mordvintsev
et al., Growing Neural Cellular Automata, 2020). A small pool is learned by heart: with 24 pictures those stayed at
27 dB for 80 rounds while others had 19 dB after 24.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from .autoencoder import Learned, built, held_out, measure, random_warp
from .correction import LEARNED
from .encoder import LinearEncoder
from .optim import Masters, Muon
from .pictures import Pictures
from .stage import Room, Stage, warm_up

POOL, LIFE = 192, 40  # pictures on their way, and their mean rounds
FRESH, TAKEN = 4, 8  # new pictures and pictures of the pool in a batch
WARPED = 0.3  # of all batches: the new pictures move a little between decoding and encoding
LOST = 0.35  # root mean squared error of a latent (its deviation is about 1) from which nobody could come back
RATE = 2e-3


class Pool:
    """Latents that began as `first` and are `now` after `age` rounds."""

    def __init__(self, size: int) -> None:
        self.first = torch.zeros(size, 32, 32, 32, dtype=torch.float16)
        self.now, self.age = self.first.clone(), torch.full((size,), -1)  # -1: not filled yet

    def choose(self, count: int, rng: np.random.Generator) -> Tensor:
        """Indices of pictures that are on their way."""
        ready = (self.age >= 0).nonzero()[:, 0].numpy()
        return torch.from_numpy(rng.permutation(ready)[:count])

    def put_back(self, chosen: Tensor, now: Tensor, rng: np.random.Generator) -> None:
        """After a round; the lost ones and, by chance, others leave."""
        lost = (now - self.first[chosen].to(now)).square().mean((1, 2, 3)).sqrt().cpu() > LOST
        ended = torch.from_numpy(rng.random(len(chosen)) < 1 / LIFE) | lost
        self.now[chosen] = now.cpu().half()
        self.age[chosen] = torch.where(ended, -1, self.age[chosen] + 1)

    def fill(self, first: Tensor, now: Tensor) -> None:
        """Give places that are free to new pictures after their first round."""
        free = (self.age < 0).nonzero()[: len(first), 0]
        self.first[free], self.now[free] = first[: len(free)].cpu().half(), now[: len(free)].cpu().half()
        self.age[free] = 1

    def state(self) -> dict[str, Tensor]:
        return {"first": self.first, "now": self.now, "age": self.age}

    def load(self, state: dict[str, Tensor]) -> None:
        self.first, self.now, self.age = (state[name].cpu() for name in ("first", "now", "age"))


def distance(error: Tensor, to_pixels: Tensor) -> Tensor:
    """Of latents [B, 32, H, W], per picture: as they are, as pixels, and as the mean colour of 32 pixels.

    As they are, strong components count no more than weak ones; but what grows in a loop is the tint of a whole sky.
    Roots, or a few pictures that are nearly lost would drown all others.
    """
    pixels = torch.einsum("pk,bkhw->bphw", to_pixels, error)
    colour = F.avg_pool2d(pixels.unflatten(1, (64, 3)).mean(1), 4)
    parts = ((1.0, error), (8.0, pixels), (16.0, colour))
    return torch.stack([w * (v.square().mean((1, 2, 3)) + 1e-9).sqrt() for w, v in parts]).sum(0)


def settle(room: Room, examined: int = 40) -> None:
    """Train the correction of `room.folder`'s autoencoder, or go on with it, then measure on held-out pictures."""
    pictures = Pictures(room.folder)
    torch.manual_seed(room.seed)
    parts = load_file(room.folder / "encoder.safetensors")
    learned = Learned(built(parts), parts)
    saved = torch.load(room.folder / "autoencoder.pt", map_location="cpu", weights_only=True)
    learned.load_state_dict(saved["state"]["net"]["average"], strict=False)
    learned.to(room.device)
    before = copy.deepcopy(learned.encoder).requires_grad_(False)
    decoder = learned.decoder.requires_grad_(False).to(room.dtype, memory_format=torch.channels_last)
    encoder, to_pixels = learned.encoder, LinearEncoder(parts).inverse.to(room.device)
    # In float32: its part of the time is small, and errors of the type would be learned as errors of the decoder.
    masters = Masters(encoder, torch.float32, lambda name: name.startswith(LEARNED))
    optimiser = Muon(masters.master.items(), RATE)
    pool = Pool(max(round(POOL * min(room.batch, 2)), FRESH))

    def load(state: dict) -> None:
        masters.load(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        pool.load(state["pool"])

    @torch.no_grad()
    def decode(z: Tensor) -> Tensor:
        y = decoder(z.to(room.device, room.dtype, memory_format=torch.channels_last))
        return y.float().clamp(-1, 1)

    stage = Stage(
        room, "settle", lambda: {"net": masters.state(), "optimiser": optimiser.state_dict(), "pool": pool.state()},
        load, rate=RATE,
    )  # fmt: skip
    for step, part in stage:
        rng = stage.rng()
        x = pictures.take("square", max(round(FRESH * room.batch), 1), rng, room.device).pictures
        with torch.no_grad():
            y = decode(before(x))
            if rng.random() < WARPED:
                x, y = random_warp([x, y], rng)
            z = before(x)
        chosen = pool.choose(max(round(TAKEN * room.batch), 1), rng)
        target = torch.cat([z, z, pool.first[chosen].to(z)])
        found = encoder(torch.cat([x, y, decode(pool.now[chosen])]))
        real, once, rounds = distance(found - target, to_pixels).split([len(z), len(z), len(chosen)])
        loss = real.mean() + once.mean() + (rounds.mean() if len(chosen) else 0)
        loss.backward()
        masters.pull()
        optimiser.step(warm_up(step, part, 30, 0.7))
        masters.push(keep=min(0.98, (step + 1) / (step + 20)))
        now = found.detach()
        pool.put_back(chosen, now[2 * len(z) :], rng)
        pool.fill(z, now[len(z) : 2 * len(z)])
        stage.note(real=real.mean(), once=once.mean(), age=float(pool.age.clamp_min(0).float().mean()))
        if len(chosen):
            stage.note(rounds=rounds.mean())
    masters.push(average=True)
    if examined:
        linear = LinearEncoder(parts).to(room.device)
        stage.result(**measure(encoder, linear, decode, held_out(examined).to(room.device)))
