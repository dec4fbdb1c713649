# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame chain: a frame's key is a hash of the previous frame's key and of all that this frame depends on.

A key that is in the store is a frame that need not be made. That one rule is resume after a crash, re-rendering
only what an edit changed, and any frame on demand.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .contents import file_hash
from .errors import Cancelled, KoshiError
from .frame import Maker, noise_recipe
from .guides import frame_file
from .models.identity import model_identity
from .models.placement import Offload
from .models.pool import load_model, model_files, pick_device, pick_dtype
from .moves import CENTRE, CURVES, CURVES_3D, FLIPS
from .noise import noise_facts
from .shot import Shot
from .store import Entry, FrameStore
from .video import READABLE

log = logging.getLogger(__name__)

# Raise this whenever the same shot would come out differently: stored frames of older code are then made again.
ALGORITHM = 5
_FILE_DEPTH = ("near", "spacing", "nearest", "farthest")


@dataclass(frozen=True)
class Frame:
    """A finished frame. index counts from 0; number is its number in file names; stored: it came from the store."""

    index: int
    number: int
    key: str
    png: bytes
    stored: bool


@dataclass(frozen=True)
class Progress:
    """Where a render stands: denoising step `step` of `steps` in frame `index`."""

    index: int
    step: int
    steps: int
    message: str


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
    def of(shot: Shot, device: torch.device, dtype: torch.dtype) -> Painter:
        files = model_files(shot.model)
        traits, kind = files.traits, str(dtype).removeprefix("torch.")
        return Painter(model_identity(files), kind, device.type, traits.guided, traits.contrasted)


def frame_key(shot: Shot, index: int, previous: str, painter: Painter) -> str:
    """The key of a frame. Only what really has an effect goes in, so that an edit costs only what it changes.

    previous: key of the frame before, "" for frame 0.
    """
    settings, row = shot.feedback, {name: values[index] for name, values in shot.values.items()}
    facts: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "model": painter.model,
        "dtype": painter.dtype,
        "device": painter.device,
        "size": [shot.width, shot.height],
        "prompt": shot.prompt_at(index),
        "steps": shot.steps,
        "seed": int(row["seed"]),
        "noise_scale": settings.noise_scale,
    }
    if shot.time_rounding != "exact":
        facts["time_rounding"] = shot.time_rounding
    if settings.carry == "latent":
        facts["carry"] = "latent"  # also of frame 0, which has to keep its own
    if painter.guided:
        facts["guidance"] = row["guidance"]
    if painter.contrasted and row["guidance"] != 1.0:
        facts["negative"] = shot.negative_at(index)
    begins = shot.begins(index)
    carried = not begins and settings.carry != "none"
    start = shot.start_of(index)
    if noise := noise_facts(noise_recipe(shot, index, row), carried):
        facts["noise"] = noise
    if carried:
        facts["previous"] = previous
        facts["carried"] = _carried_facts(shot, index, row)
    if start:
        facts["init"] = [_file_hash(start), row["strength"]]
    if begins and settings.carry != "none":
        facts["color"] = settings.color_mode  # of the anchor that goes on with the frame
    facts |= _shown_facts(shot, index, masked=carried or start is not None)
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _carried_facts(shot: Shot, index: int, row: dict[str, float]) -> dict[str, Any]:
    """What the way from the previous picture to this frame depends on."""
    settings = shot.feedback
    facts: dict[str, Any] = {name: row[name] for name in CURVES}
    if row["zoom"] == 1.0 and row["angle"] == 0.0:
        for name in CENTRE:
            del facts[name]
    if not any(row[name] for name in FLIPS[:3]):
        for name in FLIPS:
            del facts[name]
    facts |= _source_facts(shot, index, row)
    facts |= {name: row[name] for name in ("contrast", "sharpen", "noise")}
    if row["noise"] > 0.0:
        facts["noise_type"] = settings.noise_type
    if settings.color_mode != "none":
        facts["color_match"] = row["color_match"]
        changed = shot.prompt_at(index) != shot.prompt_at(index - 1)
        # Until the prompt changes, its palette and frame 0's are the same.
        held = settings.color_reference == "first" or (settings.color_reference == "prompt" and not changed)
        facts["color"] = [settings.color_mode, "held" if held else settings.color_reference]
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
    if guides.mask and masked:
        facts["mask"] = _file_hash(str(frame_file(guides.mask, shot.number(index))))
    return facts


def _source_facts(shot: Shot, index: int, row: dict[str, float]) -> dict[str, Any]:
    """What moves the picture besides the curves. Guides count by what is in them, not by their names."""
    motion, both = shot.motion, (index - 1, index)

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
            depth["file"] = guides("depth", (index - 1,))
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
    facts = {"source": motion.source, "video": guides("video")}
    if motion.source == "flow":
        facts["flow"] = [motion.flow_method, motion.flow_factor]
    return facts


def depth_model_identity(name: str) -> str:
    """What a depth model's answers depend on: its files."""
    from .depth.estimate import depth_model_folder

    folder = depth_model_folder(name)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
    return hashlib.sha256("".join(_file_hash(str(file)) for file in files).encode()).hexdigest()


def render_shot(
    shot: Shot,
    *,
    store: FrameStore | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    offload: Offload | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Frame]:
    """The shot's frames in order, from the store where they are there, else made and stored.

    The model is loaded when the first frame has to be made, and stays loaded. device, dtype, offload: as `pick_device`,
    `pick_dtype` and `pick_offload` choose when None.
    Raises KoshiError, and Cancelled when cancelled() turns true; frames yielded before are kept.
    """
    store = store if store is not None else FrameStore()
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    tell = progress or (lambda _: None)
    stop = cancelled or (lambda: False)
    painter = Painter.of(shot, where, kind)

    loaded: Maker | None = None

    def maker(at: int) -> Maker:
        nonlocal loaded
        if loaded is None:
            tell(Progress(at, 0, shot.steps, f"loading {shot.model}"))
            loaded = Maker(shot, load_model(shot.model, where, kind, offload))
        return loaded

    def make(at: int, previous: Entry | None) -> Entry:
        def step(k: int, n: int) -> None:
            tell(Progress(at, k, n, f"frame {shot.number(at)}"))

        entry = maker(at).make(at, previous, on_step=step, cancelled=stop)
        store.put(keys[at], entry)
        return entry

    def entry_of(at: int) -> Entry:
        """A stored frame's whole entry. Should it be lost or damaged, it is made again from the last sound one."""
        entry, sound = None, at + 1
        while entry is None and sound > 0:
            sound -= 1
            entry = store.get(keys[sound])
            if shot.begins(sound):
                break
        for k in range(sound if entry is None else sound + 1, at + 1):
            entry = make(k, entry)
        assert entry is not None  # the loop above has made it if it was not there
        return entry

    keys: list[str] = []
    last: Entry | None = None  # the frame before, where it is in memory
    for index in range(shot.frames):
        if stop():
            raise Cancelled
        keys.append(frame_key(shot, index, keys[-1] if keys else "", painter))
        png = store.png(keys[index])
        if png is not None:
            last = None  # its large picture is read only when a frame is made from it
            yield Frame(index, shot.number(index), keys[index], png, True)
            continue
        if last is None and not shot.begins(index) and shot.feedback.carry != "none":
            last = entry_of(index - 1)
        last = make(index, last)
        yield Frame(index, shot.number(index), keys[index], last.png, False)


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
