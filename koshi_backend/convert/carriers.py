# SPDX-License-Identifier: GPL-3.0-or-later
"""How single settings get into a shot. Each takes (draft, key, value) and says where the value went."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..checks import MAX_FRAMES
from ..schedules import to_text
from ..seeds import BEHAVIORS, LARGEST, seed_path
from ..settings import MAX_SIDE
from . import grammar
from .carry_guided import match_to_file, pictured
from .carry_hybrid import take_film
from .draft import NONE, Draft, NotCarried, as_number

Carry = Callable[[Draft, str, Any], str]

# Depth models of webui and Forge that are published in transformers' layout, and the old names' nearest.
DEPTH_MODELS = {
    "midas-3-hybrid": "Intel/dpt-hybrid-midas",
    "midas-3.1-beitlarge": "Intel/dpt-beit-large-512",
    "depth-anything-v2-small": "depth-anything/Depth-Anything-V2-Small-hf",
}
FLOW_METHODS = {"raft": "raft", "dis medium": "dis_medium", "dis fine": "dis_fine", "farneback": "farneback"}
HYBRID_MOTIONS = {"optical flow": "flow", "affine": "affine", "perspective": "perspective"}


def curve(name: str) -> Carry:
    """A schedule that Koshi has under `name`, with the same values."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        schedule, values = draft.values(key, value)
        return draft.put_curve(name, key, schedule, values)

    return carry


def carry_strength(draft: Draft, key: str, value: Any) -> str:
    """The schedule of how much is made anew; at frame 0 the initial picture's own strength."""
    schedule, values = draft.values(key, value)
    if draft.keeps:
        schedule = grammar.turned(schedule, draft.frames, draft.seed)
        values = grammar.turned_values(values)
    first = as_number(draft.settings.get("strength"))
    if _begins_in_picture(draft) and first is not None and draft.dialect.name not in ("comfy", "koshi-flux"):
        first = min(max(1.0 - first if draft.keeps else first, 0.0), 1.0)
        if abs(first - values[0]) > 1e-9:
            values = [round(value, 12) for value in [first, *values[1:]]]
            schedule = to_text(values, 1e-9)
    return draft.put_curve("strength", key, schedule, values)


def _begins_in_picture(draft: Draft) -> bool:
    return bool(draft.shot.get("init_image")) or draft.shot.get("hybrid", {}).get("over") == "first"


def carry_init_strength(draft: Draft, key: str, value: Any) -> str:
    """Done with the schedule, whose first frame it is."""
    if not _begins_in_picture(draft):
        raise NotCarried("it belongs to the initial picture, which is not carried.")
    if as_number(value) is None:
        raise NotCarried("it is no number.")
    return "schedules.strength at frame 0"


def carry_init_image(draft: Draft, key: str, value: Any) -> str:
    draft.shot["init_image"] = draft.file(value)
    return "init_image"


def carry_mode(draft: Draft, key: str, value: Any) -> str:
    known = str(value).strip().lower()
    if draft.mode in ("Interpolation", "Video Input", "None"):
        draft.part("feedback")["carry"] = "none"  # nothing is made from the frame before
    if draft.mode == "Video Input":
        take_film(draft)
        draft.part("hybrid")["over"] = "every"
        return "hybrid.over"
    if known not in ("2d", "3d", "interpolation", "none"):
        raise NotCarried("Koshi has no such mode; it is read as 2D.")
    if draft.mode in ("Interpolation", "None"):
        return "feedback.carry"
    draft.part("motion")["source"] = draft.mode.lower()
    return "motion.source"


def carry_frames(draft: Draft, key: str, value: Any) -> str:
    number = as_number(value)
    if number is None or not 1 <= int(number) <= MAX_FRAMES:
        draft.report.leave(key, value, f"Koshi takes 1 to {MAX_FRAMES} frames; the shot has {draft.frames}.")
    elif draft.mode == "None":
        draft.report.leave(key, value, "without an animation there is one frame.")
    return "frames"


