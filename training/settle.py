# SPDX-License-Identifier: GPL-3.0-or-later
"""The autoencoder's last part, on whole pictures only: rounds of decoding and encoding become a fixed point.

Cut-outs are quick to learn from, but GroupNorm and attention see other statistics in them than in whole pictures: what
was right for 64 pixels was off by a step of 255 in the skies of 256, all pictures the same way, and that adds up (150
steps on whole pictures took the error after 24 rounds from 20 to 22 dB, of photos from 21 to 26).

What a latent means is fixed from here on: it is what the encoder says of a real picture now. Half of each batch are
pictures that have gone round many times (a sample pool, as in Mordvintsev et al., Growing Neural Cellular Automata,
2020); decoder and encoder learn to bring them back. A pool must be large: 24 pictures were learned by heart.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from .autoencoder import (
    STATISTICS,
    TINT,
    Learned,
    built,
    detail_error,
    held_out,
    measure,
    random_warp,
    statistics,
    tint,
)
from .correction import LEARNED
from .encoder import LinearEncoder
from .optim import Masters, Muon
from .pictures import Pictures
from .stage import Room, Stage, warm_up, write_atomically

POOL, LIFE = 128, 40  # pictures on their way, and their mean rounds
FRESH, TAKEN = 2, 2  # new pictures and pictures of the pool in a batch
WARPED = 0.15  # of all batches: the new pictures move a little between decoding and encoding
LOST = 0.012  # squared error of pictures of -1..1, 25 dB, from which nobody could come back
# Weights beside the pixels' loss. Rounds wear detail off: twice as much of it as in the first part. Six times that, and
# latents as the net draws them in each batch, gave drawn photos a sixth more detail, but 24 rounds 23.9 dB for 26.5.
CYCLE, REAL, DETAIL = 0.1, 0.05, 0.04
RATE, ENCODER_RATE = 1e-3, 4e-4


class Pool:
    """Pictures, the latents that they began as, and the latents after `age` rounds."""

    def __init__(self, size: int) -> None:
        self.pictures = torch.zeros(size, 3, 256, 256, dtype=torch.uint8)
        self.now = torch.zeros(size, 32, 32, 32, dtype=torch.float16)
        self.age = torch.full((size,), -1)  # -1: free

    def choose(self, count: int, rng: np.random.Generator) -> Tensor:
        """Indices of pictures that are on their way, at most so many."""
        ready = (self.age >= 0).nonzero()[:, 0].numpy()
        return torch.from_numpy(rng.permutation(ready)[:count])

    def begun(self, chosen: Tensor) -> Tensor:
        """What the chosen ones looked like at first, of -1..1."""
        return self.pictures[chosen].float() / 127.5 - 1

    def put_back(
        self, chosen: Tensor, pictures: Tensor, now: Tensor, lost: Tensor, rng: np.random.Generator
    ) -> None:
        """After a round; the lost ones and, by chance, others leave."""
        ended = torch.from_numpy(rng.random(len(chosen)) < 1 / LIFE) | lost.cpu()
        self.pictures[chosen], self.now[chosen] = _bytes(pictures), now.cpu().half()
        self.age[chosen] = torch.where(ended, -1, self.age[chosen] + 1)

    def fill(self, pictures: Tensor, now: Tensor) -> None:
        """Give places that are free to new pictures after their first round."""
        free = (self.age < 0).nonzero()[: len(pictures), 0]
        self.pictures[free], self.now[free] = _bytes(pictures[: len(free)]), now[: len(free)].cpu().half()
        self.age[free] = 1

    def state(self) -> dict[str, Tensor]:
        return {"pictures": self.pictures, "now": self.now, "age": self.age}

    def load(self, state: dict[str, Tensor]) -> None:
        self.pictures, self.now, self.age = (state[name].cpu() for name in ("pictures", "now", "age"))


def _bytes(pictures: Tensor) -> Tensor:
    return ((pictures + 1) * 127.5).round().clamp(0, 255).byte().cpu()


def distance(error: Tensor, to_pixels: Tensor) -> Tensor:
    """Of latents [B, 32, H, W], per picture: as they are, as pixels, and as the mean colour of 32 pixels.

    As they are, strong components count no more than weak ones; but what grows in a loop is the tint of a whole sky.
    Roots, or a few pictures that are nearly lost would drown all others.
    """
    pixels = torch.einsum("pk,bkhw->bphw", to_pixels, error)
    colour = F.avg_pool2d(pixels.unflatten(1, (64, 3)).mean(1), 4)
    parts = ((1.0, error), (8.0, pixels), (16.0, colour))
    return torch.stack([w * (v.square().mean((1, 2, 3)) + 1e-8).sqrt() for w, v in parts]).sum(0)


def settle(room: Room, examined: int = 40) -> None:
    """Train the autoencoder of `room.folder` in its loop, or go on with it, then measure it on held-out pictures."""
    pictures = Pictures(room.folder)
    torch.manual_seed(room.seed)
    parts = load_file(room.folder / "encoder.safetensors")
    learned = Learned(built(parts), parts)
    saved = torch.load(room.folder / "autoencoder.pt", map_location="cpu", weights_only=True)
    learned.load_state_dict(saved["state"]["net"]["average"], strict=False)
    learned.to(room.device)
    before = copy.deepcopy(learned.encoder).requires_grad_(False)
    encoder, to_pixels = learned.encoder, LinearEncoder(parts).inverse.to(room.device)
    decoder = learned.decoder.to(memory_format=torch.channels_last)
    # The encoder in float32: its part of the time is small, and it would learn the type's errors.
    both = (Masters(decoder, room.dtype), Masters(encoder, torch.float32, lambda name: name.startswith(LEARNED)))
    optimisers = (
        Muon(both[0].master.items(), RATE, adam=("conv_out",), dtype=room.dtype),
        Muon(both[1].master.items(), ENCODER_RATE),
    )
    pool = Pool(max(round(POOL * min(room.batch, 2)), FRESH))

    def state() -> dict:
        named = zip(("decoder", "encoder"), both, strict=True)
        average = {f"{part}.{name}": tensor for part, m in named for name, tensor in m.average.items()}
        return {
            "average": average, "masters": [m.state() for m in both],
            "optimisers": [o.state_dict() for o in optimisers], "pool": pool.state(),
        }  # fmt: skip

    def load(state: dict) -> None:
        for k in (0, 1):
            both[k].load(state["masters"][k])
            optimisers[k].load_state_dict(state["optimisers"][k])
        pool.load(state["pool"])

    def decode(z: Tensor) -> Tensor:
        return decoder(z.to(room.device, room.dtype, memory_format=torch.channels_last)).float()

    stage = Stage(room, "settle", state, load, rate=RATE, encoder_rate=ENCODER_RATE)
    for step, part in stage:
        rng = stage.rng()
        x = pictures.take("square", max(round(FRESH * room.batch), 1), rng, room.device).pictures
        n, chosen = len(x), pool.choose(max(round(TAKEN * room.batch), 1), rng)
        whole = torch.cat([x, pool.begun(chosen).to(x)])
        with torch.no_grad():
            meant = before(whole)
        y = decode(torch.cat([meant[:n], pool.now[chosen].to(x)]))
        error = y - whole
        squared = error.square().mean((1, 2, 3))
        loss = error.abs().mean() + 3 * squared.mean() + TINT * tint(error) + DETAIL * detail_error(y, whole)
        shown = y.clamp(-1, 1)
        if rng.random() < WARPED:
            shown, whole = random_warp([shown, whole], rng)
            with torch.no_grad():
                meant = before(whole)
        found, of_real = encoder(torch.cat([shown, whole])).split(len(y))
        cycle, real = distance(found - meant, to_pixels), distance(of_real - meant, to_pixels).mean()
        (loss + CYCLE * cycle.mean() + REAL * real).backward()
        for masters, optimiser in zip(both, optimisers, strict=True):
            masters.pull()
            optimiser.step(warm_up(step, part, 30, 0.7))
            masters.push(keep=min(0.99, (step + 1) / (step + 20)))
        pool.put_back(chosen, whole[n:], found[n:].detach(), squared[n:] > LOST, rng)
        pool.fill(whole[:n], found[:n].detach())
        stage.note(pixels=squared[:n].mean(), once=cycle[:n].mean(), real=real, detail=detail_error(y.detach(), whole))
        stage.note(age=float(pool.age.clamp_min(0).float().mean()))
        if len(chosen):
            stage.note(rounds=squared[n:].mean(), cycle=cycle[n:].mean())
    for masters in both:
        masters.push(average=True)
    if not (room.folder / STATISTICS).is_file():  # whatever is trained on latents goes by the first ones
        measured = statistics(room, pictures, encoder)
        write_atomically(room.folder / STATISTICS, lambda aside: save_file(measured, aside))
    if examined:
        linear = LinearEncoder(parts).to(room.device)
        with torch.no_grad():
            stage.result(**measure(encoder, linear, decode, held_out(examined).to(room.device)))
