# SPDX-License-Identifier: GPL-3.0-or-later
"""What a frame depends on, as a hash: the key under which it is stored."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .contents import file_hash
from .errors import KoshiError
from .footage import footage_place
from .frame import noise_recipe
from .guided import color_frame
from .guides import frame_file
from .hybrid_checks import mixed_from
from .lora.file import lora_identity
from .mask_words import WORDS, Place
from .models.identity import model_identity
from .models.pool import model_files
from .models.quantise import Quantise
from .moves import CENTRE, CURVES, CURVES_3D, FLIPS
from .noise import noise_facts
from .shot import Shot
from .timing import Spot, seam_share
from .video_reader import READABLE

# Raise this whenever the same shot would come out differently: stored frames of older code are then made again.
ALGORITHM = 6
BETWEEN = 1  # the same of pictures between frames
_FILE_DEPTH = ("near", "spacing", "nearest", "farthest")


@dataclass(frozen=True)
class Painter:
    """What paints, as far as it has an effect on pictures.

    model: the weights' identity. dtype and device: "float32", "cpu": sums differ in their last bits between kinds.
    guided: whether the model takes guidance at all. contrasted: whether it does so by the negative prompt.
    """

    model: str
    dtype: str
    device: str
    guided: bool
    contrasted: bool = False

    @staticmethod
    def of(shot: Shot, device: torch.device, dtype: torch.dtype, quantise: Quantise = "none") -> Painter:
        files = model_files(shot.model)
        traits, kind = files.traits, str(dtype).removeprefix("torch.")
        return Painter(model_identity(files, quantise), kind, device.type, traits.guided, traits.contrasted)


def frame_key(shot: Shot, index: int, previous: str, painter: Painter, first: str = "") -> str:
    """The key of a made frame. Only what really has an effect goes in, so that an edit costs only what it changes.

    previous: key of the made frame before, "" for frame 0. first: that of frame 0, for the end of a seamless loop.
    """
    settings, row = shot.feedback, {name: values[index] for name, values in shot.values.items()}
    parts = shot.texts.at(index)
    facts: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "model": painter.model,
        "dtype": painter.dtype,
        "device": painter.device,
        "size": [shot.width, shot.height],
        "prompt": _said([(part.text, part.weight) for part in parts]),
        "steps": shot.steps,
        "seed": int(row["seed"]),
        "noise_scale": settings.noise_scale,
    }
    if shot.time_rounding != "exact":
        facts["time_rounding"] = shot.time_rounding
    if settings.carry == "latent":
        facts["carry"] = "latent"  # also of frame 0, which has to keep its own
    if loras := shot.loras_at(index):
        facts["loras"] = [[lora_identity(file), weight] for file, weight in loras]
    if painter.guided:
        facts["guidance"] = row["guidance"]
    if painter.contrasted and row["guidance"] != 1.0:
        facts["negative"] = _said([(part.negative, part.weight) for part in parts])
    begins = shot.begins(index)
    carried = not begins and settings.carry != "none"
    start = shot.start_of(index)
    if noise := noise_facts(noise_recipe(shot, index, row), carried):
        facts["noise"] = noise
    if carried:
        facts["previous"] = previous
        facts["carried"] = _carried_facts(shot, index, row)
        if index >= shot.seam:
            share = seam_share(index, shot.before(index), shot.seam, shot.frames)
            facts["seam"] = [first, share, move_facts(shot, index, shot.frames)]
    guided = _guided_facts(shot, index)
    if shot.begins_in_video(index):
        facts["init"] = [*_video_facts(shot, index), row["strength"]]
    elif start:
        facts["init"] = [_file_hash(start), row["strength"]]
    elif guided and not carried and shot.guided_as != "shown":
        facts["init"] = [row["strength"]]
    if begins and settings.carry != "none":
        facts["color"] = settings.color_mode  # of the anchor that goes on with the frame
    if shot.hybrid.composite != "none" and (mixed := mixed_from(shot, index)) is not None:
        facts["hybrid"] = _hybrid_facts(shot, mixed, row)
    facts |= guided | _shown_facts(shot, index, masked=carried or "init" in facts)
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _said(parts: list[tuple[str, float]]) -> str | list[tuple[str, float]]:
    """A text, or texts with their shares."""
    return parts[0][0] if len(parts) == 1 else parts


def between_key(shot: Shot, spot: Spot, ends: tuple[str, str], moves: list[dict[str, Any]]) -> str:
    """The key of a picture between two made frames. ends: their keys. moves: `move_facts` from one to the other."""
    facts: dict[str, Any] = {"between": BETWEEN, "ends": ends, "place": str(spot.place - spot.first)}
    method, moving = shot.time.inbetween, shot.feedback.carry != "none"
    if moving:
        facts |= {"moves": moves, "border": shot.feedback.border, "method": method}
    if method == "rife":
        facts["rife"] = _file_hash(shot.time.rife or "")
    elif method == "flow" or not moving:
        facts["far"] = True  # flow looks again where it was lost (motion/far_flow.py)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def move_facts(shot: Shot, first: int, last: int) -> list[dict[str, Any]]:
    """What the moves into the frames first + 1 .. last depend on; from the shot's length on they count from 0 again."""
    return [_move_facts(shot, index % shot.frames) for index in range(first + 1, last + 1)]