def carry_side(name: str) -> Carry:
    """Width or height, brought to a multiple of 16 within Koshi's range."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        number = as_number(value)
        if number is None:
            raise NotCarried("it is no number.")
        side = min(max(int(number) // 16 * 16, 64), MAX_SIDE)
        if side != number:
            draft.report.leave(key, value, f"sides are multiples of 16 from 64 to {MAX_SIDE}; the shot has {side}.")
        draft.shot[name] = side
        return name

    return carry


def carry_fps(draft: Draft, key: str, value: Any) -> str:
    number = as_number(value)
    if number is None or not 0.1 <= number <= 1000:
        raise NotCarried("Koshi takes 0.1 to 1000 frames a second.")
    draft.shot["fps"] = float(number)
    return "fps"


def carry_seed(draft: Draft, key: str, value: Any) -> str:
    number = as_number(value)
    if number is None or not 0 <= number <= LARGEST:
        draft.report.note(f"The seed {value!r} asks for a random one; the shot has {draft.seed}, drawn from the file.")
    return "seed"


def carry_behavior(draft: Draft, key: str, value: Any) -> str:
    behavior = str(value).strip().lower()
    if pictured(draft) and draft.settings.get("seed_schedule") is not None:
        behavior = "schedule"  # guided images switch it on there
    if behavior not in BEHAVIORS:
        raise NotCarried(f"Koshi has {', '.join(BEHAVIORS)}.")
    if behavior == "schedule":
        if draft.settings.get("seed_schedule") is None:
            raise NotCarried("there is no seed_schedule.")
        return "schedules.seed"
    draft.shot["seed_behavior"] = behavior
    return "seed_behavior"


def carry_iter_n(draft: Draft, key: str, value: Any) -> str:
    draft.shot["seed_iter_n"] = draft.whole(key, value, 1, 10**9)
    return "seed_iter_n"


def carry_subseed(draft: Draft, key: str, value: Any) -> str:
    """-1 is a random subseed; here one that follows from the shot's seed."""
    schedule, values = draft.values(key, value)
    if any(int(v) == -1 for v in values):
        path = seed_path("schedule", draft.seed + 1, draft.frames, 1, [max(v, -1.0) for v in values])
        schedule, values = [float(v) for v in path], [float(v) for v in path]
    return draft.put_curve("subseed", key, schedule, values)


def carry_subseed_strength(draft: Draft, key: str, value: Any) -> str:
    where = curve("subseed_strength")(draft, key, value)
    draft.part("feedback")["noise_mode"] = "subseed"
    return where


def carry_guidance(draft: Draft, key: str, value: Any) -> str:
    """Forge's FLUX is guided by another schedule, the distilled one; this is its second, real guidance."""
    if draft.dialect.name == "forge":
        raise NotCarried("Koshi's guidance is distilled_cfg_scale_schedule; a second one goes with base models only.")
    return curve("guidance")(draft, key, value)


def carry_steps(draft: Draft, key: str, value: Any) -> str:
    """One number for the shot: of a schedule, that of the first frame."""
    _, values = draft.values(key, value)
    steps = min(max(int(values[0]), 1), 1000)
    if len({int(v) for v in values}) > 1:
        draft.report.leave(key, value, f"Koshi has one number of steps for a shot: {steps}, the first frame's.")
    elif steps != int(values[0]):
        draft.report.leave(key, value, f"Koshi takes 1 to 1000 steps; the shot has {steps}.")
    draft.shot["steps"] = steps
    return "steps"


def carry_coherence(draft: Draft, key: str, value: Any) -> str:
    feedback = draft.part("feedback")
    word = str(value).strip().upper().removeprefix("MATCH FRAME 0").strip() or "LAB"
    if value in NONE or word == "NONE":
        feedback["color_mode"] = "none"
        return "feedback.color_mode"
    if word in ("IMAGE", "VIDEO INPUT"):
        feedback["color_mode"] = "none"
        return match_to_file(draft, word)
    if word not in ("LAB", "RGB", "HSV"):
        feedback["color_mode"] = "none"
        raise NotCarried(
            "colours can be matched to the first frame, to the frame before, to the prompt's own or to a picture's "
            "(feedback.color_reference)."
        )
    feedback["color_mode"], feedback["color_reference"] = word, "first"
    draft.shot["schedules"]["color_match"] = 1.0
    return "feedback.color_mode, color_reference, schedules.color_match"


