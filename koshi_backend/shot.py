# SPDX-License-Identifier: GPL-3.0-or-later
"""The Shot: one description of one animation, as a versioned JSON document.

Everything that Koshi renders enters here, from Blender, the command line, Python or a farm. The document is
checked once, on entry; every fault is listed with its field, frame and value.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from .checks import (
    MAX_FRAMES,
    check_files,
    check_schedules,
    explain,
    resolve_length,
    resolve_model,
    turn_strength,
)
from .errors import KoshiError, problem, raise_problems
from .guided_checks import check_guided, guided_tables
from .guides import frame_file
from .hybrid_checks import check_hybrid, check_video, resolve_hybrid
from .lora.uses import LoraUse, check_loras
from .mask_checks import check_mask
from .mask_words import EVERYWHERE, Place, read_place, rename_words
from .motion_checks import check_motion
from .prompts import Track, check_prompts, resolve_prompts
from .schedules import evaluate, evaluate_texts
from .seeds import BEHAVIORS, seed_path
from .settings import (
    GUIDE_FILES,
    SCHEDULES,
    STRICT,
    Depth,
    Feedback,
    GuidedImage,
    Guides,
    Hybrid,
    Masking,
    Motion,
    Prompt,
    Side,
    Time,
    per_frame,
)
from .time_checks import check_time
from .timing import Spot, drawn, film, film_length, made_frames, seam_start


class Shot(BaseModel):
    """A whole animation. Build one with `load_shot`, which explains what is wrong in plain words.

    guided_images, guided_as: pictures that frames are drawn towards, by the schedule `guided` (guided.py).
    color_image, color_every: for color_reference "image": a picture, numbered pictures or a video, looked at anew in
        every so manieth frame.
    """

    model_config = STRICT
    koshi: Literal[1] = 1
    model: str = "koshi-tiny"
    width: Side = 256
    height: Side = 256
    fps: Annotated[float, Field(ge=0.1, le=1000)] = 24.0
    frame_start: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    frame_step: Annotated[int, Field(ge=1, le=100_000)] = 1
    frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)]
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    steps: Annotated[int, Field(ge=1, le=1000)]
    time_rounding: Literal["exact", "bfl", "diffusers"] = "exact"
    prompts: Annotated[list[Prompt], Field(min_length=1)]
    schedules: dict[str, float | str | list[float] | dict[str, str]] = {}
    seed_behavior: Literal[BEHAVIORS] = "fixed"  # type: ignore[valid-type]
    seed_iter_n: Annotated[int, Field(ge=1)] = 1
    feedback: Feedback = Feedback()
    motion: Motion = Motion()
    depth: Depth = Depth()
    guides: Guides = Guides()
    hybrid: Hybrid = Hybrid()
    time: Time = Time()
    masking: Masking = Masking()
    guided_images: list[GuidedImage] = []
    guided_as: Literal["mixed", "shown", "both"] = "mixed"
    color_image: Annotated[str, Field(min_length=1)] | None = None
    color_every: Annotated[int, Field(ge=1)] = 1
    loras: Annotated[list[LoraUse], Field(max_length=32)] = []
    init_image: str | None = None
    audio: str | None = None
    strength_convention: Literal["denoise"] = "denoise"

    @cached_property
    def _given(self) -> dict[str, list[float]]:
        """The schedules that the document names, at every frame."""
        given = {
            name: evaluate(schedule, self.frames, seed=self.seed) for name, schedule in self.schedules.items()
        }
        for name in self.motion.absolute:
            if name in given:
                given[name] = per_frame(name, given[name], self.time.loop == "seamless")
        return given

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Every schedule's value at every frame, defaults included; of absolute curves, the move into each frame.

        `strength` is `keyframe_strength` at keyframes, and falls by half over a seam. `seed` is what the schedule says,
        else the path that seed_behavior takes from the shot's seed, which counts the frames that are made.
        """
        values = {name: [spec.default] * self.frames for name, spec in SCHEDULES.items()} | self._given
        strength, anew = values["strength"], values["keyframe_strength"]
        if self.keyframes:
            strength = [anew[k] if k in self.keyframes else strength[k] for k in range(self.frames)]
        if self.seam < self.frames:
            # Frame 0 follows the last frame as it is: the less is made anew there, the smaller is that step.
            strength = [strength[k] * (1.0 - 0.5 * drawn(k, self.seam, self.frames)) for k in range(self.frames)]
        values["strength"] = strength
        if "seed" in self._given:
            path = seed_path("schedule", self.seed, self.frames, self.seed_iter_n, self._given["seed"])
        else:
            of_made = seed_path(self.seed_behavior, self.seed, len(self.made), self.seed_iter_n)
            lengths = [after - k for k, after in zip(self.made, [*self.made[1:], self.frames], strict=True)]
            path = [seed for seed, length in zip(of_made, lengths, strict=True) for _ in range(length)]
        return values | {"seed": [float(seed) for seed in path]}

    @cached_property
    def made(self) -> list[int]:
        """The frames that the model makes, in order. The others lie between two of them."""
        cadence = self._given.get("cadence", [1.0] * self.frames)
        return made_frames(self.frames, cadence, self.keyframes, self._cuts)

    @cached_property
    def keyframes(self) -> frozenset[int]:
        """The frames that are made with keyframe_strength. One that begins anew is none."""
        asked = self.time.keyframes
        found = {*asked.frames, *(range(asked.every, self.frames, asked.every) if asked.every else ())}
        if asked.prompts:
            found |= {prompt.frame for prompt in self.prompts}
        return frozenset(k for k in found if k < self.frames and not self.begins(k))

    def before(self, index: int) -> int:
        """The made frame that a frame is made from; of frame 0, itself."""
        return self.made[max(bisect.bisect_left(self.made, index) - 1, 0)]

    def preceding(self, index: int) -> int:
        """The frame that the move into a frame begins at: the one before it; of frame 0, in a loop, the last one."""
        return index - 1 if index else self.frames - 1

    @property
    def seam(self) -> int:
        """The first frame that a seamless loop draws towards frame 0; without one, the shot's length."""
        if self.time.loop != "seamless":
            return self.frames
        return seam_start(self.frames, self.time.seam, self._cuts)

    @property
    def film(self) -> Iterator[Spot]:
        """All that comes out, picture by picture."""
        return film(self.frames, self.made, self._cuts, self.time.loop, self.time.interpolation)

    @property
    def film_frames(self) -> int:
        """How many pictures come out."""
        return film_length(self.frames, self.time.loop, self.time.interpolation)

    @property
    def film_rate(self) -> float:
        """How many of them are shown a second."""
        return self.fps * self.time.interpolation

    def film_number(self, index: int) -> int:
        """The number in file names of the picture that comes out as number `index`, from 0: from frame_start on, one by
        one where there are pictures between frames."""
        return self.frame_start + index * (self.frame_step if self.time.interpolation == 1 else 1)

    def loras_at(self, index: int) -> list[tuple[str, float]]:
        """The LoRAs of a frame, as files and weights, in the document's order; none whose weight is 0."""
        return [(lora.file, values[index]) for lora, values in self.lora_weights if values[index] != 0.0]

    @cached_property
    def lora_files(self) -> list[str]:
        """Those of the LoRAs that have a weight in any frame."""
        return [lora.file for lora, values in self.lora_weights if any(values)]

    @cached_property
    def lora_weights(self) -> list[tuple[LoraUse, list[float]]]:
        """The LoRAs, each with its weight at every frame."""
        return [(lora, evaluate(lora.weight, self.frames, seed=self.seed)) for lora in self.loras]

    @cached_property
    def texts(self) -> Track:
        """The prompts, frame by frame."""
        return Track(self.prompts, self.frames, self.seed)

    def number(self, index: int) -> int:
        """The number of a frame in file names and in Blender."""
        return self.frame_start + index * self.frame_step

    def begins(self, index: int) -> bool:
        """Whether a frame is made without one before it: frame 0, and the frames of `motion.cuts`."""
        return index == 0 or index in self._cuts

    def start_of(self, index: int) -> str | None:
        """The picture that a frame is painted over, if it is one that begins: `init_image`'s, after a cut only where
        its name has #### in it."""
        given = self.init_image
        if given is None or not self.begins(index) or (index > 0 and "#" not in Path(given).name):
            return None
        return str(frame_file(given, self.number(index)))

    def begins_in_video(self, index: int) -> bool:
        """Whether a frame is painted over the video's own: see Hybrid.over."""
        return self.hybrid.over == "every" or (self.hybrid.over == "first" and self.begins(index))

    def video_frame(self, index: int) -> int:
        """The frame of guides.video, from 0, that belongs to a frame of the shot."""
        return self.guides.video_first + index * self.guides.video_every

    def video_file(self, index: int) -> Path:
        """The file in which that frame is."""
        return frame_file(self.guides.video or "", self.number(self.video_frame(index)))

    def guided_at(self, index: int) -> str | None:
        """The guided picture in force at a frame: the last one that begins there or before."""
        begun = [(one.frame, k) for k, one in enumerate(self.guided_images) if one.frame <= index]
        return self.guided_images[max(begun)[1]].image if begun else None

    def mask_at(self, index: int) -> Place | None:
        """What a frame's mask is, in words; None without one, or where it hides nothing."""
        if self._where is not None:
            whole = self._where[index] == EVERYWHERE and not self.masking.invert and self.masking.brightness >= 1.0
            return None if whole else self._where[index]
        if self.masking.alpha:
            return Place("init_mask")
        return None if self.guides.mask is None else Place("video_mask")

    def noise_mask_at(self, index: int) -> Place | None:
        """Where noise is added to a frame's picture, in words; None for everywhere."""
        return None if self._noisy is None or self._noisy[index] == EVERYWHERE else self._noisy[index]

    @cached_property
    def _where(self) -> list[Place] | None:
        return self._places(self.masking.where)

    @cached_property
    def _noisy(self) -> list[Place] | None:
        return self._places(self.masking.noise)

    def _places(self, words: str | None) -> list[Place] | None:
        if words is None:
            return None
        texts = evaluate_texts(words, self.frames, seed=self.seed)
        known = {text: read_place(text) for text in set(texts)}
        return [known[text] for text in texts]

    def scene_of(self, index: int) -> int:
        """The frame that begins the scene which a frame is in: 0, or the last cut."""
        return max((k for k in self._cuts if k <= index), default=0)

    @cached_property
    def _cuts(self) -> frozenset[int]:
        return frozenset(self.motion.cuts)

    def as_dict(self) -> dict[str, Any]:
        """The JSON document, defaults written out."""
        return self.model_dump(mode="json")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical document: two shots with the same digest are the same animation."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_shot(data: object) -> Shot:
    """Check a JSON document and make it a Shot.

    A document with `"strength_convention": "deforum"` has its strengths turned round (1 - s); one with `frame_end`
    instead of `frames` gets its length from it; missing steps are the model's own.
    Raises KoshiError("bad_shot") that lists every fault.
    """
    if not isinstance(data, dict):
        raise KoshiError("bad_shot", f"A shot is a JSON object, not {type(data).__name__}.")
    faults: list[dict[str, Any]] = []
    draft = dict(data)
    if isinstance(draft.get("koshi"), bool):
        draft["koshi"] = str(draft["koshi"])  # true is not version 1
    resolve_length(draft, faults)
    resolve_model(draft, faults)
    turn_strength(draft, faults)
    resolve_prompts(draft, faults)
    resolve_hybrid(draft)
    check_files(draft, faults)
    shot: Shot | None = None
    try:
        shot = Shot.model_validate(draft)
    except ValidationError as error:
        named = {f["field"] for f in faults}
        found = [explain(e, Shot.model_fields) for e in error.errors()]
        faults += [f for f in found if f["field"] not in named]
    check_schedules(draft, faults)
    check_prompts(draft, faults)
    check_loras(draft, faults)
    check_motion(draft, faults)
    check_time(draft, faults)
    check_guided(draft, faults)
    check_mask(draft, faults)
    check_hybrid(draft, faults)
    _check_seeds(draft, faults)
    if shot is not None and not faults:
        check_video(shot, faults)
    raise_problems("bad_shot", "This shot", faults)
    assert shot is not None  # without faults the validation above has succeeded
    return shot


