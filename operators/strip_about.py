# SPDX-License-Identifier: GPL-3.0-or-later
"""What a take's strip says of itself: custom properties, which Blender saves and copies with the strip.

The shot itself lies beside the frames. What only Blender knows of it (a camera, a collection) is in `SIDE`.
"""

from __future__ import annotations

from typing import Any

import bpy

MODEL = "koshi_model"
SEED = "koshi_seed"
PROMPT = "koshi_prompt"
SIDE = "koshi_scene"  # as `scene_side` gives it
LARGEST = 2**31 - 1  # of a whole number in a custom property


def told(shot: dict[str, Any], side: dict[str, str] | None = None) -> dict[str, Any]:
    """The custom properties of a strip that shows this shot."""
    seed = int(shot.get("seed", 0))
    about: dict[str, Any] = {
        MODEL: str(shot.get("model", "koshi-tiny")),
        SEED: seed if seed <= LARGEST else str(seed),
        PROMPT: prompt_of(shot),
    }
    return about | ({SIDE: side} if side else {})


def prompt_of(shot: dict[str, Any]) -> str:
    """A shot's prompts in one text: of several each in a line of its own, after the number of its frame."""
    prompts = [prompt for prompt in shot.get("prompts", ()) if isinstance(prompt, dict)]
    if len(prompts) < 2:
        return str(prompts[0].get("text", "")) if prompts else ""
    first, step = shot.get("frame_start", 0), shot.get("frame_step", 1)

    def number(frame: Any) -> Any:
        return first + frame * step if isinstance(frame, int) else frame

    return "\n".join(f"{number(prompt.get('frame', 0))}: {prompt.get('text', '')}" for prompt in prompts)


def scene_side(scene: bpy.types.Scene) -> dict[str, str]:
    """What of a scene a shot cannot say: what it takes from the scene itself, by the names there."""
    settings = scene.koshi
    names = ("start", "structure", "video_source", "depth_source")
    side = {name: str(getattr(settings, name)) for name in names if hasattr(settings, name)}
    side["mask"] = settings.mask.name if settings.mask is not None else ""
    side["camera"] = scene.camera.name if scene.camera is not None else ""
    return side


def write(strip: Any, about: dict[str, Any]) -> None:
    """Give a strip these custom properties, and take from it those that are not among them."""
    for name in (MODEL, SEED, PROMPT, SIDE):
        if name in about:
            strip[name] = about[name]
        elif name in strip:
            del strip[name]


def read(strip: Any) -> dict[str, Any]:
    """A strip's properties, as `write` takes them."""
    found = {name: strip[name] for name in (MODEL, SEED, PROMPT) if name in strip}
    side = strip.get(SIDE)
    return found | ({SIDE: dict(side.items())} if side is not None else {})