def _move_facts(shot: Shot, index: int) -> dict[str, Any]:
    row = {name: values[index] for name, values in shot.values.items()}
    facts: dict[str, Any] = {name: row[name] for name in CURVES}
    if row["zoom"] == 1.0 and row["angle"] == 0.0:
        for name in CENTRE:
            del facts[name]
    if not any(row[name] for name in FLIPS[:3]):
        for name in FLIPS:
            del facts[name]
    return facts | _source_facts(shot, index, row)


def _carried_facts(shot: Shot, index: int, row: dict[str, float]) -> dict[str, Any]:
    """What the way from the previous picture to this frame depends on."""
    settings, before = shot.feedback, shot.before(index)
    *through, facts = move_facts(shot, before, index)
    if through:
        facts["through"] = through
    facts |= {name: row[name] for name in ("contrast", "sharpen", "noise")}
    if row["noise"] > 0.0:
        facts["noise_type"] = settings.noise_type
        if (place := shot.noise_mask_at(index)) is not None and (noisy := _place_facts(shot, place, index)):
            facts["noise_mask"] = noisy
    if settings.color_mode != "none":
        facts["color_match"] = row["color_match"]
        turning = shot.texts.turning(index, before)
        # Until the prompt changes, its palette and frame 0's are the same.
        held = settings.color_reference == "first" or (settings.color_reference == "prompt" and not turning)
        facts["color"] = [settings.color_mode, "held" if held else settings.color_reference]
        if settings.color_reference in ("image", "guided"):
            facts["color"] = [settings.color_mode, *_color_facts(shot, index)]
        if shot.texts.mixes and turning and not held:
            facts["palettes"] = [part.prompt for part in shot.texts.at(index)]
    facts |= {"border": settings.border, "position": settings.position, "condition": settings.condition}
    # A frame that starts from pure noise with the picture as reference knows only strength 0 and not 0.
    facts["strength"] = row["strength"] if settings.condition != "reference" else float(row["strength"] > 0.0)
    return facts


def _shown_facts(shot: Shot, index: int, masked: bool) -> dict[str, Any]:
    """What a frame is shown besides the frame before, and where it is painted. masked: whether there is something that
    a mask could keep."""
    guides, facts = shot.guides, dict[str, Any]()
    if guides.structure:
        file = frame_file(guides.structure, shot.number(index))
        facts["structure"] = [guides.structure_as, _file_hash(str(file))]
        if guides.structure_as != "picture" and file.suffix.lower() not in (".exr", ".npy"):
            facts["grey"] = shot.depth.model_dump(include=set(_FILE_DEPTH))
    if masked:
        facts |= _mask_facts(shot, index)
    return facts


def _mask_facts(shot: Shot, index: int) -> dict[str, Any]:
    """Where a frame is painted, and how much."""
    counts, place = shot.values["mask"][index], shot.mask_at(index)
    files = [] if counts == 0.0 or place is None else _place_facts(shot, place, index)
    if not files:
        return {}
    made = shot.masking.model_dump(exclude_defaults=True, exclude={"alpha", *WORDS})
    if place == Place("init_mask"):  # however that is said
        made, files = {"alpha": True, **made}, files[:1]
    return {"mask": ["strength", *files, *([made] if made else []), *([counts] if counts != 1.0 else [])]}


def _place_facts(shot: Shot, place: Place, index: int) -> list[Any]:
    """A mask in words: its files, by what is in them. Nothing for an alpha channel that is not there."""
    if place.parts:
        return [place.op, *(_place_facts(shot, part, index) for part in place.parts)]
    if place.op in ("file", "video_mask"):
        return _footage_facts(shot, place.file or shot.guides.mask or "", index)
    start = shot.start_of(shot.scene_of(index)) if place.op == "init_mask" else None
    return [_file_hash(start), "alpha"] if start else ["everywhere"] * (place.op == "everywhere")


def _video_facts(shot: Shot, index: int) -> list[Any]:
    """The video's picture for a frame."""
    return _footage_facts(shot, shot.guides.video or "", index, timed=True)


