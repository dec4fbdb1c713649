# SPDX-License-Identifier: GPL-3.0-or-later
"""Latents moved by Deforum's parameters, with no model loaded: `Flux1MotionEngine` and `Flux2MotionEngine`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import KoshiError
from ..schedules import ScheduleError, evaluate
from .field import MotionField
from .latent import BORDERS, Border, latent_field, move_latent, pack, unpack
from .parameters import AIMS, PARAMETERS, Motion, plain, read_motions
from .resample import KERNELS

log = logging.getLogger(__name__)

Depth = Literal["push", "gain", "layers"]

MAX_PUSH = 75.0  # Deforum's push over a flat depth turns the picture inside out at 82.4


class MotionEngine:
    """What both families share; use `Flux1MotionEngine` or `Flux2MotionEngine`.

    device: where the latents are moved to and worked on; None leaves them where they are.
    kernel, border, keep_statistics: as `move_latent` takes them. The defaults are what measured best.
    depth: what translation_z does.
        "push", the default: the flat push of Deforum's 3D warp, a true move of the whole latent.
        "gain", EXPERIMENTAL: group g is multiplied by 1 + translation_z / 100 * depth_weights[g]; nothing moves.
        "layers", EXPERIMENTAL: group g is pushed by translation_z * depth_weights[g], as if groups were distances.
        Both take channel groups for depth, which koshi-tiny's are not (`koshi groups`, docs/feedback.md).
    depth_weights: one number a group; given alone, they mean depth="gain".
    Raises KoshiError("bad_value" | "bad_device").
    """

    GROUPS: ClassVar[tuple[str, ...]]
    DEPTH_WEIGHTS: ClassVar[tuple[float, ...]]
    CHANNELS: ClassVar[int]  # of the /8 grid
    PACKED: ClassVar[bool]  # whether the family also has a form of 4 x CHANNELS at /16

    def __init__(
        self,
        device: str | torch.device | None = "cpu",
        *,
        kernel: str = "bicubic",
        border: Border = "replicate",
        keep_statistics: bool = False,
        depth: Depth | None = None,
        depth_weights: Sequence[float] | None = None,
    ) -> None:
        self.device = _device(device)
        self.kernel: str = _one_of("kernel", kernel, KERNELS)
        self.border: Border = _one_of("border", border, BORDERS)
        self.keep_statistics = bool(keep_statistics)
        given: Depth = "push" if depth_weights is None else "gain"
        self.depth: Depth = given if depth is None else _one_of("depth", depth, get_args(Depth))
        if self.depth == "push" and depth_weights is not None:
            hint = 'Leave the weights out, or say depth="gain" or depth="layers".'
            raise KoshiError("bad_value", 'depth_weights have no effect with depth="push".', hint)
        self.depth_weights = self._weights(self.DEPTH_WEIGHTS if depth_weights is None else depth_weights)

    def apply_motion(
        self, latent: Tensor, motion: Motion, *, frame: int = 0, frames: int | None = None, seed: int = 0
    ) -> Tensor:
        """The latent, moved; same shape and precision.

        latent: [B, C, h, w] with this family's channels, raw or normalised: it is moved as it is. FLUX.2's packed form
            is unpacked to the /8 grid, moved there and packed again, so that a move by less than 16 pixels is right.
        motion: numbers or schedules by Deforum's names, with Deforum's 2D signs and order: translation_x / _y in pixels
            of the PICTURE (right and down), angle in degrees counter-clockwise, zoom above 1 goes in,
            transform_center_x / _y as fractions, perspective_flip_theta / _phi / _gamma / _fv in degrees;
            translation_z as this engine's `depth` says.
        frame: where schedules are read. frames: the animation's length, `max_f` + 1; as far as their keys go when None.
        seed: `s` in schedules, and of the noise outside when border="noise".
        Raises KoshiError that lists every unknown name and unfit value.
        """
        values = read_motions({"motion": motion}, frame, frames, seed)["motion"]
        raw = self._grid(latent)
        pushed = values["translation_z"]
        if self.depth == "push" or pushed == 0.0:
            return self._like(self._moved(raw, values, seed), latent)
        flat = {**values, "translation_z": 0.0}
        if self.depth == "gain":
            gains = raw.new_tensor([1.0 + pushed / 100.0 * w for w in self.depth_weights])
            raw = raw * gains.repeat_interleave(self._each).view(1, -1, 1, 1)
            return self._like(self._moved(raw, flat, seed), latent)
        layers = [{**values, "translation_z": pushed * w} for w in self.depth_weights]
        return self._like(self._groups_moved(raw, dict(enumerate(layers)), seed), latent)

    def apply_group_motion(
        self,
        latent: Tensor,
        moves: Mapping[str | int, Motion],
        *,
        frame: int = 0,
        frames: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """EXPERIMENTAL: every channel group by its own motion; groups that are not named keep their bits.

        moves: {group: motion}; a group by its name in GROUPS or its number from 0, a motion as in `apply_motion`.
            translation_z is the flat push here, whatever `depth` says.
        The names are the founding hypothesis and carry no such meaning in koshi-tiny (`koshi groups`).
        """
        if not isinstance(moves, Mapping):
            raise KoshiError("bad_value", f"moves is a {type(moves).__name__}.", "Give {group: {parameter: value}}.")
        numbers = {name: self._group(name) for name in moves}
        twice = [name for name in moves if list(numbers.values()).count(numbers[name]) > 1]
        if twice:
            raise KoshiError("bad_value", f"moves names one group twice: {twice!r}.", "Keep one of them.")
        values = read_motions({str(name): motion for name, motion in moves.items()}, frame, frames, seed)
        raw = self._grid(latent)
        return self._like(self._groups_moved(raw, {numbers[n]: values[str(n)] for n in moves}, seed), latent)

    @property
    def _each(self) -> int:
        return self.CHANNELS // len(self.GROUPS)

    def _moved(self, grid: Tensor, values: dict[str, float], seed: int, part: slice = slice(None)) -> Tensor:
        """part: which channels of the latent these are."""
        if values["translation_z"] > MAX_PUSH:
            hint = f"At most {MAX_PUSH:g} can be pushed at once; use zoom, or several moves."
            raise KoshiError("bad_value", f"translation_z is {values['translation_z']:g}.", hint)
        if all(values[name] == neutral for name, (neutral, _, _) in PARAMETERS.items() if name not in AIMS):
            return grid.clone()
        rows, columns = grid.shape[-2:]
        field = latent_field(columns, rows, grid.device, **values)
        return self._carried(grid, field, torch.Generator().manual_seed(seed), part)

    def _carried(self, grid: Tensor, field: MotionField, generator: torch.Generator, part: slice) -> Tensor:
        return move_latent(grid, field, self.kernel, self.border, self.keep_statistics, generator)

    def _groups_moved(self, grid: Tensor, moves: dict[int, dict[str, float]], seed: int) -> Tensor:
        moved = grid.clone()
        for group, values in moves.items():
            part = slice(group * self._each, (group + 1) * self._each)
            # A seed of its own: groups must not get the same noise outside.
            moved[:, part] = self._moved(grid[:, part], values, seed * len(self.GROUPS) + group, part)
        return moved

    def _grid(self, latent: Tensor) -> Tensor:
        """Checked, on the device, float32, at /8."""
        allowed = (self.CHANNELS, 4 * self.CHANNELS) if self.PACKED else (self.CHANNELS,)
        if not isinstance(latent, Tensor) or latent.ndim != 4 or latent.shape[1] not in allowed or not latent.numel():
            shaped = isinstance(latent, Tensor)
            found = f"has shape {tuple(latent.shape)}" if shaped else f"is a {type(latent).__name__}"
            shapes = " or ".join(f"[B, {c}, H/{cell}, W/{cell}]" for c, cell in zip(allowed, (8, 16), strict=False))
            raise KoshiError("bad_value", f"latent {found}.", f"{type(self).__name__} takes tensors {shapes}.")
        if not latent.is_floating_point() or not bool(torch.isfinite(latent).all()):
            raise KoshiError("bad_value", "latent holds values that are not finite numbers.", "Give a float tensor.")
        grid = latent.to(self.device or latent.device, torch.promote_types(latent.dtype, torch.float32))
        return grid if grid.shape[1] == self.CHANNELS else unpack(grid)

    def _like(self, grid: Tensor, latent: Tensor) -> Tensor:
        return (grid if latent.shape[1] == self.CHANNELS else pack(grid)).to(latent.dtype)

    def _weights(self, weights: Sequence[float]) -> tuple[float, ...]:
        try:
            return tuple(evaluate(list(plain(weights)), len(self.GROUPS)))
        except (ScheduleError, TypeError) as error:
            wanted = f"Give {len(self.GROUPS)} numbers: {', '.join(self.GROUPS)}."
            raise KoshiError("bad_value", f"depth_weights is {weights!r}.", wanted) from error

    def _group(self, name: object) -> int:
        value = plain(name)
        if isinstance(value, str):
            value = {"color": "colour"}.get(value, value)
            if value in self.GROUPS:
                return self.GROUPS.index(value)
        elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.GROUPS):
            return value
        known = ", ".join(f"{k} {n}" for k, n in enumerate(self.GROUPS))
        raise KoshiError("bad_value", f"There is no channel group {name!r}.", f"Groups by number and name: {known}.")


class Flux1MotionEngine(MotionEngine):
    """FLUX.1's latents: [B, 16, H/8, W/8], four groups of four channels. See `MotionEngine`."""

    GROUPS = ("structure", "colour", "texture", "transitions")
    DEPTH_WEIGHTS = (0.30, -0.20, 0.10, 0.05)
    CHANNELS = 16
    PACKED = False


