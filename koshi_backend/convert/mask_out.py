# SPDX-License-Identifier: GPL-3.0-or-later
"""A shot's masks as webui's settings, in words too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import KoshiError
from ..mask_words import Place, read_place, without
from ..schedule_text import parse_texts
from ..schedules import evaluate_texts
from ..video_reader import READABLE
from .leftover import Outgoing

_VIDEO, _ALPHA = Place("video_mask"), Place("init_mask")


def write_mask(way: Outgoing, settings: dict[str, Any]) -> None:
    """The mask, what is made of it, and where noise is added."""
    shot, masking = way.shot, way.shot.masking
    if shot.guides.mask is None and not (masking.alpha or masking.where or masking.noise):
        return
    placed = _write_files(way, settings)
    if masking.where is not None and placed:
        placed = _write_words(way, settings, "where", "mask_schedule", turned=False)
    painted = placed and (masking.where or masking.alpha or shot.guides.mask) is not None
    if painted:
        _write_masking(way, settings)
    noisy = any(value > 0.0 for value in way.values["noise"])
    if masking.noise is not None and _write_words(way, settings, "noise", "noise_mask_schedule", masking.invert):
        settings["use_noise_mask"] = True
    elif noisy and painted and masking.noise is None:  # webui would add none where the mask is black
        settings["use_noise_mask"], settings["noise_mask_schedule"] = True, '0: ("{everywhere}")'


def _write_files(way: Outgoing, settings: dict[str, Any]) -> bool:
    """What {video_mask} and {init_mask} are; False if webui cannot be told."""
    masking, name = way.shot.masking, way.shot.guides.mask
    asked = _leaves(masking.where) | _leaves(masking.noise)
    if masking.alpha or _ALPHA in asked:
        if settings["use_looper"]:
            field = "masking.alpha" if masking.alpha else "masking.where"
            way.leave(field, "with guided images webui takes the first one's alpha channel.")
            return False
        settings["use_alpha_as_mask"] = True
        if masking.alpha:
            way.carry("use_alpha_as_mask", "masking.alpha")
    if name is None:
        return True
    if Path(name).suffix.lower() in READABLE:
        settings["use_mask_video"], settings["video_mask_path"] = True, way.file("guides.mask")
        way.carry("video_mask_path", "guides.mask")
    elif "#" in Path(name).name or Path(name).suffix.lower() == ".exr":
        way.leave("guides.mask", "webui reads one picture, or a video: make a video of the masks.")
        return False
    else:
        settings["mask_file"] = way.file("guides.mask")
        way.carry("mask_file", "guides.mask")
    return True


def _write_words(way: Outgoing, settings: dict[str, Any], name: str, key: str, turned: bool) -> bool:
    """A schedule of words; False if webui has no words for it."""
    field, words = f"masking.{name}", getattr(way.shot.masking, name)
    texts = evaluate_texts(words, way.shot.frames, seed=way.shot.seed)
    still = way.shot.guides.mask is not None and not settings["use_mask_video"]

    def theirs(leaf: Place) -> Place:
        if leaf == _VIDEO and still:
            # Where the alpha channel is {init_mask}, the mask file can be named only as a file.
            return Place("file", file=settings["mask_file"]) if settings["use_alpha_as_mask"] else _ALPHA
        return Place("file", file=way.place(leaf.file)) if leaf.op == "file" else leaf

    keys: list[str] = []
    for frame, text in enumerate(texts):
        if frame and text == texts[frame - 1]:
            continue
        place = read_place(text)
        files = [leaf.file for leaf in place.leaves() if leaf.op == "file"]
        if any("#" in Path(file).name or Path(file).suffix.lower() in (*READABLE, ".exr") for file in files):
            way.leave(field, "webui reads single pictures in brackets: make one mask video of all.")
            return False
        said = str(without(place.replaced(theirs)) if turned else place.replaced(theirs))
        if any(mark in said for mark in "\"',:"):
            way.leave(field, "webui reads no commas, colons and quotes in its masks.")
            return False
        try:
            read_place(said)  # turned round it has a mark more, and would not come back
        except KoshiError as error:
            way.leave(field, f"{error.message} {error.hint}")
            return False
        keys.append(f'{frame}: ("{said}")')
    settings[key] = ", ".join(keys)
    way.carry(key, field)
    return True


def _write_masking(way: Outgoing, settings: dict[str, Any]) -> None:
    """What is made of the mask."""
    masking = way.shot.masking
    settings.update(use_mask=True, invert_mask=masking.invert, mask_overlay_blur=masking.blur, full_res_mask=False,
                    mask_brightness_adjust=masking.brightness, mask_contrast_adjust=masking.contrast)  # fmt: skip
    for field, key in (("invert", "invert_mask"), ("blur", "mask_overlay_blur")):
        way.carry(key, f"masking.{field}")
    for field in ("brightness", "contrast"):
        way.carry(f"mask_{field}_adjust", f"masking.{field}")
    if way.moves("mask"):
        way.leave("schedules.mask", "webui's mask counts wholly in every frame.")
    if {masking.brightness, masking.contrast} != {1.0}:
        way.report.note("webui takes mask_contrast_adjust for the brightness, and mask_brightness_adjust for contrast.")


def _leaves(words: str | None) -> set[Place]:
    """The names and files in a schedule of words."""
    if words is None:
        return set()
    return {leaf for key in parse_texts(words).keys for leaf in read_place(str(key.value)).leaves()}
