# SPDX-License-Identifier: GPL-3.0-or-later
"""One frame of a shot, from the frame before it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from . import color
from .feedback import motion_field, prepare, shown_tokens, strength_map
from .models.klein import Klein, Reference
from .noise import frame_seed, slerp
from .pictures import read_picture
from .shot import Shot
from .store import Entry

FULL = 65535.0


class Maker:
    """Makes a shot's frames with a loaded model."""

    def __init__(self, shot: Shot, model: Klein) -> None:
        self.shot = shot
        self.model = model

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

        def denoise(picture: Tensor | None, strength: float | Tensor, references: list[Reference]) -> Tensor:
            latent = self.model.denoise(
                shot.prompt_at(index),
                settings.noise_scale * self._noise(index, int(row["seed"])),
                steps=shot.steps,
                picture=picture,
                strength=strength,
                references=references,
                guidance=row["guidance"],
                on_step=on_step,
                cancelled=cancelled,
            )
            return self.model.decode(latent)

        if previous is None or settings.carry == "none":
            if shot.init_image and index == 0:
                start = read_picture(shot.init_image, shot.width, shot.height).to(self.model.device)
                if row["strength"] > 0.0:
                    start = denoise(self.model.encode_picture(start), row["strength"], [])
                return self._entry(start, None)
            return self._entry(denoise(None, 1.0, []), None)

        before = _to_tensor(previous.picture).to(self.model.device)
        field = motion_field(row, shot.width, shot.height, self.model.device)
        anchor = previous.anchor
        changed = settings.color_mode != "none" and settings.color_reference == "prompt"
        if changed and shot.prompt_at(index) != shot.prompt_at(index - 1):
            anchor = self._palette(index, cancelled)
        moved = prepare(before, field, row, settings, anchor, index)
        strength = strength_map(row["strength"], field.valid)
        if not isinstance(strength, Tensor) and strength == 0.0:
            return self._entry(moved, anchor)
        latent = self.model.encode_picture(moved)
        references = []
        if settings.condition != "start":
            references = [Reference(latent, shown_tokens(field.valid))]
        if row["strength"] == 0.0:
            # Nothing is made anew but what the move has uncovered.
            painted = denoise(latent, strength, references)
            return self._entry(torch.where(field.valid, moved, painted), anchor)
        if settings.condition == "reference":
            return self._entry(denoise(None, 1.0, references), anchor)
        return self._entry(denoise(latent, strength, references), anchor)

    def _palette(self, index: int, cancelled: Callable[[], bool] | None) -> np.ndarray:
        """The colours of a prompt: those of the picture that the model draws of it from the seed's noise alone."""
        shot = self.shot
        noise = self.model.noise(int(shot.values["seed"][index]), shot.width, shot.height)
        guidance = shot.values["guidance"][index]
        latent = self.model.denoise(
            shot.prompt_at(index), noise, steps=shot.steps, guidance=guidance, cancelled=cancelled
        )
        return color.statistics(self.model.decode(latent), shot.feedback.color_mode)

    def _noise(self, index: int, seed: int) -> Tensor:
        """Latent noise of a frame. Frame 0 has the same noise in every mode."""
        shot, mode = self.shot, self.shot.feedback.noise_mode
        base = self.model.noise(seed, shot.width, shot.height)
        if mode == "fixed" or index == 0:
            return base
        # A stream of its own for each frame: with seed + index a keyed seed, or the next seed, would meet this one.
        fresh = self.model.noise(frame_seed(seed, index, "latent"), shot.width, shot.height)
        return fresh if mode == "incremental" else slerp(base, fresh, shot.feedback.noise_delta)

    def _entry(self, picture: Tensor, anchor: np.ndarray | None) -> Entry:
        """Round the picture to what is stored, so that a resumed chain goes on from the very same numbers.

        anchor: the colours that hold so far; None takes this picture's own.
        """
        settings = self.shot.feedback
        whole = (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * FULL).round().cpu().numpy().astype(np.uint16)
        if settings.color_mode == "none":
            anchor = np.zeros(6)
        elif anchor is None or settings.color_reference == "previous":
            anchor = color.statistics(_to_tensor(whole), settings.color_mode)
        return Entry(whole, encode_png(whole), anchor)


def encode_png(picture: np.ndarray) -> bytes:
    """uint16 [H, W, 3] -> an 8-bit PNG file, rounded to nearest."""
    small = ((picture.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    done, data = cv2.imencode(".png", small[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return data.tobytes()


def _to_tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.astype(np.float32) / np.float32(FULL)).permute(2, 0, 1)[None]