def carry_noise_type(draft: Draft, key: str, value: Any) -> str:
    kind = {"uniform": "gaussian", "gaussian": "gaussian", "perlin": "perlin"}.get(str(value).strip().lower())
    if kind is None:
        raise NotCarried("Koshi has gaussian and perlin noise.")
    if kind == "perlin":
        draft.report.note("noise_type perlin is grain that comes in clouds there; Koshi's perlin is the clouds.")
    draft.part("feedback")["noise_type"] = kind
    return "feedback.noise_type"


def carry_noise_mode(draft: Draft, key: str, value: Any) -> str:
    if value not in ("fixed", "incremental", "slerp", "subseed"):
        raise NotCarried("Koshi has fixed, incremental, slerp and subseed, and more of its own.")
    draft.part("feedback")["noise_mode"] = value
    return "feedback.noise_mode"


def carry_number(part: str, name: str, low: float, high: float) -> Carry:
    """A number that stands in one of the shot's inner tables."""

    def carry(draft: Draft, key: str, value: Any) -> str:
        number = as_number(value)
        if number is None or not low <= number <= high:
            raise NotCarried(f"Koshi takes {low:g} to {high:g}.")
        draft.part(part)[name] = number
        return f"{part}.{name}"

    return carry


def carry_border(draft: Draft, key: str, value: Any) -> str:
    border = {"replicate": "replicate", "border": "replicate", "wrap": "wrap", "reflect": "reflect",
              "reflection": "reflect"}.get(str(value).strip().lower())  # fmt: skip
    if border is None:
        raise NotCarried("a border is replicate, wrap or reflect here.")
    draft.part("feedback")["border"] = border
    return "feedback.border"


def carry_depth(draft: Draft, key: str, value: Any) -> str:
    name = DEPTH_MODELS.get(str(value).strip().lower())
    if name is None:
        draft.part("depth")["source"] = "model"
        raise NotCarried(
            "Koshi's depth models are Depth Anything and DPT (MiDaS); the shot takes Depth Anything V2 Small. "
            "Blender's own depth is exact: depth.source files."
        )
    draft.part("depth").update(source="model", model=name)
    draft.report.note(f"Depth is estimated by {name}, which is fetched once; depth.source plane needs no model.")
    return "depth.source, depth.model"


def carry_hybrid_motion(draft: Draft, key: str, value: Any) -> str:
    source = HYBRID_MOTIONS.get(str(value).strip().lower())
    if source is None:
        raise NotCarried("Koshi follows a film by flow, affine or perspective.")
    if draft.mode != "2D":
        raise NotCarried("a film's motion goes with the curves of 2D here, not with those of 3D.")
    take_film(draft)
    draft.part("motion")["source"] = source
    return "motion.source"


def carry_film(draft: Draft, key: str, value: Any) -> str:
    if draft.part("guides").get("video") is None and draft.shot.get("color_image"):
        return "color_image"
    if draft.part("guides").get("video") is None:
        raise NotCarried("there is nothing that follows this film: see hybrid_motion and animation_mode.")
    return "guides.video"


def carry_flow_method(draft: Draft, key: str, value: Any) -> str:
    method = FLOW_METHODS.get(str(value).strip().lower())
    if method is None:
        raise NotCarried(f"Koshi has {', '.join(FLOW_METHODS)}.")
    draft.part("motion")["flow_method"] = method
    return "motion.flow_method"


def carry_flow_factor(draft: Draft, key: str, value: Any) -> str:
    _, values = draft.values(key, value)
    factor = min(max(values[0], -10.0), 10.0)
    if any(not math.isclose(v, factor, abs_tol=1e-9) for v in values):
        draft.report.leave(key, value, f"Koshi has one factor for a shot: {factor:g}, the first frame's.")
    draft.part("motion")["flow_factor"] = factor
    return "motion.flow_factor"
