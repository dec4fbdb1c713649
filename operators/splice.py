# SPDX-License-Identifier: GPL-3.0-or-later
"""A take's first frames as they are, and the rest as the scene is now: two shots become one. No bpy.

A frame depends on nothing but what holds up to it (the frame chain), so that the frames before the splice come from
the store, and the new shot is one like any other: it can be exported, and rendered on a farm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..bridge_server.protocol import BridgeError
from ..koshi_backend.easing import LEAST
from .carried_shot import DEFAULTS
from .prompt_text import Spot, shares, short

# What may differ from the splice on; anything else a shot says holds for the whole of it.
_PER_FRAME = {"schedules", "seed", "prompts", "motion", "frames", "fps", "audio", "loras"}
_WORDS = {
    "model": "the model", "width": "the width", "height": "the height", "frame_start": "the first frame",
    "frame_step": "the frame step", "steps": "the steps", "feedback": "the mode", "guides": "structure or mask",
    "init_image": "what it starts from", "time": "keyframes, loop or interpolation", "source": "the motion's source",
    "depth": "the depth", "hybrid": "the video's part", "masking": "the mask", "guided_images": "the guided pictures",
    "guided_as": "how pictures guide", "color_image": "the colours' picture", "color_every": "the colours' picture",
    "seed_behavior": "how seeds go on", "seed_iter_n": "how seeds go on",
    "time_rounding": "the time rounding",
}  # fmt: skip
RESEED = 1000  # further than the seeds of a take's own frames lie apart, most often


def splice(old: dict[str, Any], new: dict[str, Any], at: int) -> dict[str, Any]:
    """`new`, whose frames before `at` (from 0) are `old`'s. Both as Blender samples them.

    Raises BridgeError "cannot_splice" where `old` has no frame before `at`, or where they differ in what holds for a
    whole shot.
    """
    if not 0 < at <= old["frames"] or at >= new["frames"]:
        first, step = old["frame_start"], old.get("frame_step", 1)
        raise BridgeError(
            "cannot_splice",
            f"Frame {first + at * step} cannot go on from this take, which has the frames {first} to "
            f"{first + (old['frames'] - 1) * step}.",
            "Put the playhead after the take's first frame, and before the end of the scene's range.",
        )
    _check_alike(old, new)
    out = dict(new)
    names = sorted({*old["schedules"], *new["schedules"]})
    out["schedules"] = {name: short(_column(old, name)[:at] + _column(new, name)[at:]) for name in names}
    seeds = _column(old, "seed")[:at] + _column(new, "seed")[at:]
    out["seed"] = old["seed"]
    out["schedules"].pop("seed", None)
    if any(seed != old["seed"] for seed in seeds):
        out["schedules"]["seed"] = seeds
    out["prompts"] = _prompts(old, new, at)
    out.pop("loras", None)
    if loras := _loras(old, new, at):
        out["loras"] = loras
    out.pop("motion", None)
    if motion := _motion(old.get("motion", {}), new.get("motion", {}), at):
        out["motion"] = motion
    return out


def unchanged(old: dict[str, Any], shot: dict[str, Any], at: int) -> bool:
    """Whether a spliced shot has nothing from frame `at` on that `old` has not."""
    end, names = shot["frames"], {*shot["schedules"], "seed"}
    if end > old["frames"] or any(_column(old, name)[at:end] != _column(shot, name)[at:] for name in names):
        return False
    if any(_weights_of(one, end)[at:] != _weights_of(other, end)[at:] for one, other in _paired(old, shot)):
        return False
    prompts = _prompts(old, {**old, "frames": end}, at)
    before, now = old.get("motion", {}), shot.get("motion", {})
    same_cuts = [cut for cut in before.get("cuts", []) if cut < end] == now.get("cuts", [])
    return prompts == shot["prompts"] and same_cuts and before.get("cameras", [])[:end] == now.get("cameras", [])


def reseeded(shot: dict[str, Any], at: int, times: int = 1) -> dict[str, Any]:
    """The shot with other seeds from frame `at` on."""
    seeds = _column(shot, "seed")
    seeds = seeds[:at] + [seed + RESEED * times for seed in seeds[at:]]
    return {**shot, "schedules": {**shot["schedules"], "seed": seeds}}


def _check_alike(old: dict[str, Any], new: dict[str, Any]) -> None:
    differs = [name for name in sorted({*old, *new} - _PER_FRAME) if old.get(name) != new.get(name)]
    if old.get("motion", {}).get("source") != new.get("motion", {}).get("source"):
        differs.append("source")
    if differs:
        what = [_WORDS.get(name, name) for name in differs]
        listed = ", ".join(what[:-1]) + " and " + what[-1] if len(what) > 1 else what[0]
        raise BridgeError(
            "cannot_splice",
            f"This take was rendered with other settings for the whole shot: {listed}.",
            "Set them back to go on from it, or render the shot anew.",
        )


def _column(shot: dict[str, Any], name: str) -> list[Any]:
    value = shot["schedules"].get(name, shot["seed"] if name == "seed" else DEFAULTS.get(name))
    return list(value) if isinstance(value, list) else [value] * shot["frames"]


def _prompts(old: dict[str, Any], new: dict[str, Any], at: int) -> list[dict[str, Any]]:
    """Prompts in the order of their frames; a text that only repeats the one before it is left out. Where they go over
    into one another or have weights, all of them get weights, frame by frame."""
    given = [old["prompts"], new["prompts"]]
    if any(prompt.get("ease", "hold") != "hold" or "weight" in prompt for prompts in given for prompt in prompts):
        return _weighted(old, new, at)
    before = [prompt for prompt in old["prompts"] if prompt["frame"] < at]
    held = {**max((p for p in new["prompts"] if p["frame"] <= at), key=lambda p: p["frame"]), "frame": at}
    out: list[dict[str, Any]] = []
    for prompt in [*before, held, *(p for p in new["prompts"] if at < p["frame"] < new["frames"])]:
        if not out or {**prompt, "frame": 0} != {**out[-1], "frame": 0}:
            out.append(prompt)
    return out


def _weighted(old: dict[str, Any], new: dict[str, Any], at: int) -> list[dict[str, Any]]:
    """The prompts of two shots by their weights alone: of the first before frame `at`, of the other from it on."""
    end = new["frames"]
    columns: dict[tuple[str, str], list[float]] = {}
    for shot, span in ((old, range(at)), (new, range(at, end))):
        for says, weights in _weights(shot, span):
            column = columns.setdefault(says, [0.0] * end)
            for k, weight in zip(span, weights, strict=True):
                column[k] += weight
    return [
        {"frame": 0, "text": text, **({"negative": negative} if negative else {}), "weight": short(column)}
        for (text, negative), column in columns.items()
        if max(column) > LEAST
    ]


def _weights(shot: dict[str, Any], span: range) -> list[tuple[tuple[str, str], Sequence[float]]]:
    """Each prompt's weight at some of a shot's frames, in the shot's order."""
    prompts = shot["prompts"]
    main = sorted((p for p in prompts if p.get("weight") is None), key=lambda p: p["frame"])
    turns = shares([Spot(p["frame"], p["text"], ease=p.get("ease", "hold")) for p in main], span) if main else []
    found = []
    for prompt in prompts:
        given = prompt.get("weight")
        if given is None:
            weights: Sequence[float] = turns[main.index(prompt)]
        else:
            every = given if isinstance(given, list) else [given] * shot["frames"]
            weights = [every[k] if k >= prompt["frame"] else 0.0 for k in span]
        found.append(((prompt["text"], prompt.get("negative", "")), weights))
    return found


