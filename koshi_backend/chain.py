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

from .errors import Cancelled
from .feedback import MOTION
from .frame import Maker
from .models.identity import model_identity
from .models.pool import load_model, model_folder, pick_device, pick_dtype
from .shot import Shot
from .store import Entry, FrameStore

log = logging.getLogger(__name__)

# Raise this whenever the same shot would come out differently: stored frames of older code are then made again.
ALGORITHM = 2


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


def frame_key(shot: Shot, index: int, previous: str, model: str, dtype: str) -> str:
    """The key of a frame. Only what really has an effect goes in, so that an edit costs only what it changes.

    previous: key of the frame before, "" for frame 0. model: the weights' identity.
    """
    settings, row = shot.feedback, {name: values[index] for name, values in shot.values.items()}
    facts: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "model": model,
        "dtype": dtype,
        "size": [shot.width, shot.height],
        "prompt": shot.prompt_at(index),
        "steps": shot.steps,
        "guidance": row["guidance"],
        "seed": row["seed"],
        "noise": [settings.noise_mode, settings.noise_delta, settings.noise_scale],
    }
    alone = index == 0 or settings.carry == "none"
    if alone:
        # The noise of later frames depends on their place, unless it is fixed.
        facts["index"] = 0 if settings.noise_mode == "fixed" else index
    else:
        facts["index"] = index
        facts["previous"] = previous
        facts["row"] = {name: row[name] for name in (*MOTION, "noise", "contrast", "sharpen", "color_match")}
        strength = row["strength"]
        # A frame that starts from pure noise with the picture as reference knows only strength 0 and not 0.
        facts["strength"] = strength if settings.condition != "reference" else float(strength > 0.0)
        facts["feedback"] = settings.model_dump()
    if index == 0 and shot.init_image:
        facts["init"] = [_file_hash(shot.init_image), row["strength"]]
    if index == 0 and settings.carry != "none":
        facts["anchor"] = settings.color_mode
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def render_shot(
    shot: Shot,
    *,
    store: FrameStore | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Frame]:
    """The shot's frames in order, from the store where they are there, else made and stored.

    The model is loaded when the first frame has to be made, and stays loaded.
    Raises KoshiError, and Cancelled when cancelled() turns true; frames yielded before are kept.
    """
    store = store if store is not None else FrameStore()
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    tell = progress or (lambda _: None)
    stop = cancelled or (lambda: False)
    identity = model_identity(model_folder(shot.model))

    loaded: Maker | None = None

    def maker(at: int) -> Maker:
        nonlocal loaded
        if loaded is None:
            tell(Progress(at, 0, shot.steps, f"loading {shot.model}"))
            loaded = Maker(shot, load_model(shot.model, where, kind))
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
        for k in range(sound if entry is None else sound + 1, at + 1):
            entry = make(k, entry)
        assert entry is not None  # the loop above has made it if it was not there
        return entry

    keys: list[str] = []
    last: Entry | None = None  # the frame before, where it is in memory
    for index in range(shot.frames):
        if stop():
            raise Cancelled
        keys.append(frame_key(shot, index, keys[-1] if keys else "", identity, str(kind).removeprefix("torch.")))
        png = store.png(keys[index])
        if png is not None:
            last = None  # its large picture is read only when a frame is made from it
            yield Frame(index, shot.number(index), keys[index], png, True)
            continue
        if last is None and index > 0 and shot.feedback.carry != "none":
            last = entry_of(index - 1)
        last = make(index, last)
        yield Frame(index, shot.number(index), keys[index], last.png, False)


def stored_frames(shot: Shot, store: FrameStore, device: str | None = None) -> int:
    """How many frames from the start are in the store already."""
    kind = str(pick_dtype(pick_device(device))).removeprefix("torch.")
    identity, key = model_identity(model_folder(shot.model)), ""
    for index in range(shot.frames):
        key = frame_key(shot, index, key, identity, kind)
        if not store.path(key).exists():
            return index
    return shot.frames


@functools.lru_cache(maxsize=64)
def _hash_at(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_hash(path: str) -> str:
    stat = Path(path).stat()
    return _hash_at(path, stat.st_size, stat.st_mtime_ns)


__all__ = ["ALGORITHM", "Entry", "Frame", "Progress", "frame_key", "render_shot", "stored_frames"]