def read_shot(path: Path | str) -> Shot:
    """Load a .koshi.json file; relative init_image, audio and guides are looked for beside it.

    Raises KoshiError("bad_shot") also for a missing file or broken JSON.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KoshiError("bad_shot", f"The shot {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise KoshiError("bad_shot", f"The shot {path} is not text in UTF-8.") from error
    except ValueError as error:
        raise KoshiError("bad_shot", f"{str(path)!r} is not a path.") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise KoshiError(
            "bad_shot",
            f"The shot {path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise KoshiError("bad_shot", f"The shot {path} holds JSON that no shot would: {error}.") from error
    if isinstance(data, dict):
        _find_beside(path.parent, data, ("init_image", "audio", "color_image"))
        for lora in data["loras"] if isinstance(data.get("loras"), list) else ():
            if isinstance(lora, dict):
                _find_beside(path.parent, lora, ("file",))
        for one in guided_tables(data):
            _find_beside(path.parent, one, ("image",))
        if isinstance(guides := data.get("guides"), dict):
            _find_beside(path.parent, guides, GUIDE_FILES)
        if isinstance(time := data.get("time"), dict):
            _find_beside(path.parent, time, ("rife",))
        if isinstance(masking := data.get("masking"), dict):
            rename_words(masking, lambda name: str(path.parent / Path(name)))
    return load_shot(data)


def _find_beside(folder: Path, table: dict[str, Any], names: tuple[str, ...]) -> None:
    """File names in a shot file are meant relative to it; absolute ones stay what they are."""
    for name in names:
        if isinstance(file := table.get(name), str) and file:
            table[name] = str(folder / Path(file))


def _check_seeds(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Whether the path of seeds stays in range; only for a document that has no other fault."""
    if faults:
        return
    try:
        _ = Shot.model_validate(draft).values
    except KoshiError as error:
        faults.append(problem("seed", error.message, error.hint, value=draft.get("seed")))
