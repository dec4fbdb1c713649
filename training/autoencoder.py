# SPDX-License-Identifier: GPL-3.0-or-later
"""Step 2, the autoencoder: fits the analytic encoder, then trains the decoder against it, then both together.

Losses: pixels, the energy of fine detail, and the cycle E(D(z)) = z. In the last part the encoder's correction learns
too, and every other batch comes from a feedback loop: pictures of 256 x 256 that went through the autoencoder, and now
and then a small warp, up to hundreds of times, and must come back to the (equally warped) original in one more round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from koshi_backend.models.autoencoder import Autoencoder

from .captions import ADJECTIVES, SCENES, STYLES, TIMES, Spec
from .correction import LEARNED, CorrectedEncoder, open_correction
from .encoder import LinearEncoder, fit, new_autoencoder, write_encoder
from .measures import psnr, top_octave
from .optim import Masters, Muon
from .pictures import Pictures
from .stage import Room, Stage, warm_up, write_atomically
from .world import render

STATISTICS = "statistics.safetensors"  # of the latents of the encoder as it is in the end
LOOP_FROM = 0.55  # part of the time after which the encoder's correction and the feedback loop join
CYCLE, DETAIL, TINT = 0.15, 0.02, 2.0  # weights beside the pixels' loss
LOOPED, LIFE, WARPED = 24, 50, 0.15  # pictures in the loop, their mean rounds, how often they are warped
LOST = 0.012  # squared error of pictures of -1..1: 25 dB
RATE = 3e-3


def encoder_parts(room: Room, pictures: Pictures) -> dict[str, Tensor]:
    """The PCA and the statistics of the packed latents; made once per run folder."""
    path = room.folder / "encoder.safetensors"
    if not path.is_file():
        parts = fit(40 if is_trial(pictures) else 640)
        parts |= statistics(room, pictures, LinearEncoder(parts))
        write_atomically(path, lambda aside: save_file(parts, aside))
    return load_file(path)


def is_trial(pictures: Pictures) -> bool:
    """Whether the world is too small to learn anything from, as in tests."""
    return len(pictures.rows["square"]) < 200


@torch.no_grad()
def statistics(room: Room, pictures: Pictures, encode: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Mean and variance of the packed latents, by which the transformer's are normalised."""
    seen = []
    for k in range(2 if is_trial(pictures) else 32):
        batch = pictures.take("square", 16, np.random.default_rng([room.seed, k]), room.device)
        seen.append(rearrange(encode(batch.pictures), "b c (h i) (w j) -> (b h w) (c i j)", i=2, j=2).cpu())
    packed = torch.cat(seen)
    return {"bn.mean": packed.mean(0), "bn.var": packed.var(0)}


def built(parts: dict[str, Tensor]) -> Autoencoder:
    """The autoencoder with its encoder and statistics; the decoder is still random."""
    net = write_encoder(new_autoencoder(), parts)
    open_correction(net, seed=1)
    set_statistics(net, parts)
    return net.eval()


def set_statistics(net: Autoencoder, parts: dict[str, Tensor]) -> None:
    """Put what `statistics` found where FLUX.2 keeps it."""
    net.bn.running_mean.copy_(parts["bn.mean"])
    net.bn.running_var.copy_(parts["bn.var"])
    net.bn.num_batches_tracked.fill_(1)


class Learned(nn.Module):
    """The two parts that are trained."""

    def __init__(self, net: Autoencoder, parts: dict[str, Tensor]) -> None:
        super().__init__()
        self.decoder, self.encoder = net.decoder, CorrectedEncoder(net, parts)


def trainable(name: str) -> bool:
    """Whether a parameter of Learned is trained at all."""
    return name.startswith(("decoder.", *(f"encoder.{part}" for part in LEARNED)))


def trained(folder: Path) -> Autoencoder:
    """The autoencoder of a run with averaged weights, settled if it has been, float32, on the CPU."""
    parts = load_file(folder / "encoder.safetensors")
    net = built(parts)
    saved = torch.load(folder / "autoencoder.pt", map_location="cpu", weights_only=True)
    learned = Learned(net, parts)
    missing = learned.load_state_dict(saved["state"]["net"]["average"], strict=False).missing_keys
    if unknown := [name for name in missing if trainable(name)]:
        raise RuntimeError(f"the autoencoder's checkpoint lacks {unknown[0]}")
    if (folder / "settle.pt").is_file():
        saved = torch.load(folder / "settle.pt", map_location="cpu", weights_only=True)
        learned.load_state_dict(saved["state"]["average"], strict=False)
    if (folder / STATISTICS).is_file():
        set_statistics(net, load_file(folder / STATISTICS))
    return net.requires_grad_(False)