def _hybrid_facts(shot: Shot, at: int, row: dict[str, float]) -> list[Any]:
    """How the video is mixed in. at: the frame whose picture of the video it is."""
    settings = shot.hybrid
    facts: list[Any] = [settings.composite, row["hybrid_alpha"], *_video_facts(shot, at)]
    if settings.mask == "none":
        return facts
    facts += [settings.mask, settings.inverse, settings.equalize, row["hybrid_mask_contrast"]]
    if settings.auto_contrast:
        facts += ["cut off", row["hybrid_cutoff_low"], row["hybrid_cutoff_high"]]
    if settings.mask == "blend":
        facts.append(row["hybrid_mask_alpha"])
    if settings.mask in ("depth", "video_depth"):
        facts.append(shot.depth.model_dump(include={"source", *_FILE_DEPTH}))
        if shot.depth.source == "model":
            facts.append(depth_model_identity(shot.depth.model))
        elif shot.depth.source != "groups":
            facts.append(_file_hash(str(frame_file(shot.guides.depth or "", shot.number(at)))))
    return facts


def _guided_facts(shot: Shot, index: int) -> dict[str, Any]:
    """What a frame is drawn towards."""
    name, counts = shot.guided_at(index), shot.values["guided"][index]
    if name is None or counts == 0.0:
        return {}
    return {"guided": [_file_hash(name), *(["shown"] if shot.guided_as == "shown" else [shot.guided_as, counts])]}


def _color_facts(shot: Shot, index: int) -> list[Any]:
    """What colours are matched to, if it is a picture of its own."""
    if shot.feedback.color_reference == "image":
        return ["image", *_footage_facts(shot, shot.color_image or "", color_frame(shot, index))]
    name = shot.guided_at(index)
    return ["held"] if name is None else ["image", _file_hash(name)]


def _footage_facts(shot: Shot, name: str, index: int, *, timed: bool = False) -> list[Any]:
    """A picture out of a file, numbered files or a video."""
    file, number = footage_place(shot, name, index, timed=timed)
    return [_file_hash(str(file))] if number is None else [_file_hash(str(file)), number]


def _source_facts(shot: Shot, index: int, row: dict[str, float]) -> dict[str, Any]:
    """What moves the picture besides the curves. Guides count by what is in them, not by their names."""
    motion, both = shot.motion, (shot.preceding(index), index)

    def guides(name: str, frames: tuple[int, ...] = both) -> list[Any] | None:
        pattern = getattr(shot.guides, name)
        if pattern is None:
            return None
        files = [frame_file(pattern, shot.number(k)) for k in frames]
        one_for_all = files[0].suffix.lower() in READABLE
        return [_file_hash(str(file)) for file in files] + ([index] if one_for_all else [])

    facts: dict[str, Any] = {}
    if motion.source == "2d":
        return facts
    if motion.source == "3d":
        depth = shot.depth.model_dump(include={"source", *(_FILE_DEPTH if shot.depth.source == "files" else ())})
        if shot.depth.source == "files":
            depth["file"] = guides("depth", both[:1])
        elif shot.depth.source == "model":
            depth["model"] = depth_model_identity(shot.depth.model)
        return {"3d": {name: row[name] for name in (*CURVES_3D, "aspect_ratio")}, "depth": depth}
    if motion.source == "camera":
        cameras = [(motion.cameras or [])[k].model_dump() for k in both]
        facts = {"cameras": cameras, "depth": guides("depth"), "vector": guides("vector")}
        if shot.guides.vector is not None and shot.guides.vector_seen != "camera":
            facts["vector_seen"] = shot.guides.vector_seen
        if shot.guides.depth is None and motion.plane is not None:
            facts["plane"] = motion.plane.model_dump()
        elif frame_file(shot.guides.depth or "", 0).suffix.lower() != ".exr":
            facts["grey"] = shot.depth.model_dump(include=set(_FILE_DEPTH))
        return facts
    facts = {"source": motion.source, "video": _moving_facts(shot, both)}
    if motion.source == "flow":
        far = [] if motion.flow_method == "raft" else ["far"]  # looks again where it was lost (motion/far_flow.py)
        facts["flow"] = [motion.flow_method, motion.flow_factor, *far]
    return facts


def _moving_facts(shot: Shot, both: tuple[int, int]) -> list[Any]:
    """The video's two pictures whose difference is a move."""
    files, (before, now) = [shot.video_file(k) for k in both], (shot.video_frame(k) for k in both)
    facts: list[Any] = [_file_hash(str(file)) for file in files]
    if files[0].suffix.lower() in READABLE:
        facts.append(now if (before, now) == both else [before, now])
    return facts


def depth_model_identity(name: str) -> str:
    """What a depth model's answers depend on: its files."""
    from .depth.estimate import depth_model_folder

    folder = depth_model_folder(name)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
    return hashlib.sha256("".join(_file_hash(str(file)) for file in files).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _hash_at(path: str, size: int, changed: int) -> str:
    return file_hash(path)


def _file_hash(path: str) -> str:
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise KoshiError(
            "bad_image", f"The picture {path} cannot be read: {error.strerror}.", "Check the path."
        ) from error
    return _hash_at(path, stat.st_size, stat.st_mtime_ns)
