# SPDX-License-Identifier: GPL-3.0-or-later
"""What is carried into a frame: the one before it, moved, with all that is mixed in, and corrected.

In this order: the move, the video (hybrid.py), the end of a loop (seam.py), corrections (feedback.py), the guided
picture (guided.py). Then the model paints over it (frame.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .entries import to_tensor, whole
from .feedback import correct, shown
from .guided import Guided
from .hybrid import Mix
from .models.model import FluxModel
from .motion import MotionField, resample
from .motion.anchor import Anchored
from .motion.latent import cells_of, move_latent, pack, unpack
from .seam import Seam
from .shot import Shot
from .store import Entry

ANCHOR = "anchor."  # of arrays in an entry's state: what unpainted frames are made from (motion/anchor.py)


@dataclass(frozen=True)
class Carried:
    """The frame before, on its way into frame `index`.

    row: the values of the shot's schedules there. entry: the frame before; before: its picture, [1, 3, H, W] in 0..1.
    field: the move. colors: what colours are matched to. noisy: where noise is added, [H, W] in 0..1; None for
    everywhere. mix, seam, guided: what is mixed in, or None.
    """

    shot: Shot
    index: int
    row: dict[str, float]
    entry: Entry
    before: Tensor
    field: MotionField
    colors: np.ndarray
    noisy: Tensor | None
    mix: Mix | None
    seam: Seam | None
    guided: Guided | None

    @property
    def known(self) -> Tensor:
        """bool [H, W]: where the moved picture shows something, be it the video."""
        fills = self.mix is not None and self.mix.fills
        return torch.ones_like(self.field.valid) if fills else self.field.valid

    @property
    def seen(self) -> Tensor:
        """bool [H, W]: where there is something to paint over."""
        covered = self.guided is not None and self.guided.covers
        return torch.ones_like(self.known) if covered else shown(self.known)

    def picture(self) -> Tensor:
        """What is painted over, [1, 3, H, W] in 0..1."""
        return self._finished(resample(self.before, self.field, self.shot.feedback.border), self.field.valid)

    def unpainted(self) -> tuple[Tensor, dict[str, np.ndarray]]:
        """The same where nothing is painted, and what the next frame has to know of it: however long that goes on, the
        picture is resampled once."""
        kept = self._kept()
        moved = self._finished(kept.shown(), kept.field.valid)
        # What is done to a picture shall add up: then it is the next frame's own source.
        touched = self.mix is not None or self.seam is not None or (self.guided is not None and self.guided.mixed)
        return moved, {} if touched or self._corrects else _to_state(kept)

    def latent(self, model: FluxModel) -> Tensor:
        """What is painted over where latents are carried: the latent before, moved as such."""
        latent = self._moved_latent(model)
        if self.seam is not None:
            latent = self.seam.into_latent(latent, model)
        if self.guided is not None and self.guided.mixed:
            latent = self.guided.into_latent(latent, model)
        return latent

    @property
    def _corrects(self) -> bool:
        """Whether something besides the colour match changes the moved picture."""
        return not (self.row["contrast"] == 1.0 and self.row["sharpen"] == self.row["noise"] == 0.0)

    def _finished(self, moved: Tensor, valid: Tensor) -> Tensor:
        """A moved picture with all that is mixed in, corrected. valid: bool [H, W], where it shows something."""
        if self.mix is not None:
            moved = self.mix.into(moved, valid)
        if self.seam is not None:
            moved = self.seam.into(moved)
        moved = correct(moved, self.known, self.row, self.shot.feedback, self.colors, self.index, self.noisy)
        return self.guided.into(moved) if self.guided is not None and self.guided.mixed else moved

    def _moved_latent(self, model: FluxModel) -> Tensor:
        """Corrections are of pictures and come as the difference they make; so does the video that is mixed in."""
        settings = self.shot.feedback
        before = torch.from_numpy(self.entry.state["latent"])[None].to(model.device)
        moved = pack(move_latent(unpack(before), cells_of(self.field), border=settings.border))
        matched = settings.color_mode != "none" and self.row["color_match"] > 0.0
        if not matched and not self._corrects and self.mix is None:
            return moved
        picture = model.decode(moved)
        mixed = picture if self.mix is None else self.mix.into(picture, self.field.valid)
        corrected = correct(mixed, self.known, self.row, settings, self.colors, self.index, self.noisy)
        return moved + model.encode_picture(corrected) - model.encode_picture(picture)

    def _kept(self) -> Anchored:
        """The picture from which an unpainted frame is made, moved all the way to this frame."""
        border, state = self.shot.feedback.border, self.entry.state
        arrays = {name.removeprefix(ANCHOR): a for name, a in state.items() if name.startswith(ANCHOR)}
        if arrays:
            picture = to_tensor(arrays["picture"]).to(self.before)
            source = Anchored.from_arrays({**arrays, "border": np.array(border)}, picture, self.before.device)
            longer = source.moved(self.field)
            if longer.worn() is None:
                return longer
        return Anchored.at(self.before, border).moved(self.field)


def _to_state(kept: Anchored) -> dict[str, np.ndarray]:
    """An anchor as the numeric arrays that an entry holds. Its picture has 16 bits already: it was an entry's."""
    arrays = kept.to_arrays(picture=False)
    del arrays["border"]
    return {ANCHOR + name: array for name, array in {**arrays, "picture": whole(kept.picture)}.items()}
