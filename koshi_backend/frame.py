# SPDX-License-Identifier: GPL-3.0-or-later
"""One frame of a shot, from the frame before it.

Read `Maker.make` from top to bottom: what a frame is made with is gathered in a `Task`; a frame that begins is painted
over a picture or from noise alone, any other one over the frame before it, moved (carried.py); what comes out is an
entry of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from . import color
from .carried import ANCHOR, Carried
from .entries import encode_png, to_tensor, whole
from .feedback import new_share, shown_tokens, strength_map
from .guided import Guided, GuidedPictures
from .hybrid import Mix
from .lora.fit import fit_loras
from .lora.wear import Lora
from .mask import Masks, painted_share
from .models.model import FluxModel, Reference
from .motion import MotionField, resample
from .moves import Moves
from .noise import NoiseRecipe, frame_noise
from .palettes import Palettes
from .pictures import read_picture
from .prompts import Part
from .seam import Seam
from .shot import Shot
from .store import Entry
from .structure import structure_picture

# Told the step and their number; asked whether to stop.
OnStep = Callable[[int, int], None]
Stop = Callable[[], bool]


@dataclass
class Task:
    """What one frame is made with.

    row: the values of the shot's schedules at it. mask: where it is painted, [H, W] in 0..1, or None for everywhere.
    guided: what it is drawn towards. structure: what the model is shown of where things are. noise: of the latent.
    state: what the next frame has to know of this one; filled on the way.
    """

    index: int
    row: dict[str, float]
    mask: Tensor | None
    guided: Guided | None
    structure: list[Reference]
    noise: Tensor
    state: dict[str, np.ndarray]
    on_step: OnStep | None
    cancelled: Stop | None


class Maker:
    """Makes a shot's frames with a loaded model."""

    def __init__(self, shot: Shot, model: FluxModel, moves: Moves | None = None) -> None:
        self.shot = shot
        self.model = model
        self.moves = moves or Moves(shot, model.device, model.encode_picture)
        self._masks, self._guided = Masks(shot), GuidedPictures(shot, model.device)
        self._palettes = Palettes(shot, self._guided)
        # All of them now: one that does not fit shall not end the shot at the frame where its weight first counts.
        files = shot.lora_files
        self._fitted = dict(zip(files, fit_loras(model, shot.model, files), strict=True))

    def make(
        self,
        index: int,
        previous: Entry | None,
        on_step: OnStep | None = None,
        cancelled: Stop | None = None,
        first: Entry | None = None,
    ) -> Entry:
        """Frame `index`. previous: the entry of the made frame before it; None for frame 0, and where nothing is
        carried. first: frame 0's, for frames that a seamless loop draws towards it.

        Raises Cancelled between two denoising steps.
        """
        early = Mix.of(self.shot, self.moves, index, "before_motion")
        if early is not None and previous is not None:
            previous = self._mixed(previous, early)
        if previous is None or self.shot.feedback.carry == "none" or self.shot.begins(index):
            entry = self._begun(self._task(index, None, None, {}, on_step, cancelled))
        else:
            before = to_tensor(previous.picture).to(self.model.device)
            field, state = self._move(index, before, previous)
            task = self._task(index, field, previous, state, on_step, cancelled)
            entry = self._carried_on(task, previous, before, field, first)
        late = Mix.of(self.shot, self.moves, index, "after_generation")
        return entry if late is None else self._mixed(entry, late)

    # ---- the two ways in which a frame is made

    def _begun(self, task: Task) -> Entry:
        """A frame that begins: painted over a picture, or from noise alone."""
        start, mask = self._start(task.index, task.guided), task.mask
        if start is None:
            return self._painted(self._paint(task, None, 1.0), None, task.state)
        strength = strength_map(task.row["strength"], None, self.model.channels, mask)
        if _nothing(strength):
            return self._entry(start, None, task.state)
        painted = self._paint(task, self.model.encode_picture(start), strength)
        if mask is None:
            return self._painted(painted, None, task.state)
        return self._entry(torch.lerp(start, self.model.decode(painted), painted_share(mask)), None, task.state)

    def _carried_on(
        self, task: Task, previous: Entry, before: Tensor, field: MotionField, first: Entry | None
    ) -> Entry:
        """A frame that is painted over the one before it, moved. field: the move."""
        index, row, mask, settings = task.index, task.row, task.mask, self.shot.feedback
        seam = self._seam(index, before, field, task.state, first)
        colors, palettes = self._palettes.at(index, previous, lambda part: self._palette(task, part))
        task.state |= palettes
        mix = Mix.of(self.shot, self.moves, index, "normal")
        noisy = self._masks.noise_at(index) if row["noise"] > 0.0 else None
        way = Carried(self.shot, index, row, previous, before, field, colors, noisy, mix, seam, task.guided)
        seen = way.seen
        strength = strength_map(row["strength"], seen, self.model.channels, mask)

        moved: Tensor | None = None
        if settings.carry == "latent":
            latent = way.latent(self.model)
            if _nothing(strength):
                return self._painted(latent, colors, task.state)
        elif _nothing(strength):
            moved, kept = way.unpainted()
            return self._entry(moved, colors, task.state | kept)
        else:
            moved = way.picture()
            latent = self.model.encode_picture(moved)

        references = [] if settings.condition == "start" else [Reference(latent, shown_tokens(seen))]
        if settings.condition == "reference" and row["strength"] > 0.0:
            painted = self._paint(task, None, 1.0, references)
        else:
            painted = self._paint(task, latent, strength, references)
        if row["strength"] > 0.0 and mask is None:
            return self._painted(painted, colors, task.state)
        # Nothing is made anew but what the move has uncovered, and what the mask lets through.
        through = None if row["strength"] == 0.0 else mask
        if through is not None and settings.condition != "reference":
            through = painted_share(through)  # else nothing but this share makes a difference
        if moved is None:
            kept_latent = torch.lerp(latent, painted, new_share(seen, self.model.channels, through))
            return self._painted(kept_latent, colors, task.state)
        share = (~seen).to(moved) if through is None else torch.maximum((~seen).to(moved), through)
        return self._entry(torch.lerp(moved, self.model.decode(painted), share), colors, task.state)

    # ---- what it is made with

    def _task(
        self,
        index: int,
        field: MotionField | None,
        carried: Entry | None,
        state: dict[str, np.ndarray],
        on_step: OnStep | None,
        cancelled: Stop | None,
    ) -> Task:
        """field: the move into the frame, and carried: the frame before, of one that is carried on."""
        row = {name: values[index] for name, values in self.shot.values.items()}
        mask = self._masks.at(index)
        mask = None if mask is None else mask.to(self.model.device)
        guided = self._guided.at(index, mask)
        structure = self._structure(index) + ([] if guided is None else guided.references(self.model))
        noise, after = self._noise(index, row, field, carried)
        return Task(index, row, mask, guided, structure, noise, state | after, on_step, cancelled)

    def _move(
        self, index: int, before: Tensor, carried: Entry
    ) -> tuple[MotionField, dict[str, np.ndarray]]:
        """All moves since the made frame before, as one field: however many, the picture is resampled once."""
        steps, state = self.moves.through(self.shot.before(index), index, before, carried.state)
        field = steps[0]
        for step in steps[1:]:
            field = field.then(step, self.shot.feedback.border)
        return field, state

    def _noise(
        self, index: int, row: dict[str, float], field: MotionField | None, carried: Entry | None
    ) -> tuple[Tensor, dict[str, np.ndarray]]:
        """Latent noise of a frame, and what the next one has to know of it."""
        before = None if carried is None else carried.state.get("noise")
        noise, after = frame_noise(noise_recipe(self.shot, index, row, self.model.channels), field, before)
        return noise.to(self.model.device), {} if after is None else {"noise": after}

    def _structure(self, index: int) -> list[Reference]:
        """What the model is shown beside the frame before, for where things are."""
        picture = structure_picture(self.shot, index)
        return [] if picture is None else [Reference(self.model.encode_picture(picture.to(self.model.device)))]

    def _start(self, index: int, guided: Guided | None) -> Tensor | None:
        """The picture that a frame is painted over which begins: init_image's or the video's, and the guided picture
        mixed into it, or alone."""
        file, mixed = self.shot.start_of(index), guided is not None and guided.mixed
        if self.shot.begins_in_video(index):
            start = self.moves.video(index)
        elif file is not None:
            start = read_picture(file, self.shot.width, self.shot.height).to(self.model.device)
        else:
            return guided.picture if guided is not None and mixed else None
        return guided.into(start) if guided is not None and mixed else start

    def _seam(
        self, index: int, before: Tensor, field: MotionField, state: dict[str, np.ndarray], first: Entry | None
    ) -> Seam | None:
        """What draws this frame towards frame 0, if it is one of those at the end of a seamless loop."""
        if first is None or index < self.shot.seam:
            return None
        moved = resample(before, field, self.shot.feedback.border)
        return Seam.at(self.shot, self.moves, index, moved, state, to_tensor(first.picture).to(before))

    def _loras(self, index: int) -> list[tuple[Lora, float]]:
        """What a frame is painted with beside the model."""
        return [(self._fitted[file], weight) for file, weight in self.shot.loras_at(index)]

    # ---- what the model does

    def _paint(
        self, task: Task, picture: Tensor | None, strength: float | Tensor, references: list[Reference] | None = None
    ) -> Tensor:
        """The frame's latent, painted over the latent `picture`, or from noise alone."""
        parts = self.shot.texts.at(task.index)
        return self.model.denoise(
            [(part.text, part.weight) for part in parts],
            self.shot.feedback.noise_scale * task.noise,
            steps=self.shot.steps,
            picture=picture,
            strength=strength,
            references=[*(references or []), *task.structure],
            guidance=task.row["guidance"],
            negative=[(part.negative, part.weight) for part in parts],
            loras=self._loras(task.index),
            rounding=self.shot.time_rounding,
            on_step=task.on_step,
            cancelled=task.cancelled,
        )

    def _palette(self, task: Task, part: Part) -> np.ndarray:
        """The colours of a prompt: those of the picture that the model draws of it from the seed's noise alone."""
        shot = self.shot
        latent = self.model.denoise(
            part.text,
            self.model.noise(int(task.row["seed"]), shot.width, shot.height),
            steps=shot.steps,
            guidance=task.row["guidance"],
            negative=part.negative,
            loras=self._loras(task.index),
            rounding=shot.time_rounding,
            cancelled=task.cancelled,
        )
        return color.statistics(self.model.decode(latent), shot.feedback.color_mode)

    # ---- what comes out

    def _painted(self, latent: Tensor, colors: np.ndarray | None, state: dict[str, np.ndarray]) -> Entry:
        """The entry of a frame that comes as a latent, as it stays where latents are carried."""
        if self.shot.feedback.carry == "latent":
            state = state | {"latent": latent[0].float().cpu().numpy()}
        return self._entry(self.model.decode(latent), colors, state)

    def _entry(self, picture: Tensor, colors: np.ndarray | None, state: dict[str, np.ndarray]) -> Entry:
        """Round the picture to what is stored, so that a resumed chain goes on from the very same numbers.

        colors: those that hold so far; None takes this picture's own.
        """
        if self.shot.feedback.carry == "latent" and "latent" not in state:
            state = state | {"latent": self.model.encode_picture(picture)[0].float().cpu().numpy()}
        stored = whole(picture)
        return Entry(stored, encode_png(stored), self._palettes.after(stored, colors), state)

    def _mixed(self, entry: Entry, mix: Mix) -> Entry:
        """A frame with the video in it. Its latent changes by the difference that makes, and the colours that hold stay
        those of the painted picture."""
        before = to_tensor(entry.picture).to(self.model.device)
        after = mix.into(before)
        state = {name: array for name, array in entry.state.items() if not name.startswith(ANCHOR)}
        if "latent" in state:
            change = self.model.encode_picture(after) - self.model.encode_picture(before)
            state["latent"] = state["latent"] + change[0].float().cpu().numpy()
        picture = whole(after)
        return replace(entry, picture=picture, png=encode_png(picture), state=state)


def _nothing(strength: float | Tensor) -> bool:
    """Whether a strength paints nothing at all."""
    return not isinstance(strength, Tensor) and strength == 0.0


def noise_recipe(shot: Shot, index: int, row: dict[str, float], channels: int = 128) -> NoiseRecipe:
    """Which noise a frame has."""
    settings = shot.feedback
    return NoiseRecipe(
        settings.noise_mode, int(row["seed"]), index, shot.width, shot.height,
        settings.noise_delta, int(row["subseed"]), row["subseed_strength"], channels,
    )  # fmt: skip
