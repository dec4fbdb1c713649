# SPDX-License-Identifier: GPL-3.0-or-later
"""Two shots side by side: in what they differ, and a shot of every so manieth frame as one of all. No bpy."""

from __future__ import annotations

from typing import Any

from ..koshi_backend.models.registry import find_traits
from . import shot_fields
from .carried_shot import DEFAULTS

# What moves the picture by so much in a frame, and so not at all in the frames between; other values hold.
_STILL = {
    "zoom": 1.0, "angle": 0.0, "translation_x": 0.0, "translation_y": 0.0, "translation_z": 0.0, "rotation_3d_x": 0.0,
    "rotation_3d_y": 0.0, "rotation_3d_z": 0.0, "perspective_flip_theta": 0.0, "perspective_flip_phi": 0.0,
    "perspective_flip_gamma": 0.0,
}  # fmt: skip
_MEANT = {field: default for field, default in shot_fields.FIELDS.values()}
_WORDS = {
    "model": "model", "width": "width", "height": "height", "fps": "frame rate", "frame_start": "first frame",
    "frame_step": "frame step", "frames": "length", "seed": "seed", "steps": "steps", "prompts": "prompts",
    "motion.cameras": "the camera's motion", "motion.cuts": "cuts", "motion.source": "what moves the picture",
    "feedback.condition": "mode",
}  # fmt: skip


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """In what two shots differ, in words; empty if they make the same pictures."""
    names = sorted({*old["schedules"], *new["schedules"]})
    found = [name for name in names if _course(old, name) != _course(new, name)]
    before, now = _meant(old) | _leaves(old), _meant(new) | _leaves(new)
    for place in sorted({*before, *now}):
        if before.get(place, _MEANT.get(place)) != now.get(place, _MEANT.get(place)):
            found.append(_WORDS.get(place, place))
    return list(dict.fromkeys(found))


def unstepped(shot: dict[str, Any]) -> dict[str, Any]:
    """The same motion with a frame for every scene frame: it stands still but for the shot's own frames."""
    step = shot.get("frame_step", 1)
    if step == 1:
        return shot
    count = (shot["frames"] - 1) * step + 1
    out = {key: value for key, value in shot.items() if key != "frame_step"} | {"frames": count}

    def every(name: str, column: Any) -> Any:
        if name in _STILL and not isinstance(column, list) and column != _STILL[name]:
            column = [column] * shot["frames"]
        if not isinstance(column, list):
            return column
        if name in _STILL:
            return [column[k // step] if k % step == 0 else _STILL[name] for k in range(count)]
        return [column[k // step] for k in range(count)]

    out["schedules"] = {name: every(name, column) for name, column in shot["schedules"].items()}
    out["prompts"] = [_later(prompt, step, every) for prompt in shot["prompts"]]
    return out


def _later(prompt: dict[str, Any], step: int, every: Any) -> dict[str, Any]:
    frame = prompt.get("frame", 0)
    out = {**prompt, "frame": frame * step if isinstance(frame, int) else frame}
    return out | ({"weight": every("weight", prompt["weight"])} if "weight" in prompt else {})


def _course(shot: dict[str, Any], name: str) -> Any:
    traits = find_traits(shot.get("model", "koshi-tiny"))
    silent = {"seed": shot.get("seed", 0), "guidance": traits.guidance, "strength": traits.strength}
    value = shot["schedules"].get(name, silent.get(name, DEFAULTS.get(name)))
    if isinstance(value, list):
        return value
    return [value] * shot["frames"]


def _meant(shot: dict[str, Any]) -> dict[str, Any]:
    """What a shot means by what it does not say, beside the settings."""
    traits = find_traits(shot.get("model", "koshi-tiny"))
    condition = "both" if traits.references else "start"
    return {
        "model": "koshi-tiny", "width": 256, "height": 256, "fps": 24.0, "frame_start": 0, "frame_step": 1, "seed": 0,
        "steps": traits.steps, "feedback.condition": condition, "motion.source": "2d", "motion.cuts": [],
    }  # fmt: skip


def _leaves(table: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Everything a shot says but its schedules, by place."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if not place and name in ("schedules", "koshi", "strength_convention"):
            continue
        if isinstance(value, dict):
            found |= _leaves(value, f"{place}{name}.")
        else:
            found[place + name] = value
    return found
