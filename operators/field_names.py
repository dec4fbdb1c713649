# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shot's fields are called where an artist finds them: the backend names the fields, Blender shows the words.

No bpy.
"""

from __future__ import annotations

import re
from typing import Any

_MOTION, _FEEDBACK, _TIME = "Motion", "Feedback", "Time"
_COLOURS, _NOISE = "Colors and Detail", "Noise"
# Panel and name. An entry with a dot at its end stands for all that begin so and have none of their own.
TITLES = {
    "model": ("Koshi", "Model"),
    "width": ("Output Properties", "Resolution X"),
    "height": ("Output Properties", "Resolution Y"),
    "fps": ("Output Properties", "Frame Rate"),
    "frames": ("Output Properties", "Frame Range"),
    "frame_start": ("Output Properties", "Frame Start"),
    "frame_end": ("Output Properties", "Frame End"),
    "frame_step": ("Output Properties", "Frame Step"),
    "seed": (_FEEDBACK, "Seed"),
    "steps": (_FEEDBACK, "Steps"),
    "seed_behavior": (_FEEDBACK, "Seeds"),
    "seed_iter_n": (_FEEDBACK, "After Frames"),
    "time_rounding": (_FEEDBACK, "Time Rounding"),
    "prompts": ("Prompts", ""),
    "init_image": (_MOTION, "Picture"),
    "audio": (_TIME, "Sound"),
    "guided_images": ("Guided Pictures", ""),
    "guided_as": ("Guided Pictures", "How"),
    "color_image": (_COLOURS, "Picture"),
    "color_every": (_COLOURS, "Look Every"),
    "loras": ("LoRAs", ""),
    "feedback.": (_FEEDBACK, ""),
    "feedback.carry": (_FEEDBACK, "Carry"),
    "feedback.condition": (_FEEDBACK, "Mode"),
    "feedback.border": (_MOTION, "Border"),
    "feedback.color_mode": (_COLOURS, "Colors"),
    "feedback.color_reference": (_COLOURS, "Reference"),
    "feedback.noise_": (_NOISE, ""),
    "motion.": (_MOTION, "Source"),
    "motion.flow_method": (_MOTION, "Method"),
    "motion.flow_factor": (_MOTION, "Factor"),
    "depth.": (_MOTION, "Depth"),
    "depth.model": (_MOTION, "Depth Model"),
    "depth.nearest": (_MOTION, "Nearest"),
    "depth.farthest": (_MOTION, "Farthest"),
    "guides.depth": (_MOTION, "Depth Files"),
    "guides.vector": (_MOTION, "Source"),
    "guides.vector_seen": (_MOTION, "Source"),
    "guides.video": ("Video", "File"),
    "guides.video_first": ("Video", "First"),
    "guides.video_every": ("Video", "Every"),
    "guides.video_last": ("Video", "Last"),
    "guides.structure": (_MOTION, "Structure"),
    "guides.structure_as": (_MOTION, "Shown As"),
    "guides.mask": ("Mask", "File"),
    "hybrid.": ("Video", ""),
    "hybrid.over": ("Video", "Paint Over"),
    "hybrid.composite": ("Video", "Mix In"),
    "hybrid.mask": ("Video", "Where"),
    "masking.": ("Mask", ""),
    "masking.where": ("Mask", "Where"),
    "masking.noise": ("Mask", "Noise Where"),
    "masking.alpha": ("Mask", "Start Picture's Alpha"),
    "time.": (_TIME, ""),
    "time.loop": (_TIME, "Loop"),
    "time.seam": (_TIME, "Seam"),
    "time.rife": (_TIME, "Weights"),
    "time.keyframes": (_TIME, "Keyframes"),
    "schedules.guided": ("Guided Pictures", "Amount"),
    "schedules.mask": ("Mask", "Amount"),
    "schedules.hybrid_alpha": ("Video", "Amount"),
    "schedules.hybrid_mask_alpha": ("Video", "Film's Share"),
    "schedules.hybrid_mask_contrast": ("Video", "Contrast"),
    "schedules.hybrid_cutoff_low": ("Video", "Cutoff Low"),
    "schedules.hybrid_cutoff_high": ("Video", "Cutoff High"),
}
_ITEM = re.compile(r"(prompts|guided_images|loras)\[(\d+)\](?:\.(\w+))?")
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)*): ")
_ITEMS = {"prompts": "Prompt", "guided_images": "Guided picture", "loras": "LoRA"}


def title(field: str) -> str:
    """Where an artist finds a shot's field, such as "Koshi > Video > File"; of one that Blender does not show, the
    field itself. Items of a list are counted from 1, as the list shows them."""
    if found := _ITEM.fullmatch(field):
        part = "" if found[3] in (None, "file", "image", "text") else f", {found[3]}"
        return f"{_ITEMS[found[1]]} {int(found[2]) + 1}{part}"
    place = TITLES.get(field)
    if place is None:
        wider = [name for name in TITLES if name.endswith((".", "_")) and field.startswith(name)]
        place = TITLES[max(wider, key=len)] if wider else None
    if place is None and field.startswith("schedules."):
        return field.removeprefix("schedules.").replace("_", " ").capitalize()
    if place is None:
        return field
    panel, name = place
    begin = panel if panel in ("Koshi", "Output Properties") else f"Koshi > {panel}"
    return f"{begin} > {name}" if name else begin


def in_words(error: dict[str, Any]) -> dict[str, Any]:
    """An error as BridgeError has it, its fields in the artist's words: those of a shot's faults, and of its message
    where that begins with one."""
    faults = error.get("problems") or []
    if not faults:
        begin = _FIELD.match(str(error.get("message", "")))
        if begin is None or title(begin[1]) == begin[1]:
            return error
        return {**error, "message": f"{title(begin[1])}: {error['message'][begin.end() :]}"}
    if error.get("code") != "bad_shot":
        return error
    told = [{**fault, "message": _sentence(fault)} for fault in faults]
    out = {**error, "problems": told}
    message = str(error.get("message", ""))
    if len(told) == 1 and message.startswith(f"{faults[0].get('field')}:"):
        out["message"] = told[0]["message"]
    elif len(told) > 1 and any(f"{fault.get('field')}: " in message for fault in faults):
        lines = [f"{k}. {one['message']} {one.get('hint', '')}".strip() for k, one in enumerate(told, 1)]
        out["message"] = f"{len(told)} things to mend before rendering: {' '.join(lines)}"
    return out


def _sentence(fault: dict[str, Any]) -> str:
    """A fault's message; the backend's names the field apart, and begins in small letters."""
    message, field = str(fault.get("message", "")), str(fault.get("field") or "")
    if not field or message[:1].isupper() or message.startswith(title(field)):
        return message
    return f"{title(field)}: {message}"
