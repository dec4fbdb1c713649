# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scene's shot takes from films, pictures and LoRAs: the parts that are more than a word of shot_fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..bridge_server.protocol import BridgeError
from ..koshi_backend.errors import KoshiError
from ..koshi_backend.schedules import Key, ParsedSchedule, ScheduleError, evaluate_texts
from ..koshi_backend.seeds import seed_path
from . import markers, prompt_text, shot_fields, values

if TYPE_CHECKING:
    from .scene_values import Samples

# What only painting needs; the motion alone does without.
_PAINTING = ("hybrid", "masking", "guided_images", "guided_as", "color_image", "color_every", "loras")


def weights(settings: Any) -> list[str]:
    """The LoRAs' weights that are sampled frame by frame, by their paths."""
    return [_weight(k) for k, lora in enumerate(settings.loras) if counts(lora)]


def counts(lora: Any) -> bool:
    """Whether the model wears this LoRA."""
    return lora.use and bool(lora.file.strip())


def add(shot: dict[str, Any], scene: bpy.types.Scene, samples: Samples, ahead: int, painted: bool) -> None:
    """Add them to a shot that has all else. ahead: how many of the scene's frames come before the shot's first one.
    painted: whether a model will paint, or the motion alone is looked at."""
    settings = scene.koshi
    if shot_fields.is_painted_over(settings) and settings.hybrid_over == "every":
        shot["feedback"]["carry"] = "none"  # each frame begins in the film's
    if settings.mask_source == 'ALPHA':
        shot_fields.place(shot, "masking.alpha", True)
    for where in (shot_fields.FIELDS[name][0] for name in shot_fields.WORDS):
        if words := shot_fields.find(shot, where):
            shot_fields.place(shot, where, _mask_words(words, ahead, len(samples.frames), shot["seed"]))
    if listed := guided(settings, samples):
        shot["guided_images"] = listed
    else:  # there are none, or all are off the timeline
        shot.pop("guided_as", None)
        shot["schedules"].pop("guided", None)
    if loras := worn(settings, samples):
        shot["loras"] = loras
    if ahead:
        _go_on_with_video(shot, ahead)
    if not painted:
        mixed = settings.video_source == 'FILE' and _mixes_without_model(shot)  # another one would be rendered first
        for name in _PAINTING:
            if name != "hybrid" or not mixed:
                shot.pop(name, None)
        if not mixed and shot.get("motion", {}).get("source") not in shot_fields.FOLLOWERS.values():
            for name in [name for name in shot.get("guides", {}) if name.startswith("video")]:
                del shot["guides"][name]
        if shot.get("motion", {}).get("source") not in ("camera", "3d"):
            shot.get("guides", {}).pop("depth", None)  # it would be for a mask that is not looked at


def _mixes_without_model(shot: dict[str, Any]) -> bool:
    """Whether a film is mixed in, by a mask that needs no depth: the motion preview shows that, too."""
    hybrid = shot.get("hybrid", {})
    by_depth = hybrid.get("mask", "none") in ("depth", "video_depth")
    return bool(shot.get("guides", {}).get("video")) and hybrid.get("composite", "none") != "none" and not by_depth


def guided(settings: Any, samples: Samples) -> list[dict[str, Any]]:
    """Guided pictures, counted from the shot's first frame; the last one before it is in force there."""
    begins: dict[int, str] = {}
    begin = sorted((frame, k) for k, one in enumerate(settings.guided_images) for frame in markers.frames_of(one))
    for frame, k in begin:
        one, index = settings.guided_images[k], max(-((samples.first - frame) // samples.step), 0)
        if one.image.strip() and index < len(samples.frames):
            begins[index] = bpy.path.abspath(one.image.strip())
    return [{"frame": index, "image": image} for index, image in begins.items()]


def worn(settings: Any, samples: Samples) -> list[dict[str, Any]]:
    """LoRAs with their weights, frame by frame; those that are switched off are left out."""
    found = []
    for k, lora in enumerate(settings.loras):
        if counts(lora):
            column = [values.rounded(value) for value in samples.table[_weight(k)][:: samples.step]]
            found.append({"file": bpy.path.abspath(lora.file.strip()), "weight": prompt_text.short(column)})
    return found


def go_on_with_seeds(shot: dict[str, Any], ahead: int) -> None:
    """Seeds that go on by themselves, in a shot of a part of the scene: as if counted from the scene's first frame, as
    long as every frame is made. Raises BridgeError "bad_shot"."""
    behavior, every = shot.pop("seed_behavior", "fixed"), shot.pop("seed_iter_n", 1)
    if behavior == "fixed":
        return
    try:
        path = seed_path(behavior, shot["seed"], ahead + shot["frames"], every)[ahead:]
    except KoshiError as error:
        raise BridgeError("bad_shot", error.message, error.hint) from error
    shot["seed"], shot["schedules"]["seed"] = path[0], prompt_text.short([float(seed) for seed in path])


def _mask_words(words: str, ahead: int, frames: int, seed: int) -> str:
    """A mask in words, of a part of the scene as of the whole; its files as they are named absolutely."""
    if ahead > 0:
        try:
            texts = evaluate_texts(words, ahead + frames, seed=seed)[ahead:]
        except ScheduleError:
            return words  # the backend says what is wrong
        begins = [k for k in range(len(texts)) if k == 0 or texts[k] != texts[k - 1]]
        words = str(ParsedSchedule(tuple(Key(k, texts[k]) for k in begins)))
    return shot_fields.with_files(words, bpy.path.abspath)


def _go_on_with_video(shot: dict[str, Any], ahead: int) -> None:
    """Let the film of a shot of a part of the scene be where it is in the whole. Numbered pictures have the frame's own
    number anyway."""
    guides = shot.get("guides", {})
    every = guides.get("video_every", 1)
    names = [guides.get("video"), guides.get("mask"), shot.get("color_image")]
    film = next((name for name in names if name), "")
    further = ahead * (every if film.lower().endswith(shot_fields.VIDEOS) else every - 1)
    if further:
        guides["video_first"] = guides.get("video_first", 0) + further
        shot["guides"] = guides


def _weight(index: int) -> str:
    return f"loras[{index}].weight"
