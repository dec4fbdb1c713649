# SPDX-License-Identifier: GPL-3.0-or-later
"""One frame of a shot, from the frame before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from . import color
from .feedback import correct, new_share, shown, shown_tokens, strength_map
from .guided import Guided, GuidedPictures
from .hybrid import Mix
from .lora.fit import fit_loras
from .lora.wear import Lora
from .mask import Masks, painted_share
from .models.model import FluxModel, Reference
from .motion import MotionField, resample
from .motion.anchor import Anchored
from .motion.latent import cells_of, move_latent, pack, unpack
from .moves import Moves
from .noise import NoiseRecipe, frame_noise
from .pictures import read_picture
from .prompts import Part
from .seam import Seam
from .shot import Shot
from .store import Entry
from .structure import structure_picture

FULL = 65535.0
_ANCHOR = "anchor."


class Maker:
    """Makes a shot's frames with a loaded model."""

    def __init__(self, shot: Shot, model: FluxModel, moves: Moves | None = None) -> None:
        self.shot = shot
        self.model = model
        self.moves = moves or Moves(shot, model.device, model.encode_picture)
        self._masks, self._guided = Masks(shot), GuidedPictures(shot, model.device)
        # All of them now: one that does not fit shall not end the shot at the frame where its weight first counts.
        files = shot.lora_files
        self._fitted = dict(zip(files, fit_loras(model, shot.model, files), strict=True))

    def make(
        self,
        index: int,
        previous: Entry | None,
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        first: Entry | None = None,
    ) -> Entry:
        """Frame `index`. previous: the entry of the made frame before it; None for frame 0, and where nothing is
        carried. first: frame 0's, for frames that a seamless loop draws towards it.

        Raises Cancelled between two denoising steps.
        """
        early = Mix.of(self.shot, self.moves, index, "before_motion")
        if early is not None and previous is not None:
            previous = self._mixed(previous, early)
        entry = self._make(index, previous, on_step, cancelled, first)
        late = Mix.of(self.shot, self.moves, index, "after_generation")
        return entry if late is None else self._mixed(entry, late)

    def _make(
        self,
        index: int,
        previous: Entry | None,
        on_step: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
        first: Entry | None,
    ) -> Entry:
        shot, settings = self.shot, self.shot.feedback
        row = {name: values[index] for name, values in shot.values.items()}
        carried = None if settings.carry == "none" or shot.begins(index) else previous
        mask = self._masks.at(index)
        mask = None if mask is None else mask.to(self.model.device)
        guided = self._guided.at(index, mask)
        structure = self._structure(index) + ([] if guided is None else guided.references(self.model))
        field: MotionField | None = None
        state: dict[str, np.ndarray] = {}
        if carried is not None:
            before = to_tensor(carried.picture).to(self.model.device)
            field, state = self._move(index, before, carried)
        noise, noise_state = self._noise(index, row, field, carried)
        state |= noise_state

        parts, loras = shot.texts.at(index), self._loras(index)

        def denoise(picture: Tensor | None, strength: float | Tensor, references: list[Reference]) -> Tensor:
            return self.model.denoise(
                [(part.text, part.weight) for part in parts],
                settings.noise_scale * noise,
                steps=shot.steps,
                picture=picture,
                strength=strength,
                references=[*references, *structure],
                guidance=row["guidance"],
                negative=[(part.negative, part.weight) for part in parts],
                loras=loras,
                rounding=shot.time_rounding,
                on_step=on_step,
                cancelled=cancelled,
            )

        if carried is None or field is None:
            start = self._start(index, guided)
            if start is not None:
                strength = strength_map(row["strength"], None, self.model.channels, mask)
                if not isinstance(strength, Tensor) and strength == 0.0:
                    return self._entry(start, None, state)
                painted = denoise(self.model.encode_picture(start), strength, [])
                if mask is not None:
                    share = painted_share(mask)
                    return self._entry(torch.lerp(start, self.model.decode(painted), share), None, state)
                return self._painted(painted, None, state)
            return self._painted(denoise(None, 1.0, []), None, state)

        seam = self._seam(index, before, field, state, first)
        anchor, palettes = self._anchor(index, carried, cancelled)
        state |= palettes
        mix = Mix.of(shot, self.moves, index, "normal")
        known = field.valid | True if mix is not None and mix.fills else field.valid
        seen = torch.ones_like(known) if guided is not None and guided.covers else shown(known)
        strength = strength_map(row["strength"], seen, self.model.channels, mask)
        idle = not isinstance(strength, Tensor) and strength == 0.0
        moved: Tensor | None = None
        if settings.carry == "latent":
            latent = self._moved_latent(carried, field, row, anchor, index, mix)
            if seam is not None:
                latent = seam.into_latent(latent, self.model)
            if guided is not None and guided.mixed:
                latent = guided.into_latent(latent, self.model)
            if idle:
                return self._painted(latent, anchor, state)
        else:
            if idle:
                # Nothing is painted: however long that goes on, the picture is resampled once.
                kept = self._kept(carried, before, field)
                moved = kept.shown() if mix is None else mix.into(kept.shown(), kept.field.valid)
                moved = moved if seam is None else seam.into(moved)
                moved = correct(moved, known, row, settings, anchor, index)
                if guided is not None and guided.mixed:
                    moved = guided.into(moved)
                elif row["contrast"] == 1.0 and row["sharpen"] == row["noise"] == 0.0 and seam is None and mix is None:
                    state |= _to_state(kept)  # but for corrections, which are meant to add up
                return self._entry(moved, anchor, state)
            moved = resample(before, field, settings.border)
            if mix is not None:
                moved = mix.into(moved, field.valid)
            if seam is not None:
                moved = seam.into(moved)
            moved = correct(moved, known, row, settings, anchor, index)
            if guided is not None and guided.mixed:
                moved = guided.into(moved)
            latent = self.model.encode_picture(moved)
        references = [] if settings.condition == "start" else [Reference(latent, shown_tokens(seen))]
        if settings.condition == "reference" and row["strength"] > 0.0:
            painted = denoise(None, 1.0, references)
        else:
            painted = denoise(latent, strength, references)
        if row["strength"] == 0.0 or mask is not None:
            # Nothing is made anew but what the move has uncovered, and what the mask lets through.
            through = None if row["strength"] == 0.0 else mask
            if through is not None and settings.condition != "reference":
                through = painted_share(through)  # else nothing but this share makes a difference
            if moved is None:
                painted = torch.lerp(latent, painted, new_share(seen, self.model.channels, through))
            else:
                share = (~seen).to(moved) if through is None else torch.maximum((~seen).to(moved), through)
                return self._entry(torch.lerp(moved, self.model.decode(painted), share), anchor, state)
        return self._painted(painted, anchor, state)

    def _move(
        self, index: int, before: Tensor, carried: Entry
    ) -> tuple[MotionField, dict[str, np.ndarray]]:
        """All moves since the made frame before, as one field: however many, the picture is resampled once."""
        steps, state = self.moves.through(self.shot.before(index), index, before, carried.state)
        field = steps[0]
        for step in steps[1:]:
            field = field.then(step, self.shot.feedback.border)
        return field, state

    def _seam(
        self, index: int, before: Tensor, field: MotionField, state: dict[str, np.ndarray], first: Entry | None
    ) -> Seam | None:
        """What draws this frame towards frame 0, if it is one of those at the end of a seamless loop."""
        if first is None or index < self.shot.seam:
            return None
        shown = resample(before, field, self.shot.feedback.border)
        return Seam.at(self.shot, self.moves, index, shown, state, to_tensor(first.picture).to(before))

    def _mixed(self, entry: Entry, mix: Mix) -> Entry:
        """A frame with the video in it. Its latent changes by the difference that makes, and the colours that hold stay
        those of the painted picture."""
        before = to_tensor(entry.picture).to(self.model.device)
        after = mix.into(before)
        state = {name: array for name, array in entry.state.items() if not name.startswith(_ANCHOR)}
        if "latent" in state:
            change = self.model.encode_picture(after) - self.model.encode_picture(before)
            state["latent"] = state["latent"] + change[0].float().cpu().numpy()
        picture = whole(after)
        return replace(entry, picture=picture, png=encode_png(picture), state=state)

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

    def _loras(self, index: int) -> list[tuple[Lora, float]]:
        """What a frame is painted with beside the model."""
        return [(self._fitted[file], weight) for file, weight in self.shot.loras_at(index)]

    def _structure(self, index: int) -> list[Reference]:
        """What the model is shown beside the frame before, for where things are."""
        picture = structure_picture(self.shot, index)
        return [] if picture is None else [Reference(self.model.encode_picture(picture.to(self.model.device)))]

    def _moved_latent(
        self,
        carried: Entry,
        field: MotionField,
        row: dict[str, float],
        anchor: np.ndarray,
        index: int,
        mix: Mix | None = None,
    ) -> Tensor:
        """The latent before, moved as such. Corrections are of pictures and come as the difference they make; so does
        the video that is mixed in."""
        settings, before = self.shot.feedback, torch.from_numpy(carried.state["latent"])[None].to(self.model.device)
        moved = pack(move_latent(unpack(before), cells_of(field), border=settings.border))
        matched = settings.color_mode != "none" and row["color_match"] > 0.0
        if not matched and row["contrast"] == 1.0 and row["sharpen"] == row["noise"] == 0.0 and mix is None:
            return moved
        picture = self.model.decode(moved)
        mixed = picture if mix is None else mix.into(picture, field.valid)
        known = field.valid | True if mix is not None and mix.fills else field.valid
        corrected = correct(mixed, known, row, settings, anchor, index)
        return moved + self.model.encode_picture(corrected) - self.model.encode_picture(picture)

    def _kept(self, carried: Entry, before: Tensor, field: MotionField) -> Anchored:
        """The picture from which an unpainted frame is made, moved all the way to this frame."""
        border = self.shot.feedback.border
        arrays = {name.removeprefix(_ANCHOR): a for name, a in carried.state.items() if name.startswith(_ANCHOR)}
        if arrays:
            picture = to_tensor(arrays["picture"]).to(before)
            longer = Anchored.from_arrays({**arrays, "border": np.array(border)}, picture, before.device).moved(field)
            if longer.worn() is None:
                return longer
        return Anchored.at(before, border).moved(field)

    def _anchor(
        self, index: int, carried: Entry, cancelled: Callable[[], bool] | None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The colours that hold from this frame on, and what later frames have to know of the prompts' own."""
        settings, texts = self.shot.feedback, self.shot.texts
        if settings.color_mode == "none" or settings.color_reference != "prompt":
            given = None if settings.color_mode == "none" else self._guided.colors(index)
            return carried.anchor if given is None else given, {}
        known = carried.state.get("palettes")
        before_it = self.shot.before(index)
        if not texts.turning(index, before_it):
            return carried.anchor, {} if known is None else {"palettes": known}
        # One row for each prompt, not a number where it is not known yet.
        known = np.full((len(self.shot.prompts), len(carried.anchor)), np.nan) if known is None else known.copy()
        before, now = texts.at(before_it), texts.at(index)
        if len(before) == 1:
            known[before[0].prompt] = carried.anchor
        for part in now:
            if np.isnan(known[part.prompt]).any():
                known[part.prompt] = self._palette(index, part, cancelled)
        anchor = sum((part.weight * known[part.prompt] for part in now), np.zeros_like(carried.anchor))
        return anchor, {"palettes": known} if texts.mixes else {}

    def _palette(self, index: int, part: Part, cancelled: Callable[[], bool] | None) -> np.ndarray:
        """The colours of a prompt: those of the picture that the model draws of it from the seed's noise alone."""
        shot = self.shot
        noise = self.model.noise(int(shot.values["seed"][index]), shot.width, shot.height)
        latent = self.model.denoise(
            part.text,
            noise,
            steps=shot.steps,
            guidance=shot.values["guidance"][index],
            negative=part.negative,
            loras=self._loras(index),
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
        stored = whole(picture)
        if settings.color_mode == "none":
            anchor = np.zeros(6)
        elif anchor is None or settings.color_reference == "previous":
            anchor = color.statistics(to_tensor(stored), settings.color_mode)
        return Entry(stored, encode_png(stored), anchor, state)


def noise_recipe(shot: Shot, index: int, row: dict[str, float], channels: int = 128) -> NoiseRecipe:
    """Which noise a frame has."""
    settings = shot.feedback
    return NoiseRecipe(
        settings.noise_mode, int(row["seed"]), index, shot.width, shot.height,
        settings.noise_delta, int(row["subseed"]), row["subseed_strength"], channels,
    )  # fmt: skip


def whole(picture: Tensor) -> np.ndarray:
    """[1, 3, H, W] in 0..1 as an entry's picture, uint16 [H, W, 3]."""
    return (picture[0].permute(1, 2, 0).float().clamp(0.0, 1.0) * FULL).round().cpu().numpy().astype(np.uint16)


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


def to_tensor(picture: np.ndarray) -> Tensor:
    """An entry's picture as [1, 3, H, W] in 0..1."""
    return torch.from_numpy(picture.astype(np.float32) / np.float32(FULL)).permute(2, 0, 1)[None]
