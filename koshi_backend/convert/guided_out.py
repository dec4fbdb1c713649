# SPDX-License-Identifier: GPL-3.0-or-later
"""Guided images and colours of files as webui's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..video_reader import READABLE
from . import grammar
from .leftover import Outgoing


def write_guided(way: Outgoing, settings: dict[str, Any]) -> None:
    """Guided images, their strength and share. The strengths and seeds are in the settings already."""
    shot = way.shot
    if not shot.guided_images or settings["animation_mode"] not in ("2D", "3D"):
        return
    pictures = sorted(shot.guided_images, key=lambda one: one.frame)
    if shot.guided_as == "shown":
        way.leave("guided_images", "webui mixes guided images into the picture, and shows them to no model.")
        return
    if shot.guided_as == "both":
        way.leave("guided_as", "webui mixes guided images into the picture, and shows them to no model.")
    else:
        way.carry("use_looper", "guided_as")
    settings["use_looper"] = True
    settings["init_images"] = json.dumps({str(one.frame): way.place(one.image) for one in pictures})
    settings["image_strength_schedule"] = settings["strength_schedule"]
    given = shot.schedules.get("guided")
    settings["blendFactorMax"] = grammar.to_deforum(given, way.values["guided"], shot.frames)
    settings["blendFactorSlope"] = "0: (0)"
    settings["tweening_frames_schedule"] = f"0: ({shot.frames})"  # so that the share is the maximum in every frame
    way.carry("image_strength_schedule", "schedules.strength")
    way.carry("blendFactorMax", "schedules.guided")
    if len({one.frame for one in pictures}) < len(pictures) or pictures[0].frame > 0:
        way.leave("guided_images", "webui begins with the first guided image at frame 0, and has one for a frame.")
    else:
        way.carry("init_images", "guided_images")
    if shot.init_image is not None:
        way.leave("init_image", "webui begins with the first guided image.")


def write_file_colours(way: Outgoing, settings: dict[str, Any], matched: bool) -> bool:
    """Colours that are matched to a picture, a video or the guided images; False where they are to something else.

    matched: whether color_match is 1 in every frame.
    """
    shot, feedback = way.shot, way.shot.feedback
    if feedback.color_reference == "guided" and shot.guided_images and shot.guided_as != "shown":
        settings["color_coherence"] = "None"
        given = shot.schedules.get("color_match")
        settings["color_correction_factor"] = grammar.to_deforum(given, way.values["color_match"], shot.frames)
        way.carry("color_correction_factor", "schedules.color_match", "feedback.color_reference")
        _in_lab(way)
        return True
    if feedback.color_reference != "image" or shot.color_image is None:
        return False
    name = Path(shot.color_image)
    if "#" in name.name:
        way.leave("color_image", "webui matches colours to one picture, or to the video.")
        return False
    if name.suffix.lower() in READABLE:
        if shot.guides.video not in (None, shot.color_image):
            way.leave("color_image", "webui matches colours to video_init_path, which is another video here.")
            return False
        settings.update(color_coherence="Video Input", video_init_path=way.file("color_image"),
                        color_coherence_video_every_N_frames=shot.color_every)  # fmt: skip
        way.carry("video_init_path", "color_image")
        way.carry("color_coherence_video_every_N_frames", "color_every")
    else:
        settings.update(color_coherence="Image", color_coherence_image_path=way.file("color_image"))
        way.carry("color_coherence_image_path", "color_image")
    way.carry("color_coherence", "feedback.color_reference")
    _in_lab(way)
    if matched:
        way.carry("color_coherence", "schedules.color_match")
    else:
        way.leave("schedules.color_match", "webui matches colours wholly.")
    return True


def _in_lab(way: Outgoing) -> None:
    if way.shot.feedback.color_mode == "LAB":
        way.carry("color_coherence", "feedback.color_mode")
    else:
        way.leave("feedback.color_mode", "webui matches colours to a picture in LAB.")