def random_warp(
    pictures: list[Tensor], rng: np.random.Generator, zoom: float = 1.03, tilt: float = 1.5, pan: float = 0.012
) -> list[Tensor]:
    """The same small random similarity for all; bicubic, edges repeated."""
    b, device = pictures[0].shape[0], pictures[0].device
    z, a = rng.uniform(1.0, zoom, b) if zoom > 1 else np.ones(b), np.radians(rng.uniform(-tilt, tilt, b))
    shift = rng.uniform(-pan, pan, (b, 2))
    aspect = pictures[0].shape[3] / pictures[0].shape[2]
    rows = [
        np.stack([np.cos(a) / z, -np.sin(a) / z / aspect, shift[:, 0]], 1),
        np.stack([np.sin(a) / z * aspect, np.cos(a) / z, shift[:, 1]], 1),
    ]
    theta = torch.tensor(np.stack(rows, 1), dtype=torch.float32, device=device)
    grid = F.affine_grid(theta, list(pictures[0].shape), align_corners=False)
    return [
        F.grid_sample(p.float(), grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)
        for p in pictures
    ]


def held_out(count: int, size: int = 256) -> Tensor:
    """Pictures that training never draws, [count, 3, size, size] of -1..1, through all scenes and styles."""
    found = []
    for i in range(count):
        scene = SCENES[i % 8]
        spec = Spec(scene, TIMES[i // 8 % 4], STYLES[i % 5], ADJECTIVES[scene][i % 2])
        found.append(torch.from_numpy(render(2**40 + i, spec, size)))
    return torch.stack(found).permute(0, 3, 1, 2) * 2 - 1


def train_autoencoder(room: Room) -> None:
    """Train the autoencoder of `room.folder`, or go on with it."""
    pictures = Pictures(room.folder)
    torch.manual_seed(room.seed)
    parts = encoder_parts(room, pictures)
    linear = LinearEncoder(parts).to(room.device)
    learned = Learned(built(parts), parts).to(room.device)
    learned.decoder.to(memory_format=torch.channels_last)
    masters = Masters(learned, room.dtype, trainable)
    optimiser = Muon(masters.master.items(), RATE, adam=("conv_out",), dtype=room.dtype)
    rounds = Rounds(room, pictures)

    def state() -> dict:
        return {"net": masters.state(), "optimiser": optimiser.state_dict(), "rounds": rounds.state()}

    def load(state: dict) -> None:
        masters.load(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        rounds.load(state["rounds"])

    run = torch.compile(learned.decoder) if room.compile else learned.decoder

    def decode(z: Tensor) -> Tensor:
        return run(z.to(room.dtype, memory_format=torch.channels_last)).float()

    stage = Stage(room, "autoencoder", state, load, rate=RATE)
    for step, part in stage:
        both = part > LOOP_FROM
        loop, encode = both and step % 2, learned.encoder if both else linear
        if loop:
            x, y = rounds.take(stage.rng())
        else:
            x = y = crops(room, pictures, stage.rng(), part, step)
        z = encode(y)
        y = decode(z)
        error = y - x
        cycle = (encode(y) - z).abs().mean()
        detail = detail_error(y, x)
        loss = error.abs().mean() + 3 * error.square().mean() + TINT * tint(error) + CYCLE * cycle + DETAIL * detail
        loss.backward()
        if loop:
            rounds.put_back(y.detach().clamp(-1, 1), stage.rng())
        masters.pull()
        optimiser.step(warm_up(step, part, 60, 0.5))
        masters.push(keep=min(0.99, (step + 1) / (step + 20)))
        stage.note(**{"loop" if loop else "pixels": error.square().mean(), "cycle": cycle, "detail": detail})
        stage.note(age=float(rounds.age.clamp_min(0).float().mean()))


def tint(error: Tensor) -> Tensor:
    """Mean error of colour over 8 and over 32 pixels.

    One step of 255 in a sky is nothing to the other losses, but all pictures have it the same way: without this they
    were pink after 24 rounds, and more than half of the error was that.
    """
    near = F.avg_pool2d(error, 8)
    return near.abs().mean() + 2 * F.avg_pool2d(near, 4).abs().mean()


def detail_error(y: Tensor, x: Tensor) -> Tensor:
    """How far the energy of fine detail is off, as a logarithm: in cells of 8 x 8 pixels, and of each whole picture.

    A squared error alone smears detail away: of what is too fine for the latents, nothing is the safest guess.
    """
    (cells, whole), (cells_x, whole_x) = fine_energy(y), fine_energy(x)
    return (cells - cells_x).abs().mean() + 0.5 * (whole - whole_x).abs().mean()


def fine_energy(x: Tensor, floor: float = 3e-5) -> tuple[Tensor, Tensor]:
    """Logarithms of the energy in about the top octave, [B, H/8, W/8] and [B]; fourth differences are its filter."""
    taps = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0], device=x.device) / 16
    one = F.pad(x.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(one[:, :, 2:-2], taps[None, None, None])
    down = F.conv2d(one[..., 2:-2], taps[None, None, :, None])
    cells = F.avg_pool2d(across.square() + down.square(), 8).unflatten(0, x.shape[:2]).mean((1, 2))
    return (cells + floor).log(), (cells.mean((1, 2)) + floor).log()


class Rounds:
    """Pictures on their way round and round: each batch takes a few and puts them back one round older.

    So the decoder meets its own errors of hundreds of rounds at the price of one (a sample pool, as in Mordvintsev et
    al., Growing Neural Cellular Automata, 2020).
    """

    def __init__(self, room: Room, pictures: Pictures) -> None:
        self.room, self.pictures = room, pictures
        self.kept = torch.zeros(2, max(round(LOOPED * min(room.batch, 4)), 2), 3, 256, 256, dtype=torch.float16)
        self.age = torch.full(self.kept.shape[1:2], -1)  # -1: to be replaced by a fresh picture
        self.chosen = torch.empty(0, dtype=torch.long)

    def take(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Originals and what has become of them, [n, 3, 256, 256] of -1..1."""
        count = max(round(2 * self.room.batch), 1)
        self.chosen = torch.from_numpy(rng.permutation(len(self.age))[:count])
        for k in self.chosen.tolist():
            if self.age[k] < 0:
                self.kept[:, k] = self.pictures.take("square", 1, rng, torch.device("cpu")).pictures.half()
                self.age[k] = 0
        x, y = self.kept[:, self.chosen].float().to(self.room.device)
        if rng.random() < WARPED:
            x, y = random_warp([x, y], rng)
            self.kept[0, self.chosen] = x.cpu().half()
        return x, y

    def put_back(self, y: Tensor, rng: np.random.Generator) -> None:
        """After a round. Some begin anew, and all that are lost: nobody could bring them back, and trying to would
        spoil the first round (by 3 dB with a limit of 16 dB). So rounds grow longer by themselves as they get better.
        """
        lost = (y - self.kept[0, self.chosen].to(y)).square().mean((1, 2, 3)).cpu() > LOST
        ended = torch.from_numpy(rng.random(len(y)) < 1 / LIFE) | lost
        self.kept[1, self.chosen] = y.cpu().half()
        self.age[self.chosen] = torch.where(ended, -1, self.age[self.chosen] + 1)

    def state(self) -> dict[str, Tensor]:
        return {"kept": self.kept, "age": self.age}

    def load(self, state: dict[str, Tensor]) -> None:
        self.kept, self.age = state["kept"].cpu(), state["age"].cpu()


def crops(room: Room, pictures: Pictures, rng: np.random.Generator, part: float, step: int) -> Tensor:
    """A batch of whole pictures or cut-outs: small ones in the first half of the time, then larger ones."""
    way, n = rng.random(), max(2, round(6 * room.batch))
    small = 0.85 if part < 0.5 else 0.3
    side, n = (64, 2 * n) if way < small else (128, n) if way < 0.93 else (256, max(n // 4, 1))
    x = pictures.take("square", n, rng, room.device).pictures
    if side < 256 and step % 3 == 0:
        x = F.avg_pool2d(x, 2)
    top, left = rng.integers(x.shape[-1] - side + 1, size=2).tolist()
    x = x[:, :, top : top + side, left : left + side]
    return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure(
    encode: Callable[[Tensor], Tensor], linear: LinearEncoder, decode: Callable[[Tensor], Tensor], x: Tensor
) -> dict[str, float]:
    """PSNR of one round by style, of the linear inverse, and after 24 and 240 rounds, in dB; energy of detail kept."""
    once = torch.cat([decode(encode(v)) for v in x.split(8)])
    found = {"psnr": psnr(once, x), "linear": psnr(torch.cat([linear.decode(linear(v)) for v in x.split(8)]), x)}
    for k, style in enumerate(STYLES):
        if len(x[k::5]):
            found[style] = psnr(once[k::5], x[k::5])
            found[f"{style} sharpness"] = top_octave(once[k::5]) / top_octave(x[k::5])
    y = x[:5]  # one of each style: the judge looks at more
    for k in range(240):
        y = decode(encode(y)).clamp(-1, 1)
        if k in (23, 239):
            found[f"after {k + 1} rounds"] = psnr(y, x[: len(y)])
    return {name: round(value, 3) if math.isfinite(value) else value for name, value in found.items()}
