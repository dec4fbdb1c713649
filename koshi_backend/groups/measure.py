# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange channel groups between pictures, and see what changes.

A group of 16 packed channels is four channels of the /8 grid in all their places, so those 32 channels, four at a time,
are what is exchanged. The eight groups are held against random sets of four channels: if they are nothing special, they
differ from one another as random sets do. The fours of a PCA stand beside them: groups that do differ look like that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..doubles import doubled
from ..errors import KoshiError
from ..models.autoencoder import LATENT_CHANNELS
from ..models.flux2_model import Flux2Model
from ..motion.engines import Flux2MotionEngine
from ..motion.latent import pack, unpack
from .probes import PROBES, cell_readings, scene_readings

# Every word is one that koshi-tiny knows, and none that a large model would not.
PROMPTS = (
    "a calm sea at dawn, photo",
    "a pine forest during the day, watercolor painting",
    "snowy mountains at sunset, photo",
    "a golden desert at noon, ink drawing",
    "a modern city at night, neon lights",
    "a coral reef, photo",
    "a swirling nebula, watercolor",
    "a stone tunnel, mosaic of tiles",
)
GROUPS = len(Flux2MotionEngine.GROUPS)
EACH = LATENT_CHANNELS // GROUPS
PARTITIONS = 199  # random ones; the smallest p is 1 / 200
BROAD, FINE = 32.0, 8.0  # pixels: wavelengths that bound the kinds of change
# Kinds of change, as shares of all that changes. Luma and chroma are those of BT.601.
KINDS = ("light", "structure", "detail", "tint", "colour")
MEASURES = ("share", *KINDS, "edges", *PROBES)
BATCH = 8  # pictures decoded at once
SHOWN = 4  # the picture that stands on the sheet: the city, which is rich in everything


@dataclass(frozen=True)
class Sample:
    """Pictures that a model drew.

    grid: [N, 32, h, w], normalised. pictures: [N, 3, H, W]. scenes: [N], numbers of PROMPTS.
    """

    grid: Tensor
    pictures: Tensor
    scenes: np.ndarray


@dataclass(frozen=True)
class Measured:
    """MEASURES of eight groups. values: [8, measures]. errors: standard errors over pictures, NaN where unknown."""

    values: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Groups:
    """The result. channels: [32, measures], one by one; a share is one of all 32. random: [PARTITIONS, 8, measures].
    superposed: [8, measures], the named groups, measured as the random ones are: as sums of what channels change.
    superposition: share of a group's change that this sum explains."""

    named: Measured
    pca: Measured
    channels: np.ndarray
    superposed: np.ndarray
    random: np.ndarray
    superposition: float


