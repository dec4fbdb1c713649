# SPDX-License-Identifier: GPL-3.0-or-later
"""One frame of a shot, from the frame before it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from . import color
from .feedback import correct, shown, shown_tokens, strength_map
from .models.model import FluxModel, Reference
from .motion import MotionField, resample
from .motion.anchor import Anchored
from .motion.latent import cells_of, move_latent, pack, unpack
from .moves import Moves
from .noise import NoiseRecipe, frame_noise
from .pictures import read_picture
from .shot import Shot
from .store import Entry
from .structure import paint_mask, structure_picture

FULL = 65535.0
_ANCHOR = "anchor."


class Maker:
    """Makes a shot's frames with a loaded model."""

    def __init__(self, shot: Shot, model: FluxModel) -> None:
        self.shot = shot
        self.model = model
        self.moves = Moves(shot, model.device, model.encode_picture)

    def make(
        self,
        index: int,
        previous: Entry | None,
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Entry:
        """Frame `index`. previous: the entry before it; None for frame 0 and where nothing is carried.

        Raises Cancelled between two denoising steps.
        """
        shot, settings = self.shot, self.shot.feedback
        row = {name: values[index] for name, values in shot.values.items()}
        carried = None if settings.carry == "none" or shot.begins(index) else previous
        mask = paint_mask(shot, index)
        mask = None if mask is None else mask.to(self.model.device)
        structure = self._structure(index)
        field: MotionField | None = None
        state: dict[str, np.ndarray] = {}
        if carried is not None:
            before = _to_tensor(carried.picture).to(self.model.device)
            field, state = self.moves.into(index, before, carried.state)
        noise, noise_state = self._noise(index, row, field, carried)
        state |= noise_state

        def denoise(picture: Tensor | None, strength: float | Tensor, references: list[Reference]) -> Tensor:
            return self.model.denoise(
                shot.prompt_at(index),
                settings.noise_scale * noise,
                steps=shot.steps,
                picture=picture,
                strength=strength,
                references=[*references, *structure],
                guidance=row["guidance"],
                negative=shot.negative_at(index),
                rounding=shot.time_rounding,
                on_step=on_step,
                cancelled=cancelled,
            )

        if carried is None or field is None:
            if file := shot.start_of(index):
                start = read_picture(file, shot.width, shot.height).to(self.model.device)
                strength = strength_map(row["strength"], None, self.model.channels, mask)
                if not isinstance(strength, Tensor) and strength == 0.0:
                    return self._entry(start, None, state)
                painted = denoise(self.model.encode_picture(start), strength, [])
                if mask is not None:
                    return self._entry(torch.lerp(start, self.model.decode(painted), mask), None, state)
                return self._painted(painted, None, state)
            return self._painted(denoise(None, 1.0, []), None, state)

        anchor = carried.anchor
        changed = settings.color_mode != "none" and settings.color_reference == "prompt"
        if changed and shot.prompt_at(index) != shot.prompt_at(index - 1):
            anchor = self._palette(index, cancelled)
        seen = shown(field.valid)
        strength = strength_map(row["strength"], seen, self.model.channels, mask)
        idle = not isinstance(strength, Tensor) and strength == 0.0
        moved: Tensor | None = None
        if settings.carry == "latent":
            latent = self._moved_latent(carried, field, row, anchor, index)
            if idle:
                return self._painted(latent, anchor, state)
        else:
            if idle:
                # Nothing is painted: however long that goes on, the picture is resampled once.
                kept = self._kept(carried, before, field)
                moved = correct(kept.shown(), field.valid, row, settings, anchor, index)
                if row["contrast"] == 1.0 and row["sharpen"] == row["noise"] == 0.0:  # these are meant to add up
                    state |= _to_state(kept)
                return self._entry(moved, anchor, state)
            moved = correct(resample(before, field, settings.border), field.valid, row, settings, anchor, index)
            latent = self.model.encode_picture(moved)
        references = [] if settings.condition == "start" else [Reference(latent, shown_tokens(seen))]
        if settings.condition == "reference" and row["strength"] > 0.0:
            painted = denoise(None, 1.0, references)
        else:
            painted = denoise(latent, strength, references)
        if moved is not None and (row["strength"] == 0.0 or mask is not None):
            # Nothing is made anew but what the move has uncovered, and what the mask lets through.
            share = (~seen).to(moved)
            if mask is not None and row["strength"] > 0.0:
                share = torch.maximum(share, mask)
            return self._entry(torch.lerp(moved, self.model.decode(painted), share), anchor, state)
        return self._painted(painted, anchor, state)

    def _structure(self, index: int) -> list[Reference]:
        """What the model is shown beside the frame before, for where things are."""
        picture = structure_picture(self.shot, index)
        return [] if picture is None else [Reference(self.model.encode_picture(picture.to(self.model.device)))]

    def _moved_latent(
        self, carried: Entry, field: MotionField, row: dict[str, float], anchor: np.ndarray, index: int
    ) -> Tensor:
        """The latent before, moved as such. Corrections are of pictures and come as the difference they make."""
        settings, before = self.shot.feedback, torch.from_numpy(carried.state["latent"])[None].to(self.model.device)
        moved = pack(move_latent(unpack(before), cells_of(field), border=settings.border))
        matched = settings.color_mode != "none" and row["color_match"] > 0.0
        if not matched and row["contrast"] == 1.0 and row["sharpen"] == row["noise"] == 0.0:
            return moved
        picture = self.model.decode(moved)
        corrected = correct(picture, field.valid, row, settings, anchor, index)
        return moved + self.model.encode_picture(corrected) - self.model.encode_picture(picture)

    def _kept(self, carried: Entry, before: Tensor, field: MotionField) -> Anchored:
        """The picture from which an unpainted frame is made, moved all the way to this frame."""
        border = self.shot.feedback.border
        arrays = {name.removeprefix(_ANCHOR): a for name, a in carried.state.items() if name.startswith(_ANCHOR)}
        if arrays:
            picture = _to_tensor(arrays["picture"]).to(before)
            longer = Anchored.from_arrays({**arrays, "border": np.array(border)}, picture, before.device).moved(field)
            if longer.worn() is None:
                return longer
        return Anchored.at(before, border).moved(field)

    def _palette(self, index: int, cancelled: Callable[[], bool] | None) -> np.ndarray:
        """The colours of a prompt: those of the picture that the model draws of it from the seed's noise alone."""
        shot = self.shot
        noise = self.model.noise(int(shot.values["seed"][index]), shot.width, shot.height)
        latent = self.model.denoise(
            shot.prompt_at(index),
            noise,
            steps=shot.steps,
            guidance=shot.values["guidance"][index],
            negative=shot.negative_at(index),
            rounding=shot.time_rounding,
            cancelled=cancelled,
        )
        return color.statistics(self.model.decode(latent), shot.feedback.color_mode)

    def _noise(
        self, index: int, row: dict[str, float], field: MotionField | None, carried: Entry | None
    ) -> tuple[Tensor, dict[str, np.ndarray]]:
        """Latent noise of a frame, and what the next one has to know of it."""
        before = None if carried is None else carried.state.get("noise")
        noise, after = frame_noise(noise_recipe(self.shot, index, row, self.model.channels), field, before)
        return noise.to(self.model.device), {} if after is None else {"noise": after}

    def _painted(self, latent: Tensor, anchor: np.ndarray | None, state: dict[str, np.ndarray]) -> Entry:
        """The entry of a frame that comes as a latent, as it stays where latents are carried."""
        if self.shot.feedback.carry == "latent":
            state = state | {"latent": latent[0].float().cpu().numpy()}
        return self._entry(self.model.decode(latent), anchor, state)

    def _entry(self, picture: Tensor, anchor: np.ndarray | None, state: dict[str, np.ndarray]) -> Entry:
        """Round the picture to what is stored, so that a resumed chain goes on from the very same numbers.

        anchor: the colours that hold so far; None takes this picture's own.
        """
        settings = self.shot.feedback
        if settings.carry == "latent" and "latent" not in state:
            state = state | {"latent": self.model.encode_picture(picture)[0].float().cpu().numpy()}
        whole = (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * FULL).round().cpu().numpy().astype(np.uint16)
        if settings.color_mode == "none":
            anchor = np.zeros(6)
        elif anchor is None or settings.color_reference == "previous":
            anchor = color.statistics(_to_tensor(whole), settings.color_mode)
        return Entry(whole, encode_png(whole), anchor, state)


def noise_recipe(shot: Shot, index: int, row: dict[str, float], channels: int = 128) -> NoiseRecipe:
    """Which noise a frame has."""
    settings = shot.feedback
    return NoiseRecipe(
        settings.noise_mode, int(row["seed"]), index, shot.width, shot.height,
        settings.noise_delta, int(row["subseed"]), row["subseed_strength"], channels,
    )  # fmt: skip


def encode_png(picture: np.ndarray) -> bytes:
    """uint16 [H, W, 3] -> an 8-bit PNG file, rounded to nearest."""
    small = ((picture.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    done, data = cv2.imencode(".png", small[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return data.tobytes()


def _to_state(kept: Anchored) -> dict[str, np.ndarray]:
    """An anchor as the numeric arrays that an entry holds. Its picture has 16 bits already: it was an entry's."""
    arrays = kept.to_arrays(picture=False)
    del arrays["border"]
    whole = (kept.picture[0].permute(1, 2, 0) * FULL).round().cpu().numpy().astype(np.uint16)
    return {_ANCHOR + name: array for name, array in {**arrays, "picture": whole}.items()}


def _to_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.astype(np.float32) / np.float32(FULL)).permute(2, 0, 1)[None]