class Flux2MotionEngine(MotionEngine):
    """FLUX.2's latents, packed [B, 128, H/16, W/16] or not [B, 32, H/8, W/8]. See `MotionEngine`.

    A group of 16 packed channels is four channels of the /8 grid in all of their four places, so a group can be moved
    on that grid, whole.

    normalisation: the autoencoder's `bn`. Its statistics differ a little between the four places of a channel; given,
        normalised latents are moved free of that difference. On koshi-tiny a move by 8 pixels then agrees with the
        moved picture to 51.8 dB instead of 37.9; moves between whole cells gain .5 dB at most
        (`benchmarks/latent_motion.py`).
    options: `MotionEngine`'s.
    """

    GROUPS = ("structure", "layout", "palette", "light", "texture", "detail", "semantic", "transitions")
    DEPTH_WEIGHTS = (0.35, 0.28, 0.18, 0.08, -0.05, -0.15, -0.25, -0.30)
    CHANNELS = 32
    PACKED = True

    def __init__(
        self, device: str | torch.device | None = "cpu", *, normalisation: nn.BatchNorm2d | None = None, **options: Any
    ) -> None:
        super().__init__(device, **options)
        self._places = None if normalisation is None else _differences(normalisation)

    def _carried(self, grid: Tensor, field: MotionField, generator: torch.Generator, part: slice) -> Tensor:
        if self._places is None:
            return super()._carried(grid, field, generator, part)
        rows, columns = grid.shape[-2:]
        tiled = (v[part].repeat(1, (rows + 1) // 2, (columns + 1) // 2)[:, :rows, :columns] for v in self._places)
        gain, offset = (v.to(grid) for v in tiled)
        return (super()._carried(grid * gain + offset, field, generator, part) - offset) / gain


def _differences(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """gain, offset [32, 2, 2] that bring each place of a channel from its own statistics to the channel's."""
    mean = bn.get_buffer("running_mean").float().view(-1, 2, 2)
    variance = bn.get_buffer("running_var").float().view(-1, 2, 2) + bn.eps
    whole = variance.mean(dim=(1, 2), keepdim=True).sqrt()
    return variance.sqrt() / whole, (mean - mean.mean(dim=(1, 2), keepdim=True)) / whole


def _one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        raise KoshiError("bad_value", f"{name} is {value!r}.", f"Use {', '.join(allowed)}.")
    return value


def _device(wanted: str | torch.device | None) -> torch.device | None:
    """A device that is there. CUDA that is not is replaced by the processor, with a warning, as for models."""
    if wanted is None:
        return None
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        if str(wanted).startswith("cuda") and not torch.cuda.is_available():
            log.warning("device %s was asked for, but there is no CUDA on this computer: using the processor", wanted)
            return torch.device("cpu")
        hint = "Use cpu, cuda, cuda:1 or mps."
        raise KoshiError("bad_device", f"{wanted!r} is not a device of this computer.", hint) from error
    return device