def draw_sample(
    model: Flux2Model, pictures: int, side: int, seed: int = 0, progress: Callable[[str], None] = lambda text: None
) -> Sample:
    """Draw pictures of all PROMPTS in turn, and encode them. side: a multiple of 16."""
    latents, decoded = [], []
    for k in range(pictures):
        progress(f"drawing picture {k + 1} of {pictures}")
        noise = model.noise(seed + k // len(PROMPTS), side, side)
        picture = model.decode(model.denoise(PROMPTS[k % len(PROMPTS)], noise, steps=4))
        # Encoded again: what is measured is the autoencoder, not what the denoiser adds to its latents.
        latents.append(unpack(model.encode_picture(picture)))
        decoded.append(picture)
    return Sample(torch.cat(latents), torch.cat(decoded), np.arange(pictures) % len(PROMPTS))


def donor(sample: Sample, k: int) -> int:
    """The picture that lends its channels to picture k: another scene's, a different one each round."""
    scenes = min(len(PROMPTS), len(sample.grid))
    return (k % scenes + 1 + k // scenes % (scenes - 1)) % scenes


def pca_basis(grid: Tensor) -> Tensor:
    """[32, 32]: principal directions of the channels over all cells, strongest first, one a row."""
    cells = doubled(grid.permute(1, 0, 2, 3).flatten(1))
    return torch.linalg.eigh(torch.cov(cells)).eigenvectors.flip(1).T.to(grid)


def exchanged(own: Tensor, other: Tensor, basis: Tensor, chosen: Tensor) -> Tensor:
    """own [32, h, w] with the directions basis[chosen] taken from `other`."""
    rows = basis[chosen]
    return own + torch.einsum("kc,kd,dhw->chw", rows, rows, other - own)


def decode_grid(model: Flux2Model, grids: list[Tensor]) -> Tensor:
    """[32, h, w] each -> pictures [B, 3, H, W]."""
    parts = [torch.stack(grids[k : k + BATCH]) for k in range(0, len(grids), BATCH)]
    return torch.cat([model.decode(pack(part)) for part in parts])


def measure_groups(
    model: Flux2Model, sample: Sample, seed: int = 0, progress: Callable[[str], None] = lambda text: None
) -> Groups:
    """Measure the named groups, PCA groups and random groups. Raises KoshiError for fewer than two pictures."""
    count = len(sample.grid)
    if count < 2:
        raise KoshiError("bad_value", f"pictures is {count}.", "Channels are exchanged between at least 2.")
    rng = np.random.default_rng(seed)
    named = np.arange(LATENT_CHANNELS).reshape(1, GROUPS, EACH)
    random = np.stack([rng.permutation(LATENT_CHANNELS) for _ in range(PARTITIONS)]).reshape(-1, GROUPS, EACH)
    both = np.concatenate([named, random])
    plain, principal = torch.eye(LATENT_CHANNELS, device=sample.grid.device), pca_basis(sample.grid)
    bands = _Bands(sample.pictures.shape[2], sample.pictures.shape[3], sample.pictures.device)
    direct: dict[str, list[np.ndarray]] = {"named": [], "pca": []}
    each = np.arange(LATENT_CHANNELS).reshape(1, LATENT_CHANNELS, 1)
    alone, superposed, explained = [], [], []
    for k in range(count):
        progress(f"exchanging channels, picture {k + 1} of {count}")
        own, other = sample.grid[k], sample.grid[donor(sample, k)]
        single = [exchanged(own, other, plain, torch.tensor([c])) for c in range(LATENT_CHANNELS)]
        fours = torch.arange(LATENT_CHANNELS).reshape(GROUPS, EACH)
        shown = {
            name: decode_grid(model, [exchanged(own, other, basis, four) for four in fours])
            for name, basis in (("named", plain), ("pca", principal))
        }
        base = decode_grid(model, [own])
        effects = luma_chroma(decode_grid(model, single)) - luma_chroma(base)
        before = luma_chroma(base)[0, 0]
        for name, pictures in shown.items():
            changes = luma_chroma(pictures) - luma_chroma(base)
            grams = bands.grams(changes)
            direct[name].append(_changes(grams, changes[:, 0], before, each[:, :GROUPS])[0])
        sums = effects.unflatten(0, (GROUPS, EACH)).sum(dim=1)
        real = luma_chroma(shown["named"]) - luma_chroma(base)
        explained.append(1.0 - float(((real - sums) ** 2).sum() / (real**2).sum().clamp_min(1e-12)))
        grams = bands.grams(effects)
        alone.append(_changes(grams, effects[:, 0], before, each))
        superposed.append(_changes(grams, effects[:, 0], before, both))
    progress("reading channels")
    reading = _readings(sample, plain, both)
    whole = np.concatenate([_profile(np.stack(superposed)), reading], axis=-1)
    channels = np.concatenate([_profile(np.stack(alone)), _readings(sample, plain, each)], axis=-1)
    principal_reading = _readings(sample, principal, named)[0]
    return Groups(
        _measured(np.stack(direct["named"]), reading[0], rng),
        _measured(np.stack(direct["pca"]), principal_reading, rng),
        channels[0],
        whole[0],
        whole[1:],
        float(np.mean(explained)),
    )


def luma_chroma(pictures: Tensor) -> Tensor:
    """RGB [B, 3, H, W] -> luma and two chromas of BT.601, linear in the picture's values."""
    r, g, b = pictures.unbind(1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    return torch.stack([luma, 0.564 * (b - luma), 0.713 * (r - luma)], dim=1)


class _Bands:
    """Energies by kind of change. Cosine transforms: a Fourier transform would see the frame's edges as detail."""

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        self.down, self.across = _cosines(height).to(device), _cosines(width).to(device)
        y, x = torch.arange(height, device=device) / (2 * height), torch.arange(width, device=device) / (2 * width)
        waves = torch.hypot(y[:, None], x[None, :])  # cycles a pixel
        broad, fine = waves < 1 / BROAD, waves > 1 / FINE
        luma, chroma = torch.tensor([1, 0, 0], device=device), torch.tensor([0, 1, 1], device=device)
        masks = ((luma, broad), (luma, ~broad & ~fine), (luma, fine), (chroma, broad), (chroma, ~broad))
        self.masks = [plane.view(3, 1, 1) * mask for plane, mask in masks]

    def grams(self, changes: Tensor) -> np.ndarray:
        """[n, 3, H, W] -> [kinds, n, n]: inner products of the changes in each band."""
        waves = self.down @ changes @ self.across.T
        found = []
        for mask in self.masks:
            flat = (waves * mask).flatten(1)
            found.append((flat @ flat.T).cpu().numpy())
        return np.stack(found).astype(np.float64)


def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) as a matrix; row k has k half waves."""
    k, x = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None, :]
    rows = torch.cos(torch.pi * k * (2 * x + 1) / (2 * n)) * (2 / n) ** 0.5
    rows[0] /= 2**0.5
    return rows.float()


def _changes(grams: np.ndarray, lumas: Tensor, before: Tensor, sets: np.ndarray) -> np.ndarray:
    """[sets, n, kinds + 1]: energy of each kind in one picture, and how much its edges moved, for groups of changes.

    sets: [sets, n, k], numbers of changes that are added up. Energies are relative to the picture's own sum, so that
    every picture counts alike.
    """
    energies = np.stack([gram[sets[..., :, None], sets[..., None, :]].sum(axis=(-1, -2)) for gram in grams], axis=-1)
    energies = np.maximum(energies, 0.0)
    total = energies.sum(axis=(-1, -2), keepdims=True)
    edges = np.stack([_edges_moved(lumas[torch.from_numpy(groups)].sum(dim=1), before) for groups in sets])
    return np.concatenate([energies / np.maximum(total, 1e-12), edges[..., None]], axis=-1)


def _edges_moved(changes: Tensor, before: Tensor) -> np.ndarray:
    """1 - correlation of the gradient's size before and after, for changes [n, H, W] of luma."""
    strengths = _gradient(torch.cat([before[None], before + changes])).flatten(1)
    strengths = strengths - strengths.mean(dim=1, keepdim=True)
    strengths = F.normalize(strengths, dim=1)
    return (1.0 - strengths[1:] @ strengths[0]).cpu().numpy().astype(np.float64)


def _gradient(luma: Tensor) -> Tensor:
    across = luma[:, :-1, 1:] - luma[:, :-1, :-1]
    down = luma[:, 1:, :-1] - luma[:, :-1, :-1]
    return torch.hypot(across, down)


def _profile(changes: np.ndarray) -> np.ndarray:
    """[pictures, ..., n, kinds + 1] -> [..., n, 1 + kinds + 1]: share of all change, kinds within a group, edges."""
    mean = changes.mean(axis=0)
    energies, edges = mean[..., :-1], mean[..., -1:]
    total = energies.sum(axis=-1, keepdims=True)
    share = total / np.maximum(total.sum(axis=-2, keepdims=True), 1e-12)
    return np.concatenate([share, energies / np.maximum(total, 1e-12), edges], axis=-1)


def _readings(sample: Sample, basis: Tensor, sets: np.ndarray) -> np.ndarray:
    """[sets, 8, probes] of the channels seen along `basis`."""
    grid = torch.einsum("kc,nchw->nkhw", basis, sample.grid)
    cells = cell_readings(grid, luma_chroma(sample.pictures), sample.scenes, sets)
    return np.concatenate([cells, scene_readings(grid, sample.scenes, sets)[..., None]], axis=-1)


def _measured(changes: np.ndarray, reading: np.ndarray, rng: np.random.Generator) -> Measured:
    """changes: [pictures, 8, kinds + 1]. Errors by drawing the pictures 200 times with replacement."""
    again = [_profile(changes[rng.integers(len(changes), size=len(changes))]) for _ in range(200)]
    errors = np.concatenate([np.std(again, axis=0), np.full_like(reading, np.nan)], axis=-1)
    return Measured(np.concatenate([_profile(changes), reading], axis=-1), errors)