def _loras(old: dict[str, Any], new: dict[str, Any], at: int) -> list[dict[str, Any]]:
    """The LoRAs of two shots: the first one's weights up to frame `at`, from there on the other's; 0 for one that a
    shot has not."""
    joined = []
    for one, other in _paired(old, new):
        column = _weights_of(one, new["frames"])[:at] + _weights_of(other, new["frames"])[at:]
        if any(column):
            joined.append({"file": (one or other)["file"], "weight": short(column)})
    return joined


def _paired(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The LoRAs of two shots, each beside the same file's in the other, or beside none ({})."""
    rest, pairs = list(new.get("loras", [])), []
    for one in old.get("loras", []):
        same = next((other for other in rest if other["file"] == one["file"]), {})
        if same:
            rest.remove(same)
        pairs.append((one, same))
    return [*pairs, *(({}, other) for other in rest)]


def _weights_of(lora: dict[str, Any], frames: int) -> list[float]:
    weight = lora.get("weight", 1.0) if lora else 0.0
    return list(weight) if isinstance(weight, list) else [weight] * frames


def kept_pictures(shot: dict[str, Any], at: int) -> int:
    """How many of a spliced shot's first pictures are the take's for certain: those up to the last frame that the take
    has made before frame `at`."""
    reach = max(int(value) for value in _column(shot, "cadence")[:at])
    return max(at - reach, 0) * shot.get("time", {}).get("interpolation", 1) + 1


def _motion(old: dict[str, Any], new: dict[str, Any], at: int) -> dict[str, Any]:
    out = {key: value for key, value in new.items() if key not in ("cuts", "cameras")}
    if cuts := [c for c in old.get("cuts", []) if c < at] + [c for c in new.get("cuts", []) if c >= at]:
        out["cuts"] = cuts
    if "cameras" in new:
        out["cameras"] = old["cameras"][:at] + new["cameras"][at:]
    return out
